"""Filters and orders evaluated in plain Python, row by row: what the database must agree with.

Written from the contract, and sharing no line with the code under test: it reads the JSON of both
languages itself. True, False, and None for unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeGuard

Row = Mapping[str, Any]
"""As JSON has it."""

TYPES = {
    "id": "uuid",
    "user_id": "text",
    "title": "text",
    "count": "integer",
    "large": "bigint",
    "ratio": "numeric",
    "done": "boolean",
    "at": "timestamptz",
    "day": "date",
    "ref": "uuid",
    "extra": "jsonb",
    "tags": "text[]",
    "marks": "integer[]",
    "created_at": "timestamptz",
}


def where(row: Row, node: Mapping[str, Any]) -> bool | None:
    """The language of 0.1.x."""
    results: list[bool | None] = []
    for key, value in node.items():
        if key == "and":
            results.append(every([where(row, part) for part in value]))
        elif key == "or":
            results.append(some([where(row, part) for part in value]))
        elif key == "not":
            results.append(opposite(where(row, value)))
        elif value is None:
            results.append(row[key] is None)
        elif _named(value):
            results += [compare(row, key, op, operand) for op, operand in value.items()]
        else:
            results.append(compare(row, key, "eq", value))
    return every(results)


def tree(row: Row, node: Mapping[str, Any]) -> bool | None:
    """The language of 4.x."""
    if "and" in node:
        return every([tree(row, part) for part in node["and"]])
    if "or" in node:
        return some([tree(row, part) for part in node["or"]])
    if "not" in node:
        return opposite(tree(row, node["not"]))
    return compare(row, node["column"], node["op"], node.get("value"))


def every(results: list[bool | None]) -> bool | None:
    """AND of three values."""
    if False in results:
        return False
    return None if None in results else True


def some(results: list[bool | None]) -> bool | None:
    """OR of three values."""
    if True in results:
        return True
    return None if None in results else False


def opposite(result: bool | None) -> bool | None:
    """NOT of three values."""
    return None if result is None else not result


def compare(row: Row, column: str, op: str, operand: Any) -> bool | None:
    """One comparison."""
    op = re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", op)
    value = row[column]
    if op == "is_null":
        return value is None
    if op == "is_not_null":
        return value is not None
    if op == "in":
        return listed(column, value, operand)
    if op == "not_in":
        return opposite(listed(column, value, operand))
    if value is None:
        return None
    if op in ("like", "ilike"):
        fold: Callable[[str], str] = str.lower if op == "ilike" else str
        return re.fullmatch(pattern(fold(operand)), fold(value), re.DOTALL) is not None
    if op in ("contains", "overlaps", "contained_by"):
        if TYPES[column] != "jsonb" and not _listed(operand):
            operand = [operand]
        if op == "contains":
            return holds(value, operand, top=True)
        if op == "contained_by":
            return holds(operand, value, top=True)
        members = value if _listed(value) else [value]
        return any(equal(one, other) for one in members for other in operand)
    if TYPES[column] == "jsonb" or TYPES[column].endswith("[]"):
        return {"eq": equal(value, operand), "ne": not equal(value, operand)}[op]
    one, other = ordered(column, value), ordered(column, operand)
    results: dict[str, bool] = {
        "eq": one == other,
        "ne": one != other,
        "gt": one > other,
        "gte": one >= other,
        "lt": one < other,
        "lte": one <= other,
    }
    return results[op]


def listed(column: str, value: Any, operands: list[Any]) -> bool | None:
    """`= ANY`: of a null in the list nothing is known."""
    found = [compare({column: value}, column, "eq", o) for o in operands if o is not None]
    return some([*found, None] if None in operands else found)


def ordered(column: str, value: Any) -> Any:
    """What a value is compared by."""
    if TYPES[column] == "timestamptz":
        return datetime.fromisoformat(value)
    return value.lower() if TYPES[column] == "uuid" else value


def pattern(like: str) -> str:
    """A LIKE pattern as a regular expression."""
    made = ""
    characters = iter(like)
    for character in characters:
        if character == "\\":
            made += re.escape(next(characters))
        else:
            made += {"%": ".*", "_": "."}.get(character) or re.escape(character)
    return made


def equal(one: Any, other: Any) -> bool:
    """Of JSON: true is not 1, 1 is 1.0."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if _listed(one) and _listed(other):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    if _named(one) and _named(other):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    kinds: set[object] = {type(one), type(other)}
    return one == other and (len(kinds) == 1 or kinds <= {int, float})


def holds(outer: Any, inner: Any, *, top: bool = False) -> bool:
    """Postgres' `@>`."""
    if _named(outer) and _named(inner):
        return all(key in outer and holds(outer[key], inner[key]) for key in inner)
    if _listed(outer) and _listed(inner):
        return all(any(holds(member, wanted) for member in outer) for wanted in inner)
    if _listed(outer) and top and not _named(inner):
        return any(equal(member, inner) for member in outer)
    return equal(outer, inner)


def sort(rows: list[Row], order: list[tuple[str, bool]]) -> list[Row]:
    """By columns, (name, descending): nulls last ascending, first descending; the id decides."""
    if all(name != "id" for name, _ in order):
        order = [*order, ("id", order[0][1])]
    done = list(rows)
    for name, descending in reversed(order):
        known = [row for row in done if row[name] is not None]
        known.sort(key=lambda row: ordered(name, row[name]), reverse=descending)
        nulls = [row for row in done if row[name] is None]
        done = [*nulls, *known] if descending else [*known, *nulls]
    return done


def _listed(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _named(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)

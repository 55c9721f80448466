"""Filters over rows: both of the platform's languages, read into one small tree.

A value is checked against its column and kept as the database has it; nothing here is SQL.
Source: contract E.5 (filter DSLs); what the pages leave open is ours and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from amba_router.api import faults
from amba_router.api.faults import Refused
from amba_router.rows.columns import ARRAYS, Collection, Column, Stored, to_stored
from amba_router.rows.shapes import is_array, is_object
from amba_runtime import limits


class Op(StrEnum):
    """What a leaf asks of its column; the value is the spelling of 4.x."""

    EQ = "eq"
    NE = "ne"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    IN = "in"
    NOT_IN = "not_in"
    LIKE = "like"
    ILIKE = "ilike"
    IS_NULL = "is_null"
    IS_NOT_NULL = "is_not_null"
    CONTAINS = "contains"
    OVERLAPS = "overlaps"
    CONTAINED_BY = "contained_by"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One comparison.

    Attributes:
        value: in its stored form; a tuple of them for `IN` and `NOT_IN`, a pattern for `LIKE` and
            `ILIKE`, JSON text for the three of arrays and jsonb, None for the tests of null.
    """

    column: Column
    op: Op
    value: Stored | tuple[Stored, ...] = None


@dataclass(frozen=True, slots=True)
class All:
    """True where all parts are; of no parts, everywhere."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True where one part is."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """True where its part is false; unknown stays unknown, as in SQL."""

    part: Filter


Filter = Leaf | All | AnyOf | Not

EVERYTHING = All(())
"""The filter of no conditions."""

_SPELLINGS = {
    **{op.value: op for op in Op},
    "notIn": Op.NOT_IN,
    "isNull": Op.IS_NULL,
    "isNotNull": Op.IS_NOT_NULL,
    "containedBy": Op.CONTAINED_BY,
}
_NULL_TESTS = frozenset({Op.IS_NULL, Op.IS_NOT_NULL})
_LISTS = frozenset({Op.IN, Op.NOT_IN})
_PATTERNS = frozenset({Op.LIKE, Op.ILIKE})
_INSIDE = frozenset({Op.CONTAINS, Op.OVERLAPS, Op.CONTAINED_BY})
_ORDERED = frozenset({Op.GT, Op.GTE, Op.LT, Op.LTE})
_LOGIC = frozenset({"and", "or", "not"})
_LEAF_KEYS = frozenset({"column", "op", "value"})

_Read = Callable[[object, str, int], Filter]
"""Reads one node: of this place, at this depth."""


def parse_where(collection: Collection, where: object, place: str = "$.where") -> Filter:
    """Read the language of 0.1.x: columns, `and`, `or` and `not` in one object, all of which hold.

    Several operators of one column all hold, too: the platform's functions SDK takes the first in
    an order of its own and ignores the rest, which no one can want (contract E.5).

    Raises:
        Refused: INVALID_FILTER, with the place of what is wrong.
    """
    return _Reader(collection).where(where, place, 0)


def parse_filter(collection: Collection, tree: object, place: str = "$.filter") -> Filter:
    """Read the language of 4.x: `{column, op, value}`, or one of `and`, `or`, `not`.

    Raises:
        Refused: as `parse_where`.
    """
    return _Reader(collection).tree(tree, place, 0)


def filter_of(collection: Collection, options: Mapping[str, object], place: str = "$") -> Filter:
    """The filter among a call's options: `where` or `filter`, each in either language.

    The key decides where an object could be both; without one of them, everything.

    Raises:
        Refused: as `parse_where`.
    """
    where, tree = options.get("where"), options.get("filter")
    if where is not None and tree is not None:
        raise _refuse(place, "give where or filter, not both")
    if where is not None:
        named = {column.name for column in collection.all_columns}
        if _is_tree(where) and not {"column", "op"} <= named:
            return parse_filter(collection, where, f"{place}.where")
        return parse_where(collection, where, f"{place}.where")
    if tree is None:
        return EVERYTHING
    plain = is_object(tree) and not tree.keys() & _LEAF_KEYS
    read = parse_where if plain and not _is_tree(tree) else parse_filter
    return read(collection, tree, f"{place}.filter")


def _is_tree(node: object) -> bool:
    """Whether it is of 4.x: its first leaf has a column and an operator."""
    for _ in range(limits.COLLECTION_FILTER_DEPTH.value + 1):
        if not is_object(node):
            return False
        if {"column", "op"} <= node.keys():
            return True
        if len(node) != 1 or not node.keys() <= _LOGIC:
            return False
        inside = next(iter(node.values()))
        node = inside[0] if is_array(inside) and inside else inside
    return True  # too deep in either: let the reader say so


class _Reader:
    """Counts what it has read: a filter is bounded in all."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._columns = {column.name: column for column in collection.all_columns}
        self._leaves = 0
        self._values = 0

    def where(self, node: object, place: str, depth: int) -> Filter:
        members = _object(node, place)
        parts: list[Filter] = []
        for key, value in members.items():
            if key in _LOGIC:
                parts.append(self._logic(key, value, f"{place}.{key}", depth, self.where))
            else:
                column = self._column(key, place)
                parts += self._conditions(column, value, f"{place}.{key}")
        if not parts and depth:
            raise _refuse(place, "an empty object says nothing; leave it out")
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def tree(self, node: object, place: str, depth: int) -> Filter:
        members = _object(node, place)
        if not members and not depth:
            return EVERYTHING
        if len(members) == 1:
            (key, value) = next(iter(members.items()))
            if key in _LOGIC:
                return self._logic(key, value, f"{place}.{key}", depth, self.tree)
        name, op = members.get("column"), members.get("op")
        if not members.keys() <= _LEAF_KEYS or not isinstance(name, str) or not isinstance(op, str):
            raise _refuse(
                place,
                'must be {"column", "op", "value"}, or exactly one of "and", "or" and "not"',
            )
        column = self._column(name, f"{place}.column")
        spelled = self._op(column, op, f"{place}.op")
        if spelled in _NULL_TESTS:
            # "no value" has two spellings
            if members.get("value") not in (None, True):
                raise _refuse(f"{place}.value", f"{op} takes no value; leave it out")
            return self._leaf(column, spelled, True, place)
        if "value" not in members:
            raise _refuse(place, f"{op} needs a value")
        return self._leaf(column, spelled, members["value"], f"{place}.value")

    def _logic(self, key: str, value: object, place: str, depth: int, read: _Read) -> Filter:
        if depth >= limits.COLLECTION_FILTER_DEPTH.value:
            most = limits.COLLECTION_FILTER_DEPTH.value
            raise _refuse("$", f"the filter is nested deeper than {most} levels")
        if key == "not":
            return Not(read(value, place, depth + 1))
        if not is_array(value) or not value:
            raise _refuse(place, f"{key} needs an array of one condition or more")
        self._count_values(len(value), place)
        parts = tuple(
            read(part, f"{place}[{index}]", depth + 1) for index, part in enumerate(value)
        )
        return All(parts) if key == "and" else AnyOf(parts)

    def _conditions(self, column: Column, value: object, place: str) -> list[Filter]:
        """What 0.1.x may say of one column: null, a value, or an object of operators."""
        if value is None:
            return [self._leaf(column, Op.IS_NULL, True, place)]
        if not is_object(value):
            return [self._leaf(column, Op.EQ, value, place)]
        if not value:
            raise _refuse(place, 'needs an operator, such as {"eq": ...}')
        return [
            self._leaf(column, self._op(column, op, f"{place}.{_short(op)}"), of, f"{place}.{op}")
            for op, of in value.items()
        ]

    def _column(self, name: str, place: str) -> Column:
        column = self._columns.get(name)
        if column is None:
            known = ", ".join(self._columns)
            if len(known) > 500:
                known = f"{known[:500]}..."
            raise _refuse(
                place, f"{self._collection.name} has no column {_short(name)}; it has {known}"
            )
        return column

    def _op(self, column: Column, spelled: str, place: str) -> Op:
        op = _SPELLINGS.get(spelled)
        if op is None:
            known = ", ".join(Op)
            raise _refuse(
                place, f"unknown operator {_short(spelled)} on column {column.name}; use {known}"
            )
        if not _knows(column, op):
            raise _refuse(place, f"{spelled} is not for {column.type}, which {column.name} is")
        return op

    def _leaf(self, column: Column, op: Op, value: object, place: str) -> Leaf:
        self._leaves += 1
        if self._leaves > limits.COLLECTION_FILTER_LEAVES.value:
            most = limits.COLLECTION_FILTER_LEAVES.value
            raise _refuse(place, f"a filter has {most} comparisons at most")
        if not _knows(column, op):  # a plain value means `eq`, which vectors do not know
            raise _refuse(place, f"{op} is not for {column.type}, which {column.name} is")
        if op in _NULL_TESTS:
            if value is not True:
                other = "is_not_null" if op is Op.IS_NULL else "is_null"
                raise _refuse(place, f"{op} takes true; its opposite is {other}")
            return Leaf(column, op)
        if op in _LISTS:
            return Leaf(column, op, self._list(column, value, place))
        if value is None:
            raise _refuse(place, f"nothing is {op} null; use is_null or is_not_null")
        if op in _PATTERNS:
            return Leaf(column, op, _pattern(op, value, place))
        if op in _INSIDE:
            value = self._inside(column, op, value, place)
        return Leaf(column, op, _stored(column, value, place))

    def _list(self, column: Column, value: object, place: str) -> tuple[Stored, ...]:
        if not is_array(value):
            raise _refuse(place, "needs an array of values")
        most = limits.COLLECTION_FILTER_IN.value
        if len(value) > most:
            raise _refuse(place, f"has {len(value)} values; {most} is the most: ask in pieces")
        self._count_values(len(value), place)
        return tuple(
            _stored(column, member, f"{place}[{index}]") for index, member in enumerate(value)
        )

    def _inside(self, column: Column, op: Op, value: object, place: str) -> object:
        if column.type in ARRAYS and not is_array(value):
            value = [value]
        if op is Op.OVERLAPS and not is_array(value):
            raise _refuse(place, "overlaps needs an array")
        most = limits.COLLECTION_FILTER_IN.value
        if _size(value) > most:
            raise _refuse(place, f"has more than {most} values")
        return value

    def _count_values(self, count: int, place: str) -> None:
        self._values += count
        if self._values > limits.COLLECTION_FILTER_VALUES.value:
            most = limits.COLLECTION_FILTER_VALUES.value
            raise _refuse(place, f"the lists of one filter have {most} values at most")


def _knows(column: Column, op: Op) -> bool:
    """Whether a column's type has this operator."""
    nested = column.type == "jsonb" or column.type in ARRAYS
    if op in _NULL_TESTS:
        return True
    if column.type == "vector":
        return False
    if op in _INSIDE:
        return nested
    if op in _PATTERNS:
        return column.type == "text"
    return op not in _ORDERED or not nested


def _pattern(op: Op, value: object, place: str) -> str:
    """Wildcards `%` and `_`; a backslash takes the meaning of what follows."""
    if not isinstance(value, str) or "\0" in value:
        raise _refuse(place, f"{op} needs text without NUL")
    most = limits.COLLECTION_PATTERN.value
    if len(value) > most:
        raise _refuse(place, f"a pattern has {most} characters at most")
    if (len(value) - len(value.rstrip("\\"))) % 2:
        raise _refuse(place, "a pattern must not end with a single backslash")
    return value


def _stored(column: Column, value: object, place: str) -> Stored:
    try:
        return to_stored(column, value, place)
    except Refused as refused:
        raise faults.INVALID_FILTER.refuse(
            refused.problem.message, dict(refused.problem.details)
        ) from None


def _size(value: object) -> int:
    if is_object(value):
        return 1 + sum(_size(member) for member in value.values())
    if is_array(value):
        return 1 + sum(_size(member) for member in value)
    return 1


def _object(node: object, place: str) -> dict[str, object]:
    if not is_object(node):
        raise _refuse(place, "must be an object")
    return node


def _short(name: str) -> str:
    return repr(name if len(name) <= 64 else f"{name[:64]}...")


def _refuse(place: str, said: str) -> Refused:
    where = place if len(place) <= 300 else f"{place[:300]}..."
    return faults.INVALID_FILTER.refuse(f"{where}: {said}", {"field": where})

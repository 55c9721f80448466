"""Rows, filters of both languages and orders, made by hypothesis from few values: they meet."""

from __future__ import annotations

import random
from functools import cache, partial
from typing import Any

from hypothesis import strategies as st
from tests.router.services.collections.naive import TYPES

Strategy = st.SearchStrategy[Any]

_UUIDS = ["11111111-2222-4333-8444-555555555555", "AAAAAAAA-2222-4333-8444-555555555555"]
VALUES: dict[str, list[Any]] = {
    "text": [
        *("", "a", "A", "ab", "aB%", "100%", "a_b", "a*b", "[x]", "a?", "]", "x\\y", "a\nb"),
        *(
            "Ärger",
            "ärger",
            "ÄRGER",
            "straße",
            "日本",
            "😀",
            "'; DROP TABLE coll_1; --",
            '" OR 1=1',
        ),
    ],
    "integer": [-(2**31), -1, 0, 1, 2, 2**31 - 1],
    "bigint": [-(2**63), -1, 0, 2**53, 2**53 + 1, 2**63 - 1],
    "numeric": [-1.5, 0, 0.1, 0.30000000000000004, 1, 1.0, 2**53 + 1, float(2**53), 1e300],
    "boolean": [True, False],
    "timestamptz": [
        *("2024-01-01T00:00:00Z", "2024-01-01T02:00:00+02:00", "2024-01-01T00:00:00.001Z"),
        *("1969-12-31T23:59:59.999Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
    ],
    "date": ["2024-01-01", "2024-02-29", "1969-12-31"],
    "uuid": [*_UUIDS, _UUIDS[1].lower()],
    "jsonb": [
        *(0, 1, 1.0, True, False, "a", "1", "", [], {}, [1, 2], [2, 1], [1, [2]], [True], ["a"]),
        *({"a": 1}, {"a": 1.0}, {"a": 1, "b": [1, {"c": None}]}, {"b": [1, {"c": None}], "a": 1}),
        *({"b": [{"c": None}]}, [{"a": 1, "b": 2}, 3], [{"a": 1}], {"a": None}, [None], "'--"),
    ],
    "text[]": [[], ["a"], ["a", "b"], ["b", "a", "a"], ["'"], ["A"], [""], ["1"]],
    "integer[]": [[], [1], [1, 2], [2, 1, 1], [-1], [0]],
}

_COMPARED = ("eq", "ne", "gt", "gte", "lt", "lte")
_INSIDE = ("contains", "overlaps", "containedBy")
_EDITS = ("keep", "keep", "raw", "one", "any", "swap", "drop")


@cache
def values(column: str) -> Strategy:
    """Values of a column, without null."""
    return st.sampled_from(VALUES[TYPES[column]])


def rows() -> Strategy:
    """Up to twelve rows without their managed columns; times of creation often meet."""
    return st.builds(_rows, st.integers(0, 12), st.integers(0, 2**32))


def _rows(count: int, seed: int) -> list[dict[str, Any]]:
    # from a seed: drawn one value at a time, they would take most of the time of a test
    chosen = random.Random(seed)
    made: list[dict[str, Any]] = []
    for _ in range(count):
        row = {name: chosen.choice([None, *VALUES[TYPES[name]]]) for name in TYPES}
        row["created_at"] = chosen.choice(VALUES["timestamptz"])
        made.append({name: value for name, value in row.items() if name != "id"})
    return made


@cache
def operators(column: str) -> Strategy:
    """(operator, operand), in the spelling of 0.1.x."""
    type_ = TYPES[column]
    nested = type_ == "jsonb" or type_.endswith("[]")
    one = values(column)
    choices: list[Strategy] = [
        st.tuples(st.sampled_from(_COMPARED[:2] if nested else _COMPARED), one),
        st.tuples(st.sampled_from(("in", "notIn")), st.lists(st.none() | one, max_size=4)),
        st.tuples(st.sampled_from(("isNull", "isNotNull")), st.just(True)),
    ]
    if type_ == "text":
        edits = st.lists(st.sampled_from(_EDITS), min_size=1, max_size=4)
        like: Strategy = st.builds(_pattern, one, edits)
        choices += [st.tuples(st.just(name), like) for name in ("like", "ilike", "like")]
    if nested:
        choices.append(st.tuples(st.sampled_from(_INSIDE[::2]), one))
        listed = st.lists(values("extra"), max_size=3) if type_ == "jsonb" else one
        choices.append(st.tuples(st.just("overlaps"), listed))
    return st.one_of(choices)


def _pattern(text: str, edits: list[str]) -> str:
    """A pattern that this very text may fit, or nearly."""
    made = ""
    for at, character in enumerate(text):
        edit = edits[at % len(edits)]
        plain = f"\\{character}" if character in "\\%_" else character
        raw = plain if character == "\\" else character
        made += {
            "keep": plain,
            "raw": raw,
            "one": "_",
            "any": "%",
            "swap": plain.swapcase(),
            "drop": "",
        }[edit]
    return made


def columns() -> Strategy:
    """Names of columns; text has the most operators."""
    return st.sampled_from([*sorted(TYPES), "title", "title", "user_id"])


def where() -> Strategy:
    """Filters of 0.1.x, not empty: mixed, nested, several operators of one column."""

    @cache
    def condition(column: str) -> Strategy:
        several = st.lists(operators(column), min_size=1, max_size=3).map(dict)
        plain = st.none() | values(column).filter(lambda value: not isinstance(value, dict))
        return st.tuples(st.just(column), plain | several)

    leaf = st.lists(columns().flatmap(condition), min_size=1, max_size=3).map(dict)

    def deeper(inside: Strategy) -> Strategy:
        parts = st.lists(inside, min_size=1, max_size=3)
        logic: Strategy = (
            st.fixed_dictionaries({"and": parts})
            | st.fixed_dictionaries({"or": parts})
            | st.fixed_dictionaries({"not": inside})
            | st.fixed_dictionaries({"or": parts, "not": inside})
        )
        nothing: dict[str, Any] = {}
        return st.builds(_merged, leaf | st.just(nothing), logic)

    return st.recursive(leaf, deeper, max_leaves=8)


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return one | other


def tree() -> Strategy:
    """Filters of 4.x."""

    @cache
    def leaf(column: str) -> Strategy:
        return st.builds(partial(spelled, column), operators(column), st.booleans())

    def spelled(column: str, condition: tuple[str, Any], snaked: bool) -> dict[str, Any]:
        op, operand = condition
        snake = {
            "notIn": "not_in",
            "isNull": "is_null",
            "isNotNull": "is_not_null",
            "containedBy": "contained_by",
        }
        value = {} if op in ("isNull", "isNotNull") else {"value": operand}
        return {"column": column, "op": snake.get(op, op) if snaked else op, **value}

    def deeper(inside: Strategy) -> Strategy:
        parts = st.lists(inside, min_size=1, max_size=3)
        return (
            st.fixed_dictionaries({"and": parts})
            | st.fixed_dictionaries({"or": parts})
            | st.fixed_dictionaries({"not": inside})
        )

    return st.recursive(columns().flatmap(leaf), deeper, max_leaves=8)


def order() -> Strategy:
    """Lists of (name, descending), each name once."""
    plain = sorted(name for name, type_ in TYPES.items() if type_ != "jsonb" and "[" not in type_)
    entry = st.tuples(st.sampled_from(plain), st.booleans())
    return st.lists(entry, min_size=1, max_size=3, unique_by=lambda pair: pair[0])

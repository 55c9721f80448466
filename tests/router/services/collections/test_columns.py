"""Values of columns: in, out, and refused with the column named."""

from __future__ import annotations

from typing import Any

import pytest

from amba_router.api.faults import Refused
from amba_router.rows.columns import (
    MANAGED,
    SYNONYMS,
    TYPES,
    Column,
    to_stored,
    to_wire,
)
from amba_runtime import limits

UUID = "0b0f4a52-6a1c-4d5a-9d6e-0123456789ab"

GOOD: list[tuple[str, Any, Any]] = [
    ("uuid", UUID.upper(), UUID),
    ("text", "", ""),
    ("text", "'; DROP TABLE coll_1; --", "'; DROP TABLE coll_1; --"),
    ("text", "ä🌱", "ä🌱"),
    ("integer", 2**31 - 1, 2**31 - 1),
    ("integer", -(2**31), -(2**31)),
    ("bigint", 2**63 - 1, 2**63 - 1),
    ("bigint", -(2**63), -(2**63)),
    ("numeric", 2**62 + 1, 2**62 + 1),
    ("numeric", 2**64, float(2**64)),
    ("numeric", -0.5, -0.5),
    ("boolean", True, True),
    ("boolean", False, False),
    ("timestamptz", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z"),
    ("timestamptz", "2026-01-02T03:04:05.678912+02:00", "2026-01-02T01:04:05.678912Z"),
    ("timestamptz", "2026-01-02T03:04:05", "2026-01-02T03:04:05.000Z"),
    ("timestamptz", "2026-01-02", "2026-01-02T00:00:00.000Z"),
    ("timestamptz", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
    ("timestamptz", "1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
    ("date", "2024-02-29", "2024-02-29"),
    ("jsonb", {"b": [1, None, "x"], "a": 1.5}, {"a": 1.5, "b": [1, None, "x"]}),
    ("jsonb", "text", "text"),
    ("jsonb", "\\u0000", "\\u0000"),
    ("jsonb", False, False),
    ("vector", [1, 2.5, 0.1], [1.0, 2.5, 0.1]),
    ("vector", [1 / 3, 16777217, -1e-30], [0.333333343, 16777216.0, -1e-30]),
    ("text[]", ["a", "", "a"], ["a", "", "a"]),
    ("text[]", [], []),
    ("integer[]", [3, 1, 2], [3, 1, 2]),
]


@pytest.mark.parametrize(("type_", "value", "back"), GOOD)
def test_a_value_comes_back(type_: str, value: Any, back: Any) -> None:
    """What is stored is read as it was sent, in the one spelling of its type (contract E.5)."""
    column = Column("c", type_, dimension=3 if type_ == "vector" else 0)
    assert to_wire(column, to_stored(column, value, "$.c")) == back


BAD: dict[str, list[Any]] = {
    "uuid": ["", "0b0f4a52", UUID + "0", f"{{{UUID}}}", 1, True, [UUID]],
    "text": [1, True, ["a"], {"a": 1}, "nul\0"],
    "integer": ["1", 1.0, True, 2**31, -(2**31) - 1, [1], {}],
    "bigint": ["1", 1.5, False, 2**63, -(2**63) - 1, 10**400],
    "numeric": ["1", True, float("inf"), float("nan"), 10**400, [1]],
    "boolean": [0, 1, "true", []],
    "timestamptz": [
        *("", "now", "yesterday", 1767225600, "2026-13-01", "2026-01-01T25:00:00Z"),
        *("0001-01-01T00:00:00+05:00", "9999-12-31T23:00:00-05:00", "२०२६-01-01", "x" * 65),
    ],
    "date": ["2026-02-30", "2026-2-3", "20260203", "2026-02-03T00:00", 1],
    "jsonb": ["nul\0", {"nul\0": 1}, [{"a": "\0"}]],
    "vector": [
        *([1, 2], [1, 2, 3, 4], [], "1,2,3", [1, 2, "3"]),
        *([1, 2, True], [1, 2, 1e39], [1, 2, None], [1, 2, 10**400]),
    ],
    "text[]": ["a", ["a", 1], [None], {"a": 1}, ["nul\0"]],
    "integer[]": [1, ["1"], [1.5], [True], [2**31]],
}


@pytest.mark.parametrize(
    ("type_", "value"), [(type_, value) for type_, values in BAD.items() for value in values]
)
def test_a_wrong_type_is_refused_by_name(type_: str, value: Any) -> None:
    """INVALID_VALUE says the place, the column and its type (contract E.5)."""
    column = Column("c", type_, dimension=3 if type_ == "vector" else 0)
    with pytest.raises(Refused) as refused:
        to_stored(column, value, "$.rows[1].c")
    problem = refused.value.problem
    assert (problem.status, problem.code) == (400, "INVALID_VALUE")
    assert problem.details == {"field": "$.rows[1].c", "column": "c", "type": type_}
    assert problem.message.startswith("$.rows[1].c: column c is ")


def test_null_is_of_every_type() -> None:
    """Whether a column takes it is for the row to say."""
    for type_ in TYPES:
        column = Column("c", type_)
        assert to_stored(column, None, "$") is None
        assert to_wire(column, None) is None


def test_text_has_a_most() -> None:
    """At the limit in bytes, and one past it."""
    most = limits.COLLECTION_TEXT_BYTES.value
    column = Column("c", "text")
    assert to_stored(column, "ä" * (most // 2), "$") == "ä" * (most // 2)
    with pytest.raises(Refused, match=f"text of {most} bytes at most"):
        to_stored(column, "ä" * (most // 2) + "x", "$")


def test_equal_json_is_equal_text() -> None:
    """Members are sorted at every depth: a filter can compare the text."""
    column = Column("c", "jsonb")
    one = to_stored(column, {"b": {"y": 1, "x": 2}, "a": 1}, "$")
    assert one == to_stored(column, {"a": 1, "b": {"x": 2, "y": 1}}, "$")


def test_the_types_are_those_of_the_contract() -> None:
    """E.5's list, the arrays of 4.x, the command line's synonyms, the managed columns."""
    plain = {"uuid", "text", "integer", "bigint", "numeric", "boolean", "timestamptz", "date"}
    assert set(TYPES) == plain | {"jsonb", "vector", "text[]", "integer[]"}
    assert {name: SYNONYMS[name] for name in ("int", "int4", "int8", "bool", "json", "string")} == {
        "int": "integer",
        "int4": "integer",
        "int8": "bigint",
        "bool": "boolean",
        "json": "jsonb",
        "string": "text",
    }
    assert [column.name for column in MANAGED] == [
        "id", "user_id", "created_at", "updated_at", "deleted_at",
    ]  # fmt: skip

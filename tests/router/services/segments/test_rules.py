"""Rules of segments: what they may be, and of whom they are true (contract E.13)."""

from __future__ import annotations

from typing import Any

import pytest

from amba_router.api.faults import Refused
from amba_router.services.segments.rules import OPERATORS, Facts, parse
from amba_runtime import limits

DAY_MS = 86_400_000
NOW_MS = 1_767_225_600_000  # 2026-01-01
USER = Facts(
    {
        "id": "u_1",
        "email": "Ada@example.com",
        "display_name": None,
        "avatar_url": None,
        "external_id": "42",
        "anonymous_id": None,
        "auth_providers": ("email", "apple"),
        "timezone": "Europe/Vienna",
        "first_seen_at": NOW_MS - 40 * DAY_MS,
        "last_seen_at": NOW_MS - 3 * DAY_MS,
    },
    {
        "plan": "pro",
        "level": 7,
        "score": 2.5,
        "zero": 0,
        "beta": True,
        "nothing": None,
        "tags": ["red", 3, True],
        "deep": {"er": {"x": 1}},
        "trial_ends": "2026-01-05T00:00:00Z",
        "trial_began": "2025-12-30T00:00:00Z",
        "began_ms": NOW_MS - DAY_MS,
    },
)


def rule(field: str, op: str, *value: object) -> dict[str, Any]:
    """A group of one condition."""
    condition: dict[str, Any] = {"field": field, "op": op}
    if value:
        condition["value"] = value[0]
    return {"operator": "AND", "conditions": [condition]}


@pytest.mark.parametrize(
    ("field", "op", "value", "expected"),
    [
        ("properties.plan", "eq", "pro", True),
        ("properties.plan", "eq", "Pro", False),
        ("properties.plan", "neq", "free", True),
        ("properties.plan", "neq", "pro", False),
        ("properties.level", "eq", 7, True),
        ("properties.level", "eq", 7.0, True),
        ("properties.level", "eq", "7", False),
        ("properties.level", "neq", "7", True),
        ("properties.beta", "eq", True, True),
        ("properties.beta", "eq", 1, False),
        ("properties.beta", "neq", 1, True),
        ("properties.zero", "eq", False, False),
        ("properties.deep.er.x", "eq", 1, True),
        ("properties.deep.er", "eq", "x", False),
        ("properties.plan.x", "eq", 1, False),
        ("external_id", "eq", "42", True),
        ("email", "eq", "ada@example.com", False),
        ("id", "eq", "u_1", True),
        ("properties.level", "gt", 6, True),
        ("properties.level", "gt", 7, False),
        ("properties.level", "gte", 7, True),
        ("properties.level", "lt", 7.5, True),
        ("properties.level", "lte", 6, False),
        ("properties.level", "gt", "6", False),
        ("properties.plan", "gt", "pen", True),
        ("properties.plan", "lt", 5, False),
        ("properties.beta", "gte", 0, False),
        ("properties.tags", "gt", 0, False),
        ("email", "contains", "@example", True),
        ("email", "not_contains", "@example", False),
        ("email", "contains", 4, False),
        ("auth_providers", "contains", "apple", True),
        ("auth_providers", "not_contains", "google", True),
        ("properties.tags", "contains", "red", True),
        ("properties.tags", "contains", 3, True),
        ("properties.tags", "contains", 1, False),
        ("properties.tags", "contains", True, True),
        ("properties.level", "contains", 7, False),
        ("properties.level", "not_contains", 7, True),
        ("first_seen_at", "lt", "2025-12-01T00:00:00Z", True),
        ("first_seen_at", "gt", "2025-12-01T00:00:00Z", False),
        ("last_seen_at", "gte", NOW_MS - 3 * DAY_MS, True),
        ("last_seen_at", "eq", "2025-12-29T00:00:00Z", True),
        ("last_seen_at", "within", "3d", True),
        ("last_seen_at", "within", "71h", False),
        ("last_seen_at", "not_within", "71h", True),
        ("last_seen_at", "within", 3, True),
        ("last_seen_at", "within", 2.9, False),
        ("last_seen_at", "within", "1w", True),
        ("last_seen_at", "within", "4320m", True),
        ("last_seen_at", "within", "4319m", False),
        ("properties.trial_began", "within", "7d", True),
        ("properties.trial_ends", "within", "7d", False),  # yet to come
        ("properties.trial_ends", "not_within", "7d", True),
        ("properties.began_ms", "within", "1d", True),
        ("properties.plan", "within", "7d", False),  # no time at all
        ("properties.plan", "not_within", "7d", False),
        ("properties.tags", "not_within", "7d", False),
    ],
)
def test_conditions(field: str, op: str, value: object, expected: bool) -> None:
    """Numbers with numbers, texts with texts, times as times; true is not 1 (E.13)."""
    assert parse(rule(field, op, value)).holds(USER, NOW_MS) is expected


@pytest.mark.parametrize(
    "field",
    [
        *("properties.none", "properties.nothing", "properties.deep.none", "display_name"),
        *("entitlements.pro", "entitlements.pro.active", "properties.level.x"),
    ],
)
@pytest.mark.parametrize("op", OPERATORS)
def test_what_is_absent(field: str, op: str) -> None:
    """Only `not_exists` is true of it; entitlements always are absent (E.13)."""
    value = "1d" if "within" in op else "x"
    assert parse(rule(field, op, value)).holds(USER, NOW_MS) is (op == "not_exists")


@pytest.mark.parametrize(
    "field", ["plan", "properties", "properties.", "password", "entitlements", "seq", "a.b", "☃"]
)
@pytest.mark.parametrize("op", OPERATORS)
def test_an_unknown_field_is_false(field: str, op: str) -> None:
    """Whatever is asked of it (E.13)."""
    value = "1d" if "within" in op else "x"
    assert parse(rule(field, op, value)).holds(USER, NOW_MS) is False


@pytest.mark.parametrize(("field", "expected"), [("email", True), ("properties.zero", True)])
def test_exists(field: str, expected: bool) -> None:
    """Zero and false are there."""
    assert parse(rule(field, "exists")).holds(USER, NOW_MS) is expected
    assert parse(rule(field, "not_exists", "ignored")).holds(USER, NOW_MS) is not expected


YES = {"field": "id", "op": "exists"}
NO = {"field": "id", "op": "not_exists"}


@pytest.mark.parametrize(
    ("operator", "conditions", "expected"),
    [
        ("AND", [YES, YES], True),
        ("AND", [YES, NO], False),
        ("OR", [NO, YES], True),
        ("OR", [NO, NO], False),
        ("AND", [YES, {"operator": "OR", "conditions": [NO, YES]}], True),
        ("OR", [NO, {"operator": "AND", "conditions": [YES, NO]}], False),
    ],
)
def test_groups(operator: str, conditions: list[object], expected: bool) -> None:
    """AND and OR, one within the other (E.13)."""
    group = parse({"operator": operator, "conditions": conditions})
    assert group.holds(USER, NOW_MS) is expected


def nested(depth: int) -> dict[str, Any]:
    """Groups within groups, so many in all."""
    rules: dict[str, Any] = {"operator": "AND", "conditions": [YES]}
    for _ in range(depth - 1):
        rules = {"operator": "OR", "conditions": [rules]}
    return rules


@pytest.mark.parametrize("depth", [1, 5])
def test_five_groups_deep(depth: int) -> None:
    """Is what they may be (E.13)."""
    assert parse(nested(depth)).holds(USER, NOW_MS)


@pytest.mark.parametrize("depth", [6, 50])
def test_too_deep(depth: int) -> None:
    """400 SEGMENT_RULES_TOO_DEEP, with the place (E.13)."""
    with pytest.raises(Refused) as refused:
        parse(nested(depth))
    assert refused.value.problem.code == "SEGMENT_RULES_TOO_DEEP"
    place = refused.value.problem.details["field"]
    assert place == "$.rules" + ".conditions[0]" * 5


@pytest.mark.parametrize(
    ("rules", "place"),
    [
        (None, ""),
        ([], ""),
        ("AND", ""),
        ({}, ".operator"),
        ({"operator": "and", "conditions": [YES]}, ".operator"),
        ({"operator": "XOR", "conditions": [YES]}, ".operator"),
        ({"operator": ["AND"], "conditions": [YES]}, ".operator"),
        ({"operator": "AND"}, ".conditions"),
        ({"operator": "AND", "conditions": []}, ".conditions"),
        ({"operator": "AND", "conditions": {"0": YES}}, ".conditions"),
        ({"operator": "AND", "conditions": ["x"]}, ".conditions[0]"),
        ({"operator": "AND", "conditions": [YES, {}]}, ".conditions[1].field"),
        ({"operator": "AND", "conditions": [{**YES, "operator": "OR"}]}, ".conditions[0].field"),
        (
            {"operator": "AND", "conditions": [{"operator": "OR", "conditions": [1]}]},
            ".conditions[0].conditions[0]",
        ),
        (rule("", "eq", 1), ".conditions[0].field"),
        (rule("x" * 201, "eq", 1), ".conditions[0].field"),
        (rule("id", "like", "%"), ".conditions[0].op"),
        (rule("id", "EQ", "x"), ".conditions[0].op"),
        ({"operator": "AND", "conditions": [{"field": "id", "op": ["eq"]}]}, ".conditions[0].op"),
        (rule("id", "eq"), ".conditions[0].value"),
        (rule("id", "eq", None), ".conditions[0].value"),
        (rule("id", "eq", ["x"]), ".conditions[0].value"),
        (rule("id", "contains", {"x": 1}), ".conditions[0].value"),
        (rule("id", "gt", True), ".conditions[0].value"),
        (rule("id", "eq", "x" * 1025), ".conditions[0].value"),
        (rule("last_seen_at", "gt", "yesterday"), ".conditions[0].value"),
        (rule("last_seen_at", "eq", True), ".conditions[0].value"),
        (rule("last_seen_at", "within", "soon"), ".conditions[0].value"),
        (rule("last_seen_at", "within", "7 d"), ".conditions[0].value"),
        (rule("last_seen_at", "within", "0d"), ".conditions[0].value"),
        (rule("last_seen_at", "within", "1234567d"), ".conditions[0].value"),
        (rule("last_seen_at", "within", -1), ".conditions[0].value"),
        (rule("last_seen_at", "within", True), ".conditions[0].value"),
        (rule("last_seen_at", "within", None), ".conditions[0].value"),
    ],
)
def test_what_rules_may_not_be(rules: object, place: str) -> None:
    """400 INVALID_SEGMENT_RULES that names the place (E.13)."""
    with pytest.raises(Refused) as refused:
        parse(rules)
    problem = refused.value.problem
    assert (problem.status, problem.code) == (400, "INVALID_SEGMENT_RULES")
    assert problem.details["field"] == f"$.rules{place}"


def test_how_many_conditions() -> None:
    """A hundred in all groups together, not one more."""
    most = limits.SEGMENT_CONDITIONS.value
    inner = {"operator": "AND", "conditions": [YES] * (most - 1)}
    assert parse({"operator": "AND", "conditions": [YES, inner]}).holds(USER, NOW_MS)
    with pytest.raises(Refused) as refused:
        parse({"operator": "AND", "conditions": [YES, inner, YES]})
    assert refused.value.problem.details["field"] == "$.rules.conditions[2]"


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e308])
def test_absurd_numbers(value: float) -> None:
    """Are compared, or are a very long time."""
    assert parse(rule("properties.level", "lt", value)).holds(USER, NOW_MS) is (value > 7)
    if value > 0:
        assert parse(rule("last_seen_at", "within", value)).holds(USER, NOW_MS)

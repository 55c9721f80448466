"""The rules of a segment: read, checked, and asked of one user.

`{operator: AND|OR, conditions: [{field, op, value} or a group]}`, five groups deep at most.
A field that is not known, or that a user does not have, makes its condition false; only
`not_exists` is true of a property or an entitlement that is absent.
Source: contract E.13; types, spans of time and lengths are ours.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, cast

from amba_router.api import faults
from amba_router.api.asked import parse_ms
from amba_runtime import limits

_COLUMNS = frozenset(
    {
        *("id", "email", "display_name", "avatar_url", "external_id", "anonymous_id"),
        *("auth_providers", "timezone", "first_seen_at", "last_seen_at"),
    }
)
"""Fields that are no property. Source: contract E.3."""

_TIMES = frozenset({"first_seen_at", "last_seen_at"})
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = MappingProxyType(
    {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
)
OPERATORS = (
    *("eq", "neq", "gt", "gte", "lt", "lte", "contains", "not_contains"),
    *("exists", "not_exists", "within", "not_within"),
)
_TEXT_LENGTH = 1024
_FIELD_LENGTH = 200
_SPAN = re.compile(r"([0-9]{1,6})([mhdw])\Z")
_UNITS_MS = MappingProxyType({"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000})


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules can ask of one user. Attributes: columns: times as Unix milliseconds."""

    columns: Mapping[str, Any]
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Condition:
    """One question. Attributes: value: of a time field and of a span, in milliseconds."""

    field: str
    op: str
    value: Any = None

    def holds(self, facts: Facts, now_ms: int) -> bool:
        """Whether it is true of a user."""
        is_known, actual = _look_up(self.field, facts)
        if not is_known:
            return False
        if self.op == "exists":
            return actual is not None
        if self.op == "not_exists":
            return actual is None
        if actual is None:
            return False
        if self.op in ("within", "not_within"):
            moment = _moment(actual)
            if moment is None:
                return False
            inside = bool(now_ms - self.value <= moment <= now_ms)
            return inside == (self.op == "within")
        return self._compared(actual)

    def _compared(self, actual: Any) -> bool:
        if self.op in _ORDERS:
            same_kind = (_is_number(actual) and _is_number(self.value)) or (
                isinstance(actual, str) and isinstance(self.value, str)
            )
            return same_kind and _ORDERS[self.op](actual, self.value)
        if self.op in ("contains", "not_contains"):
            return _contains(actual, self.value) == (self.op == "contains")
        return _same(actual, self.value) == (self.op == "eq")


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions and groups, all of which must hold, or any."""

    every: bool
    parts: tuple[Condition | Group, ...] = field(default=())

    def holds(self, facts: Facts, now_ms: int) -> bool:
        """Whether it is true of a user."""
        held = (part.holds(facts, now_ms) for part in self.parts)
        return all(held) if self.every else any(held)


def parse(rules: object) -> Group:
    """Read and check rules as they were sent.

    Raises:
        Refused: INVALID_SEGMENT_RULES with the place in `details.field`;
            SEGMENT_RULES_TOO_DEEP.
    """
    counted = [0]
    return _group(rules, "$.rules", 1, counted)


def _group(node: object, place: str, depth: int, counted: list[int]) -> Group:
    if depth > limits.SEGMENT_DEPTH.value:
        raise faults.SEGMENT_RULES_TOO_DEEP.refuse(
            f"groups are nested {limits.SEGMENT_DEPTH.value} deep at most", {"field": place}
        )
    members = _members(node, place)
    said = members.get("operator")
    if said not in ("AND", "OR"):
        raise _wrong("the operator of a group is AND or OR", f"{place}.operator")
    conditions = members.get("conditions")
    if not isinstance(conditions, list) or not conditions:
        raise _wrong("a group has a list of at least one condition", f"{place}.conditions")
    parts: list[Condition | Group] = []
    for at, each in enumerate(cast(list[object], conditions)):
        here = f"{place}.conditions[{at}]"
        inner = _members(each, here)
        if "conditions" in inner or "operator" in inner:
            if "field" in inner:
                raise _wrong("a group has no field; put the condition beside it", f"{here}.field")
            parts.append(_group(inner, here, depth + 1, counted))
            continue
        counted[0] += 1
        if counted[0] > limits.SEGMENT_CONDITIONS.value:
            raise _wrong(f"a segment has at most {limits.SEGMENT_CONDITIONS.value} of them", here)
        parts.append(_condition(inner, here))
    return Group(said == "AND", tuple(parts))


def _condition(members: Mapping[str, object], place: str) -> Condition:
    name, op = members.get("field"), members.get("op")
    if not isinstance(name, str) or not 0 < len(name) <= _FIELD_LENGTH:
        raise _wrong(
            f"a condition names a field, 1 to {_FIELD_LENGTH} characters, such as last_seen_at "
            "or properties.plan",
            f"{place}.field",
        )
    if not isinstance(op, str) or op not in OPERATORS:
        raise _wrong(f"op is one of {', '.join(OPERATORS)}", f"{place}.op")
    if op in ("exists", "not_exists"):
        return Condition(name, op)
    here = f"{place}.value"
    value = members.get("value")
    if isinstance(value, str) and len(value) > _TEXT_LENGTH:
        raise _wrong(f"a value has at most {_TEXT_LENGTH} characters", here)
    if op in ("within", "not_within"):
        return Condition(name, op, _span(value, here))
    is_plain = isinstance(value, str) or _is_number(value)
    if not is_plain and (op in _ORDERS or not isinstance(value, bool)):
        kinds = "text or a number" if op in _ORDERS else "text, a number, true or false"
        raise _wrong(f"{op} compares with {kinds}", here)
    if name in _TIMES and op not in ("contains", "not_contains"):
        moment = _moment(value)
        if moment is None:
            raise _wrong(f"{name} is compared with an ISO 8601 time or Unix milliseconds", here)
        return Condition(name, op, moment)
    return Condition(name, op, value)


def _span(value: object, place: str) -> int:
    """Milliseconds of `90m`, `12h`, `7d`, `2w`, or of a number of days."""
    match = _SPAN.match(value) if isinstance(value, str) else None
    if match is not None:
        span = int(match[1]) * _UNITS_MS[match[2]]
    elif _is_number(value):
        span = int(min(max(cast(float, value), 0), 10**6) * _UNITS_MS["d"])
    else:
        span = 0
    if span <= 0:
        raise _wrong("a span of time is such as 7d, 12h, 90m, 2w, or a number of days", place)
    return span


def _members(node: object, place: str) -> Mapping[str, object]:
    if not isinstance(node, dict):
        raise _wrong("a group or a condition is an object", place)
    return cast(dict[str, object], node)


def _wrong(message: str, place: str) -> faults.Refused:
    return faults.INVALID_SEGMENT_RULES.refuse(f"{message}; at {place}", {"field": place})


def _look_up(name: str, facts: Facts) -> tuple[bool, Any]:
    """(whether such a field can be, its value or None)."""
    if name in _COLUMNS:
        return True, facts.columns[name]
    kind, dot, path = name.partition(".")
    if not dot or not path or kind not in ("properties", "entitlements"):
        return False, None
    if kind == "entitlements":
        return True, None  # not emulated: nobody has one
    value: Any = facts.properties
    for step in path.split("."):
        if not isinstance(value, Mapping):
            return True, None
        value = cast(Mapping[str, Any], value).get(step)
    return True, value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(one: object, other: object) -> bool:
    """Equal as JSON has it: true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return one == other


def _contains(actual: Any, wanted: object) -> bool:
    if isinstance(actual, str):
        return isinstance(wanted, str) and wanted in actual
    if isinstance(actual, list | tuple):
        return any(_same(each, wanted) for each in cast(list[object], actual))
    return False


def _moment(value: object) -> int | None:
    """Unix milliseconds of a time."""
    if isinstance(value, str):
        return parse_ms(value)
    return int(cast(float, value)) if _is_number(value) else None

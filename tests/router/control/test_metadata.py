"""An upload's metadata: each rule with its code (contract A.2, D.2, D.3, D.8)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from amba_router.api.faults import Refused
from amba_router.control.metadata import Declared
from amba_router.control.metadata import read_metadata as _read_metadata
from amba_router.triggers.cron import parse
from amba_runtime import limits
from amba_runtime.egress_rules import NO_RULES


def read_metadata(raw: bytes) -> Declared:
    return _read_metadata(raw, lambda cron, zone: parse(cron, zone).text)


def refused(value: object) -> Refused:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(Refused) as caught:
        read_metadata(raw)
    return caught.value


def test_what_the_platforms_command_line_sends() -> None:
    """A name, and a rate limit that is null when unset (D.2)."""
    declared = read_metadata(b'{"name": "hello", "rate_limit": null}')
    assert (declared.name, declared.rate_limit, dict(declared.limits)) == ("hello", None, {})
    assert (declared.engine, declared.schedules) == ("workerd", None)


def test_all_of_it() -> None:
    """Our extras beside the platform's; unknown keys are ignored (D.2, interface 4)."""
    declared = read_metadata(
        json.dumps(
            {
                "name": "a-b_c9",
                "rate_limit": {"window": "5m", "max": 100000, "key": "user_id"},
                "limits": {"cpu_ms": 0, "memory_mib": 64},
                "schedules": ["*/5 * * * *", {"cron": "0 9 * * 1-5", "timezone": "Europe/Berlin"}],
                "engine": "auto",
                "input_schema": {"type": "object"},
            }
        ).encode()
    )
    assert declared.rate_limit is not None
    assert (declared.rate_limit.window_s, declared.rate_limit.max) == (300, 100_000)
    assert dict(declared.limits) == {"cpu_ms": 0, "memory_mib": 64}
    assert declared.schedules == (
        ("*/5 * * * *", "UTC", "skip"),
        ("0 9 * * 1-5", "Europe/Berlin", "skip"),
    )


def test_a_member_given_twice() -> None:
    """The last one counts, as JSON readers have it."""
    assert read_metadata(b'{"name": "one", "name": "two"}').name == "two"


@pytest.mark.parametrize("name", ["a", "a" * 58, "a-", "a_", "a9"])
def test_names_that_may_be(name: str) -> None:
    """`^[a-z][a-z0-9_-]*$`, 58 characters (A.2)."""
    assert read_metadata(json.dumps({"name": name}).encode()).name == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "a" * 59, "A", "9a", "-a", "_a", "a.b", "a b", "a\n", "a/b", "ä", "a\0", "../x"),
        *(None, 1, ["a"], {"a": 1}, True),
    ],
)
def test_names_that_may_not(name: object) -> None:
    """400 INVALID_NAME, whatever stands there (A.2, D.3)."""
    assert refused({"name": name}).fault.code == "INVALID_NAME"


def test_no_name_at_all() -> None:
    """Missing is invalid, too."""
    assert refused({}).fault.code == "INVALID_NAME"


@pytest.mark.parametrize(
    "limit",
    [
        *({}, [], 1, "60s", True, {"window": "60s"}, {"window": "60s", "max": 1}),
        *({"window": "1d", "max": 1, "key": "ip"}, {"window": "61m", "max": 1, "key": "ip"}),
        *({"window": "0s", "max": 1, "key": "ip"}, {"window": 60, "max": 1, "key": "ip"}),
        *({"window": "60s", "max": 0, "key": "ip"}, {"window": "60s", "max": 100001, "key": "ip"}),
        *({"window": "60s", "max": 1.5, "key": "ip"}, {"window": "60s", "max": True, "key": "ip"}),
        *({"window": "60s", "max": "1", "key": "ip"}, {"window": "60s", "max": 1, "key": "user"}),
    ],
)
def test_rate_limits_that_may_not_be(limit: object) -> None:
    """400 INVALID_RATE_LIMIT: all three, each in its range (D.3, D.8)."""
    assert refused({"name": "a", "rate_limit": limit}).fault.code == "INVALID_RATE_LIMIT"


@pytest.mark.parametrize(
    "value",
    [
        *([], "x", 1, {"no_such": 1}, {"cpu_ms": "1"}, {"cpu_ms": 1.0}, {"cpu_ms": True}),
        *({"cpu_ms": -1}, {"cpu_ms": 10**9}, {"memory_mib": 0}, {"memory_mib": 63}),
    ],
)
def test_limits_that_may_not_be(value: object) -> None:
    """400 INVALID_LIMITS: a known name and a whole number in its range (interface 4)."""
    assert refused({"name": "a", "limits": value}).fault.code == "INVALID_LIMITS"


@pytest.mark.parametrize("setting", limits.SETTINGS, ids=lambda s: s.name)
def test_a_limit_at_its_edges(setting: limits.Setting) -> None:
    """Both ends are inclusive."""
    for value in (setting.minimum, setting.maximum):
        raw = json.dumps({"name": "a", "limits": {setting.name: value}}).encode()
        assert dict(read_metadata(raw).limits) == {setting.name: value}
    over = {"name": "a", "limits": {setting.name: setting.maximum + 1}}
    assert refused(over).fault.code == "INVALID_LIMITS"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"engine": "deno"}, "INVALID_METADATA"),
        ({"engine": 1}, "INVALID_METADATA"),
        ({"engine": ["workerd"]}, "INVALID_METADATA"),
        ({"engine": "wasm"}, "DEPLOY_REJECTED"),
        ({"schedules": "daily"}, "INVALID_METADATA"),
        ({"schedules": ["daily"]}, "INVALID_METADATA"),
        ({"schedules": [1]}, "INVALID_METADATA"),
        ({"schedules": [{"timezone": "UTC"}]}, "INVALID_METADATA"),
        ({"schedules": [{"cron": "* * * * *", "timezone": "../etc"}]}, "INVALID_METADATA"),
        ({"schedules": [{"cron": "* * * * *", "timezone": 1}]}, "INVALID_METADATA"),
        ({"egress": []}, "INVALID_METADATA"),
        ({"egress": {"allow": ["localhost:1"]}}, "INVALID_METADATA"),
        ({"egress": {"only": ["https://a.example"]}}, "INVALID_METADATA"),
        ({"egress": {"secrets": {"AMBA_INTERNAL_TOKEN": ["a.example"]}}}, "INVALID_METADATA"),
    ],
)
def test_our_own_keys(more: dict[str, Any], code: str) -> None:
    """`engine`, `schedules` and `egress` are checked (interface 4)."""
    assert refused({"name": "a", **more}).fault.code == code


def test_rules_of_egress_are_read_and_a_wrong_one_is_named() -> None:
    """What a function may reach, and its secrets that stay outside (rows G13, G14)."""
    rules = {"only": ["api.stripe.com"], "secrets": {"KEY": ["api.stripe.com"]}}
    assert read_metadata(json.dumps({"name": "a", "egress": rules}).encode()).egress.wire() == rules
    assert read_metadata(b'{"name": "a"}').egress == NO_RULES
    wrong = refused({"name": "a", "egress": {"secrets": {"KEY": ["a.example", "a b"]}}})
    assert wrong.problem.message.startswith("egress.secrets.KEY.1: 'a b' is no host")


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"x", b"{", b'{"name": "a"', b"[]", b"null", b'"a"', b"1", b"\xff\xfe{}"),
        *(b'{"name": "\xff"}', b'{"name": "a"} x', b"{'name': 'a'}", b"\xef\xbb\xbf{}"),
        b'{"name": "a", "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"name": "a", "x": ' + b'{"a":' * 65 + b"1" + b"}" * 66,
        b'{"name": "a", "x": NaN}',
    ],
)
def test_what_is_no_object(raw: bytes) -> None:
    """Not JSON, not an object, too deep: 400 INVALID_METADATA (issue 3)."""
    assert refused(raw).fault.code == "INVALID_METADATA"

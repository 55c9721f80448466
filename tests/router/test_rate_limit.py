"""How a rate limit is written, and how requests are counted against it (contract D.8, H-5)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from amba_router.rate_limit import (
    RateCounter,
    RateKey,
    RateLimit,
    parse_rate_limit,
    parse_window,
    stored_rate_limit,
)
from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.errors import UserCode, UserError

GOOD = {"window": "60s", "max": 100, "key": "ip"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("1s", 1), ("3600s", 3600), ("1m", 60), ("60m", 3600), ("1h", 3600), ("007s", 7)],
        *[("0s", None), ("3601s", None), ("61m", None), ("2h", None), ("1d", None), ("", None)],
        *[("60", None), ("s", None), (" 60s", None), ("60s\n", None), ("-1s", None)],
        *[("1.5m", None), ("60S", None), ("9999999999s", None), ("\u0661s", None)],
    ],
)
def test_a_window_is_a_second_to_an_hour(text: str, seconds: int | None) -> None:
    """`^(\\d+)(s|m|h)$`, positive, 1 s to 1 h, no days (contract D.8)."""
    assert parse_window(text) == seconds


@pytest.mark.parametrize("key", ["ip", "user_id"])
@pytest.mark.parametrize("most", [1, 100_000])
def test_a_good_one_is_read_whole(key: RateKey, most: int) -> None:
    """And written again as it was; keys that we do not know are none of our business."""
    value: dict[str, object] = {"window": "5m", "max": most, "key": key}
    limit = parse_rate_limit({**value, "burst": 3})
    assert limit is not None
    assert limit == RateLimit("5m", 300, most, key)
    assert limit.wire() == value
    assert stored_rate_limit(value) == limit


def test_none_is_no_limit() -> None:
    """The real CLI always sends `rate_limit: null` (contract D.2)."""
    assert parse_rate_limit(None) is None


BAD: list[tuple[object, str]] = [
    ({}, "window and max and key missing"),
    ({"window": "60s", "max": 3}, "key missing"),
    ({**GOOD, "key": None}, "key missing"),
    ({**GOOD, "window": "1d"}, "window is '1d'"),
    ({**GOOD, "window": 60}, "window is 60"),
    ({**GOOD, "max": 0}, "max is 0"),
    ({**GOOD, "max": 100_001}, "max is 100001"),
    ({**GOOD, "max": "3"}, "max is '3'"),
    ({**GOOD, "max": 1.5}, "max is 1.5"),
    ({**GOOD, "max": True}, "max is True"),
    ({**GOOD, "key": "header"}, "key is 'header'"),
    ({**GOOD, "key": ["ip"]}, "key is"),
    ([1], "must be an object"),
    ("60s", "must be an object"),
    (False, "must be an object"),
    ({**GOOD, "window": "9" * 5000}, "window is"),
]


@pytest.mark.parametrize(("value", "said"), BAD, ids=[said for _, said in BAD])
def test_a_bad_one_is_refused_by_name(value: object, said: str) -> None:
    """INVALID_RATE_LIMIT says which member and what it may be (contract D.3, D.8)."""
    with pytest.raises(UserError, match=said) as caught:
        parse_rate_limit(value)
    assert caught.value.code is UserCode.INVALID_RATE_LIMIT
    assert len(caught.value.message) < 200
    assert '"window"' in caught.value.hint


@pytest.mark.parametrize(("value", "said"), BAD, ids=[said for _, said in BAD])
def test_what_was_stored_malformed_limits_nothing(value: object, said: str) -> None:
    """The router falls open (contract D.8)."""
    assert stored_rate_limit(value) is None


def _counter(
    most: int = 2, window_s: int = 60, key: RateKey = "ip"
) -> tuple[RateCounter, ManualClock]:
    clock = ManualClock()
    limit = RateLimit(f"{window_s}s", window_s, most, key)
    return RateCounter(limit, scope="p:f", clock=clock), clock


def test_a_window_begins_with_its_first_request() -> None:
    """Two pass, the third is refused until a minute after the first; then two pass again."""

    async def run() -> None:
        counter, clock = _counter()
        assert counter.count("1.2.3.4") is None
        await clock.advance(59.0)
        assert counter.count("1.2.3.4") is None
        refusal = counter.count("1.2.3.4")
        assert refusal is not None
        assert refusal.retry_after_s == 1
        assert counter.count("5.6.7.8") is None
        await clock.advance(0.999)
        assert counter.count("1.2.3.4") is not None
        await clock.advance(0.001)
        assert [counter.count("1.2.3.4") is None for _ in range(3)] == [True, True, False]

    asyncio.run(run())


def test_all_without_a_user_are_one_caller() -> None:
    """Anonymous callers share the bucket `__anon__` (contract D.8, J check 7)."""
    counter, _ = _counter(most=1, key="user_id")
    assert counter.count("") is None
    assert counter.count("") is not None
    assert counter.count("__anon__") is not None
    assert counter.count("u_42") is None


def test_a_refusal_has_the_sdks_shape() -> None:
    """429, the details of `AmbaRateLimitError`, Retry-After, X-RateLimit-* (A.7, H-5)."""
    counter, _ = _counter(most=1)
    counter.count("1.2.3.4")
    refusal = counter.count("1.2.3.4")
    assert refusal is not None
    problem = refusal.problem()
    body: dict[str, Any] = json.loads(problem.body("r-1"))
    assert body["error"].pop("message") == (
        "more than 1 requests in 60s by one address; try again in 60 s"
    )
    assert body == {
        "error": {
            "kind": "rate_limit",
            "code": "rate_limited",
            "status": 429,
            "request_id": "r-1",
            "details": {
                "retry_after_seconds": 60,
                "scope": "p:f:ip",
                "window": "60s",
                "max": 1,
            },
        }
    }
    fields = dict(problem.headers(3))
    assert fields[b"retry-after"] == b"60"
    assert fields[b"x-ratelimit-limit"] == b"1"
    assert fields[b"x-ratelimit-remaining"] == b"0"
    assert fields[b"x-ratelimit-reset"] == b"60"


def test_each_refusal_is_told() -> None:
    """For the node's metrics."""
    told: list[int] = []
    counter = RateCounter(
        RateLimit("1s", 1, 1, "ip"),
        scope="p:f",
        clock=ManualClock(),
        refused=lambda: told.append(1),
    )
    for _ in range(3):
        counter.count("a")
    assert told == [1, 1]


def test_a_flood_of_callers_costs_bounded_memory() -> None:
    """limits.RATE_LIMIT_BUCKETS are remembered: the oldest goes, and begins another window."""

    async def run() -> None:
        counter, clock = _counter(most=1)
        for n in range(limits.RATE_LIMIT_BUCKETS.value):
            assert counter.count(str(n)) is None
        assert counter.count("0") is not None
        assert counter.count("one more") is None
        assert counter.count("1") is not None
        assert counter.count("0") is None
        await clock.advance(60.0)
        assert counter.count("all ended") is None
        assert counter.remembered == 1

    asyncio.run(run())

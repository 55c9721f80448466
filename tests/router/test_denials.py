"""The log of what functions were refused: told, with who and why, and never without bound."""

from __future__ import annotations

import asyncio

import pytest

from amba_router.denials import DenialLog, log_denied
from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.egress import Denied, DeniedReason

DENIED = Denied("http://10.0.0.1", DeniedReason.ADDRESS, "10.0.0.1 is private", "to allow it: x")


def test_a_line_says_who_what_why_and_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    """The best sign of an intruder that a node has (reliability.md 5, 22)."""
    DenialLog("project p-1 function hello", ManualClock())("GET", DENIED)
    log_denied("POST", Denied("x", DeniedReason.MALFORMED, "no URL"))
    assert caplog.messages == [
        "egress project p-1 function hello GET http://10.0.0.1: 10.0.0.1 is private (address);"
        " to allow it: x",
        "egress POST x: no URL (malformed)",
    ]


def test_a_flood_is_counted_and_not_written(caplog: pytest.LogCaptureFixture) -> None:
    """So many lines in so many seconds, then a number; each function has its own (T6)."""
    clock = ManualClock()
    told, other = DenialLog("a", clock), DenialLog("b", clock)
    most = limits.DENIALS.value
    for _ in range(most + 1000):
        told("GET", DENIED)
    assert len(caplog.messages) == most
    other("GET", DENIED)
    assert len(caplog.messages) == most + 1
    asyncio.run(clock.advance(limits.DENIALS_EVERY_S.value))
    told("GET", DENIED)
    assert caplog.messages[most + 1] == "egress a: 1000 more requests were refused"
    assert len(caplog.messages) == most + 3
    told.flush()
    assert len(caplog.messages) == most + 3

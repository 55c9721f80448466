"""Waiting in tests that watch real processes: the one place of `tests` that sleeps.

What has a clock of ours is moved by a `ManualClock` and needs none of this.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def comes(there: Callable[[], T], *, within_s: float, every_s: float = 0.01) -> T:
    """The first true value, looked for every few milliseconds; the last one once time is up."""
    deadline = time.monotonic() + within_s
    while True:
        value = there()
        if value or time.monotonic() >= deadline:
            return value
        time.sleep(every_s)


def until(there: Callable[[], T | None], *, within_s: float = 8) -> T:
    """The first true value. Raises AssertionError when there is none in time."""
    value = comes(there, within_s=within_s)
    assert value, f"it did not come about within {within_s:g} s"
    return value


def pause(seconds: float, because: str) -> None:
    """Let real time pass, where that is what is tested: a peer that is slow, a quiet stretch.

    Args:
        because: what is to happen, or not, meanwhile; for who reads the test.
    """
    assert because
    time.sleep(seconds)

"""An isolate that keeps ending is started ever more slowly; one that lived starts afresh."""

from __future__ import annotations

import asyncio

import pytest

from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.restarts import Backoff

STEPS = [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]


def test_it_waits_nothing_then_ever_longer_up_to_the_cap() -> None:
    """0, then 0.1 s doubling up to 30 s and no further (reliability.md row E32)."""
    backoff = Backoff(ManualClock())
    assert [backoff.failed() for _ in STEPS] == pytest.approx(STEPS)


def test_a_hundred_thousand_ends_do_not_overflow() -> None:
    """The doubling is bounded before it is computed: the wait stays at its cap for ever."""
    backoff = Backoff(ManualClock())
    waits = [backoff.failed() for _ in range(100_000)]
    assert set(waits[10:]) == {limits.RESTART_WAIT_MAX_S.value}


def test_waiting_and_ending_again_is_not_forgiven() -> None:
    """A crash loop that ends on every start stays slow: its own waits are no life."""

    async def loop() -> list[float]:
        clock = ManualClock()
        backoff = Backoff(clock)
        waits: list[float] = []
        for _ in range(20):
            waits.append(backoff.failed())
            await clock.advance(waits[-1] + 0.5)
        return waits

    waits = asyncio.run(loop())
    assert waits == pytest.approx(STEPS + [30.0] * (20 - len(STEPS)))


@pytest.mark.parametrize(
    ("lived_s", "expected"), [(0.0, 30.0), (59.9, 30.0), (60.0, 0.0), (60.1, 0.0), (1e9, 0.0)]
)
def test_a_minute_of_life_is_forgiven(lived_s: float, expected: float) -> None:
    """Life is counted from the restart, not from the end before it (limits.RESTART_FORGIVE_S)."""

    async def after() -> float:
        clock = ManualClock()
        backoff = Backoff(clock)
        waits = [backoff.failed() for _ in STEPS]
        await clock.advance(waits[-1])
        await clock.advance(lived_s)
        return backoff.failed()

    assert asyncio.run(after()) == expected


def test_after_forgiveness_it_counts_from_nothing() -> None:
    """The first end after a long life costs nothing, the second 0.1 s again."""

    async def after() -> list[float]:
        clock = ManualClock()
        backoff = Backoff(clock)
        for _ in STEPS:
            backoff.failed()
        await clock.advance(3600.0)
        return [backoff.failed() for _ in range(3)]

    assert asyncio.run(after()) == pytest.approx([0.0, 0.1, 0.2])


def test_the_wall_clock_does_not_matter() -> None:
    """An operator who sets the clock forward forgives nothing: only monotonic time counts."""
    clock = ManualClock()
    backoff = Backoff(clock)
    backoff.failed()
    clock.jump(86_400.0)
    assert backoff.failed() == pytest.approx(0.1)

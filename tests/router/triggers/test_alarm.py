"""Any number of times, one wait of the clock (issue 6: nothing is polled)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from amba_router.triggers.alarm import Alarm
from amba_runtime.clock import ManualClock, time_ms


class Sleeps(ManualClock):
    """Counts waits."""

    def __init__(self) -> None:
        super().__init__(1_000_000.0)
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await super().sleep(seconds)


def run(work: Callable[[Sleeps, Alarm[str], list[tuple[str, int]]], Awaitable[None]]) -> None:
    async def main() -> None:
        clock = Sleeps()
        told: list[tuple[str, int]] = []
        alarm: Alarm[str] = Alarm(clock, lambda key: told.append((key, time_ms(clock))))
        try:
            await work(clock, alarm, told)
        finally:
            alarm.close()

    asyncio.run(main())


START = 1_000_000_000


def test_each_is_told_at_its_time() -> None:
    """In order, never early, once."""

    async def work(clock: Sleeps, alarm: Alarm[str], told: list[tuple[str, int]]) -> None:
        for at in (30, 10, 20):
            alarm.set(str(at), START + at * 1000)
        assert (len(alarm), alarm.next_ms) == (3, START + 10_000)
        await clock.advance(9.999)
        assert told == []
        await clock.advance(100)
        assert told == [(str(at), START + at * 1000) for at in (10, 20, 30)]
        assert alarm.next_ms is None

    run(work)


def test_an_earlier_time_wins_and_a_later_one_changes_nothing() -> None:
    """`set` twice; `forget` is final."""

    async def work(clock: Sleeps, alarm: Alarm[str], told: list[tuple[str, int]]) -> None:
        alarm.set("a", START + 20_000)
        await clock.advance(0)
        alarm.set("a", START + 10_000)
        alarm.set("a", START + 30_000)
        alarm.set("b", START + 15_000)
        alarm.forget("b")
        await clock.advance(100)
        assert told == [("a", START + 10_000)]

    run(work)


def test_a_hundred_thousand_cost_one_wait() -> None:
    """One sleeper, however many wait (must show 6)."""

    async def work(clock: Sleeps, alarm: Alarm[str], told: list[tuple[str, int]]) -> None:
        for at in range(100_000):
            alarm.set(str(at), START + 40_000 + at)
        await clock.advance(0)
        assert clock.slept == [40.0]
        await clock.advance(39.999)
        assert (told, clock.slept) == ([], [40.0])

    run(work)


def test_a_clock_that_jumps_is_noticed() -> None:
    """It is looked at every minute at least."""

    async def work(clock: Sleeps, alarm: Alarm[str], told: list[tuple[str, int]]) -> None:
        alarm.set("a", START + 3_600_000)
        await clock.advance(1)
        clock.jump(3_600)
        await clock.advance(60)
        assert [key for key, _ in told] == ["a"]

    run(work)


def test_what_is_past_is_told_at_once_and_may_set_more() -> None:
    """Whoever is told may set itself anew."""

    async def main() -> None:
        clock = Sleeps()
        told: list[int] = []

        def due(key: str) -> None:
            told.append(time_ms(clock) - START)
            if len(told) < 4:
                alarm.set(key, time_ms(clock) + 5_000)

        alarm: Alarm[str] = Alarm(clock, due)
        alarm.set("a", START - 5)
        await clock.advance(60)
        assert told == [0, 5_000, 10_000, 15_000]
        alarm.close()
        alarm.set("a", 0)
        await clock.advance(60)
        assert len(told) == 4

    asyncio.run(main())


def test_one_that_fails_takes_nothing_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the next is told."""

    async def main() -> None:
        clock = Sleeps()
        told: list[str] = []

        def due(key: str) -> None:
            told.append(key)
            raise RuntimeError("no")

        alarm: Alarm[str] = Alarm(clock, due)
        alarm.set("a", START + 1)
        alarm.set("b", START + 2)
        await clock.advance(1)
        assert told == ["a", "b"]
        alarm.close()

    asyncio.run(main())
    assert "what was due could not be told of" in caplog.text


def test_stale_entries_are_dropped() -> None:
    """Ever earlier times of one key do not pile up."""

    async def work(clock: Sleeps, alarm: Alarm[str], told: list[tuple[str, int]]) -> None:
        for at in range(5_000, 0, -1):
            alarm.set("a", START + at * 1000)
        await clock.advance(10_000)
        assert told == [("a", START + 1_000)]

    run(work)

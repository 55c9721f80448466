"""Time that moves only when told wakes sleepers when and in the order real time would."""

from __future__ import annotations

import asyncio
import time

import pytest

from amba_runtime.clock import Clock, ManualClock, SystemClock, iso

START_S = 1_767_225_600.0


async def _awake(
    clock: ManualClock, order: list[tuple[str, float]], name: str, *waits: float
) -> None:
    for seconds in waits:
        await clock.sleep(seconds)
        order.append((name, clock.monotonic_s()))


def _told(clock: ManualClock, advance_s: float, **waits: tuple[float, ...]) -> list[object]:
    """Who woke, and when, while time moved once by so much."""
    order: list[tuple[str, float]] = []

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_awake(clock, order, n, *w)) for n, w in waits.items()]
            await clock.advance(advance_s)
            for task in tasks:
                task.cancel()

    asyncio.run(run())
    return list(order)


def test_it_stands_still() -> None:
    """Nothing but `advance` and `jump` moves it; it starts where the docs say."""
    clock = ManualClock()
    assert (clock.time_s(), clock.monotonic_s()) == (START_S, 0.0)
    assert ManualClock(5.0).time_s() == 5.0
    assert iso(START_S) == "2026-01-01T00:00:00.000Z"


def test_sleepers_wake_in_the_order_of_their_times() -> None:
    """Each wakes at its own time, not at the end of the move, whoever lay down first."""
    woken = _told(ManualClock(), 10.0, late=(3.0,), soon=(1.0,), mid=(2.0,), never=(11.0,))
    assert woken == [("soon", 1.0), ("mid", 2.0), ("late", 3.0)]


def test_equal_times_wake_in_the_order_of_lying_down() -> None:
    """First come, first served."""
    woken = _told(ManualClock(), 1.0, a=(1.0,), b=(1.0,), c=(1.0,))
    assert woken == [("a", 1.0), ("b", 1.0), ("c", 1.0)]


def test_a_sleeper_that_lies_down_again_wakes_within_the_same_move() -> None:
    """Nested sleeps interleave with others as in real time; a border counts as reached."""
    woken = _told(ManualClock(), 3.0, twice=(1.0, 2.0, 0.5), other=(2.0,))
    assert woken == [("twice", 1.0), ("other", 2.0), ("twice", 3.0)]


def test_a_move_just_short_wakes_nobody() -> None:
    """A deadline is not early."""
    assert _told(ManualClock(), 0.999, a=(1.0,)) == []


def test_both_clocks_advance_and_only_one_jumps() -> None:
    """A jump is an operator or NTP: the wall alone moves, and nobody wakes."""

    async def run() -> None:
        clock = ManualClock()
        sleeper = asyncio.create_task(clock.sleep(1.0))
        await clock.advance(0.5)
        assert (clock.time_s(), clock.monotonic_s()) == (START_S + 0.5, 0.5)
        clock.jump(3600.0)
        await clock.advance(0.0)
        assert (clock.time_s(), clock.monotonic_s()) == (START_S + 3600.5, 0.5)
        assert not sleeper.done()
        clock.jump(-7200.0)
        await clock.advance(0.5)
        assert (clock.time_s(), clock.monotonic_s()) == (START_S - 3599.0, 1.0)
        assert sleeper.done()

    asyncio.run(run())


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_no_wait_yields_once(seconds: float) -> None:
    """Zero or less lets others run, and needs no advance; on the real clock too."""

    async def run(clock: Clock) -> list[str]:
        order: list[str] = []

        async def other() -> None:
            order.append("other")

        task = asyncio.create_task(other())
        await clock.sleep(seconds)
        order.append("slept")
        await task
        return order

    for clock in (ManualClock(), SystemClock()):
        assert asyncio.run(run(clock)) == ["other", "slept"]


def test_a_cancelled_sleeper_is_passed_over() -> None:
    """Cancellation passes through, and whoever sleeps behind it still wakes."""

    async def run() -> None:
        clock = ManualClock()
        gone = asyncio.create_task(clock.sleep(1.0))
        stays = asyncio.create_task(clock.sleep(1.0))
        await clock.advance(0.5)
        gone.cancel()
        await clock.advance(0.5)
        assert gone.cancelled()
        assert stays.done()
        assert not stays.cancelled()

    asyncio.run(run())


def test_a_deadline_around_a_sleep_ends_it() -> None:
    """`asyncio.timeout` and the manual clock get along: the sleeper is gone afterwards."""

    async def run() -> None:
        clock = ManualClock()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await clock.sleep(5.0)
        await clock.advance(10.0)
        assert clock.monotonic_s() == 10.0

    asyncio.run(run())


def test_what_a_sleeper_starts_has_run_before_time_goes_on() -> None:
    """A chain of tasks that one wake-up sets off sees the time of that wake-up."""

    async def run() -> list[float]:
        clock = ManualClock()
        seen: list[float] = []

        async def chain(left: int) -> None:
            if left:
                await asyncio.create_task(chain(left - 1))
            else:
                seen.append(clock.monotonic_s())

        async def sleeper() -> None:
            await clock.sleep(1.0)
            await chain(3)

        task = asyncio.create_task(sleeper())
        await clock.advance(100.0)
        await task
        return seen

    assert asyncio.run(run()) == [1.0]


def test_the_system_clock_is_the_machines() -> None:
    """Its readings lie between two of the standard library's."""
    clock = SystemClock()
    wall, mono = time.time(), time.monotonic()
    assert wall <= clock.time_s() <= time.time()
    assert mono <= clock.monotonic_s() <= time.monotonic()


def test_the_system_clock_waits() -> None:
    """A hundredth of a second is at least that."""

    async def waited() -> float:
        clock = SystemClock()
        before = clock.monotonic_s()
        await clock.sleep(0.01)
        return clock.monotonic_s() - before

    # the loop's timer may fire one tick of its own resolution early
    assert asyncio.run(waited()) >= 0.01 - time.get_clock_info("monotonic").resolution


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (0.001, "1970-01-01T00:00:00.001Z"),
        (0.9999, "1970-01-01T00:00:00.999Z"),
        (1_767_225_600.5, "2026-01-01T00:00:00.500Z"),
        (1_709_210_096.789, "2024-02-29T12:34:56.789Z"),
        (253_402_300_799.0, "9999-12-31T23:59:59.000Z"),
        (-1.5, "1969-12-31T23:59:58.500Z"),
    ],
)
def test_iso_has_milliseconds_and_a_z(seconds: float, text: str) -> None:
    """UTC wherever the machine stands; milliseconds are cut, never rounded up a second."""
    assert iso(seconds) == text

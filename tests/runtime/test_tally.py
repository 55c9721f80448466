"""Subrequests counted in our process: what a guest cannot get round."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import cast

import pytest

from amba_runtime import limits
from amba_runtime.limits import FunctionLimits
from amba_runtime.outcome import Breach
from amba_runtime.tally import Tally, TooManySubrequestsError
from amba_runtime.underway import GUESS, Underway


@dataclass
class Version:
    """What a tally knows of the version that is served."""

    invocations: dict[str, Underway] = field(default_factory=dict[str, Underway])
    answers: int = 0
    limits: FunctionLimits = field(
        default_factory=lambda: FunctionLimits.hosted().override(
            {"subrequests": 3, "subrequests_at_once": 2}
        )
    )

    def fly(self, *names: str) -> None:
        """These are in flight now, oldest first."""
        self.invocations.clear()
        self.invocations.update(dict.fromkeys(names, cast(Underway, None)))


def _sent(tally: Tally, caller: str | None, most: int = 50) -> tuple[int, str, Breach | None]:
    """How many go out before one is refused; whose limit it was, and what is told."""
    for n in range(most):
        try:
            tally.charge(caller)
        except TooManySubrequestsError as error:
            return n, error.request_id, error.breach
    return most, "", None


def test_each_invocation_has_its_own_count() -> None:
    """As many as its limit, the breach told once, ended or not (reliability.md 2.3, row E17)."""
    version = Version()
    tally = Tally(version)
    version.fly("a", "b")
    assert _sent(tally, "a") == (3, "a", Breach("subrequests", 4, 3))
    assert _sent(tally, "a") == (0, "a", None)
    version.fly()
    assert _sent(tally, "b") == (3, "b", Breach("subrequests", 4, 3))


@pytest.mark.parametrize("caller", [None, GUESS + "a"])
def test_without_a_name_those_in_flight_pay(caller: str | None) -> None:
    """All together send what they may together, whoever sends it (row E17)."""
    version = Version()
    tally = Tally(version)
    version.fly("a", "b")
    assert _sent(tally, "b") == (3, "b", Breach("subrequests", 4, 3))
    assert _sent(tally, caller) == (3, "a", Breach("subrequests", 4, 3))
    assert _sent(tally, "a")[0] == 0
    version.fly("a", "b", "c")
    assert _sent(tally, caller)[0] == 3


def test_with_nobody_in_flight_there_is_one_allowance() -> None:
    """It comes back with the next answer, not with time (row E17)."""
    version = Version()
    tally = Tally(version)
    assert _sent(tally, None) == (3, "", Breach("subrequests", 4, 3))
    assert _sent(tally, None) == (0, "", None)
    version.answers += 1
    assert _sent(tally, None)[0] == 3


async def _waiting(tally: Tally, callers: list[str | None]) -> int:
    """How many of so many requests at once have a place."""
    inside = 0
    gate = asyncio.Event()

    async def one(caller: str | None) -> None:
        nonlocal inside
        async with tally.turn(caller):
            inside += 1
            await gate.wait()

    tasks = [asyncio.create_task(one(caller)) for caller in callers]
    for _ in range(5):
        await asyncio.sleep(0)
    found = inside
    gate.set()
    await asyncio.gather(*tasks)
    assert inside == len(callers), "all had their turn"
    return found


def test_so_many_wait_for_their_answers_at_once() -> None:
    """`subrequests_at_once` of each invocation that is known, and of all others as many times
    that as are in flight, at least once; the rest follow (rows E17 to E19)."""

    async def main() -> None:
        version = Version()
        tally = Tally(version)
        assert await _waiting(tally, ["a"] * 10) == 2
        assert await _waiting(tally, ["a", "b"] * 5) == 4
        assert await _waiting(tally, [None] * 10) == 2
        version.fly("a", "b", "c")
        assert await _waiting(tally, [None, GUESS + "a"] * 5) == 6

    asyncio.run(main())


def test_who_leaves_the_line_keeps_no_place() -> None:
    """A request that its guest gave up is let go, also in the moment of its turn (row E24)."""

    async def main() -> None:
        tally = Tally(Version())
        async with contextlib.AsyncExitStack() as held:
            for _ in range(2):
                await held.enter_async_context(tally.turn("a"))
            waits = [asyncio.create_task(_hold(tally)) for _ in range(3)]
            await asyncio.sleep(0)
            waits[0].cancel()
            await asyncio.sleep(0)
        waits[1].cancel()  # it has its place, and has not run yet
        await asyncio.gather(*waits, return_exceptions=True)
        assert [task.cancelled() for task in waits] == [True, True, False]
        assert await _waiting(tally, ["a"] * 4) == 2

    async def _hold(tally: Tally) -> None:
        async with tally.turn("a"):
            await asyncio.sleep(0)

    asyncio.run(main())


def test_what_is_counted_is_bounded() -> None:
    """Ended invocations are forgotten, those that asked longest ago first; those in flight or
    with requests on their way are not."""

    async def main() -> None:
        version = Version()
        tally = Tally(version)
        version.fly("flying")
        for name in ("flying", "held", "ended"):
            assert _sent(tally, name)[0] == 3
        async with tally.turn("held"):
            for n in range(limits.CALLERS_KEPT.value):
                tally.charge(f"r-{n}")
            assert [_sent(tally, name)[0] for name in ("flying", "held", "ended")] == [0, 0, 3]

    asyncio.run(main())

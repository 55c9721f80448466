"""Subrequests counted in our process: what a guest cannot get round."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from tests.runtime.flying import Version

from amba_runtime import limits
from amba_runtime.line import Line
from amba_runtime.outcome import Breach
from amba_runtime.tally import Tally, TooManySubrequestsError
from amba_runtime.underway import GUESS, Underway


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
    assert _sent(tally, caller) == (0, "a", None)
    version.fly("a", "b", "c")
    assert _sent(tally, caller)[0] == 3


def test_who_pays_for_others_keeps_what_is_its_own() -> None:
    """Requests without a name take nothing from the invocation that they are charged to, and are
    charged to it only as far as it has something left; it is told of its own limit (row E17)."""
    version = Version()
    tally = Tally(version)
    version.fly("a")
    assert _sent(tally, None)[0] == 3
    assert _sent(tally, "a") == (3, "a", Breach("subrequests", 4, 3))
    version.fly("b")
    tally.charge("b")
    assert _sent(tally, None)[0] == 2
    assert _sent(tally, "b")[0] == 2


def test_a_name_that_was_made_up_is_nobody() -> None:
    """Each request under another name, or under one whose account is forgotten: all together send
    what those in flight may (rows E17, E29)."""
    version = Version()
    tally = Tally(version)
    version.fly("a")
    assert _sent_as(tally, lambda n: f"forged-{n}") == 3
    version.fly("b")
    assert _sent_as(tally, lambda n: "a") == 3  # it made none itself
    version.fly(*(f"r-{n}" for n in range(2 * limits.CALLERS_KEPT.value)))
    names = list(version.invocations)
    version.fly("c")
    for name in names:
        if tally.believed(name):
            tally.charge(name)
    assert not tally.believed("a"), "its account had to go"
    assert len([name for name in names if tally.believed(name)]) <= limits.CALLERS_KEPT.value


def _sent_as(tally: Tally, name: Callable[[int], str]) -> int:
    """How many of fifty requests go out, each under the name that its guest says."""
    sent = 0
    for n in range(50):
        with contextlib.suppress(TooManySubrequestsError):
            tally.charge(tally.believed(name(n)))
            sent += 1
    return sent


class _Asked(dict[str, Underway]):
    """Counts how often somebody asks whether one is in flight."""

    asked = 0

    def __contains__(self, name: object) -> bool:
        self.asked += 1
        return super().__contains__(name)


def test_a_new_account_costs_the_same_however_many_there_are() -> None:
    """A few are looked at, and not the same each time, also where all of them must stay."""
    underway = _Asked()
    version = Version(underway)
    tally = Tally(version)
    most = limits.CALLERS_KEPT.value
    version.fly(*(f"r-{n}" for n in range(2 * most)))
    for name in version.invocations:
        tally.charge(name)
    underway.asked = 0
    tally.charge("one more")
    assert 0 < underway.asked <= limits.CALLERS_TIDIED.value
    flying = list(version.invocations)
    version.fly()
    for n in range(most):
        tally.charge(f"later-{n}")
    assert [name for name in flying if tally.believed(name)] == []


def test_nothing_is_kept_of_an_isolate_that_is_gone() -> None:
    """Its invocations have ended with it: their accounts go, and their names are nobody's."""
    version = Version()
    tally = Tally(version)
    version.fly("a")
    assert _sent(tally, "a")[0] == 3
    version.fly()
    assert tally.believed("a") == "a"
    version.callers.gone()
    assert tally.believed("a") is None
    assert _sent(tally, "a")[0] == 3


def test_more_places_are_given_to_those_that_wait_first() -> None:
    """Where there are more places by the time that somebody comes, whoever waits goes in, and the
    one who came, first come first (row E17)."""

    async def main() -> None:
        most = 1
        line = Line(lambda: most)
        inside: list[str] = []
        gate = asyncio.Event()

        async def one(name: str) -> None:
            async with line.turn():
                inside.append(name)
                await gate.wait()

        tasks = [asyncio.create_task(one(name)) for name in "abc"]
        await asyncio.sleep(0)
        assert inside == ["a"]
        most = 3
        tasks.append(asyncio.create_task(one("d")))
        for _ in range(3):
            await asyncio.sleep(0)
        assert inside == ["a", "b", "c"]
        gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())


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

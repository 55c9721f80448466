"""Which place in a trace a guest's request continues, also when its invocation has ended."""

from __future__ import annotations

import asyncio
from collections import deque

from tests.runtime.flying import Invocation

from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.trace import Hop, Trace
from amba_runtime.underway import GUESS, Hops, Underway


def _flying(*calls: Invocation) -> dict[str, Underway]:
    return {call.request_id: call for call in calls}


def test_one_in_flight_has_one_place() -> None:
    """Its calls are counted together, however many it makes (reliability.md E29)."""
    calls = _flying(Invocation("a"), Invocation("b", Hop(Trace(5), 3)))
    hops = Hops(calls)
    first = hops.of("a")
    assert (first.depth, first.trace.calls) == (0, 1)
    assert hops.of("a") is first
    assert hops.of("b").depth == 3
    assert hops.of("b").next() == Hop(Trace(6), 4)


def test_one_that_ended_is_remembered_for_a_while() -> None:
    """What `waitUntil` asks continues its trace; who asked longest ago is forgotten first (E29)."""
    hops = Hops(_flying())
    hops.ended("deep", Hop(Trace(9), 9))
    hops.ended("silent", Hop(Trace(8), 8))
    assert hops.of("deep").depth == 9
    for n in range(limits.TRACES_KEPT.value - 1):
        hops.ended(str(n), Hop(Trace(), 1))
    assert hops.of("deep") == Hop(Trace(9), 9)
    assert hops.of("silent") == Hop(Trace(), 8)  # by then its trace is, its depth is not


def test_more_chains_than_are_remembered_come_to_an_end() -> None:
    """Each link waits in `waitUntil` until more others have ended than are known by name (E29)."""
    clock = ManualClock()
    hops = Hops(_flying(), clock)
    alive = deque(f"chain-{n}" for n in range(limits.TRACES_KEPT.value + 100))
    for name in alive:
        hops.ended(name, Hop().next())
    # of another function, or of itself with names that never end: both are one deeper each time
    made = len(alive)
    while alive and made < 40 * limits.TRACES_KEPT.value:
        hop = hops.of(alive.popleft()).next()
        if hop.depth <= 16:  # as `trace_depth` has it
            made += 1
            hops.ended(f"link-{made}", hop)
            alive.append(f"link-{made}")
    assert not alive


def test_what_is_forgotten_is_so_for_a_while_alone() -> None:
    """Long after the last `waitUntil` has ended a name has no depth, and takes no memory (E29)."""
    clock = ManualClock()
    hops = Hops(_flying(), clock)

    def flood(tag: str) -> None:
        for n in range(limits.TRACES_KEPT.value):
            hops.ended(f"{tag}-{n}", Hop())

    kept_s = limits.HOP_KEPT_S.value
    hops.ended("deep", Hop(Trace(), 300))
    flood("one")
    asyncio.run(clock.advance(kept_s))
    assert hops.of("deep").depth == 255
    for after_s, depth in ((kept_s, 255), (2 * kept_s + 1, 0)):
        flood(f"after-{after_s}")
        asyncio.run(clock.advance(after_s))
        assert hops.of("deep").depth == depth


def test_many_that_call_after_their_answers_are_no_loop() -> None:
    """Far more than are known by name, from outside, each once: none is held to be deep (E29)."""
    hops = Hops(_flying(), ManualClock())
    depths: list[int] = []
    for n in range(10 * limits.TRACES_KEPT.value):
        hop = hops.of(f"outside-{n}").next()
        depths.append(hop.depth)
        hops.ended(f"refresh-{n}", hop)
    assert max(depths) <= 8  # two names may have one place; sixteen in a row have not
    assert depths.count(1) > 0.9 * len(depths)


def test_a_nameless_request_renews_no_hop() -> None:
    """One deep invocation is forgotten after a minute, whoever asks meanwhile; and who calls
    others without a name, every now and then, is never refused (E29)."""
    clock = ManualClock()
    hops = Hops(_flying(), clock)
    hops.ended("deep", Hop(Trace(), 15))
    depths: list[int] = []
    for _ in range(3):
        asyncio.run(clock.advance(0.4 * limits.HOP_KEPT_S.value))
        depths.append(hops.of(None).depth)
    assert depths == [15, 15, 0]
    counted: list[int] = []
    for _ in range(20):
        asyncio.run(clock.advance(limits.HOP_KEPT_S.value / 2))
        counted.append(hops.of(None).next().trace.calls)
    assert max(counted) <= 4


def test_one_that_ended_before_it_asked_begins_one_trace() -> None:
    """All that it asks later is counted together."""
    hops = Hops(_flying())
    assert hops.of("late") is hops.of("late")
    assert hops.of("late") is not hops.of("other")


def test_nobody_gets_out_of_a_trace_by_losing_its_name() -> None:
    """Without an id, it is the deepest in flight or of late (E29)."""
    clock = ManualClock()
    calls = _flying(Invocation("a"), Invocation("b", Hop(Trace(7), 7)), Invocation("c"))
    hops = Hops(calls, clock)
    assert hops.of(None) is hops.of("b")
    b = calls.pop("b").hop
    assert b is not None
    hops.ended("b", b)
    assert hops.of(None) is b
    asyncio.run(clock.advance(limits.HOP_KEPT_S.value + 1))
    assert hops.of(None) is hops.of("a")
    calls.clear()
    assert hops.of(None) is hops.of(None)


def test_a_loop_after_the_answer_ends() -> None:
    """Each call is one deeper than the one before, though its caller has ended and lost its name:
    in whatever time, at most `HOP_KEPT_S` between two (row E29)."""
    clock = ManualClock()
    calls: dict[str, Underway] = {}
    hops = Hops(calls, clock)
    depths: list[int] = []
    for n in range(20):
        hop = hops.of(None).next()
        depths.append(hop.depth)
        calls["fresh"] = Invocation("fresh")  # somebody from outside is in flight all the while
        hops.ended(f"r-{n}", hop)
        asyncio.run(clock.advance(limits.HOP_KEPT_S.value - 1))
    assert depths == list(range(1, 21))


def test_calling_itself_once_after_each_answer_is_no_loop() -> None:
    """However often in a minute, and whatever else is in flight: each is one call deep (E29)."""
    calls = _flying(Invocation("other", Hop(Trace(9), 9)))
    hops = Hops(calls, ManualClock())
    for n in range(50):
        hop = hops.of(f"r-{n}").next()  # its own answer has ended
        assert (hop.depth, hop.trace.calls) == (1, 2)
        hops.ended(f"refresh-{n}", hop)


def test_a_guess_is_believed_while_it_is_in_flight() -> None:
    """A bundle without contexts signs for the newest; when that has ended, it is nameless (E29)."""
    calls = _flying(Invocation("a", Hop(Trace(), 2)), Invocation("b", Hop(Trace(), 5)))
    hops = Hops(calls, ManualClock())
    assert hops.of(GUESS + "a").depth == 2
    a = calls.pop("a").hop
    assert a is not None
    hops.ended("a", a)
    assert hops.of("a") is a
    assert hops.of(GUESS + "a").depth == 5

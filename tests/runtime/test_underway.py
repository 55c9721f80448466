"""Which place in a trace a guest's request continues, also when its invocation has ended."""

from __future__ import annotations

from dataclasses import dataclass

from amba_runtime import limits
from amba_runtime.outcome import Ended
from amba_runtime.trace import Hop, Trace
from amba_runtime.underway import Hops, Underway


@dataclass(eq=False, slots=True)
class Invocation:
    """One in flight, at its place in a trace."""

    request_id: str
    hop: Hop | None = None
    started_s: float = 0.0
    begun: bool = False
    lasting: bool = False

    def end(self, ended: Ended) -> None:
        raise AssertionError("nobody ends it here")


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
    """What `waitUntil` asks continues its trace; the oldest are forgotten first."""
    hops = Hops(_flying())
    hops.ended("deep", Hop(Trace(9), 9))
    assert hops.of("deep").depth == 9
    for n in range(limits.TRACES_KEPT.value):
        hops.ended(str(n), Hop(Trace(), 1))
    assert hops.of("deep").depth == 0


def test_one_that_ended_before_it_asked_begins_one_trace() -> None:
    """All that it asks later is counted together."""
    hops = Hops(_flying())
    assert hops.of("late") is hops.of("late")
    assert hops.of("late") is not hops.of("other")


def test_nobody_gets_out_of_a_trace_by_losing_its_name() -> None:
    """Without an id, or with one that is not known: the deepest in flight."""
    calls = _flying(Invocation("a"), Invocation("b", Hop(Trace(7), 7)), Invocation("c"))
    hops = Hops(calls)
    assert hops.of(None) is hops.of("b")
    assert hops.of("never heard of") is hops.of("b")
    del calls["b"]
    assert hops.of(None) is hops.of("a")
    calls.clear()
    assert hops.of(None) is not hops.of(None)

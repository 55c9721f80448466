"""What is under way in one version: invocations by request id, and their places in traces."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Protocol

from amba_runtime import limits
from amba_runtime.clock import Clock, SystemClock
from amba_runtime.outcome import Ended
from amba_runtime.trace import Hop
from amba_runtime.turnstile import Gate


class Underway(Protocol):
    """One invocation in flight, as its slot and the watchdog see it.

    Attributes:
        request_id: unique among those in flight.
        started_s: on the clock's monotonic time.
        hop: its place in a trace; None while nobody asked, which is the start of one.
    """

    request_id: str
    started_s: float
    hop: Hop | None

    @property
    def begun(self) -> bool:
        """Its answer has begun."""
        ...

    @property
    def lasting(self) -> bool:
        """It is a WebSocket: it may last, and is billed only while it keeps its isolate busy."""
        ...

    @property
    def event(self) -> bool:
        """It is a schedule's or a queue's: nobody waits for the first byte of an answer."""
        ...

    def end(self, ended: Ended) -> None:
        """End it alone, now: its caller is told this outcome, or cut off. Idempotent."""
        ...


GUESS = "~"
"""Stands before a request id that the guest's realm does not know for sure: the newest one's."""
EVENT = "!"
"""Begins what stands for a request id where there is none: for a schedule, for a batch."""


class _Forgotten:
    """How deep those were whose hops are forgotten, for `limits.HOP_KEPT_S` at least.

    Two tables by the hash of their names, of now and of before: none is lost too early, however
    many there are. Where two names have one place, both are as deep as the deeper one.
    """

    __slots__ = ("_before", "_depths", "_since_s")

    def __init__(self) -> None:
        self._before = b""
        self._depths = bytearray()
        self._since_s = 0.0

    def note(self, name: str, depth: int, now_s: float) -> None:
        """Depth 0 needs no place: it is what one that is not known has."""
        if depth == 0:
            return
        self._turn(now_s)
        if not self._depths:
            self._depths = bytearray(limits.TRACE_DEPTHS_KEPT.value)
        place = hash(name) % len(self._depths)
        self._depths[place] = max(self._depths[place], min(depth, 255))

    def depth(self, name: str, now_s: float) -> int:
        """Of one that is known by its name alone; 0 where it was never noted."""
        self._turn(now_s)
        return max((t[hash(name) % len(t)] for t in (self._before, self._depths) if t), default=0)

    def _turn(self, now_s: float) -> None:
        age_s = now_s - self._since_s
        if age_s > limits.HOP_KEPT_S.value:
            self._before = bytes(self._depths) if age_s <= 2 * limits.HOP_KEPT_S.value else b""
            self._depths = bytearray()
            self._since_s = now_s


class Hops:
    """Which hop a request of a guest continues. Costs nothing until a guest calls a function.

    Args:
        underway: invocations in flight, by request id, oldest first.
    """

    def __init__(self, underway: Mapping[str, Underway], clock: Clock | None = None) -> None:
        self._underway = underway
        self._clock: Clock = clock or SystemClock()
        self._ended: OrderedDict[str, Hop] = OrderedDict()  # used last comes last
        self._forgotten = _Forgotten()
        self._deepest: Hop | None = None
        self._deepest_s = 0.0

    def ended(self, request_id: str, hop: Hop) -> None:
        """An invocation whose place matters has ended; its guest may still send requests."""
        self._ended[request_id] = hop
        if len(self._ended) > limits.TRACES_KEPT.value:
            name, gone = self._ended.popitem(last=False)
            self._forgotten.note(name, gone.depth, self._clock.monotonic_s())
        self._remember(hop)

    def of(self, request_id: str | None) -> Hop:
        """The hop of the invocation that sent a request.

        Args:
            request_id: as the guest's realm told it, after GUESS where it is one. None, and a
                guess that has ended, is the deepest in flight or of late (`limits.HOP_KEPT_S`):
                nobody gets out of a trace by losing its name, and who calls itself after its
                answer comes to an end. A name that is sure has a trace of its own, however late
                it asks: one that always calls itself once from `waitUntil` is no loop. Where
                so many have ended that its own is forgotten, it is as deep as it was, at least.
        """
        name, sure = request_id, True
        if name is not None and name.startswith(GUESS):
            name, sure = name.removeprefix(GUESS), False
        if name is not None:
            call = self._underway.get(name)
            if call is not None:
                return _hop(call)
            if sure:
                hop = self._ended.get(name)
                if hop is None:  # one that ended before anybody asked, or is forgotten
                    hop = Hop(depth=self._forgotten.depth(name, self._clock.monotonic_s()))
                    self.ended(name, hop)
                # who still asks is not forgotten for those who do not
                self._ended.move_to_end(name)
                return hop
        return self._unnamed()

    def _unnamed(self) -> Hop:
        """Of a request that nobody can be named for."""
        kept_s = limits.HOP_KEPT_S.value
        if self._clock.monotonic_s() - self._deepest_s > kept_s:
            self._deepest = None
        calls = self._underway.values()
        call = max(calls, key=lambda c: c.hop.depth if c.hop is not None else 0, default=None)
        hop = self._deepest
        if call is not None and (hop is None or _hop(call).depth >= hop.depth):
            hop = _hop(call)
        if hop is None:
            hop = Hop()
            self._remember(hop)  # what it is of late: one that somebody had is not renewed by this
        return hop

    def _remember(self, hop: Hop) -> None:
        """The deepest of late: what comes without a name continues it."""
        now_s = self._clock.monotonic_s()
        kept = self._deepest
        fresh = now_s - self._deepest_s <= limits.HOP_KEPT_S.value
        if kept is None or not fresh or hop.depth >= kept.depth:
            self._deepest, self._deepest_s = hop, now_s


def _hop(call: Underway) -> Hop:
    if call.hop is None:
        call.hop = Hop()
    return call.hop


class Queued:
    """The hops of those that wait for a turn in one version; changed by `with_`.

    Args:
        underway: invocations in flight, which hold the places.
    """

    def __init__(self, underway: Mapping[str, Underway]) -> None:
        self._underway = underway
        self._hops: list[Hop] = []

    @contextmanager
    def with_(self, hop: Hop | None) -> Generator[None]:
        """One more waits, meanwhile."""
        if hop is None:  # from outside: nobody's place waits for it
            yield
            return
        self._hops.append(hop)
        try:
            yield
        finally:
            self._hops = [other for other in self._hops if other is not hop]

    def in_vain(self, gate: Gate) -> bool:
        """Whether it is full, and no place can become free before one of those that wait gives up.

        So it is where whoever holds a place waits for one of them: a function that calls
        itself, at full concurrency. Not surely so: a caller that answers without waiting, for
        `waitUntil`, is seen here some milliseconds before it has ended.
        """
        # one that was let in a moment ago may not be under way yet, and waits for nobody
        if gate.inside < gate.most or len(self._underway) < gate.inside:
            return False
        held_up = {id(caller) for hop in self._hops for caller in hop.callers()}
        calls = self._underway.values()
        return all(call.hop is not None and id(call.hop) in held_up for call in calls)

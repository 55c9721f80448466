"""What is under way in one version: invocations by request id, and their places in traces."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol

from amba_runtime import limits
from amba_runtime.outcome import Ended
from amba_runtime.trace import Hop


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

    def end(self, ended: Ended) -> None:
        """End it alone, now: its caller is told this outcome, or cut off. Idempotent."""
        ...


class Hops:
    """Which hop a request of a guest continues. Costs nothing until a guest calls a function.

    Args:
        underway: invocations in flight, by request id, oldest first.
    """

    def __init__(self, underway: Mapping[str, Underway]) -> None:
        self._underway = underway
        self._ended: OrderedDict[str, Hop] = OrderedDict()

    def ended(self, request_id: str, hop: Hop) -> None:
        """An invocation whose place matters has ended; its guest may still send requests."""
        self._ended[request_id] = hop
        if len(self._ended) > limits.TRACES_KEPT.value:
            self._ended.popitem(last=False)

    def of(self, request_id: str | None) -> Hop:
        """The hop of the invocation that sent a request.

        Args:
            request_id: as the guest's realm told it; None or unknown is the deepest in flight,
                so that nobody gets out of a trace by losing its name.
        """
        if request_id is not None:
            call = self._underway.get(request_id)
            if call is not None:
                return _hop(call)
            hop = self._ended.get(request_id)
            if hop is not None:
                return hop
        calls = self._underway.values()
        deepest = max(calls, key=lambda c: c.hop.depth if c.hop is not None else 0, default=None)
        if deepest is not None:
            return _hop(deepest)
        hop = Hop()
        if request_id is not None:
            self.ended(request_id, hop)  # one that ended before anybody asked
        return hop


def _hop(call: Underway) -> Hop:
    if call.hop is None:
        call.hop = Hop()
    return call.hop

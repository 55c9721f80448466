"""Functions that call functions: how deep, and how many in all, because of one request.

A `Hop` travels in process, never in a header: nobody can forge it or lose it on the way.
Source: reliability.md 2.3 (trace depth) and row E29.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Trace:
    """One request from outside and every invocation that follows from it; shared by them all.

    Attributes:
        calls: invocations so far, the first one included.
    """

    calls: int = 1


@dataclass(frozen=True, slots=True)
class Hop:
    """Where one invocation stands in its trace; `depth` is 0 for the request from outside.

    Attributes:
        caller: the invocation that made this one; None for the request from outside.
    """

    trace: Trace = field(default_factory=Trace)
    depth: int = 0
    caller: Hop | None = field(default=None, repr=False, compare=False)

    def next(self) -> Hop:
        """The hop of a function that this one calls, which is counted."""
        self.trace.calls += 1
        return Hop(self.trace, self.depth + 1, self)

    def callers(self) -> Iterator[Hop]:
        """Whoever waits for this one, the nearest first."""
        hop = self.caller
        while hop is not None:
            yield hop
            hop = hop.caller

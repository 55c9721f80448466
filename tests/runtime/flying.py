"""Invocations that are said to be in flight, and a version that is said to serve them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from amba_runtime.callers import Callers
from amba_runtime.limits import FunctionLimits
from amba_runtime.outcome import Ended
from amba_runtime.trace import Hop
from amba_runtime.underway import Underway


@dataclass(eq=False, slots=True)
class Invocation:
    """One in flight, at its place in a trace."""

    request_id: str
    hop: Hop | None = None
    started_s: float = 0.0
    begun: bool = False
    lasting: bool = False
    event: bool = False

    def end(self, ended: Ended) -> None:
        raise AssertionError("nobody ends it here")


def few(in_all: int, at_once: int) -> FunctionLimits:
    """Limits under which an invocation may make so many subrequests."""
    return FunctionLimits.hosted().override({"subrequests": in_all, "subrequests_at_once": at_once})


@dataclass
class Version:
    """What a tally knows of the version that is served."""

    invocations: dict[str, Underway] = field(default_factory=dict[str, Underway])
    answers: int = 0
    limits: FunctionLimits = field(default_factory=lambda: few(3, 2))

    def __post_init__(self) -> None:
        self.callers = Callers(self.invocations)

    def fly(self, *names: str) -> None:
        """These are in flight now, oldest first; those that were have ended."""
        for name in self.invocations:
            self.callers.ended(name)
        self.invocations.clear()
        self.invocations.update(dict.fromkeys(names, cast(Underway, None)))

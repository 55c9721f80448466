"""One invocation as its slot, its caller and the journal see it: what it is, how it ends.

Source: architecture.md section 3.
"""

from __future__ import annotations

from amba_router.asgi import Scope, Send
from amba_router.hosts import Site
from amba_router.journal import Invocation, Journal
from amba_router.problem import Problem
from amba_router.relay import Relay
from amba_router.routes import Project
from amba_router.sockets import SocketTask
from amba_router.verdicts import Fields, of_outcome
from amba_runtime.clock import Clock
from amba_runtime.outcome import Action, Breach, Ended, Outcome, Tell
from amba_runtime.slot import Slot
from amba_runtime.trace import Hop


class Invoked:
    """An `Underway` of its slot.

    Attributes:
        ended: why it was ended before its time; set by `end`.
        relay: what moves it, once it takes the long way.
    """

    __slots__ = (
        "clock",
        "ended",
        "fields",
        "hop",
        "journal",
        "now_s",
        "project",
        "relay",
        "request_id",
        "scope",
        "site",
        "slot",
        "started_s",
        "target",
    )

    def __init__(
        self,
        project: Project,
        slot: Slot,
        site: Site,
        scope: Scope,
        fields: Fields,
        target: bytes,
        request_id: str,
        now_s: float,
        *,
        clock: Clock,
        journal: Journal,
        hop: Hop | None = None,
    ) -> None:
        self.clock = clock
        self.journal = journal
        self.hop = hop
        self.ended: Ended | None = None
        self.relay: Relay | SocketTask | None = None
        self.project = project
        self.slot = slot
        self.site = site
        self.scope = scope
        self.fields = fields
        self.target = target
        self.request_id = request_id
        self.now_s = now_s
        self.started_s = clock.monotonic_s()

    # as its slot sees it

    @property
    def begun(self) -> bool:
        """The answer has begun."""
        return self.relay is not None and self.relay.begun

    @property
    def lasting(self) -> bool:
        """It is a WebSocket."""
        return isinstance(self.relay, SocketTask)

    @property
    def event(self) -> bool:
        """It is a request."""
        return False

    def end(self, ended: Ended) -> None:
        """See `Underway.end`; one that has no way yet is ended when it gets one."""
        if self.ended is None:
            self.ended = ended
            if self.relay is not None:
                self.relay.end()

    def breached(self, breach: Breach, action: Action) -> None:
        """Tell of a limit that it met."""
        self.journal.breach(self.slot, self.request_id, breach, action)

    def goes_by(self, relay: Relay) -> None:
        """See `LongWay.goes_by`."""
        self.relay = relay
        if self.ended is not None:  # meanwhile
            relay.end()

    # how it ends

    def tell(self, status: int, outcome: Outcome, tell: Tell | None, *, note: str = "") -> None:
        slot = self.slot
        self.journal.add(
            Invocation(
                self.request_id,
                slot.manifest.name,
                slot.manifest.version,
                self.scope.get("method", "GET"),
                self.target.decode("latin-1"),
                status,
                outcome,
                self.now_s,
                (self.clock.monotonic_s() - self.started_s) * 1000,
                slot,
                tell,
                note=note,
            )
        )

    async def refuse(
        self,
        send: Send,
        outcome: Outcome,
        problem: Problem | None,
        *,
        tell: Tell | None = None,
        note: str = "",
    ) -> None:
        """Answer for the guest: by its outcome's row, or with a problem of our own."""
        if problem is None:
            problem = of_outcome(outcome, tell)
        await problem.answer(send, self.request_id, head=self.scope.get("method") == "HEAD")
        self.tell(problem.status, outcome, tell, note=note)

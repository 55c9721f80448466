"""Queues on a real store, with functions in Python and time in hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.router.store.world import project

from amba_router.identity import Identities
from amba_router.journal import Invocation, Journal
from amba_router.routes import Project, Projects, Route
from amba_router.services.queues.service import QueueService, Send
from amba_router.signing import Keyring
from amba_router.store import queue_rows
from amba_router.store.control import ControlStore
from amba_router.store.on_demand import OnDemand
from amba_router.store.project_store import ProjectStore
from amba_router.store.queue_records import Binding, Job, NewJob, Settings, Status
from amba_router.store.scoped import Scoped
from amba_router.store.state import State
from amba_router.store.trigger_schema import queue_jobs
from amba_router.triggers.deliver import Deliverer
from amba_router.triggers.queues import Queues
from amba_runtime.clock import ManualClock, time_ms
from amba_runtime.engine.base import QueueMessage, Surroundings
from amba_runtime.engine.fake import FakeEngine, FakeIsolate, FakeRequest, FakeResponse
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.outcome import Event, GuestException, Outcome, Tell
from amba_runtime.slot import Slot
from amba_runtime.turnstile import Turnstile
from amba_runtime.wire import Request, Response

Handler = Callable[[Sequence[QueueMessage]], Awaitable[Event]]


def ok(**result: Any) -> Event:
    """A handler that ended well, and what it said."""
    return Event(Outcome.OK, Tell(), result)


def threw(message: str = "thrown on purpose", **result: Any) -> Event:
    """A handler that threw, and what it had said before."""
    tell = Tell(threw=True)
    tell.exceptions.append(GuestException("Error", message, "", 0))
    return Event(Outcome.EXCEPTION, tell, result)


async def fine(_batch: Sequence[QueueMessage]) -> Event:
    """Acknowledges by ending well."""
    return ok()


async def never() -> Event:
    """For a handler that never ends."""
    future: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
    return await future


class Guest(FakeIsolate):
    """A function with a `queue` handler in Python."""

    def __init__(self, engine: Guests, name: str, surroundings: Surroundings) -> None:
        super().__init__(_hello, surroundings)
        self._engine = engine
        self._name = name

    async def queue(
        self, *, queue: str, messages: Sequence[QueueMessage], tell: Tell | None = None
    ) -> Event:
        self._engine.seen.append((queue, tuple(messages)))
        return await self._engine.consumers[self._name](messages)


class Guests(FakeEngine):
    """Attributes: seen: every batch that reached a handler."""

    def __init__(self) -> None:
        super().__init__({})
        self.consumers: dict[str, Handler] = {}
        self.seen: list[tuple[str, tuple[QueueMessage, ...]]] = []
        self.last: Guest | None = None

    async def start(self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings) -> Guest:
        self.last = Guest(self, manifest.name, surroundings)
        self.isolates.append(self.last)
        return self.last


async def _hello(_request: FakeRequest) -> FakeResponse:
    return FakeResponse()


def _not_late(_slot: Slot, _request_id: str, _tell: Tell) -> None:
    """No line comes late here."""


async def _nowhere(_request: Request) -> Response:
    return Response(502)


@dataclass
class Lab:
    """A project `p`, functions, and the queues of one process. `async with`."""

    folder: Path
    clock: ManualClock = field(default_factory=ManualClock)
    concurrency: int = 50
    told: list[Invocation] = field(default_factory=lambda: list[Invocation]())
    p: str = ""
    alone: bool = True
    held: int = 0
    burials: int = 0

    async def __aenter__(self) -> Self:
        self.engine = Guests()
        self.projects = Projects()
        self.journal = Journal(self.clock)
        self.journal.listen(self.told.extend, _not_late)
        self.turnstile = Turnstile(self.clock)
        self.deliverer = Deliverer(self.projects, self.journal, self.clock)
        self.state = await State.open(self.folder / "state", self.clock)
        self.states = OnDemand(self.state, self.clock)
        self.store = ProjectStore(self.states)
        self.control = ControlStore(self.state, self.clock)
        known = (await self.control.snapshot()).projects
        if known:
            self.p = known[0].record.id
            self.serve(self.p)
        else:
            self.p = await self.project("Shop")
        self.starts = 0
        self.queues = self.process()
        self.service = self.served()
        await self.queues.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.queues.close(grace_s=0.0)
        self.turnstile.close()
        self.journal.flush()
        await self.engine.close()
        await self.state.close()

    def process(self, fraction: Callable[[], float] = lambda: 0.5) -> Queues:
        """The queues of one more process, as a restart has them."""
        self.starts += 1
        return Queues(
            self.states,
            self.store,
            self.deliverer,
            self.clock,
            owner=f"process-{self.starts}",
            alone=self.alone,
            fraction=fraction,
            buried=self._buried,
        )

    def _buried(self) -> None:
        self.burials += 1

    async def restart(self) -> None:
        """As after `kill -9`: nothing of the process before is told that it ends."""
        await self.queues.stop(grace_s=0.0)
        self.queues = self.process()
        self.service = self.served()
        await self.queues.open()

    def served(self) -> QueueService:
        """The API's side of them."""
        return QueueService(self.store, self.projects, self.queues, self.clock)

    # projects and functions

    async def project(self, name: str) -> str:
        """One more; its id."""
        record = (await project(self.control, name)).record
        self.serve(record.id)
        return record.id

    def serve(self, project_id: str) -> None:
        """Make a project reachable."""
        identities = Identities(project_id, session_key=b"k" * 32, clock=self.clock)
        id_ = ProjectId(project_id)
        self.projects.add(Project(id_, f"s{project_id[:8]}", Keyring((b"s",)), identities))

    def function(
        self,
        name: str = "worker",
        handler: Handler = fine,
        *,
        of: str = "",
        handlers: tuple[str, ...] = ("queue",),
        total_ms: int = 0,
    ) -> Slot:
        """Deploy one."""
        project_id = of or self.p
        self.engine.consumers[name] = handler
        settings = FunctionLimits.hosted().override({"total_ms": total_ms} if total_ms else {})
        slot = Slot(
            self.engine,
            Manifest(ProjectId(project_id), FunctionName(name), 1),
            Bundle.of(b"export default {}"),
            limits_=settings,
            egress=_nowhere,
            storage=None,
            late=_not_late,
            clock=self.clock,
            gate=self.turnstile.gate(project_id, self.concurrency),
        )
        found = self.projects.by_id(project_id)
        assert found is not None
        found.routes[name.encode()] = Route(FunctionName(name), slot, handlers=handlers)
        return slot

    def forget(self, name: str) -> None:
        """Undeploy one."""
        found = self.projects.by_id(self.p)
        assert found is not None
        del found.routes[name.encode()]

    # queues

    async def hold(
        self, *payloads: object, queue: str = "orders", of: str = "", **settings: int
    ) -> None:
        """A binding and messages that nobody is woken for, as an earlier process left them."""
        now_ms = time_ms(self.clock)
        self.held += 1
        bound = Binding(
            f"b-{queue}", queue, "worker", "active", Settings(**settings), "api", now_ms, now_ms
        )
        jobs = [
            NewJob(f"{self.held}-{at}", json.dumps(payload), now_ms, now_ms)
            for at, payload in enumerate(payloads)
        ]

        def work(scoped: Scoped) -> None:
            queue_rows.put_binding(scoped, bound)
            queue_rows.add_jobs(scoped, queue, jobs)

        await self.store.write(of or self.p, work)

    async def steal(self) -> None:
        """Another process takes over every lease."""

        def work(scoped: Scoped) -> int:
            return scoped.change(queue_jobs, queue_jobs.c.owner.is_not(None), owner="thief")

        await self.store.write(self.p, work)

    async def barrier(self) -> None:
        """What was to be written by now is."""
        await self.store.write(self.p, lambda scoped: None)
        await self.clock.advance(0)

    async def bind(
        self,
        queue: str = "orders",
        function: str = "worker",
        *,
        of: str = "",
        status: Status = "active",
        **settings: int,
    ) -> None:
        """Bind a queue, and wait until that has had its effect."""
        await self.service.bind(of or self.p, queue, function, status, Settings(**settings))
        await self.queues.rest()

    async def send(
        self,
        *payloads: object,
        queue: str = "orders",
        of: str = "",
        delay_s: int = 0,
        key: str | None = None,
    ) -> list[str]:
        """Send messages; their ids."""
        return [
            await self.service.send(
                of or self.p, Send(queue, json.dumps(payload), delay_s * 1000, key)
            )
            for payload in payloads
        ]

    async def jobs(self, queue: str = "orders", *, of: str = "") -> list[Job]:
        """All that lies in a queue."""
        found, total = await self.service.jobs(of or self.p, queue, None, offset=0, limit=1000)
        assert len(found) == total
        return found

    async def states_of(self, queue: str = "orders", *, of: str = "") -> list[str]:
        """The states of all messages, sorted."""
        return sorted(job.state for job in await self.jobs(queue, of=of))

    async def passes(self, seconds: float) -> None:
        """Let time pass; whatever becomes due meanwhile has its turn at its time."""
        until_s = self.clock.monotonic_s() + seconds
        while True:
            await self.queues.rest()
            left_s = until_s - self.clock.monotonic_s()
            if left_s <= 0:
                return
            next_ms = self.queues.next_ms
            if next_ms is not None:
                left_s = min(left_s, max(0.001, (next_ms - time_ms(self.clock)) / 1000))
            await self.clock.advance(left_s)

    def bodies(self) -> list[object]:
        """Of all messages that reached a handler, in order."""
        return [json.loads(m.body) for _, batch in self.engine.seen for m in batch]


def run(folder: Path, work: Callable[[Lab], Awaitable[None]], **more: Any) -> None:
    """With a lab."""

    async def main() -> None:
        async with Lab(folder, **more) as lab:
            await work(lab)

    asyncio.run(main())

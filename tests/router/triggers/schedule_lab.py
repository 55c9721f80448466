"""Functions that only note what their `scheduled` handlers are told, and a ticker for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.router.store.world import opened_state, project

from amba_router.identity import Identities
from amba_router.journal import Journal
from amba_router.routes import Project, Projects, Route
from amba_router.signing import Keyring
from amba_router.store import schedule_rows
from amba_router.store.control import ControlStore
from amba_router.store.on_demand import OnDemand
from amba_router.store.project_store import ProjectStore
from amba_router.store.schedule_rows import Schedule, SlotRow, Wanted
from amba_router.store.state import State
from amba_router.triggers.declared import Declarations
from amba_router.triggers.deliver import Deliverer
from amba_router.triggers.schedules import Schedules
from amba_runtime import entropy
from amba_runtime.clock import Clock, ManualClock, time_ms
from amba_runtime.engine.base import Description, StartFailed, Surroundings
from amba_runtime.engine.fake import FakeEngine, FakeIsolate, FakeRequest, FakeResponse
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.outcome import Event, Outcome, Tell
from amba_runtime.slot import Slot
from amba_runtime.turnstile import Turnstile
from amba_runtime.wire import Request, Response

START = datetime(2026, 3, 1, tzinfo=UTC)
FINE: dict[str, Any] = {"outcome": "ok", "noRetry": False}
Act = Callable[[str, str, int], Awaitable[Event]]


def ms(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    """Unix milliseconds of a time in UTC."""
    return round(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp() * 1000)


async def fine(function: str, cron: str, scheduled_ms: int) -> Event:
    """Ends well."""
    return Event(Outcome.OK, Tell(), dict(FINE))


async def _no_fetch(request: FakeRequest) -> FakeResponse:
    raise AssertionError("nobody asks")


async def _nowhere(request: Request) -> Response:
    raise AssertionError("no guest here fetches")


class _Isolate(FakeIsolate):
    def __init__(self, engine: Engine, name: str, surroundings: Surroundings) -> None:
        super().__init__(_no_fetch, surroundings)
        self._engine = engine
        self._name = name

    async def describe(self) -> Description:
        return Description(("scheduled",), "object", Tell())

    async def scheduled(
        self, *, cron: str, scheduled_time_ms: int, tell: Tell | None = None
    ) -> Event:
        self._engine.heard.append((self._name, cron, scheduled_time_ms))
        return await self._engine.act(self._name, cron, scheduled_time_ms)


class Engine(FakeEngine):
    """Attributes: heard: (function, cron, slot) of each event; act: what becomes of it."""

    def __init__(self) -> None:
        super().__init__({})
        self.heard: list[tuple[str, str, int]] = []
        self.act: Act = fine
        self.down = False

    async def start(
        self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
    ) -> FakeIsolate:
        if self.down:
            raise StartFailed("it does not start")
        isolate = _Isolate(self, manifest.name, surroundings)
        self.isolates.append(isolate)
        return isolate


def serve(projects: Projects, id_: str, slug: str, clock: Clock) -> Project:
    """A project that is reachable."""
    identities = Identities(ProjectId(id_), session_key=b"k" * 32, clock=clock)
    made = Project(ProjectId(id_), slug.lower(), Keyring((b"s" * 32,)), identities)
    projects.add(made)
    return made


def slot_of(
    engine: Engine,
    project_id: str,
    name: str,
    journal: Journal,
    clock: Clock,
    turnstile: Turnstile,
    *,
    most: int = 64,
) -> Slot:
    """A version that serves; its isolate starts with the first event."""
    return Slot(
        engine,
        Manifest(ProjectId(project_id), FunctionName(name), 1, (), False, "2026-01-01"),
        Bundle.of(b"export default {}"),
        limits_=FunctionLimits.hosted(),
        egress=_nowhere,
        storage=None,
        late=journal.late,
        clock=clock,
        gate=turnstile.gate(project_id, most),
    )


class Stage:
    """A server's functions, and its schedules on a real store. Made by `staged`."""

    def __init__(self, state: Any, clock: Clock, *, alone: bool = True) -> None:
        """Args: state: open; or what stands for an `OnDemand`."""
        self.state = state
        self.clock = clock
        self.engine = Engine()
        self.projects = Projects()
        self.journal = Journal(clock)
        self.turnstile = Turnstile(clock)
        self.states = OnDemand(state, clock) if isinstance(state, State) else state
        self.store = ProjectStore(self.states)
        self.alone = alone
        self.slots: list[Slot] = []
        self.start()

    def start(self) -> None:
        """A ticker anew, as after a start of the server."""
        deliverer = Deliverer(self.projects, self.journal, self.clock)
        self.ticker = Schedules(self.projects, deliverer, self.states, self.clock, alone=self.alone)
        self.declared = Declarations(self.ticker, self.store, self.clock)

    async def project(self, name: str = "Shop") -> str:
        """A new project's id."""
        made = await project(ControlStore(self.state, self.clock), name)
        self.serve(made.record.id, name)
        return made.record.id

    def serve(self, id_: str, slug: str) -> None:
        """The project is reachable."""
        serve(self.projects, id_, slug, self.clock)

    def function(
        self,
        project_id: str,
        name: str,
        *,
        handlers: tuple[str, ...] = ("scheduled",),
        most: int = 64,
    ) -> Slot:
        """A function that is deployed. Args: most: its invocations at once."""
        slot = slot_of(
            self.engine, project_id, name, self.journal, self.clock, self.turnstile, most=most
        )
        self.slots.append(slot)
        where = self.projects.by_id(project_id)
        assert where is not None
        where.routes[name.encode()] = Route(FunctionName(name), slot, handlers=handlers)
        return slot

    async def add(
        self,
        project_id: str,
        function: str,
        cron: str,
        timezone: str = "UTC",
        *,
        missed: str = "skip",
        told: bool = True,
    ) -> str:
        """A schedule's id. Args: told: the ticker is, too; else another process has added it."""
        wanted = Wanted(function, cron, timezone, missed)
        id_, now_ms = entropy.uuid4(), time_ms(self.clock)
        made: Schedule = await self.store.write(
            project_id,
            lambda s: schedule_rows.put(s, wanted, id_=id_, source="api", now_ms=now_ms),
        )
        if told:
            self.ticker.put(project_id, made)
        return made.id

    async def slots_of(self, project_id: str, id_: str) -> list[SlotRow]:
        """Its history, the newest first."""
        found = await self.store.read(project_id, lambda s: schedule_rows.last_slots(s, [id_], 100))
        return found[id_]

    async def outcomes(self, project_id: str, id_: str) -> list[tuple[int, str | None]]:
        """(Slot, outcome), the oldest first."""
        rows = await self.slots_of(project_id, id_)
        return [(row.slot_ms, row.outcome) for row in reversed(rows)]

    async def until(self, there: Callable[[], bool]) -> None:
        """Wait for it, while no time passes by the clock."""
        for _ in range(50_000):
            if there():
                return
            await self.state.database.in_thread(lambda: None)
        raise AssertionError("it does not come about")

    async def settle(self) -> None:
        """Until all that is due by now has been fired and written down."""
        await self.until(lambda: self.ticker.loaded and self.ticker.idle)

    async def steps(self, seconds: float, step_s: float = 60) -> None:
        """Let time pass, so slowly that each slot is done before the next one."""
        assert isinstance(self.clock, ManualClock)
        assert seconds >= step_s
        await self.until(lambda: self.ticker.loaded)
        for _ in range(round(seconds / step_s)):
            await self.clock.advance(step_s)
            for _ in range(5):  # a look at the store that has begun ends
                await self.state.database.in_thread(lambda: None)
            await self.settle()

    async def close(self) -> None:
        """End all of it."""
        await self.ticker.close()
        self.journal.flush()
        self.turnstile.close()
        for slot in self.slots:
            await slot.retire(drain_s=0)


@contextlib.asynccontextmanager
async def staged(
    path: Path, *, at: datetime = START, clock: Clock | None = None
) -> AsyncGenerator[Stage]:
    """A stage whose ticker is open."""
    clock = clock or ManualClock(at.timestamp())
    async with opened_state(path, clock) as state:
        stage = Stage(state, clock)
        try:
            stage.ticker.open()
            yield stage
        finally:
            await stage.close()


def on_stage(path: Path, body: Callable[[Stage], Awaitable[None]], **more: Any) -> None:
    """Run `body` with a stage."""

    async def main() -> None:
        async with staged(path, **more) as stage:
            await body(stage)

    asyncio.run(main())

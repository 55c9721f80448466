"""The emulated services of one server, wired: their parts of the API, and what runs beside it.

Modules of a service come with its first request, as models and SQLAlchemy do: a start waits for
none of them. Source: architecture.md section 1 (`services`); issue 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from amba_router.api.operations import Operation, Part
from amba_router.journal import Journal
from amba_router.routes import Projects
from amba_router.services.storage.service import StorageService
from amba_router.store.on_demand import OnDemand
from amba_router.store.project_store import ProjectStore
from amba_run.media import Media
from amba_run.triggering import Triggers
from amba_runtime.background import ended
from amba_runtime.clock import Clock

if TYPE_CHECKING:
    from amba_router.api.callers import Directory
    from amba_router.services.ai.service import AiService
    from amba_router.services.ai.upstream import Upstream
    from amba_router.services.queues.service import Functions, Pump
    from amba_router.services.segments.rounds import Rounds
    from amba_router.services.users.register import Register
    from amba_router.services.users.sign_in import SignIn
    from amba_router.triggers.schedules import Schedules
    from amba_run.addresses import Reach


class Fires(Protocol):
    """What services need of the trigger layer; `triggering.Triggers` has it."""

    @property
    def functions(self) -> Functions: ...
    @property
    def queues(self) -> Pump: ...
    @property
    def schedules(self) -> Schedules: ...
    async def close(self) -> None: ...


class Emulation:
    """`parts` for an `Api`, and its `Register`; `close` once, at the end.

    Made within the event loop that it runs in: the daily purge begins at once.

    Args:
        states: where all of it is kept.
        storage: the objects of all projects.
        directory: mints sessions.
        triggers: what makes events reach functions; None is of a server without any.
        reach: how the server is reached, asked anew each time: see `Media`.
        ai_fixtures: a folder with recorded replies of prompts; None has none.
        ai_upstream: asks real AI providers; None is the one that does.
    """

    def __init__(
        self,
        states: OnDemand,
        storage: StorageService,
        directory: Directory,
        clock: Clock,
        *,
        triggers: Fires | None = None,
        reach: Callable[[], Reach] | None = None,
        ai_fixtures: Path | None = None,
        ai_upstream: Upstream | None = None,
    ) -> None:
        self._states = states
        self._store = ProjectStore(states)
        self._storage = storage
        self._directory = directory
        self._clock = clock
        self.triggers: Fires = triggers or Triggers(Projects(), Journal(clock), states, clock)
        self._media = Media(states, storage, directory, clock, reach=reach)
        self._ai_fixtures = ai_fixtures
        self._ai_upstream = ai_upstream
        # made with their parts, at the first request
        self._register: Register | None = None
        self._sign_in: SignIn | None = None
        self._rounds: Rounds | None = None
        self._ai_service: AiService | None = None

    def parts(self) -> tuple[Part, ...]:
        """In the order in which the OpenAPI document has them."""
        return (
            self._users,
            self._segments,
            self._collections,
            self._config,
            self._currencies,
            self._events,
            self._email,
            self._media.operations,
            self._ai,
            self._schedules,
            self._queues,
            self._fan_out,
        )

    def _users(self) -> Iterable[Operation]:
        from amba_router.services.users import routes
        from amba_router.services.users.service import Users
        from amba_router.services.users.sign_in import SignIn

        self._sign_in = SignIn(self._store, self._directory, self._clock)
        return routes.operations(self._sign_in, Users(self._store, self._clock))

    def _segments(self) -> Iterable[Operation]:
        from amba_router.services.segments import routes
        from amba_router.services.segments.rounds import Rounds
        from amba_router.services.segments.service import Segments

        segments = Segments(self._store, self._clock)
        self._rounds = Rounds(segments, lambda: self._directory.projects, self._clock)
        return routes.operations(segments, self._rounds)

    def _collections(self) -> Iterable[Operation]:
        from amba_router.services.collections import nearest_routes, routes
        from amba_router.services.collections.nearest_service import NearestService
        from amba_router.services.collections.row_service import RowService
        from amba_router.services.collections.service import Collections
        from amba_router.store.collection_tables import CollectionTables

        tables = CollectionTables()
        nearest = NearestService(self._store, tables, self._ai_calls().vector)
        return (
            *routes.operations(
                Collections(self._store, tables, self._clock),
                RowService(self._store, tables, self._clock),
            ),
            *nearest_routes.operations(nearest),
        )

    def _config(self) -> Iterable[Operation]:
        from amba_router.services.config import routes, service

        return routes.operations(service.ConfigService(self._store, self._clock))

    def _currencies(self) -> Iterable[Operation]:
        from amba_router.services.currencies import routes, service

        return routes.operations(service.CurrencyService(self._store, self._clock))

    def _events(self) -> Iterable[Operation]:
        from amba_router.services.events import routes, service

        return routes.operations(service.EventsService(self._store, self._clock), self._clock)

    def _email(self) -> Iterable[Operation]:
        from amba_router.services.email import files, routes, service

        outbox = files.Outbox(self._states.path)
        return routes.operations(service.EmailService(self._store, outbox, self._clock))

    def _fan_out(self) -> Iterable[Operation]:
        from amba_router.services.fan_out import routes, service

        return routes.operations(
            service.FanOut(
                self._store,
                self.triggers.functions.handlers,
                self.triggers.queues.wake,
                self._clock,
            )
        )

    def _ai(self) -> Iterable[Operation]:
        from amba_router.services.ai import routes

        return routes.operations(self._ai_calls())

    def _schedules(self) -> Iterable[Operation]:
        from amba_router.services.schedules import routes, service

        ticker = self.triggers.schedules
        return routes.operations(service.SchedulesService(self._store, ticker, self._clock))

    def _ai_calls(self) -> AiService:
        """Made once; its `vector` is what a search by text takes."""
        if self._ai_service is None:
            from amba_router.services.ai.fixtures import Fixtures
            from amba_router.services.ai.providers import Providers
            from amba_router.services.ai.service import AiService

            self._ai_service = AiService(
                self._store,
                self._states,
                self._clock,
                fixtures=Fixtures(self._ai_fixtures),
                upstream=self._ai_upstream or Providers(self._clock),
            )
        return self._ai_service

    def _queues(self) -> Iterable[Operation]:
        from amba_router.services.queues import routes
        from amba_router.services.queues.service import QueueService

        fires = self.triggers
        return routes.operations(
            QueueService(self._store, fires.functions, fires.queues, self._clock)
        )

    async def admit(self, project_id: str, user_id: str, *, make: bool) -> bool:
        """See `api.app.Register`."""
        if self._register is None:
            from amba_router.services.users.register import Register

            self._register = Register(self._store, self._clock)
        if self._rounds is not None:
            self._rounds.start()  # whoever has users may ask which segments they are in
        return await self._register.admit(project_id, user_id, make=make)

    async def close(self) -> None:
        """Wait for nothing more. Idempotent."""
        if self._ai_service is not None:
            self._ai_service.close()
        members = (self._rounds, self._sign_in, self._media, self.triggers)
        await ended(*[member.close() for member in members if member is not None])

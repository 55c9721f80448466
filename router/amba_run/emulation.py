"""The emulated services of one server, wired: their parts of the API, and what runs beside it.

Modules of a service come with its first request, as models and SQLAlchemy do: a start waits for
none of them. Source: architecture.md section 1 (`services`); issue 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from amba_router.api.operations import Operation, Part
from amba_router.services.media import purge
from amba_router.services.storage.service import StorageService
from amba_router.store.on_demand import OnDemand
from amba_router.store.scoped import ProjectStore
from amba_run.addresses import Addresses, Reach
from amba_run.media_objects import StorageObjects
from amba_runtime.background import Background
from amba_runtime.clock import Clock

if TYPE_CHECKING:
    from amba_router.api.callers import Directory
    from amba_router.services.media.service import Assets

_DEFAULT_PORT = 8787


class Emulation:
    """`parts` for an `Api`, and its `Register`; `close` once, at the end.

    Made within the event loop that it runs in: the daily purge begins at once.

    Args:
        states: where all of it is kept.
        storage: the objects of all projects.
        directory: mints sessions.
        reach: how the server is reached, asked anew each time: a port is known once it is bound.
    """

    def __init__(
        self,
        states: OnDemand,
        storage: StorageService,
        directory: Directory,
        clock: Clock,
        *,
        reach: Callable[[], Reach] | None = None,
    ) -> None:
        self._store = ProjectStore(states)
        self._states = states
        self._storage = storage
        self._directory = directory
        self._clock = clock
        self._reach = reach or (lambda: Reach.of(Addresses(), "127.0.0.1", _DEFAULT_PORT))
        self._assets: Assets | None = None
        self._background = Background()
        self._background.spawn(self._daily())

    def parts(self) -> tuple[Part, ...]:
        """In the order in which the OpenAPI document has them."""
        return (self._users, self._events, self._email, self._media)

    def _users(self) -> Iterable[Operation]:
        return ()

    def _events(self) -> Iterable[Operation]:
        from amba_router.services.events import routes, service

        return routes.operations(service.EventsService(self._store, self._clock), self._clock)

    def _email(self) -> Iterable[Operation]:
        from amba_router.services.email import files, routes, service

        outbox = files.Outbox(self._states.path)
        return routes.operations(service.EmailService(self._store, outbox, self._clock))

    def _media(self) -> Iterable[Operation]:
        from amba_router.services.media import routes, shown, uploads

        objects, reach = self._objects(), self._reach
        made = uploads.Uploads(
            self._store,
            objects,
            self._clock,
            keys=self._session_keys,
            origin=lambda: reach().api_url,
        )
        # what came due while no server ran
        self._background.spawn(self._purge())
        return routes.operations(made, self._media_assets(), shown.Shown(reach))

    def _objects(self) -> StorageObjects:
        return StorageObjects(self._storage)

    def _media_assets(self) -> Assets:
        if self._assets is None:
            from amba_router.services.media.service import Assets

            self._assets = Assets(self._store, self._objects(), self._clock)
        return self._assets

    def _session_keys(self, project_id: str) -> tuple[bytes, ...]:
        held = self._directory.credentials.get(project_id)
        if held is None:
            return ()
        return tuple(bytes.fromhex(one.value.reveal()) for one in held.session)

    async def _daily(self) -> None:
        """Purge at 03:00 UTC of each day, for as long as there is no `close`."""
        done_ms = purge.last_ms(self._now_ms())
        while True:
            due_ms = purge.last_ms(self._now_ms())
            if due_ms == done_ms:
                await self._clock.sleep(purge.wait_s(self._now_ms()))
            else:
                done_ms = due_ms
                await self._purge()

    async def _purge(self) -> None:
        from amba_router.services.email.files import Outbox

        projects = self._directory.projects
        await purge.purge(self._media_assets(), lambda: projects, purge.last_ms(self._now_ms()))
        await Outbox(self._states.path).sweep(projects)

    def _now_ms(self) -> int:
        return int(self._clock.time_s() * 1000)

    async def admit(self, project_id: str, user_id: str, *, make: bool) -> bool:
        """See `api.app.Register`."""
        return True

    async def close(self) -> None:
        """Wait for nothing more. Idempotent."""
        await self._background.close()

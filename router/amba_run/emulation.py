"""The emulated services of one server, wired: their parts of the API, and what runs beside it.

Modules of a service come with its first request, as models and SQLAlchemy do: a start waits for
none of them. Source: architecture.md section 1 (`services`); issue 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from amba_router.api.operations import Operation, Part
from amba_router.services.storage.service import StorageService
from amba_router.store.on_demand import OnDemand
from amba_router.store.scoped import ProjectStore
from amba_run.media import Media
from amba_runtime.clock import Clock

if TYPE_CHECKING:
    from amba_router.api.callers import Directory
    from amba_run.addresses import Reach


class Emulation:
    """`parts` for an `Api`, and its `Register`; `close` once, at the end.

    Made within the event loop that it runs in: the daily purge begins at once.

    Args:
        states: where all of it is kept.
        storage: the objects of all projects.
        directory: mints sessions.
        reach: how the server is reached, asked anew each time: see `Media`.
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
        self._media = Media(states, storage, directory, clock, reach=reach)

    def parts(self) -> tuple[Part, ...]:
        """In the order in which the OpenAPI document has them."""
        return (self._users, self._events, self._email, self._media.operations)

    def _users(self) -> Iterable[Operation]:
        return ()

    def _events(self) -> Iterable[Operation]:
        from amba_router.services.events import routes, service

        return routes.operations(service.EventsService(self._store, self._clock), self._clock)

    def _email(self) -> Iterable[Operation]:
        from amba_router.services.email import files, routes, service

        outbox = files.Outbox(self._states.path)
        return routes.operations(service.EmailService(self._store, outbox, self._clock))

    async def admit(self, project_id: str, user_id: str, *, make: bool) -> bool:
        """See `api.app.Register`."""
        return True

    async def close(self) -> None:
        """Wait for nothing more. Idempotent."""
        await self._media.close()

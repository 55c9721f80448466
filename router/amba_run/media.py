"""The media service, wired: its part of the API, and the daily purge that runs beside it.

Source: contract E.7 (03:00 UTC).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from amba_router.api.operations import Operation
from amba_router.services.media import purge
from amba_router.services.storage.service import StorageService
from amba_router.store.on_demand import OnDemand
from amba_router.store.project_store import ProjectStore
from amba_run.addresses import Addresses, Reach
from amba_run.media_objects import StorageObjects
from amba_runtime.background import Background
from amba_runtime.clock import Clock, time_ms

if TYPE_CHECKING:
    from amba_router.api.callers import Directory
    from amba_router.services.media.service import Assets

_DEFAULT_PORT = 8787


class Media:
    """Made within the event loop that it runs in. `close` when done; idempotent.

    Args:
        reach: how the server is reached, asked anew each time: a port is known once it is bound.
            None is a dev server at its usual port.
    """

    def __init__(
        self,
        states: OnDemand,
        storage: StorageService,
        directory: Directory,
        clock: Clock,
        *,
        reach: Callable[[], Reach] | None,
    ) -> None:
        self._states = states
        self._store = ProjectStore(states)
        self._objects = StorageObjects(storage)
        self._directory = directory
        self._clock = clock
        self._reach = reach or (lambda: Reach.of(Addresses(), "127.0.0.1", _DEFAULT_PORT))
        self._made: Assets | None = None
        self._background = Background()
        self._closed = False
        self._background.spawn(self._daily())

    def operations(self) -> Iterable[Operation]:
        """Its part of the API."""
        from amba_router.services.media import routes, shown, uploads

        reach = self._reach
        made = uploads.Uploads(
            self._store,
            self._objects,
            self._clock,
            keys=self._session_keys,
            origin=lambda: reach().api_url,
        )
        if not self._closed:  # a server that ends may still answer its first request
            # what came due while no server ran
            self._background.spawn(self._purge())
        return routes.operations(made, self._assets(), shown.Shown(reach))

    async def close(self) -> None:
        """Wait for nothing more."""
        self._closed = True
        await self._background.close()

    def _assets(self) -> Assets:
        if self._made is None:
            from amba_router.services.media.service import Assets

            self._made = Assets(self._store, self._objects, self._clock)
        return self._made

    def _session_keys(self, project_id: str) -> tuple[bytes, ...]:
        held = self._directory.credentials.get(project_id)
        if held is None:
            return ()
        return tuple(bytes.fromhex(one.value.reveal()) for one in held.session)

    async def _daily(self) -> None:
        done_ms = purge.last_ms(time_ms(self._clock))
        while True:
            due_ms = purge.last_ms(time_ms(self._clock))
            if due_ms == done_ms:
                await self._clock.sleep(purge.wait_s(time_ms(self._clock)))
            else:
                done_ms = due_ms
                await self._purge()

    async def _purge(self) -> None:
        from amba_router.services.email.files import Outbox

        projects = self._directory.projects
        await purge.purge(self._assets(), lambda: projects, purge.last_ms(time_ms(self._clock)))
        await Outbox(self._states.path).sweep(projects, self._store)

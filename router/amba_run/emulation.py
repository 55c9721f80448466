"""The emulated services of one server, wired: their parts of the API, and what runs beside it.

Modules of a service come with its first request, as models and SQLAlchemy do: a start waits for
none of them. Source: architecture.md section 1 (`services`); issue 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from amba_router.api.operations import Operation, Part
from amba_router.services.storage.service import StorageService
from amba_router.store.on_demand import OnDemand
from amba_router.store.scoped import ProjectStore
from amba_runtime.clock import Clock

if TYPE_CHECKING:
    from amba_router.api.callers import Directory


class Emulation:
    """`parts` for an `Api`, and its `Register`; `close` once, at the end.

    Args:
        states: where all of it is kept.
        storage: the objects of all projects.
        directory: mints sessions.
    """

    def __init__(
        self, states: OnDemand, storage: StorageService, directory: Directory, clock: Clock
    ) -> None:
        self._store = ProjectStore(states)
        self._storage = storage
        self._directory = directory
        self._clock = clock

    def parts(self) -> tuple[Part, ...]:
        """In the order in which the OpenAPI document has them."""
        return (self._users, self._collections)

    def _users(self) -> Iterable[Operation]:
        return ()

    def _collections(self) -> Iterable[Operation]:
        from amba_router.services.collections import nearest_routes, routes
        from amba_router.services.collections.nearest_service import NearestService
        from amba_router.services.collections.row_service import RowService
        from amba_router.services.collections.service import Collections
        from amba_router.store.collection_tables import CollectionTables

        tables = CollectionTables()
        return (
            *routes.operations(
                Collections(self._store, tables, self._clock),
                RowService(self._store, tables, self._clock),
            ),
            *nearest_routes.operations(NearestService(self._store, tables)),
        )

    async def admit(self, project_id: str, user_id: str, *, make: bool) -> bool:
        """See `api.app.Register`."""
        return True

    async def close(self) -> None:
        """Wait for nothing more. Idempotent."""

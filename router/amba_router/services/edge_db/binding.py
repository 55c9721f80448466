"""What a server has of the database binding until a function first uses it: next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amba_router.store.on_demand import OnDemand
from amba_router.store.state import in_thread
from amba_runtime.clock import Clock
from amba_runtime.manifest import ProjectId
from amba_runtime.wire import Handler, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from amba_router.services.edge_db.routes import EdgeDbRoutes


class EdgeDb:
    """The database binding of all projects of one state folder. Belongs to one event loop."""

    def __init__(self, states: OnDemand, clock: Clock) -> None:
        self._states = states
        self._clock = clock
        self._routes: EdgeDbRoutes | None = None

    def handler(self, project_id: ProjectId) -> Handler:
        """What answers `EDGE_DB_PROXY` of one project's functions, for `wire.Server`."""

        async def handle(request: Request) -> Response:
            if self._routes is None:
                # SQLAlchemy takes a few hundred milliseconds to import
                make = await in_thread(_load)
                if self._routes is None:  # somebody else waited for the same
                    self._routes = make(self._states, self._clock)
            return await self._routes.answer(project_id, request)

        return handle


def _load() -> Callable[[OnDemand, Clock], EdgeDbRoutes]:
    from amba_router.services.edge_db.routes import EdgeDbRoutes
    from amba_router.services.edge_db.service import EdgeDbService
    from amba_router.store.project_store import ProjectStore

    return lambda states, clock: EdgeDbRoutes(EdgeDbService(ProjectStore(states), clock))

"""The emulated services of one server, wired: their parts of the API, and what runs beside it.

Modules of a service come with its first request, as models and SQLAlchemy do: a start waits for
none of them. Source: architecture.md section 1 (`services`); issue 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from amba_router.api.operations import Operation, Part
from amba_router.services.storage.service import StorageService
from amba_router.store.on_demand import OnDemand
from amba_router.store.scoped import ProjectStore
from amba_runtime.clock import Clock

if TYPE_CHECKING:
    from amba_router.api.callers import Directory
    from amba_router.services.ai.service import AiService
    from amba_router.services.ai.upstream import Upstream


class Emulation:
    """`parts` for an `Api`, and its `Register`; `close` once, at the end.

    Args:
        states: where all of it is kept.
        storage: the objects of all projects.
        directory: mints sessions.
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
        ai_fixtures: Path | None = None,
        ai_upstream: Upstream | None = None,
    ) -> None:
        self._states = states
        self._store = ProjectStore(states)
        self._storage = storage
        self._directory = directory
        self._clock = clock
        self._ai_fixtures = ai_fixtures
        self._ai_upstream = ai_upstream
        self._ai_service: AiService | None = None

    def parts(self) -> tuple[Part, ...]:
        """In the order in which the OpenAPI document has them."""
        return (self._users, self._ai)

    def _users(self) -> Iterable[Operation]:
        return ()

    def _ai(self) -> Iterable[Operation]:
        from amba_router.services.ai import routes

        return routes.operations(self._ai_calls())

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

    async def admit(self, project_id: str, user_id: str, *, make: bool) -> bool:
        """See `api.app.Register`."""
        return True

    async def close(self) -> None:
        """Wait for nothing more. Idempotent."""
        if self._ai_service is not None:
            self._ai_service.close()

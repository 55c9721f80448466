"""The trigger layer of one server, wired: what makes events reach functions by themselves.

Modules that need the database come with the first use, as the services do: a dev server without
queues pays for none. Source: architecture.md section 4; issue 6.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from amba_router.journal import Journal
from amba_router.routes import Projects
from amba_router.store.on_demand import OnDemand
from amba_router.store.project_store import ProjectStore
from amba_router.store.state import DATABASE
from amba_router.triggers.deliver import Deliverer
from amba_runtime import entropy, limits
from amba_runtime.background import ended
from amba_runtime.clock import Clock
from amba_runtime.manifest import HANDLERS

if TYPE_CHECKING:
    from amba_router.store.queue_records import Binding
    from amba_router.triggers.queues import Queues


class Functions:
    """What is deployed on this server, as services ask for it."""

    def __init__(self, projects: Projects) -> None:
        self._projects = projects

    def handlers(self, project_id: str, name: str) -> tuple[str, ...] | None:
        """What a function exports, everything where nobody has told; None: there is none."""
        project = self._projects.by_id(project_id)
        try:
            route = None if project is None else project.routes.get(name.encode())
        except UnicodeEncodeError:
            return None
        if route is None:
            return None
        return HANDLERS if route.handlers is None else route.handlers


class Triggers:
    """Made at once; `open` once functions can be reached, `close` before they end.

    Args:
        projects: of the server: where events go.
        states: where schedules and messages are kept.
    """

    def __init__(
        self, projects: Projects, journal: Journal, states: OnDemand, clock: Clock
    ) -> None:
        self.deliverer = Deliverer(projects, journal, clock)
        self.functions = Functions(projects)
        self._states = states
        self._store = ProjectStore(states)
        self._clock = clock
        self._owner = entropy.uuid4()
        self._queues: Queues | None = None

    @property
    def queues(self) -> Queues:
        """Made at the first use."""
        if self._queues is None:
            from amba_router.triggers.queues import Queues

            self._queues = Queues(
                self._states, self._store, self.deliverer, self._clock, owner=self._owner
            )
        return self._queues

    def open(self) -> None:
        """In the background, take up what an earlier run left; nothing where there was none."""
        if (self._states.path / DATABASE).exists():
            self.queues.start()

    async def declare(self, project_id: str, *, queues: Iterable[Binding] = ()) -> None:
        """Bind what `amba.toml` declares, and what it declared before no more."""
        wanted = tuple(queues)
        if not wanted and not (self._states.path / DATABASE).exists():
            return
        from amba_router.store import queue_rows

        changed = await self._store.write(project_id, lambda s: queue_rows.declare(s, wanted))
        for queue, active in changed:
            if active:
                await self.queues.resume(project_id, queue)
            self.queues.wake(project_id, queue, changed=True)

    async def close(self, *, grace_s: float = limits.QUEUE_CLOSE_S.value) -> None:
        """Deliver nothing more. Idempotent.

        Args:
            grace_s: what is under way may end within it.
        """
        if self._queues is not None:
            await ended(self._queues.close(grace_s=grace_s))

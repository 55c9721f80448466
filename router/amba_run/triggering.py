"""The trigger layer of one server, wired: what makes events reach functions by themselves.

Modules that need the database come with the first use, as the services do: a dev server without
schedules and queues pays for none. Source: architecture.md section 4; issue 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from amba_router.journal import Journal
from amba_router.routes import Projects
from amba_router.store.on_demand import OnDemand
from amba_router.store.project_store import ProjectStore
from amba_router.store.state import DATABASE
from amba_router.triggers.declared import Declarations, Line
from amba_router.triggers.deliver import Deliverer
from amba_router.triggers.schedules import Schedules
from amba_runtime import entropy, limits
from amba_runtime.background import ended
from amba_runtime.clock import Clock

if TYPE_CHECKING:
    from amba_router.store.queue_records import Binding
    from amba_router.triggers.queues import Queues


_NO_SCHEDULES: Mapping[str, Sequence[Line]] = MappingProxyType({})


class Triggers:
    """Made at once; `open` once functions can be reached, `close` before they end.

    Args:
        projects: of the server: where events go.
        states: where schedules and messages are kept.

    Attributes:
        declared: schedules that come with a function's code.
        buried: called as messages become dead letters.
    """

    def __init__(
        self, projects: Projects, journal: Journal, states: OnDemand, clock: Clock
    ) -> None:
        self.deliverer = Deliverer(projects, journal, clock)
        self.functions = projects
        self.schedules = Schedules(projects, self.deliverer, states, clock)
        self._states = states
        self._store = ProjectStore(states)
        self.declared = Declarations(self.schedules, self._store, clock)
        self._clock = clock
        self._owner = entropy.uuid4()
        self._queues: Queues | None = None
        self.buried: Callable[[], None] = lambda: None

    @property
    def queues(self) -> Queues:
        """Made at the first use."""
        if self._queues is None:
            from amba_router.triggers.queues import Queues

            self._queues = Queues(
                self._states,
                self._store,
                self.deliverer,
                self._clock,
                owner=self._owner,
                buried=lambda: self.buried(),
            )
        return self._queues

    @property
    def kept(self) -> bool:
        """Whether there is something to take up: an earlier run, or this one, kept something."""
        return (self._states.path / DATABASE).exists()

    def open(self) -> None:
        """In the background, take up what an earlier run left; nothing where there was none."""
        if self.kept:
            self.schedules.open()
            self.queues.start()

    async def declare(
        self,
        project_id: str,
        *,
        queues: Iterable[Binding] = (),
        schedules: Mapping[str, Sequence[Line]] = _NO_SCHEDULES,
    ) -> None:
        """Take over what `amba.toml` declares; what it declared before and has no longer goes.

        Args:
            schedules: by function.

        Raises:
            Refused: CONFLICT; the project would have too many schedules.
        """
        wanted = tuple(queues)
        if not (wanted or any(schedules.values()) or self.kept):
            return
        await self.declared.filed(project_id, schedules)
        from amba_router.store import queue_rows

        changed = await self._store.write(project_id, lambda s: queue_rows.declare(s, wanted))
        for queue, _ in changed:  # first of all: they hold, whatever becomes of what is put aside
            self.queues.wake(project_id, queue, changed=True)
        for queue, active in changed:
            if active:
                await self.queues.resume(project_id, queue)
                self.queues.wake(project_id, queue)

    def stop(self) -> None:
        """Fire no schedule any more; what has begun goes on."""
        self.schedules.stop()

    async def close(self, *, grace_s: float = limits.QUEUE_CLOSE_S.value) -> None:
        """Deliver nothing more. Idempotent.

        Args:
            grace_s: what is under way may end within it.
        """
        self.stop()
        if self._queues is not None:
            await ended(self._queues.close(grace_s=grace_s))
        await self.schedules.close()

"""The triggers of one server, wired: what fires functions besides requests.

Dev server and node own one each. Nothing is loaded, and no state directory opened, before there
is something to fire. Source: architecture.md section 3 (a trigger enters at step 4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from amba_router.journal import Journal
from amba_router.routes import Projects
from amba_router.store.on_demand import OnDemand
from amba_router.store.project_store import ProjectStore
from amba_router.store.state import DATABASE
from amba_router.triggers.declared import Declarations, Line
from amba_router.triggers.deliver import Deliverer
from amba_router.triggers.schedules import Schedules
from amba_runtime.background import Background
from amba_runtime.clock import Clock


class Triggers:
    """`open` once functions can be called, `close` before they cannot; idempotent both.

    Attributes:
        declared: schedules that come with a function's code.
    """

    def __init__(
        self, projects: Projects, journal: Journal, states: OnDemand, clock: Clock
    ) -> None:
        self.deliverer = Deliverer(projects, journal, clock)
        self.schedules = Schedules(projects, self.deliverer, states, clock)
        self.declared = Declarations(self.schedules, ProjectStore(states), clock)
        self._states = states
        self._background = Background()

    def open(self) -> None:
        """Begin, in the background: at once where there is a database, else with its first use."""
        if (self._states.path / DATABASE).exists():
            self.schedules.open()

    def declare(self, project_id: str, lines: Mapping[str, Sequence[Line]]) -> None:
        """What `amba.toml` says of a project's schedules, by function: all of it.

        In the background, after the first `open`; where there was none and is none, nothing is
        opened. What cannot be written is in the log.
        """
        if any(lines.values()) or (self._states.path / DATABASE).exists():
            self._background.spawn(self.declared.filed(project_id, lines))

    def stop(self) -> None:
        """Fire nothing more; what has begun goes on."""
        self.schedules.stop()

    async def close(self) -> None:
        """End what is under way."""
        await self._background.close()
        await self.schedules.close()

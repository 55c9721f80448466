"""Schedules and queues of a dev server: what `amba.toml` declares, and what is told of them.

Told are the next run of each schedule and the queues, at the start and after a reload, and a
queue when it begins to wait or has new dead letters. What is told is what the platform API
answers, so that schedules and bindings which came by other ways are in it. Source: issue 6 item 3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from amba_router.api.faults import Refused
from amba_router.control.timetable import Line as Line
from amba_router.journal import Invocation
from amba_router.routes import Project
from amba_router.store.queue_records import Binding, Settings
from amba_run.config import ProjectConfig, QueueBinding
from amba_run.in_process import Told
from amba_run.report import Reporter
from amba_runtime import entropy, limits
from amba_runtime.background import Background
from amba_runtime.clock import Clock, time_ms
from amba_runtime.errors import UserError
from amba_runtime.outcome import Tell
from amba_runtime.slot import Slot

Row = dict[str, Any]

_DEPTH_CHANGES = frozenset({"POST", "PUT", "DELETE"})


class Declares(Protocol):
    """The trigger layer, as far as a file may say what it does: `triggering.Triggers`."""

    async def declare(
        self,
        project_id: str,
        *,
        queues: Iterable[Binding],
        schedules: Mapping[str, Sequence[Line]],
    ) -> None:
        """Take over what a file declares, schedules by function; what it no longer has goes."""
        ...


class DevTriggers:
    """One folder's. `begin` and `told` at the start, `apply` after each reload; `close` at the end.

    Args:
        ask: GET of the project's admin plane, in process.
        kept: whether a state directory is there: without one there is nothing to look for.
    """

    def __init__(
        self,
        triggers: Declares,
        ask: Callable[[str], Awaitable[Told]],
        *,
        kept: Callable[[], bool],
        say: Reporter,
        clock: Clock,
    ) -> None:
        self._triggers = triggers
        self._ask = ask
        self._kept = kept
        self._say = say
        self._clock = clock
        self._background = Background()
        self._turn = asyncio.Lock()
        self._looking = False
        # Queue -> (waiting, dead) at the last look; as many as the project has queues.
        self._depths: dict[str, tuple[int, int]] = {}

    async def begin(self, project: Project, config: ProjectConfig) -> None:
        """Declare what the file says: who sees the ready line can send to its queues."""
        async with self._turn:
            await self._declare(project, config)

    def told(self, project: Project, config: ProjectConfig) -> None:
        """Tell what there is, in the background: the ready line is out."""
        self._background.spawn(self._tell(project, config))

    def apply(self, project: Project, config: ProjectConfig) -> None:
        """Declare what the file says by now, and tell what there is. In the background."""
        self._background.spawn(self._apply(project, config))

    def heard(self, invocations: Sequence[Invocation]) -> None:
        """Listens to the journal: a delivery changes its queue."""
        if any(invocation.method == "QUEUE" for invocation in invocations):
            self.changed()

    def late(self, slot: Slot, request_id: str, tell: Tell) -> None:
        """Listens to late lines, which change nothing."""

    def asked(self, method: str, path: str) -> None:
        """A request of the platform API was answered: a send, or another change of a queue."""
        if method in _DEPTH_CHANGES and "/queue/" in path:
            self.changed()

    def changed(self) -> None:
        """Some queue may be another: look in a moment, once for all changes until then."""
        if not self._looking:
            self._looking = True
            self._background.spawn(self._look())

    async def close(self) -> None:
        """Idempotent."""
        await self._background.close()

    async def _apply(self, project: Project, config: ProjectConfig) -> None:
        async with self._turn:  # the file as it was read last counts
            await self._declare(project, config)
            await self._tell(project, config)

    async def _declare(self, project: Project, config: ProjectConfig) -> None:
        now_ms = time_ms(self._clock)
        bindings = [_binding(queue, now_ms) for queue in config.queues]
        schedules = {
            name: [(s.cron, s.timezone, s.missed.value) for s in function.schedules]
            for name, function in config.functions.items()
            if function.schedules
        }
        if not (bindings or schedules or self._kept()):
            return
        try:
            await self._triggers.declare(project.id, queues=bindings, schedules=schedules)
        except (UserError, Refused) as error:
            self._say.warn(f"the schedules and queues of {config.file} are not in force: {error}")

    async def _tell(self, project: Project, config: ProjectConfig) -> None:
        for problem in unserved(project, config):
            self._say.warn(problem)
        if not self._kept():
            return
        listed = await self._ask(f"functions/schedules?limit={limits.API_PAGE.value}")
        depths = await self._ask("queue/queues")
        rows = _rows(listed), _rows(depths)
        if any(rows):
            self._say.triggers(*rows)
        self._depths = {str(row["queue_name"]): _depth(row) for row in rows[1]}

    async def _look(self) -> None:
        await self._clock.sleep(limits.QUEUE_TALK_S.value)
        self._looking = False  # what changes from here on is looked at again
        rows = _rows(await self._ask("queue/queues"))
        before, self._depths = self._depths, {str(r["queue_name"]): _depth(r) for r in rows}
        worse = [row for row in rows if _is_worse(before.get(str(row["queue_name"])), row)]
        for row in worse[: limits.TRIGGERS_TOLD.value]:
            self._say.queue(row)


def unserved(project: Project, config: ProjectConfig) -> Iterator[str]:
    """What a file declares for functions that cannot take it, in sentences."""
    wanted: list[tuple[str, str, str]] = []
    wanted += [(f"the queue {q.queue}", q.function, "queue") for q in config.queues]
    wanted += [
        (f"the schedules of {f.name}", f.name, "scheduled")
        for f in config.functions.values()
        if f.schedules
    ]
    for what, function, handler in wanted:
        route = project.routes.get(function.encode())
        if route is None:
            yield f"{what} cannot be served: no function is called {function}"
        elif route.handlers is not None and handler not in route.handlers:
            yield f"{what} cannot be served: {function} has no {handler} handler"


def _binding(queue: QueueBinding, now_ms: int) -> Binding:
    settings = Settings(
        batch_size=queue.batch_size,
        batch_wait_ms=queue.batch_wait_ms,
        consumers=queue.consumers,
        retries=queue.retries,
        backoff_ms=queue.backoff_ms,
    )
    return Binding(
        id=entropy.uuid4(),
        queue=queue.queue,
        function=queue.function,
        status="paused" if queue.paused else "active",
        settings=settings,
        source="file",
        created_ms=now_ms,
        updated_ms=now_ms,
    )


def _depth(row: Row) -> tuple[int, int]:
    return int(row.get("waiting") or 0), int(row.get("dead") or 0)


def _is_worse(before: tuple[int, int] | None, row: Row) -> bool:
    """It had nothing that waits and has now, or has more dead letters."""
    waited, dead = before or (0, 0)
    waits, died = _depth(row)
    return (waits > 0 and not waited) or died > dead


def _rows(told: Told) -> list[Row]:
    rows: Iterable[Row] = told.body.get("data") or () if told.done else ()
    return list(rows)

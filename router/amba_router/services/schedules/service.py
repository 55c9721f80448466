"""Schedules of one project: made, listed, deleted, fired by hand. Source: contract D.6, H-13.

Firing by the clock is the ticker's (`triggers`), which is told of every change after its commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from amba_router.api import faults
from amba_router.store import schedule_rows
from amba_router.store.project_store import ProjectStore
from amba_router.store.schedule_rows import Schedule, SlotRow, Wanted
from amba_router.store.scoped import Scoped
from amba_runtime import entropy, limits
from amba_runtime.clock import Clock, time_ms
from amba_runtime.outcome import Outcome, Tell


class Expression(Protocol):
    """A cron expression in its zone, read."""

    @property
    def text(self) -> str:
        """As it is kept."""
        ...

    def upcoming(self, ms: int, count: int) -> list[int]:
        """The next runs after a moment, in Unix milliseconds."""
        ...


class Fired(Protocol):
    """How an event ended. `result` is the engine's account, untrusted."""

    @property
    def request_id(self) -> str: ...
    @property
    def outcome(self) -> Outcome: ...
    @property
    def result(self) -> Mapping[str, Any]: ...
    @property
    def error(self) -> str: ...
    @property
    def tell(self) -> Tell | None: ...
    @property
    def ms(self) -> float: ...


class Ticker(Protocol):
    """What fires schedules (`triggers.schedules.Schedules`)."""

    def read(self, cron: str, timezone: str) -> Expression:
        """Raises `Refused` INVALID_CRON, INVALID_TIMEZONE."""
        ...

    def check(self, project_id: str, function: str) -> None:
        """Raises `Refused` FUNCTION_NOT_FOUND, HANDLER_MISSING."""
        ...

    def put(self, project_id: str, schedule: Schedule) -> None:
        """It is new, or has other settings."""
        ...

    def drop(self, project_id: str, schedule_id: str) -> None:
        """It is no more."""
        ...

    async def fire(
        self, project_id: str, function: str, *, cron: str | None, scheduled_ms: int | None
    ) -> Fired:
        """One event now. Raises `Refused` FUNCTION_NOT_FOUND, HANDLER_MISSING, OVERLOADED."""
        ...


@dataclass(frozen=True, slots=True)
class Shown:
    """A schedule as a list shows it. Attributes: next_ms: empty where none comes."""

    schedule: Schedule
    next_ms: Sequence[int]
    last: Sequence[SlotRow]


class SchedulesService:
    """The schedules of all projects."""

    def __init__(self, store: ProjectStore, ticker: Ticker, clock: Clock) -> None:
        self._store = store
        self._ticker = ticker
        self._clock = clock

    async def create(
        self, project_id: str, function: str, cron: str, timezone: str, missed: str | None
    ) -> Schedule:
        """A new one, or the one of this function, expression and zone.

        Args:
            missed: None is `skip` for a new one, and what it is for one that is there.

        Raises:
            Refused: INVALID_CRON, INVALID_TIMEZONE, FUNCTION_NOT_FOUND, HANDLER_MISSING,
                CONFLICT (the function or the project has too many).
        """
        text = self._ticker.read(cron, timezone).text
        self._ticker.check(project_id, function)
        wanted = Wanted(function, text, timezone, missed)
        id_, now_ms = entropy.uuid4(), time_ms(self._clock)

        def work(scope: Scoped) -> Schedule:
            made = schedule_rows.put(scope, wanted, id_=id_, source="api", now_ms=now_ms)
            said = schedule_rows.over(scope, function) if made.id == id_ else ""
            if said:
                raise faults.CONFLICT.refuse(f"{said}; delete one first")
            return made

        made = await self._store.write(project_id, work)
        self._ticker.put(project_id, made)
        return made

    async def page(
        self, project_id: str, function: str | None, *, offset: int, limit: int
    ) -> tuple[list[Shown], int]:
        """Schedules, the oldest first, and how many there are. Args: function: of one alone."""
        count = limits.SCHEDULE_LAST_RUNS.value

        def work(scope: Scoped) -> tuple[list[Schedule], int, dict[str, list[SlotRow]]]:
            found, total = schedule_rows.page(scope, function, offset=offset, limit=limit)
            return found, total, schedule_rows.last_slots(scope, (s.id for s in found), count)

        found, total, last = await self._store.read(project_id, work)
        now_ms = time_ms(self._clock)
        # a thousand take a tenth of a second
        upcoming = await asyncio.to_thread(lambda: [self._upcoming(s, now_ms) for s in found])
        shown = [Shown(s, next_ms, last[s.id]) for s, next_ms in zip(found, upcoming, strict=True)]
        return shown, total

    async def remove(self, project_id: str, schedule_id: str) -> None:
        """Without it; what it is at goes on. Raises `Refused` SCHEDULE_NOT_FOUND."""

        def work(scope: Scoped) -> int:
            return schedule_rows.drop(scope, [schedule_id])

        if not await self._store.write(project_id, work):
            raise faults.SCHEDULE_NOT_FOUND.refuse(
                f"this project has no schedule {schedule_id[:64]!r}; list them to see their ids",
                {"resource": "schedule", "id": schedule_id[:64]},
            )
        self._ticker.drop(project_id, schedule_id)

    async def fire(
        self, project_id: str, function: str, *, cron: str | None, scheduled_ms: int | None
    ) -> Fired:
        """One event now, whatever the schedules say.

        Raises:
            Refused: INVALID_CRON, FUNCTION_NOT_FOUND, HANDLER_MISSING, OVERLOADED.
        """
        if cron is not None:
            cron = self._ticker.read(cron, "UTC").text
        return await self._ticker.fire(project_id, function, cron=cron, scheduled_ms=scheduled_ms)

    def _upcoming(self, schedule: Schedule, now_ms: int) -> list[int]:
        try:
            read = self._ticker.read(schedule.cron, schedule.timezone)
        except faults.Refused:  # a zone that this machine's database has no more: it never fires
            return []
        return read.upcoming(now_ms, limits.SCHEDULE_NEXT_RUNS.value)

"""Schedules that are declared beside a function's code: by a deploy, or in `amba.toml`.

What is declared replaces what was declared in the same way before, in one transaction; schedules
that were made over the API stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from amba_router.api import faults
from amba_router.control.timetable import Line as Line
from amba_router.store.project_store import ProjectStore
from amba_router.triggers.schedules import Schedules
from amba_runtime import entropy
from amba_runtime.clock import Clock, time_ms

if TYPE_CHECKING:
    from amba_router.store.schedule_rows import Schedule
    from amba_router.store.scoped import Scoped


class Declarations:
    """Writes them, and tells the ticker."""

    def __init__(self, schedules: Schedules, store: ProjectStore, clock: Clock) -> None:
        self._schedules = schedules
        self._store = store
        self._clock = clock

    def check(self, cron: str, timezone: str) -> str:
        """The expression as it is kept. Raises `Refused` INVALID_CRON, INVALID_TIMEZONE."""
        return self._schedules.read(cron, timezone).text

    async def deployed(self, project_id: str, function: str, lines: Sequence[Line]) -> None:
        """A deploy of the function came with these.

        Raises:
            Refused: CONFLICT; the function or the project would have too many. Nothing changed.
        """
        await self._replace(project_id, {function: lines}, "deploy", whole=False)

    async def filed(self, project_id: str, lines: Mapping[str, Sequence[Line]]) -> None:
        """The project's file has these, by function, and no others. Raises as `deployed`."""
        await self._replace(project_id, lines, "file", whole=True)

    async def forget(self, project_id: str, function: str) -> int:
        """The function is no more, and so are its schedules; how many there were."""
        from amba_router.store import schedule_rows

        def work(scope: Scoped) -> list[str]:
            ids = [one.id for one in schedule_rows.of_function(scope, function)]
            schedule_rows.drop(scope, ids)
            return ids

        gone = await self._store.write(project_id, work)
        for id_ in gone:
            self._schedules.drop(project_id, id_)
        return len(gone)

    async def _replace(
        self, project_id: str, lines: Mapping[str, Sequence[Line]], source: str, *, whole: bool
    ) -> None:
        from amba_router.store import schedule_rows
        from amba_router.store.schedule_rows import Wanted

        wanted = [
            Wanted(function, cron, timezone, missed)
            for function, some in lines.items()
            for cron, timezone, missed in some
        ]
        ids = [entropy.uuid4() for _ in wanted]
        now_ms = time_ms(self._clock)

        def work(scope: Scoped) -> tuple[list[Schedule], list[str]]:
            functions = None if whole else list(lines)
            done = schedule_rows.replace(scope, functions, source, wanted, ids=ids, now_ms=now_ms)
            for function in lines:
                said = schedule_rows.over(scope, function)
                if said:
                    raise faults.CONFLICT.refuse(said)
            return done

        kept, gone = await self._store.write(project_id, work)
        for schedule in kept:
            self._schedules.put(project_id, schedule)
        for id_ in gone:
            self._schedules.drop(project_id, id_)

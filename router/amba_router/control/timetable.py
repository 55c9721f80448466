"""What the control plane needs of schedules: they are declared by deploys, and go with functions.

`triggers.declared.Declarations` is the real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Line = tuple[str, str, str]
"""A schedule of an upload: cron expression, time zone, `skip` or `run_once`; checked."""


class Timetable(Protocol):
    """The schedules of all projects."""

    def check(self, cron: str, timezone: str) -> str:
        """The expression as it is kept. Raises `Refused` INVALID_CRON, INVALID_TIMEZONE."""
        ...

    async def deployed(self, project_id: str, function: str, lines: Sequence[Line]) -> None:
        """A deploy of the function came with these: they replace those of the deploy before.

        Raises:
            Refused: CONFLICT; there would be too many. Nothing changed.
        """
        ...

    async def forget(self, project_id: str, function: str) -> int:
        """The function was deleted, and so are its schedules; how many there were."""
        ...

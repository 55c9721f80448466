"""All segments of all projects, evaluated anew every fifteen minutes. Source: contract E.13."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from amba_router.services.segments.service import Segments
from amba_runtime import limits
from amba_runtime.background import Background
from amba_runtime.clock import Clock

logger = logging.getLogger("amba.segments")


class Rounds:
    """Begins with `start`; `close` at the end, idempotent.

    Args:
        projects: the ids of all there are at the moment.
    """

    def __init__(
        self, segments: Segments, projects: Callable[[], Iterable[str]], clock: Clock
    ) -> None:
        self._segments = segments
        self._projects = projects
        self._clock = clock
        self._background = Background()
        self._started = False  # set by `start`, for good

    def start(self) -> None:
        """From the first call on; from the event loop only."""
        if not self._started:
            self._started = True
            self._background.spawn(self._run())

    async def close(self) -> None:
        """No round goes on."""
        self._started = True
        await self._background.close()

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(limits.SEGMENTS_EVERY_S.value)
            for project_id in tuple(self._projects()):
                try:
                    await self._segments.evaluate_all(project_id)
                except Exception:  # a full disk, say: the next round may do better
                    logger.exception("segments of %s were not evaluated", project_id)

"""Work that outlives whoever began it, and ends with its owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger("amba.background")


async def ended(*work: Coroutine[Any, Any, None]) -> None:
    """Wait for all of it; what fails is logged, and keeps nobody from ending what comes after."""
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, Exception):
            logger.error("what was to end did not end well", exc_info=result)


class Background:
    """The tasks of one owner, who calls `close`. What fails is logged: nobody awaits it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin it; from the event loop only."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Cancel all that is not done, and wait for its end. Idempotent."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("what was left to do failed", exc_info=task.exception())

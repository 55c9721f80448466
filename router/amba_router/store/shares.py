"""How much of the store's threads one project may have: others wait for none of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from amba_runtime.errors import UserCode, UserError


class Shares:
    """Work of projects: so much of one is under way at once, and so much waits; more is refused.

    Args:
        at_once: of one project.
        waiting: of one project.
    """

    def __init__(self, at_once: int, waiting: int) -> None:
        self._at_once = at_once
        self._waiting = waiting
        # only projects that have something under way; changed by `take` alone
        self._held: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def take(self, project_id: str) -> AsyncGenerator[None]:
        """Wait for this project's turn, in order of asking.

        Raises:
            UserError: OVERLOADED; too many of it wait.
        """
        turns, count = self._held.get(project_id) or (asyncio.Semaphore(self._at_once), 0)
        if count >= self._at_once + self._waiting:
            raise UserError(
                UserCode.OVERLOADED, "too many calls of this project wait for the store; try again"
            )
        self._held[project_id] = (turns, count + 1)
        try:
            async with turns:
                yield
        finally:
            _, count = self._held[project_id]
            if count == 1:
                del self._held[project_id]
            else:
                self._held[project_id] = (turns, count - 1)

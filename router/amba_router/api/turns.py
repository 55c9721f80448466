"""Taking turns: work on one thing runs one after the other, and few may wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import asynccontextmanager

from amba_router.api.faults import Refused


class Turns:
    """Locks by key, made when needed and forgotten when nobody waits.

    Args:
        waiters_max: of one key.
        full: the refusal of one more.
    """

    def __init__(self, waiters_max: int, full: Callable[[], Refused]) -> None:
        self._waiters_max = waiters_max
        self._full = full
        # the lock, and how many hold it or wait for it; changed by `take` alone
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def take(self, key: Hashable) -> AsyncGenerator[None]:
        """Wait for this key's turn, in order of asking. Raises `Refused` when too many wait."""
        lock, count = self._locks.get(key, (None, 0))
        if count > self._waiters_max:
            raise self._full()
        lock = lock or asyncio.Lock()
        self._locks[key] = (lock, count + 1)
        try:
            async with lock:
                yield
        finally:
            _, count = self._locks[key]
            if count == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, count - 1)

"""What is due when: any number of keys, one wait of the clock.

Nothing is polled: a hundred thousand messages and ten thousand schedules cost a heap's entry per
queue or schedule, and no time until the first of them is due.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from amba_runtime import limits
from amba_runtime.clock import Clock, time_ms

logger = logging.getLogger("amba.triggers")

K = TypeVar("K", str, tuple[str, str])


class Alarm(Generic[K]):
    """Tells `due` of each key once its time has come. Belongs to one event loop; `close` it.

    The wall clock may jump: it is looked at every `QUEUE_LOOK_S` at least.

    Args:
        due: called on the event loop; must be quick.
    """

    def __init__(self, clock: Clock, due: Callable[[K], None]) -> None:
        self._clock = clock
        self._due: Callable[[K], None] = due
        self._at: dict[K, int] = {}
        self._heap: list[tuple[int, K]] = []  # entries that `_at` does not have are of the past
        self._sleeper: asyncio.Task[None] | None = None
        self._until_ms = 0  # the sleeper sleeps; 0 while it looks
        self._closed = False

    def __len__(self) -> int:
        return len(self._at)

    @property
    def next_ms(self) -> int | None:
        """The first of all times."""
        return min(self._at.values(), default=None)

    def set(self, key: K, at_ms: int) -> None:
        """Tell of it then, or at the earlier time that is set already."""
        known = self._at.get(key)
        if self._closed or (known is not None and known <= at_ms):
            return
        self._at[key] = at_ms
        heapq.heappush(self._heap, (at_ms, key))
        if len(self._heap) > 2 * len(self._at) + _STALE:
            self._heap = [(at, one) for one, at in self._at.items()]
            heapq.heapify(self._heap)
        if self._sleeper is None or self._sleeper.done():
            self._sleep()
        elif at_ms < self._until_ms:
            self._sleeper.cancel()
            self._sleep()

    def forget(self, key: K) -> None:
        """Tell of it no more."""
        self._at.pop(key, None)

    def close(self) -> None:
        """Tell of nothing more. Idempotent."""
        self._closed = True
        self._at.clear()
        if self._sleeper is not None:
            self._sleeper.cancel()

    def _sleep(self) -> None:
        self._until_ms = 0
        self._sleeper = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._tell():
            self._until_ms, _ = self._heap[0]
            wait_s = (self._until_ms - time_ms(self._clock)) / 1000
            await self._clock.sleep(min(wait_s, limits.QUEUE_LOOK_S.value))
            self._until_ms = 0

    def _tell(self) -> bool:
        """Tell of what is due; whether something else will be."""
        now_ms = time_ms(self._clock)
        while self._heap:
            at_ms, key = self._heap[0]
            if self._at.get(key) != at_ms:
                heapq.heappop(self._heap)
            elif at_ms > now_ms:
                return True
            else:
                heapq.heappop(self._heap)
                del self._at[key]
                try:
                    self._due(key)
                except Exception:  # the others' time comes all the same
                    logger.exception("what was due could not be told of")
        return False


_STALE = 64
"""Entries of the past that may lie in the heap beside as many as there are keys."""

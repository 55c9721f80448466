"""Who lives and who is evicted: the isolates of a whole node, within its bounds.

Idle ones go first, the least recently used before the others; busy ones are never touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator
from itertools import islice

from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.slot import Env, Kept, Overloaded, Resting, Room, Slot

__all__ = ["Env", "Kept", "Overloaded", "Pool", "Resting", "Room", "Slot"]

logger = logging.getLogger("amba.pool")


class Pool:
    """The room of a node (`slot.Room`). `open` once, `close` at the end; idempotent.

    `_live` holds every slot that has an isolate, with when it was last used, least recently
    first; changed only by `joined`, `used` and `left`.

    Args:
        most: isolates that may stay; idle ones over it are evicted in the background.
        hard: isolates alive or being started at all; over it `Overloaded`.
        idle_s: one that had no request for so long is evicted; 0 = never.

    Attributes:
        starts: isolates started so far.
        evictions: isolates evicted so far.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        most: int = limits.LIVE_ISOLATES.value,
        hard: int = limits.LIVE_ISOLATES_HARD.value,
        idle_s: float = limits.ISOLATE_IDLE_S.value,
    ) -> None:
        self.starts = 0
        self.evictions = 0
        self._clock = clock
        self._most = most
        self._hard = max(hard, most)
        self._idle_s = idle_s
        self._live: OrderedDict[Slot, float] = OrderedDict()
        self._turns = asyncio.Semaphore(limits.ISOLATE_STARTS.value)
        self._being_started = 0
        self._trimming: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Evict what is idle for too long, from here on."""
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Evict nothing any more; slots are retired by their owners."""
        tasks = [task for task in (self._trimming, self._watching) if task is not None]
        self._trimming = self._watching = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def live(self) -> int:
        """Isolates alive now."""
        return len(self._live)

    # slot.Room

    @contextlib.asynccontextmanager
    async def starting(self) -> AsyncGenerator[None]:
        """Hold a place while an isolate starts; a few start at once, the others wait.

        Raises:
            Overloaded: the node is full, and nothing on it is idle.
        """
        async with self._turns:
            while len(self._live) + self._being_started >= self._hard:
                if not await self._evict_one():
                    raise Overloaded
            self._being_started += 1
            try:
                yield
            finally:
                self._being_started -= 1
            self.starts += 1
        self._trim()

    def joined(self, slot: Slot) -> None:
        """It has an isolate now."""
        self._live[slot] = self._clock.monotonic_s()
        self._live.move_to_end(slot)

    def used(self, slot: Slot) -> None:
        """It served lately."""
        if slot in self._live:
            self.joined(slot)

    def left(self, slot: Slot) -> None:
        """It has none any more."""
        self._live.pop(slot, None)

    # eviction

    def _trim(self) -> None:
        """Bring the number of isolates down again, in the background."""
        if len(self._live) > self._most and (self._trimming is None or self._trimming.done()):
            self._trimming = asyncio.get_running_loop().create_task(self._trim_all())

    async def _trim_all(self) -> None:
        while len(self._live) > self._most:
            if not await self._evict_one():
                return  # all at work: the next start, or the watch, tries again

    async def _evict_one(self) -> bool:
        """Evict the least recently used one that does nothing; False when all are at work."""
        # news of use comes in batches: what served since the last one moves up first
        for slot in [slot for slot in self._live if slot.recent]:
            slot.used()
        idle = (slot for slot in list(self._live) if not slot.inflight)
        for slot in islice(idle, limits.EVICT_LOOK.value):
            if not await self._at_work(slot) and await self._evict(slot):
                return True
        return False

    async def _at_work(self, slot: Slot) -> bool:
        if slot.inflight:
            return True
        # promises that outlived their answer by so much count no more: a guest can leave any
        quiet_s = self._clock.monotonic_s() - self._live.get(slot, 0.0)
        return quiet_s < limits.DRAIN_S.value and await slot.working()

    async def _evict(self, slot: Slot) -> bool:
        if slot.inflight or slot not in self._live:
            return False
        self.evictions += 1
        logger.info("%s is evicted", slot.manifest.name)
        await slot.evict()
        return True

    async def _watch(self) -> None:
        every_s = limits.EVICT_EVERY_S.value
        if self._idle_s > 0:
            every_s = min(every_s, max(self._idle_s / 2, limits.PENDING_EVERY_S.value))
        while True:
            await self._clock.sleep(every_s)
            if self._idle_s > 0:
                await self._evict_idle(self._clock.monotonic_s() - self._idle_s)
            self._trim()

    async def _evict_idle(self, horizon_s: float) -> None:
        for slot, used_s in list(self._live.items()):
            if used_s > horizon_s:
                return  # least recently used first
            if not await self._at_work(slot):
                await self._evict(slot)

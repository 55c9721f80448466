"""Which limit was hit, and what is done about it: the watchdog.

CPU cannot be told apart by invocation from outside, so the process is billed: who is in flight
shares its time, and one synchronous stretch that uses a whole budget ends the process.
Source: reliability.md 4.3 notes 10 and 11, T3, T4.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.watch import Watch

if TYPE_CHECKING:
    from amba_runtime.slot import Slot

logger = logging.getLogger("amba.watchdog")


class Watchdog:
    """Looks at every isolate that is at work. One per node; runs only while one is. `close` it.

    `_watches` is changed by `watch` and `_look` alone. `Slot.watched` says that an invocation of
    its that begins now is seen in time; a slot at rest is looked at more seldom.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._watches: dict[Slot, Watch] = {}
        self._looking: asyncio.Task[None] | None = None
        self._dozing = False
        self._closed = False

    def watch(self, slot: Slot) -> None:
        """Something is under way there that `slot.watched` does not tell yet."""
        if self._closed:
            return
        slot.watched = True
        watch = self._watches.get(slot)
        if watch is None:
            watch = self._watches[slot] = Watch(slot, self._clock)
        watch.wake()
        if self._looking is not None and self._dozing:
            self._looking.cancel()
            self._looking = None
        if self._looking is None or self._looking.done():
            self._dozing = False
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def close(self) -> None:
        """Look at nothing any more. Idempotent."""
        self._closed = True
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.wait({looking})
        for watch in self._watches.values():
            watch.stop()
        self._watches.clear()

    async def _look(self) -> None:
        while self._watches:
            pace_s = min(watch.pace_s for watch in self._watches.values())
            self._dozing = pace_s > limits.WATCH_EVERY_S.value
            await self._clock.sleep(pace_s)
            self._dozing = False
            now_s = self._clock.monotonic_s() + _SLACK_S
            for slot, watch in list(self._watches.items()):
                if watch.due_s > now_s:
                    continue
                watching = _guarded(watch)
                slot.watched = watching and bool(slot.invocations)
                if not watching:
                    watch.stop()
                    del self._watches[slot]


_SLACK_S = 0.0005
"""A sleep that ends by so little too early has lasted."""


def _guarded(watch: Watch) -> bool:
    """Whether there is still something to look at; a fault of ours ends no function."""
    try:
        return watch.look()
    except Exception:  # or one fault would leave every other function unwatched
        logger.exception("the watchdog failed at %s", watch.name)
        return False

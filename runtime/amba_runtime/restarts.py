"""How an isolate comes back: one start at a time, further apart while they fail.

Source: reliability.md 3.E row E32.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any

from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.engine.base import Isolate, StartFailed
from amba_runtime.errors import AmbaRunError
from amba_runtime.room import Overloaded, Resting
from amba_runtime.wire import WireError

logger = logging.getLogger("amba.pool")


class Restarts:
    """The starts of one slot after its first. `cancel` at its end.

    `_starting` is changed by `begin` alone.

    Args:
        name: of the function, for logs.
        put_away: ends what is left of the last one, which holds files of ours: at once, and not
            when the rest is over.
        bring_up: starts an isolate and lets it serve.

    Attributes:
        failing: it ended unasked, or did not start, since it last began to start.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        put_away: Callable[[], Coroutine[Any, Any, None]],
        bring_up: Callable[[], Coroutine[Any, Any, Isolate]],
    ) -> None:
        self.failing = False
        self._name = name
        self._clock = clock
        self._put_away = put_away
        self._bring_up = bring_up
        self._backoff = Backoff(clock)
        self._rests_until_s = 0.0
        self._starting: asyncio.Task[Isolate] | None = None

    @property
    def begun(self) -> bool:
        """A start is under way."""
        return self._starting is not None and not self._starting.done()

    def begin(self) -> asyncio.Task[Isolate]:
        """The start that is under way, or a new one, after the rest that is due."""
        if self._starting is None or self._starting.done():
            wait_s = self._backoff.failed() if self.failing else 0.0
            self.failing = False
            self._rests_until_s = self._clock.monotonic_s() + wait_s
            self._starting = asyncio.get_running_loop().create_task(self._start(wait_s))
            # a failed start is told to the next request, which begins another
            self._starting.add_done_callback(lambda t: t.cancelled() or t.exception())
        return self._starting

    async def isolate(self) -> Isolate:
        """The isolate that this start, or a new one, makes.

        Raises:
            Resting: it will not be soon.
            Overloaded: there is no room for it.
            WireError: it does not start, or starts were cancelled.
        """
        starting = self.begin()
        rest_s = self._rests_until_s - self._clock.monotonic_s()
        if rest_s > limits.RESTART_PATIENCE_S.value:
            raise Resting(math.ceil(rest_s))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():
                raise WireError("this version was retired") from None
            raise

    async def over(self) -> None:
        """Wait for the end of a start that is under way, however it ends."""
        if self._starting is not None and self.begun:
            await asyncio.wait({self._starting})

    async def cancel(self) -> None:
        """End a start that is under way. Idempotent."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})

    async def _start(self, wait_s: float) -> Isolate:
        await asyncio.gather(self._put_away(), self._clock.sleep(wait_s))
        try:
            isolate = await self._bring_up()
        except Overloaded:
            raise
        except (StartFailed, AmbaRunError) as error:
            self.failing = True
            raise WireError(f"the function does not start any more: {error}") from error
        except Exception as error:  # whatever an engine throws: the next request tries again
            self.failing = True
            logger.exception("%s does not start any more", self._name)
            raise WireError(f"the function does not start any more: {error!r}") from error
        logger.info("%s started again", self._name)
        return isolate


class Backoff:
    """How long to wait before the next start. One per version of a function."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._started_s = 0.0  # when the isolate that ended now was due to start

    def failed(self) -> float:
        """Note one more end and return the seconds to wait: 0, then 0.1 doubling up to 30.

        An isolate that lived for a minute starts from nothing again.
        Source: reliability.md 3.E row E32.
        """
        now = self._clock.monotonic_s()
        if now - self._started_s >= limits.RESTART_FORGIVE_S.value:
            self._failures = 0
        self._failures += 1
        wait = 0.0
        if self._failures > 1:
            wait = limits.RESTART_WAIT_S.value * 2.0 ** min(self._failures - 2, 16)
            wait = min(wait, limits.RESTART_WAIT_MAX_S.value)
        self._started_s = now + wait
        return wait

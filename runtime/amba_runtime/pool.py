"""Who lives and who is retired: one `Slot` per version of a function being served.

A slot hides the isolate's deaths from the dispatcher: it restarts, it drains, it closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable

from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.engine.base import (
    Description,
    Engine,
    Exchange,
    Isolate,
    StartFailed,
    Surroundings,
)
from amba_runtime.errors import InternalError
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, Manifest
from amba_runtime.outcome import Tell
from amba_runtime.supervisor import Backoff
from amba_runtime.wire import Handler, WireError

logger = logging.getLogger("amba.pool")


class Overloaded(Exception):
    """More requests are under way than the version may have."""


class Resting(WireError):
    """The isolate ended too often; another one starts in `retry_after_s` whole seconds."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            f"the function keeps ending its engine; it starts again in {retry_after_s} s"
        )
        self.retry_after_s = retry_after_s


class Slot:
    """One version being served. `start`, then `exchange` per request, at last `retire`.

    `inflight` is changed only by `enter` and `leave`; `_isolate` only by `start` and `_revive`.
    """

    def __init__(
        self,
        engine: Engine,
        manifest: Manifest,
        bundle: Bundle,
        *,
        limits_: FunctionLimits,
        egress: Handler,
        storage: Handler | None,
        late: Callable[[Slot, str, Tell], None],
        clock: Clock,
    ) -> None:
        self.manifest = manifest
        self.name_bytes = manifest.name.encode()
        self.bundle = bundle
        self.limits = limits_
        self.inflight = 0
        self.description: Description | None = None
        self.last_death = ""
        self.cpu_seen_s = 0.0
        self._engine = engine
        self._clock = clock
        self._backoff = Backoff(clock)
        self._rests_until_s = 0.0
        self._death = asyncio.Event()
        self._isolate: Isolate | None = None
        self._reviving: asyncio.Task[Isolate] | None = None
        self._retired = False
        self._empty: asyncio.Event | None = None
        self._surroundings = Surroundings(
            egress=egress,
            storage=storage if manifest.storage else None,
            tell=lambda label, tell: late(self, label, tell),
            died=self._died,
        )
        self.tell_header = self._surroundings.tell_header

    async def start(self) -> Description:
        """Start the first isolate and ask what it is.

        Raises:
            StartFailed: the bundle's top level throws; nothing is left running.
        """
        isolate = await self._engine.start(self.manifest, self.bundle, self._surroundings)
        try:
            self.description = await isolate.describe()
        except BaseException:
            self._retired = True
            await isolate.close()
            raise
        self.cpu_seen_s = isolate.cpu_s() or 0.0  # its start is no invocation's
        self._isolate = isolate
        return self.description

    @property
    def isolate(self) -> Isolate | None:
        """The one that serves now, for control events and accounting."""
        return self._isolate

    def idle(self) -> Exchange | None:
        """A way to send one request that is at hand without waiting, or None."""
        isolate = self._isolate
        return isolate.idle() if isolate is not None and isolate.alive else None

    async def exchange(self, *, fresh: bool = False) -> Exchange:
        """A way to send one request. Raises WireError when no isolate can be had.

        Args:
            fresh: the last one was closed before the request was read, perhaps because the
                isolate ended: its news are waited for.
        """
        if fresh:
            await self.cause()
        isolate = await self.ready()
        try:
            return await isolate.exchange(fresh=fresh)
        except WireError:
            if self._retired:
                raise
        # it ended a moment ago and nothing was sent: another one can take the request
        if self._isolate is isolate:
            isolate = await self._revive()
        else:
            isolate = await self.ready()
        return await isolate.exchange(fresh=fresh)

    async def ready(self) -> Isolate:
        """A live isolate. Raises WireError when none can be had, Resting when not soon."""
        isolate = self._isolate
        if isolate is None or not isolate.alive:
            isolate = await self._revive()
        return isolate

    async def cause(self) -> str:
        """Why the isolate ended, waiting a moment for the news; "" when there is none."""
        death = self._death
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(death.wait(), limits.DEATH_NEWS_S.value)
        return self.last_death if death.is_set() else ""

    def enter(self) -> None:
        """One more request is under way. Raises Overloaded."""
        if self.full:
            raise Overloaded
        self.inflight += 1

    @property
    def full(self) -> bool:
        """No more requests may enter."""
        return self.inflight >= limits.INFLIGHT.value

    def leave(self) -> None:
        """A request has ended, however."""
        self.inflight -= 1
        if self.inflight == 0 and self._empty is not None:
            self._empty.set()

    def _died(self, reason: str) -> None:
        self.last_death = reason
        self._death.set()
        self.cpu_seen_s = 0.0
        if not self._retired and self.description is not None:
            self._begin_revival()

    def _begin_revival(self) -> asyncio.Task[Isolate]:
        if self._reviving is None or self._reviving.done():
            wait_s = self._backoff.failed()
            self._rests_until_s = self._clock.monotonic_s() + wait_s
            self._reviving = asyncio.get_running_loop().create_task(self._restart(wait_s))
            # a failed restart is told to the next request, which starts another
            self._reviving.add_done_callback(lambda t: t.cancelled() or t.exception())
        return self._reviving

    async def _revive(self) -> Isolate:
        if self._retired:
            raise WireError("this version was retired")
        revival = self._begin_revival()
        rest_s = self._rests_until_s - self._clock.monotonic_s()
        if rest_s > limits.RESTART_PATIENCE_S.value:
            raise Resting(math.ceil(rest_s))
        try:
            return await asyncio.shield(revival)
        except asyncio.CancelledError:
            if revival.cancelled():
                raise WireError("this version was retired") from None
            raise

    async def _restart(self, wait_s: float) -> Isolate:
        await self._clock.sleep(wait_s)
        old, self._isolate = self._isolate, None
        if old is not None:
            await old.close()
        try:
            isolate = await self._engine.start(self.manifest, self.bundle, self._surroundings)
            try:
                await isolate.describe()
            except BaseException:
                await isolate.close()
                raise
        except (StartFailed, InternalError) as error:
            raise WireError(f"the function does not start any more: {error}") from error
        self._death = asyncio.Event()
        self.cpu_seen_s = isolate.cpu_s() or 0.0
        self._isolate = isolate
        logger.info("%s restarted", self.manifest.name)
        return isolate

    async def retire(self, *, drain_s: float = limits.DRAIN_S.value) -> None:
        """Take no new requests, let the old ones finish, then close. Idempotent.

        Args:
            drain_s: what is still under way after so many seconds is cut off.
        """
        self._retired = True
        if self.inflight and drain_s > 0:
            if self._empty is None or self._empty.is_set():  # else somebody waits for it already
                self._empty = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), drain_s)
        if self._reviving is not None:
            self._reviving.cancel()
            await asyncio.wait({self._reviving})
        isolate, self._isolate = self._isolate, None
        if isolate is not None:
            await isolate.close()

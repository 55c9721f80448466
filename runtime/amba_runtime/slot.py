"""One version of a function being served: its isolate comes, dies, rests and goes unnoticed.

A slot hides that from the dispatcher. Dormant, it has no isolate: the first request starts one.
Who may have an isolate at all is the `Room`'s to say.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial

from amba_runtime import limits
from amba_runtime.callers import Callers
from amba_runtime.clock import Clock
from amba_runtime.drain import drained, pending
from amba_runtime.engine.base import Description, Engine, Exchange, Isolate, Surroundings
from amba_runtime.errors import InternalCode, InternalError
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, Manifest
from amba_runtime.outcome import Action, Breach, Ended, Tell
from amba_runtime.restarts import Restarts
from amba_runtime.room import AnyRoom, Env, Kept, Overloaded, Resting, Room
from amba_runtime.supervisor import Watchdog
from amba_runtime.trace import Hop
from amba_runtime.turnstile import Gate
from amba_runtime.underway import Hops, Queued, Underway
from amba_runtime.wire import Handler, WireError

__all__ = ["Env", "Kept", "Overloaded", "Resting", "Room", "Slot"]


class Slot:
    """One version being served: on trial `start`, `exchange` per request, at last `retire`.

    `inflight` and `invocations` are changed only by `_took`, `enter` and `leave`; `_isolate`
    only by `_put_away` and `_bring_up`.

    Args:
        bundle: None for a version that is read from `kept` whenever it starts.
        late: told of console lines that came after their invocation was answered.
        breached: told of limits that were passed or are near: (slot, request id, what, action).
        watchdog: of the node; None watches nothing.
        gate: how many invocations of its project and the node may be under way; None is any.

    Attributes:
        invocations: those in flight by request id, oldest first.
        callers: whom its requests may be said to come from.
        answers: answers that have begun so far: what shows that it gets on.
        watched: the watchdog knows that something is under way here.
    """

    def __init__(
        self,
        engine: Engine,
        manifest: Manifest,
        bundle: Bundle | None,
        *,
        limits_: FunctionLimits,
        egress: Handler,
        storage: Handler | None,
        database: Handler | None = None,
        late: Callable[[Slot, str, Tell], None],
        clock: Clock,
        kept: Kept | None = None,
        room: Room | None = None,
        breached: Callable[[Slot, str, Breach, Action], None] | None = None,
        watchdog: Watchdog | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.manifest = replace(manifest, limits=limits_)
        self.name_bytes = manifest.name.encode()
        self.bundle = bundle
        self.limits = limits_
        self.inflight = 0
        self.invocations: dict[str, Underway] = {}
        self.callers = Callers(self.invocations)
        self.answers = 0
        self.watched = watchdog is None
        self.recent = False
        """It took a request since `used` was last called."""
        self.description: Description | None = None
        self.last_end: Ended | None = None
        self.cpu_seen_s = 0.0
        self._engine = engine
        self._clock = clock
        self._kept = kept
        self._room: Room = room or AnyRoom()
        self._restarts = Restarts(manifest.name, clock, self._put_away, self._bring_up)
        self._breached = breached
        self._watchdog = watchdog
        self.gate = gate
        self._queued = Queued(self.invocations)
        self._hops = Hops(self.invocations, clock)
        self._death = asyncio.Event()
        self._isolate: Isolate | None = None
        self._dead: Isolate | None = None
        self._configuring = asyncio.Lock()
        self._retired = False
        self._empty: asyncio.Event | None = None
        self._surroundings = Surroundings(
            egress=egress,
            storage=storage if manifest.storage else None,
            tell=lambda label, tell: late(self, label, tell),
            died=self._died,
            callers=self.callers,
            database=database,
        )
        self.tell_header = self._surroundings.tell_header

    # its isolate

    async def start(self) -> Description:
        """Start the first isolate and ask what it is, for a version on trial.

        Raises:
            StartFailed: the bundle's top level throws; nothing is left running.
            Overloaded: no room for another isolate.
        """
        try:
            await self._bring_up()
        except BaseException:
            self._retired = True
            raise
        assert self.description is not None, "it serves"
        return self.description

    def keep_in(self, kept: Kept) -> None:
        """From here on the content is read from there: nothing of it stays in memory."""
        self._kept = kept
        self.bundle = None
        self.manifest = replace(self.manifest, env=())

    @property
    def retired(self) -> bool:
        """It takes no new requests."""
        return self._retired

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

        Raises:
            Overloaded: no room for its isolate.
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
            self._restarts.failing = True
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

    async def cause(self, of: Isolate | None = None) -> Ended | None:
        """Why the isolate ended, waiting a moment for the news; None when there is none.

        Args:
            of: one that may have been replaced since.
        """
        if of is not None and of is self._dead:
            return self.last_end
        death = self._death
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(death.wait(), limits.DEATH_NEWS_S.value)
        return self.last_end if death.is_set() else None

    # requests under way

    def try_enter(self, call: Underway) -> bool:
        """One more invocation is under way, if it may be without waiting; then `leave`."""
        if self.inflight >= limits.INFLIGHT.value:
            return False
        if self.gate is not None and not self.gate.try_enter():
            return False
        self._took(call)
        return True

    async def enter_in_turn(self, call: Underway) -> None:
        """The same, waiting for a turn.

        Raises:
            Busy: none comes soon; the invocation is not under way.
            Overloaded: too many are.
        """
        if self.gate is not None:
            with self._queued.with_(call.hop):
                await self.gate.enter(partial(self._queued.in_vain, self.gate))
        if self.inflight >= limits.INFLIGHT.value:
            if self.gate is not None:
                self.gate.leave()
            raise Overloaded
        self._took(call)

    def _took(self, call: Underway) -> None:
        self.inflight += 1
        self.recent = True
        self.invocations[call.request_id] = call
        if not self.watched and self._watchdog is not None:
            self._watchdog.watch(self)

    def enter(self) -> None:
        """Something that is no invocation is under way: a trial. Raises Overloaded."""
        if self.inflight >= limits.INFLIGHT.value:
            raise Overloaded
        self.inflight += 1
        self.recent = True

    def leave(self, call: Underway | None = None) -> None:
        """It has ended, however. Once for each that entered."""
        self.inflight -= 1
        if call is not None:
            del self.invocations[call.request_id]
            self.callers.ended(call.request_id)
            if call.hop is not None:
                self._hops.ended(call.request_id, call.hop)
            if self.gate is not None:
                self.gate.leave()
        if self.inflight == 0 and self._empty is not None:
            self._empty.set()

    def hop_of(self, request_id: str | None) -> Hop:
        """Which hop a request of this guest's continues. See `Hops.of`."""
        return self._hops.of(request_id)

    def breached(self, request_id: str, breach: Breach, action: Action) -> None:
        """Tell of a limit that was passed, or is near; "" blames no invocation."""
        if self._breached is not None:
            self._breached(self, request_id, breach, action)

    def kill(self, ended: Ended) -> None:
        """End the isolate now: whoever is in flight is told this; another one is started."""
        if self._isolate is not None:
            self._isolate.kill(ended)

    def used(self) -> None:
        """Requests were answered lately: it is not the next to be evicted."""
        self.recent = False
        if self._isolate is not None:
            self._room.used(self)

    # life

    def _died(self, ended: Ended) -> None:
        self.last_end = ended
        self._dead = self._isolate
        self.callers.gone()
        self._death.set()
        if ended.breach is not None:
            self.breached(next(iter(self.invocations), ""), ended.breach, "killed")
        self.cpu_seen_s = 0.0
        if self._isolate is not None:
            self._restarts.failing = True
            self._room.left(self)
            if not self._retired:
                self._restarts.begin()

    async def _revive(self) -> Isolate:
        if self._retired:
            raise WireError("this version was retired")
        return await self._restarts.isolate()

    async def _put_away(self) -> None:
        """End the isolate, or what is left of it, whoever is called off meanwhile."""
        isolate, self._isolate = self._isolate, None
        if isolate is not None:
            self._room.left(self)
            await asyncio.shield(isolate.close())

    async def _bring_up(self) -> Isolate:
        await self._put_away()
        async with self._room.starting():
            isolate, self.description = await self._launch()
            self.cpu_seen_s = isolate.cpu_s() or 0.0  # its start is no invocation's
            self._isolate = isolate
            self._room.joined(self)
        self._death = asyncio.Event()
        return isolate

    async def _launch(self) -> tuple[Isolate, Description]:
        manifest, bundle = self.manifest, self.bundle
        if self._kept is not None:
            bundle = await self._kept.bundle()
            manifest = replace(manifest, env=await self._kept.env())
        if bundle is None:
            raise InternalError(InternalCode.INVARIANT, f"{manifest.name} has no bundle to start")
        isolate = await self._engine.start(manifest, bundle, self._surroundings)
        try:
            return isolate, await isolate.describe()
        except BaseException:
            await isolate.close()
            raise

    # change and end

    @property
    def awake(self) -> bool:
        """It has an isolate, or one is being started."""
        return self._isolate is not None or self._restarts.begun

    async def refresh(self, names: Collection[str]) -> None:
        """Give the isolate the values that `kept` has by now for these text bindings.

        No restart; a request under way keeps the env that it has. An isolate that starts later
        reads them itself.

        Raises:
            TimeoutError, WireError: the isolate lives and could not be told.
        """
        if self._kept is None:
            return
        async with self._configuring:
            await self._restarts.over()  # it may have read what holds no more
            values = {name: value for name, value in await self._kept.env() if name in names}
            if values:
                await self._tell(values)

    async def _tell(self, values: Mapping[str, str]) -> None:
        isolate = self._isolate
        if isolate is None or not isolate.alive:
            return
        try:
            async with asyncio.timeout(limits.CONFIGURE_S.value):
                await isolate.configure(values)
        except WireError:
            if self._isolate is isolate and isolate.alive:
                raise

    async def working(self) -> bool:
        """Whether it has requests under way, or work that outlives them (`waitUntil`).

        One that does not say within `limits.PENDING_S` has.
        """
        if self.inflight:
            return True
        return await pending(self._isolate) != 0 or self.inflight > 0

    async def evict(self) -> None:
        """End the isolate to make room; the next request starts another. Nothing under way."""
        if self._isolate is not None and not self.inflight:
            self.callers.gone()
            await self._put_away()

    async def retire(self, *, drain_s: float = limits.DRAIN_S.value) -> None:
        """Take no new requests, let the old ones finish, then close. Idempotent.

        Args:
            drain_s: what is still under way after so many seconds is cut off.
        """
        self._retired = True
        if drain_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain_s):
                    await drained(self, self._clock)
        await self._restarts.cancel()
        self.callers.gone()
        await self._put_away()

    # drain.Draining

    @property
    def queued(self) -> bool:
        """Somebody waits for a turn here, or was given one and has not begun."""
        gate = self.gate
        return gate is not None and bool(gate.waiting or gate.inside)

    async def empty(self) -> None:
        """Wait until nothing is under way."""
        if self._empty is None or self._empty.is_set():  # else somebody waits already
            self._empty = asyncio.Event()
        await self._empty.wait()

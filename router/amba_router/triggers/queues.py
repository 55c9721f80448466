"""Queues that deliver by themselves: which of them wants a delivery, and when.

Nothing is polled. Sends, bindings and times that come wake a queue; a queue that is awake has
consumers until nothing of it is due. Source: contract D.7, H-14; issue 6.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from amba_router.api import faults
from amba_router.store import queue_rows, trigger_sweeps
from amba_router.store.on_demand import OnDemand
from amba_router.store.project_store import ProjectStore
from amba_router.store.queue_records import DeliveredNow, Depth
from amba_router.triggers.alarm import Alarm
from amba_router.triggers.consumer import Consumers, Counts, Queue
from amba_router.triggers.deliver import Deliverer, NoFunction, NotNow
from amba_router.triggers.ring import Key, Ring
from amba_router.triggers.settle import verdicts
from amba_runtime import entropy, limits
from amba_runtime.background import Background
from amba_runtime.clock import Clock, time_ms
from amba_runtime.engine.base import QueueMessage
from amba_runtime.errors import AmbaRunError
from amba_runtime.outcome import Outcome

if TYPE_CHECKING:
    from amba_router.store.database import Database

logger = logging.getLogger("amba.queues")


class Queues:
    """The queues of all projects of one server. `open` it, or wake it; `close` at the end.

    Args:
        owner: of its leases: this process, and no other one ever.
        alone: no other process delivers from this database: leases of others are void at once,
            else when they run out.
        fraction: from 0 to 1, at random: for jitter.
        buried: called as messages become dead letters; the journal hears of deliveries alone.
    """

    def __init__(
        self,
        states: OnDemand,
        store: ProjectStore,
        deliverer: Deliverer,
        clock: Clock,
        *,
        owner: str,
        alone: bool = True,
        fraction: Callable[[], float] = entropy.fraction,
        buried: Callable[[], None] = lambda: None,
    ) -> None:
        self._states = states
        self._store = store
        self._deliverer = deliverer
        self._clock = clock
        self._owner = owner
        self._alone = alone
        self._ring = Ring(limits.QUEUE_DELIVERIES.value)
        self._alarm: Alarm[Key] = Alarm(clock, lambda key: self._want(self._known(key)))
        self._consumers = Consumers(
            store,
            deliverer,
            clock,
            owner=owner,
            fraction=fraction,
            may_go_on=self._may_go_on,
            more=self._more,
            buried=buried,
        )
        # in order of when somebody asked for them last; those that run are never forgotten
        self._queues: OrderedDict[Key, Queue] = OrderedDict()
        self._opening: asyncio.Task[None] | None = None
        self._opened = False
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._background = Background()
        self._deliveries = Background()

    @property
    def counts(self) -> Counts:
        """What was done since the start."""
        return self._consumers.counts

    @property
    def busy(self) -> bool:
        """A delivery is under way or wanted, or what is due is still being looked for."""
        opening = self._opening is not None and not self._opening.done()
        return opening or self._ring.busy > 0 or self._ring.crowded

    @property
    def next_ms(self) -> int | None:
        """When a queue is looked at next, at the latest; None: when it is woken."""
        return self._alarm.next_ms

    async def rest(self) -> None:
        """Wait until nothing is under way, and nothing is due that could be."""
        while self.busy:
            if self._opening is not None and not self._opening.done():
                await asyncio.wait({self._opening})
            await self._idle.wait()

    # life

    def start(self) -> None:
        """Deliver from here on, first of all what was left behind. Idempotent.

        In the background; a state directory that cannot be used is tried again and again.
        """
        if self._opening is None and not self._closing:
            self._opening = asyncio.get_running_loop().create_task(self._open_at_last())

    async def open(self) -> None:
        """The same; returns once it does."""
        self.start()
        if self._opening is not None:
            await asyncio.shield(self._opening)

    async def _open_at_last(self) -> None:
        while True:
            try:
                await self._open()
                return
            except AmbaRunError as error:  # a full disk, say: it may pass
                logger.error("queues cannot be opened: %s", error)
            except Exception:  # whatever it is: a server without queues is told of again and again
                logger.exception("queues cannot be opened")
            await self._clock.sleep(limits.QUEUE_TROUBLE_S.value)

    async def _open(self) -> None:
        database = (await self._states.state()).database
        now_ms = time_ms(self._clock)
        if self._alone:
            await database.write(lambda c: trigger_sweeps.void_leases(c, self._owner, now_ms))
        resumed = await database.read(trigger_sweeps.resumed_queues)
        live = await database.read(trigger_sweeps.live_queues)
        if self._closing:
            return
        self._opened = True
        for project_id, queue, due_ms in live:
            self.wake(project_id, queue, due_ms)
        for known in list(self._queues.values()):  # woken meanwhile
            self._want(known)
        self._background.spawn(self._resume_all(resumed))
        self._background.spawn(self._sweeps(database))

    async def _resume_all(self, resumed: Sequence[Key]) -> None:
        """What a resume that was cut off left behind; nobody waits for it."""
        left = list(resumed)
        for _ in range(limits.QUEUE_RESUMES.value):
            left = [key for key in left if not await self._resumed(key)]
            if not left:
                return
            await self._clock.sleep(limits.QUEUE_TROUBLE_S.value)

    async def _resumed(self, key: Key) -> bool:
        try:
            await self.resume(*key)
        except Exception:  # the others' come back all the same, this one's a little later
            logger.exception("the queue %s of %s was not resumed", key[1], key[0])
            return False
        self.wake(*key)
        return True

    async def stop(self, *, grace_s: float) -> None:
        """No new deliveries; those under way may end, or are cut off. Idempotent."""
        self._closing = True
        self._alarm.close()
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
            await asyncio.wait({self._opening})
        if not self._idle.is_set() and grace_s > 0:
            late = asyncio.ensure_future(self._clock.sleep(grace_s))
            idle = asyncio.ensure_future(self._idle.wait())
            try:
                await asyncio.wait({late, idle}, return_when=asyncio.FIRST_COMPLETED)
            finally:  # whoever waits may be called off
                late.cancel()
                idle.cancel()
        await self._deliveries.close()
        await self._background.close()

    async def close(self, *, grace_s: float = limits.QUEUE_CLOSE_S.value) -> None:
        """The same; what was cut off is due at once for whoever comes next. Idempotent."""
        await self.stop(grace_s=grace_s)
        if self._opened:
            self._opened = False
            now_ms = time_ms(self._clock)
            database = (await self._states.state()).database
            await database.write(lambda c: trigger_sweeps.leave_leases(c, self._owner, now_ms))

    # what others say

    def wake(
        self, project_id: str, queue: str, due_ms: int | None = None, *, changed: bool = False
    ) -> None:
        """Something is due at that time, now without one; call it after the commit.

        Args:
            changed: its binding is another one.
        """
        if self._closing:
            return
        known = self._known((project_id, queue))
        known.wakes += 1
        if changed:
            known.binding = None
            known.not_before_s = 0.0
        if not self._opened:
            self.start()
        elif due_ms is not None and due_ms > time_ms(self._clock):
            self._alarm.set(known.key, due_ms)
        else:
            self._want(known)

    def fail_next(self, project_id: str, queue: str, count: int) -> None:
        """The next deliveries of a queue fail before they reach the function; 0 takes it back."""
        failing = self._consumers.counts.failing
        key = (project_id, queue)
        if count:
            failing[key] = count
        else:
            del failing[key]

    async def resume(self, project_id: str, queue: str) -> None:
        """What was put aside while a queue was paused is back; then `wake`."""
        at_once, most = limits.QUEUE_MOVED.value, limits.QUEUE_DEPTH.value
        await self._store.write_in_steps(
            project_id, lambda s: queue_rows.resume(s, queue), at_once=at_once, most=most
        )

    async def deliver(
        self, project_id: str, queue: str, function: str, payloads: Sequence[str]
    ) -> DeliveredNow:
        """One batch now, stored nowhere. Args: payloads: JSON text of each message.

        Raises:
            Refused: OVERLOADED, FUNCTION_NOT_FOUND.
        """
        now_ms = time_ms(self._clock)
        batch = [QueueMessage(entropy.uuid4(), now_ms, 1, payload) for payload in payloads]
        try:
            async with self._deliverer.turn(project_id, function, "queue", queue) as delivery:
                delivered = await delivery.send(
                    lambda isolate, tell: isolate.queue(queue=queue, messages=batch, tell=tell)
                )
        except NoFunction as error:
            raise faults.FUNCTION_NOT_FOUND.refuse(str(error)) from None
        except NotNow as error:
            raise faults.OVERLOADED.refuse(
                str(error), retry_after_s=max(1, math.ceil(error.retry_after_s))
            ) from None
        ended = delivered.outcome is Outcome.OK
        said = verdicts([message.id for message in batch], delivered.result, ended=ended)
        return DeliveredNow(
            request_id=delivered.request_id,
            outcome=delivered.outcome,
            error=delivered.error,
            ms=delivered.ms,
            verdicts=tuple(said.items()),
            logs=() if delivered.tell is None else tuple(delivered.tell.logs),
        )

    async def depths(self) -> list[Depth]:
        """The queues with the most messages of all projects; none before `open`."""
        if not self._opened:
            return []
        database = (await self._states.state()).database
        now_ms, most = time_ms(self._clock), limits.QUEUE_SERIES.value
        return await database.read(lambda c: trigger_sweeps.depths(c, now_ms, most=most))

    # consumers

    def _known(self, key: Key) -> Queue:
        found = self._queues.get(key)
        if found is None:
            found = self._queues[key] = Queue(key)
            if len(self._queues) > limits.QUEUES_KNOWN.value:
                # those that run are few: `limits.QUEUE_DELIVERIES`
                resting = (q for q in self._queues.values() if not q.running and q is not found)
                oldest = next(resting, None)
                if oldest is not None:
                    del self._queues[oldest.key]
        self._queues.move_to_end(key)
        return found

    def _want(self, queue: Queue) -> None:
        """It has something that is due; it gets a consumer, if it may have one more."""
        if self._closing or not self._opened:
            return
        left_s = queue.not_before_s - self._clock.monotonic_s()
        if left_s > 0:
            self._alarm.set(queue.key, time_ms(self._clock) + math.ceil(left_s * 1000))
        elif queue.running < queue.most:
            self._ring.want(queue.key)
            self._begin()

    def _more(self, queue: Queue, next_ms: int) -> None:
        """It is to have one more look then, whatever its consumers are at."""
        if next_ms <= time_ms(self._clock):
            self._want(queue)
        else:
            self._alarm.set(queue.key, next_ms)

    def _begin(self) -> None:
        while not self._closing and (key := self._ring.next()) is not None:
            queue = self._known(key)
            if queue.running >= queue.most:
                self._ring.done(key)
                continue
            queue.running += 1
            self._idle.clear()
            self._deliveries.spawn(self._consume(queue))

    async def _consume(self, queue: Queue) -> None:
        next_ms: int | None = None
        wakes = queue.wakes
        try:
            next_ms = await self._consumers.run(queue)
        except Exception:  # the queue is tried again, and others are none the wiser
            logger.exception("the queue %s of %s has trouble", queue.key[1], queue.key[0])
            queue.binding = None
            trouble_s = limits.QUEUE_TROUBLE_S.value
            queue.not_before_s = self._clock.monotonic_s() + trouble_s
            next_ms = time_ms(self._clock) + int(trouble_s * 1000)
        finally:
            queue.running -= 1
            self._ring.done(queue.key)
            if not self._ring.busy:
                self._idle.set()
        if queue.wakes != wakes:  # it may have looked before what is new was there
            next_ms = 0
        if next_ms is not None:
            self._more(queue, next_ms)
        self._begin()

    def _may_go_on(self, queue: Queue) -> bool:
        return not self._closing and not self._ring.crowded and queue.running <= queue.most

    # sweeps

    async def _sweeps(self, database: Database) -> None:
        """Dead letters and keys that are kept no longer, from time to time."""
        while True:
            try:
                await self._sweep(database)
            except Exception:  # a full disk, say: the next time may do better
                logger.exception("dead letters were not swept")
            await self._clock.sleep(limits.QUEUE_SWEEP_S.value)

    async def _sweep(self, database: Database) -> None:
        now_ms = time_ms(self._clock)
        most = limits.QUEUE_MOVED.value
        dead_ms = now_ms - int(limits.QUEUE_KEPT_S.value * 1000)
        keys_ms = now_ms - int(limits.QUEUE_KEY_S.value * 1000)
        for _ in range(limits.QUEUE_DEPTH.value // most):
            dropped = await database.write(
                lambda c: trigger_sweeps.drop_old(
                    c, dead_before_ms=dead_ms, keys_before_ms=keys_ms, most=most
                )
            )
            if dropped < most:
                break

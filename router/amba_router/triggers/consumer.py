"""One delivery after another of one queue: a place, a lease, the event, and what becomes of it.

The order is the promise. The place comes first: what cannot be delivered is not leased. The lease
is stored before the event, what became of it after: a crash in between means that the message is
delivered again, never that it is lost. What is settled and the next lease are one transaction.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from amba_router.store import queue_leases
from amba_router.store.project_store import ProjectStore
from amba_router.store.queue_records import Binding, Lease, Message, Taken
from amba_router.store.scoped import Scoped
from amba_router.triggers.deliver import Deliverer, Delivery, NoFunction, NotNow
from amba_router.triggers.ring import Key
from amba_router.triggers.settle import settlement, verdicts
from amba_runtime import limits
from amba_runtime.clock import Clock, time_ms
from amba_runtime.engine.base import QueueMessage
from amba_runtime.errors import AmbaRunError
from amba_runtime.outcome import Outcome
from amba_runtime.slot import Slot

logger = logging.getLogger("amba.queues")

T = TypeVar("T")

FAILED_ON_PURPOSE = "failed on purpose (fail-next)"


@dataclass(slots=True)
class Queue:
    """What is known of one queue; belongs to `Queues`.

    Attributes:
        binding: as it was seen last; None asks the store.
        running: consumers.
        wakes: counts what may be new: who saw nothing before one looks again.
        not_before_s: there was no place for a delivery, or trouble; monotonic, as the wall clock
            may be put back.
    """

    key: Key
    binding: Binding | None = None
    running: int = 0
    wakes: int = 0
    not_before_s: float = 0.0

    @property
    def most(self) -> int:
        """Consumers that it may have, as far as is known."""
        return 1 if self.binding is None else self.binding.settings.consumers


@dataclass(slots=True)
class Counts:
    """What all consumers did since the start.

    Attributes:
        attempts: messages that were delivered, each time.
        dead: messages that became dead letters.
        lost: messages whose lease another one had when their delivery ended.
    """

    attempts: int = 0
    dead: int = 0
    lost: int = 0
    failing: Counter[Key] = field(default_factory=lambda: Counter[Key]())
    """Deliveries that are still made to fail, by queue."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a delivery ended, whether it reached the function or not."""

    well: bool
    result: Mapping[str, Any]
    error: str


class Consumers:
    """Makes consumers of queues.

    Args:
        owner: of their leases: this process, and no other one ever.
        may_go_on: whether a consumer may have one more delivery after the one it had.
        more: told of a queue when its next message is due, while it has a delivery.
    """

    def __init__(
        self,
        store: ProjectStore,
        deliverer: Deliverer,
        clock: Clock,
        *,
        owner: str,
        fraction: Callable[[], float],
        may_go_on: Callable[[Queue], bool],
        more: Callable[[Queue, int], None],
        buried: Callable[[], None],
    ) -> None:
        self.counts = Counts()
        self._store = store
        self._deliverer = deliverer
        self._clock = clock
        self._owner = owner
        self._fraction = fraction
        self._may_go_on = may_go_on
        self._more = more
        self._buried = buried

    async def run(self, queue: Queue) -> int | None:
        """Deliver what is due, as long as it may go on; when to look again: see `Taken.next_ms`."""
        taken: Taken | None = None
        while True:
            binding = queue.binding if taken is None else taken.binding
            if binding is None or not binding.active:
                found = await self._tidy(queue)
                binding = queue.binding
                if binding is None or not binding.active:
                    return found.next_ms
                if found.next_ms is None or found.next_ms > self._now_ms():
                    return found.next_ms
            try:
                taken, ended, slot = await self._deliver(queue, binding, taken)
            except _NothingDue as nothing:
                return nothing.next_ms
            taken = await self._settle_whole(queue, taken, ended, slot)
            if not taken.messages:
                return taken.next_ms

    # looking

    async def _tidy(self, queue: Queue) -> Taken:
        """Learn who consumes it; where nobody does now, what is due goes to the dead letters."""
        project_id, name = queue.key
        found = await self._store.read(project_id, lambda s: queue_leases.look(s, name))
        queue.binding = found.binding
        if found.next_ms is None or (found.binding is not None and found.binding.active):
            return found
        lease = self._lease("", None)
        found = await self._store.write(project_id, lambda s: queue_leases.take(s, name, lease))
        self._looked(queue, found, None)
        return found

    async def _take(self, queue: Queue, binding: Binding, slot: Slot | None) -> Taken:
        project_id, name = queue.key
        lease = self._lease(binding.function, slot)
        taken = await self._store.write(project_id, lambda s: queue_leases.take(s, name, lease))
        self._looked(queue, taken, lease)
        if not taken.messages:
            raise _NothingDue(taken.next_ms)
        return taken

    def _looked(self, queue: Queue, taken: Taken, lease: Lease | None) -> None:
        queue.binding = taken.binding
        self._count_dead(taken.buried)
        if not taken.messages or lease is None or taken.next_ms is None:
            return
        if taken.next_ms < lease.until_ms:  # what is due later than that is seen at the end
            self._more(queue, taken.next_ms)

    def _count_dead(self, count: int) -> None:
        if count:
            self.counts.dead += count
            self._buried()

    def _lease(self, function: str, slot: Slot | None) -> Lease:
        now_ms = self._now_ms()
        budget_ms = limits.EVENT_MS.value
        if slot is not None and slot.limits.total_ms:
            budget_ms = min(budget_ms, slot.limits.total_ms)
        return Lease(
            self._owner, function, now_ms, now_ms + budget_ms + limits.QUEUE_LEASE_MS.value
        )

    # delivering

    async def _deliver(
        self, queue: Queue, binding: Binding, taken: Taken | None
    ) -> tuple[Taken, _Ended, Slot | None]:
        """One delivery, of what is leased already or is leased now.

        Raises:
            _NothingDue: nothing is; or there is no place, and what was leased was given back.
        """
        project_id, name = queue.key
        try:
            turn = self._deliverer.turn(project_id, binding.function, "queue", name)
            async with turn as delivery:
                if taken is None:
                    taken = await self._take(queue, binding, delivery.slot)
                ended = await self._send(queue, delivery, taken.messages)
                return taken, ended, delivery.slot
        except NoFunction as error:
            if taken is None:
                taken = await self._take(queue, binding, None)
            return taken, _Ended(False, {}, str(error)), None
        except NotNow as error:
            if taken is not None:
                await self._give_back(queue, taken.messages, begun=False)
            wait_s = max(error.retry_after_s, limits.QUEUE_AGAIN_S.value)
            queue.not_before_s = self._clock.monotonic_s() + wait_s
            raise _NothingDue(self._now_ms() + math.ceil(wait_s * 1000)) from None
        except Exception:
            # of ours, not of the function's: tried again later, and given up after some times
            if taken is not None:
                await self._give_back(queue, taken.messages, begun=True)
            raise

    async def _give_back(self, queue: Queue, messages: tuple[Message, ...], *, begun: bool) -> None:
        def work(scoped: Scoped) -> None:
            queue_leases.give_back(scoped, self._owner, messages, begun=begun)

        await self._write(queue, work)

    async def _send(
        self, queue: Queue, delivery: Delivery, messages: tuple[Message, ...]
    ) -> _Ended:
        failing = self.counts.failing
        if failing[queue.key] > 0:
            failing[queue.key] -= 1
            self.counts.attempts += len(messages)
            return _Ended(False, {}, FAILED_ON_PURPOSE)
        del failing[queue.key]
        batch = [QueueMessage(m.id, m.created_ms, m.attempts, m.payload) for m in messages]
        name = queue.key[1]
        delivered = await delivery.send(
            lambda isolate, tell: isolate.queue(queue=name, messages=batch, tell=tell)
        )
        self.counts.attempts += len(messages)
        return _Ended(delivered.outcome is Outcome.OK, delivered.result, delivered.error)

    # settling

    async def _settle_whole(
        self, queue: Queue, taken: Taken, ended: _Ended, slot: Slot | None
    ) -> Taken:
        """`_settle`, of whoever is called off too: what was acknowledged is not to come again."""
        settling = asyncio.ensure_future(self._settle(queue, taken, ended, slot))
        try:
            return await asyncio.shield(settling)
        except asyncio.CancelledError:
            await asyncio.wait({settling}, timeout=limits.QUEUE_SETTLE_S.value)
            settling.cancel()
            raise

    async def _settle(self, queue: Queue, taken: Taken, ended: _Ended, slot: Slot | None) -> Taken:
        """Write down what became of it, and lease the next batch where there may be one."""
        assert taken.binding is not None, "what is leased has one"
        now_ms = self._now_ms()
        done = settlement(
            taken.messages,
            verdicts([m.id for m in taken.messages], ended.result, ended=ended.well),
            taken.binding.settings,
            error=ended.error,
            now_ms=now_ms,
            fraction=self._fraction,
        )
        function = taken.binding.function
        lease: Lease | None = None

        def work(scoped: Scoped) -> tuple[int, Taken]:
            nonlocal lease  # of the try that succeeds: it is as long as the handler's time then
            lease = self._lease(function, slot) if self._may_go_on(queue) else None
            held = queue_leases.settle(scoped, self._owner, done, self._now_ms())
            if lease is None:
                return held, queue_leases.look(scoped, queue.key[1])
            return held, queue_leases.take(scoped, queue.key[1], lease)

        held, following = await self._write(queue, work)
        if held < done.count:
            self.counts.lost += done.count - held
            logger.warning(
                "%d messages of %s were somebody else's by then", done.count - held, queue.key
            )
        self._count_dead(len(done.dead))
        self._looked(queue, following, lease)
        return following

    async def _write(self, queue: Queue, work: Callable[[Scoped], T]) -> T:
        """Tried a few times: what a function has acknowledged is not to be delivered again."""
        project_id = queue.key[0]
        for _ in range(limits.QUEUE_SETTLE_TRIES.value - 1):
            try:
                return await self._store.write(project_id, work)
            except AmbaRunError as error:  # a full disk, or too many calls: it may pass
                logger.warning("a delivery of %s could not be settled: %s", queue.key, error)
                await self._clock.sleep(limits.QUEUE_TROUBLE_S.value)
        return await self._store.write(project_id, work)

    def _now_ms(self) -> int:
        return time_ms(self._clock)


class _NothingDue(Exception):
    """There is nothing to deliver. Args: next_ms: as in `Taken`."""

    def __init__(self, next_ms: int | None) -> None:
        super().__init__()
        self.next_ms = next_ms

"""Queues of all projects: bindings, sends, and what lies in them.

A send is stored before it is answered; delivering is the pump's. Source: contract D.7, H-14.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from amba_router.api import faults
from amba_router.services.queues import rules
from amba_router.store import queue_rows
from amba_router.store.project_store import ProjectStore
from amba_router.store.queue_records import (
    Binding,
    DeliveredNow,
    Depth,
    Job,
    NewJob,
    Purged,
    Settings,
    State,
    Status,
)
from amba_router.store.scoped import Scoped
from amba_runtime import entropy, limits
from amba_runtime.clock import Clock, time_ms

HANDLER = "queue"


class Functions(Protocol):
    """Knows what is deployed."""

    def handlers(self, project_id: str, name: str) -> tuple[str, ...] | None:
        """What a function exports; None where there is none of that name."""
        ...


class Pump(Protocol):
    """Delivers what is due: `triggers.queues.Queues`."""

    def wake(
        self, project_id: str, queue: str, due_ms: int | None = None, *, changed: bool = False
    ) -> None: ...
    def fail_next(self, project_id: str, queue: str, count: int) -> None: ...
    async def deliver(
        self, project_id: str, queue: str, function: str, payloads: Sequence[str]
    ) -> DeliveredNow: ...


@dataclass(frozen=True, slots=True)
class Send:
    """One message. `payload` is JSON text."""

    queue: str
    payload: str
    delay_ms: int = 0
    key: str | None = None


class QueueService:
    """Of all projects."""

    def __init__(self, store: ProjectStore, functions: Functions, pump: Pump, clock: Clock) -> None:
        self._store = store
        self._functions = functions
        self._pump = pump
        self._clock = clock
        self._room = _Room()

    # bindings

    async def bind(
        self, project_id: str, queue: str, function: str, status: Status, settings: Settings
    ) -> Binding:
        """From here on this function consumes the queue, and no other.

        Raises:
            Refused: INVALID_NAME, FUNCTION_NOT_FOUND, HANDLER_MISSING; CONFLICT: too many.
        """
        rules.check_name(queue, "$.queue_name")
        self._check_function(project_id, function)
        now_ms = time_ms(self._clock)

        def work(scoped: Scoped) -> tuple[Binding, int]:
            before = queue_rows.binding(scoped, queue)
            if before is None and queue_rows.binding_count(scoped) >= limits.QUEUE_BINDINGS.value:
                raise faults.CONFLICT.refuse(
                    f"the project has {limits.QUEUE_BINDINGS.value} bindings; delete one first"
                )
            bound = Binding(
                id=entropy.uuid4() if before is None else before.id,
                queue=queue,
                function=function,
                status=status,
                settings=settings,
                source="api",
                created_ms=now_ms if before is None else before.created_ms,
                updated_ms=now_ms,
            )
            queue_rows.put_binding(scoped, bound)
            # what is back is back with the binding; only what are many take more steps
            return bound, queue_rows.resume(scoped, queue) if bound.active else 0

        bound, resumed = await self._store.write(project_id, work)
        try:
            if resumed == limits.QUEUE_MOVED.value:
                await self._in_steps(project_id, lambda s: queue_rows.resume(s, queue))
        finally:  # the binding holds, whatever became of the rest
            self._pump.wake(project_id, queue, changed=True)
        return bound

    async def bindings(self, project_id: str) -> list[Binding]:
        """All, by the queue's name."""
        return await self._store.read(project_id, queue_rows.bindings)

    async def unbind(self, project_id: str, queue: str) -> None:
        """Nobody consumes it; its messages stay, for whoever does next. Idempotent."""
        await self._store.write(project_id, lambda s: queue_rows.drop_binding(s, queue))
        self._pump.wake(project_id, queue, changed=True)

    # messages

    async def send(self, project_id: str, new: Send) -> str:
        """Keep a message, and have it delivered: durable when this returns; the job's id.

        Raises:
            Refused: QUEUE_NOT_BOUND, QUEUE_FULL.
        """
        now_ms = time_ms(self._clock)
        job = NewJob(entropy.uuid4(), new.payload, now_ms, now_ms + new.delay_ms)
        keys_after_ms = now_ms - int(limits.QUEUE_KEY_S.value * 1000)

        def work(scoped: Scoped) -> str:
            if queue_rows.binding(scoped, new.queue) is None:
                raise not_bound(new.queue)
            if new.key is not None:
                sent = queue_rows.known_key(scoped, new.queue, new.key, keys_after_ms)
                if sent is not None:
                    return sent
                queue_rows.put_key(scoped, new.queue, new.key, job.id, now_ms)
            self._room.take(scoped, new.queue, now_ms)
            queue_rows.add_jobs(scoped, new.queue, [job])
            return job.id

        job_id = await self._store.write(project_id, work)
        if job_id == job.id:
            self._pump.wake(project_id, new.queue, job.due_ms)
        return job_id

    async def jobs(
        self, project_id: str, queue: str, state: State | None, *, offset: int, limit: int
    ) -> tuple[list[Job], int]:
        """Messages of a queue, and how many there are."""
        now_ms = time_ms(self._clock)
        return await self._store.read(
            project_id,
            lambda s: queue_rows.jobs(s, queue, state, now_ms, offset=offset, limit=limit),
        )

    async def overview(self, project_id: str) -> list[tuple[Depth, Binding | None]]:
        """Every queue that is bound or has messages, by name."""
        now_ms = time_ms(self._clock)

        def work(scoped: Scoped) -> list[tuple[Depth, Binding | None]]:
            depths = queue_rows.depths(scoped, now_ms)
            bound = {binding.queue: binding for binding in queue_rows.bindings(scoped)}
            return [
                (
                    depths.get(name) or Depth(project_id, name),
                    bound.get(name) or queue_rows.binding(scoped, name),
                )
                for name in sorted({*depths, *bound})
            ]

        return await self._store.read(project_id, work)

    async def redeliver(self, project_id: str, queue: str, ids: Sequence[str] | None) -> int:
        """Dead letters are due now, as if they had just been sent; how many."""
        now_ms = time_ms(self._clock)
        moved = await self._in_steps(
            project_id, lambda s: queue_rows.redeliver(s, queue, now_ms, ids=ids)
        )
        if moved:
            self._pump.wake(project_id, queue)
        return moved

    async def purge(self, project_id: str, queue: str, what: Purged) -> int:
        """Drop messages, but none that is being delivered; how many."""
        now_ms = time_ms(self._clock)
        done = 0
        if what != "waiting":
            done += await self._in_steps(
                project_id, lambda s: queue_rows.purge(s, queue, "dead", now_ms)
            )
        if what != "dead":
            done += await self._in_steps(
                project_id, lambda s: queue_rows.purge(s, queue, "waiting", now_ms)
            )
        return done

    # drills

    async def fail_next(self, project_id: str, queue: str, count: int) -> None:
        """The next deliveries fail.

        Raises:
            Refused: QUEUE_NOT_BOUND, FUNCTION_NOT_FOUND, HANDLER_MISSING: what is remembered is
                of queues that can be delivered, which are so many.
        """
        bound = await self._bound(project_id, queue)
        self._check_function(project_id, bound.function)
        self._pump.fail_next(project_id, queue, count)

    async def deliver(self, project_id: str, queue: str, payloads: Sequence[str]) -> DeliveredNow:
        """One batch, stored nowhere, to whoever consumes the queue; paused or not.

        Raises:
            Refused: QUEUE_NOT_BOUND, FUNCTION_NOT_FOUND, HANDLER_MISSING, OVERLOADED.
        """
        bound = await self._bound(project_id, queue)
        self._check_function(project_id, bound.function)
        return await self._pump.deliver(project_id, queue, bound.function, payloads)

    # parts

    async def _bound(self, project_id: str, queue: str) -> Binding:
        found = await self._store.read(project_id, lambda s: queue_rows.binding(s, queue))
        if found is None:
            raise not_bound(queue)
        return found

    def _check_function(self, project_id: str, function: str) -> None:
        handlers = self._functions.handlers(project_id, function)
        shown = function[:64]
        if handlers is None:
            raise faults.FUNCTION_NOT_FOUND.refuse(
                f"no function is called {shown!r}; deploy it first",
                {"resource": "function", "id": shown},
            )
        if HANDLER not in handlers:
            raise faults.HANDLER_MISSING.refuse(
                f"the function {shown!r} has no queue handler; export one: "
                "export default { async queue(batch, env, ctx) { ... } }",
                {"function": shown, "handler": HANDLER, "handlers": list(handlers)},
            )

    async def _in_steps(self, project_id: str, step: Callable[[Scoped], int]) -> int:
        at_once, most = limits.QUEUE_MOVED.value, limits.QUEUE_DEPTH.value
        return await self._store.write_in_steps(project_id, step, at_once=at_once, most=most)


def not_bound(queue: str) -> faults.Refused:
    """QUEUE_NOT_BOUND."""
    return faults.QUEUE_NOT_BOUND.refuse(
        f"no function consumes the queue {queue[:80]!r}; bind one with PUT .../queue/bindings",
        {"resource": "queue", "id": queue[:80]},
    )


class _Room:
    """Whether a queue has room for one more, without counting it each time.

    It keeps how many there may be at most: those that were counted once and what was sent since.
    Only where that reaches the limit they are counted anew. Used by the store's writer alone.
    """

    def __init__(self) -> None:
        self._most: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._counted: dict[tuple[str, str], int] = {}  # when, of those that were nearly full

    def take(self, scoped: Scoped, queue: str, now_ms: int) -> None:
        """One more. Raises `Refused` QUEUE_FULL."""
        key = (scoped.project_id, queue)
        bound = limits.QUEUE_DEPTH.value
        held = self._most.get(key, bound)
        if held >= bound:
            # one that is nearly full is not counted for each message that goes and comes
            if abs(now_ms - self._counted.get(key, now_ms - _COUNT_MS)) < _COUNT_MS:
                raise self._refusal(bound)
            held = queue_rows.count(scoped, queue)
            if len(self._counted) >= limits.QUEUES_KNOWN.value:
                self._counted.clear()
            self._counted[key] = now_ms
        if held >= bound:
            raise self._refusal(bound)
        self._most[key] = held + 1
        self._most.move_to_end(key)
        if len(self._most) > limits.QUEUES_KNOWN.value:
            self._most.popitem(last=False)

    def _refusal(self, bound: int) -> faults.Refused:
        return faults.QUEUE_FULL.refuse(
            f"the queue has {bound} messages, dead letters among them; consume, purge or "
            "redeliver some",
            {"messages_max": bound},
            retry_after_s=1,
        )


_COUNT_MS = 1_000

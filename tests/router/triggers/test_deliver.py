"""One event to one function: places, ends, and what is told of each (architecture.md 3 and 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.router.triggers.lab import Lab, never, ok, run, threw

from amba_router.routes import Route
from amba_router.triggers.deliver import Delivered, NoFunction, NotNow
from amba_runtime.engine.base import Isolate, QueueMessage
from amba_runtime.errors import InternalCode, InternalError
from amba_runtime.manifest import FunctionName
from amba_runtime.outcome import Breach, Ended, Event, Outcome, Tell
from amba_runtime.slot import Overloaded, Resting
from amba_runtime.wire import WireError

Batch = Sequence[QueueMessage]
MESSAGE = QueueMessage("m", 0, 1, "null")


async def deliver(lab: Lab, name: str = "worker") -> Delivered:
    """One batch of one message."""
    async with lab.deliverer.turn(lab.p, name, "queue", "orders") as delivery:
        return await delivery.send(
            lambda isolate, tell: isolate.queue(queue="orders", messages=[MESSAGE], tell=tell)
        )


def test_a_delivery_is_told_like_a_request(tmp_path: Path) -> None:
    """Outcome, result, time; one line in the journal with its kind and queue."""

    async def work(lab: Lab) -> None:
        async def slow(_batch: Batch) -> Event:
            await lab.clock.advance(1.5)
            return ok(ackAll=True)

        slot = lab.function(handler=slow)
        delivered = await deliver(lab)
        assert (delivered.outcome, delivered.error, delivered.ms) == (Outcome.OK, "", 1500)
        assert delivered.result == {"ackAll": True}
        assert (slot.inflight, slot.invocations, slot.answers) == (0, {}, 1)
        lab.journal.flush()
        [told] = lab.told
        assert (told.request_id, told.method, told.path) == (
            delivered.request_id,
            "QUEUE",
            "orders",
        )
        assert (told.status, told.outcome, told.ms, told.note) == (200, Outcome.OK, 1500, "")

    run(tmp_path, work)


def test_a_handler_that_throws_is_told_by_its_message(tmp_path: Path) -> None:
    """The error is the guest's own; the journal has the exception, not a note beside it."""

    async def work(lab: Lab) -> None:
        async def throws(_batch: Batch) -> Event:
            return threw("boom", explicitAcks=["m"])

        lab.function(handler=throws)
        delivered = await deliver(lab)
        assert (delivered.outcome, delivered.error) == (Outcome.EXCEPTION, "boom")
        assert delivered.result == {"explicitAcks": ["m"]}
        lab.journal.flush()
        assert [(i.status, i.note) for i in lab.told] == [(500, "")]

    run(tmp_path, work)


def test_an_outcome_without_words_has_ours(tmp_path: Path) -> None:
    """What the engine says of the end, where the guest says nothing."""

    async def work(lab: Lab) -> None:
        async def spins(_batch: Batch) -> Event:
            return Event(Outcome.EXCEEDED_CPU, Tell(), {})

        lab.function(handler=spins)
        assert (await deliver(lab)).error == "the function used up its CPU time"

        async def waits(_batch: Batch) -> Event:
            return Event(Outcome.EXCEPTION, Tell(), {})

        lab.function(handler=waits)
        assert "nothing was left" in (await deliver(lab)).error  # not that it made no Response

        async def odd(_batch: Batch) -> Event:
            return Event(Outcome.CANCELED, Tell(), {})

        lab.engine.consumers["worker"] = odd
        assert (await deliver(lab)).error == "canceled"

    run(tmp_path, work)


def test_there_may_be_nothing_to_deliver_to(tmp_path: Path) -> None:
    """No project, no function, no version yet, no handler: each in words."""

    async def work(lab: Lab) -> None:
        lab.function("page", handlers=("fetch",))
        found = lab.projects.by_id(lab.p)
        assert found is not None
        found.routes[b"new"] = Route(FunctionName("new"))
        for project_id, name, said in (
            ("nobody", "worker", "no function is called 'worker'"),
            (lab.p, "worker", "no function is called 'worker'"),
            (lab.p, "new", "no function is called 'new'"),
            (lab.p, "page", "the function 'page' has no queue handler"),
        ):
            with pytest.raises(NoFunction) as told:
                lab.deliverer.slot(project_id, name, "queue")
            assert str(told.value) == said
        untold = lab.function("untold")
        found.routes[b"untold"].handlers = None
        assert lab.deliverer.slot(lab.p, "untold", "queue") is untold

    run(tmp_path, work)


def test_a_full_function_is_waited_for_and_then_not_now(tmp_path: Path) -> None:
    """A turn as requests wait for it; in time, or NotNow with when to ask again."""

    async def work(lab: Lab) -> None:
        slot = lab.function()
        assert slot.gate is not None
        assert slot.gate.try_enter()
        waiting = asyncio.create_task(deliver(lab))
        await lab.clock.advance(1)
        slot.gate.leave()
        assert (await waiting).outcome is Outcome.OK
        assert slot.gate.try_enter()
        waiting = asyncio.create_task(deliver(lab))
        await lab.clock.advance(60)
        with pytest.raises(NotNow) as told:
            await waiting
        assert told.value.retry_after_s >= 1
        slot.gate.leave()
        assert (slot.inflight, slot.gate.inside) == (0, 0)

    run(tmp_path, work, concurrency=1)


def test_who_is_called_off_while_waiting_leaves_nothing(tmp_path: Path) -> None:
    """Before its turn, in the moment of its turn, and while it delivers."""

    async def work(lab: Lab) -> None:
        begun = asyncio.Event()

        async def hangs(_batch: Batch) -> Event:
            begun.set()
            return await never()

        slot = lab.function(handler=hangs)
        assert slot.gate is not None
        assert slot.gate.try_enter()
        waiting = asyncio.create_task(deliver(lab))
        await lab.clock.advance(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        waiting = asyncio.create_task(deliver(lab))
        await lab.clock.advance(0)
        slot.gate.leave()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (slot.inflight, slot.gate.inside, slot.gate.waiting) == (0, 0, 0)
        under_way = asyncio.create_task(deliver(lab))
        await begun.wait()
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        assert (slot.inflight, slot.gate.inside, slot.invocations) == (0, 0, {})

    run(tmp_path, work, concurrency=1)


@pytest.mark.parametrize(
    ("error", "retry_after_s"),
    [(Resting(7), 7), (Overloaded("no room"), 1)],
)
def test_no_isolate_is_not_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, retry_after_s: float
) -> None:
    """Nothing was delivered, and nothing is told."""

    async def work(lab: Lab) -> None:
        slot = lab.function()

        async def fails() -> Isolate:
            raise error

        monkeypatch.setattr(slot, "ready", fails)
        with pytest.raises(NotNow) as told:
            await deliver(lab)
        assert told.value.retry_after_s == retry_after_s
        lab.journal.flush()
        assert (lab.told, slot.inflight) == ([], 0)

    run(tmp_path, work)


def test_a_version_that_does_not_start_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told as an internal error; one that was replaced meanwhile is tried again at once."""

    async def work(lab: Lab) -> None:
        slot = lab.function()

        async def fails() -> Isolate:
            raise WireError("it does not start")

        monkeypatch.setattr(slot, "ready", fails)
        delivered = await deliver(lab)
        assert (delivered.outcome, delivered.error) == (
            Outcome.INTERNAL_ERROR,
            "it does not start",
        )
        await slot.retire(drain_s=0)
        with pytest.raises(NotNow) as told:
            await deliver(lab)
        assert told.value.retry_after_s == 0

    run(tmp_path, work)


def test_an_engine_that_ends_is_told_with_its_cause(tmp_path: Path) -> None:
    """The reason of the isolate's end; or the wire's own where there is no news."""

    async def work(lab: Lab) -> None:
        async def crashes(_batch: Batch) -> Event:
            assert lab.engine.last is not None
            lab.engine.last.kill(
                Ended(Outcome.EXCEEDED_MEMORY, "it grew", Breach("memory_mib", 300, 256))
            )
            raise WireError("the connection broke")

        lab.function(handler=crashes)
        delivered = await deliver(lab)
        assert (delivered.outcome, delivered.error) == (Outcome.EXCEEDED_MEMORY, "it grew")

        async def nonsense(_batch: Batch) -> Event:
            raise InternalError(InternalCode.ENGINE_PROTOCOL, "it answers nonsense")

        lab.function(handler=nonsense)
        delivered = await deliver(lab)
        assert (delivered.outcome, delivered.error) == (
            Outcome.INTERNAL_ERROR,
            "it answers nonsense",
        )
        lab.journal.flush()
        assert [i.note for i in lab.told] == ["it grew", "it answers nonsense"]

    run(tmp_path, work)


def test_a_delivery_has_its_time(tmp_path: Path) -> None:
    """`total_ms` of the function, 15 minutes at most; the breach is told once."""

    async def work(lab: Lab) -> None:
        begun = asyncio.Event()

        async def hangs(_batch: Batch) -> Event:
            begun.set()
            return await never()

        for total_ms, wait_s in ((3_000, 3), (0, 900)):
            begun.clear()
            slot = lab.function(handler=hangs, total_ms=total_ms)
            if not total_ms:
                slot.limits = replace(slot.limits, total_ms=0)
            under_way = asyncio.create_task(deliver(lab))
            await begun.wait()
            await lab.clock.advance(wait_s - 0.001)
            assert not under_way.done()
            await lab.clock.advance(0.001)
            delivered = await under_way
            assert (delivered.outcome, delivered.error) == (
                Outcome.EXCEEDED_WALL_TIME,
                "it took too long",
            )

    run(tmp_path, work)


def test_a_watchdog_may_end_it(tmp_path: Path) -> None:
    """As it ends requests: by `end`, once; a delivery has no answer that begins."""

    async def work(lab: Lab) -> None:
        begun = asyncio.Event()

        async def hangs(_batch: Batch) -> Event:
            begun.set()
            return await never()

        slot = lab.function(handler=hangs)
        under_way = asyncio.create_task(deliver(lab))
        await begun.wait()
        [delivery] = slot.invocations.values()
        assert (delivery.begun, delivery.lasting, delivery.event) == (False, False, True)
        delivery.end(Ended(Outcome.EXCEEDED_CPU, "it spins"))
        delivery.end(Ended(Outcome.EXCEEDED_MEMORY, "too late"))
        delivered = await under_way
        assert (delivered.outcome, delivered.error) == (Outcome.EXCEEDED_CPU, "it spins")

    run(tmp_path, work)


def test_what_was_ended_before_it_began_delivers_nothing(tmp_path: Path) -> None:
    """Ended while it waited for its isolate."""

    async def work(lab: Lab) -> None:
        lab.function()
        async with lab.deliverer.turn(lab.p, "worker", "queue", "orders") as delivery:
            delivery.end(Ended(Outcome.EXCEEDED_CPU, "it spins"))
            delivered = await delivery.send(
                lambda isolate, tell: isolate.queue(queue="orders", messages=[MESSAGE], tell=tell)
            )
        assert delivered.outcome is Outcome.EXCEEDED_CPU

    run(tmp_path, work)

"""Queues that deliver by themselves: retries, dead letters, pauses, restarts (D.7, H-14)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.router.triggers.lab import Lab, fine, never, ok, run, threw

from amba_router.api import faults
from amba_router.api.faults import Refused
from amba_router.store import queue_leases
from amba_router.store.queue_records import Lease, Settings, Settlement
from amba_router.store.state import State
from amba_router.store.trigger_schema import queue_keys
from amba_router.triggers.settle import RETRIED
from amba_runtime import limits
from amba_runtime.clock import time_ms
from amba_runtime.engine.base import QueueMessage
from amba_runtime.errors import UserCode, UserError
from amba_runtime.limits import Limit
from amba_runtime.outcome import Event, Outcome
from amba_runtime.wire import WireError

Batch = Sequence[QueueMessage]
ONE = Settings(consumers=1)
DAY_S = 86_400


def test_a_message_is_delivered_and_gone(tmp_path: Path) -> None:
    """Sent, stored, delivered verbatim, acknowledged by ending well (D.7)."""

    async def work(lab: Lab) -> None:
        lab.function()
        await lab.bind()
        [id_] = await lab.send({"b": 1, "a": [1.0, None]})
        await lab.queues.rest()
        [(queue, [message])] = lab.engine.seen
        assert (queue, message.id, message.attempts) == ("orders", id_, 1)
        assert message.body == '{"b": 1, "a": [1.0, null]}'
        assert message.timestamp_ms == time_ms(lab.clock)
        assert await lab.jobs() == []
        assert (lab.queues.counts.attempts, lab.queues.counts.dead) == (1, 0)
        lab.journal.flush()
        assert [(i.method, i.path, i.outcome) for i in lab.told] == [
            ("QUEUE", "orders", Outcome.OK)
        ]

    run(tmp_path, work)


def test_a_handler_that_throws_is_tried_four_times(tmp_path: Path) -> None:
    """1 + 3, after 10, 20 and 40 s; then a dead letter with the last error (H-14)."""

    async def work(lab: Lab) -> None:
        came: list[tuple[float, int]] = []

        async def throws(batch: Batch) -> Event:
            came.append((lab.clock.monotonic_s(), batch[0].attempts))
            return threw(f"attempt {batch[0].attempts}")

        lab.function(handler=throws)
        await lab.bind()
        await lab.send("poison")
        await lab.queues.rest()
        [job] = await lab.jobs()
        assert (job.state, job.attempts, job.failures, job.error) == (
            "delayed",
            1,
            1,
            "attempt 1",
        )
        await lab.passes(3_600)
        assert [(round(at), attempts) for at, attempts in came] == [
            (0, 1),
            (10, 2),
            (30, 3),
            (70, 4),
        ]
        [job] = await lab.jobs()
        assert (job.state, job.reason, job.error) == ("dead", "retries", "attempt 4")
        assert (job.attempts, job.failures) == (4, 4)
        assert lab.queues.counts.dead == 1
        assert lab.queues.next_ms is None

    run(tmp_path, work)


@pytest.mark.slow
def test_a_day_of_retries_takes_no_time(tmp_path: Path) -> None:
    """Every wait goes through the clock: fifty retries over more than a day (issue 6, 4)."""

    async def work(lab: Lab) -> None:
        async def throws(_batch: Batch) -> Event:
            return threw()

        lab.function(handler=throws)
        await lab.bind(retries=50)
        await lab.send(1)
        await lab.passes(2 * DAY_S)
        assert len(lab.engine.seen) == 51
        assert await lab.states_of() == ["dead"]

    run(tmp_path, work)


def test_each_message_of_a_batch_has_its_fate(tmp_path: Path) -> None:
    """Acks, retries with and without a delay, and silence, then a throw (B, J2)."""

    async def work(lab: Lab) -> None:
        async def mixed(batch: Batch) -> Event:
            a, b, _, d = (message.id for message in batch)
            lab.engine.consumers["worker"] = fine
            later = [{"msgId": b, "delaySeconds": 90}, {"msgId": d}]
            return threw("then this", explicitAcks=[a], retryMessages=later)

        await lab.hold("a", "b", "c", "d", batch_size=10)
        lab.function(handler=mixed)
        await lab.bind(batch_size=10)
        found = {job.payload: job for job in await lab.jobs()}
        assert set(found) == {'"b"', '"c"', '"d"'}
        now_ms = time_ms(lab.clock)
        assert {name: job.due_ms - now_ms for name, job in found.items()} == {
            '"b"': 90_000,
            '"c"': 10_000,
            '"d"': 10_000,
        }
        assert {job.error for job in found.values()} == {"then this"}
        await lab.passes(100)
        assert await lab.jobs() == []

    run(tmp_path, work)


def test_retry_counts_as_a_failure(tmp_path: Path) -> None:
    """A handler that always asks again ends in the dead letters (H-14)."""

    async def work(lab: Lab) -> None:
        async def again(_batch: Batch) -> Event:
            return ok(retryBatch={"retry": True, "delaySeconds": 5})

        lab.function(handler=again)
        await lab.bind(retries=2)
        await lab.send(1)
        await lab.passes(9)
        assert len(lab.engine.seen) == 2
        await lab.passes(1)
        [job] = await lab.jobs()
        assert (job.reason, job.error, job.attempts) == ("retries", RETRIED, 3)

    run(tmp_path, work)


def test_an_isolate_that_crashes_is_a_failure(tmp_path: Path) -> None:
    """What was not acknowledged comes again, with what happened (J2)."""

    async def work(lab: Lab) -> None:
        async def crashes(_batch: Batch) -> Event:
            lab.engine.consumers["worker"] = fine
            assert lab.engine.last is not None
            lab.engine.last.crash("the engine died")
            raise WireError("the connection broke")

        lab.function(handler=crashes)
        await lab.bind()
        await lab.send(1)
        await lab.queues.rest()
        [job] = await lab.jobs()
        assert (job.state, job.failures, job.error) == ("delayed", 1, "the engine died")
        await lab.passes(15)
        assert await lab.jobs() == []
        assert [batch[0].attempts for _, batch in lab.engine.seen] == [1, 2]

    run(tmp_path, work)


def test_a_handler_that_never_ends_is_ended(tmp_path: Path) -> None:
    """After its time it is a failure; the messages come again (J2)."""

    async def work(lab: Lab) -> None:
        begun = asyncio.Event()

        async def hangs(_batch: Batch) -> Event:
            lab.engine.consumers["worker"] = fine
            begun.set()
            return await never()

        lab.function(handler=hangs, total_ms=2_000)
        await lab.bind()
        await lab.send(1)
        await begun.wait()
        assert await lab.states_of() == ["leased"]
        await lab.clock.advance(2)
        await lab.queues.rest()
        [job] = await lab.jobs()
        assert (job.failures, job.error) == (1, "it took too long")
        await lab.passes(15)
        assert await lab.jobs() == []

    run(tmp_path, work)


def test_a_delayed_message_is_never_early(tmp_path: Path) -> None:
    """`delay_seconds`; two are told apart (D.7, J6)."""

    async def work(lab: Lab) -> None:
        lab.function()
        await lab.bind()
        await lab.send("late", delay_s=60)
        await lab.send("later", delay_s=43_200)
        await lab.passes(59)
        assert lab.bodies() == []
        assert await lab.states_of() == ["delayed", "delayed"]
        await lab.passes(1)
        assert lab.bodies() == ["late"]
        await lab.passes(43_200)
        assert lab.bodies() == ["late", "later"]

    run(tmp_path, work)


def test_a_long_delivery_does_not_hold_up_what_becomes_due(tmp_path: Path) -> None:
    """Another consumer is free: each delayed message has its time, not the first one alone."""

    async def work(lab: Lab) -> None:
        came: list[int] = []

        async def slow(_batch: Batch) -> Event:
            came.append(round(lab.clock.monotonic_s()))
            return await never()

        lab.function(handler=slow)
        await lab.bind(consumers=4)
        for delay_s in (10, 20, 30):
            await lab.send(delay_s, delay_s=delay_s)
        for _ in range(35):
            await lab.clock.advance(1)
            await lab.barrier()
        assert came == [10, 20, 30]

    run(tmp_path, work)


def test_a_queue_has_its_order(tmp_path: Path) -> None:
    """By availability, with one consumer; a retry goes behind what was due before (H-14)."""

    async def work(lab: Lab) -> None:
        async def first_fails(batch: Batch) -> Event:
            if batch[0].body == "0" and batch[0].attempts == 1:
                return ok(retryBatch={"retry": True, "delaySeconds": 0})
            return ok()

        await lab.hold(0, 1, 2, 3, consumers=1)
        lab.function(handler=first_fails)
        await lab.clock.advance(1)
        await lab.bind(consumers=1)
        assert lab.bodies() == [0, 1, 2, 3, 0]

    run(tmp_path, work)


@pytest.mark.parametrize(("consumers", "at_once"), [(1, 1), (4, 4), (10, 10)])
def test_deliveries_at_once(tmp_path: Path, consumers: int, at_once: int) -> None:
    """As many as the binding says, and no more."""

    async def work(lab: Lab) -> None:
        running = most = 0
        all_there = asyncio.Event()

        async def counts(_batch: Batch) -> Event:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == at_once:
                all_there.set()
            await all_there.wait()
            running -= 1
            return ok()

        await lab.hold(*range(30), consumers=consumers)
        lab.function(handler=counts)
        await lab.bind(consumers=consumers)
        assert most == at_once
        assert sorted(map(str, lab.bodies())) == sorted(map(str, range(30)))

    run(tmp_path, work)


# --- batches ---


def test_a_batch_is_full_or_its_time_has_come(tmp_path: Path) -> None:
    """`batch_size` at once; fewer after `batch_wait_ms` from the first (issue 6, 2)."""

    async def work(lab: Lab) -> None:
        lab.function()
        await lab.bind(batch_size=3, batch_wait_ms=5_000)
        await lab.send(1, 2)
        await lab.passes(4)
        assert lab.engine.seen == []
        await lab.send(3, 4)
        await lab.queues.rest()
        assert [len(batch) for _, batch in lab.engine.seen] == [3]
        await lab.passes(4)
        assert len(lab.engine.seen) == 1
        await lab.passes(1)
        assert [len(batch) for _, batch in lab.engine.seen] == [3, 1]
        assert await lab.jobs() == []

    run(tmp_path, work)


def test_a_backlog_comes_in_full_batches(tmp_path: Path) -> None:
    """Ten at a time, none twice."""

    async def work(lab: Lab) -> None:
        await lab.hold(*range(95), batch_size=10)
        lab.function()
        await lab.bind(batch_size=10)
        assert sorted(len(batch) for _, batch in lab.engine.seen) == [5, *[10] * 9]
        assert sorted(int(str(n)) for n in lab.bodies()) == list(range(95))

    run(tmp_path, work)


# --- bindings that change ---


def test_a_paused_queue_dead_letters_until_it_is_resumed(tmp_path: Path) -> None:
    """What becomes due is put aside; it comes back by itself, in order (D.7)."""

    async def work(lab: Lab) -> None:
        lab.function()
        await lab.bind(status="paused", consumers=1)
        await lab.send("a", "b")
        await lab.send("c", delay_s=30)
        await lab.queues.rest()
        assert [(job.state, job.reason) for job in await lab.jobs()] == [
            ("dead", "paused"),
            ("dead", "paused"),
            ("delayed", None),
        ]
        await lab.passes(30)
        assert await lab.states_of() == ["dead"] * 3
        assert lab.bodies() == []
        await lab.bind(consumers=1)
        assert lab.bodies() == ["a", "b", "c"]
        assert await lab.jobs() == []

    run(tmp_path, work)


def test_more_than_one_step_of_messages_is_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction moves so many; all are moved, and come back."""
    monkeypatch.setattr(limits, "QUEUE_MOVED", Limit(4, "messages", "", ""))

    async def work(lab: Lab) -> None:
        lab.function()
        await lab.bind(status="paused")
        await lab.send(*range(11))
        await lab.queues.rest()
        assert await lab.states_of() == ["dead"] * 11
        await lab.bind()
        assert sorted(str(n) for n in lab.bodies()) == sorted(map(str, range(11)))

    run(tmp_path, work)


def test_a_resume_that_fails_half_way_is_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The binding is active, and what came back with it is delivered; the rest at the next one."""
    monkeypatch.setattr(limits, "QUEUE_MOVED", Limit(1, "message", "one by one", "test"))

    async def work(lab: Lab) -> None:
        lab.function()
        await lab.bind(status="paused")
        await lab.send(1, 2)
        await lab.queues.rest()
        assert await lab.states_of() == ["dead", "dead"]

        async def full(*_args: Any, **_more: Any) -> int:
            raise UserError(UserCode.DISK_FULL, "no space is left")

        with monkeypatch.context() as patch:
            patch.setattr(lab.store, "write_in_steps", full)
            with pytest.raises(UserError, match="no space"):
                await lab.bind()
        await lab.queues.rest()
        assert lab.bodies() == [1]
        await lab.bind()
        assert lab.bodies() == [1, 2]

    run(tmp_path, work)


def test_who_consumes_may_change_in_a_backlog(tmp_path: Path) -> None:
    """From the binding's answer on it is the other function that gets messages."""

    async def work(lab: Lab) -> None:
        lab.function("new")

        async def rebinds(_batch: Batch) -> Event:
            await lab.service.bind(lab.p, "orders", "new", "active", ONE)
            return ok()

        await lab.hold(1, 2, 3, consumers=1)
        lab.function("old", rebinds)
        await lab.bind(function="old", consumers=1)
        assert lab.bodies() == [1, 2, 3]
        lab.journal.flush()
        assert [i.function for i in lab.told] == ["old", "new", "new"]

    run(tmp_path, work)


def test_messages_outlive_their_binding(tmp_path: Path) -> None:
    """Unbound they wait, for two weeks; whoever is bound next gets them."""

    async def work(lab: Lab) -> None:
        await lab.hold("a")
        await lab.service.unbind(lab.p, "orders")
        await lab.passes(DAY_S)
        assert await lab.states_of() == ["waiting"]
        lab.function()
        await lab.bind()
        assert lab.bodies() == ["a"]

    run(tmp_path, work)


@pytest.mark.slow
def test_what_nobody_takes_expires(tmp_path: Path) -> None:
    """After 14 days of waiting: a dead letter with its reason."""

    async def work(lab: Lab) -> None:
        await lab.hold("a")
        await lab.service.unbind(lab.p, "orders")
        await lab.passes(14 * DAY_S - 1)
        assert await lab.states_of() == ["waiting"]
        await lab.passes(2)
        [job] = await lab.jobs()
        assert (job.state, job.reason) == ("dead", "expired")
        assert lab.queues.counts.dead == 1

    run(tmp_path, work)


def test_dead_letters_are_told_though_no_delivery_was(tmp_path: Path) -> None:
    """Paused, or without its function: the journal hears nothing, so somebody is called."""

    async def work(lab: Lab) -> None:
        lab.function()
        await lab.bind(retries=0)
        lab.forget("worker")
        assert lab.burials == 0
        await lab.send("a")
        await lab.queues.rest()
        assert (await lab.states_of(), lab.burials, lab.told) == (["dead"], 1, [])
        lab.function()
        await lab.bind(status="paused")
        await lab.send("b")
        await lab.queues.rest()
        lab.journal.flush()
        assert (await lab.states_of(), lab.burials, lab.told) == (["dead", "dead"], 2, [])

    run(tmp_path, work)


def test_a_function_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    """It is told so; deployed meanwhile, the next attempt succeeds (H-14)."""

    async def work(lab: Lab) -> None:
        lab.function()
        await lab.bind()
        lab.forget("worker")
        await lab.send("a")
        await lab.queues.rest()
        [job] = await lab.jobs()
        assert (job.attempts, job.failures) == (1, 1)
        assert job.error == "no function is called 'worker'"
        lab.function(handlers=("fetch",))
        await lab.passes(10)
        [job] = await lab.jobs()
        assert job.error == "the function 'worker' has no queue handler"
        lab.function()
        await lab.passes(20)
        assert lab.bodies() == ["a"]

    run(tmp_path, work)


def test_an_internal_queue_needs_no_binding(tmp_path: Path) -> None:
    """`fan-out:NAME` is delivered to NAME (contract E.13)."""

    async def work(lab: Lab) -> None:
        lab.function("digest")
        await lab.send({"user_ids": []}, queue="fan-out:digest")
        await lab.queues.rest()
        assert [queue for queue, _ in lab.engine.seen] == ["fan-out:digest"]
        assert await lab.jobs("fan-out:digest") == []

    run(tmp_path, work)


# --- places ---


def test_a_function_that_is_full_counts_nothing(tmp_path: Path) -> None:
    """No place: nothing is leased, nothing is counted; it comes when there is one."""

    async def work(lab: Lab) -> None:
        slot = lab.function()
        assert slot.gate is not None
        assert slot.gate.try_enter()
        await lab.bind()
        await lab.send("a")
        for _ in range(3):
            await lab.clock.advance(6)
        [job] = await lab.jobs()
        assert (job.state, job.attempts, job.failures, job.error) == ("waiting", 0, 0, None)
        slot.gate.leave()
        await lab.passes(10)
        assert lab.bodies() == ["a"]

    run(tmp_path, work, concurrency=1)


def test_a_place_that_is_lost_after_the_lease_gives_it_back(tmp_path: Path) -> None:
    """No isolate can be had: the lease is given back as it was, at its place in the line."""

    async def work(lab: Lab) -> None:
        slot = lab.function()
        await slot.retire(drain_s=0)
        await lab.bind()
        [id_] = await lab.send("a")
        await lab.queues.rest()
        [job] = await lab.jobs()
        assert (job.id, job.state, job.attempts, job.failures) == (id_, "waiting", 0, 0)
        lab.function()
        await lab.passes(1)
        assert lab.bodies() == ["a"]
        assert lab.engine.seen[0][1][0].attempts == 1

    run(tmp_path, work)


@pytest.mark.slow
def test_one_projects_backlog_leaves_places_to_others(tmp_path: Path) -> None:
    """A hundred queues of one project, and one message of another's: it does not wait (J10)."""

    async def work(lab: Lab) -> None:
        order: list[str] = []

        async def hot(_batch: Batch) -> Event:
            order.append("hot")
            return ok()

        async def cold(_batch: Batch) -> Event:
            order.append("cold")
            return ok()

        other = await lab.project("Other")
        for n in range(50):
            await lab.hold(*range(20), queue=f"q{n}", consumers=1)
        lab.function(handler=hot)
        lab.function("cold", cold, of=other)
        await lab.service.bind(other, "small", "cold", "active", ONE)
        for n in range(50):
            lab.queues.wake(lab.p, f"q{n}")
        await lab.send("x", queue="small", of=other)
        await lab.queues.rest()
        assert len(order) == 1001
        # one round of what may be under way, not all of a backlog
        assert order.index("cold") < 2 * limits.QUEUE_DELIVERIES.value

    run(tmp_path, work)


# --- drills ---


def test_the_next_deliveries_can_be_made_to_fail(tmp_path: Path) -> None:
    """They do not reach the handler; the one after them does (issue 6, 5)."""

    async def work(lab: Lab) -> None:
        lab.function()
        await lab.bind()
        lab.queues.fail_next(lab.p, "orders", 2)
        await lab.send("a")
        await lab.passes(29)
        [job] = await lab.jobs()
        assert (job.failures, job.error) == (2, "failed on purpose (fail-next)")
        assert lab.bodies() == []
        await lab.passes(1)
        assert lab.bodies() == ["a"]
        lab.queues.fail_next(lab.p, "orders", 5)
        lab.queues.fail_next(lab.p, "orders", 0)
        await lab.send("b")
        await lab.queues.rest()
        assert lab.bodies() == ["a", "b"]

    run(tmp_path, work)


def test_a_delivery_on_demand_is_stored_nowhere(tmp_path: Path) -> None:
    """One batch now: its outcome, verdicts and lines."""

    async def work(lab: Lab) -> None:
        async def mixed(batch: Batch) -> Event:
            return threw(
                "boom",
                explicitAcks=[batch[0].id],
                retryMessages=[{"msgId": batch[1].id, "delaySeconds": 7}],
            )

        lab.function(handler=mixed)
        await lab.bind(status="paused")
        got = await lab.service.deliver(lab.p, "orders", ["1", '{"x": 1.0}', "null"])
        assert (got.outcome, got.error) == (Outcome.EXCEPTION, "boom")
        assert [(v.acked, v.delay_s) for _, v in got.verdicts] == [
            (True, None),
            (False, 7),
            (False, None),
        ]
        [(_, batch)] = lab.engine.seen
        assert [m.body for m in batch] == ["1", '{"x": 1.0}', "null"]
        assert [m.attempts for m in batch] == [1, 1, 1]
        assert await lab.jobs() == []

    run(tmp_path, work)


def test_a_delivery_on_demand_without_a_place_is_refused(tmp_path: Path) -> None:
    """503 OVERLOADED with Retry-After; a function that has gone is 404."""

    async def work(lab: Lab) -> None:
        slot = lab.function()
        await lab.bind()
        await slot.retire(drain_s=0)
        with pytest.raises(Refused, match="another version serves by now") as busy:
            await lab.queues.deliver(lab.p, "orders", "worker", ["1"])
        assert (busy.value.fault, busy.value.problem.retry_after_s) == (faults.OVERLOADED, 1)
        with pytest.raises(Refused, match="no function is called 'gone'"):
            await lab.queues.deliver(lab.p, "orders", "gone", ["1"])

    run(tmp_path, work)


# --- restarts ---


def test_what_was_under_way_at_a_crash_comes_again_at_once(tmp_path: Path) -> None:
    """Leases of a dead process are void; a crash of ours counts no failure (J1, J3)."""

    async def work(lab: Lab) -> None:
        begun = asyncio.Event()

        async def hangs(_batch: Batch) -> Event:
            lab.engine.consumers["worker"] = fine
            begun.set()
            return await never()

        lab.function(handler=hangs)
        await lab.bind()
        [id_] = await lab.send("a")
        await begun.wait()
        await lab.restart()
        await lab.queues.rest()
        assert [[(m.id, m.attempts) for m in batch] for _, batch in lab.engine.seen] == [
            [(id_, 1)],
            [(id_, 2)],
        ]
        assert await lab.jobs() == []

    run(tmp_path, work)


def test_what_ends_a_process_again_and_again_is_given_up(tmp_path: Path) -> None:
    """More than twenty deliveries without an outcome: a dead letter, `interrupted`."""

    async def work(lab: Lab) -> None:
        begun = asyncio.Event()

        async def kills(_batch: Batch) -> Event:
            begun.set()
            return await never()

        lab.function(handler=kills)
        await lab.bind()
        await lab.send("a")
        most = limits.QUEUE_CUT_OFF.value + 1
        for _ in range(most):
            await begun.wait()
            begun.clear()
            await lab.restart()
        await lab.queues.rest()
        assert len(lab.engine.seen) == most
        [job] = await lab.jobs()
        assert (job.state, job.reason, job.attempts, job.failures) == (
            "dead",
            "interrupted",
            most,
            0,
        )

    run(tmp_path, work)


def test_an_ack_that_is_durable_is_never_forgotten(tmp_path: Path) -> None:
    """Restarts bring nothing back; what waited is delivered."""

    async def work(lab: Lab) -> None:
        lab.function()
        await lab.bind()
        await lab.send(1, 2, 3)
        await lab.send(4, delay_s=10)
        await lab.queues.rest()
        await lab.restart()
        await lab.queues.rest()
        assert sorted(map(str, lab.bodies())) == ["1", "2", "3"]
        await lab.passes(10)
        assert sorted(map(str, lab.bodies())) == ["1", "2", "3", "4"]

    run(tmp_path, work)


def test_a_close_lets_a_delivery_end(tmp_path: Path) -> None:
    """What is under way may end within its grace, and what became of it is written down."""

    async def work(lab: Lab) -> None:
        begun, goes_on = asyncio.Event(), asyncio.Event()

        async def waits(_batch: Batch) -> Event:
            begun.set()
            await goes_on.wait()
            return ok()

        lab.function(handler=waits)
        await lab.bind()
        await lab.send("slow")
        await begun.wait()
        closing = asyncio.create_task(lab.queues.close(grace_s=5))
        await lab.clock.advance(4)
        assert not closing.done()
        goes_on.set()
        await closing
        assert await lab.jobs() == []
        await lab.send("after")  # nobody is woken by it any more
        assert await lab.states_of() == ["waiting"]
        await lab.queues.close()

    run(tmp_path, work)


@pytest.mark.parametrize("grace_s", [0.0, 5.0])
def test_a_close_gives_back_what_it_cuts_off(tmp_path: Path, grace_s: float) -> None:
    """It is due at once for whoever comes next; no failure is counted."""

    async def work(lab: Lab) -> None:
        begun = asyncio.Event()

        async def hangs(_batch: Batch) -> Event:
            begun.set()
            return await never()

        lab.function(handler=hangs)
        await lab.bind()
        await lab.send("slow")
        await begun.wait()
        closing = asyncio.create_task(lab.queues.close(grace_s=grace_s))
        await lab.clock.advance(grace_s)
        await closing
        [job] = await lab.jobs()
        assert (job.state, job.attempts, job.failures) == ("waiting", 1, 0)

    run(tmp_path, work)


def test_a_resume_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    """Messages put aside while paused are back after a restart, if the queue is active."""

    async def work(lab: Lab) -> None:
        lab.function()
        await lab.bind(status="paused")
        await lab.send(1, 2)
        await lab.queues.rest()
        await lab.hold()
        await lab.restart()
        while await lab.jobs():  # in the background
            await lab.barrier()
        await lab.queues.rest()
        assert sorted(map(str, lab.bodies())) == ["1", "2"]

    run(tmp_path, work)


def test_a_resume_that_fails_at_the_start_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk for a while: nothing stays put aside in a queue that is active."""

    async def work(lab: Lab) -> None:
        lab.function()
        await lab.bind(status="paused")
        await lab.send(1)
        await lab.queues.rest()
        await lab.hold()
        real, fails = lab.store.write_in_steps, 2

        async def full(*args: Any, **more: Any) -> int:
            nonlocal fails
            fails -= 1
            if fails >= 0:
                raise UserError(UserCode.DISK_FULL, "no space is left")
            return await real(*args, **more)

        monkeypatch.setattr(lab.store, "write_in_steps", full)
        await lab.restart()
        while await lab.jobs():  # in the background
            await lab.clock.advance(limits.QUEUE_TROUBLE_S.value)
            await lab.barrier()
        await lab.queues.rest()
        assert (lab.bodies(), fails) == ([1], -1)

    run(tmp_path, work)


def test_a_wake_opens_what_is_not_open(tmp_path: Path) -> None:
    """A dev server's queues begin with the first send."""

    async def work(lab: Lab) -> None:
        lab.function()
        await lab.bind()
        await lab.queues.close()
        lab.queues = lab.process()
        lab.service = lab.served()
        assert await lab.queues.depths() == []
        await lab.send("a")
        while not lab.bodies():
            await asyncio.sleep(0)
            await lab.queues.rest()
        assert lab.bodies() == ["a"]

    run(tmp_path, work)


@pytest.mark.parametrize(
    "error", [UserError(UserCode.DISK_FULL, "no space is left"), RuntimeError("ours")]
)
def test_a_start_that_fails_is_tried_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    """A full disk at the start: what was left behind is delivered once there is room."""

    async def work(lab: Lab) -> None:
        lab.function()
        await lab.queues.close()
        await lab.hold("a")
        lab.queues = lab.process()
        write, fails = lab.state.database.write, 2

        async def full(*args: Any, **more: Any) -> Any:
            nonlocal fails
            if fails:
                fails -= 1
                raise error
            return await write(*args, **more)

        monkeypatch.setattr(lab.state.database, "write", full)
        lab.queues.start()
        for _ in range(2):
            await lab.clock.advance(limits.QUEUE_TROUBLE_S.value)
        await lab.queues.rest()
        assert lab.bodies() == ["a"]

    run(tmp_path, work)
    assert caplog.text.count("queues cannot be opened") == 2


def test_a_close_while_it_opens_ends_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is begun after it, and nothing is left."""

    async def work(lab: Lab) -> None:
        await lab.queues.close()
        await lab.hold("a")
        lab.function()
        opening = asyncio.Event()

        async def never_there() -> State:
            opening.set()
            future: asyncio.Future[State] = asyncio.get_running_loop().create_future()
            return await future

        state, lab.queues = lab.states.state, lab.process()
        monkeypatch.setattr(lab.states, "state", never_there)
        lab.queues.start()
        await opening.wait()
        assert lab.queues.busy
        await lab.queues.close()
        monkeypatch.setattr(lab.states, "state", state)
        lab.queues.start()
        lab.queues.wake(lab.p, "orders")
        assert not lab.queues.busy
        assert lab.bodies() == []

    run(tmp_path, work)


def test_a_project_that_is_deleted_takes_its_messages_along(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of a delivery too: its end changes nothing, others go on."""

    async def work(lab: Lab) -> None:
        other = await lab.project("Other")

        async def deleted_meanwhile(_batch: Batch) -> Event:
            await lab.control.delete_project(other)
            return threw()

        lab.function("doomed", deleted_meanwhile, of=other)
        lab.function()
        await lab.bind(function="doomed", of=other, consumers=1)
        await lab.bind()
        await lab.send(1, 2, of=other)
        await lab.queues.rest()
        await lab.send("still here")
        await lab.queues.rest()
        assert lab.bodies() == [1, "still here"]
        assert lab.queues.next_ms is None

    run(tmp_path, work)
    assert "Traceback" not in caplog.text


# --- stale workers, trouble ---


def test_a_stale_worker_changes_nothing(tmp_path: Path) -> None:
    """Its lease ran out and another one has the message: ack, retry and return are void."""

    async def work(lab: Lab) -> None:
        await lab.hold("a")
        now_ms = time_ms(lab.clock)
        await lab.hold()

        def lease(owner: str, at_ms: int) -> Lease:
            return Lease(owner, "worker", at_ms, at_ms + 1_000)

        async def take(owner: str, at_ms: int) -> Any:
            return await lab.store.write(
                lab.p, lambda s: queue_leases.take(s, "orders", lease(owner, at_ms))
            )

        [first] = (await take("one", now_ms)).messages
        assert (await take("two", now_ms + 999)).messages == ()
        [second] = (await take("one", now_ms + 1_000)).messages
        assert (second.attempts, second.generation) == (2, 2)

        async def settled(owner: str, message: Any) -> int:
            return await lab.store.write(
                lab.p,
                lambda s: queue_leases.settle(s, owner, Settlement(acked=(message,)), now_ms),
            )

        assert await settled("one", first) == 0
        assert await settled("two", second) == 0
        given = await lab.store.write(
            lab.p, lambda s: queue_leases.give_back(s, "one", (first,), begun=False)
        )
        assert given == 0
        assert await settled("one", second) == 1
        assert await settled("one", second) == 0
        assert await lab.jobs() == []

    run(tmp_path, work)


def test_a_lost_lease_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A delivery that ends after its message was purged and lost changes nothing."""

    async def work(lab: Lab) -> None:
        async def loses(_batch: Batch) -> Event:
            await lab.steal()
            return ok()

        lab.function(handler=loses)
        await lab.bind()
        await lab.send("a")
        await lab.queues.rest()
        assert lab.queues.counts.lost == 1
        assert await lab.states_of() == ["leased"]

    run(tmp_path, work)
    assert "somebody else's by then" in caplog.text


def test_what_became_of_a_delivery_is_written_when_the_disk_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails for a while does not bring back what was acknowledged."""

    async def work(lab: Lab) -> None:
        fails = 2
        settle = queue_leases.settle

        def full(*args: Any) -> int:
            nonlocal fails
            if fails:
                fails -= 1
                raise UserError(UserCode.DISK_FULL, "no space is left")
            return settle(*args)

        monkeypatch.setattr(queue_leases, "settle", full)
        lab.function()
        await lab.bind()
        await lab.send("a")
        while await lab.jobs():
            await lab.clock.advance(limits.QUEUE_TROUBLE_S.value)
        await lab.queues.rest()
        assert lab.bodies() == ["a"]

    run(tmp_path, work)


def test_trouble_of_ours_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The queue rests for a while, the lease is given back; no failure is counted."""

    async def work(lab: Lab) -> None:
        slot = lab.function()

        async def broken() -> None:
            raise RuntimeError("a mistake of ours")

        monkeypatch.setattr(slot, "ready", broken)
        await lab.bind(consumers=1)
        await lab.send("a")
        await lab.queues.rest()
        [job] = await lab.jobs()
        assert (job.state, job.attempts, job.failures) == ("waiting", 1, 0)
        lab.function()
        await lab.send("b")
        await lab.queues.rest()
        assert lab.bodies() == []
        await lab.passes(limits.QUEUE_TROUBLE_S.value)
        assert sorted(map(str, lab.bodies())) == ["a", "b"]

    run(tmp_path, work)
    assert "has trouble" in caplog.text


# --- dead letters ---


def test_trouble_does_not_last_until_a_clock_catches_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wall clock is put back an hour: what is sent then waits five seconds, not an hour."""

    async def work(lab: Lab) -> None:
        lab.function()
        await lab.bind()

        def broken(*_args: Any) -> None:
            raise RuntimeError("ours")

        with monkeypatch.context() as patch:
            patch.setattr(queue_leases, "take", broken)
            await lab.send("before")
            await lab.queues.rest()
        lab.clock.jump(-3_600)
        await lab.send("after")
        await lab.passes(limits.QUEUE_TROUBLE_S.value + 0.1)
        assert lab.bodies() == ["after"]
        await lab.passes(3_600)
        assert lab.bodies() == ["after", "before"]

    run(tmp_path, work)


def test_dead_letters_are_redelivered_from_the_start(tmp_path: Path) -> None:
    """By id or all, with failures 0 and all their attempts before them."""

    async def work(lab: Lab) -> None:
        async def throws(_batch: Batch) -> Event:
            return threw()

        lab.function(handler=throws)
        await lab.bind(retries=0)
        first, *_ = await lab.send("a", "b", "c")
        await lab.queues.rest()
        assert await lab.states_of() == ["dead"] * 3
        lab.function()
        assert await lab.service.redeliver(lab.p, "orders", [first, "unknown"]) == 1
        await lab.queues.rest()
        assert [job.payload for job in await lab.jobs()] == ['"b"', '"c"']
        assert lab.engine.seen[-1][1][0].attempts == 1
        assert await lab.service.redeliver(lab.p, "orders", None) == 2
        await lab.queues.rest()
        assert await lab.jobs() == []
        assert await lab.service.redeliver(lab.p, "orders", None) == 0

    run(tmp_path, work)


def test_old_dead_letters_and_keys_are_swept(tmp_path: Path) -> None:
    """After 14 days, and after 24 hours (D.7)."""

    async def work(lab: Lab) -> None:
        async def sweep() -> tuple[int, int]:
            await lab.barrier()
            await lab.clock.advance(limits.QUEUE_SWEEP_S.value)
            await lab.barrier()
            keys = await lab.store.read(lab.p, lambda s: s.count(queue_keys))
            return keys, len(await lab.jobs())

        lab.function()
        await lab.bind(status="paused")
        await lab.send("a", key="k")
        await lab.queues.rest()
        assert await sweep() == (1, 1)
        await lab.clock.advance(DAY_S - 3_600)
        assert await sweep() == (0, 1)
        await lab.clock.advance(13 * DAY_S - 10_800)
        assert await sweep() == (0, 1)
        assert await sweep() == (0, 0)

    run(tmp_path, work)


def test_depths_are_told(tmp_path: Path) -> None:
    """Waiting, delayed, leased and dead of each queue; the age of the oldest."""

    async def work(lab: Lab) -> None:
        await lab.hold("a", "b")
        await lab.service.unbind(lab.p, "orders")
        await lab.passes(5)
        lab.function()
        await lab.bind(status="paused", queue="other")
        await lab.send("c", queue="other")
        await lab.send("d", queue="other", delay_s=60)
        await lab.queues.rest()
        first, second = sorted(await lab.queues.depths(), key=lambda d: d.queue)
        assert (first.queue, first.waiting, first.oldest_ms) == (
            "orders",
            2,
            time_ms(lab.clock) - 5_000,
        )
        assert (second.dead, second.delayed, second.waiting, second.oldest_ms) == (1, 1, 0, None)

    run(tmp_path, work)


def test_a_close_writes_down_what_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while that is being written: an orderly end brings nothing acknowledged back."""

    async def work(lab: Lab) -> None:
        settling, goes_on = asyncio.Event(), asyncio.Event()
        write = lab.store.write

        async def slow(project_id: str, job: Any) -> Any:
            if lab.engine.seen and not settling.is_set():
                settling.set()
                await goes_on.wait()
            return await write(project_id, job)

        lab.function()
        await lab.bind()
        monkeypatch.setattr(lab.store, "write", slow)
        await lab.send("a")
        await settling.wait()
        closing = asyncio.create_task(lab.queues.close(grace_s=0))
        await lab.clock.advance(0)
        goes_on.set()
        await closing
        assert await lab.jobs() == []

    run(tmp_path, work)


def test_a_lease_is_reckoned_when_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tries to settle took their time: the next message has its whole lease all the same."""

    async def work(lab: Lab) -> None:
        settle, take = queue_leases.settle, queue_leases.take
        fails, taken = 3, list[tuple[int, int]]()

        def full(*args: Any) -> int:
            nonlocal fails
            if fails:
                fails -= 1
                raise UserError(UserCode.DISK_FULL, "no space is left")
            return settle(*args)

        def seen(scoped: Any, queue: str, lease: Lease) -> Any:
            taken.append((lease.now_ms, time_ms(lab.clock)))
            return take(scoped, queue, lease)

        await lab.hold("a", "b", consumers=1)
        monkeypatch.setattr(queue_leases, "settle", full)
        monkeypatch.setattr(queue_leases, "take", seen)
        lab.function()
        await lab.service.bind(lab.p, "orders", "worker", "active", ONE)
        while await lab.jobs():
            await lab.clock.advance(limits.QUEUE_TROUBLE_S.value)
        await lab.queues.rest()
        assert len(taken) > 1
        assert all(now_ms - lease_ms < 15_000 for lease_ms, now_ms in taken)  # three tries

    run(tmp_path, work)


def test_queues_that_rest_are_forgotten_while_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest is at a long delivery: what is known of the others has its bound."""
    monkeypatch.setattr(limits, "QUEUES_KNOWN", Limit(3, "queues", "", ""))

    async def work(lab: Lab) -> None:
        begun = asyncio.Event()

        async def hangs(_batch: Batch) -> Event:
            begun.set()
            return await never()

        lab.function(handler=hangs)
        await lab.bind()
        await lab.send("a")
        await begun.wait()
        for n in range(20):
            lab.queues.wake(lab.p, f"q{n}", time_ms(lab.clock) + 60_000)
        assert len(lab.queues._queues) == 3  # pyright: ignore[reportPrivateUsage]

    run(tmp_path, work)

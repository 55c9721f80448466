"""A queue on the real store against a plain model, step by step (issue 6, must show 1)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, Engine, event
from tests.router.control.world import FakePump
from tests.router.store.world import project

from amba_router.services.queues.service import QueueService, Send
from amba_router.store import queue_leases, trigger_sweeps
from amba_router.store.control import ControlStore
from amba_router.store.on_demand import OnDemand
from amba_router.store.project_store import ProjectStore
from amba_router.store.queue_records import Lease, Message, Purged, Settings, Status
from amba_router.store.scoped import Scoped
from amba_router.store.state import DATABASE, State
from amba_router.triggers.settle import RETRIED, settlement, verdicts
from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.limits import Limit

T = TypeVar("T")
DAY = 86_400_000
LEASE = 45_000
BACKOFF = 10_000
CUT_OFF = 2
Word = Literal["nothing", "ack", "retry", "retry 7"]
OfBatch = Literal["nothing", "ackAll", "retryAll", "retryAll 3"]
End = Literal["well", "threw", "crashed"]


# --- the model ---


@dataclass
class Job:
    """One message, as plain as can be. `lease`: owner and generation."""

    seq: int
    id: str
    payload: str
    due: int
    attempts: int = 0
    failures: int = 0
    generation: int = 0
    lease: tuple[str, int] | None = None
    dead: str | None = None
    error: str | None = None

    def state(self, now: int) -> str:
        if self.dead is not None:
            return "dead"
        if self.due <= now:
            return "waiting"
        return "delayed" if self.lease is None else "leased"

    def row(self) -> tuple[Any, ...]:
        """As `ROWS` has it."""
        owner = None if self.lease is None else self.lease[0]
        return (
            *(self.id, self.payload, self.due, self.attempts, self.failures, self.generation),
            *(owner or "", self.dead or "", self.error or ""),
        )


ROWS = """
    SELECT id, payload, due_ms, attempts, failures, generation,
      ifnull(owner, ''), iif(dead_ms IS NULL, '', reason), ifnull(error, '')
    FROM queue_jobs WHERE project_id = ? AND queue = ?
"""


@dataclass
class Model:
    """What the queue promises."""

    size: int
    retries: int
    paused: bool = False
    jobs: list[Job] = field(default_factory=lambda: list[Job]())
    keys: dict[str, tuple[str, int]] = field(default_factory=lambda: dict[str, tuple[str, int]]())

    def live(self) -> list[Job]:
        return [job for job in self.jobs if job.dead is None]

    def due(self, now: int) -> list[Job]:
        return sorted((j for j in self.live() if j.due <= now), key=lambda j: (j.due, j.seq))

    def take(self, owner: str, now: int) -> list[Job]:
        due = self.due(now)
        if self.paused:
            for job in due:
                job.dead, job.lease = "paused", None
            return []
        batch = due[: self.size]
        spent = [job for job in batch if job.attempts - job.failures > CUT_OFF]
        if batch and (batch[0].due <= now - 14 * DAY or spent):
            for job in due:
                if job.due <= now - 14 * DAY:
                    job.dead, job.lease = "expired", None
            for job in spent:
                if job.dead is None:
                    job.dead, job.lease = "interrupted", None
            return []
        for job in batch:
            job.attempts += 1
            job.generation += 1
            job.lease = (owner, job.generation)
            job.due = now + LEASE
        return batch

    def held(self, owner: str, message: Message) -> Job | None:
        for job in self.live():
            if job.id == message.id and job.lease == (owner, message.generation):
                return job
        return None

    def end(
        self, owner: str, message: Message, word: Word, of_batch: OfBatch, end: End, now: int
    ) -> bool:
        """Whether it was still leased so."""
        job = self.held(owner, message)
        if job is None:
            return False
        delay: int | None = None
        if end == "crashed":
            again = True
        elif word == "ack":
            again = False
        elif word in ("retry", "retry 7"):
            again = True
            delay = 7 if word == "retry 7" else 3 if of_batch == "retryAll 3" else None
        elif of_batch in ("retryAll", "retryAll 3"):
            again = True
            delay = 3 if of_batch == "retryAll 3" else None
        else:
            again = end == "threw" and of_batch != "ackAll"
        if not again:
            self.jobs.remove(job)
            return True
        job.lease = None
        job.error = RETRIED if end == "well" else end
        if job.failures >= self.retries:
            job.dead = "retries"
        else:
            wait = BACKOFF * 2**job.failures if delay is None else delay * 1000
            job.due = now + wait
        job.failures += 1
        return True

    def give_back(self, owner: str, message: Message) -> bool:
        job = self.held(owner, message)
        if job is None:
            return False
        job.lease, job.due, job.attempts = None, message.due_ms, message.attempts - 1
        return True


# --- the machine ---


@dataclass
class Bench:
    """The real store, for all examples of one run: each has a queue of its own."""

    runner: asyncio.Runner
    state: State
    store: ProjectStore
    clock: ManualClock
    service: QueueService
    project_id: str
    reader: sqlite3.Connection
    names: Iterator[str] = field(default_factory=lambda: (f"q{n}" for n in itertools.count()))
    steps: int = 0

    def run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.runner.run(awaited())

    def here(self, work: Callable[[Scoped], T]) -> T:
        """One transaction, in this thread: nobody else writes."""
        return self.state.database.write_here(lambda c: work(Scoped(c, self.project_id)))


class Functions:
    """Everything there is exports a queue handler."""

    def handlers(self, project_id: str, name: str) -> tuple[str, ...] | None:
        return ("queue",)


def machine(bench: Bench) -> type[RuleBasedStateMachine]:
    """The rules over one store."""

    class QueueMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.queue = next(bench.names)
            self.model = Model(1, 3)
            self.owner = "p1"
            self.starts = 1
            # what each process has in hand: dead processes too, which may still say something
            self.under_way: list[tuple[str, tuple[Message, ...]]] = []
            self.sent = 0

        @property
        def now(self) -> int:
            return int(bench.clock.time_s() * 1000)

        def bind(self, status: Status) -> None:
            settings_ = Settings(
                batch_size=self.model.size, retries=self.model.retries, backoff_ms=BACKOFF
            )
            bench.run(bench.service.bind(bench.project_id, self.queue, "f", status, settings_))
            self.model.paused = status == "paused"
            if status == "active":
                for job in self.model.jobs:
                    if job.dead == "paused":
                        job.dead = None

        @initialize(size=st.sampled_from([1, 2, 5, 10]), retries=st.integers(0, 3))
        def begin(self, size: int, retries: int) -> None:
            self.model = Model(size, retries)
            self.bind("active")

        @rule(
            delay=st.sampled_from([0, 0, 0, 5, 60]),
            key=st.sampled_from([None, None, None, "k", "l"]),
            count=st.integers(1, 4),
        )
        def send(self, delay: int, key: str | None, count: int) -> None:
            for _ in range(count):
                self.send_one(delay, key)

        def send_one(self, delay: int, key: str | None) -> None:
            self.sent += 1
            payload = f'{{"n": {self.sent}}}'
            known = self.model.keys.get(key) if key is not None else None
            new = Send(self.queue, payload, delay * 1000, key)
            id_ = bench.run(bench.service.send(bench.project_id, new))
            if known is not None and known[1] > self.now - DAY:
                assert id_ == known[0]
                return
            assert id_ not in {job.id for job in self.model.jobs}
            if key is not None:
                self.model.keys[key] = (id_, self.now)
            job = Job(self.sent, id_, payload, self.now + delay * 1000)
            self.model.jobs.append(job)

        @rule()
        def deliver(self) -> None:
            self.take()

        @rule(seconds=st.sampled_from([45, 45, 46, 100]))
        def deliver_what_ran_out(self, seconds: int) -> None:
            bench.runner.run(bench.clock.advance(seconds))
            self.take()

        def take(self) -> None:
            lease = Lease(self.owner, "f", self.now, self.now + LEASE)
            taken = bench.here(lambda s: queue_leases.take(s, self.queue, lease))
            wanted = self.model.take(self.owner, self.now)
            assert [(m.id, m.payload, m.attempts, m.failures) for m in taken.messages] == [
                (j.id, j.payload, j.attempts, j.failures) for j in wanted
            ]
            if taken.messages:
                self.under_way.append((self.owner, taken.messages))
            # whoever sleeps until then misses nothing
            due = self.model.live()
            if due:
                assert taken.next_ms is not None
                assert taken.next_ms <= max(self.now, min(job.due for job in due))
            else:
                assert taken.next_ms is None or taken.next_ms <= self.now

        @precondition(lambda self: bool(self.under_way))
        @rule(
            at=st.integers(0, 100),
            words=st.lists(
                st.sampled_from(["nothing", "ack", "retry", "retry 7"]), min_size=10, max_size=10
            ),
            of_batch=st.sampled_from(["nothing", "nothing", "ackAll", "retryAll", "retryAll 3"]),
            end=st.sampled_from(["well", "well", "threw", "crashed"]),
        )
        def ends(self, at: int, words: list[Word], of_batch: OfBatch, end: End) -> None:
            owner, messages = self.under_way.pop(at % len(self.under_way))
            said = dict(zip((m.id for m in messages), words, strict=False))
            result = {} if end == "crashed" else _result(said, of_batch)
            done = settlement(
                messages,
                verdicts(list(said), result, ended=end == "well"),
                Settings(retries=self.model.retries, backoff_ms=BACKOFF),
                error="" if end == "well" else end,
                now_ms=self.now,
                fraction=lambda: 0.5,
            )
            held = bench.here(lambda s: queue_leases.settle(s, owner, done, self.now))
            wanted = [
                self.model.end(owner, m, said[m.id], of_batch, end, self.now) for m in messages
            ]
            assert held == sum(wanted)

        @precondition(lambda self: bool(self.under_way))
        @rule(at=st.integers(0, 100))
        def has_no_place(self, at: int) -> None:
            owner, messages = self.under_way.pop(at % len(self.under_way))
            held = bench.here(lambda s: queue_leases.give_back(s, owner, messages, begun=False))
            assert held == sum(self.model.give_back(owner, message) for message in messages)

        @rule()
        def crashes_and_restarts(self) -> None:
            self.starts += 1
            self.owner = f"p{self.starts}"
            bench.here(lambda s: trigger_sweeps.void_leases(s.connection, self.owner, self.now))
            for job in self.model.live():
                if job.lease is not None and job.lease[0] != self.owner:
                    job.lease, job.due = None, min(job.due, self.now)

        @rule(seconds=st.sampled_from([0.001, 1, 5, 10, 40, 3_600]))
        def time_passes(self, seconds: float) -> None:
            bench.runner.run(bench.clock.advance(seconds))

        @rule(days=st.sampled_from([0.5, 0.5, 0.5, 1, 14]))
        def days_pass(self, days: float) -> None:
            bench.runner.run(bench.clock.advance(days * 86_400))

        @rule()
        def is_paused(self) -> None:
            self.bind("paused")

        @rule()
        def is_resumed(self) -> None:
            self.bind("active")

        @rule(some=st.none() | st.sets(st.integers(0, 20), max_size=5))
        def redelivers(self, some: set[int] | None) -> None:
            dead = [job for job in self.model.jobs if job.dead is not None]
            ids: list[str] | None = None
            if some is not None:
                named = [job for at, job in enumerate(self.model.jobs) if at in some]
                ids = [*(job.id for job in named), "unknown"]
                dead = [job for job in named if job.dead is not None]
            count = bench.run(bench.service.redeliver(bench.project_id, self.queue, ids))
            assert count == len(dead)
            for job in dead:
                job.dead, job.lease, job.due, job.attempts, job.failures = (
                    *(None, None, self.now),
                    *(0, 0),
                )

        @rule(what=st.sampled_from(["dead", "waiting", "all"]))
        def is_purged(self, what: Purged) -> None:
            states = {
                "dead": {"dead"},
                "waiting": {"waiting", "delayed"},
                "all": {"dead", "waiting", "delayed"},
            }[what]
            gone = [job for job in self.model.jobs if job.state(self.now) in states]
            count = bench.run(bench.service.purge(bench.project_id, self.queue, what))
            assert count == len(gone)
            for job in gone:
                self.model.jobs.remove(job)

        @invariant()
        def is_as_the_model_says(self) -> None:
            bench.steps += 1
            found = bench.reader.execute(ROWS, (bench.project_id, self.queue)).fetchall()
            assert sorted(found) == sorted(job.row() for job in self.model.jobs)

    return QueueMachine


def _result(said: dict[str, Word], of_batch: OfBatch) -> dict[str, Any]:
    retried: list[dict[str, Any]] = []
    for id_, word in said.items():
        if word == "retry":
            retried.append({"msgId": id_})
        elif word == "retry 7":
            retried.append({"msgId": id_, "delaySeconds": 7})
    batch: dict[str, Any] = {"retry": of_batch in ("retryAll", "retryAll 3")}
    if of_batch == "retryAll 3":
        batch["delaySeconds"] = 3
    return {
        "ackAll": of_batch == "ackAll",
        "explicitAcks": [id_ for id_, word in said.items() if word == "ack"],
        "retryBatch": batch,
        "retryMessages": retried,
    }


@contextlib.contextmanager
def no_disk() -> Generator[None]:
    """What is tested here is no disk: nobody waits for one."""

    def quick(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA synchronous=OFF")

    event.listen(Engine, "begin", quick)
    try:
        yield
    finally:
        event.remove(Engine, "begin", quick)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_queue_is_as_the_model_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty thousand steps of sends, deliveries, crashes, pauses and purges: no divergence."""
    monkeypatch.setattr(limits, "QUEUE_CUT_OFF", Limit(CUT_OFF, "deliveries", "", ""))
    with asyncio.Runner() as runner, no_disk():
        clock = ManualClock()
        state = runner.run(State.open(tmp_path / "state", clock))
        try:
            created = runner.run(project(ControlStore(state, clock)))
            store = ProjectStore(OnDemand(state, clock))
            service = QueueService(store, Functions(), FakePump(), clock)
            reader = sqlite3.connect(tmp_path / "state" / DATABASE)
            bench = Bench(runner, state, store, clock, service, created.record.id, reader)
            run_state_machine_as_test(
                machine(bench),
                settings=settings(
                    max_examples=480,
                    stateful_step_count=50,
                    deadline=None,
                    derandomize=True,
                    database=None,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
                ),
            )
            assert bench.steps >= 20_000
            reader.close()
        finally:
            runner.run(state.close())

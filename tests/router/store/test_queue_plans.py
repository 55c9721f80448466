"""How SQLite finds messages: by an index of their queue, or by `seq`; never all of a project."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event

from amba_router.store import queue_leases, queue_rows, trigger_sweeps
from amba_router.store.queue_records import Again, Dead, Lease, Message, NewJob, Settlement
from amba_router.store.schema import metadata
from amba_router.store.scoped import Scoped
from amba_router.store.trigger_schema import queue_bindings

NOW_MS = 1_800_000_000_000


class Plans:
    """A database with 20 messages; `of` some work are the plans of its statements."""

    def __init__(self, connection: Connection) -> None:
        self.scoped = Scoped(connection, "p")
        self._plans: list[str] = []
        event.listen(connection, "before_cursor_execute", self._look)
        settings = {"batch_size": 10, "batch_wait_ms": 0, "consumers": 1, "retries": 3}
        times = {"backoff_ms": 1, "created_ms": 1, "updated_ms": 1}
        names = {"queue": "q", "id": "b", "function": "f", "status": "active", "source": "api"}
        self.scoped.add(queue_bindings, {**names, **settings, **times})
        jobs = [NewJob(f"j{at}", "1", NOW_MS, NOW_MS) for at in range(20)]
        queue_rows.add_jobs(self.scoped, "q", jobs)

    def _look(self, connection: Connection, _cursor: Any, said: str, given: Any, *_: Any) -> None:
        if "queue_jobs" in said and not said.startswith("INSERT"):
            cursor = connection.connection.cursor()
            rows = cursor.execute(f"EXPLAIN QUERY PLAN {said}", given).fetchall()
            self._plans += [str(row[3]) for row in rows]

    def of(self, work: Callable[[Scoped], object]) -> list[str]:
        """Those of tables and indexes of messages."""
        self._plans.clear()
        work(self.scoped)
        return [plan for plan in self._plans if "queue_jobs" in plan]

    def take(self) -> tuple[Message, ...]:
        """Ten, leased."""
        lease = Lease("me", "f", NOW_MS, NOW_MS + 1000)
        return queue_leases.take(self.scoped, "q", lease).messages


@pytest.fixture
def plans() -> Iterator[Plans]:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as connection:
        yield Plans(connection)
    engine.dispose()


def found_by(plan: str) -> str:
    """`seq`, `queue`, or the whole plan."""
    if "rowid=?" in plan:
        return "seq"
    return "queue" if "project_id=? AND queue=?" in plan else plan


def test_a_delivery_costs_what_its_batch_has(plans: Plans) -> None:
    """A lease and its end, ten messages each, in a project of any size (issue 6, rows 5 and 6)."""
    taken: list[tuple[Message, ...]] = []
    looks = plans.of(lambda s: taken.append(plans.take()))
    assert set(map(found_by, looks)) == {"queue", "seq"}
    held = taken[0]
    assert len(held) == 10
    back, again, dead, acked = held[0], held[1], held[2], tuple(held[3:])
    looks = plans.of(lambda s: queue_leases.give_back(s, "me", [back], begun=False))
    assert set(map(found_by, looks)) == {"seq"}
    done = Settlement(acked, (Again(again, NOW_MS, "e"),), (Dead(dead, "retries", "e"),))
    ended: list[int] = []
    looks = plans.of(lambda s: ended.append(queue_leases.settle(s, "me", done, NOW_MS)))
    assert (ended, set(map(found_by, looks))) == ([9], {"seq"})


def test_changes_of_many_and_pages_look_at_their_queue(plans: Plans) -> None:
    """Redelivered, resumed, purged, listed: steps of thousands in a project of any size."""
    works: tuple[Callable[[Scoped], object], ...] = (
        lambda s: queue_rows.redeliver(s, "q", NOW_MS),
        lambda s: queue_rows.resume(s, "q"),
        lambda s: queue_rows.purge(s, "q", "dead", NOW_MS),
        lambda s: queue_rows.jobs(s, "q", "waiting", NOW_MS, offset=0, limit=50),
        lambda s: queue_rows.purge(s, "q", "waiting", NOW_MS),
    )
    for work in works:
        assert set(map(found_by, plans.of(work))) == {"queue", "seq"}
    assert queue_rows.count(plans.scoped, "q") == 0


def test_depths_are_counted_by_index(plans: Plans) -> None:
    """Live, dead and leased ones each by their own; metrics ask every few seconds."""
    plans.take()
    works: tuple[Callable[[Scoped], object], ...] = (
        lambda s: queue_rows.depths(s, NOW_MS),
        lambda s: trigger_sweeps.depths(s.connection, NOW_MS, most=5),
    )
    for work in works:
        looks = plans.of(work)
        names = [plan.split("INDEX ")[1].split(" ")[0] for plan in looks]
        assert names == ["queue_jobs_due", "queue_jobs_dead", "queue_jobs_owner"]
    one = queue_rows.depths(plans.scoped, NOW_MS)["q"]
    assert (one.waiting, one.leased, one.delayed, one.dead) == (10, 10, 0, 0)
    assert one.oldest_ms == NOW_MS
    assert trigger_sweeps.depths(plans.scoped.connection, NOW_MS, most=5) == [one]

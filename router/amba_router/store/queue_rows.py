"""Queues of one project: bindings and sends; leases are in `queue_leases`.

Source: contract D.7, H-14; reliability.md group J.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, and_, bindparam, case, func, or_

from amba_router.store import trigger_sweeps
from amba_router.store.page_bytes import fitting, octets
from amba_router.store.queue_records import (
    Binding,
    Depth,
    Job,
    NewJob,
    Settings,
    State,
    fan_out,
)
from amba_router.store.scoped import Scoped, prepared
from amba_router.store.trigger_schema import queue_bindings, queue_jobs, queue_keys
from amba_runtime import limits

_J = queue_jobs.c
_B = queue_bindings.c
_BINDING = prepared(queue_bindings).where(_B.queue == bindparam("queue"))

# --- bindings ---


def put_binding(scoped: Scoped, binding: Binding) -> None:
    """A new one, or another in its place; its id and creation are those of the first."""
    values = {
        **asdict(binding.settings),
        "id": binding.id,
        "queue": binding.queue,
        "function": binding.function,
        "status": binding.status,
        "source": binding.source,
        "created_ms": binding.created_ms,
        "updated_ms": binding.updated_ms,
    }
    scoped.put(queue_bindings, ("queue",), values)


def binding(scoped: Scoped, queue: str) -> Binding | None:
    """Who consumes a queue; None where nobody does."""
    rows = scoped.found(_BINDING, queue=queue)
    return _binding(rows[0]) if rows else fan_out(queue)


def bindings(scoped: Scoped) -> list[Binding]:
    """All that were made, by name."""
    rows = scoped.rows(scoped.query(queue_bindings).order_by(_B.queue))
    return [_binding(row) for row in rows]


def binding_count(scoped: Scoped) -> int:
    """How many there are."""
    return scoped.count(queue_bindings)


def drop_binding(scoped: Scoped, queue: str) -> bool:
    """Without it; its messages stay. Whether there was one."""
    return scoped.drop(queue_bindings, _B.queue == queue) == 1


def declare(scoped: Scoped, wanted: Sequence[Binding]) -> list[tuple[str, bool]]:
    """The bindings of a file: these and no others; those made over the API stay, or give way.

    Returns:
        (queue, whether it is active) of every one that is another one now, or is gone.
    """
    before = {one.queue: one for one in bindings(scoped)}
    names = {one.queue for one in wanted}
    changed: list[tuple[str, bool]] = []
    for one in wanted:
        known = before.get(one.queue)
        if known is not None:
            one = replace(one, id=known.id, created_ms=known.created_ms)
            if replace(one, updated_ms=known.updated_ms) == known:
                continue
        put_binding(scoped, one)
        changed.append((one.queue, one.active))
    for known in before.values():
        if known.source == "file" and known.queue not in names:
            drop_binding(scoped, known.queue)
            changed.append((known.queue, False))
    return changed


# --- sends ---


def known_key(scoped: Scoped, queue: str, key: str, after_ms: int) -> str | None:
    """The job that was sent with an idempotency key after that time."""
    k = queue_keys.c
    query = scoped.query(queue_keys, k.job_id)
    found = scoped.value(query.where(k.queue == queue, k.key == key, k.created_ms > after_ms))
    return None if found is None else str(found)


def put_key(scoped: Scoped, queue: str, key: str, job_id: str, now_ms: int) -> None:
    """Know a key from now on; an old one of the same name is forgotten."""
    values = {"queue": queue, "key": key, "job_id": job_id, "created_ms": now_ms}
    scoped.put(queue_keys, ("queue", "key"), values)


def add_jobs(scoped: Scoped, queue: str, jobs: Sequence[NewJob]) -> None:
    """New messages, in this order where they are due at once; `wake` the pump after the commit."""
    scoped.add(
        queue_jobs,
        [
            {
                "id": job.id,
                "queue": queue,
                "payload": job.payload,
                "created_ms": job.created_ms,
                "due_ms": job.due_ms,
                "attempts": 0,
                "failures": 0,
                "generation": 0,
            }
            for job in jobs
        ],
    )


def count(scoped: Scoped, queue: str) -> int:
    """Messages of a queue, dead ones too. Takes time with their number."""
    # one by one: each has an index of its own
    live = scoped.count(queue_jobs, _J.queue == queue, _J.dead_ms.is_(None))
    return live + scoped.count(queue_jobs, _J.queue == queue, _J.dead_ms.is_not(None))


# --- lists ---


def depths(scoped: Scoped, now_ms: int) -> dict[str, Depth]:
    """Messages by queue and state, of queues that have some. By index alone."""
    due = func.sum(case((_J.due_ms <= now_ms, 1), else_=0))
    live = scoped.query(queue_jobs, _J.queue, func.count(), due, func.min(_J.due_ms))
    dead = scoped.query(queue_jobs, _J.queue, func.count()).where(_J.dead_ms.is_not(None))
    live = live.where(_J.dead_ms.is_(None)).group_by(_J.queue)
    live_rows: Sequence[Any] = scoped.rows(live)
    dead_rows: Sequence[Any] = scoped.rows(dead.group_by(_J.queue))
    lives = {row[0]: (row[1], row[2], row[3]) for row in live_rows}
    deads = {row[0]: int(row[1]) for row in dead_rows}
    held = trigger_sweeps.leased(scoped.connection, now_ms, scoped.project_id)
    found: dict[str, Depth] = {}
    for queue in {**lives, **deads}:
        key = (scoped.project_id, queue)
        found[queue] = trigger_sweeps.depth(
            key, lives.get(queue), deads.get(queue, 0), held[key], now_ms
        )
    return found


def jobs(
    scoped: Scoped, queue: str, state: State | None, now_ms: int, *, offset: int, limit: int
) -> tuple[list[Job], int]:
    """Messages in order of availability, dead ones the newest first, and how many there are.

    A page ends early where its messages are large.
    """
    mine = [_J.queue == queue]
    if state is not None:
        mine.append(is_in(state, now_ms))
    order = (_J.dead_ms.desc(), _J.seq.desc()) if state == "dead" else (_J.due_ms, _J.seq)
    # who comes first, how large those are, and then what fits: no other payload is read
    page = scoped.query(queue_jobs, _J.seq).where(*mine).order_by(*order)
    seqs = [row.seq for row in scoped.rows(page.offset(offset).limit(limit))]
    size = octets(_J.payload, _J.error).label("size")
    sized = scoped.rows(scoped.query(queue_jobs, _J.seq, size, at=seqs))
    sizes = {row.seq: row.size for row in sized}
    seqs = seqs[: fitting((sizes[seq] for seq in seqs), limits.QUEUE_PAGE_BYTES.value)]
    rows = {row.seq: row for row in scoped.rows(scoped.query(queue_jobs, at=seqs))}
    return [_job(rows[seq], now_ms) for seq in seqs], scoped.count(queue_jobs, *mine)


# --- changes of many ---


def redeliver(
    scoped: Scoped, queue: str, now_ms: int, *, ids: Collection[str] | None = None
) -> int:
    """Dead letters are due now, as if they had just been sent: at most `QUEUE_MOVED` at once.

    Args:
        ids: these alone; others than dead letters among them stay as they are.

    Returns:
        how many there were; call it again until there are fewer than asked for at once.
    """
    where = [_J.queue == queue, _J.dead_ms.is_not(None)]
    if ids is not None:
        where.append(_J.id.in_(ids))
    return _few(scoped, where, _J.dead_ms, due_ms=now_ms, attempts=0, failures=0, **_ALIVE)


def resume(scoped: Scoped, queue: str) -> int:
    """What was put aside while the queue was paused is back: at most `QUEUE_MOVED` at once."""
    where = [_J.queue == queue, _J.dead_ms.is_not(None), _J.reason == "paused"]
    return _few(scoped, where, _J.dead_ms, **_ALIVE)


def purge(scoped: Scoped, queue: str, what: Literal["dead", "waiting"], now_ms: int) -> int:
    """Without dead letters, or without what waits: at most `QUEUE_MOVED` at once.

    What is leased is not touched.
    """
    unleased = or_(_J.owner.is_(None), _J.due_ms <= now_ms)
    where = _J.dead_ms.is_not(None) if what == "dead" else and_(_J.dead_ms.is_(None), unleased)
    few = scoped.query(queue_jobs, _J.seq).where(_J.queue == queue, where)
    return scoped.drop(queue_jobs, at=few.limit(limits.QUEUE_MOVED.value))


_ALIVE: dict[str, Any] = {"dead_ms": None, "reason": None, "owner": None}


def _few(scoped: Scoped, where: Sequence[ColumnElement[bool]], first: Any, **values: Any) -> int:
    few = scoped.query(queue_jobs, _J.seq).where(*where).order_by(first, _J.seq)
    return scoped.change_at(queue_jobs, few.limit(limits.QUEUE_MOVED.value), **values)


def is_in(state: State, now_ms: int) -> ColumnElement[bool]:
    """Whether a message is in a state; each is in one."""
    if state == "dead":
        return _J.dead_ms.is_not(None)
    if state == "waiting":
        return and_(_J.dead_ms.is_(None), _J.due_ms <= now_ms)
    held = _J.owner.is_not(None) if state == "leased" else _J.owner.is_(None)
    return and_(_J.dead_ms.is_(None), _J.due_ms > now_ms, held)


def _binding(row: Row[Any]) -> Binding:
    settings = Settings(
        batch_size=row.batch_size,
        batch_wait_ms=row.batch_wait_ms,
        consumers=row.consumers,
        retries=row.retries,
        backoff_ms=row.backoff_ms,
    )
    return Binding(
        id=row.id,
        queue=row.queue,
        function=row.function,
        status="paused" if row.status == "paused" else "active",
        settings=settings,
        source="file" if row.source == "file" else "api",
        created_ms=row.created_ms,
        updated_ms=row.updated_ms,
    )


def _job(row: Row[Any], now_ms: int) -> Job:
    state: State = "delayed"
    if row.dead_ms is not None:
        state = "dead"
    elif row.due_ms <= now_ms:
        state = "waiting"
    elif row.owner is not None:
        state = "leased"
    return Job(
        id=row.id,
        state=state,
        payload=row.payload,
        attempts=row.attempts,
        failures=row.failures,
        created_ms=row.created_ms,
        due_ms=row.due_ms,
        reason=row.reason,
        error=row.error,
        dead_ms=row.dead_ms,
    )

"""Leases of messages: taken, settled, given back; and what nobody may take any more.

A lease is an owner and a due time in the future. Whoever settles a message names the owner and
the generation that it took: where another one has them by now, nothing changes.
Source: reliability.md 2.3 (visibility), group J.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Row, bindparam

from amba_router.store.queue_records import (
    Binding,
    Lease,
    Message,
    Reason,
    Settlement,
    Taken,
)
from amba_router.store.queue_rows import binding as binding_of
from amba_router.store.scoped import At, Scoped, prepared, prepared_change, prepared_drop
from amba_router.store.trigger_schema import queue_jobs
from amba_runtime import limits

_J = queue_jobs.c
_LIVE = _J.dead_ms.is_(None)
_KEPT_MS = int(limits.QUEUE_KEPT_S.value * 1000)

# made once: a delivery is mostly these
_FIRST = (
    prepared(queue_jobs)
    .where(_J.queue == bindparam("queue"), _LIVE)
    .order_by(_J.due_ms, _J.seq)
    .limit(bindparam("most"))
)
_LEASE = prepared_change(
    queue_jobs,
    owner=bindparam("lessee"),
    due_ms=bindparam("until_ms"),
    attempts=_J.attempts + 1,
    generation=_J.generation + 1,
)
_ACK = prepared_drop(queue_jobs).where(
    _J.owner == bindparam("lessee"), _J.generation == bindparam("lease"), _LIVE
)


def look(scoped: Scoped, queue: str) -> Taken:
    """Who consumes a queue, and when its first message is due; nothing is taken."""
    return Taken(binding_of(scoped, queue), (), _next_ms(scoped, queue))


def take(scoped: Scoped, queue: str, lease: Lease) -> Taken:
    """Lease the batch that is due, if the function still consumes the queue.

    What becomes due in a paused queue is a dead letter, and what waited too long is, whoever
    consumes it or not; at most `QUEUE_MOVED` of them at once.
    """
    bound = binding_of(scoped, queue)
    now_ms = lease.now_ms
    if bound is None:
        return _unbound(scoped, queue, now_ms)
    if not bound.active:
        buried = _bury(scoped, queue, now_ms, before_ms=now_ms, reason="paused")
        return Taken(bound, (), _next_ms(scoped, queue), buried)
    if bound.function != lease.function:
        return Taken(bound, (), now_ms)
    size = bound.settings.batch_size
    # one more than is taken says when to look again
    found = scoped.found(_FIRST, queue=queue, most=size + 1)
    rows = [row for row in found[:size] if row.due_ms <= now_ms]
    next_ms: int | None = found[len(rows)].due_ms if len(found) > len(rows) else None
    if rows and (rows[0].due_ms <= now_ms - _KEPT_MS or any(map(_cut_off, rows))):
        buried = _give_up(scoped, queue, now_ms, [row for row in rows if _cut_off(row)])
        return Taken(bound, (), now_ms, buried)
    full_ms = _full_ms(bound, rows, now_ms)
    if full_ms is not None:
        return Taken(bound, (), full_ms)
    if not rows:
        return Taken(bound, (), next_ms)
    seqs = [row.seq for row in rows]
    scoped.changed(_LEASE, seqs, lessee=lease.owner, until_ms=lease.until_ms)
    if next_ms is None or next_ms > lease.until_ms:
        next_ms = lease.until_ms
    return Taken(bound, tuple(_message(row) for row in rows), next_ms)


def settle(scoped: Scoped, owner: str, settlement: Settlement, now_ms: int) -> int:
    """Write down what became of leased messages; how many of them were still leased so."""
    held = 0
    for generation, seqs in _by_generation(settlement.acked).items():
        held += scoped.changed(_ACK, seqs, lessee=owner, lease=generation)
    for again in settlement.again:
        held += scoped.change_at(
            queue_jobs,
            (again.message.seq,),
            *_held(owner, again.message.generation),
            owner=None,
            due_ms=again.due_ms,
            failures=_J.failures + 1,
            error=again.error,
        )
    for dead in settlement.dead:
        held += scoped.change_at(
            queue_jobs,
            (dead.message.seq,),
            *_held(owner, dead.message.generation),
            owner=None,
            dead_ms=now_ms,
            failures=_J.failures + 1,
            reason=dead.reason,
            error=dead.error,
        )
    return held


def give_back(scoped: Scoped, owner: str, messages: Sequence[Message], *, begun: bool) -> int:
    """They are due again, where they were in the line; how many were still leased so.

    Args:
        begun: they may have reached the function, which counts as an attempt.
    """
    held = 0
    for message in messages:
        held += scoped.change_at(
            queue_jobs,
            (message.seq,),
            *_held(owner, message.generation),
            owner=None,
            due_ms=message.due_ms,
            attempts=message.attempts - (0 if begun else 1),
        )
    return held


# --- helpers ---


def _held(owner: str, generation: int) -> tuple[Any, ...]:
    return (_J.owner == owner, _J.generation == generation, _LIVE)


def _by_generation(messages: Iterable[Message]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for message in messages:
        found[message.generation].append(message.seq)
    return found


def _full_ms(bound: Binding, rows: Sequence[Row[Any]], now_ms: int) -> int | None:
    """When a batch that is not full yet goes as it is; None for now."""
    wait_ms = bound.settings.batch_wait_ms
    if not wait_ms or not rows or len(rows) == bound.settings.batch_size:
        return None
    until_ms: int = rows[0].due_ms + wait_ms
    return until_ms if until_ms > now_ms else None


def _next_ms(scoped: Scoped, queue: str) -> int | None:
    query = scoped.query(queue_jobs, _J.due_ms).where(_J.queue == queue, _LIVE)
    first: int | None = scoped.value(query.order_by(_J.due_ms, _J.seq))
    return first


def _cut_off(row: Row[Any]) -> bool:
    """Deliveries of it ended without an outcome too often: it may be what ends us."""
    return bool(row.attempts - row.failures > limits.QUEUE_CUT_OFF.value)


def _unbound(scoped: Scoped, queue: str, now_ms: int) -> Taken:
    buried = _give_up(scoped, queue, now_ms, ())
    next_ms = _next_ms(scoped, queue)
    return Taken(None, (), None if next_ms is None else next_ms + _KEPT_MS, buried)


def _give_up(scoped: Scoped, queue: str, now_ms: int, cut_off: Sequence[Row[Any]]) -> int:
    """How many are dead letters by now; the last error of each stays."""
    buried = _bury(scoped, queue, now_ms, before_ms=now_ms - _KEPT_MS, reason="expired")
    if cut_off:
        seqs = [row.seq for row in cut_off]
        buried += _kill(scoped, now_ms, "interrupted", seqs)
    return buried


def _bury(scoped: Scoped, queue: str, now_ms: int, *, before_ms: int, reason: Reason) -> int:
    due = scoped.query(queue_jobs, _J.seq).where(_J.queue == queue, _LIVE, _J.due_ms <= before_ms)
    few = due.order_by(_J.due_ms, _J.seq).limit(limits.QUEUE_MOVED.value)
    return _kill(scoped, now_ms, reason, few)


def _kill(scoped: Scoped, now_ms: int, reason: Reason, at: At) -> int:
    return scoped.change_at(queue_jobs, at, _LIVE, dead_ms=now_ms, owner=None, reason=reason)


def _message(row: Row[Any]) -> Message:
    return Message(
        seq=row.seq,
        id=row.id,
        payload=row.payload,
        created_ms=row.created_ms,
        due_ms=row.due_ms,
        attempts=row.attempts + 1,
        failures=row.failures,
        generation=row.generation + 1,
    )

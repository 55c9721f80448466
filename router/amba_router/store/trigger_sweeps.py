"""Statements of the trigger layer over all projects at once: starts, sweeps, metrics.

Nothing that a project asks for comes here: see `scoped`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from heapq import nlargest
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Update,
    and_,
    case,
    delete,
    func,
    select,
    update,
)

from amba_router.store.queue_records import Depth
from amba_router.store.schedule_rows import INTERRUPTED, NOBODY, Schedule, schedule
from amba_router.store.trigger_schema import (
    queue_bindings,
    queue_jobs,
    queue_keys,
    schedule_slots,
    schedules,
)
from amba_runtime import limits

_J = queue_jobs.c
_K = queue_keys.c
_B = queue_bindings.c

# --- queues ---


def void_leases(c: Connection, owner: str, now_ms: int) -> int:
    """Messages that another process had leased are due now; how many there were.

    For the only process on a state directory, at its start: the others are dead.
    """
    return _void(c, now_ms, _J.owner.is_not(None), _J.owner != owner)


def leave_leases(c: Connection, owner: str, now_ms: int) -> int:
    """Messages that this process has leased are due now: it ends. How many there were."""
    return _void(c, now_ms, _J.owner == owner)


def _void(c: Connection, now_ms: int, *where: ColumnElement[bool]) -> int:
    due_ms = case((_J.due_ms < now_ms, _J.due_ms), else_=now_ms)
    statement = update(queue_jobs).where(_J.dead_ms.is_(None), *where)
    return _ran(c, statement.values(owner=None, due_ms=due_ms))


def live_queues(c: Connection) -> list[tuple[str, str, int]]:
    """(project, queue, when its first message is due) of every queue that has live ones."""
    query = (
        select(_J.project_id, _J.queue, func.min(_J.due_ms))
        .where(_J.dead_ms.is_(None))
        .group_by(_J.project_id, _J.queue)
    )
    return [(row[0], row[1], row[2]) for row in c.execute(query)]


def resumed_queues(c: Connection) -> list[tuple[str, str]]:
    """(project, queue) of active queues that have messages put aside: a resume was cut off."""
    active = and_(_B.project_id == _J.project_id, _B.queue == _J.queue, _B.status == "active")
    query = (
        select(_J.project_id, _J.queue)
        .join(queue_bindings, active)
        .where(_J.dead_ms.is_not(None), _J.reason == "paused")
        .distinct()
    )
    return [(row[0], row[1]) for row in c.execute(query)]


def drop_old(c: Connection, *, dead_before_ms: int, keys_before_ms: int, most: int) -> int:
    """Without dead letters and idempotency keys of before that; at most so many of each.

    Returns:
        the larger of the two numbers: where it is `most`, there may be more.
    """
    old = select(_J.seq).where(_J.dead_ms.is_not(None), _J.dead_ms <= dead_before_ms).limit(most)
    dead = _ran(c, delete(queue_jobs).where(_J.seq.in_(old)))
    old_keys = select(_K.created_ms).where(_K.created_ms <= keys_before_ms)
    last = c.scalar(old_keys.order_by(_K.created_ms).offset(most - 1).limit(1))
    before_ms = keys_before_ms if last is None else last
    keys = _ran(c, delete(queue_keys).where(_K.created_ms <= before_ms))
    return max(dead, keys)


def depths(c: Connection, now_ms: int, *, most: int) -> list[Depth]:
    """The queues with the most messages, by state. By index alone: no message is read."""
    key = (_J.project_id, _J.queue)
    due = func.sum(case((_J.due_ms <= now_ms, 1), else_=0))
    live = select(*key, func.count(), due, func.min(_J.due_ms)).where(_J.dead_ms.is_(None))
    dead = select(*key, func.count()).where(_J.dead_ms.is_not(None))
    lives = {(r[0], r[1]): (r[2], r[3], r[4]) for r in c.execute(live.group_by(*key))}
    deads = {(r[0], r[1]): int(r[2]) for r in c.execute(dead.group_by(*key))}
    held = leased(c, now_ms)
    found = [
        depth(at, lives.get(at), deads.get(at, 0), held[at], now_ms) for at in {**lives, **deads}
    ]
    return nlargest(most, found, key=lambda d: d.waiting + d.delayed + d.leased + d.dead)


def leased(c: Connection, now_ms: int, project_id: str | None = None) -> Counter[tuple[str, str]]:
    """Messages under way by project and queue. Args: project_id: of this one alone."""
    # expressions have no index: what is left is that of owners, which few messages have
    query = select(_J.project_id, _J.queue).where(
        _J.owner.is_not(None), func.coalesce(_J.dead_ms, 0) == 0, _J.due_ms > now_ms
    )
    if project_id is not None:
        query = query.where(func.coalesce(_J.project_id, "") == project_id)
    return Counter((row[0], row[1]) for row in c.execute(query))


def depth(
    key: tuple[str, str], live: tuple[int, int, int] | None, dead: int, held: int, now_ms: int
) -> Depth:
    """Of one queue. Args: live: how many, how many of them are due, when the first is."""
    count, due, first_ms = live or (0, 0, now_ms + 1)
    return Depth(
        *key,
        waiting=due,
        delayed=count - due - held,
        leased=held,
        dead=dead,
        oldest_ms=first_ms if first_ms <= now_ms else None,
    )


def _ran(c: Connection, statement: Update | Delete | Any) -> int:
    return int(c.execute(statement).rowcount)


# --- schedules ---


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A slot that was under way when its owner ended. Attributes: again: it may fire once more."""

    project_id: str
    schedule_id: str
    slot_ms: int
    again: bool


def schedule_stamp(c: Connection) -> tuple[int, int, int]:
    """Something that is another one after every change of a schedule, of whatever project."""
    table = schedules
    row = c.execute(
        select(
            func.count(),
            func.coalesce(func.max(table.c.seq), 0),
            func.coalesce(func.sum(table.c.updated_ms), 0),
        ).select_from(table)
    ).one()
    return int(row[0]), int(row[1]), int(row[2])


def schedule_all(c: Connection) -> list[tuple[str, Schedule]]:
    """Every schedule with its project's id, in order of making."""
    rows = c.execute(select(schedules).order_by(schedules.c.seq))
    return [(row.project_id, schedule(row)) for row in rows]


def schedule_newest(c: Connection) -> dict[tuple[str, str], int]:
    """(Project id, schedule id) -> the newest slot that has a row."""
    table = schedule_slots
    rows = c.execute(
        select(table.c.project_id, table.c.schedule_id, func.max(table.c.slot_ms)).group_by(
            table.c.project_id, table.c.schedule_id
        )
    )
    return {(row[0], row[1]): int(row[2]) for row in rows}


def schedule_interrupt(c: Connection, owner: str, *, alone: bool, now_ms: int) -> list[Interrupted]:
    """End the slots whose owners are no more.

    Args:
        owner: whoever asks, and may have begun some since its start.
        alone: nobody else has this database: all that are under way are theirs. Otherwise those
            that began so long ago that nobody can be at them.
    """
    table = schedule_slots
    where: list[ColumnElement[bool]] = [table.c.ended_ms.is_(None), table.c.owner != owner]
    if not alone:
        where.append(table.c.began_ms < now_ms - limits.SCHEDULE_STALE_MS.value)
    rows = c.execute(
        select(table, schedules.c.missed)
        .join(
            schedules,
            and_(
                schedules.c.project_id == table.c.project_id,
                schedules.c.id == table.c.schedule_id,
            ),
        )
        .where(*where)
    ).all()
    found = [
        Interrupted(
            row.project_id,
            row.schedule_id,
            row.slot_ms,
            # one that has the word and an owner was fired once more
            again=row.missed == "run_once" and (row.outcome is None or row.owner == NOBODY),
        )
        for row in rows
    ]
    said = {"outcome": INTERRUPTED, "error": "the server ended while it ran"}
    # those wait for `claim_again`, over any number of crashes; they end as those of others do
    for one in found:
        if one.again:
            its = (
                table.c.project_id == one.project_id,
                table.c.schedule_id == one.schedule_id,
                table.c.slot_ms == one.slot_ms,
            )
            c.execute(update(table).where(*its).values(owner=NOBODY, **said))
    waits = and_(
        table.c.owner == NOBODY,
        table.c.schedule_id.in_(select(schedules.c.id).where(schedules.c.missed == "run_once")),
    )
    c.execute(update(table).where(*where, ~waits).values(ended_ms=now_ms, **said))
    return found

"""Statements about the triggers of all projects at once: starts and sweeps, for no service."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from amba_router.store.schedule_rows import INTERRUPTED, Schedule, schedule
from amba_router.store.trigger_schema import schedule_slots, schedules
from amba_runtime import limits


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


def schedule_interrupt(c: Connection, *, alone: bool, now_ms: int) -> list[Interrupted]:
    """End the slots whose owners are no more.

    Args:
        alone: nobody else has this database: all that are under way are theirs. Otherwise those
            that began so long ago that nobody can be at them.
    """
    table = schedule_slots
    where: list[ColumnElement[bool]] = [table.c.ended_ms.is_(None)]
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
    c.execute(
        update(table)
        .where(*where)
        .values(ended_ms=now_ms, outcome=INTERRUPTED, error="the server ended while it ran")
    )
    return [
        Interrupted(
            row.project_id,
            row.schedule_id,
            row.slot_ms,
            # one that had the word already was fired once more
            again=row.outcome is None and row.missed == "run_once",
        )
        for row in rows
    ]

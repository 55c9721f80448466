"""Schedules of one project and the slots that they fired: their statements. Source: contract D.6.

A row of `schedule_slots` is the right to fire that slot. A slot is added once; one that may be
among those that are no longer kept is not added again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from sqlalchemy import Row

from amba_router.store.scoped import Scoped
from amba_router.store.trigger_schema import schedule_slots, schedules
from amba_runtime import limits

SKIPPED = "skipped"
INTERRUPTED = "interrupted"
"""Outcomes of slots besides those of invocations. On a row that has not ended the second one says
that the slot is fired once more."""
NOBODY = ""
"""Owner of a slot that is to be fired once more, which nobody has begun."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule.

    Attributes:
        missed: `skip` or `run_once`.
        source: `api`, `deploy` or `file`.
    """

    id: str
    function: str
    cron: str
    timezone: str
    missed: str
    source: str
    created_ms: int
    updated_ms: int


@dataclass(frozen=True, slots=True)
class SlotRow:
    """One slot that fired, was skipped, or is under way (`ended_ms` is None)."""

    slot_ms: int
    owner: str
    began_ms: int
    ended_ms: int | None
    outcome: str | None
    error: str | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A schedule as it is to be. Attributes: missed: None leaves one that is there as it is."""

    function: str
    cron: str
    timezone: str
    missed: str | None


class Claim(Enum):
    """What became of a wish to fire a slot."""

    OURS = "ours"
    TAKEN = "taken"  # somebody else fires it, or did
    GONE = "gone"  # the schedule is no more
    SKIPPED = "skipped"  # the slot before still runs; this one has its row now
    SKIPPED_ALREADY = "skipped already"


# --- schedules ---


def put(scope: Scoped, wanted: Wanted, *, id_: str, source: str, now_ms: int) -> Schedule:
    """A new one, or the one of this function, expression and zone with other settings.

    One that is as it is to be stays untouched. Args: id_: of a new one.
    """
    at = (
        schedules.c.function == wanted.function,
        schedules.c.cron == wanted.cron,
        schedules.c.timezone == wanted.timezone,
    )
    row = scope.row(scope.query(schedules).where(*at))
    if row is None:
        new = Schedule(
            id_,
            wanted.function,
            wanted.cron,
            wanted.timezone,
            wanted.missed or "skip",
            source,
            now_ms,
            now_ms,
        )
        scope.add(schedules, asdict(new))
        return new
    missed = wanted.missed or row.missed
    if (missed, source) != (row.missed, row.source):
        scope.change(schedules, *at, missed=missed, source=source, updated_ms=now_ms)
        row = scope.row(scope.query(schedules).where(*at))
        assert row is not None, "it was there in this transaction"
    return schedule(row)


def find(scope: Scoped, id_: str) -> Schedule | None:
    """One of them."""
    row = scope.row(scope.query(schedules).where(schedules.c.id == id_))
    return None if row is None else schedule(row)


def of_function(scope: Scoped, function: str) -> list[Schedule]:
    """All of a function, the oldest first."""
    mine = scope.query(schedules).where(schedules.c.function == function)
    return [schedule(row) for row in scope.rows(mine.order_by(schedules.c.seq))]


def of_source(scope: Scoped, source: str) -> list[Schedule]:
    """All that were declared so, the oldest first."""
    mine = scope.query(schedules).where(schedules.c.source == source)
    return [schedule(row) for row in scope.rows(mine.order_by(schedules.c.seq))]


def page(
    scope: Scoped, function: str | None, *, offset: int, limit: int
) -> tuple[list[Schedule], int]:
    """Schedules, the oldest first, and how many there are in all. Args: function: of one alone."""
    where = () if function is None else (schedules.c.function == function,)
    rows = scope.query(schedules).where(*where).order_by(schedules.c.seq)
    found = [schedule(row) for row in scope.rows(rows.offset(offset).limit(limit))]
    return found, scope.count(schedules, *where)


def over(scope: Scoped, function: str) -> str:
    """What there are too many of, in words; "" where there are not."""
    of_one, of_all = limits.SCHEDULES_OF_FUNCTION.value, limits.SCHEDULES_OF_PROJECT.value
    if scope.count(schedules, schedules.c.function == function) > of_one:
        return f"the function {function[:64]!r} would have more than {of_one} schedules"
    if scope.count(schedules) > of_all:
        return f"the project would have more than {of_all} schedules"
    return ""


def drop(scope: Scoped, ids: Collection[str]) -> int:
    """Without these schedules and their slots; how many there were."""
    dropped = 0
    for id_ in ids:
        scope.drop(schedule_slots, schedule_slots.c.schedule_id == id_)
        dropped += scope.drop(schedules, schedules.c.id == id_)
    return dropped


# --- slots ---


def claim(scope: Scoped, id_: str, slot_ms: int, *, owner: str, now_ms: int) -> Claim:
    """Ask for the right to fire a slot.

    Where the slot before is under way the new one is skipped: its row says so. Whoever has not
    ended a slot for `limits.SCHEDULE_STALE_MS` is taken for dead.
    """
    if scope.value(scope.query(schedules, schedules.c.seq).where(schedules.c.id == id_)) is None:
        return Claim.GONE
    table, kept = schedule_slots, limits.SCHEDULE_SLOTS.value
    of_it = table.c.schedule_id == id_
    columns = (table.c.slot_ms, table.c.began_ms, table.c.ended_ms, table.c.owner)
    rows = scope.rows(scope.query(table, *columns).where(of_it).order_by(table.c.slot_ms.desc()))
    past = [row.slot_ms for row in rows if row.slot_ms <= max(now_ms, slot_ms)]
    if len(past) >= kept:
        edge = past[kept - 1]
        if slot_ms < edge:
            return Claim.TAKEN  # perhaps: its row may have been among those that went
        scope.drop(table, of_it, table.c.slot_ms <= edge, table.c.slot_ms != slot_ms)
    ahead_ms = now_ms + limits.SCHEDULE_AHEAD_MS.value
    if rows and rows[0].slot_ms > ahead_ms:
        # what a clock that was ahead has left for times to come does not stay for ever
        scope.drop(table, of_it, table.c.slot_ms > ahead_ms)
    stale = limits.SCHEDULE_STALE_MS.value
    if any(
        row.ended_ms is None
        and row.owner != NOBODY
        and row.slot_ms != slot_ms
        and abs(row.began_ms - now_ms) < stale
        for row in rows
    ):
        added = skip(scope, id_, slot_ms, owner=owner, now_ms=now_ms)
        return Claim.SKIPPED if added else Claim.SKIPPED_ALREADY
    row = {"schedule_id": id_, "slot_ms": slot_ms, "owner": owner, "began_ms": now_ms}
    return Claim.OURS if scope.add_missing(table, row) else Claim.TAKEN


def skip(scope: Scoped, id_: str, slot_ms: int, *, owner: str, now_ms: int) -> bool:
    """A row that says that this slot did not fire; whether it was added."""
    row = {
        "schedule_id": id_,
        "slot_ms": slot_ms,
        "owner": owner,
        "began_ms": now_ms,
        "ended_ms": now_ms,
        "outcome": SKIPPED,
        "error": "the run before had not ended",
    }
    return scope.add_missing(schedule_slots, row)


def claim_again(scope: Scoped, id_: str, slot_ms: int, *, owner: str, now_ms: int) -> bool:
    """The right to fire an interrupted slot once more; whether it is ours."""
    changed = scope.change(
        schedule_slots,
        schedule_slots.c.schedule_id == id_,
        schedule_slots.c.slot_ms == slot_ms,
        schedule_slots.c.outcome == INTERRUPTED,
        schedule_slots.c.ended_ms.is_(None),
        schedule_slots.c.owner == NOBODY,
        owner=owner,
        began_ms=now_ms,
    )
    return changed == 1


def end(
    scope: Scoped,
    id_: str,
    slot_ms: int,
    *,
    owner: str,
    now_ms: int,
    outcome: str,
    error: str,
    request_id: str | None,
) -> bool:
    """How a slot of ours ended; False when it is not ours, or its schedule is gone."""
    changed = scope.change(
        schedule_slots,
        schedule_slots.c.schedule_id == id_,
        schedule_slots.c.slot_ms == slot_ms,
        schedule_slots.c.owner == owner,
        schedule_slots.c.ended_ms.is_(None),
        ended_ms=now_ms,
        outcome=outcome,
        error=error[: limits.SCHEDULE_ERROR.value] or None,
        request_id=request_id,
    )
    return changed == 1


def last_slots(scope: Scoped, ids: Iterable[str], count: int) -> dict[str, list[SlotRow]]:
    """The newest slots of each of these schedules, the newest first."""
    table = schedule_slots
    found: dict[str, list[SlotRow]] = {}
    for id_ in ids:
        newest = scope.query(table).where(table.c.schedule_id == id_)
        rows = scope.rows(newest.order_by(table.c.slot_ms.desc()).limit(count))
        found[id_] = [_slot(row) for row in rows]
    return found


def replace(
    scope: Scoped,
    functions: Sequence[str] | None,
    source: str,
    wanted: Sequence[Wanted],
    *,
    ids: Sequence[str],
    now_ms: int,
) -> tuple[list[Schedule], list[str]]:
    """What was declared so is exactly `wanted` from here on.

    Args:
        functions: whose declarations these are; None is the whole project's.
        ids: for those that are new, as many as `wanted`.

    Returns:
        What is there now of `wanted`, and the ids of those that went.
    """
    found = of_source(scope, source)
    kept = [
        put(scope, one, id_=id_, source=source, now_ms=now_ms)
        for one, id_ in zip(wanted, ids, strict=True)
    ]
    staying = {one.id for one in kept}
    gone = [
        one.id
        for one in found
        if one.id not in staying and (functions is None or one.function in functions)
    ]
    drop(scope, gone)
    return kept, gone


def schedule(row: Row[Any]) -> Schedule:
    """A row as a record."""
    return Schedule(
        row.id,
        row.function,
        row.cron,
        row.timezone,
        row.missed,
        row.source,
        row.created_ms,
        row.updated_ms,
    )


def _slot(row: Row[Any]) -> SlotRow:
    return SlotRow(
        row.slot_ms,
        row.owner,
        row.began_ms,
        row.ended_ms,
        row.outcome,
        row.error,
        row.request_id,
    )

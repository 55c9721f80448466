"""Events and audit events of one project: their statements. Source: contract E.6."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Integer, Row, and_, cast, func, or_

from amba_router.store.page_bytes import fitting, octets
from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import audit_events, events
from amba_runtime import limits
from amba_runtime.clock import DAY_MS


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event; `properties` are JSON, `event_id` is the caller's."""

    id: str
    user_id: str | None
    name: str
    properties: str
    occurred_ms: int
    received_ms: int
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One audit event; `properties` are JSON."""

    id: str
    developer_id: str
    user_id: str | None
    name: str
    properties: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events.

    Attributes:
        since_ms: from then on. until_ms: before then; None has no end.
        before: (occurred_ms, id) of the last one that was seen.
    """

    since_ms: int
    until_ms: int | None = None
    name: str | None = None
    user_id: str | None = None
    before: tuple[int, str] | None = None


def add(scope: Scoped, records: Sequence[EventRecord]) -> None:
    """New ones, without an `event_id` that is there."""
    scope.add(events, [asdict(record) for record in records])


def by_event_id(scope: Scoped, event_id: str) -> EventRecord | None:
    """The one that the caller calls so."""
    row = scope.row(scope.query(events).where(events.c.event_id == event_id))
    return None if row is None else _event(row)


def count_all(scope: Scoped) -> int:
    """How many events the project has."""
    return scope.count(events)


def forget(scope: Scoped, count: int) -> None:
    """So many go: those that happened first."""
    first = scope.query(events, events.c.seq).order_by(events.c.occurred_ms, events.c.id)
    scope.drop(events, at=first.limit(count))


def page(scope: Scoped, wanted: Wanted, limit: int) -> tuple[list[EventRecord], bool]:
    """So many at most, the newest first, and whether there are more.

    Ends early after EVENTS_PAGE bytes of properties; one event is always given.
    """
    where = _where(wanted)
    if wanted.before is not None:
        at, id_ = wanted.before
        same = and_(events.c.occurred_ms == at, events.c.id < id_)
        where.append(or_(events.c.occurred_ms < at, same))
    newest = (events.c.occurred_ms.desc(), events.c.id.desc())
    sizes = scope.query(events, events.c.seq, octets(events.c.properties).label("size"))
    found = scope.rows(sizes.where(*where).order_by(*newest).limit(limit + 1))
    fits = fitting((row.size for row in found[:limit]), limits.EVENTS_PAGE.value)
    mine = [row.seq for row in found[:fits]]
    rows = scope.rows(scope.query(events, at=mine).order_by(*newest))
    return [_event(row) for row in rows], len(found) > fits


def count(scope: Scoped, wanted: Wanted) -> int:
    """How many there are."""
    return scope.count(events, *_where(wanted))


def count_by_day(scope: Scoped, wanted: Wanted) -> list[tuple[int, int]]:
    """(days since 1970 in UTC, events), days without any left out, the first first."""
    day = cast(events.c.occurred_ms, Integer) // DAY_MS
    query = scope.query(events, day.label("day"), func.count().label("found"))
    rows = scope.rows(query.where(*_where(wanted)).group_by("day").order_by("day"))
    return [(row.day, row.found) for row in rows]


def count_by_name(scope: Scoped, wanted: Wanted, limit: int) -> list[tuple[str, int]]:
    """(name, events), the most frequent first, so many at most."""
    name, found = events.c.name, func.count().label("found")
    query = scope.query(events, name, found).where(*_where(wanted)).group_by(name)
    rows = scope.rows(query.order_by(found.desc(), name).limit(limit))
    return [(row.name, row.found) for row in rows]


def add_audit(scope: Scoped, record: AuditRecord) -> None:
    """A new one; there is no way to change or drop it."""
    scope.add(audit_events, asdict(record))


def count_audit(scope: Scoped) -> int:
    """How many there are."""
    return scope.count(audit_events)


def _where(wanted: Wanted) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = [events.c.occurred_ms >= wanted.since_ms]
    if wanted.until_ms is not None:
        where.append(events.c.occurred_ms < wanted.until_ms)
    if wanted.name is not None:
        where.append(events.c.name == wanted.name)
    if wanted.user_id is not None:
        where.append(events.c.user_id == wanted.user_id)
    return where


def _event(row: Row[Any]) -> EventRecord:
    return EventRecord(
        row.id,
        row.user_id,
        row.name,
        row.properties,
        row.occurred_ms,
        row.received_ms,
        row.event_id,
    )

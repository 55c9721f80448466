"""Segments of users: their rules, who was in them at the last evaluation, and those of the system.

Members of a project's own segments are stored; those of system segments follow from a user's two
times at any moment. Source: contract E.13; what each system segment means is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, false, func, true

from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import app_users, segment_members, segments

DAY_MS = 86_400_000
SYSTEM = ("all", "active_7d", "churning", "premium", "free", "new_users")
"""Ids of the segments that every project has. Source: contract E.13 (SH)."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One that a project made.

    Attributes:
        rules: as they were sent, JSON text.
        evaluated_ms: None until the first evaluation has come to its end.
    """

    id: str
    name: str
    description: str | None
    rules: str
    created_ms: int
    updated_ms: int
    evaluated_ms: int | None


@dataclass(frozen=True, slots=True)
class Difference:
    """What an evaluation of some users found: who comes in, who goes."""

    added: tuple[str, ...]
    removed: tuple[str, ...]


def segments_of(scoped: Scoped, user_id: str, now_ms: int) -> tuple[str, ...]:
    """The ids of the segments a user is in, sorted; none for a user the project does not have.

    A project's own as of their last evaluation, the system's as of `now_ms`.
    """
    times = scoped.query(app_users, app_users.c.first_seen_ms, app_users.c.last_seen_ms)
    user = scoped.row(times.where(app_users.c.id == user_id))
    if user is None:
        return ()
    system = _system_of(user.first_seen_ms, user.last_seen_ms, now_ms)
    stored = scoped.query(segment_members, segment_members.c.segment_id)
    rows = scoped.rows(stored.where(segment_members.c.user_id == user_id))
    return tuple(sorted((*system, *(row.segment_id for row in rows))))


def known(scoped: Scoped, segment_id: str) -> bool:
    """Whether there is such a segment: the system's or this project's."""
    return segment_id in SYSTEM or get(scoped, segment_id) is not None


def _system_of(first_seen_ms: int, last_seen_ms: int, now_ms: int) -> tuple[str, ...]:
    """The same in Python as `members_where` in SQL."""
    week, month = now_ms - 7 * DAY_MS, now_ms - 30 * DAY_MS
    is_in = {
        "all": True,
        "active_7d": last_seen_ms >= week,
        "churning": month <= last_seen_ms < week,
        "premium": False,  # entitlements are not emulated: nobody has one
        "free": True,
        "new_users": first_seen_ms >= week,
    }
    return tuple(name for name in SYSTEM if is_in[name])


def members_where(scoped: Scoped, segment_id: str, now_ms: int) -> ColumnElement[bool]:
    """The condition on `app_users` of being in a segment that is `known`."""
    users = app_users.c
    week, month = now_ms - 7 * DAY_MS, now_ms - 30 * DAY_MS
    system: Mapping[str, ColumnElement[bool]] = {
        "all": true(),
        "active_7d": users.last_seen_ms >= week,
        "churning": and_(users.last_seen_ms >= month, users.last_seen_ms < week),
        "premium": false(),
        "free": true(),
        "new_users": users.first_seen_ms >= week,
    }
    if segment_id in system:
        return system[segment_id]
    members = scoped.query(segment_members, segment_members.c.user_id)
    return users.id.in_(members.where(segment_members.c.segment_id == segment_id))


def members(
    scoped: Scoped, segment_id: str, now_ms: int, *, after: int = 0, limit: int
) -> list[tuple[int, str]]:
    """(seq, user id) of a segment's users in the order of their `seq`, those after one."""
    query = scoped.query(app_users, app_users.c.seq, app_users.c.id).where(
        app_users.c.seq > after, members_where(scoped, segment_id, now_ms)
    )
    rows = scoped.rows(query.order_by(app_users.c.seq).limit(limit))
    return [(row.seq, row.id) for row in rows]


def member_count(scoped: Scoped, segment_id: str, now_ms: int) -> int:
    """How many users are in it."""
    return scoped.count(app_users, members_where(scoped, segment_id, now_ms))


def add(scoped: Scoped, segment: Segment) -> None:
    """A new one."""
    scoped.add(
        segments,
        {
            "id": segment.id,
            "name": segment.name,
            "description": segment.description,
            "rules": segment.rules,
            "created_ms": segment.created_ms,
            "updated_ms": segment.updated_ms,
            "evaluated_ms": segment.evaluated_ms,
        },
    )


def get(scoped: Scoped, segment_id: str) -> Segment | None:
    """One of the project's own."""
    row = scoped.row(scoped.query(segments).where(segments.c.id == segment_id))
    return None if row is None else _segment(row)


def own(scoped: Scoped) -> list[Segment]:
    """The project's own, oldest first."""
    return [_segment(row) for row in scoped.rows(scoped.query(segments).order_by(segments.c.seq))]


def count(scoped: Scoped) -> int:
    """How many the project has made."""
    return scoped.count(segments)


def change(scoped: Scoped, segment_id: str, values: Mapping[str, Any]) -> bool:
    """Other values for some columns; whether there is such a segment."""
    return scoped.change(segments, segments.c.id == segment_id, **values) == 1


def drop(scoped: Scoped, segment_id: str) -> bool:
    """Without it and its members; whether there was one."""
    if scoped.drop(segments, segments.c.id == segment_id) == 0:
        return False
    scoped.drop(segment_members, segment_members.c.segment_id == segment_id)
    return True


def difference(scoped: Scoped, segment_id: str, users: Mapping[str, bool]) -> Difference:
    """How the stored members differ from what the rules say.

    Args:
        users: id -> whether the rules hold; at most a batch.
    """
    column = segment_members.c
    query = scoped.query(segment_members, column.user_id).where(
        column.segment_id == segment_id, column.user_id.in_(users)
    )
    stored = {row.user_id for row in scoped.rows(query)}
    return Difference(
        tuple(id_ for id_, holds in users.items() if holds and id_ not in stored),
        tuple(id_ for id_, holds in users.items() if not holds and id_ in stored),
    )


def apply(scoped: Scoped, segment_id: str, found: Difference) -> None:
    """Let the stored members be as an evaluation found them."""
    for user_id in found.added:
        scoped.add_missing(segment_members, {"segment_id": segment_id, "user_id": user_id})
    column = segment_members.c
    if found.removed:
        scoped.drop(
            segment_members, column.segment_id == segment_id, column.user_id.in_(found.removed)
        )


def stored_counts(scoped: Scoped) -> dict[str, int]:
    """Members of each of the project's own segments, as of the last evaluations."""
    column = segment_members.c
    query = scoped.query(segment_members, column.segment_id, func.count().label("members"))
    return {row.segment_id: row.members for row in scoped.rows(query.group_by(column.segment_id))}


def _segment(row: Row[Any]) -> Segment:
    return Segment(
        id=row.id,
        name=row.name,
        description=row.description,
        rules=row.rules,
        created_ms=row.created_ms,
        updated_ms=row.updated_ms,
        evaluated_ms=row.evaluated_ms,
    )

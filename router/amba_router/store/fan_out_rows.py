"""Who is in a segment and where they live; messages for them. Source: contract E.13."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amba_router.store import queue_rows
from amba_router.store.queue_records import NewJob
from amba_router.store.scoped import Scoped
from amba_router.store.segment_rows import members_where
from amba_router.store.service_schema import app_users
from amba_runtime import entropy


@dataclass(frozen=True, slots=True)
class Member:
    """A user of a segment. Attributes: timezone: as it was stored, if it was."""

    user_id: str
    timezone: str | None


def members(scoped: Scoped, segment_id: str, now_ms: int, *, limit: int) -> list[Member]:
    """Users of a segment that is `known`, those who came first being first."""
    users = app_users.c
    query = scoped.query(app_users, users.id, users.timezone)
    query = query.where(members_where(scoped, segment_id, now_ms)).order_by(users.seq)
    return [Member(row.id, row.timezone) for row in scoped.rows(query.limit(limit))]


def add(
    scoped: Scoped, queue: str, messages: Sequence[tuple[int, str]], now_ms: int, *, most: int
) -> bool:
    """New messages of a queue; False, and none, where it would have more than `most`.

    Args:
        messages: (when it is due, JSON text) of each.
    """
    if queue_rows.count(scoped, queue) + len(messages) > most:
        return False
    jobs = [NewJob(entropy.uuid4(), text, now_ms, due_ms) for due_ms, text in messages]
    queue_rows.add_jobs(scoped, queue, jobs)
    return True

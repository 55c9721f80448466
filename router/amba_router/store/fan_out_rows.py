"""Who is in a segment and where they live; messages for them. Source: contract E.13."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amba_router.store.scoped import Scoped
from amba_router.store.segment_rows import members_where
from amba_router.store.service_schema import app_users
from amba_router.store.trigger_schema import queue_jobs
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
    jobs = queue_jobs.c
    # each by its own index
    live = scoped.count(queue_jobs, jobs.queue == queue, jobs.dead_ms.is_(None))
    dead = scoped.count(queue_jobs, jobs.queue == queue, jobs.dead_ms.is_not(None))
    if live + dead + len(messages) > most:
        return False
    scoped.add(
        queue_jobs,
        [
            {
                "id": entropy.uuid4(),
                "queue": queue,
                "payload": text,
                "created_ms": now_ms,
                "due_ms": due_ms,
                "attempts": 0,
                "failures": 0,
                "generation": 0,
            }
            for due_ms, text in messages
        ],
    )
    return True

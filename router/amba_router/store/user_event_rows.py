"""What a user did, newest first: the part of the events that the list of users needs.

Source: contract E.4 (`users/:id/events`), E.6 (order and cursor).
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import tuple_

from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import events


@dataclass(frozen=True, slots=True)
class UserEvent:
    """One event. Attributes: properties: a JSON object, as text. occurred_ms: Unix ms."""

    id: str
    name: str
    properties: str
    occurred_ms: int


def page(
    scoped: Scoped,
    user_id: str,
    *,
    since_ms: int | None,
    before: tuple[int, str] | None,
    limit: int,
) -> list[UserEvent]:
    """In the order of (occurred, id), newest first.

    Args:
        since_ms: not older than this; None is from the first on.
        before: (occurred_ms, id) of the last one of the page before.
    """
    columns = events.c
    query = scoped.query(events).where(columns.user_id == user_id)
    if since_ms is not None:
        query = query.where(columns.occurred_ms >= since_ms)
    if before is not None:
        query = query.where(tuple_(columns.occurred_ms, columns.id) < before)
    ordered = query.order_by(columns.occurred_ms.desc(), columns.id.desc())
    return [
        UserEvent(row.id, row.name, row.properties, row.occurred_ms)
        for row in scoped.rows(ordered.limit(limit))
    ]

"""Who is in which segment. Stands in for the module of the users branch, with its signatures."""

from __future__ import annotations

from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import segment_members, segments


def segments_of(scoped: Scoped, user_id: str, now_ms: int) -> tuple[str, ...]:
    """The ids of the segments a user is in, sorted."""
    stored = scoped.query(segment_members, segment_members.c.segment_id)
    rows = scoped.rows(stored.where(segment_members.c.user_id == user_id))
    return tuple(sorted(row.segment_id for row in rows))


def known(scoped: Scoped, segment_id: str) -> bool:
    """Whether this project has such a segment."""
    return scoped.count(segments, segments.c.id == segment_id) == 1

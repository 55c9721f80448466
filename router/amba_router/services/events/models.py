"""The bodies of the events service, both ways. Source: contract E.6."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from amba_router.api.models import Count, Iso
from amba_runtime import limits

_PLAIN = r"^[^\x00-\x1f\x7f]*(?![\s\S])"
"""No control characters, nor a line's end at its end (which `$` would let pass)."""

Name = Annotated[str, Meta(min_length=1, max_length=limits.EVENT_NAME.value, pattern=_PLAIN)]
EventId = Annotated[str, Meta(min_length=1, max_length=limits.EVENT_ID.value, pattern=_PLAIN)]
UserId = Annotated[str, Meta(max_length=200)]
When = Annotated[
    str | int | None,
    Meta(description="ISO 8601 or Unix milliseconds; what lies ahead counts as now"),
]
Properties = dict[str, Any] | None
Stored = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
"""As they are kept: they leave as they came."""


class TrackedEvent(Struct, kw_only=True):
    """One event as clients send it; `timestamp` and `occurred_at` are the same."""

    event: Name
    properties: Properties = None
    timestamp: When = None
    occurred_at: When = None
    user_id: UserId | None = None


class TrackEvents(Struct, kw_only=True):
    """One event, or `events`."""

    event: Name | UnsetType = UNSET
    properties: Properties = None
    timestamp: When = None
    occurred_at: When = None
    user_id: UserId | None = None
    events: list[TrackedEvent] | UnsetType = UNSET


class Tracked(Struct):
    tracked: Count


class TrackedAnswer(Struct):
    data: Tracked


class RecordEvent(Struct, kw_only=True):
    """One event as a backend sends it; the same `event_id` is recorded once."""

    event: Name
    user_id: Annotated[str, Meta(min_length=1, max_length=200)]
    properties: Properties = None
    occurred_at: When = None
    event_id: EventId | None = None


class EventRow(Struct, kw_only=True):
    id: str
    app_user_id: str | None
    event_name: str
    properties: Stored
    occurred_at: Iso


class RecordedEvent(EventRow, kw_only=True):
    """`tracked` is 0 where this `event_id` was recorded before: the row is that one."""

    event_id: str | None
    tracked: Count


class RecordedAnswer(Struct):
    data: RecordedEvent


class EventList(Struct):
    data: list[EventRow]
    next_cursor: str | None


class Bucket(Struct):
    key: str
    count: Count


class EventCount(Struct):
    total: Count
    buckets: list[Bucket] | UnsetType = UNSET


class EventCountAnswer(Struct):
    data: EventCount


class RecordAudit(Struct, kw_only=True):
    event_name: Name
    user_id: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    properties: Properties = None


class AuditRow(Struct, kw_only=True):
    id: str
    event_name: str
    user_id: str | None
    developer_id: str
    properties: Stored
    created_at: Iso


class AuditAnswer(Struct):
    data: AuditRow

"""Events over HTTP: clients track them, backends record, list and count. Source: contract E.6."""

from __future__ import annotations

import re

import msgspec
from msgspec import UNSET

from amba_router.api import event_cursor, faults
from amba_router.api.asked import iso_ms, number, parse_ms, project_of
from amba_router.api.callers import Kind
from amba_router.api.faults import Fault
from amba_router.api.operations import Answer, Asked, Auth, Operation, Query, Reads
from amba_router.services.events.models import (
    AuditAnswer,
    AuditRow,
    Bucket,
    EventCount,
    EventCountAnswer,
    EventList,
    EventRow,
    RecordAudit,
    RecordedAnswer,
    RecordedEvent,
    RecordEvent,
    Tracked,
    TrackedAnswer,
    TrackedEvent,
    TrackEvents,
)
from amba_router.services.events.service import EventsService, Group, NewEvent
from amba_router.store.event_rows import EventRecord, Wanted
from amba_runtime import limits
from amba_runtime.clock import DAY_MS, Clock, time_ms

_ADMIN = "/admin/projects/{project_id}"
_TIME = {"type": "string", "description": "ISO 8601, or Unix milliseconds"}
_UNTIL = Query("until", _TIME, "before then; without it there is no end")
_NAME = Query("event_name", {"type": "string"}, "of this name alone")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def operations(service: EventsService, clock: Clock) -> tuple[Operation, ...]:
    """Their part of the table."""
    events = _Events(service, clock)
    return (
        Operation(
            "trackEvents",
            "POST",
            "/client/events",
            Auth.TELLING,
            "Track one event, or up to 500; those of a session are its user's.",
            events.track,
            {200: TrackedAnswer},
            (faults.BATCH_TOO_LARGE, *faults.WRITES),
            reads=Reads.JSON,
            request=TrackEvents,
        ),
        Operation(
            "recordEvent",
            "POST",
            f"{_ADMIN}/events",
            Auth.PROJECT,
            "Record one event of a user; the same event_id is recorded once.",
            events.record,
            {200: RecordedAnswer, 201: RecordedAnswer},
            (faults.USER_NOT_FOUND, *faults.WRITES),
            reads=Reads.JSON,
            request=RecordEvent,
        ),
        Operation(
            "listEvents",
            "GET",
            f"{_ADMIN}/events",
            Auth.PROJECT,
            "Events, the newest first.",
            events.list,
            {200: EventList},
            (
                *(faults.INVALID_SINCE, faults.INVALID_UNTIL, faults.INVALID_LIMIT),
                *(faults.INVALID_CURSOR, faults.INVALID_FILTER),
            ),
            query=(
                Query("since", _TIME, "from then on; without it the last 24 hours"),
                _UNTIL,
                _NAME,
                Query("user_id", {"type": "string"}, "of this user alone"),
                Query(
                    "limit",
                    {
                        "type": "integer",
                        "minimum": 1,
                        "maximum": limits.LIST_ROWS.value,
                        "default": limits.EVENTS_DEFAULT.value,
                    },
                    "events to give",
                ),
                Query("cursor", {"type": "string"}, "next_cursor of the page before"),
            ),
        ),
        Operation(
            "countEvents",
            "GET",
            f"{_ADMIN}/events/count",
            Auth.PROJECT,
            "How many events, in 90 days at most; by day (UTC) or by name.",
            events.count,
            {200: EventCountAnswer},
            (faults.INVALID_SINCE, faults.INVALID_UNTIL, faults.INVALID_FILTER),
            query=(
                Query("since", _TIME, "from then on", required=True),
                Query("until", _TIME, "before then; without it until now"),
                _NAME,
                Query("group_by", {"enum": ["day", "event_name"]}, "in buckets"),
            ),
        ),
        Operation(
            "recordAuditEvent",
            "POST",
            f"{_ADMIN}/audit-events",
            Auth.PROJECT,
            "Record what a developer did, at the server's time, for good.",
            events.audit,
            {201: AuditAnswer},
            (faults.USER_NOT_FOUND, *faults.WRITES),
            reads=Reads.JSON,
            request=RecordAudit,
        ),
    )


class _Events:
    def __init__(self, service: EventsService, clock: Clock) -> None:
        self._service = service
        self._clock = clock

    async def track(self, asked: Asked) -> Answer:
        body: TrackEvents = asked.body
        single = body.event is not UNSET
        if single == (body.events is not UNSET):
            raise faults.INVALID_INPUT.refuse(
                "send either one event or a list of events", {"field": "$.events"}
            )
        many: list[TrackEvents | TrackedEvent] = [body] if single else list(body.events or ())
        most = limits.EVENTS_BATCH.value
        if len(many) > most:
            raise faults.BATCH_TOO_LARGE.refuse(
                f"{len(many)} events are more than {most}; send them in several requests",
                {"field": "$.events", "events_max": most},
            )
        # without a session the caller is a server key or a function: it says whose event it is
        new = [
            NewEvent(
                name=str(event.event),
                user_id=asked.user_id or event.user_id or None,
                properties=event.properties,
                when=event.timestamp if event.occurred_at is None else event.occurred_at,
                place="$" if single else f"$.events[{index}]",
            )
            for index, event in enumerate(many)
        ]
        tracked = await self._service.track(project_of(asked).id, new, admitted=asked.user_id)
        return Answer(200, TrackedAnswer(Tracked(tracked)))

    async def record(self, asked: Asked) -> Answer:
        body: RecordEvent = asked.body
        record, new = await self._service.record(
            project_of(asked).id,
            NewEvent(
                body.event,
                body.user_id,
                body.properties,
                body.occurred_at,
                event_id=body.event_id,
            ),
        )
        row = RecordedEvent(
            **msgspec.structs.asdict(_row(record)),
            event_id=record.event_id,
            tracked=int(new),
        )
        return Answer(201 if new else 200, RecordedAnswer(row))

    async def list(self, asked: Asked) -> Answer:
        limit = number(
            asked, "limit", limits.EVENTS_DEFAULT.value, least=1, most=limits.LIST_ROWS.value
        )
        since_ms = _time(asked, "since", faults.INVALID_SINCE)
        if since_ms is None:
            since_ms = time_ms(self._clock) - int(limits.EVENTS_SINCE_S.value * 1000)
        until_ms = _time(asked, "until", faults.INVALID_UNTIL)
        _in_order(since_ms, until_ms)
        at = asked.query.get("cursor")
        wanted = Wanted(
            since_ms,
            until_ms,
            _filter(asked, "event_name"),
            _filter(asked, "user_id"),
            None if at is None else event_cursor.decode(at, since_ms=since_ms, until_ms=until_ms),
        )
        shown, more = await self._service.page(project_of(asked).id, wanted, limit)
        last = event_cursor.encode(shown[-1].occurred_ms, shown[-1].id) if more else None
        return Answer(200, EventList([_row(record) for record in shown], last))

    async def count(self, asked: Asked) -> Answer:
        since_ms = _time(asked, "since", faults.INVALID_SINCE)
        if since_ms is None:
            raise faults.INVALID_SINCE.refuse(
                "since is needed: ISO 8601 or Unix milliseconds", {"parameter": "since"}
            )
        until_ms = _time(asked, "until", faults.INVALID_UNTIL)
        if until_ms is None:
            until_ms = max(time_ms(self._clock) + 1, since_ms)
        _in_order(since_ms, until_ms)
        days = int(limits.EVENTS_RANGE_S.value // 86_400)
        if until_ms - since_ms > days * DAY_MS + 1:
            raise faults.INVALID_SINCE.refuse(
                f"events are counted over {days} days at most; move since or until",
                {"parameter": "since", "days_max": days},
            )
        group = asked.query.get("group_by")
        if group not in (None, "day", "event_name"):
            raise faults.INVALID_FILTER.refuse(
                "group_by is day or event_name", {"parameter": "group_by"}
            )
        total, buckets = await self._service.count(
            project_of(asked).id,
            Wanted(since_ms, until_ms, _filter(asked, "event_name")),
            None if group is None else Group(group),
        )
        said = EventCount(total)
        if group is not None:
            said.buckets = [Bucket(key, found) for key, found in buckets]
        return Answer(200, EventCountAnswer(said))

    async def audit(self, asked: Asked) -> Answer:
        body: RecordAudit = asked.body
        caller = asked.caller
        if caller is None or caller.kind is not Kind.DEVELOPER:
            raise faults.PROJECT_FORBIDDEN.refuse(
                "audit events are recorded with a developer's personal access token alone"
            )
        record = await self._service.audit(
            project_of(asked).id,
            caller.developer_id,
            body.event_name,
            body.user_id,
            body.properties,
        )
        return Answer(
            201,
            AuditAnswer(
                AuditRow(
                    id=record.id,
                    event_name=record.name,
                    user_id=record.user_id,
                    developer_id=record.developer_id,
                    properties=msgspec.Raw(record.properties.encode()),
                    created_at=iso_ms(record.created_ms),
                )
            ),
        )


def _time(asked: Asked, name: str, fault: Fault) -> int | None:
    text = asked.query.get(name)
    if text is None:
        return None
    at = parse_ms(text)
    if at is None:
        raise fault.refuse(
            f"{name} must be ISO 8601 or Unix milliseconds, not {text[:64]!r}",
            {"parameter": name},
        )
    return at


def _in_order(since_ms: int, until_ms: int | None) -> None:
    if until_ms is not None and until_ms < since_ms:
        raise faults.INVALID_UNTIL.refuse("until lies before since", {"parameter": "until"})


def _filter(asked: Asked, name: str) -> str | None:
    text = asked.query.get(name)
    most = limits.EVENT_NAME.value
    if text is not None and (not 0 < len(text) <= most or _CONTROL.search(text)):
        raise faults.INVALID_FILTER.refuse(
            f"{name} has 1 to {most} characters and no control characters", {"parameter": name}
        )
    return text


def _row(record: EventRecord) -> EventRow:
    return EventRow(
        id=record.id,
        app_user_id=record.user_id,
        event_name=record.name,
        properties=msgspec.Raw(record.properties.encode()),
        occurred_at=iso_ms(record.occurred_ms),
    )

"""Events as the platform keeps them: whose they are, when they happened, how many are kept.

Source: contract E.6. Ours: a time ahead of the clock counts as now, for devices whose clocks run
fast; a time that cannot be read, or lies before 1970, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import msgspec

from amba_router.api import faults
from amba_router.api.asked import parse_ms
from amba_router.store import event_rows, user_rows
from amba_router.store.event_rows import AuditRecord, EventRecord, Wanted
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_runtime import entropy, limits
from amba_runtime.clock import DAY_MS, Clock, time_ms


class Group(Enum):
    """By what events are counted."""

    DAY = "day"
    EVENT_NAME = "event_name"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """One event that is to be recorded.

    Attributes:
        when: ISO 8601, Unix milliseconds, or None for now.
        place: of it in the body, `$.events[3]`.
        event_id: the caller's name for it, by which it is recorded once.
    """

    name: str
    user_id: str | None
    properties: dict[str, Any] | None
    when: str | int | None
    place: str = "$"
    event_id: str | None = None


class EventsService:
    """Of all projects. Each call is one transaction."""

    def __init__(self, store: ProjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        # Project id -> how many events it has: counted once, then kept by the writer's thread
        # alone. A transaction that fails may leave it too high; the next trim counts anew.
        self._counts: dict[str, int] = {}

    async def track(self, project_id: str, new: Sequence[NewEvent], *, admitted: str = "") -> int:
        """All of them or none; how many.

        Args:
            admitted: a user of whom the API knows already; "" is nobody.

        Raises:
            Refused: INVALID_INPUT with the place; USER_NOT_FOUND.
        """
        records = [self._record(event) for event in new]

        def work(scope: Scoped) -> None:
            self._users(scope, [record.user_id for record in records], admitted)
            event_rows.add(scope, records)
            self._trim(scope, len(records))

        if records:
            await self._store.write(project_id, work)
        return len(records)

    async def record(self, project_id: str, new: NewEvent) -> tuple[EventRecord, bool]:
        """The event, and whether it is new: an `event_id` is recorded once.

        Raises:
            Refused: as `track`.
        """
        record = self._record(new)

        def work(scope: Scoped) -> tuple[EventRecord, bool]:
            if record.event_id is not None:
                had = event_rows.by_event_id(scope, record.event_id)
                if had is not None:
                    return had, False
            self._users(scope, [record.user_id])
            event_rows.add(scope, [record])
            self._trim(scope, 1)
            return record, True

        return await self._store.write(project_id, work)

    async def audit(
        self, project_id: str, developer_id: str, name: str, user_id: str | None, properties: Any
    ) -> AuditRecord:
        """Recorded for good, at the server's time.

        Raises:
            Refused: INVALID_INPUT, USER_NOT_FOUND; CONFLICT where the audit is full.
        """
        record = AuditRecord(
            entropy.uuid4(),
            developer_id,
            user_id,
            name,
            _json(properties, "$"),
            time_ms(self._clock),
        )

        def work(scope: Scoped) -> None:
            _known(scope, [user_id])
            most = limits.AUDIT_EVENTS.value
            if event_rows.count_audit(scope) >= most:
                raise faults.CONFLICT.refuse(
                    f"the project's audit holds {most} events, and none is ever dropped"
                )
            event_rows.add_audit(scope, record)

        await self._store.write(project_id, work)
        return record

    async def page(
        self, project_id: str, wanted: Wanted, limit: int
    ) -> tuple[list[EventRecord], bool]:
        """So many at most, the newest first, and whether there are more."""
        return await self._store.read(
            project_id, lambda scope: event_rows.page(scope, wanted, limit)
        )

    async def count(
        self, project_id: str, wanted: Wanted, by: Group | None
    ) -> tuple[int, list[tuple[str, int]]]:
        """How many there are, and in buckets: days in order, or the most frequent names first."""

        def work(scope: Scoped) -> tuple[int, list[tuple[str, int]]]:
            total = event_rows.count(scope, wanted)
            if by is Group.DAY:
                days = event_rows.count_by_day(scope, wanted)
                return total, [(_day(day), found) for day, found in days]
            if by is Group.EVENT_NAME:
                return total, event_rows.count_by_name(scope, wanted, limits.LIST_ROWS.value)
            return total, []

        return await self._store.read(project_id, work)

    def _users(self, scope: Scoped, user_ids: Sequence[str | None], admitted: str = "") -> None:
        """They are this project's, and were there just now."""
        known = _known(scope, user_ids, admitted)
        if known:
            user_rows.seen(scope, known, time_ms(self._clock))

    def _trim(self, scope: Scoped, added: int) -> None:
        """Those that happened first go where there are too many."""
        most = limits.EVENTS_KEPT.value
        had = self._counts.get(scope.project_id)
        held = event_rows.count_all(scope) if had is None else had + added
        if held > most:
            held = event_rows.count_all(scope)
            if held > most:
                # a hundredth more than must go: to count them anew takes its time
                kept = most - most // 100
                event_rows.forget(scope, held - kept)
                held = kept
        if len(self._counts) >= limits.EVENTS_COUNTED.value:
            self._counts.clear()
        self._counts[scope.project_id] = held

    def _record(self, new: NewEvent) -> EventRecord:
        now_ms = time_ms(self._clock)
        return EventRecord(
            id=entropy.uuid4(),
            user_id=new.user_id,
            name=new.name,
            properties=_json(new.properties, new.place),
            occurred_ms=_when(new, now_ms),
            received_ms=now_ms,
            event_id=new.event_id,
        )


def _known(scope: Scoped, user_ids: Sequence[str | None], admitted: str = "") -> set[str]:
    """The users that are named; raises `Refused` USER_NOT_FOUND for one who is not there."""
    named = {user_id for user_id in user_ids if user_id}
    asked = named - {admitted}
    missing = asked - user_rows.known(scope, asked) if asked else asked
    if missing:
        raise faults.no_user(min(missing), "nothing was recorded")
    return named


def _when(new: NewEvent, now_ms: int) -> int:
    if new.when is None:
        return now_ms
    at = new.when if isinstance(new.when, int) else parse_ms(new.when)
    if at is None or at < 0:
        raise faults.INVALID_INPUT.refuse(
            f"the time at {new.place} must be ISO 8601 or Unix milliseconds, from 1970 on",
            {"field": new.place},
        )
    return min(at, now_ms)


def _day(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_MS / 1000, UTC).strftime("%Y-%m-%d")


def _json(properties: dict[str, Any] | None, place: str) -> str:
    encoded = msgspec.json.encode(properties or {})
    most = limits.EVENT_PROPERTIES.value
    if len(encoded) > most:
        raise faults.INVALID_INPUT.refuse(
            f"the properties at {place} are {len(encoded)} bytes as JSON; {most} at most",
            {"field": f"{place}.properties", "bytes_max": most},
        )
    return encoded.decode()

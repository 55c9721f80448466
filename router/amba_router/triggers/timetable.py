"""What is due next, of all schedules of all projects: a heap in memory, and nothing else.

Knows no time but what it is told. Times are Unix milliseconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amba_router.triggers.cron import Cron

if TYPE_CHECKING:
    from amba_router.store.schedule_rows import Schedule

Key = tuple[str, str]
"""Project id, schedule id."""


@dataclass(slots=True, eq=False)
class Entry:
    """One schedule. Changed by `Timetable`, but for `busy` and `failures`.

    Attributes:
        due_ms: None where it never comes due.
        busy: a firing of it waits or is under way.
        failures: times in a row that it came due and could not be reckoned or claimed; its
            ticker's.
    """

    project_id: str
    schedule: Schedule
    cron: Cron
    due_ms: int | None = None
    busy: bool = False
    failures: int = 0

    @property
    def key(self) -> Key:
        """What it is found by."""
        return self.project_id, self.schedule.id


class Timetable:
    """All entries. A place in the heap holds while its time is still its entry's."""

    def __init__(self) -> None:
        self._entries: dict[Key, Entry] = {}
        self._heap: list[tuple[int, int, Entry]] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def get(self, project_id: str, schedule_id: str) -> Entry | None:
        """One of them."""
        return self._entries.get((project_id, schedule_id))

    def put(self, project_id: str, schedule: Schedule, cron: Cron, due_ms: int | None) -> Entry:
        """A new one, or another content for the one with this id; what it is at goes on."""
        entry = self._entries.get((project_id, schedule.id))
        if entry is None:
            entry = self._entries[project_id, schedule.id] = Entry(project_id, schedule, cron)
        entry.schedule, entry.cron = schedule, cron
        self.set_due(entry, due_ms)
        return entry

    def drop(self, project_id: str, schedule_id: str) -> bool:
        """Without it; whether it was there."""
        entry = self._entries.pop((project_id, schedule_id), None)
        if entry is not None:
            entry.due_ms = None
        return entry is not None

    def set_due(self, entry: Entry, due_ms: int | None) -> None:
        """Another time for it."""
        entry.due_ms = due_ms
        if due_ms is None:
            return
        self._order += 1
        heapq.heappush(self._heap, (due_ms, self._order, entry))
        if len(self._heap) > 2 * len(self._entries) + 64:
            live = {id(e): e for e in self._entries.values() if e.due_ms is not None}
            self._heap = [(e.due_ms or 0, at, e) for at, e in enumerate(live.values())]
            self._order = len(self._heap)
            heapq.heapify(self._heap)

    def next_ms(self) -> int | None:
        """When the next one is due; None where none is."""
        while self._heap:
            due_ms, _, entry = self._heap[0]
            if entry.due_ms == due_ms:
                return due_ms
            heapq.heappop(self._heap)
        return None

    def pop(self, now_ms: int) -> Entry | None:
        """One that is due; it needs another time from here on."""
        due_ms = self.next_ms()
        return heapq.heappop(self._heap)[2] if due_ms is not None and due_ms <= now_ms else None

"""The logs of a node's functions: what `functions logs` reads, in the shape of contract D.5.

Kept in memory and bounded: per function and over the node the oldest events go first.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple, TypeGuard

from amba_router.journal import Invocation, Journal
from amba_runtime import limits
from amba_runtime.clock import Clock, time_ms
from amba_runtime.outcome import Outcome, Tell
from amba_runtime.pool import Slot

StackMapper = Callable[[str], str]
"""A guest's stack -> the same in terms of the user's files."""

Mappers = Callable[[str, str, int], Awaitable[StackMapper]]
"""(project id, function, version) -> what maps its stacks; looked up only when one is shown."""

_FRAME = "\n    at "
_EVENT_BYTES = 640
"""What an event without text takes in memory, about."""

_PATH_SHOWN = 2048


class LogPage(NamedTuple):
    """Events newest first, and whether older ones in the range were left out."""

    events: list[dict[str, Any]]
    truncated: bool


class LogStore:
    """Events by (project, function). `hear` a journal, then `events` as often as asked.

    An event's time is when the invocation ended, but never at or before one that was read
    already: a reader who asks again from the newest time it saw plus 1 ms (contract D.5) misses
    nothing. `Event.Timestamp` is when it began.

    Args:
        mappers: for stacks among lines and exceptions.
    """

    def __init__(self, clock: Clock, mappers: Mappers) -> None:
        self._clock = clock
        self._mappers = mappers
        self._journal: Journal | None = None
        self._rings: dict[tuple[str, str], _Ring] = {}
        self._bytes = 0

    @property
    def held_bytes(self) -> int:
        """What all events take in memory, about."""
        return self._bytes

    def hear(self, journal: Journal) -> None:
        """Note what this journal tells."""
        self._journal = journal
        journal.listen(self._batch, self._late)

    def forget_project(self, project_id: str) -> None:
        """Drop the events of a project that is gone."""
        for key in [key for key in self._rings if key[0] == project_id]:
            self._bytes -= self._rings.pop(key).bytes

    async def events(
        self,
        project_id: str,
        name: str,
        *,
        since_ms: int,
        until_ms: int,
        limit: int,
        request_id: str | None = None,
    ) -> LogPage:
        """What ended from `since_ms` (inclusive) to `until_ms` (exclusive).

        Args:
            limit: events at most; the newest are given.
            request_id: only this invocation's.
        """
        if self._journal is not None:
            self._journal.flush()  # who asks after an answer finds its event
        ring = self._rings.get((project_id, name))
        if ring is None:
            return LogPage([], truncated=False)
        found: list[_Event] = []
        truncated = False
        for event in reversed(ring.events):
            if event.at_ms < since_ms:
                break
            if event.at_ms >= until_ms or request_id not in (None, event.request_id):
                continue
            if len(found) == limit:
                truncated = True
                break
            found.append(event)
        if found:
            ring.read_ms = max(ring.read_ms, found[0].at_ms)
        page: list[dict[str, Any]] = []
        mappers: dict[int, StackMapper] = {}
        for event in found:
            logs, exceptions = event.lines()
            if event.version not in mappers and _has_stack(logs, exceptions):
                mappers[event.version] = await self._mappers(project_id, name, event.version)
            map_stack = mappers.get(event.version, str)
            page.append(event.wire(name, logs, exceptions, map_stack))
        return LogPage(page, truncated)

    def _batch(self, told: Sequence[Invocation]) -> None:
        for i in told:
            if i.slot is None:
                continue
            ring = self._ring(i.slot)
            text = _text(i.tell)
            event = _Event(
                ring.next_ms(int(i.started_s * 1000 + i.ms)),
                i.request_id,
                i.version,
                "cancelled" if i.outcome is Outcome.CANCELED else i.outcome.value,
                i.status,
                i.method,
                i.path[:_PATH_SHOWN],
                int(i.started_s * 1000),
                i.ms,
                i.cpu_ms,
                text,
            )
            self._add(ring, event)
        self._bound()

    def _late(self, slot: Slot, request_id: str, tell: Tell) -> None:
        """Lines that came after their invocation was told: beside its own while nobody read it."""
        ring = self._ring(slot)
        before = ring.bytes
        event = ring.find(request_id)
        if event is not None and event.at_ms > ring.read_ms:
            ring.bytes -= event.bytes
            event.extend(tell)
            ring.bytes += event.bytes
        else:
            now_ms = time_ms(self._clock)
            ring.add(_after(event, slot, request_id, tell, ring.next_ms(now_ms)))
        self._bytes += ring.bytes - before
        self._bound()

    def _ring(self, slot: Slot) -> _Ring:
        key = (slot.manifest.project_id, slot.manifest.name)
        ring = self._rings.get(key)
        if ring is None:
            ring = self._rings[key] = _Ring()
        return ring

    def _add(self, ring: _Ring, event: _Event) -> None:
        before = ring.bytes
        ring.add(event)
        self._bytes += ring.bytes - before

    def _bound(self) -> None:
        """Over the node's bound, whoever holds most loses half of it."""
        while self._bytes > limits.LOG_STORE_BYTES.value:
            most = max(self._rings.values(), key=lambda ring: ring.bytes)
            before = most.bytes
            most.shrink(before // 2)
            self._bytes -= before - most.bytes


class _Ring:
    """One function's events, oldest first; times never fall.

    `read_ms`: the newest time that was handed out.
    """

    __slots__ = ("bytes", "events", "read_ms")

    def __init__(self) -> None:
        self.events: deque[_Event] = deque()
        self.bytes = 0
        self.read_ms = 0

    def find(self, request_id: str) -> _Event | None:
        """The invocation, among the newest."""
        recent = islice(reversed(self.events), limits.LOG_STORE_LATE.value)
        return next((event for event in recent if event.request_id == request_id), None)

    def next_ms(self, now_ms: int) -> int:
        last_ms = self.events[-1].at_ms if self.events else 0
        return max(now_ms, last_ms, self.read_ms + 1)

    def add(self, event: _Event) -> None:
        self.events.append(event)
        self.bytes += event.bytes
        if len(self.events) > limits.LOG_STORE_EVENTS.value:
            self.bytes -= self.events.popleft().bytes
        self.shrink(limits.LOG_STORE_FUNCTION_BYTES.value)

    def shrink(self, most: int) -> None:
        while self.bytes > most and self.events:
            self.bytes -= self.events.popleft().bytes


@dataclass(slots=True)
class _Event:
    """One invocation; `text` holds its lines as JSON, "" for none."""

    at_ms: int
    request_id: str
    version: int
    outcome: str
    status: int
    method: str
    path: str
    began_ms: int
    ms: float
    cpu_ms: float | None
    text: str

    @property
    def bytes(self) -> int:
        return _EVENT_BYTES + len(self.path) + len(self.text)

    def lines(self) -> tuple[list[Any], list[Any]]:
        """Rows of `_rows`."""
        if not self.text:
            return [], []
        logs, exceptions = json.loads(self.text)
        return logs, exceptions

    def extend(self, tell: Tell) -> None:
        """Add what came later, within the bounds of one invocation."""
        logs, exceptions = self.lines()
        more_logs, more_exceptions = _rows(tell)
        logs = (logs + more_logs)[: limits.LOG_LINES.value]
        exceptions = (exceptions + more_exceptions)[: limits.LOG_EXCEPTIONS.value]
        self.text = json.dumps([logs, exceptions])

    def wire(
        self, name: str, logs: list[Any], exceptions: list[Any], map_stack: StackMapper
    ) -> dict[str, Any]:
        """As contract D.5 spells it; `RequestId`, times and `Version` are ours."""
        return {
            "Event": {
                "Timestamp": self.began_ms,
                "Request": {"Method": self.method, "Path": self.path},
                "Response": {"Status": self.status},
            },
            "ScriptName": f"{name}-v{self.version}",
            "Outcome": self.outcome,
            "Logs": [
                {
                    "Level": level,
                    "Message": [_mapped(value, map_stack) for value in message],
                    "TimestampMs": at_ms,
                }
                for level, at_ms, message in logs
            ],
            "Exceptions": [
                {
                    "Name": error,
                    "Message": message,
                    "Stack": map_stack(stack) if stack else "",
                    "TimestampMs": at_ms,
                }
                for error, message, stack, at_ms in exceptions
            ],
            "EventTimestampMs": self.at_ms,
            "RequestId": self.request_id,
            "Version": self.version,
            "WallTimeMs": round(self.ms, 3),
            "CPUTimeMs": self.cpu_ms,
        }


def _after(event: _Event | None, slot: Slot, request_id: str, tell: Tell, at_ms: int) -> _Event:
    """An event of its own for lines of an invocation that was read already, or is forgotten."""
    if event is not None:
        return replace(event, at_ms=at_ms, text=_text(tell), cpu_ms=None)
    outcome, version = Outcome.OK.value, slot.manifest.version
    return _Event(at_ms, request_id, version, outcome, 0, "", "", at_ms, 0.0, None, _text(tell))


def _rows(tell: Tell) -> tuple[list[Any], list[Any]]:
    """`[level, ms, [args]]` and `[name, message, stack, ms]`."""
    return (
        [[line.level, line.timestamp_ms, line.message] for line in tell.logs],
        [[e.name, e.message, e.stack, e.timestamp_ms] for e in tell.exceptions],
    )


def _text(tell: Tell | None) -> str:
    if tell is None or not (tell.logs or tell.exceptions):
        return ""
    return json.dumps(_rows(tell))


def is_stack(value: object) -> TypeGuard[str]:
    """An argument of the console that is a logged error.

    A text of more lines than a stack may have stays whole, as it is.
    """
    return (
        isinstance(value, str) and _FRAME in value and value.count("\n") < limits.STACK_LINES.value
    )


def _mapped(value: object, map_stack: StackMapper) -> object:
    return map_stack(value) if is_stack(value) else value


def _has_stack(logs: list[Any], exceptions: list[Any]) -> bool:
    return any(stack for _, _, stack, _ in exceptions) or any(
        is_stack(value) for _, _, message in logs for value in message
    )

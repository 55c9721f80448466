"""Schedules and queues, as a configuration file declares them. Source: contract D.6, D.7.

What a cron expression and a zone may be is decided where they are acted on, and asked there.
"""

from __future__ import annotations

import re

from amba_runtime import limits

from .config_shapes import Shapes
from .config_values import Missed, QueueBinding, Schedule
from .problems import KeyPath

_QUEUE_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{limits.QUEUE_NAME.value - 1}}}\Z")
_NAME_RULE = "letters, digits, ., _ and -, the first a letter or digit, 64 characters in all"

_LEAST = {"batch_size": 1, "batch_wait_ms": 0, "consumers": 1, "retries": 0, "backoff_ms": 0}
_MOST = {
    "batch_size": limits.QUEUE_BATCH,
    "batch_wait_ms": limits.QUEUE_BATCH_WAIT_MS,
    "consumers": limits.QUEUE_CONSUMERS,
    "retries": limits.QUEUE_RETRIES,
    "backoff_ms": limits.QUEUE_BACKOFF_MOST_MS,
}


class TriggerReader(Shapes):
    """`[queues]`, and `schedules` of a function."""

    def queues(self, path: KeyPath, value: object) -> tuple[QueueBinding, ...]:
        named = self.named(path, value, "queue", _QUEUE_NAME, _NAME_RULE)
        read = [self.queue((*path, name), name, entry) for name, entry in named.items()]
        return tuple(binding for binding in read if binding is not None)

    def queue(self, path: KeyPath, name: str, value: object) -> QueueBinding | None:
        if isinstance(value, str):
            value = {"function": value}
        table = self.table(path, value, ("function", "status", *_LEAST), required=("function",))
        function = self.take(table, path, "function", self.function_name, None)
        status = self.take(table, path, "status", self.status, "active")
        settings = {
            key: number
            for key in _LEAST
            if key in table and (number := self.bounded((*path, key), table[key], key)) is not None
        }
        if function is None:
            return None
        return QueueBinding(name, function, paused=status == "paused", **settings)

    def bounded(self, path: KeyPath, value: object, key: str) -> int | None:
        """A setting of a queue, within what the platform takes."""
        least, most = _LEAST[key], _MOST[key].value
        return self.number(path, value, f"{least} to {most}", least, most)

    def status(self, path: KeyPath, value: object) -> str:
        if value not in ("active", "paused"):
            self.wrong(path, 'one of "active", "paused"', value)
        return str(value)

    def schedules(self, path: KeyPath, value: object) -> tuple[Schedule, ...]:
        read = self.array(path, value, self.schedule)
        most = limits.SCHEDULES_OF_FUNCTION.value
        if len(read) > most:
            self.note(path, f"has {len(read)} schedules; a function may have {most}")
        seen: set[tuple[str, str]] = set()
        for schedule in read:
            if (schedule.cron, schedule.timezone) in seen:
                self.note(path, f'has "{schedule.cron}" ({schedule.timezone}) twice')
            seen.add((schedule.cron, schedule.timezone))
        return read

    def schedule(self, path: KeyPath, value: object) -> Schedule | None:
        plain = isinstance(value, str)
        table = {"cron": value}
        if not plain:
            known = ("cron", "timezone", "missed")
            table = self.table(path, value, known, required=("cron",))
        cron = self.take(table, path, "cron", self.text, None)
        timezone = self.take(table, path, "timezone", self.text, "UTC")
        missed = self.take(table, path, "missed", lambda p, v: self.choice(p, v, Missed), None)
        if cron is None or timezone is None:
            return None
        refusal = _refusal(cron, timezone)
        if refusal is not None:
            key, message = refusal
            self.note(path if plain else (*path, key), message)
            return None
        return Schedule(" ".join(cron.split()), timezone, missed or Missed.SKIP)

    def text(self, path: KeyPath, value: object) -> str | None:
        if not isinstance(value, str):
            self.wrong(path, "a string", value)
            return None
        return value


def _refusal(cron: str, timezone: str) -> tuple[str, str] | None:
    """What the triggers have against it: which key, and why; None where they take it."""
    # only a schedule pays for these: start-up time counts
    from amba_router.api.faults import INVALID_TIMEZONE, Refused
    from amba_router.triggers.cron import parse

    try:
        parse(cron, timezone)
    except Refused as refused:
        key = "timezone" if refused.fault is INVALID_TIMEZONE else "cron"
        return key, refused.problem.message
    return None

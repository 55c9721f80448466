"""Limits that were passed, or are near, as lines for people; programs read events."""

from __future__ import annotations

from amba_router.journal import LimitEvent
from amba_runtime import limits
from amba_runtime.clock import Clock, SystemClock

_DONE = {
    "killed": "its process was ended",
    "refused": "refused",
    "cut": "the invocation was ended",
    "warned": "near",
}


class Pace:
    """Breaches as lines for people; one that repeats is said once a second, with how many came."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        # (project, function, limit, action) -> when said, unsaid since; bounded by `text`
        self._said: dict[tuple[str, str, str, str], tuple[float, int]] = {}

    def text(self, event: LimitEvent) -> str:
        """The line, "" for one that is not said."""
        breach = event.breach
        key = (event.project, event.function, breach.limit, event.action)
        now_s = self._clock.monotonic_s()
        before = self._said.get(key)
        if before is not None and now_s - before[0] < limits.BREACH_LINE_S.value:
            self._said[key] = (before[0], before[1] + 1)
            return ""
        if len(self._said) >= limits.BREACHES_TOLD.value:
            self._said.clear()
        self._said[key] = (now_s, 0)
        more = f" ({before[1]} more before)" if before is not None and before[1] else ""
        what = breach.note or f"used {breach.used:,} of {breach.most:,}"
        return (
            f"limit {breach.limit}: {event.function} v{event.version}"
            f"{':' if breach.note else ''} {what}: {_DONE[event.action]}{more}"
        )

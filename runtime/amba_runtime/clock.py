"""The only place that reads the time. Tests move a `ManualClock`; nothing else sleeps."""

from __future__ import annotations

import asyncio
import heapq
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for stamps, monotonic time for durations, and one way to wait."""

    def time_s(self) -> float:
        """Seconds since the Unix epoch; may jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; a duration of zero or less yields once."""
        ...


DAY_MS = 86_400_000


def time_ms(clock: Clock) -> int:
    """Whole milliseconds since the Unix epoch, as rows and answers have them."""
    return int(clock.time_s() * 1000)


class SystemClock:
    """The machine's own clock."""

    def time_s(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary start."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait in real time."""
        await asyncio.sleep(max(0.0, seconds))


class ManualClock:
    """Time that moves only when told; shipped for users' tests as well as ours."""

    def __init__(self, start_s: float = 1_767_225_600.0) -> None:
        self._wall_s = start_s
        self._monotonic_s = 0.0
        self._order = 0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def time_s(self) -> float:
        """Seconds since the Unix epoch, as set and advanced."""
        return self._wall_s

    def monotonic_s(self) -> float:
        """Seconds since this clock was made, as advanced."""
        return self._monotonic_s

    def jump(self, seconds: float) -> None:
        """Move the wall clock alone, as an operator or NTP would."""
        self._wall_s += seconds

    async def advance(self, seconds: float) -> None:
        """Move both clocks forward, waking each sleeper at its own time, in order."""
        target = self._monotonic_s + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, sleeper = heapq.heappop(self._sleepers)
            self._move_to(due)
            if not sleeper.done():
                sleeper.set_result(None)
            await _settle()
        self._move_to(target)

    def _move_to(self, monotonic_s: float) -> None:
        self._wall_s += monotonic_s - self._monotonic_s
        self._monotonic_s = monotonic_s

    async def sleep(self, seconds: float) -> None:
        """Wait until `advance` has moved that far."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._sleepers, (self._monotonic_s + seconds, self._order, sleeper))
        await sleeper


async def _settle() -> None:
    """Let everything that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)


def iso(seconds: float) -> str:
    """ISO 8601 in UTC with milliseconds and a Z, as the platform prints times."""
    stamp = datetime.fromtimestamp(seconds, UTC)
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.") + f"{stamp.microsecond // 1000:03d}Z"

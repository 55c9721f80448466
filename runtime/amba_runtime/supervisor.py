"""What is done about an isolate that ended: start another, ever more slowly while it keeps ending.

Watching limits is the walls issue's; it arms its watchdog here.
"""

from __future__ import annotations

from amba_runtime import limits
from amba_runtime.clock import Clock


class Backoff:
    """How long to wait before the next start. One per version of a function."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._started_s = 0.0  # when the isolate that ended now was due to start

    def failed(self) -> float:
        """Note one more end and return the seconds to wait: 0, then 0.1 doubling up to 30.

        An isolate that lived for a minute starts from nothing again.
        Source: reliability.md 3.E row E32.
        """
        now = self._clock.monotonic_s()
        if now - self._started_s >= limits.RESTART_FORGIVE_S.value:
            self._failures = 0
        self._failures += 1
        wait = 0.0
        if self._failures > 1:
            wait = limits.RESTART_WAIT_S.value * 2.0 ** min(self._failures - 2, 16)
            wait = min(wait, limits.RESTART_WAIT_MAX_S.value)
        self._started_s = now + wait
        return wait

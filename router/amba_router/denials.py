"""What functions were refused on their way out, as lines of the log `amba.egress`.

The best sign of an intruder that a node has, and so never without bound: whoever is refused a
thousand times a second must not fill the disk. Source: reliability.md section 5, 22; threat T6.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.egress import Denied

OnDenied = Callable[[str, Denied], None]
"""Told the method and the refusal: one line for the person, one event for the node."""

logger = logging.getLogger("amba.egress")


def log_denied(method: str, denied: Denied, who: str = "") -> None:
    """One line.

    Args:
        who: the function that asked, such as `project p-1 function hello`.
    """
    hint = f"; {denied.hint}" if denied.hint else ""
    logger.warning(
        "egress %s%s %s: %s (%s)%s",
        f"{who} " if who else "",
        method,
        denied.origin,
        denied.message,
        denied.reason,
        hint,
    )


class DenialLog:
    """The lines of one function: so many in so many seconds, then how many more there were."""

    def __init__(self, who: str, clock: Clock) -> None:
        self._who = who
        self._clock = clock
        self._began_s = clock.monotonic_s()
        self._told = 0
        self._untold = 0

    def __call__(self, method: str, denied: Denied) -> None:
        """Tell of one (an `OnDenied`)."""
        now_s = self._clock.monotonic_s()
        if now_s - self._began_s >= limits.DENIALS_EVERY_S.value:
            self.flush()
            self._began_s, self._told = now_s, 0
        if self._told >= limits.DENIALS.value:
            self._untold += 1
            return
        self._told += 1
        log_denied(method, denied, self._who)

    def flush(self) -> None:
        """Tell how many were not told."""
        untold, self._untold = self._untold, 0
        if untold:
            logger.warning("egress %s: %d more requests were refused", self._who, untold)

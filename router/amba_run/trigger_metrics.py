"""What the trigger layer counts, as a node's metrics have it.

Depths are asked of the database when somebody reads them, at most every `QUEUE_COUNT_S`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from amba_router.metrics import Metrics
from amba_run.triggering import Triggers
from amba_runtime import limits
from amba_runtime.clock import Clock

if TYPE_CHECKING:
    from amba_router.store.queue_records import Depth

Series = Iterable[tuple[Mapping[str, str], float]]


class QueueMetrics:
    """Of all queues of one node, the deepest of them told apart."""

    def __init__(self, triggers: Triggers, clock: Clock) -> None:
        self._triggers = triggers
        self._clock = clock
        self._depths: list[Depth] = []
        self._asked_s: float | None = None

    def tell(self, metrics: Metrics) -> None:
        """Add the series."""
        metrics.before(self.refresh)
        metrics.family(
            "amba_queue_depth", "gauge", "Messages of a queue, by state.", self._by_state
        )
        metrics.family(
            "amba_queue_oldest_seconds",
            "gauge",
            "Since when the message that waits longest is due.",
            self._oldest,
        )
        counts = self._triggers.queues.counts
        metrics.gauge(
            "amba_queue_attempts_total", "counter", "Messages delivered.", lambda: counts.attempts
        )
        metrics.gauge(
            "amba_queue_dead_total", "counter", "Messages become dead letters.", lambda: counts.dead
        )

    async def refresh(self) -> None:
        """Count anew, unless that was done a moment ago."""
        now_s = self._clock.monotonic_s()
        if self._asked_s is not None and now_s - self._asked_s < limits.QUEUE_COUNT_S.value:
            return
        self._asked_s = now_s
        self._depths = await self._triggers.queues.depths()

    def _by_state(self) -> Series:
        for depth in self._depths:
            labels = {"project": depth.project_id, "queue": depth.queue}
            for state in ("waiting", "delayed", "leased", "dead"):
                yield {**labels, "state": state}, getattr(depth, state)

    def _oldest(self) -> Series:
        now_s = self._clock.time_s()
        for depth in self._depths:
            age_s = 0.0 if depth.oldest_ms is None else max(0.0, now_s - depth.oldest_ms / 1000)
            yield {"project": depth.project_id, "queue": depth.queue}, round(age_s, 3)

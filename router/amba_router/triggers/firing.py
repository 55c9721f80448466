"""One slot of one schedule: the right to fire it, its delivery, and how it ended.

The handler's own failure is not repeated: it ran. A firing that did not reach it is tried again,
`limits.SCHEDULE_RETRIES` times. Source: contract B (`noRetry`), D.6.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from amba_router.triggers.deliver import Delivered, Deliverer, NoFunction, NotNow
from amba_runtime import limits
from amba_runtime.clock import Clock, time_ms
from amba_runtime.errors import AmbaRunError
from amba_runtime.outcome import Outcome

if TYPE_CHECKING:
    from amba_router.store.project_store import ProjectStore
    from amba_router.store.schedule_rows import Claim
    from amba_router.store.scoped import Scoped
    from amba_router.triggers.timetable import Entry

logger = logging.getLogger("amba.schedules")

T = TypeVar("T")


class Unclaimed(Exception):
    """The store failed for as long as it is tried: nobody knows whose the slot is."""


@dataclass(frozen=True, slots=True)
class Firing:
    """A slot that is due. Attributes: again: it was interrupted, and fires once more."""

    entry: Entry
    slot_ms: int
    again: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """How a firing ended, as its row has it."""

    outcome: str
    error: str
    request_id: str | None = None


class Firings:
    """Fires slots, and counts them.

    Args:
        owner: names this process in the rows of its slots.

    Attributes:
        outcomes: firings that ended, by outcome.
        skipped: slots that were left out as the one before still ran.
        late_s: how late the newest firing began, in seconds.
    """

    def __init__(self, deliverer: Deliverer, store: ProjectStore, clock: Clock, owner: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self.skipped = 0
        self.late_s = 0.0
        self._deliverer = deliverer
        self._store = store
        self._clock = clock
        self.owner = owner

    async def fire(self, firing: Firing) -> bool:
        """Until it has ended; False when its schedule is gone. Raises Unclaimed; nothing began."""
        from amba_router.store.schedule_rows import Claim

        entry = firing.entry
        claimed = await self._claim(firing)
        if claimed is Claim.SKIPPED:
            self.skipped += 1
        if claimed is not Claim.OURS:
            return claimed is not Claim.GONE
        self.late_s = max(0.0, self._clock.time_s() - firing.slot_ms / 1000)
        ending = await self._deliver(firing)
        self.outcomes[ending.outcome] += 1
        await self._end_whole(firing, ending)
        if ending.outcome != Outcome.OK:
            logger.info(
                "schedule.failed project=%s function=%s cron=%r outcome=%s",
                *(entry.project_id, entry.schedule.function, entry.cron.text, ending.outcome),
            )
        return True

    async def skip(self, firing: Firing) -> None:
        """Its schedule is at the slot before."""
        from amba_router.store import schedule_rows

        entry, now_ms = firing.entry, time_ms(self._clock)

        def work(scope: Scoped) -> bool:
            if schedule_rows.find(scope, entry.schedule.id) is None:
                return False
            return schedule_rows.skip(
                scope, entry.schedule.id, firing.slot_ms, owner=self.owner, now_ms=now_ms
            )

        try:
            self.skipped += await self._store.write(entry.project_id, work)
        except AmbaRunError as error:  # history alone: nothing was to be fired
            logger.warning("schedule.store project=%s error=%s", entry.project_id, error)

    async def _claim(self, firing: Firing) -> Claim:
        from amba_router.store import schedule_rows
        from amba_router.store.schedule_rows import Claim

        entry = firing.entry
        id_, slot_ms, owner = entry.schedule.id, firing.slot_ms, self.owner

        def work(scope: Scoped) -> Claim:
            now_ms = time_ms(self._clock)
            if firing.again:
                ours = schedule_rows.claim_again(scope, id_, slot_ms, owner=owner, now_ms=now_ms)
                return Claim.OURS if ours else Claim.TAKEN
            return schedule_rows.claim(scope, id_, slot_ms, owner=owner, now_ms=now_ms)

        try:
            return await self._write(entry.project_id, work)
        except AmbaRunError as error:
            raise Unclaimed(str(error)) from error

    async def _deliver(self, firing: Firing) -> Ending:
        wait_s = limits.SCHEDULE_RETRY_S.value
        ending = await self._try(firing)
        for _ in range(limits.SCHEDULE_RETRIES.value):
            if not isinstance(ending, NotReached):
                break
            await self._clock.sleep(wait_s)
            wait_s *= 2
            ending = await self._try(firing)
        return ending.ending if isinstance(ending, NotReached) else ending

    async def _try(self, firing: Firing) -> Ending | NotReached:
        entry = firing.entry
        try:
            done = await deliver(
                self._deliverer,
                entry.project_id,
                entry.schedule.function,
                cron=entry.cron.text,
                scheduled_ms=firing.slot_ms,
            )
        except NoFunction as error:
            return Ending(Outcome.SCRIPT_NOT_FOUND, str(error))
        except NotNow as error:
            return NotReached(Ending(Outcome.LOAD_SHED, str(error)))
        ending = Ending(done.outcome, done.error, done.request_id)
        gone = done.outcome is Outcome.INTERNAL_ERROR and done.result.get("noRetry") is not True
        return NotReached(ending) if gone else ending

    async def _end_whole(self, firing: Firing, ending: Ending) -> None:
        """The same as `_end`: who is called off now has run, and its row is to say so."""
        end = asyncio.ensure_future(self._end(firing, ending))
        try:
            await asyncio.shield(end)
        except asyncio.CancelledError:
            await asyncio.wait({end}, timeout=limits.SCHEDULE_END_S.value)
            end.cancel()
            raise

    async def _end(self, firing: Firing, ending: Ending) -> None:
        from amba_router.store import schedule_rows

        def work(scope: Scoped) -> bool:
            return schedule_rows.end(
                scope,
                firing.entry.schedule.id,
                firing.slot_ms,
                owner=self.owner,
                now_ms=time_ms(self._clock),
                outcome=ending.outcome,
                error=ending.error,
                request_id=ending.request_id,
            )

        await self._write(firing.entry.project_id, work)

    async def _write(self, project_id: str, work: Callable[[Scoped], T]) -> T:
        """A disk that is full, or a store that is busy, may not be for long."""
        wait_s = limits.SCHEDULE_RETRY_S.value
        for _ in range(limits.SCHEDULE_RETRIES.value):
            try:
                return await self._store.write(project_id, work)
            except AmbaRunError as error:
                logger.warning("schedule.store project=%s error=%s", project_id, error)
                await self._clock.sleep(wait_s)
                wait_s *= 2
        return await self._store.write(project_id, work)


@dataclass(frozen=True, slots=True)
class NotReached:
    """It may be tried again."""

    ending: Ending


async def deliver(
    deliverer: Deliverer, project_id: str, function: str, *, cron: str, scheduled_ms: int
) -> Delivered:
    """One `scheduled` event. Raises NoFunction, NotNow."""
    async with deliverer.turn(project_id, function, "scheduled", cron) as delivery:
        return await delivery.send(
            lambda isolate, tell: isolate.scheduled(
                cron=cron, scheduled_time_ms=scheduled_ms, tell=tell
            )
        )

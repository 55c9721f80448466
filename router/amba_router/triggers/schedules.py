"""The ticker: fires the schedules of all projects of one server, each slot once.

Nothing is polled: it sleeps until the next one is due, or something changes. A wall clock that
jumps is noticed within `limits.SCHEDULE_LOOK_S`, changes of another process on the same database
within `limits.SCHEDULE_REFRESH_S`. Source: contract D.6, H-13; reliability.md J7.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from amba_router.api import faults
from amba_router.api.faults import Refused
from amba_router.routes import Projects
from amba_router.store.on_demand import OnDemand
from amba_router.store.project_store import ProjectStore
from amba_router.triggers.cron import Cron, parse
from amba_router.triggers.deliver import Delivered, Deliverer, NoFunction, NotNow
from amba_router.triggers.fair import Turns
from amba_router.triggers.firing import Firing, Firings, Unclaimed, deliver
from amba_router.triggers.functions import check
from amba_router.triggers.timetable import Entry, Timetable
from amba_runtime import entropy, limits
from amba_runtime.background import Background
from amba_runtime.clock import DAY_MS, Clock, time_ms
from amba_runtime.errors import AmbaRunError

if TYPE_CHECKING:
    from amba_router.store.schedule_rows import Schedule

logger = logging.getLogger("amba.schedules")

PUT_BACK = DAY_MS // round(limits.SCHEDULE_LOOK_S.value * 1000)
"""Times in a row that a slot which the store did not let claim is put back: for about a day."""

ANY_CRON = "* * * * *"
"""What a function is told that is fired by hand and has no schedule."""


class Schedules:
    """`open` once, `close` at the end; both idempotent.

    Args:
        alone: no other process has this database: what is under way in it at the start is
            nobody's. True wherever the state directory is locked.
    """

    def __init__(
        self,
        projects: Projects,
        deliverer: Deliverer,
        states: OnDemand,
        clock: Clock,
        *,
        alone: bool = True,
    ) -> None:
        self.firings = Firings(deliverer, ProjectStore(states), clock, entropy.uuid4())
        self._projects = projects
        self._deliverer = deliverer
        self._states = states
        self._clock = clock
        self._alone = alone
        self._table = Timetable()
        self._turns: Turns[Firing] = Turns(limits.SCHEDULES_AT_ONCE.value, self._fire)
        self._background = Background()
        self._woken = asyncio.Event()
        self._opened = False
        self._closed = False
        self._loaded = False
        self._stamp: tuple[int, int, int] | None = None
        self._changes = 0
        """Of the table, from here: who reads it anew sees that it was overtaken."""
        self._changed: set[tuple[str, str]] | None = None
        """What changed while it is read: what was read of these is old. None: nobody reads."""
        self._seen = (clock.time_s(), clock.monotonic_s())

    def open(self) -> None:
        """Begin; from the event loop only."""
        if not self._opened and not self._closed:
            self._opened = True
            self._background.spawn(self._tick())
            self._background.spawn(self._refresh())

    def stop(self) -> None:
        """Fire nothing more; what has begun goes on."""
        self._closed = True
        self._turns.stop()

    async def close(self) -> None:
        """End all of it: what is under way has no outcome, which the next start sees."""
        self.stop()
        await self._background.close()
        await self._turns.close()

    @property
    def loaded(self) -> bool:
        """Every schedule that was there at the start is known."""
        return self._loaded

    @property
    def idle(self) -> bool:
        """Nothing that is due by now waits or is under way."""
        due_ms = self._table.next_ms()
        later = due_ms is None or due_ms > self._now_ms()
        return later and not self._turns.busy and not self._turns.waiting

    @property
    def known(self) -> int:
        """How many schedules there are, of all projects."""
        return len(self._table)

    @property
    def under_way(self) -> int:
        """Firings that have begun and not ended."""
        return self._turns.busy

    # changes, told by whoever has written them

    def read(self, cron: str, timezone: str) -> Cron:
        """See `cron.parse`."""
        return parse(cron, timezone)

    def check(self, project_id: str, function: str) -> None:
        """Raises `Refused` FUNCTION_NOT_FOUND, HANDLER_MISSING."""
        check(self._projects, project_id, function, "scheduled")

    def put(self, project_id: str, schedule: Schedule) -> None:
        """This one is new, or has other settings."""
        self._note(project_id, schedule.id)
        self._put(project_id, schedule)
        self.open()
        self._woken.set()

    def drop(self, project_id: str, schedule_id: str) -> None:
        """This one is no more; what it is at goes on to its end."""
        self._note(project_id, schedule_id)
        self._table.drop(project_id, schedule_id)

    def _note(self, project_id: str, schedule_id: str) -> None:
        self._changes += 1
        if self._changed is not None:
            self._changed.add((project_id, schedule_id))

    # by hand

    async def fire(
        self, project_id: str, function: str, *, cron: str | None, scheduled_ms: int | None
    ) -> Delivered:
        """One event now, whatever the schedules say.

        Args:
            cron: what its handler is told; None is its oldest schedule's.
            scheduled_ms: the same; None is now.

        Raises:
            Refused: FUNCTION_NOT_FOUND, HANDLER_MISSING, OVERLOADED.
        """
        self.check(project_id, function)
        if cron is None:
            own = (
                entry.cron.text
                for entry in self._table
                if entry.project_id == project_id and entry.schedule.function == function
            )
            cron = next(own, ANY_CRON)
        if scheduled_ms is None:
            scheduled_ms = time_ms(self._clock)
        try:
            return await deliver(
                self._deliverer, project_id, function, cron=cron, scheduled_ms=scheduled_ms
            )
        except NoFunction as error:
            raise faults.FUNCTION_NOT_FOUND.refuse(
                str(error), {"resource": "function", "id": function[:64]}
            ) from None
        except NotNow as error:
            raise faults.OVERLOADED.refuse(
                f"{error}; nothing was delivered", retry_after_s=max(1, round(error.retry_after_s))
            ) from None

    # what is due

    async def _tick(self) -> None:
        while not self._closed:
            self._woken.clear()
            now_ms = self._now_ms()
            await self._notice_jump(now_ms)
            for _ in range(limits.SCHEDULE_BATCH.value):
                due = self._table.pop(now_ms)
                if due is None:
                    break
                try:
                    self._due(due, now_ms)
                except Exception:  # one that cannot be reckoned keeps no other from its time
                    logger.exception("schedule.lost id=%s", due.schedule.id)
                    self._background.spawn(self._look_again(due))
            await self._wait(self._table.next_ms())

    def _due(self, entry: Entry, now_ms: int) -> None:
        assert entry.due_ms is not None, "it was popped"
        slot_ms = entry.due_ms
        next_ms = entry.cron.after(slot_ms)
        late_ms, skip = limits.SCHEDULE_LATE_MS.value, entry.schedule.missed == "skip"
        if next_ms is not None and next_ms <= now_ms:
            since_ms = max(slot_ms, now_ms - late_ms - 1) if skip else slot_ms
            slot_ms = entry.cron.last(since_ms, now_ms) or slot_ms
            next_ms = entry.cron.after(now_ms)
        self._table.set_due(entry, next_ms)
        if now_ms - slot_ms > late_ms and skip:
            logger.info(
                "schedule.missed project=%s function=%s cron=%r slot_ms=%d",
                *(entry.project_id, entry.schedule.function, entry.cron.text, slot_ms),
            )
            return
        firing = Firing(entry, slot_ms)
        if entry.busy:
            if not entry.failures:  # else it may come to be this one's turn: see `_put_back`
                self._background.spawn(self.firings.skip(firing))
            return
        entry.busy = True
        self._turns.add(entry.project_id, firing)

    async def _fire(self, project_id: str, firing: Firing) -> None:
        entry = firing.entry
        again = False
        try:
            if not await self.firings.fire(firing):
                self._table.drop(project_id, entry.schedule.id)
            entry.failures = 0
        except Unclaimed as error:
            again = self._put_back(firing)
            logger.warning(
                "schedule.unclaimed project=%s id=%s slot_ms=%d again=%s error=%s",
                *(project_id, entry.schedule.id, firing.slot_ms, again, error),
            )
        finally:
            entry.busy = again and firing.again

    def _put_back(self, firing: Firing) -> bool:
        """A slot that could not be claimed is due still; False where it is not tried again.

        No loop without a pause: what fails has been tried for SCHEDULE_RETRY_S, and longer.
        """
        entry = firing.entry
        entry.failures += 1
        there = self._table.get(*entry.key) is entry
        if not there or self._closed or entry.failures > PUT_BACK:
            return False
        if firing.again:  # it is in no heap
            self._turns.add(entry.project_id, firing)
            return True
        # where a later one is due by now, that one's turn it is; how late is too late `_due` knows
        self._table.set_due(entry, firing.slot_ms)
        self._woken.set()
        return True

    async def _look_again(self, entry: Entry) -> None:
        """One that came due and could not be reckoned is due still, at the next look."""
        due_ms = entry.due_ms
        entry.failures += 1
        if due_ms is None or entry.failures > PUT_BACK:
            return
        await self._clock.sleep(limits.SCHEDULE_LOOK_S.value)
        if self._table.get(*entry.key) is entry and entry.due_ms == due_ms:
            self._table.set_due(entry, due_ms)
            self._woken.set()

    async def _wait(self, due_ms: int | None) -> None:
        """Until then, or until something changes."""
        woken = asyncio.ensure_future(self._woken.wait())
        waits: set[asyncio.Future[Any]] = {woken}
        if due_ms is not None:
            left_s = due_ms / 1000 - self._clock.time_s()
            sleep = self._clock.sleep(min(left_s, limits.SCHEDULE_LOOK_S.value))
            waits.add(asyncio.ensure_future(sleep))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()

    def _now_ms(self) -> int:
        """A timer may end a fraction of a millisecond early."""
        return round(self._clock.time_s() * 1000)

    async def _notice_jump(self, now_ms: int) -> None:
        """Where the wall clock was put back, what was due much later may be due soon.

        Put forward, it makes slots late, which they are for any other reason, too.
        """
        wall_s, monotonic_s = self._seen
        now_s, self._seen = self._clock.monotonic_s(), (now_ms / 1000, self._clock.monotonic_s())
        if now_ms / 1000 - wall_s > now_s - monotonic_s - limits.SCHEDULE_JUMP_S.value:
            return
        logger.warning("schedule.clock_put_back to_ms=%d", now_ms)
        for count, entry in enumerate(self._table):
            self._table.set_due(entry, entry.cron.after(now_ms))
            if count % limits.SCHEDULE_BATCH.value == 0:
                await asyncio.sleep(0)

    # what is stored

    async def _refresh(self) -> None:
        """Load, and look every now and then whether somebody else has changed something."""
        from amba_router.store import trigger_sweeps

        while not self._closed:
            try:
                database = (await self._states.state()).database
                stamp = await database.read(trigger_sweeps.schedule_stamp)
                if not self._loaded or stamp != self._stamp:
                    await self._load(stamp)
            except AmbaRunError as error:  # a full disk, say: the next look may do better
                logger.warning("schedules were not read: %s", error)
            except Exception:  # whatever it is: those that are known fire on
                logger.exception("schedules were not read")
            await self._clock.sleep(limits.SCHEDULE_REFRESH_S.value)

    async def _load(self, stamp: tuple[int, int, int]) -> None:
        self._changed = set()
        try:
            await self._load_all(stamp, self._changed)
        finally:
            self._changed = None

    async def _load_all(self, stamp: tuple[int, int, int], changed: set[tuple[str, str]]) -> None:
        from amba_router.store import trigger_sweeps

        database = (await self._states.state()).database
        before = self._changes
        found = await database.read(trigger_sweeps.schedule_all)
        newest: dict[tuple[str, str], int] = {}
        again: list[trigger_sweeps.Interrupted] = []
        if not self._loaded:
            newest = await database.read(trigger_sweeps.schedule_newest)
            again = await database.write(
                lambda c: trigger_sweeps.schedule_interrupt(
                    c, self.firings.owner, alone=self._alone, now_ms=time_ms(self._clock)
                )
            )
        if self._changes != before and self._loaded:
            return  # it was overtaken; the next look sees another stamp
        known = {(project_id, schedule.id) for project_id, schedule in found}
        for count, (project_id, schedule) in enumerate(found):
            last_ms = None if self._loaded else schedule.updated_ms
            if (project_id, schedule.id) not in changed:
                self._put(project_id, schedule, newest.get((project_id, schedule.id), last_ms))
            if count % limits.SCHEDULE_BATCH.value == 0:
                await asyncio.sleep(0)
        if self._changes == before:
            for entry in self._table:
                if entry.key not in known:
                    self._table.drop(*entry.key)
            self._stamp = stamp
        self._loaded = True
        for one in again:
            cut_off = self._table.get(one.project_id, one.schedule_id)
            if one.again and cut_off is not None and not cut_off.busy:
                cut_off.busy = True
                self._turns.add(one.project_id, Firing(cut_off, one.slot_ms, again=True))
        self._woken.set()

    def _put(self, project_id: str, schedule: Schedule, newest_ms: int | None = None) -> None:
        """Args: newest_ms: its last slot, where what was missed since then is to be made up for."""
        entry = self._table.get(project_id, schedule.id)
        if entry is not None and entry.schedule == schedule and newest_ms is None:
            return
        try:
            cron = parse(schedule.cron, schedule.timezone)
        except Refused as refusal:  # a zone that this machine's database has no more
            logger.error(
                "schedule.unreadable project=%s id=%s error=%s", project_id, schedule.id, refusal
            )
            self._table.drop(project_id, schedule.id)
            return
        now_ms = time_ms(self._clock)
        since_ms = now_ms - limits.SCHEDULE_LATE_MS.value - 1
        if schedule.missed == "run_once" and newest_ms is not None:
            since_ms = newest_ms
        since_ms = min(max(since_ms, schedule.updated_ms), now_ms)
        self._table.put(project_id, schedule, cron, cron.after(since_ms))

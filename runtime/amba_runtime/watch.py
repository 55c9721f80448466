"""What is known of one isolate at work, and the judgement on it at every look.

Billing: the CPU time between two looks is shared by the invocations whose answer has not begun,
and by those that were answered meanwhile: that part is doubtful, and weighs only in bulk.
Signs of life: answers are; where none comes, the isolate is asked, one question at a time.
Source: reliability.md 2.3, 3.E, 4.3 notes 10 and 11.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.engine.base import Isolate
from amba_runtime.outcome import Breach, Ended, Outcome
from amba_runtime.underway import Underway

if TYPE_CHECKING:
    from amba_runtime.slot import Slot

_NEAR = limits.WARN_AT.value / 100
_FEW = 5
"""Of fewer invocations at once, the last but one is no sign of a limit that is near."""


class _Bill:
    """What one invocation is thought to have used, in seconds of CPU; what it was told of."""

    __slots__ = ("doubtful_s", "ended", "sure_s", "warned")

    def __init__(self) -> None:
        self.sure_s = 0.0
        self.doubtful_s = 0.0
        self.ended = False
        self.warned = False


class Watch:
    """Looks at one slot. `wake` when work begins, `look` while it says so, `stop` at the end.

    Attributes:
        pace_s: until the next look.
        due_s: when that is, on the clock's monotonic time.
    """

    def __init__(self, slot: Slot, clock: Clock) -> None:
        self.name = slot.manifest.name
        self.pace_s = limits.WATCH_EVERY_S.value
        self.due_s = 0.0
        self._slot = slot
        self._clock = clock
        self._isolate: Isolate | None = None
        self._killed: Isolate | None = None
        self._seen_s = 0.0
        self._cpu_s: float | None = None
        self._held = 0
        self._answers = 0
        self._bills: dict[Underway, _Bill] = {}
        # the question for life: the task, and whether it is for unfinished work
        self._sign: asyncio.Task[int] | None = None
        self._asked_at_rest = False
        self._pending = -1
        # since the last sign of life, or (while a question is open) since it was asked
        self._quiet_s = 0.0
        self._quiet_cpu_s = 0.0
        self._still_s = 0.0
        self._after_s = 0.0
        self._late = False

    def wake(self) -> None:
        """An invocation has begun: what was used until here is none of its doing."""
        self._seen_s = self._clock.monotonic_s()
        self._answers = self._slot.answers
        self._after_s = 0.0
        self._pending = -1
        self._asked_at_rest = False  # a question that is open is one for life from here on
        self._next(limits.WATCH_EVERY_S.value)
        isolate = self._slot.isolate
        if isolate is not None and isolate.alive:
            self._meet(isolate)

    def stop(self) -> None:
        """Ask nothing any more. Idempotent."""
        if self._sign is not None:
            self._sign.cancel()
            self._sign = None

    def look(self) -> bool:
        """Judge what happened since the last look; False when there is nothing left to watch."""
        slot = self._slot
        now_s = self._clock.monotonic_s()
        passed_s, self._seen_s = now_s - self._seen_s, now_s
        late = passed_s > 2 * max(self.pace_s, limits.WATCH_EVERY_S.value)
        # a pause of ours is no silence of the guest's: its answers may lie in the socket, unread;
        # by the next look they were read, so that a loop which always lags excuses nobody
        excused, self._late = late and not self._late, late
        heard_s = min(passed_s, 2 * max(self.pace_s, limits.WATCH_EVERY_S.value))
        answered, self._answers = slot.answers - self._answers, slot.answers
        calls = slot.invocations
        self._bills = {call: self._bills.get(call) or _Bill() for call in calls.values()}
        self._deadlines(now_s)
        isolate = slot.isolate
        if isolate is None or not isolate.alive or isolate is self._killed:
            self.stop()
            self._next(limits.WATCH_EVERY_S.value)
            return bool(calls)
        if isolate is not self._isolate:
            self._meet(isolate)
            self._next(limits.WATCH_EVERY_S.value)
            return True
        pace_s = self._memory(isolate, passed_s)
        used_s = self._used(isolate)
        if excused and used_s is not None:
            used_s = min(used_s, heard_s)
        asked = self._heard(answered)
        if asked and not excused:
            self._silence(used_s, heard_s)
        if used_s:
            self._charge(used_s, passed_s, answered, hold=asked)
        if isolate is self._killed:
            self._next(pace_s)
            return True
        self._quiet_s += heard_s
        self._quiet_cpu_s += used_s or 0.0
        if calls:
            self._crowd(len(calls))
        elif self._pending == 0:
            return False
        elif (used_s or 0.0) < limits.PING_CPU_MS.value / 1000:
            pace_s = limits.WATCH_REST_S.value
        self._ask(isolate, at_rest=not calls)
        self._next(pace_s)
        return True

    # parts of a look

    def _next(self, pace_s: float) -> None:
        self.pace_s = pace_s
        self.due_s = self._seen_s + pace_s

    def _meet(self, isolate: Isolate) -> None:
        if isolate is not self._isolate:
            self.stop()
            self._isolate = isolate
            self._bills = {}  # who goes on in another process starts with nothing
            self._quiet_s = self._quiet_cpu_s = self._still_s = 0.0
        self._cpu_s = isolate.cpu_s()
        self._held = isolate.memory_bytes() or 0

    def _used(self, isolate: Isolate) -> float | None:
        """CPU seconds since the last look; None where the system does not say."""
        now_s, before_s = isolate.cpu_s(), self._cpu_s
        self._cpu_s = now_s
        return None if now_s is None or before_s is None else max(0.0, now_s - before_s)

    def _deadlines(self, now_s: float) -> None:
        settings = self._slot.limits
        total_ms, first_ms = settings.total_ms, settings.first_byte_ms
        for call, bill in self._bills.items():
            if call.lasting or bill.ended:
                continue
            ms = int((now_s - call.started_s) * 1000)
            if total_ms and ms >= total_ms:
                breach = Breach("total_ms", ms, total_ms)
                self._end(call, bill, Outcome.EXCEEDED_WALL_TIME, "it took too long", breach)
            elif total_ms and ms >= total_ms * _NEAR:
                self._warn(call, bill, Breach("total_ms", ms, total_ms))
            elif first_ms and not (call.begun or call.event) and ms >= first_ms * _NEAR:
                self._warn(call, bill, Breach("first_byte_ms", ms, first_ms))

    def _memory(self, isolate: Isolate, passed_s: float) -> float:
        """Judge what it holds; returns the seconds until the next look."""
        held = isolate.memory_bytes()
        if held is None:
            return limits.WATCH_EVERY_S.value
        grown, self._held = held - self._held, held
        most_mib = self._slot.limits.memory_mib
        room = most_mib * limits.MIB - held
        breach = Breach("memory_mib", held // limits.MIB, most_mib)
        if room < 0:
            self._kill(
                isolate, Outcome.EXCEEDED_MEMORY, f"it held {breach.used} MiB of memory", breach
            )
        elif held >= most_mib * limits.MIB * _NEAR:
            self._slot.breached("", breach, "warned")
        rate = max(0.0, grown / passed_s) if passed_s > 0 else 0.0
        if rate >= limits.MEMORY_RATE.value:
            soon = room < rate * limits.WATCH_EVERY_S.value * 2
            return limits.WATCH_CAP_S.value if soon else limits.WATCH_MEMORY_S.value
        near = room < limits.MEMORY_ROOM.value
        return limits.WATCH_MEMORY_S.value if near else limits.WATCH_EVERY_S.value

    def _heard(self, answered: int) -> bool:
        """Take note of signs of life; True while a question is open and there was none."""
        sign = self._sign
        if sign is not None and sign.done():
            self._sign = None
            failed = sign.cancelled() or sign.exception() is not None
            if self._asked_at_rest:
                self._pending = 0 if failed else sign.result()
        elif sign is not None and not answered:
            return True
        if sign is not None or answered:
            self._quiet_s = self._quiet_cpu_s = self._still_s = 0.0
        return False

    def _silence(self, used_s: float | None, passed_s: float) -> None:
        """A question is open: has one synchronous stretch used all, or does nothing move?"""
        isolate = self._isolate
        assert isolate is not None
        settings = self._slot.limits
        still = used_s is not None and used_s * 100 < passed_s * limits.STALL_CPU_SHARE.value
        self._still_s = self._still_s + passed_s if still else 0.0
        cpu_s = self._quiet_cpu_s + used_s if used_s is not None else self._quiet_s + passed_s
        wall_ms = int((self._quiet_s + passed_s) * 1000)
        if settings.cpu_ms and cpu_s * 1000 > settings.cpu_ms:
            breach = Breach("cpu_ms", int(cpu_s * 1000), settings.cpu_ms)
            reason = f"it held its thread for {breach.used} ms of CPU time"
            self._kill(isolate, Outcome.EXCEEDED_CPU, reason, breach)
        elif self._still_s >= limits.STALL_S.value:
            breach = Breach("stall_ms", wall_ms, int(limits.STALL_S.value * 1000))
            reason = f"it gave no sign of life for {wall_ms} ms"
            self._kill(isolate, Outcome.LOAD_SHED, reason, breach)
        elif settings.first_byte_ms and wall_ms >= settings.first_byte_ms:
            breach = Breach("first_byte_ms", wall_ms, settings.first_byte_ms)
            reason = f"it held its thread for {wall_ms} ms"
            self._kill(isolate, Outcome.EXCEEDED_WALL_TIME, reason, breach)

    def _charge(self, used_s: float, passed_s: float, answered: int, *, hold: bool) -> None:
        """Share out CPU time, and end whoever has used up its own.

        Args:
            hold: the thread is not free: who holds it is for `_silence` to say.
        """
        most_ms = self._slot.limits.cpu_ms
        bills = self._bills
        if not bills:
            self._after(used_s, answered)
            return
        waiting = [b for call, b in bills.items() if call.lasting or not call.begun]
        sharing = waiting or list(bills.values())
        share_s = used_s / (len(sharing) + answered)
        for bill in sharing:
            if answered:
                bill.doubtful_s += share_s
            else:
                bill.sure_s += share_s
        if not most_ms:
            return
        slack = used_s * 100 < passed_s * limits.SOCKET_CPU_SHARE.value
        doubt_s = max(most_ms, limits.CPU_DOUBT_MS.value) / 1000
        for call, bill in bills.items():
            if call.lasting and slack:
                bill.sure_s = bill.doubtful_s = 0.0
            in_all_s = bill.sure_s + bill.doubtful_s
            breach = Breach("cpu_ms", int(in_all_s * 1000), most_ms)
            if bill.sure_s * 1000 > most_ms or in_all_s > doubt_s:
                if not hold and not bill.ended:
                    self._end(call, bill, Outcome.EXCEEDED_CPU, "it used up its CPU time", breach)
            elif bill.sure_s * 1000 >= most_ms * _NEAR:
                self._warn(call, bill, breach)

    def _after(self, used_s: float, answered: int) -> None:
        """CPU time of what outlives its answer: nobody is in flight to be charged."""
        isolate, most_ms = self._isolate, self._slot.limits.cpu_ms
        if not answered:
            self._after_s += used_s
        if most_ms and isolate is not None and self._after_s * 1000 > most_ms:
            breach = Breach("cpu_ms", int(self._after_s * 1000), most_ms)
            reason = f"work after the answer used {breach.used} ms of CPU time"
            self._kill(isolate, Outcome.EXCEEDED_CPU, reason, breach)

    def _crowd(self, count: int) -> None:
        most = self._slot.limits.concurrency
        if most >= _FEW and count >= most * _NEAR:
            self._slot.breached("", Breach("concurrency", count, most), "warned")

    def _ask(self, isolate: Isolate, *, at_rest: bool) -> None:
        """Ask for life where there was none for a while, or for unfinished work."""
        if self._sign is not None:
            return
        busy = self._quiet_cpu_s * 1000 >= limits.PING_CPU_MS.value
        wait_s = limits.PING_EVERY_S.value
        if at_rest:
            wait_s = limits.WATCH_REST_ASK_S.value if self._pending > 0 else 0.0
        if busy or self._quiet_s >= wait_s:
            self._asked_at_rest = at_rest
            self._quiet_s = self._quiet_cpu_s = self._still_s = 0.0
            question = _pending(isolate) if at_rest else _ping(isolate)
            self._sign = asyncio.get_running_loop().create_task(question)
            # of an isolate that ended meanwhile nobody asks how its answer failed: no noise
            self._sign.add_done_callback(lambda sign: sign.cancelled() or sign.exception())

    # what is done

    def _kill(self, isolate: Isolate, outcome: Outcome, reason: str, breach: Breach) -> None:
        if self._killed is not isolate:
            self._killed = isolate
            self.stop()
            self._slot.kill(Ended(outcome, reason, breach))

    def _end(
        self, call: Underway, bill: _Bill, outcome: Outcome, reason: str, breach: Breach
    ) -> None:
        bill.ended = True
        self._slot.breached(call.request_id, breach, "cut")
        call.end(Ended(outcome, reason, breach))

    def _warn(self, call: Underway, bill: _Bill, breach: Breach) -> None:
        if not bill.warned:
            bill.warned = True
            self._slot.breached(call.request_id, breach, "warned")


async def _ping(isolate: Isolate) -> int:
    await isolate.ping()
    return -1


async def _pending(isolate: Isolate) -> int:
    return await isolate.pending()

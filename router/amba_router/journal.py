"""What happened: one event per invocation, told shortly after the answer, never failing it.

Holds events for `limits.JOURNAL_FLUSH_S`, so that late console lines join their invocation and
the engine's CPU time is read once per batch, not once per request.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from amba_runtime import limits
from amba_runtime.clock import Clock, SystemClock
from amba_runtime.outcome import Action, Breach, Outcome, Tell
from amba_runtime.pool import Slot

logger = logging.getLogger("amba.journal")


@dataclass(slots=True)
class Invocation:
    """One invocation, as `dev` and the logs tell it.

    Attributes:
        status: what the caller got; 0 when the caller had left, 101 for a WebSocket.
        ms: from the request's arrival to the end of its answer.
        cpu_ms: of the engine's JavaScript thread; a batch's time is shared out evenly among
            invocations that overlapped, None where the system does not say.
        tell: console lines and exceptions, stacks not yet mapped.
    """

    request_id: str
    function: str
    version: int
    method: str
    path: str
    status: int
    outcome: Outcome
    started_s: float
    ms: float
    slot: Slot | None
    tell: Tell | None = None
    cpu_ms: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class LimitEvent:
    """A limit of one function that was passed, or is near, and what was done about it.

    Attributes:
        request_id: whose breach it is; "" where no invocation is to blame.
    """

    breach: Breach
    action: Action
    project: str
    function: str
    version: int
    request_id: str


Listener = Callable[[Sequence[Invocation]], None]
LateListener = Callable[[Slot, str, Tell], None]
LimitListener = Callable[[LimitEvent], None]


class Journal:
    """Collects and hands on, a batch at a time.

    Listeners run on the event loop and must be quick; one that raises fails nobody else.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock: Clock = clock or SystemClock()
        self._waiting: dict[str, Invocation] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._listeners: list[tuple[Listener, LateListener, bool]] = []
        self._limit_listeners: list[LimitListener] = []
        # lines of those that have no answer yet; the oldest first
        self._early: dict[str, tuple[Slot, Tell]] = {}
        self._early_bytes = 0
        # what is left of those that said much, told a piece at a time
        self._rest: deque[tuple[LateListener, Slot, str, Tell]] = deque()
        self._next: asyncio.Handle | None = None
        # (project, function, limit) -> when it was warned of; bounded by `_fresh`
        self._warned: dict[tuple[str, str, str], float] = {}

    def listen(
        self,
        listener: Listener,
        late: LateListener,
        limit: LimitListener | None = None,
        *,
        pieces: bool = False,
    ) -> None:
        """`listener` gets batches of invocations, `late` lines that came after theirs was told.

        Args:
            limit: told of breaches at once, one by one.
            pieces: what it does takes long where there are many lines: it gets the first
                `limits.LOG_PIECE` of an invocation, and the others by and by as late ones.
        """
        self._listeners.append((listener, late, pieces))
        if limit is not None:
            self._limit_listeners.append(limit)

    def add(self, invocation: Invocation) -> None:
        """Note one; it is told within the flush time."""
        if len(self._waiting) >= limits.JOURNAL_EVENTS.value:
            self._tell_waiting()
        if self._early and invocation.request_id in self._early:
            _, early = self._drop_early(invocation.request_id)
            if invocation.tell is not None:
                early.extend(invocation.tell)
            invocation.tell = early
        self._waiting[invocation.request_id] = invocation
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(
                limits.JOURNAL_FLUSH_S.value, self._tell_waiting
            )

    def late(self, slot: Slot, request_id: str, tell: Tell) -> None:
        """Lines that came on no answer; those of one that has none yet are told with it."""
        under_way = slot.invocations.get(request_id)
        if under_way is not None and not under_way.begun:
            self._keep_early(slot, request_id, tell)
            return
        waiting = self._waiting.get(request_id)
        if waiting is not None:
            waiting.tell = waiting.tell or Tell()
            waiting.tell.extend(tell)
            return
        self._tell_late(slot, request_id, tell)

    def _keep_early(self, slot: Slot, request_id: str, tell: Tell) -> None:
        _, early = self._early.setdefault(request_id, (slot, Tell()))
        before = early.size
        early.extend(tell)
        self._early_bytes += early.size - before
        while self._early_bytes > limits.JOURNAL_EARLY_BYTES.value:
            oldest = next(iter(self._early))
            slot, early = self._drop_early(oldest)
            self._tell_late(slot, oldest, early)

    def _drop_early(self, request_id: str) -> tuple[Slot, Tell]:
        slot, early = self._early.pop(request_id)
        self._early_bytes -= early.size
        return slot, early

    def breach(self, slot: Slot, request_id: str, breach: Breach, action: Action) -> None:
        """Tell of a limit; a warning at most once per function, limit and minute."""
        manifest = slot.manifest
        if action == "warned" and not self._fresh(
            (manifest.project_id, manifest.name, breach.limit)
        ):
            return
        event = LimitEvent(
            breach, action, manifest.project_id, manifest.name, manifest.version, request_id
        )
        for listener in self._limit_listeners:
            try:
                listener(event)
            except Exception:  # telling fails nobody, nor the next who is told
                logger.exception("a limit of %s could not be told", manifest.name)

    def _fresh(self, what: tuple[str, str, str]) -> bool:
        now_s = self._clock.monotonic_s()
        told_s = self._warned.get(what)
        if told_s is not None and now_s - told_s < limits.WARN_EVERY_S.value:
            return False
        if len(self._warned) >= limits.BREACHES_TOLD.value:
            self._warned.clear()  # at worst a warning comes twice within the minute
        self._warned[what] = now_s
        return True

    def flush(self) -> None:
        """Tell what is waiting, all of it."""
        self._tell_waiting()
        while self._rest:
            self._tell_rest()

    def _tell_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        _share_cpu(waiting)
        told = list(waiting.values())
        for listener, late, pieces in self._listeners:
            try:
                listener(self._begin(told, late) if pieces else told)
            except Exception:  # telling fails nobody, nor the next who is told
                logger.exception("%d invocations could not be told", len(told))
        self._go_on()

    def _begin(self, told: Sequence[Invocation], late: LateListener) -> Sequence[Invocation]:
        """The same, with what is told in one go; the rest waits."""
        begun: list[Invocation] = []
        for one in told:
            pieces = [] if one.tell is None else one.tell.pieces()
            if one.slot is not None and len(pieces) > 1:
                for piece in pieces[1:]:
                    self._rest.append((late, one.slot, one.request_id, piece))
                begun.append(replace(one, tell=pieces[0]))
            else:
                begun.append(one)
        return begun

    def _tell_late(self, slot: Slot, request_id: str, tell: Tell) -> None:
        for _, late, pieces in self._listeners:
            if pieces:
                self._rest.extend((late, slot, request_id, piece) for piece in tell.pieces())
            else:
                _tell(late, slot, request_id, tell)
        if self._next is None:  # else it waits for those before it
            self._tell_rest()
        self._go_on()

    def _go_on(self) -> None:
        """With what is left: all but so much now, the rest when others have had their turn."""
        while len(self._rest) > limits.JOURNAL_PIECES.value:
            self._tell_rest()
        if self._rest and self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._tell_next)

    def _tell_next(self) -> None:
        self._next = None
        self._tell_rest()
        self._go_on()

    def _tell_rest(self) -> None:
        if self._rest:
            _tell(*self._rest.popleft())


def _tell(late: LateListener, slot: Slot, request_id: str, tell: Tell) -> None:
    try:
        late(slot, request_id, tell)
    except Exception:  # telling fails nobody, nor the next who is told
        logger.exception("lines of %s could not be told", request_id)


def _share_cpu(invocations: dict[str, Invocation]) -> None:
    by_slot: dict[int, list[Invocation]] = {}
    for invocation in invocations.values():
        if invocation.slot is not None:
            by_slot.setdefault(id(invocation.slot), []).append(invocation)
    for group in by_slot.values():
        slot = group[0].slot
        isolate = slot.isolate if slot is not None else None
        used_s = isolate.cpu_s() if isolate is not None else None
        if slot is None:
            continue
        slot.used()
        if used_s is None:
            continue
        share_ms = max(0.0, used_s - slot.cpu_seen_s) * 1000 / len(group)
        slot.cpu_seen_s = used_s
        for invocation in group:
            invocation.cpu_ms = round(share_ms, 3)

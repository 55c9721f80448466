"""One event to one function: the same routes, turns, limits and journal as a request has.

Enters architecture.md section 3 at step 4, with an event instead of a request. What becomes of
it (a retry, a dead letter, the next slot) is for whoever sent it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from amba_router.journal import Invocation, Journal
from amba_router.routes import Projects
from amba_router.verdicts import first_message
from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.engine.base import Isolate
from amba_runtime.entropy import RequestIds
from amba_runtime.errors import InternalError
from amba_runtime.outcome import ANSWERS, Breach, Ended, Event, Outcome, Tell
from amba_runtime.slot import Overloaded, Resting, Slot
from amba_runtime.trace import Hop
from amba_runtime.turnstile import Busy
from amba_runtime.wire import WireError

logger = logging.getLogger("amba.triggers")

Kind = Literal["scheduled", "queue"]

NO_WORDS = "the handler threw, or waited for something that nothing was left to bring about"
"""Of an exception that the engine has no message of: it ends a handler that cannot end."""


class NoFunction(Exception):
    """There is nothing to deliver to, in words for whoever asks why."""


class NotNow(Exception):
    """Nothing was delivered, by no fault of the function's; it can be soon.

    Attributes:
        retry_after_s: seconds.
    """

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Delivered:
    """How a delivery ended.

    Attributes:
        result: see `Event.result`; untrusted where the guest can say it.
        error: what a person wants to know of one that did not end well; "" of one that did.
    """

    request_id: str
    outcome: Outcome
    result: Mapping[str, Any]
    error: str
    tell: Tell | None
    ms: float


class Deliverer:
    """Delivers events of all projects of one server."""

    def __init__(self, projects: Projects, journal: Journal, clock: Clock) -> None:
        self._projects = projects
        self._journal = journal
        self._clock = clock
        self._ids = RequestIds()

    def slot(self, project_id: str, function: str, handler: Kind) -> Slot:
        """The version that serves now. Raises NoFunction."""
        project = self._projects.by_id(project_id)
        route = None if project is None else project.routes.get(function.encode())
        slot = None if route is None else route.slot
        if route is None or slot is None:
            raise NoFunction(f"no function is called {function!r}")
        if route.handlers is not None and handler not in route.handlers:
            raise NoFunction(f"the function {function!r} has no {handler} handler")
        return slot

    @contextlib.asynccontextmanager
    async def turn(
        self, project_id: str, function: str, handler: Kind, what: str
    ) -> AsyncGenerator[Delivery]:
        """A place for one delivery, held while the block runs.

        Args:
            what: the queue's name, or the cron expression: as the journal tells it.

        Raises:
            NoFunction: see `slot`.
            NotNow: the function, its project or the node is full.
        """
        slot = self.slot(project_id, function, handler)
        now_s = self._clock.time_s()
        call = Delivery(
            self._ids.new(now_s),
            slot,
            handler,
            what,
            now_s,
            journal=self._journal,
            clock=self._clock,
        )
        try:
            if not slot.try_enter(call):
                await slot.enter_in_turn(call)
        except Busy as busy:
            raise NotNow(str(busy), busy.retry_after_s) from None
        except Overloaded:
            raise NotNow("the function is full", 1) from None
        except asyncio.CancelledError:
            if slot.invocations.get(call.request_id) is call:
                slot.leave(call)  # its turn had come in that moment
            raise
        try:
            yield call
        finally:
            slot.leave(call)


class Delivery:
    """One event under way: an `Underway` of its slot.

    Attributes:
        ended: why it was ended before its time; set by `end`.
    """

    def __init__(
        self,
        request_id: str,
        slot: Slot,
        kind: Kind,
        what: str,
        now_s: float,
        *,
        journal: Journal,
        clock: Clock,
    ) -> None:
        self.request_id = request_id
        self.slot = slot
        self.hop: Hop | None = None
        self._tell = Tell()
        self.ended: Ended | None = None
        self.started_s = clock.monotonic_s()
        self._kind = kind
        self._what = what
        self._now_s = now_s
        self._journal = journal
        self._clock = clock
        self._work: asyncio.Future[Event] | None = None

    # as its slot sees it

    @property
    def begun(self) -> bool:
        """It has no answer that could begin."""
        return False

    @property
    def lasting(self) -> bool:
        """It is billed all the while."""
        return False

    @property
    def event(self) -> bool:
        """It is one."""
        return True

    def end(self, ended: Ended) -> None:
        """See `Underway.end`."""
        if self.ended is None:
            self.ended = ended
            if self._work is not None:
                self._work.cancel()

    # what it does

    async def send(self, work: Callable[[Isolate, Tell], Awaitable[Event]]) -> Delivered:
        """Deliver, and wait for the end; however it ends, the journal is told.

        Args:
            work: `Isolate.scheduled` or `Isolate.queue`, which is to tell of lines as they come.

        Raises:
            NotNow: no isolate can be had now; nothing was delivered, and nothing is told.
        """
        self.started_s = self._clock.monotonic_s()  # what it waited for its turn is not its time
        try:
            isolate = await self.slot.ready()
        except Resting as error:
            raise NotNow(str(error), error.retry_after_s) from None
        except Overloaded:
            raise NotNow("the server has no room for another function", 1) from None
        except WireError as error:
            if self.slot.retired:
                raise NotNow("another version serves by now", 0) from None
            return self._told(Outcome.INTERNAL_ERROR, {}, str(error), None)
        event: Event | None = None
        error_text = ""
        try:
            if self.ended is None:  # else while it waited for its isolate
                event = await self._within(work(isolate, self._tell))
        except (WireError, InternalError) as error:
            error_text = str(error)
        if event is not None:
            self.slot.answers += 1
            outcome = event.outcome
            return self._told(outcome, event.result, _error(outcome, event.tell), event.tell)
        ended = self.ended or await self.slot.cause(isolate)
        outcome = Outcome.INTERNAL_ERROR if ended is None else ended.outcome
        reason = error_text if ended is None else ended.reason
        if ended is None or ended.breach is None:
            logger.warning("%s: %s", self.slot.manifest.name, reason)
        return self._told(outcome, {}, reason, self._tell)

    async def _within(self, work: Awaitable[Event]) -> Event | None:
        """Its result; None when it was ended for a limit of its own."""
        most_ms = limits.EVENT_MS.value
        if self.slot.limits.total_ms:
            most_ms = min(most_ms, self.slot.limits.total_ms)
        self._work = asyncio.ensure_future(work)
        late = asyncio.ensure_future(self._clock.sleep(most_ms / 1000))
        try:
            await asyncio.wait({self._work, late}, return_when=asyncio.FIRST_COMPLETED)
            if not self._work.done() and self.ended is None:
                breach = Breach("total_ms", most_ms, most_ms)
                self.slot.breached(self.request_id, breach, "cut")
                self.end(Ended(Outcome.EXCEEDED_WALL_TIME, "it took too long", breach))
            if self.ended is not None:
                return None
            return await self._work
        finally:
            late.cancel()
            self._work.cancel()
            await asyncio.wait({self._work})

    def _told(
        self, outcome: Outcome, result: Mapping[str, Any], error: str, tell: Tell | None
    ) -> Delivered:
        slot = self.slot
        answer = ANSWERS.get(outcome)
        ms = (self._clock.monotonic_s() - self.started_s) * 1000
        self._journal.add(
            Invocation(
                self.request_id,
                slot.manifest.name,
                slot.manifest.version,
                self._kind.upper(),
                self._what,
                200 if outcome is Outcome.OK else 0 if answer is None else answer.status,
                outcome,
                self._now_s,
                ms,
                slot,
                tell,
                note="" if tell is not None and tell.exceptions else error,
            )
        )
        return Delivered(self.request_id, outcome, result, error, tell, ms)


def _error(outcome: Outcome, tell: Tell) -> str:
    if outcome is Outcome.OK:
        return ""
    if outcome is Outcome.EXCEPTION:  # without a message: the engine saw that it cannot end
        return first_message(tell) or NO_WORDS
    answer = ANSWERS.get(outcome)
    return first_message(tell) or ("" if answer is None else answer.message) or outcome.value

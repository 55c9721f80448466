"""One invocation by HTTP: acquire, invoke, answer, tell.

The whole trust decision is `_stamped`. Steps 3 to 12 of architecture.md section 3.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from amba_router.asgi import Receive, Scope, Send
from amba_router.headers import stamp_lines, strip
from amba_router.hosts import Site
from amba_router.journal import Invocation, Journal
from amba_router.problem import BAD_REQUEST, Problem
from amba_router.relay import Relay, RelayFailed, Whole
from amba_router.routes import Project
from amba_router.signing import Stamp
from amba_router.sockets import relay_socket
from amba_router.verdicts import (
    NOT_PASSED_ON,
    Fields,
    body_breach,
    body_length,
    body_too_large,
    first_message,
    head_breach,
    head_too_large,
    loop_breach,
    looping,
    read_head,
    stalled,
)
from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.engine.base import Exchange, Refused
from amba_runtime.outcome import ANSWERS, Action, Breach, Ended, Outcome, Tell
from amba_runtime.pool import Overloaded, Resting, Slot
from amba_runtime.trace import Hop
from amba_runtime.turnstile import Busy
from amba_runtime.wire import NothingSentError, WireError, parse_lines, render

logger = logging.getLogger("amba.dispatch")


def _stamped(
    fields: Fields,
    project: Project,
    slot: Slot,
    site: Site,
    peer: str,
    request_id: str,
    now_s: float,
) -> bytes:
    """Strip, resolve, stamp: what the worker sees of the caller's headers, and what we say.

    Every value below comes from routing, credentials and the clock, never from a header.
    Source: contract A.3, A.4.
    """
    kept = strip(fields)
    who = project.identities.of(kept)
    name = slot.manifest.name
    stamp = Stamp(project.id, who.user_id, who.developer_id, request_id, name, int(now_s))
    return render(kept) + stamp_lines(
        authority=site.authority,
        peer=peer.encode(),
        project_id=project.id_bytes,
        user_id=who.user_id.encode(),
        developer_id=who.developer_id.encode(),
        function_name=slot.name_bytes,
        request_id=request_id.encode(),
        timestamp=b"%d" % stamp.timestamp_s,
        signature=project.keyring.sign(stamp).encode(),
    )


class Call:
    """One invocation by HTTP: acquire, invoke, answer, tell. An `Underway` of its slot.

    Attributes:
        ended: why it was ended before its time; set by `end`.
        relay: what moves it, once it takes the long way.
    """

    __slots__ = (
        "clock",
        "ended",
        "fields",
        "hop",
        "journal",
        "now_s",
        "project",
        "relay",
        "request_id",
        "scope",
        "site",
        "slot",
        "started_s",
        "target",
    )

    def __init__(
        self,
        project: Project,
        slot: Slot,
        site: Site,
        scope: Scope,
        fields: Fields,
        target: bytes,
        request_id: str,
        now_s: float,
        *,
        clock: Clock,
        journal: Journal,
        hop: Hop | None = None,
    ) -> None:
        self.clock = clock
        self.journal = journal
        self.hop = hop
        self.ended: Ended | None = None
        self.relay: Relay | _SocketTask | None = None
        self.project = project
        self.slot = slot
        self.site = site
        self.scope = scope
        self.fields = fields
        self.target = target
        self.request_id = request_id
        self.now_s = now_s
        self.started_s = clock.monotonic_s()

    def stamped(self) -> bytes:
        return _stamped(
            self.fields,
            self.project,
            self.slot,
            self.site,
            peer_of(self.scope),
            self.request_id,
            self.now_s,
        )

    # as its slot sees it

    @property
    def begun(self) -> bool:
        """The answer has begun."""
        return self.relay is not None and self.relay.begun

    @property
    def lasting(self) -> bool:
        """It is a WebSocket."""
        return isinstance(self.relay, _SocketTask)

    def end(self, ended: Ended) -> None:
        """See `Underway.end`; one that has no way yet is ended when it gets one."""
        if self.ended is None:
            self.ended = ended
            if self.relay is not None:
                self.relay.end()

    def breached(self, breach: Breach, action: Action) -> None:
        """Tell of a limit that it met."""
        self.journal.breach(self.slot, self.request_id, breach, action)

    # the long way

    async def fetch(self, receive: Receive, send: Send) -> None:
        """Answer one request, whatever that takes."""
        length = body_length(self.fields)
        if length == -1:
            await BAD_REQUEST.answer(send, self.request_id)
            return
        most = self.slot.limits.request_body_bytes
        if length is not None and length > most:
            self.breached(body_breach(length, most), "refused")
            await self.refuse(send, Outcome.CANCELED, body_too_large(most))
            return
        if not await self._enter(send):
            return
        slot = self.slot
        try:
            exchange = await self._begin(length)
        except Overloaded:
            slot.leave(self)
            await self.refuse(send, Outcome.LOAD_SHED, None)
            return
        except TimeoutError:
            slot.leave(self)
            if self.ended is None:
                name = self._first_limit()
                most = int(getattr(slot.limits, name))
                self.breached(Breach(name, most, most), "cut")
            await self.refuse(send, Outcome.EXCEEDED_WALL_TIME, None)
            return
        except WireError as error:
            slot.leave(self)
            await self._unreachable(send, error)
            return
        except BaseException:
            slot.leave(self)
            raise
        relay = Relay(exchange, receive, send, limits=slot.limits, whole=self._whole())
        await self.follow(relay, length)

    async def _enter(self, send: Send) -> bool:
        """Be under way; False where that was refused, and answered."""
        hop = self.hop
        if hop is not None:
            breach = loop_breach(hop, self.slot.limits.trace_depth)
            if breach is not None:
                self.breached(breach, "refused")
                await self.refuse(send, Outcome.CANCELED, looping(breach))
                return False
        if self.slot.try_enter(self):
            return True
        try:
            await self.slot.enter_in_turn(self)
        except Busy as busy:
            if busy.breach is not None:
                self.breached(busy.breach, "refused")
            problem = Problem(
                busy.status, busy.code, "internal", str(busy), retry_after_s=busy.retry_after_s
            )
            await self.refuse(send, Outcome.LOAD_SHED, problem)
            return False
        except Overloaded:
            await self.refuse(send, Outcome.LOAD_SHED, None)
            return False
        return True

    async def follow(self, relay: Relay, length: int | None) -> None:
        """See a request through whose head was sent: body, answer, retry, end."""
        slot = self.slot
        try:
            self._goes_by(relay)
            if length != 0:
                await relay.send_body(length)
            try:
                await relay.wait_head()
            except NothingSentError:
                if length != 0 or relay.gone or relay.timed_out or self.ended is not None:
                    raise
                # the engine had closed this connection before it took the request
                relay.stop()
                relay = relay.again(await slot.exchange(fresh=True))
                self._goes_by(relay)
                self._send_head(relay.exchange, length)
                await relay.wait_head()
            slot.answers += 1
            await self._answer(relay)
        except RelayFailed as failure:
            if failure.breach is not None:
                self.breached(failure.breach, "refused")
            await self.refuse(relay.send, failure.outcome, failure.problem)
        except Resting as error:
            await self._unreachable(relay.send, error)
        except Overloaded:
            await self.refuse(relay.send, Outcome.LOAD_SHED, None)
        except WireError as error:
            await self._broken(relay, relay.send, error)
        finally:
            slot.leave(self)
            relay.stop()

    def _goes_by(self, relay: Relay) -> None:
        self.relay = relay
        if self.ended is not None:  # meanwhile
            relay.end()

    def _whole(self) -> Whole | None:
        extensions: dict[str, Any] | None = self.scope.get("extensions")
        return extensions.get("amba.whole") if extensions else None

    def express(self, done: Callable[[Call], None]) -> Exchange | None:
        """Send a request that has no body over a connection at hand, without waiting.

        Args:
            done: called once, when the answer has begun or failed.

        Returns:
            None, and nothing was done, where this needs to wait or to be refused.
        """
        slot = self.slot
        if body_length(self.fields) != 0 or not slot.try_enter(self):
            return None
        exchange = slot.idle()
        if exchange is None:
            slot.leave(self)
            return None
        try:
            self._send_head(exchange, 0)
        except Exception:
            slot.leave(self)
            exchange.abort()
            return None  # the long way meets the same fault, and has the words for it
        exchange.notify(lambda: done(self))
        return exchange

    def finish(self, exchange: Exchange, whole: Whole) -> bool:
        """Pass on an answer that is here whole.

        Returns:
            False, and nothing was done, for any other: `follow` takes it from here.

        Raises:
            Exception: `whole` failed; the event is told, and the connection given back.
        """
        if not exchange.complete:
            return False
        slot = self.slot
        try:
            outcome, tell, out, size = read_head(exchange.headers, slot.tell_header)
        except Exception:
            return False  # `follow` meets the same fault, where it can be answered
        if outcome is not Outcome.OK or size > slot.limits.response_header_bytes:
            return False
        if len(out) > limits.RESPONSE_HEADERS.value:
            return False
        status = exchange.status
        body = exchange.take()
        exchange.release()
        slot.answers += 1
        slot.leave(self)
        try:
            if not whole(status, out, body):
                status, outcome = 0, Outcome.CANCELED
        except Exception:
            self.tell(0, Outcome.INTERNAL_ERROR, tell)
            raise
        self.tell(status, outcome, tell)
        return True

    def _send_head(self, exchange: Exchange, length: int | None) -> None:
        method: str = self.scope["method"]
        exchange.begin(method.encode(), self.target, self.stamped(), length)

    async def _begin(self, length: int | None) -> Exchange:
        exchange = self.slot.idle() or await self._exchange()
        try:
            self._send_head(exchange, length)
        except BaseException:
            exchange.abort()
            raise
        return exchange

    async def _exchange(self) -> Exchange:
        """A way to send the request, perhaps of an isolate that starts for it.

        Raises:
            TimeoutError: the function's first byte would come too late.
        """
        most_ms = int(getattr(self.slot.limits, self._first_limit()))
        async with asyncio.timeout(most_ms / 1000 if most_ms else None):
            return await self.slot.exchange()

    def _first_limit(self) -> str:
        """Which setting ends a wait for the first byte."""
        settings = self.slot.limits
        first_ms, total_ms = settings.first_byte_ms, settings.total_ms
        return "total_ms" if total_ms and (not first_ms or total_ms < first_ms) else "first_byte_ms"

    async def _answer(self, relay: Relay) -> None:
        """The guest's answer, or the one its outcome has; then the event."""
        exchange = relay.exchange
        outcome, tell, out, size = read_head(exchange.headers, self.slot.tell_header)
        if relay.gone:
            self.tell(0, Outcome.CANCELED, tell)
            return
        if outcome is not Outcome.OK:
            relay.discard()
            await self.refuse(relay.send, outcome, None, tell=tell)
            return
        breach = head_breach(len(out), size, self.slot.limits.response_header_bytes)
        if breach is not None:
            relay.discard()
            self.breached(breach, "refused")
            await self.refuse(relay.send, Outcome.INTERNAL_ERROR, head_too_large(breach), tell=tell)
            return
        status = exchange.status
        note = ""
        try:
            await relay.answer(status, out)
        except WireError as error:
            if self.ended is not None or relay.timed_out:
                outcome = self._cut(relay)
            elif not relay.gone:
                ended = await self.slot.cause()
                outcome = Outcome.RESPONSE_STREAM_DISCONNECTED
                if ended is not None and ended.breach is not None:
                    outcome, note = ended.outcome, ended.reason
                else:
                    logger.warning("%s: the answer broke off: %s", self.slot.manifest.name, error)
        if relay.gone:
            outcome = Outcome.CANCELED
        self.tell(status, outcome, tell, note=note)

    def _cut(self, relay: Relay) -> Outcome:
        """The outcome of an invocation that passed a limit of its own."""
        if self.ended is not None:
            return self.ended.outcome
        if relay.breach is not None:
            self.breached(relay.breach, "cut")
        return Outcome.EXCEEDED_WALL_TIME

    async def _broken(self, relay: Relay, send: Send, error: WireError) -> None:
        if relay.gone:
            self.tell(0, Outcome.CANCELED, None)
        elif self.ended is not None or relay.timed_out:
            await self.refuse(send, self._cut(relay), None)
        else:
            ended = await self.slot.cause()
            note = str(error) if ended is None else ended.reason
            if ended is None or ended.breach is None:  # a limit is told as one event of its own
                logger.warning("%s: %s", self.slot.manifest.name, note)
            outcome = Outcome.INTERNAL_ERROR if ended is None else ended.outcome
            await self.refuse(send, outcome, stalled(ended), note=note)

    async def refuse(
        self,
        send: Send,
        outcome: Outcome,
        problem: Problem | None,
        *,
        tell: Tell | None = None,
        note: str = "",
    ) -> None:
        """Answer for the guest: by its outcome's row, or with a problem of our own."""
        if problem is None:
            answer = ANSWERS[outcome]
            problem = Problem(
                answer.status,
                answer.code,
                answer.kind,
                first_message(tell) or answer.message,
                retry_after_s=1 if outcome is Outcome.LOAD_SHED else None,
            )
        await problem.answer(send, self.request_id, head=self.scope.get("method") == "HEAD")
        self.tell(problem.status, outcome, tell, note=note)

    def tell(self, status: int, outcome: Outcome, tell: Tell | None, *, note: str = "") -> None:
        slot = self.slot
        self.journal.add(
            Invocation(
                self.request_id,
                slot.manifest.name,
                slot.manifest.version,
                self.scope.get("method", "GET"),
                self.target.decode("latin-1"),
                status,
                outcome,
                self.now_s,
                (self.clock.monotonic_s() - self.started_s) * 1000,
                slot,
                tell,
                note=note,
            )
        )

    async def socket(self, receive: Receive, send: Send) -> None:
        """A WebSocket: the same trust path, then messages both ways."""
        if not await self._enter(send):
            return
        slot = self.slot
        self.relay = _SocketTask(asyncio.current_task())
        try:
            isolate = await slot.ready()
            fields = [
                f for f in parse_lines(self.stamped()) if not f[0].startswith(b"sec-websocket-")
            ]
            status, outcome = await relay_socket(
                isolate,
                self.target,
                fields,
                self.scope["subprotocols"],
                receive,
                send,
                not_passed_on=NOT_PASSED_ON,
            )
            note = ""
            if outcome is Outcome.OK and not isolate.alive:
                ended = await slot.cause(isolate)
                if ended is not None:
                    outcome, note = ended.outcome, ended.reason
            self.tell(status, outcome, None, note=note)
        except Refused as refusal:
            await self._refused(send, refusal)
        except Overloaded:
            await self.refuse(send, Outcome.LOAD_SHED, None)
        except WireError as error:
            await self._unreachable(send, error)
        except asyncio.CancelledError:
            if self.ended is None or not self.relay.ended:
                raise
            # ours alone, and taken back
            with contextlib.suppress(OSError):
                await send({"type": "websocket.close", "code": 1011, "reason": "a limit"})
            self.tell(101, self.ended.outcome, None)
        finally:
            slot.leave(self)

    async def _refused(self, send: Send, refusal: Refused) -> None:
        """The guest answered a WebSocket request with an ordinary response, or threw."""
        outcome, tell, fields, size = read_head(refusal.headers, self.slot.tell_header)
        if outcome is not Outcome.OK:
            await self.refuse(send, outcome, None, tell=tell)
            return
        breach = head_breach(len(fields), size, self.slot.limits.response_header_bytes)
        if breach is not None:
            self.breached(breach, "refused")
            await self.refuse(send, Outcome.INTERNAL_ERROR, head_too_large(breach), tell=tell)
            return
        start = {"type": "http.response.start", "status": refusal.status, "headers": fields}
        await send(start)
        await send({"type": "http.response.body", "body": refusal.body})
        self.tell(refusal.status, outcome, tell)

    async def _unreachable(self, send: Send, error: WireError) -> None:
        """No isolate took the request: the engine is gone, or rests after too many ends."""
        logger.warning("%s: %s", self.slot.manifest.name, error)
        if isinstance(error, Resting):
            problem = Problem(
                503, "overloaded", "internal", str(error), retry_after_s=error.retry_after_s
            )
            await self.refuse(send, Outcome.LOAD_SHED, problem)
            return
        await self.refuse(send, Outcome.INTERNAL_ERROR, None)


def peer_of(scope: Scope) -> str:
    """The caller's address, as the worker is told it. Source: contract H-3, D.8."""
    client = scope.get("client")
    return client[0] if client else "127.0.0.1"


class _SocketTask:
    """What moves a WebSocket: the task that relays it."""

    begun = True

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self.ended = False
        self._task = task

    def end(self) -> None:
        """Break off."""
        if self._task is not None and self._task.cancel():
            self.ended = True
            self._task.uncancel()

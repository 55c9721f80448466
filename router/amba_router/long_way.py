"""The long way of one invocation by HTTP: a turn, a body, a stream, a retry, a refusal.

What `call` does at once and most requests need is there; everything that waits is here.
Steps 5 to 12 of architecture.md section 3.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from amba_router.ahead import Ahead
from amba_router.asgi import Receive, Send
from amba_router.invoked import Invoked
from amba_router.problem import BAD_REQUEST
from amba_router.relay import Relay, RelayFailed, Whole
from amba_router.verdicts import (
    body_breach,
    body_length,
    body_too_large,
    full,
    head_breach,
    head_too_large,
    loop_breach,
    looping,
    read_head,
    resting,
    stalled,
)
from amba_runtime.engine.base import Exchange
from amba_runtime.outcome import Breach, Outcome
from amba_runtime.slot import Overloaded, Resting
from amba_runtime.turnstile import Busy
from amba_runtime.wire import NothingSentError, WireError

logger = logging.getLogger("amba.dispatch")


class LongWay(Invoked):
    """What an invocation does when it cannot be answered at once. A part of `call.Call`."""

    __slots__ = ()

    def stamped(self) -> bytes:
        """The header fields that the worker sees, as lines."""
        raise NotImplementedError

    def _send_head(self, exchange: Exchange, length: int | None) -> None:
        raise NotImplementedError

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
        entered = await self.enter(receive, send)
        if entered is None:
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
            await self.unreachable(send, error)
            return
        except BaseException:
            slot.leave(self)
            raise
        relay = Relay(exchange, entered, send, limits=slot.limits, whole=self._whole())
        await self.follow(relay, length)

    async def enter(self, receive: Receive, send: Send) -> Receive | None:
        """Be under way, waiting for a turn where that helps.

        Returns:
            What to receive from, from now on; None where that was refused, and answered, or
            the client left while it waited.
        """
        hop = self.hop
        if hop is not None:
            breach = loop_breach(hop, self.slot.limits.trace_depth)
            if breach is not None:
                self.breached(breach, "refused")
                await self.refuse(send, Outcome.CANCELED, looping(breach))
                return None
        if self.slot.try_enter(self):
            return receive
        # to read from a client that waits for our word would be to ask for its body
        expects = any(name == b"expect" for name, _ in self.fields)
        ahead = Ahead(receive)
        try:
            if await ahead.outlasts(self.slot.enter_in_turn(self), read=not expects):
                return ahead.receive
            self.tell(0, Outcome.CANCELED, None, note="its client left while it waited")
        except Busy as busy:
            await self.crowded(send, busy)
        except Overloaded:
            await self.refuse(send, Outcome.LOAD_SHED, None)
        except asyncio.CancelledError:
            if self.slot.invocations.get(self.request_id) is self:
                self.slot.leave(self)  # its turn had come in that moment
            raise
        return None

    async def crowded(self, send: Send, busy: Busy) -> None:
        """Tell a caller that there is no place, and when to come back."""
        if busy.breach is not None:
            self.breached(busy.breach, "refused")
        await self.refuse(send, Outcome.LOAD_SHED, full(busy))

    async def follow(self, relay: Relay, length: int | None) -> None:
        """See a request through whose head was sent: body, answer, retry, end."""
        slot = self.slot
        try:
            self.goes_by(relay)
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
                self.goes_by(relay)
                self._send_head(relay.exchange, length)
                await relay.wait_head()
            slot.answers += 1
            await self._answer(relay)
        except RelayFailed as failure:
            if failure.breach is not None:
                self.breached(failure.breach, "refused")
            await self.refuse(relay.send, failure.outcome, failure.problem)
        except Resting as error:
            await self.unreachable(relay.send, error)
        except Overloaded:
            await self.refuse(relay.send, Outcome.LOAD_SHED, None)
        except WireError as error:
            await self._broken(relay, relay.send, error)
        finally:
            slot.leave(self)
            relay.stop()

    def _whole(self) -> Whole | None:
        extensions: dict[str, Any] | None = self.scope.get("extensions")
        return extensions.get("amba.whole") if extensions else None

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

    async def unreachable(self, send: Send, error: WireError) -> None:
        """No isolate took the request: the engine is gone, or rests after too many ends."""
        logger.warning("%s: %s", self.slot.manifest.name, error)
        if isinstance(error, Resting):
            await self.refuse(send, Outcome.LOAD_SHED, resting(error))
            return
        await self.refuse(send, Outcome.INTERNAL_ERROR, None)

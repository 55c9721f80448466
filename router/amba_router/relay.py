"""Moving one exchange between an ASGI server and a guest, streaming both ways.

Costs nothing it does not need: a small request with a whole answer starts no task. A client
that leaves ends the guest's work; a guest that is silent too long is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from amba_router.asgi import Message, Receive, Send
from amba_router.problem import PAYLOAD_TOO_LARGE, Problem
from amba_runtime import limits as numbers
from amba_runtime.engine.base import Exchange
from amba_runtime.limits import FunctionLimits
from amba_runtime.outcome import Breach, Outcome
from amba_runtime.wire import Headers, WireError

Whole = Callable[[int, Headers, bytes], bool]
"""Sends a complete answer (status, headers, body) and tells whether the client was there.

The edge offers it as the ASGI extension `amba.whole`.
"""


class RelayFailed(Exception):
    """Ended before the guest answered, through the caller's fault: answer with `problem`."""

    def __init__(self, outcome: Outcome, problem: Problem, breach: Breach | None = None) -> None:
        super().__init__(problem.message)
        self.breach = breach
        self.outcome = outcome
        self.problem = problem


class Relay:
    """One request's way through. `stop` at the end, always.

    Args:
        since_s: when the request was sent, on the loop's clock, for the first byte's deadline;
            0.0 for now.

    Attributes:
        gone: the client left; set by whoever reads from it (`_pump` or `_watch`).
        timed_out: a deadline passed, which `breach` names; set by `_tick`.
        begun: the answer has begun.
    """

    __slots__ = (
        "_cut",
        "_deadline_s",
        "_ended",
        "_first_byte_s",
        "_idle_s",
        "_limits",
        "_loop",
        "_reader",
        "_receive",
        "_released",
        "_sender",
        "_since_s",
        "_timer",
        "_uploaded",
        "_whole",
        "begun",
        "breach",
        "exchange",
        "gone",
        "send",
        "timed_out",
        "too_large",
    )

    def __init__(
        self,
        exchange: Exchange,
        receive: Receive,
        send: Send,
        *,
        limits: FunctionLimits,
        whole: Whole | None = None,
        since_s: float = 0.0,
    ) -> None:
        self.exchange = exchange
        self.send = send
        self.gone = False
        self.timed_out = False
        self.too_large = False
        self.begun = False
        self.breach: Breach | None = None
        self._ended = False
        self._receive = receive
        self._limits = limits
        self._whole = whole
        self._since_s = since_s
        self._uploaded = True
        self._released = False
        self._reader: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cut: asyncio.TimerHandle | None = None
        self._sender: asyncio.Task[Any] | None = None
        self._loop = asyncio.get_running_loop()
        self._deadline_s = 0.0
        self._first_byte_s = 0.0
        self._idle_s = limits.idle_ms / 1000

    def again(self, exchange: Exchange) -> Relay:
        """The same request over another connection."""
        return Relay(
            exchange,
            self._receive,
            self.send,
            limits=self._limits,
            whole=self._whole,
            since_s=self._since_s,
        )

    # request body

    async def send_body(self, length: int | None) -> None:
        """Pass the body on: at once when it is here, in a task of its own while it is coming.

        Does not wait for the client: a guest may answer before it has the body, or without it.
        """
        waiting = self._receive().__await__()
        try:
            pending = next(waiting)
        except StopIteration as here:
            message: Message = here.value
            if message["type"] == "http.request" and not message.get("more_body", False):
                self.exchange.write(message.get("body", b""))
                self.exchange.end()
                return
            coming: Awaitable[Message] = _Here(message)
        else:
            coming = _Begun(waiting, pending)
        self._uploaded = False
        self._reader = self._loop.create_task(self._pump(coming))

    async def _pump(self, coming: Awaitable[Message]) -> None:
        most = self._limits.request_body_bytes
        size = 0
        exchange = self.exchange
        try:
            while True:
                message = await coming
                if message["type"] == "http.disconnect":
                    self.gone = True
                    # the guest's body promise rejects; what it makes of that is soon ended
                    exchange.cut()
                    self._cut = self._loop.call_later(numbers.CUT_BODY_S.value, self._abort)
                    return
                body: bytes = message.get("body", b"")
                size += len(body)
                if size > most:
                    self.too_large = True
                    exchange.abort()
                    return
                exchange.write(body)
                if not message.get("more_body", False):
                    exchange.end()
                    self._uploaded = True
                    break
                await exchange.drain()
                if self._first_byte_s:  # the guest cannot be late while its input is coming
                    self._deadline_s = self._loop.time() + self._first_byte_s
                coming = self._receive()
        except WireError:
            return  # whoever waits for the answer learns of it
        await self._watch()

    async def _watch(self) -> None:
        """Wait for the client to leave; end the guest's work when it does."""
        message: Message = await self._receive()
        while message["type"] != "http.disconnect":
            message = await self._receive()
        self.gone = True
        self._abort()

    def _abort(self) -> None:
        """End the guest's work, unless its connection was given back: it is not ours any more."""
        if not self._released:
            self.exchange.abort()

    # answer

    async def wait_head(self) -> None:
        """Until status and headers are there.

        Raises:
            RelayFailed: the body passed the limit.
            WireError: the engine ended, the client left (`gone`) or time ran out (`timed_out`).
        """
        head = self.exchange.head()
        if not head.done():
            self._first_byte_s = first_byte_s = self._limits.first_byte_ms / 1000
            if first_byte_s:
                self._deadline_s = (self._since_s or self._loop.time()) + first_byte_s
            self._timer = self._loop.call_later(numbers.DISCONNECT_WATCH_S.value, self._tick)
        try:
            await head
        except WireError:
            if self.too_large:
                most = self._limits.request_body_mib
                problem = Problem(
                    PAYLOAD_TOO_LARGE.status,
                    PAYLOAD_TOO_LARGE.code,
                    PAYLOAD_TOO_LARGE.kind,
                    f"the request body is larger than {most} MiB",
                    {"limit": "request_body_mib", "bytes_max": self._limits.request_body_bytes},
                )
                breach = Breach("request_body_mib", most + 1, most)
                raise RelayFailed(Outcome.CANCELED, problem, breach) from None
            raise
        self._disarm()

    def _tick(self) -> None:
        """The grace is over: watch for the client from here on, and keep the deadline."""
        if self._reader is None:
            self._reader = self._loop.create_task(self._watch())
        if self._deadline_s:
            left_s = self._deadline_s - self._loop.time()
            if left_s <= 0:
                self.timed_out = True
                name = "idle_ms" if self.begun else "first_byte_ms"
                most = self._limits.idle_ms if self.begun else self._limits.first_byte_ms
                self.breach = Breach(name, most - int(left_s * 1000), most)
                self.end()
                return
            self._timer = self._loop.call_later(left_s, self._tick)

    def end(self) -> None:
        """Break off: whoever waits for the guest, or for the client, gets a WireError."""
        self._ended = True
        self._abort()
        sender, self._sender = self._sender, None
        if sender is not None and sender.cancel():
            sender.uncancel()  # ours alone: `_pass_on` turns it into an error

    def _disarm(self) -> None:
        self._first_byte_s = 0.0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def answer(self, status: int, headers: Headers) -> None:
        """Send the guest's answer, then give the connection back.

        Raises:
            WireError: the body broke off, or the guest was silent too long. The caller's
                connection is then left incomplete, which the server makes visible on the wire.
        """
        exchange = self.exchange
        send = self.send
        self.begun = True
        if exchange.complete:
            body = exchange.take()
            self._release()
            if self._whole is not None:
                self.gone = not self._whole(status, headers, body)
                return
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if self._reader is None:
            self._reader = self._loop.create_task(self._watch())
        if self._idle_s:
            self._deadline_s = self._loop.time() + self._idle_s
            self._timer = self._loop.call_later(self._idle_s, self._tick)
        # the head goes out now, also when the guest takes its time with the body
        await self._pass_on(exchange.take())
        while body := await exchange.read():
            await self._pass_on(body)
        self._disarm()
        await send({"type": "http.response.body", "body": b""})
        self._release()

    async def _pass_on(self, body: bytes) -> None:
        """Send a piece and start the idle clock anew; a caller that takes none is cut off too."""
        self._sender = asyncio.current_task()
        try:
            await self.send({"type": "http.response.body", "body": body, "more_body": True})
        except asyncio.CancelledError:
            if self._sender is not None or not self._ended:
                raise
            raise WireError("the caller does not read") from None
        finally:
            self._sender = None
        if self._idle_s:
            self._deadline_s = self._loop.time() + self._idle_s

    def discard(self) -> None:
        """The guest's answer is not wanted."""
        if self.exchange.complete:
            self._release()

    def _release(self) -> None:
        self._released = True  # from here on the connection may serve somebody else
        if self._uploaded:
            self.exchange.release()
        else:
            self.exchange.abort()  # the guest answered without reading all: cannot be reused

    def stop(self) -> None:
        """End what still runs on this request's behalf. Idempotent."""
        self._disarm()
        if self._cut is not None:
            self._cut.cancel()
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None
        if not self._released:
            self.exchange.abort()


class _Begun:
    """A wait whose first step was taken outside the task that ends it.

    Args:
        waiting: suspended on `pending`, the future that it had yielded.
    """

    __slots__ = ("_pending", "_waiting")

    def __init__(self, waiting: Generator[Any, None, Message], pending: object) -> None:
        self._waiting = waiting
        self._pending = pending

    def __await__(self) -> Generator[Any, None, Message]:
        yield self._pending
        return (yield from self._waiting)


class _Here:
    """A message that is there already, where one is waited for."""

    __slots__ = ("_message",)

    def __init__(self, message: Message) -> None:
        self._message = message

    def __await__(self) -> Generator[Any, None, Message]:
        return self._message
        yield  # makes this a generator

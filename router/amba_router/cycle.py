"""One request of a client connection, and its answer: what stands between uvicorn and the app.

Source: ASGI 3.0; reliability.md 3.A rows A9, A11 and A13.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from amba_router.asgi import App
from amba_router.patience import reset
from amba_router.problem import INTERNAL
from amba_runtime import limits
from amba_runtime.wire import Headers

if TYPE_CHECKING:
    from amba_router.edge import EdgeProtocol

logger = logging.getLogger("amba.edge")


class _Signal:
    """What asyncio.Event does, for one waiter and without its cost per request."""

    __slots__ = ("_set", "_waiter")

    def __init__(self) -> None:
        self._set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        self._set = False

    async def wait(self) -> bool:
        if not self._set:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return True


class Cycle(RequestResponseCycle):
    """One request and its answer; head and first body bytes leave in one write.

    The head waits for the first `http.response.body`, as ASGI lets a server do:
    an app that wants it out before it has a body sends an empty one with `more_body`.
    The ASGI extension `amba.whole` is `whole`: a complete answer in one call.
    """

    task: asyncio.Task[None] | None = None

    def __init__(self, edge: EdgeProtocol, *, keep_alive: bool) -> None:
        # the parent's fields, set here: its own way of setting them costs twice as much
        self.transport = edge.transport
        self.flow = edge.flow
        self._pipeline = edge.pipeline
        self.logger = edge.logger
        self.access_log = False
        self.default_headers = edge.server_state.default_headers
        signal: Any = _Signal()
        self.message_event = signal
        self.on_response = edge.on_response_complete
        self.disconnected = False
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = False
        for name, value in edge.headers:
            if name == b"expect" and value.lower() == b"100-continue":
                self.waiting_for_100_continue = True
        self.body = bytearray()
        self.more_body = True
        self.response_started = False
        self.response_complete = False
        self.chunked_encoding: bool | None = None
        self.expected_content_length = 0
        self._head = b""
        self._until_close = False

    def promote(self, app: App) -> None:
        """Run an app after all, for a request that was taken on the short way."""
        ours: Any = app
        self.task = asyncio.get_running_loop().create_task(self.run_asgi(ours))

    async def run_asgi(self, app: ASGI3Application) -> None:
        """Run the app; one that fails gives an honest 500, or a connection visibly cut off."""
        try:
            await app(self.scope, self.receive, self.send)
        except Exception:  # of any app: its client is answered below
            logger.exception("%s %r failed", self.scope["method"], self.scope["raw_path"])
        finally:
            if self.response_started and not self.response_complete and not self.disconnected:
                self.break_off()
        if not self.response_started and not self.disconnected:
            await self.send_500_response()
        self.on_response = _nothing
        self._untie()

    def break_off(self) -> None:
        """End the connection in the middle of the answer, so that nobody takes it for whole."""
        if self._until_close or self.flow.write_paused:
            # only the end of the connection ends such a body: a reset is no end;
            # and one that the client does not read would never be flushed
            reset(self.transport)
        else:
            self.transport.close()

    async def send_500_response(self) -> None:
        """In the platform's envelope, and never a stack."""
        known: Any = self.scope.get("amba.request_id")
        await INTERNAL.answer(self.send, known)

    async def send(self, message: Any) -> None:
        """Take one ASGI message."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
        else:
            more = message.get("more_body", False)
            self._continue(message.get("body", b""), more=more)
            if more and self.flow.write_paused and not self.disconnected:
                # not before the next piece: who sends need not have it in hand while it waits
                await self.flow.drain()

    async def receive(self) -> Any:
        """Give one ASGI message; reads on for it, unless enough requests wait already.

        Reading is also how a client that leaves is noticed.
        """
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            if len(self._pipeline) < limits.EDGE_PIPELINED.value:
                self.flow.resume_reading()
            await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = self.body, bytearray()
        return {"type": "http.request", "body": bytes(body), "more_body": self.more_body}

    def whole(self, status: int, headers: Headers, body: bytes) -> bool:
        """Send a complete answer, the same bytes as the two messages would; False: it left."""
        if self.disconnected:
            return False
        self._start(status, headers)
        self._continue(body, more=False)
        self._untie()
        return not self.disconnected

    def _untie(self) -> None:
        """Nobody needs `whole` any more: without it, what is left is no work for the collector."""
        scope: Any = self.scope  # its own type says that this need not be there
        scope["extensions"].clear()

    def _continue(self, body: bytes, *, more: bool) -> None:
        if not self.response_started or self.response_complete:
            raise RuntimeError("a response body was sent before its start, or after its end")
        head, self._head = self._head, b""
        if self.scope["method"] == "HEAD":
            body = b""
        elif self.chunked_encoding:
            if body:
                body = b"%x\r\n%b\r\n" % (len(body), body)
            if not more:
                body += b"0\r\n\r\n"
        else:
            self.expected_content_length -= len(body)
            left = self.expected_content_length
            if not self._until_close and (left < 0 or (left and not more)):
                # never a wrong frame: the peer sees a broken connection instead
                self.disconnected = True
                self.transport.abort()
                return
        data = head + body if head else body
        if data:
            self.transport.write(data)
        if not more:
            self.response_complete = True
            self.message_event.set()
            self.on_response()

    def _start(self, status: int, headers: Headers) -> None:
        if self.response_started:
            raise RuntimeError("a response was started twice")
        self.response_started = True
        if self.waiting_for_100_continue:
            # whether the client sends its body now, or another request, is its own guess
            self.waiting_for_100_continue = False
            if self.more_body:
                self.keep_alive = False
        parts = [STATUS_LINE.get(status) or b"HTTP/1.1 %d \r\n" % status]
        lines = 2 + len(headers)
        dated = False
        for name, value in headers:
            if name == b"content-length":
                self.chunked_encoding = False
                self.expected_content_length = int(value)
            elif name == b"date":
                dated = True
            parts += (name, b": ", value, b"\r\n")
        if not dated:
            lines += len(self.default_headers)
            for name, value in self.default_headers:
                parts += (name, b": ", value, b"\r\n")
        if self.scope["method"] == "HEAD" or status in (204, 304):
            self.expected_content_length = 0
            self.chunked_encoding = False
        elif self.chunked_encoding is None:
            self.chunked_encoding = self.scope["http_version"] != "1.0"
            if self.chunked_encoding:
                parts.append(b"transfer-encoding: chunked\r\n")
                lines += 1
            else:
                # no chunks in 1.0: the end of the body is the close
                self._until_close = True
                self.keep_alive = False
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
            lines += 1
        parts.append(b"\r\n")
        self._head = b"".join(parts)
        if self._head.count(b"\n") != lines or b"\0" in self._head:
            raise RuntimeError("a response header holds a line break")


def _nothing() -> None:
    """Lets go of the connection."""

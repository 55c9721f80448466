"""The strict front of the house: uvicorn's httptools protocol with its laxities taken out.

Refuses what two readers could understand differently, counts and sizes what a head may hold,
and drops trailers, which the parent would merge into the headers of a running request.
Source: reliability.md 0 (findings 3 and 3b), 2.3, 3.A and B1.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from amba_router.asgi import App, Scope
from amba_router.heads import (
    HEAD_TOO_LARGE,
    TARGET_TOO_LONG,
    judge,
    judge_socket,
    origin_form,
    without_upgrade,
)
from amba_router.problem import BAD_REQUEST, INTERNAL, Problem
from amba_router.relay import Whole
from amba_runtime import limits
from amba_runtime.wire import Headers

if TYPE_CHECKING:
    from amba_router.upgrade import EdgeSocket

logger = logging.getLogger("amba.edge")

Offer = Callable[[Scope, Whole, Callable[[App], None]], bool]
"""An app may take a request without a task: see `Dispatcher.offer`."""

_ASGI = {"version": "3.0", "spec_version": "2.3"}


class _Refused(Exception):
    """Stops the parser; the problem is in `EdgeProtocol._refusal`."""


class EdgeProtocol(HttpToolsProtocol):
    """One client connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._in_head = True
        self._progress = False
        self._unfinished_bytes = 0
        self._dropped_bytes = 0
        self._refusal: Problem | None = None
        self._closed_to_input = False
        self._replayed: bytes | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._half_closed: asyncio.TimerHandle | None = None
        # the newest request, and the one that is being answered: pipelined ones wait between
        self._current: Cycle | None = None
        self._idle_since_s = 0.0
        self._running: Cycle | None = None
        loaded: Any = vars(config)["loaded_app"]
        self._app = cast(ASGI3Application, loaded)
        self._offer: Offer | None = getattr(loaded, "offer", None)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a head, a trailer or a chunk extension that never ends is refused."""
        if self._closed_to_input:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > limits.EDGE_LINGER_BYTES.value:
                self.transport.abort()
            return
        self._progress = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        except httptools.HttpParserUpgrade as stop:
            if self._replayed is None:
                self._become_socket(data[int(stop.args[0]) :])
            else:
                self._read_on(self._replayed + data[int(stop.args[0]) :])
        if self._progress:
            self._unfinished_bytes = 0
            return
        self._unfinished_bytes += len(data)
        most = limits.EDGE_HEAD.value + limits.EDGE_TARGET.value
        if self._unfinished_bytes > most and not self._closed_to_input:
            self._refusal = HEAD_TOO_LARGE
            self.send_400_response("")

    def _read_on(self, data: bytes) -> None:
        """Ignore an upgrade to anything but WebSocket, as a server may (RFC 9110 section 7.8).

        The parser takes what follows such a head for another protocol, a body included. A new
        one is given the head again without the upgrade, and this time its events are known.

        Args:
            data: that head, and all that came behind the real one.
        """
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(data)

    def _become_socket(self, rest: bytes) -> None:
        """Hand the connection over, with the head that was judged and what came behind it."""
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        made: Any = self.ws_protocol_class
        socket_ = cast("EdgeSocket", made(self.config, self.server_state, self.app_state))
        socket_.connection_made(self.transport)
        self.transport.set_protocol(socket_)
        socket_.begin(origin_form(self.url), self.headers, rest)

    def on_message_begin(self) -> None:
        """A new request starts."""
        if self._replayed is not None:
            return
        self._in_head = True
        self.url = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        if self._replayed is not None:
            return
        self.url += url
        if len(self.url) > limits.EDGE_TARGET.value:
            self._refuse(TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; a trailer is none."""
        if self._in_head:
            name = name.lower()
            if value[-1:] in b" \t" and name != b"transfer-encoding":
                # the parser leaves blanks behind a value, and a coding with blanks is none to it
                value = value.rstrip(b" \t")
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is here: judge it whole, then start the request."""
        if self._replayed is not None:
            self._replayed = None
            return
        self._in_head = False
        self._progress = True
        parser: Any = self.parser  # gone only once the connection is
        version: str = parser.get_http_version()
        problem = judge(version, self.url, self.headers)
        if problem is not None:
            self._refuse(problem)
        method: str = parser.get_method().decode("ascii")
        before = self._current
        if len(self.pipeline) >= limits.EDGE_PIPELINED.value:
            self._refuse(BAD_REQUEST)  # what waits already is answered, then the connection ends
        upgrade: bool = parser.should_upgrade()
        # an upgrade is no such thing in HTTP/1.0 (RFC 9110 section 7.8)
        if upgrade and version != "1.0" and self._should_upgrade():
            if before is not None and not before.response_complete:
                self._refuse(BAD_REQUEST)  # a WebSocket cannot start behind an answer under way
            problem = judge_socket(method, self.headers)
            if problem is not None:
                self._refuse(problem)
            return
        raw_path, mark, query = origin_form(self.url).partition(b"?")
        path = raw_path.decode("ascii")
        if upgrade:
            self._replayed = without_upgrade(method, self.headers)
        cycle = Cycle(self, keep_alive=version != "1.0" and parser.should_keep_alive())
        scope: Any = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "method": method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            # `whole` cannot wait: to a client that does not read, an answer goes by `send`
            "extensions": {} if self.flow.write_paused else {"amba.whole": cycle.whole},
        }
        if mark and not query:
            scope["amba.bare_query"] = True
        cycle.scope = self.scope = scope
        self.cycle = self._current = cycle
        if before is None or before.response_complete:
            self._running = cycle
            if (
                self._offer is None
                or self.flow.write_paused
                or not self._offer(scope, cycle.whole, cycle.promote)
            ):
                self._start_asgi_task(cycle, self._app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self._app))

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is complete, except behind a head that will be read again."""
        if self._replayed is None:
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left: the parent tells the newest request, which may still be waiting."""
        if self._lingering is not None:
            self._lingering.cancel()
        if self._half_closed is not None:
            self._half_closed.cancel()
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more: one that has asked for all it wants may read its answer.

        A client that left looks the same, and a guest's work must not go on for it. So only an
        answer that has not begun is waited for, and not for long.

        Returns:
            True to keep our side open.
        """
        newest, running = self._current, self._running
        if newest is None or newest.more_body or newest.response_complete or running is None:
            return False
        if running.response_started and not running.response_complete:
            return False
        newest.keep_alive = False
        self._half_closed = self.loop.call_later(limits.EDGE_HALF_CLOSED_S.value, self._left)
        return True

    def _left(self) -> None:
        running = self._running
        if running is not None and not running.response_started:
            self.transport.close()

    def resume_writing(self) -> None:
        """The client reads again: what was pipelined behind a large answer goes on."""
        super().resume_writing()
        running = self._running
        if (
            self.pipeline
            and running is not None
            and running.response_complete
            and not self.transport.is_closing()
        ):
            self._start_asgi_task(*self.pipeline.pop())

    def shutdown(self) -> None:
        """The server ends."""
        if self._lingering is not None:
            self.transport.close()
        else:
            super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # the task is kept by its cycle, which the connection keeps: no set, no callback
        ours = cast(Cycle, cycle)
        self._running = ours
        ours.task = self.loop.create_task(cycle.run_asgi(app))

    def on_response_complete(self) -> None:
        """An answer is out: start what was pipelined behind it, or begin to idle.

        One timer per connection, not one per request: it looks at the clock when it fires.
        """
        if self.transport.is_closing():
            return
        if self.pipeline:
            if not self.flow.write_paused:
                self._start_asgi_task(*self.pipeline.pop())
            return
        self.flow.resume_reading()
        self._idle_since_s = self.loop.time()
        if self.timeout_keep_alive_task is None:
            keep_alive_s = limits.EDGE_KEEP_ALIVE_S.value
            self.timeout_keep_alive_task = self.loop.call_later(
                keep_alive_s, self.timeout_keep_alive_handler
            )

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has idled; one at work begins to idle after its answer."""
        self.timeout_keep_alive_task = None
        cycle = self._current
        if self.transport.is_closing() or (cycle is not None and not cycle.response_complete):
            return
        left_s = self._idle_since_s + limits.EDGE_KEEP_ALIVE_S.value - self.loop.time()
        if left_s <= 0:
            self.transport.close()
            return
        self.timeout_keep_alive_task = self.loop.call_later(left_s, self.timeout_keep_alive_handler)

    def _refuse(self, problem: Problem) -> None:
        self._refusal = problem
        raise _Refused(problem.message)

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong in the platform's envelope, then close.

        Requests before the faulty one are answered, and nothing is said of it when there are
        such; a request that is being answered is cut off when the fault lies in its own body.
        """
        self._closed_to_input = True
        cycle = self._current
        if cycle is not None and not cycle.response_complete:
            if cycle.more_body and cycle is not self._running:
                self.pipeline.popleft()
                waiting = self.pipeline[0][0] if self.pipeline else self._running
                cycle = cast(Cycle, waiting)
                cycle.keep_alive = False
                return
            if not cycle.more_body:
                cycle.keep_alive = False
                return
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        problem = self._refusal or BAD_REQUEST
        body = problem.body(None)
        lines = [STATUS_LINE[problem.status]]
        lines += [b"%b: %b\r\n" % field for field in problem.headers(len(body))]
        lines += [b"connection: close\r\n\r\n", body]
        self.transport.write(b"".join(lines))
        self._linger()

    def _linger(self) -> None:
        """End our side, and drop what still comes for a moment before the connection ends.

        Closing with input unread resets the connection, and a client that is still sending
        would lose the answer. Source: RFC 9112 section 9.6.
        """
        self.transport.write_eof()
        self.flow.resume_reading()
        self._lingering = self.loop.call_later(limits.EDGE_LINGER_S.value, self.transport.abort)


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
        self.waiting_for_100_continue = any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in edge.headers
        )
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
        except Exception:
            logger.exception("%s %r failed", self.scope["method"], self.scope["raw_path"])
        finally:
            if self.response_started and not self.response_complete and not self.disconnected:
                self._break_off()
        if not self.response_started and not self.disconnected:
            await self.send_500_response()
        self.on_response = _nothing

    def _break_off(self) -> None:
        if self._until_close or self.flow.write_paused:
            # only the end of the connection ends such a body: a reset is no end;
            # and one that the client does not read would never be flushed
            peer: socket.socket = self.transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
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
            self._continue(message.get("body", b""), more=message.get("more_body", False))

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
        return not self.disconnected

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
            if not self.keep_alive:
                self.transport.close()
            self.on_response()

    def _start(self, status: int, headers: Headers) -> None:
        if self.response_started:
            raise RuntimeError("a response was started twice")
        self.response_started = True
        self.waiting_for_100_continue = False
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

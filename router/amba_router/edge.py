"""The strict front of the house: uvicorn's httptools protocol with its laxities taken out.

Refuses what two readers could understand differently, counts and sizes what a head may hold,
and drops trailers, which the parent would merge into the headers of a running request.
Source: reliability.md 0 (findings 3 and 3b), 2.3, 3.A and B1.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast
from urllib.parse import unquote

from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from amba_router.problem import BAD_HOST, BAD_REQUEST, Problem
from amba_runtime import limits
from amba_runtime.wire import Headers

_HEAD_TOO_LARGE = Problem(
    431,
    "HEADERS_TOO_LARGE",
    "invalid_request",
    f"the request head is larger than {limits.EDGE_HEAD.value // 1024} KiB "
    f"or has more than {limits.EDGE_HEADERS.value} headers",
)
_TARGET_TOO_LONG = Problem(
    414,
    "URI_TOO_LONG",
    "invalid_request",
    f"the request target is longer than {limits.EDGE_TARGET.value // 1024} KiB",
)
_VERSION = Problem(505, "HTTP_VERSION", "invalid_request", "speak HTTP/1.1 (or 1.0)")
_TRANSFER_ENCODING = Problem(
    501, "TRANSFER_ENCODING", "invalid_request", "the only transfer coding taken is chunked"
)


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
        self._unparsed_bytes = 0
        self._refusal: Problem | None = None
        self._closed_to_input = False
        self._current: Cycle | None = None
        loaded: Any = vars(config)["loaded_app"]
        self._app = cast(ASGI3Application, loaded)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a head that never ends is refused by its size."""
        if self._closed_to_input:
            return
        super().data_received(data)
        if self._in_head and not self._closed_to_input:
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > limits.EDGE_HEAD.value + limits.EDGE_TARGET.value:
                self._refusal = _HEAD_TOO_LARGE
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """A new request starts."""
        self._in_head = True
        self._unparsed_bytes = 0
        self.url = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self.url += url
        if len(self.url) > limits.EDGE_TARGET.value:
            self._refuse(_TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; a trailer is none."""
        if self._in_head:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is here: judge it whole, then start the request."""
        self._in_head = False
        parser: Any = self.parser  # gone only once the connection is
        version: str = parser.get_http_version()
        problem = _judge(version, self.url, self.headers)
        if problem is not None:
            self._refuse(problem)
        method: str = parser.get_method().decode("ascii")
        if parser.should_upgrade() and self._should_upgrade():
            # the parent hands the connection to the WebSocket protocol, which parses it again
            seen: Any = {"method": method, "headers": self.headers}
            self.scope = seen
            return
        raw_path, _, query = _origin_form(self.url).partition(b"?")
        path = raw_path.decode("ascii")
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
            "extensions": {"amba.whole": cycle.whole},
        }
        cycle.scope = self.scope = scope
        before, self.cycle, self._current = self._current, cycle, cycle
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self._app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self._app))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # the task is kept by its cycle, which the connection keeps: no set, no callback
        ours: Any = cycle
        ours.task = self.loop.create_task(cycle.run_asgi(app))

    def _refuse(self, problem: Problem) -> None:
        self._refusal = problem
        raise _Refused(problem.message)

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong in the platform's envelope, then close.

        A request that is being answered on this connection is not disturbed when the fault
        lies behind it; it is cut off when the fault lies in its own body.
        """
        self._closed_to_input = True
        cycle = self._current
        if cycle is not None and not cycle.response_complete:
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
        self.transport.close()


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

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a complete answer; the same bytes as the two messages would."""
        if not self.disconnected:
            self._start(status, headers)
            self._continue(body, more=False)

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
        parts = [STATUS_LINE[status]]
        for name, value in self.default_headers:
            parts += (name, b": ", value, b"\r\n")
        lines = 2 + len(self.default_headers) + len(headers)
        for name, value in headers:
            if name == b"content-length":
                self.chunked_encoding = False
                self.expected_content_length = int(value)
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


def _origin_form(url: bytes) -> bytes:
    """The path and query of a request target that `_judge` has passed."""
    if url[:1] == b"/":
        return url
    authority_and_path = url.partition(b"://")[2]
    for at, byte in enumerate(authority_and_path):
        if byte in b"/?":
            rest = authority_and_path[at:]
            return rest if rest[:1] == b"/" else b"/" + rest
    return b"/"


def _judge(version: str, url: bytes, headers: list[tuple[bytes, bytes]]) -> Problem | None:
    """What is wrong with a request head, or None."""
    if version not in ("1.1", "1.0"):
        return _VERSION
    if len(headers) > limits.EDGE_HEADERS.value:
        return _HEAD_TOO_LARGE
    host: bytes | None = None
    lengths = codings = size = 0
    for name, value in headers:
        size += len(name) + len(value) + 4
        if name == b"host":
            if host is not None:
                return BAD_HOST
            host = value
        elif name == b"content-length":
            lengths += 1
        elif name == b"transfer-encoding":
            codings += 1
            if value.lower() != b"chunked":
                return _TRANSFER_ENCODING
    if size > limits.EDGE_HEAD.value:
        return _HEAD_TOO_LARGE
    if host is None:
        return BAD_HOST
    if lengths + codings > 1 or (codings and version == "1.0"):
        return BAD_REQUEST
    if url[:1] != b"/":
        # absolute-form: allowed, but it must name the same host (RFC 9112 section 3.2.2)
        scheme, _, rest = url.partition(b"://")
        authority = rest.partition(b"/")[0].partition(b"?")[0]
        if scheme.lower() not in (b"http", b"https") or authority.lower() != host.lower():
            return BAD_REQUEST
    if b"#" in url:
        return BAD_REQUEST
    return None

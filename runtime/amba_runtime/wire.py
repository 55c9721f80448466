"""HTTP/1.1 over Unix sockets, both ends: the one wire between us and an engine process.

The forwarder, egress, STORAGE and the log socket all speak through here, and nothing else does.
Bytes move with back-pressure in both directions; nothing is buffered past `limits.WIRE_BUFFER`.
Peers are engine processes: their framing is checked (llhttp, strict), their content never trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Protocol, cast

import httptools

from amba_runtime import limits

Headers = list[tuple[bytes, bytes]]
"""Header fields in wire order; names are lower-cased, values are raw bytes without padding."""

logger = logging.getLogger("amba.wire")


def render(fields: Headers) -> bytes:
    """Fields as header lines, each with its CR LF; names and values are free of both."""
    parts: list[bytes] = []
    for name, value in fields:
        parts += (name, b": ", value, b"\r\n")
    return b"".join(parts)


def parse_lines(lines: bytes) -> Headers:
    """What `render` made, as fields again."""
    fields: Headers = []
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        fields.append((name, value))
    return fields


_REASONS = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_NO_BODY_STATUSES = frozenset({204, 205, 304})
_BODILESS_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE"})


class WireError(Exception):
    """The other end broke off or broke the protocol; the message says which."""


class NothingSentError(WireError):
    """The peer had closed the connection without reading our request: it may be sent again."""


class Parser(Protocol):
    """The part of httptools' parsers that is used here (the package ships no such type)."""

    def feed_data(self, data: bytes) -> None: ...
    def should_keep_alive(self) -> bool: ...


# --- both ends -------------------------------------------------------------------------------


class _Flow:
    """Write-side back-pressure of one transport: `drain` waits while the peer is slow."""

    __slots__ = ("_lost", "_waiters")

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] | None = None
        self._lost = False

    def pause(self) -> None:
        if self._waiters is None:
            self._waiters = []

    def resume(self, *, lost: bool = False) -> None:
        self._lost = self._lost or lost
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    async def drain(self) -> None:
        if self._waiters is not None and not self._lost:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        if self._lost:
            raise WireError("the connection was closed while a body was being sent")


class _Inbox:
    """Body bytes read but not yet taken; reading stops at the high mark, resumes when emptied."""

    __slots__ = ("_chunks", "_paused", "_size", "_transport", "_waiter", "ended", "error")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self.ended = False
        self.error: WireError | None = None

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._size > limits.WIRE_BUFFER.value and not self._paused:
            self._paused = True
            if not self._transport.is_closing():
                self._transport.pause_reading()
        self._wake()

    def end(self, error: WireError | None = None) -> None:
        if not self.ended:
            self.ended = True
            self.error = error
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def take(self) -> bytes:
        """Everything that is here now, b"" when nothing is."""
        if not self._chunks:
            return b""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return data

    async def read(self) -> bytes:
        """The next bytes; b"" at the end. Raises WireError when the body broke off."""
        while not self._chunks:
            if self.ended:
                if self.error is not None:
                    raise self.error
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.take()


class Tunnel:
    """A connection after 101: raw bytes both ways. Whoever was given it closes it."""

    def __init__(self, transport: asyncio.Transport, inbox: _Inbox, flow: _Flow) -> None:
        self._transport = transport
        self._inbox = inbox
        self._flow = flow

    async def read(self) -> bytes:
        """The next bytes; b"" when the peer is done."""
        return await self._inbox.read()

    async def write(self, data: bytes) -> None:
        """Send, waiting while the peer is slow. Raises WireError when it is gone."""
        self._transport.write(data)
        await self._flow.drain()

    def close(self) -> None:
        """Idempotent."""
        self._transport.close()


# --- server ----------------------------------------------------------------------------------


class Request:
    """One request from an engine. Lives until its handler returns."""

    __slots__ = ("_expects", "_inbox", "_protocol", "headers", "method", "target", "upgrade")

    def __init__(
        self,
        protocol: _ServerProtocol,
        method: str,
        target: bytes,
        headers: Headers,
        inbox: _Inbox,
    ) -> None:
        self._protocol = protocol
        self._inbox = inbox
        self.method = method
        self.target = target
        """As on the request line: origin-form, absolute-form (egress) or authority (CONNECT)."""
        self.headers = headers
        self.upgrade = False
        """The peer asks for another protocol (WebSocket): answer with `Response.tunnel`."""
        self._expects = any(
            n == b"expect" and v.lower() == b"100-continue" for n, v in self.headers
        )

    def header(self, name: bytes) -> bytes | None:
        """The first value of a lower-case name, or None."""
        return next((v for n, v in self.headers if n == name), None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, with back-pressure. Raises WireError when it breaks off."""
        if self._expects:
            self._expects = False
            self._protocol.send_continue()
        while data := await self._inbox.read():
            yield data

    async def read(self, bytes_max: int) -> bytes:
        """The whole body. Raises WireError when it breaks off or passes `bytes_max`."""
        parts: list[bytes] = []
        size = 0
        async for data in self.chunks():
            size += len(data)
            if size > bytes_max:
                raise WireError(f"the body is larger than {bytes_max} bytes")
            parts.append(data)
        return b"".join(parts)


@dataclass(slots=True)
class Response:
    """What a handler answers.

    `body` is bytes, or an async iterator that is closed when the peer leaves.
    Without a content-length among `headers` an iterator is sent chunked.
    With `tunnel` (status 101) the connection is handed over after the head was written.
    """

    status: int
    headers: Headers = field(default_factory=lambda: Headers())
    body: bytes | AsyncIterator[bytes] = b""
    tunnel: Callable[[Tunnel], Awaitable[None]] | None = None


Handler = Callable[[Request], Awaitable[Response]]


class Server:
    """Listens on one Unix socket; `close` is idempotent and ends every connection."""

    def __init__(self, path: Path, handler: Handler, *, name: str) -> None:
        self.path = path
        self.name = name
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._protocols: set[_ServerProtocol] = set()

    async def open(self) -> None:
        """Bind (mode 0600, inside a private directory) and accept."""
        listener = listen_unix(self.path)
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: _ServerProtocol(self._handler, self._protocols, self.name),
            sock=listener,
            backlog=limits.WIRE_BACKLOG.value,  # asyncio would set it back to 100
        )

    async def close(self) -> None:
        """Stop accepting, cancel the handlers at work, remove the socket file."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        tasks = [t for p in list(self._protocols) if (t := p.abort()) is not None]
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


def listen_unix(path: Path) -> socket.socket:
    """A bound, listening, non-blocking Unix socket of mode 0600.

    The path must be shorter than `sockaddr_un` allows (107 bytes on Linux): callers keep
    sockets in a short private directory.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(limits.WIRE_BACKLOG.value)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


class _ServerProtocol(asyncio.Protocol):
    """One accepted connection: requests one after another, never two at once."""

    def __init__(self, handler: Handler, all_: set[_ServerProtocol], name: str) -> None:
        self._handler = handler
        self._all = all_
        self._name = name
        self._flow = _Flow()
        self._parser: httptools.HttpRequestParser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
        self._headers: Headers = []
        self._head_bytes = 0
        self._inbox: _Inbox | None = None
        self._task: asyncio.Task[None] | None = None
        self._tunneled = False

    # transport events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface without the base class
        self._transport = cast(asyncio.Transport, transport)
        self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.discard(self)
        self._flow.resume(lost=True)
        if self._inbox is not None:
            self._inbox.end(None if self._tunneled else WireError("the peer left mid-body"))
        if self._task is not None and not self._tunneled:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._flow.pause()

    def resume_writing(self) -> None:
        self._flow.resume()

    def data_received(self, data: bytes) -> None:
        if self._tunneled:
            assert self._inbox is not None
            self._inbox.feed(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._tunneled = True
            assert self._inbox is not None
            rest = data[int(stop.args[0]) :]
            if rest:
                self._inbox.feed(rest)
        except httptools.HttpParserError as error:
            logger.warning("%s: bad request from the engine: %s", self._name, error)
            self._refuse(400)
            return
        if self._inbox is None:
            self._count(len(data))  # a field that never ends reaches no parser event

    def abort(self) -> asyncio.Task[None] | None:
        """Drop the connection; the task that was at work, if any, is being cancelled."""
        task = self._task
        if task is not None:
            task.cancel()
        if self._transport is not None:
            self._transport.abort()
        return task

    # parser events

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._inbox is None:  # a trailer is not a header: dropped
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._task is not None:
            raise WireError("pipelining is not spoken here")
        assert self._transport is not None
        self._inbox = _Inbox(self._transport)
        request = Request(
            self, self._parser.get_method().decode(), self._url, self._headers, self._inbox
        )
        request.upgrade = self._parser.should_upgrade()
        self._task = asyncio.get_running_loop().create_task(self._run(request))

    def on_body(self, body: bytes) -> None:
        if self._inbox is not None:
            self._inbox.feed(body)

    def on_message_complete(self) -> None:
        if self._inbox is not None and not self._parser.should_upgrade():
            self._inbox.end()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > limits.WIRE_HEAD.value:
            logger.warning("%s: a request head passes %d bytes", self._name, self._head_bytes)
            self._refuse(431)

    # answering

    def send_continue(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, status: int) -> None:
        if self._transport is not None and not self._transport.is_closing():
            if self._task is None:
                self._transport.write(
                    _REASONS[status] + b"content-length: 0\r\nconnection: close\r\n\r\n"
                )
            self._transport.close()

    async def _run(self, request: Request) -> None:
        inbox = self._inbox
        assert self._transport is not None
        assert inbox is not None
        try:
            try:
                response = await self._handler(request)
            except WireError as error:
                logger.info("%s: %s %r: %s", self._name, request.method, request.target, error)
                response = Response(400)
            except Exception:
                logger.exception("%s: %s %r failed", self._name, request.method, request.target)
                response = Response(500)
            await self._answer(request, response)
            if response.tunnel is not None and self._tunneled:
                await response.tunnel(Tunnel(self._transport, inbox, self._flow))
                self._transport.close()
                return
            if not inbox.ended or self._tunneled or not self._parser.should_keep_alive():
                self._transport.close()  # an unread body cannot be skipped safely
                return
        except WireError:
            self._transport.abort()
            return
        except Exception:  # the body iterator failed: a truncated answer says so on the wire
            logger.exception("%s: the answer to %r broke off", self._name, request.target)
            self._transport.abort()
            return
        finally:
            self._task = None
        self._inbox = None
        self._url = b""
        self._headers = []
        self._head_bytes = 0

    async def _answer(self, request: Request, response: Response) -> None:
        transport = self._transport
        assert transport is not None
        body = response.body
        bodiless = request.method == "HEAD" or response.status in _NO_BODY_STATUSES
        lines = [_REASONS.get(response.status) or b"HTTP/1.1 %d -\r\n" % response.status]
        names: set[bytes] = set()
        for name, value in response.headers:
            names.add(name)
            lines.append(b"%b: %b\r\n" % (name, value))
        chunked = False
        if response.tunnel is None and b"content-length" not in names and response.status >= 200:
            if isinstance(body, bytes):
                if response.status != 204:
                    lines.append(b"content-length: %d\r\n" % len(body))
            elif not bodiless:
                chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        if isinstance(body, bytes):
            if not bodiless:
                lines.append(body)
            transport.write(b"".join(lines))
            await self._flow.drain()
            return
        transport.write(b"".join(lines))
        try:
            if not bodiless:
                async for data in body:
                    if data:
                        transport.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
                        await self._flow.drain()
                if chunked:
                    transport.write(b"0\r\n\r\n")
        finally:
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()


# --- client ----------------------------------------------------------------------------------


class Connection(asyncio.Protocol):
    """One keep-alive connection to an engine; one exchange at a time.

    `begin` -> (`write`, `drain`)* -> `end` -> `head` -> `read`* -> `release` or `abort`.
    """

    __slots__ = (
        "_began",
        "_body_expected",
        "_chunked",
        "_flow",
        "_head",
        "_head_bytes",
        "_inbox",
        "_owner",
        "_parser",
        "_reusable",
        "_transport",
        "headers",
        "idle_since_s",
        "lost",
        "status",
    )

    def __init__(self, owner: Client) -> None:
        self._owner = owner
        self._flow = _Flow()
        self._parser: httptools.HttpResponseParser | None = None
        self._transport: asyncio.Transport | None = None
        self._inbox: _Inbox | None = None
        self._head: asyncio.Future[None] | None = None
        self._began = False
        self._reusable = False
        self._body_expected = True
        self._chunked = False
        self._head_bytes = 0
        self.lost = False
        self.idle_since_s = 0.0
        self.status = 0
        self.headers: Headers = []

    # exchange

    def begin(self, method: bytes, target: bytes, headers: bytes, length: int | None) -> None:
        """Send a request head.

        Args:
            target: origin-form, free of CR, LF and spaces.
            headers: rendered lines, without framing (content-length, transfer-encoding).
            length: bytes of the body that will be written; 0 for none; None if not known yet.
        """
        assert self._transport is not None
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self._began = False
        self._reusable = False
        self._body_expected = method != b"HEAD"
        self._chunked = length is None
        self._head_bytes = 0
        self.status = 0
        self.headers = []
        self._inbox = _Inbox(self._transport)
        self._head = self._owner.loop.create_future()
        parts = [method, b" ", target, b" HTTP/1.1\r\n", headers]
        if length is None:
            parts.append(b"transfer-encoding: chunked\r\n\r\n")
        elif length or method not in _BODILESS_METHODS:
            parts.append(b"content-length: %d\r\n\r\n" % length)
        else:
            parts.append(b"\r\n")
        self._transport.write(b"".join(parts))

    def write(self, data: bytes) -> None:
        """Send body bytes; at most `length` of them in all, when it was given."""
        assert self._transport is not None
        if not self.lost and data:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        """The body is complete."""
        assert self._transport is not None
        if self._chunked and not self.lost:
            self._transport.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """The body broke off: the engine sees its end too early, and can still answer."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    async def drain(self) -> None:
        """Wait while the engine is slow. Raises WireError when it is gone."""
        await self._flow.drain()

    def head(self) -> asyncio.Future[None]:
        """Done when `status` and `headers` are there.

        Fails with NothingSentError (the engine never read the request) or WireError.
        """
        assert self._head is not None
        return self._head

    @property
    def complete(self) -> bool:
        """The whole body is here: one `take` has it."""
        return self._inbox is not None and self._inbox.ended and self._inbox.error is None

    def take(self) -> bytes:
        """The body bytes that are here now, without waiting."""
        assert self._inbox is not None
        return self._inbox.take()

    async def read(self) -> bytes:
        """The next body bytes; b"" at the end. Raises WireError when the body broke off."""
        assert self._inbox is not None
        return await self._inbox.read()

    def release(self) -> None:
        """Give the connection back; it is kept only when the exchange ended cleanly."""
        if self._reusable and not self.lost:
            self._owner.put(self)
        else:
            self.abort()

    def abort(self) -> None:
        """End the connection, and with it the guest's work on this request."""
        if self._transport is not None and not self.lost:
            self._transport.abort()

    def close_idle(self) -> None:
        """Close politely: nothing is under way."""
        if self._transport is not None:
            self._transport.close()

    # transport events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface without the base class
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._owner.forget(self)
        unread = isinstance(exc, BrokenPipeError | ConnectionResetError)
        if unread:
            self._salvage()
        self._flow.resume(lost=True)
        self._fail("the engine closed the connection", unread=unread)

    def _salvage(self) -> None:
        """Take in what the engine had answered before a write of ours failed.

        An engine whose guest does not read the whole body answers and closes. Our next write
        then fails, and the transport gives up with the answer still lying in the socket.
        Closing with unread bytes is also how a Unix socket tells that a request was never read.
        """
        if self._inbox is None or self._inbox.ended or self._transport is None:
            return
        fd: int = self._transport.get_extra_info("socket").fileno()
        with contextlib.suppress(OSError):
            while data := os.read(fd, limits.WIRE_BUFFER.value):
                self.data_received(data)

    def pause_writing(self) -> None:
        self._flow.pause()

    def resume_writing(self) -> None:
        self._flow.resume()

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            self.abort()
            return
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"the engine's answer is not HTTP: {error}")
            self.abort()
            return
        if self.status == 0:
            self._head_bytes += len(data)
            if self._head_bytes > limits.WIRE_HEAD.value:
                self._fail(f"the head of the answer passes {limits.WIRE_HEAD.value} bytes")
                self.abort()

    def _fail(self, reason: str, *, unread: bool = False) -> None:
        head = self._head
        if head is not None and not head.done():
            again = unread and not self._began
            head.set_exception(NothingSentError(reason) if again else WireError(reason))
            head.exception()  # a caller that was cancelled will not look: no noise
        if self._inbox is not None:
            self._inbox.end(WireError(reason))

    # parser events

    def on_message_begin(self) -> None:
        self._began = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is not None and not self._head.done():  # afterwards: trailers, dropped
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 200:
            return
        self.status = status
        if self._head is not None and not self._head.done():
            self._head.set_result(None)
        if not self._body_expected:
            # llhttp cannot be told that this is the answer to HEAD: a fresh parser next time
            self._reusable = self._parser.should_keep_alive()
            self._parser = None
            if self._inbox is not None:
                self._inbox.end()

    def on_body(self, body: bytes) -> None:
        if self._inbox is not None:
            self._inbox.feed(body)

    def on_message_complete(self) -> None:
        if self.status == 0:  # an interim answer (1xx): the real one follows
            self.headers = []
            return
        if self._inbox is not None and self._parser is not None:
            self._reusable = self._parser.should_keep_alive()
            self._inbox.end()


class Client:
    """Keep-alive connections to one Unix socket.

    Idle connections are kept in one list (newest last), changed only by `acquire`, `put` and
    `forget`. One that has idled for `limits.WIRE_IDLE_S` is not used again: the engine may be
    about to close it, and a request must never meet a closing connection.
    """

    def __init__(self, path: Path, *, loop: asyncio.AbstractEventLoop) -> None:
        self.path = path
        self.loop = loop
        self._idle: list[Connection] = []
        self._closed = False

    def idle(self) -> Connection | None:
        """A kept connection that is fit for one more exchange, or None."""
        idle = self._idle
        horizon = self.loop.time() - limits.WIRE_IDLE_S.value
        while idle:
            connection = idle.pop()
            if connection.lost:
                continue
            if connection.idle_since_s >= horizon:
                return connection
            connection.close_idle()
        return None

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """A connection to use for one exchange. Raises WireError when the engine is not there."""
        kept = None if fresh else self.idle()
        if kept is not None:
            return kept
        if self._closed:
            raise WireError("the engine was stopped")
        try:
            _, connection = await self.loop.create_unix_connection(
                lambda: Connection(self), str(self.path)
            )
        except OSError as error:
            raise WireError(f"the engine does not accept connections: {error}") from error
        return connection

    def put(self, connection: Connection) -> None:
        """Keep a connection whose exchange ended cleanly."""
        if self._closed or len(self._idle) >= limits.WIRE_IDLE_CONNECTIONS.value:
            connection.close_idle()
            return
        connection.idle_since_s = self.loop.time()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """The connection was lost: it leaves the idle list at once."""
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def close(self) -> None:
        """Close the idle connections; those in use end with their exchange. Idempotent."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close_idle()

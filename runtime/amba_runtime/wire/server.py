"""The serving end: engines ask, we answer. For egress, STORAGE and late console lines."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from http import HTTPStatus
from pathlib import Path
from typing import cast

import httptools

from amba_runtime import limits
from amba_runtime.wire.common import Flow, Headers, Inbox, Tunnel, WireError
from amba_runtime.wire.intake import Door, Intake
from amba_runtime.wire.messages import Handler, Request, Response

logger = logging.getLogger("amba.wire")

_REASONS = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_NO_BODY_STATUSES = frozenset({204, 205, 304})


class Server:
    """Listens on one Unix socket; `close` is idempotent and ends every connection.

    Args:
        intake: the way in of whoever connects; None for one that is bounded by itself alone.
        most: connections at once.
    """

    def __init__(
        self,
        path: Path,
        handler: Handler,
        *,
        name: str,
        intake: Door | None = None,
        most: int = limits.WIRE_CONNECTIONS.value,
    ) -> None:
        self.path = path
        self.name = name
        self._handler = handler
        self._intake = intake or Intake().door("")
        self._most = most
        self._server: asyncio.Server | None = None
        self._protocols: set[_ServerProtocol] = set()

    async def open(self) -> None:
        """Bind (mode 0600, inside a private directory) and accept."""
        listener = listen_unix(self.path)
        try:
            server = await asyncio.get_running_loop().create_unix_server(
                lambda: _ServerProtocol(
                    self._handler, self._protocols, self.name, self._intake, self._most
                ),
                sock=listener,
                backlog=limits.WIRE_BACKLOG.value,  # asyncio would set it back to 100
                start_serving=False,
            )
        except BaseException:
            listener.close()
            raise
        self._server = server  # known before the first wait: `close` has what a cancel leaves
        await server.start_serving()

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


def _named(request: Request) -> str:
    """A request in our log: without its query, which may hold secrets."""
    path, query, _ = request.target.partition(b"?")
    return f"{request.method} {path!r}{'?...' if query else ''}"


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

    def __init__(
        self, handler: Handler, all_: set[_ServerProtocol], name: str, intake: Door, most: int
    ) -> None:
        self._most = most
        self._handler = handler
        self._all = all_
        self._name = name
        self._intake = intake
        self._flow = Flow()
        self._parser: httptools.HttpRequestParser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url = b""
        self._headers: Headers = []
        self._head_bytes = 0
        self._inbox: Inbox | None = None
        self._task: asyncio.Task[None] | None = None
        self._tunneled = False  # what comes is no HTTP any more
        self._handed_over = False  # and the handler's tunnel has it
        self._keep_alive = False
        self._held = b""

    # transport events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the interface without the base class
        self._transport = self._flow.transport = cast(asyncio.Transport, transport)
        if len(self._all) >= self._most or not self._intake.take():
            # an engine that opens ever more is a guest's doing: its own requests fail for it,
            # and the log is not filled with it
            logger.debug("%s: %d connections at once are enough", self._name, len(self._all))
            self._transport.abort()
            return
        self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._all:
            self._all.discard(self)
            self._intake.leave()
        self._flow.resume(lost=True)
        if self._inbox is not None:
            self._inbox.end(None if self._tunneled else WireError("the peer left mid-body"))
        if self._task is not None and not self._handed_over:
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
        if self._task is not None and self._inbox is not None and self._inbox.ended:
            # the engine has its whole answer and asks again, before we have noticed our own end
            self._held += data
            if self._transport is not None and not self._transport.is_closing():
                self._transport.pause_reading()
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
        self._inbox = Inbox(self._transport)
        request = Request(
            self.send_continue,
            self._parser.get_method().decode(),
            self._url,
            self._headers,
            self._inbox,
        )
        request.upgrade = self._parser.should_upgrade()
        self._task = asyncio.get_running_loop().create_task(self._run(request))

    def on_body(self, body: bytes) -> None:
        if self._inbox is not None:
            self._inbox.feed(body)

    def on_message_complete(self) -> None:
        # asked now: afterwards the parser knows nothing of this request any more
        self._keep_alive = self._parser.should_keep_alive()
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
        response: Response | None = None
        try:
            await self._intake.turn()
            try:
                response = await self._handler(request)
            except WireError as error:
                logger.info("%s: %s: %s", self._name, _named(request), error)
                response = Response(400)
            except Exception:  # of any handler: a guest waits for an answer
                logger.exception("%s: %s failed", self._name, _named(request))
                response = Response(500)
            await self._answer(request, response)
            if response.tunnel is not None and self._tunneled:
                self._handed_over = True
                await response.tunnel(Tunnel(self._transport, inbox, self._flow))
                self._transport.close()
                return
            if not inbox.ended or self._tunneled or not self._keep_alive:
                self._transport.close()  # an unread body cannot be skipped safely
                return
        except WireError:
            self._transport.abort()
            return
        except Exception:  # the body iterator failed: a truncated answer says so on the wire
            logger.exception("%s: the answer to %s broke off", self._name, _named(request))
            self._transport.abort()
            return
        finally:
            self._task = None
            if response is not None and response.drop is not None and not self._handed_over:
                response.drop()
        self._inbox = None
        self._url = b""
        self._headers = []
        self._head_bytes = 0
        held, self._held = self._held, b""
        if held and not self._transport.is_closing():
            self._transport.resume_reading()
            self.data_received(held)

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

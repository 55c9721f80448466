"""The asking end: requests to an engine over kept connections. Part of the hot path."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import httptools

from amba_runtime import limits
from amba_runtime.wire.common import Flow, Headers, Inbox, NothingSentError, WireError

_BODILESS_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE"})


class Connection(asyncio.BufferedProtocol):
    """One keep-alive connection to an engine; one exchange at a time.

    `begin` -> (`write`, `drain`)* -> `end` -> `head` -> `read`* -> `release` or `abort`.
    """

    __slots__ = (
        "_asked",
        "_began",
        "_begun",
        "_body_expected",
        "_chunked",
        "_failure",
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
        self._flow = Flow()
        self._parser: httptools.HttpResponseParser | None = None
        self._transport: asyncio.Transport | None = None
        self._inbox: Inbox | None = None
        # made when `head` asks for it: an exchange that is notified needs none
        self._head: asyncio.Future[None] | None = None
        self._begun: Callable[[], None] | None = None
        self._failure: WireError | None = None
        self._asked = False
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
        self._inbox = Inbox(self._transport)
        self._asked = True
        self._head = None
        self._begun = None
        self._failure = None
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
        if self._head is None:
            self._head = self._owner.loop.create_future()
            if self._failure is not None:
                self._head.set_exception(self._failure)
                self._head.exception()
            elif self.status:
                self._head.set_result(None)
        return self._head

    def notify(self, begun: Callable[[], None] | None) -> None:
        """Call `begun` once, when the answer has begun or failed; None takes that back."""
        self._begun = begun

    def _tell_begun(self) -> None:
        begun, self._begun = self._begun, None
        if begun is not None:
            begun()

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
            self._asked = False
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
        self._transport = self._flow.transport = cast(asyncio.Transport, transport)

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
            while count := os.readv(fd, [self._owner.buffer]):
                self.buffer_updated(count)

    def pause_writing(self) -> None:
        self._flow.pause()

    def resume_writing(self) -> None:
        self._flow.resume()

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where the next bytes go: one place for all connections, it is empty again at once."""
        return self._owner.buffer

    def buffer_updated(self, nbytes: int) -> None:
        parser = self._parser
        if parser is None or not self._asked:  # nobody asked: it must not answer the next one
            self.abort()
            return
        try:
            parser.feed_data(self._owner.view[:nbytes])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"the engine's answer is not HTTP: {error}")
            self.abort()
            return
        if self.status == 0:
            self._head_bytes += nbytes
            if self._head_bytes > limits.WIRE_HEAD.value:
                self._fail(f"the head of the answer passes {limits.WIRE_HEAD.value} bytes")
                self.abort()
        elif self._begun is not None:
            self._tell_begun()

    def _fail(self, reason: str, *, unread: bool = False) -> None:
        if self.status == 0 and self._failure is None:
            again = unread and not self._began
            self._failure = NothingSentError(reason) if again else WireError(reason)
            if self._head is not None and not self._head.done():
                self._head.set_exception(self._failure)
                self._head.exception()  # a caller that was cancelled will not look: no noise
        if self._inbox is not None:
            self._inbox.end(WireError(reason))
        self._tell_begun()

    # parser events

    def on_message_begin(self) -> None:
        self._began = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status == 0:  # afterwards: trailers, dropped
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
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False
        self.buffer = bytearray(limits.WIRE_READ.value)
        self.view = memoryview(self.buffer)

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
        if self._sweep is None:
            self._sweep = self.loop.call_later(limits.WIRE_IDLE_S.value, self._close_stale)

    def _close_stale(self) -> None:
        """Connections of a busy moment are files of ours: they do not outlive it by much."""
        horizon = self.loop.time() - limits.WIRE_IDLE_S.value
        fresh = [one for one in self._idle if one.idle_since_s > horizon]
        stale = [one for one in self._idle if one.idle_since_s <= horizon]
        self._idle, self._sweep = fresh, None
        for connection in stale:
            connection.close_idle()
        if fresh:
            self._sweep = self.loop.call_later(limits.WIRE_IDLE_S.value, self._close_stale)

    def forget(self, connection: Connection) -> None:
        """The connection was lost: it leaves the idle list at once."""
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def close(self) -> None:
        """Close the idle connections; those in use end with their exchange. Idempotent."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close_idle()

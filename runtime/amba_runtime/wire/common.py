"""What both ends of the wire share: fields, errors, and body bytes with back-pressure."""

from __future__ import annotations

import asyncio
from collections import deque

from amba_runtime import limits

Headers = list[tuple[bytes, bytes]]
"""Header fields in wire order; names are lower-cased, values are raw bytes without padding."""


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


class WireError(Exception):
    """The other end broke off or broke the protocol; the message says which."""


class NothingSentError(WireError):
    """The peer had closed the connection without reading our request: it may be sent again."""


class Flow:
    """Write-side back-pressure of one transport: `drain` waits while the peer is slow."""

    __slots__ = ("_lost", "_waiters", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
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
        # a write that failed closes at once, and tells us later: whoever writes without end and
        # never waits would never let us hear of it
        if self._lost or (self.transport is not None and self.transport.is_closing()):
            raise WireError("the connection was closed while a body was being sent")


class Inbox:
    """Body bytes read but not yet taken; reading stops at the high mark, resumes when emptied.

    The mark is `limits.WIRE_BUFFER`, so that most bodies are whole before anybody looks. One that
    is read piece by piece is held by the piece: a slow reader at its far end costs little.
    """

    __slots__ = ("_chunks", "_most", "_paused", "_size", "_transport", "_waiter", "ended", "error")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._most = limits.WIRE_BUFFER.value
        self._waiter: asyncio.Future[None] | None = None
        self.ended = False
        self.error: WireError | None = None

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        if self._waiter is not None:
            self._wake()  # it takes this before we have to stop reading
        elif self._size > self._most and not self._paused:
            self._paused = True
            if not self._transport.is_closing():
                self._transport.pause_reading()

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
        self._most = 0
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

    def __init__(self, transport: asyncio.Transport, inbox: Inbox, flow: Flow) -> None:
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

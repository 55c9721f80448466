"""External hosts for `outbound`: one lean HTTP/1.1 client over addresses that were checked.

Built on `wire.Connection`: full duplex, bodies and their encoding untouched, no redirects followed
(the engine follows, and each hop is decided on anew), no proxies of the environment. The client
libraries at hand (httpcore under httpx2) send a whole request before they read the answer:
with a server that answers while it still receives, both would wait for ever.
Source: reliability.md section 5; measurement B6.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import httptools

from amba_router import headers as names
from amba_runtime import limits, wire
from amba_runtime.egress import External, Target
from amba_runtime.wire import Headers, Request, Response, WireError, render

_REBUILT = frozenset({b"host", b"content-length", b"expect"})
CLOSE: tuple[tuple[bytes, bytes], ...] = ((b"connection", b"close"),)
"""Said to the engine with an answer that comes before the end of its upload: the next request
must not follow the upload on the same connection while that is still being discarded."""
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that the network is waited for; defaults in limits.py."""

    connect_s: float = limits.EGRESS_CONNECT_S.value
    first_byte_s: float = limits.EGRESS_FIRST_BYTE_S.value
    idle_s: float = limits.EGRESS_IDLE_S.value


class TrustedRoots:
    """The machine's certificate authorities, loaded once, in a thread, when first needed."""

    def __init__(self, make: Callable[[], ssl.SSLContext] = ssl.create_default_context) -> None:
        self._make = make
        self._context: ssl.SSLContext | None = None

    async def context(self) -> ssl.SSLContext:
        """A verifying client context that offers HTTP/1.1 alone."""
        if self._context is None:
            context = await asyncio.to_thread(self._make)
            context.set_alpn_protocols(["http/1.1"])
            # a name in a certificate's subject is none (RFC 9110 section 4.3.4)
            context.hostname_checks_common_name = False
            self._context = context
        return self._context


class OutboundClient:
    """Requests to external hosts over addresses that were checked. One per function process.

    Kept connections (`limits.EGRESS_KEPT`, to the newest `limits.EGRESS_PEERS` addresses) belong
    to scheme, name, port and address together: one is used again only for an answer of this very
    request's resolution.
    """

    def __init__(self, roots: TrustedRoots, *, timeouts: Timeouts | None = None) -> None:
        self._roots = roots
        self._timeouts = timeouts or Timeouts()
        self._peers: dict[tuple[str, str, int, str], _Peers] = {}

    async def send(self, request: Request, external: External) -> Response:
        """Send a request; returns when its answer has begun.

        Raises:
            WireError, OSError (with TimeoutError and ssl.SSLError): there was no answer.
        """
        length = body_length(request)
        connection, kept = await self._acquire(external, fresh=request.upgrade)
        try:
            return await self._exchange(request, external.target, connection, length)
        except wire.NothingSentError:
            # A kept connection can close under a request; without a body nothing was lost.
            if not (kept and length == 0 and request.method in _REPEATABLE):
                raise
        connection, _ = await self._acquire(external, fresh=True)
        return await self._exchange(request, external.target, connection, length)

    def close(self) -> None:
        """Close kept connections; exchanges under way end with their answers. Idempotent."""
        for peers in self._peers.values():
            peers.close()
        self._peers.clear()

    async def _acquire(self, external: External, *, fresh: bool) -> tuple[_Connection, bool]:
        """A connection, and whether it was kept from an earlier request."""
        target = external.target
        addresses = external.addresses[: limits.EGRESS_CONNECT_TRIES.value]
        for address in addresses:
            peers = self._peers.get((target.scheme, target.host, target.port, address))
            connection = peers.take() if peers is not None and not fresh else None
            if connection is not None:
                return connection, True
        tls = await self._roots.context() if target.scheme == "https" else None
        failure: OSError = OSError("no address")
        for address in addresses:
            try:
                return await self._connect(target, address, tls), False
            except OSError as error:  # TimeoutError and ssl.SSLError are kinds of it
                failure = error
        raise failure

    async def _connect(
        self, target: Target, address: str, tls: ssl.SSLContext | None
    ) -> _Connection:
        loop = asyncio.get_running_loop()
        key = (target.scheme, target.host, target.port, address)
        peers = self._peers.pop(key, None) or _Peers(loop, self._has_room)
        self._peers[key] = peers  # newest last
        while len(self._peers) > limits.EGRESS_PEERS.value:
            self._peers.pop(next(iter(self._peers))).close()
        async with asyncio.timeout(self._timeouts.connect_s):
            _, connection = await loop.create_connection(
                lambda: _Connection(peers),
                address,
                target.port,
                ssl=tls,
                server_hostname=target.host.strip("[]") if tls else None,
            )
        return connection

    @property
    def kept(self) -> int:
        """Connections that idle, to all hosts."""
        return sum(peers.kept for peers in self._peers.values())

    def _has_room(self) -> bool:
        """One more connection may be kept; what has idled too long makes room first."""
        if self.kept >= limits.EGRESS_KEPT.value:
            for peers in self._peers.values():
                peers.drop_stale()
        return self.kept < limits.EGRESS_KEPT.value

    async def _exchange(
        self, request: Request, target: Target, connection: _Connection, length: int | None
    ) -> Response:
        connection.wants_upgrade = request.upgrade
        connection.begin(
            request.method.encode(), target.path, render(_outgoing(request, target)), length
        )
        loop = asyncio.get_running_loop()
        upload = (
            None
            if length == 0
            else loop.create_task(_upload(request, connection, self._timeouts.idle_s))
        )
        body = _RemoteBody(request, connection, upload, self._timeouts.idle_s)
        try:
            head = connection.head()
            if upload is not None:
                await asyncio.wait({head, upload}, return_when=asyncio.FIRST_COMPLETED)
                if not head.done():
                    upload.result()  # raises when the function broke its own body off
            async with asyncio.timeout(self._timeouts.first_byte_s):
                await head
        except BaseException:
            await body.aclose()
            raise
        dropped = nominated(connection.headers)
        fields = [
            (name, value)
            for name, value in connection.headers
            if name not in names.HOP_BY_HOP and name not in dropped
        ]
        if connection.status == 101:
            fields += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
            return Response(101, fields, tunnel=lambda tunnel: _join(tunnel, connection))
        early = upload is not None and not upload.done()
        return Response(connection.status, [*fields, *CLOSE] if early else fields, body)


class _Peers(wire.Client):
    """Kept connections to one address under one name: `wire.Client` without its Unix socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop, has_room: Callable[[], bool]) -> None:
        super().__init__(Path(), loop=loop)
        self._has_room = has_room

    @property
    def kept(self) -> int:
        """Connections that idle."""
        return len(self._idle)

    def drop_stale(self) -> None:
        """Close what has idled too long to be used again."""
        horizon = self.loop.time() - limits.WIRE_IDLE_S.value
        stale = [c for c in self._idle if c.idle_since_s < horizon]
        self._idle = [c for c in self._idle if c.idle_since_s >= horizon]
        for connection in stale:
            connection.close_idle()

    def put(self, connection: wire.Connection) -> None:
        """Keep a connection whose exchange ended cleanly, while there is room."""
        if self._has_room():
            super().put(connection)
        else:
            connection.close_idle()

    def take(self) -> _Connection | None:
        """The connection used last, if it is still good."""
        horizon = self.loop.time() - limits.WIRE_IDLE_S.value
        while self._idle:
            connection = self._idle.pop()
            if isinstance(connection, _Connection) and not connection.lost:
                if connection.idle_since_s >= horizon:
                    return connection
                connection.close_idle()
        return None


class _Connection(wire.Connection):
    """A connection to a stranger: heads are bounded, a body may end with the connection.

    After 101 (only where it was asked for) `read`, `write` and `drain` carry raw bytes.
    """

    __slots__ = (
        "_ends_with_connection",
        "_head_bytes",
        "_interim",
        "_upgraded",
        "_why",
        "wants_upgrade",
    )

    def __init__(self, owner: _Peers) -> None:
        super().__init__(owner)
        self._head_bytes = 0
        self._interim = 0
        self._ends_with_connection = False
        self._upgraded = False
        self._why = ""
        self.wants_upgrade = False

    def begin(self, method: bytes, target: bytes, headers: bytes, length: int | None) -> None:
        self._head_bytes = self._interim = 0
        self._ends_with_connection = False
        super().begin(method, target, headers, length)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + limits.EGRESS_FIELD_OVERHEAD.value
        if self._head_bytes > limits.EGRESS_HEAD_BYTES.value:
            self._refuse("the head of its answer is too large")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status == 101 and self.wants_upgrade and self._head is not None:
            self.status = status
            self._head.set_result(None)
            return
        if status < 200:
            self._interim += 1
            if self._interim > limits.EGRESS_INTERIM.value:
                self._refuse("it sends interim answers without end")
        fields = dict(self.headers)
        coding = fields.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            self._refuse(f"transfer-encoding {coding!r} is not spoken")
        self._ends_with_connection = coding is None and b"content-length" not in fields
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self.status != 101:
            super().on_message_complete()

    def data_received(self, data: bytes | memoryview) -> None:
        if not self._upgraded and not self.wants_upgrade:
            super().data_received(data)
            return
        assert self._inbox is not None
        if not self._upgraded and self._parser is not None:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as stop:
                self._upgraded = True
                data = data[int(stop.args[0]) :]
            except httptools.HttpParserError as error:
                self._fail(f"the engine's answer is not HTTP: {error}")
                self.abort()
                return
        if data:
            self._inbox.feed(bytes(data))  # the buffer that it lies in is used again

    def _refuse(self, why: str) -> NoReturn:
        self._why = why  # the parser wraps what its callbacks raise
        raise WireError(why)

    def _fail(self, reason: str, *, unread: bool = False) -> None:
        # `wire` speaks of engines; the other end is a server here. One that closes without a
        # byte of an answer has, by RFC 9110 section 9.2.2, left a repeatable request unread.
        told = self._why or reason.replace("the engine", "the server")
        super()._fail(told, unread=True)

    def connection_lost(self, exc: Exception | None) -> None:
        may_end = self._ends_with_connection or self._upgraded
        if may_end and exc is None and self._inbox is not None:
            self._inbox.end()
        super().connection_lost(exc)


class _RemoteBody(AsyncIterator[bytes]):
    """An external answer as it arrives. `aclose` ends the exchange; called once."""

    def __init__(
        self,
        request: Request,
        connection: _Connection,
        upload: asyncio.Task[None] | None,
        idle_s: float,
    ) -> None:
        self._request = request
        self._connection = connection
        self._upload = upload
        if upload is not None:
            upload.add_done_callback(_seen)
        self._idle_s = idle_s

    async def __anext__(self) -> bytes:
        try:
            async with asyncio.timeout(self._idle_s):
                data = await self._connection.read()
        except TimeoutError as error:
            raise WireError("the server sent nothing for too long") from error
        if not data:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        upload = self._upload
        sent = upload is None or (
            upload.done() and not upload.cancelled() and upload.exception() is None
        )
        # one that was asked to become a WebSocket and did not is kept for nothing else
        if sent and self._connection.complete and not self._request.upgrade:
            self._connection.release()
            return
        complete = self._connection.complete
        self._connection.abort()
        if upload is not None:
            upload.cancel()
            await asyncio.wait({upload})
            if complete:
                await discard(self._request)


def _seen(upload: asyncio.Task[None]) -> None:
    """An upload that failed is told by the answer, or by its absence: no noise of its own."""
    if not upload.cancelled():
        upload.exception()


async def _upload(request: Request, connection: _Connection, idle_s: float) -> None:
    async for chunk in request.chunks():
        connection.write(chunk)
        async with asyncio.timeout(idle_s):  # of the server: how slow the function is, is its own
            await connection.drain()
    connection.end()


async def _join(tunnel: wire.Tunnel, connection: _Connection) -> None:
    """Carry bytes both ways until either end is done; then both are."""

    async def inward() -> None:
        while data := await connection.read():
            await tunnel.write(data)

    async def outward() -> None:
        while data := await tunnel.read():
            connection.write(data)
            await connection.drain()

    loop = asyncio.get_running_loop()
    ways = {loop.create_task(inward()), loop.create_task(outward())}
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        connection.close_idle()


async def discard(request: Request) -> None:
    """Take what is left of a request's body after its answer, within bounds.

    An engine whose upload is cut short tells the function that the connection was lost, even
    when the whole answer is there already (measured on workerd).
    """
    size = 0
    with contextlib.suppress(WireError, TimeoutError):
        async with asyncio.timeout(limits.EGRESS_DISCARD_S.value):
            async for data in request.chunks():
                size += len(data)
                if size > limits.EGRESS_DISCARD_BYTES.value:
                    return


def body_length(request: Request) -> int | None:
    """Bytes of a request's body as announced; 0 for none, None for chunked."""
    if request.upgrade:
        return 0
    if request.header(b"transfer-encoding") is not None:
        return None
    return int(request.header(b"content-length") or 0)


def nominated(fields: Headers) -> frozenset[bytes]:
    """Names that `connection` makes hop-by-hop. Source: RFC 9110 section 7.6.1."""
    return frozenset(
        token.strip().lower() for n, v in fields if n == b"connection" for token in v.split(b",")
    )


def _outgoing(request: Request, target: Target) -> Headers:
    """What leaves: Host from the URL; no reserved name, nothing meant for this hop alone."""
    dropped = nominated(request.headers)
    fields: Headers = [(b"host", target.authority.encode())]
    for name, value in request.headers:
        if name in _REBUILT or name in names.HOP_BY_HOP or name in dropped:
            continue
        if not names.is_reserved(name):
            fields.append((name, value))
    if request.upgrade:
        fields += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
    return fields

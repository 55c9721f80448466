"""External hosts for `outbound`: one lean HTTP/1.1 client over addresses that were checked.

Built on `wire.Connection`: full duplex, bodies and their encoding untouched, no redirects followed
(the engine follows, and each hop is decided on anew), no proxies of the environment. The client
libraries at hand (httpcore under httpx2) send a whole request before they read the answer:
with a server that answers while it still receives, both would wait for ever.
Source: reliability.md section 5; measurement B6.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from amba_router import headers as names
from amba_router.outbound_bodies import CLOSE, body_length, discard, nominated
from amba_router.outbound_connection import Peers, RemoteConnection
from amba_runtime import limits, wire
from amba_runtime.egress import External, Target
from amba_runtime.wire import Headers, Request, Response, WireError, render

_REBUILT = frozenset({b"host", b"content-length", b"expect"})
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
        self._peers: dict[tuple[str, str, int, str], Peers] = {}

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

    async def _acquire(self, external: External, *, fresh: bool) -> tuple[RemoteConnection, bool]:
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
    ) -> RemoteConnection:
        loop = asyncio.get_running_loop()
        key = (target.scheme, target.host, target.port, address)
        peers = self._peers.pop(key, None) or Peers(loop, self._has_room)
        self._peers[key] = peers  # newest last
        while len(self._peers) > limits.EGRESS_PEERS.value:
            self._peers.pop(next(iter(self._peers))).close()
        async with asyncio.timeout(self._timeouts.connect_s):
            _, connection = await loop.create_connection(
                lambda: RemoteConnection(peers),
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
        self, request: Request, target: Target, connection: RemoteConnection, length: int | None
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
            return Response(
                101,
                fields,
                tunnel=lambda tunnel: _join(tunnel, connection),
                drop=connection.abort,
            )
        early = upload is not None and not upload.done()
        return Response(connection.status, [*fields, *CLOSE] if early else fields, body)


class _RemoteBody(AsyncIterator[bytes]):
    """An external answer as it arrives. `aclose` ends the exchange; called once."""

    def __init__(
        self,
        request: Request,
        connection: RemoteConnection,
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


async def _upload(request: Request, connection: RemoteConnection, idle_s: float) -> None:
    async for chunk in request.chunks():
        connection.write(chunk)
        async with asyncio.timeout(idle_s):  # of the server: how slow the function is, is its own
            await connection.drain()
    connection.end()


async def _join(tunnel: wire.Tunnel, connection: RemoteConnection) -> None:
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
        connection.close_idle()
        await asyncio.gather(*ways, return_exceptions=True)


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

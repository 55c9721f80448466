"""An egress socket and both of its ends: the engine's, and a server that names lead to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amba_router.outbound import Outbound
from amba_router.outbound_app import ASGIApp, Message, Scope
from amba_router.outbound_client import OutboundClient, TrustedRoots
from amba_runtime import wire
from amba_runtime.egress import Denied, EgressPolicy, OwnAddresses, ResolveError
from amba_runtime.egress_rules import EgressRules
from amba_runtime.wire import Headers

MARK = b"amba-run-0123456789abcdef"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

ALL_NAMES = ("api.example.com", "other.example.com", "echo.example.com")


@dataclass
class Names:
    """A resolver (`egress.Resolver`) that has its answers from a table; None is loopback."""

    table: Mapping[str, Sequence[str]] | None = None
    asked: list[str] = field(default_factory=list[str])

    async def resolve(self, name: str) -> Sequence[str]:
        """What the table says. Raises ResolveError."""
        self.asked.append(name)
        if self.table is None:
            return ("127.0.0.1",)
        if name.rstrip(".") not in self.table:
            raise ResolveError(f"{name} does not resolve")
        return self.table[name.rstrip(".")]


@dataclass
class Asked:
    """One request as a server on the network got it."""

    line: bytes
    headers: Headers
    body: bytes

    def all(self, name: bytes) -> list[bytes]:
        """The values of a name."""
        return [value for field_, value in self.headers if field_ == name]


Answering = Callable[[Asked], bytes]


def plain(body: bytes = b"ok", *lines: bytes, status: bytes = b"200 OK") -> bytes:
    """An answer with a length."""
    head = (b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *lines, b"", b"")
    return b"\r\n".join(head) + body


@contextlib.asynccontextmanager
async def listening(talk: Talk, *, tls: ssl.SSLContext | None = None) -> AsyncGenerator[int]:
    """A server on loopback; yields its port. `talk` is given each connection."""
    tasks: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await talk(reader, writer)
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
        for _ in range(5):
            await asyncio.sleep(0)  # connections that were closed get to their ends


class Server:
    """A server on loopback: one answer for each request, and a list of what it was asked."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self.asked: list[Asked] = []
        self.accepted = 0
        self.port = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncGenerator[Server]:
        """Listen while inside."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.accepted += 1
            while True:
                asked = await _request(reader)
                self.asked.append(asked)
                writer.write(self._answering(asked))
                await writer.drain()

        async with listening(talk) as self.port:
            yield self


async def _request(reader: asyncio.StreamReader) -> Asked:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *lines = head[:-4].split(b"\r\n")
    fields = [(n.lower(), v.strip()) for n, _, v in (one.partition(b":") for one in lines)]
    length = int(dict(fields).get(b"content-length", b"0"))
    return Asked(line, fields, await reader.readexactly(length))


@dataclass
class Answer:
    """What the engine's end got."""

    status: int
    headers: Headers
    body: bytes

    def all(self, name: bytes) -> list[bytes]:
        """The values of a name."""
        return [value for field_, value in self.headers if field_ == name]


@dataclass
class EgressLab:
    """One function's egress socket."""

    outbound: Outbound
    client: wire.Client
    path: Path
    denied: list[tuple[str, Denied]]

    async def fetch(
        self, url: str, fields: Headers | None = None, *, method: str = "GET", body: bytes = b""
    ) -> Answer:
        """One exchange. Raises WireError where the connection breaks."""
        connection = await self.client.acquire(fresh=True)
        connection.begin(method.encode(), url.encode(), wire.render(fields or []), len(body))
        connection.write(body)
        connection.end()
        try:
            await connection.head()
            parts: list[bytes] = []
            while method != "HEAD" and (data := await connection.read()):
                parts.append(data)
            return Answer(connection.status, connection.headers, b"".join(parts))
        finally:
            connection.abort()


async def no_app(
    scope: Scope,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """An app nobody should call."""
    raise AssertionError(scope["path"])


@contextlib.asynccontextmanager
async def egress(
    *,
    app: ASGIApp = no_app,
    allow: Sequence[str] = (),
    names: Names | None = None,
    rules: Mapping[str, Any] | None = None,
    trust: TrustedRoots | None = None,
) -> AsyncGenerator[EgressLab]:
    """Open one, with the functions' own rules."""
    policy = EgressPolicy(OwnAddresses(port=8787), resolver=names or Names(), allow=allow)
    denied: list[tuple[str, Denied]] = []
    outbound = Outbound(
        policy,
        app,
        OutboundClient(trust or TrustedRoots()),
        on_denied=lambda method, refusal: denied.append((method, refusal)),
        rules=EgressRules.of(rules or {}),
    )
    with tempfile.TemporaryDirectory(prefix="eg") as folder:
        path = Path(folder) / "egress.sock"
        server = wire.Server(path, outbound, name="egress")
        await server.open()
        client = wire.Client(path, loop=asyncio.get_running_loop())
        try:
            yield EgressLab(outbound, client, path, denied)
        finally:
            client.close()
            await server.close()
            await outbound.close()

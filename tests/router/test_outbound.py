"""Where a function's requests go: our own app in process, the network, or nowhere."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import ssl
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.router.egress_lab import Talk, listening
from websockets.asyncio.server import ServerConnection, serve

import amba_runtime
from amba_router.denials import log_denied
from amba_router.outbound import Outbound
from amba_router.outbound_app import ASGIApp, Message, Scope
from amba_router.outbound_client import OutboundClient, Timeouts, TrustedRoots
from amba_router.outbound_connection import Peers, RemoteConnection
from amba_runtime import limits, wire
from amba_runtime.egress import (
    Denied,
    DeniedReason,
    EgressPolicy,
    External,
    OwnAddresses,
    ResolveError,
    Target,
)
from amba_runtime.wire import Headers

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(uvloop.new_event_loop, id="uvloop"),
]
API = "http://127.0.0.1:8787"
OUT = "http://example.com"
MIB = 1024 * 1024
LAG_MAX = 3 * MIB  # our buffers (256 KiB per side and hop) and the kernel's, with room to spare


# --- the lab: an engine's end, the egress socket, and a server on loopback ---------------------


class Resolver:
    """Every name is on loopback, where the server of the test listens."""

    async def resolve(self, name: str) -> Sequence[str]:
        """127.0.0.1, whatever is asked, but for names that begin with `no`."""
        if name.startswith("no"):
            raise ResolveError(f"{name} does not resolve")
        return ("127.0.0.1",)


async def no_app(scope: Scope, receive: Receive, send: Send) -> None:
    """An app nobody should call."""
    raise AssertionError(scope["path"])


@dataclass
class Answer:
    """What the engine's end got."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        """The first value of a name."""
        return next((v for n, v in self.headers if n == name), None)


@dataclass
class Lab:
    """One function process's egress socket and the engine's end of it."""

    outbound: Outbound
    client: wire.Client
    folder: Path
    denied: list[tuple[str, Denied]] = field(default_factory=list[tuple[str, Denied]])

    async def begin(
        self, method: str, url: str, headers: Headers | None = None, length: int | None = 0
    ) -> wire.Connection:
        """Send a request head over a fresh connection."""
        connection = await self.client.acquire(fresh=True)
        connection.begin(method.encode(), url.encode(), wire.render(headers or []), length)
        return connection

    async def fetch(
        self, method: str, url: str, headers: Headers | None = None, body: bytes = b""
    ) -> Answer:
        """One whole exchange. Raises WireError when the connection breaks."""
        connection = await self.begin(method, url, headers, len(body))
        connection.write(body)
        connection.end()
        await connection.head()
        data = b"" if method == "HEAD" else await drink(connection)
        connection.abort()
        return Answer(connection.status, connection.headers, data)

    async def refused(self, method: str, url: str) -> Denied:
        """A fetch whose connection must break; the refusal that was told."""
        with pytest.raises(wire.WireError, match="closed"):
            await self.fetch(method, url)
        told, denied = self.denied[-1]
        assert told == method
        return denied


async def drink(connection: wire.Connection) -> bytes:
    """The rest of an answer's body."""
    parts: list[bytes] = []
    while data := await connection.read():
        parts.append(data)
    return b"".join(parts)


@contextlib.asynccontextmanager
async def lab(
    app: ASGIApp = no_app,
    *,
    port: int | None = None,
    allow: Sequence[str] = (),
    trust: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    timeouts: Timeouts | None = None,
    shut: bool = False,
) -> AsyncGenerator[Lab]:
    """An egress socket with `app` behind it; `port` opens example.com at that port."""
    names = ("example.com", "secure.example.com", "other.example.com", "no.example.com")
    opened = [f"{name}:{port}" for name in names if port is not None]
    policy = EgressPolicy(OwnAddresses(port=8787), resolver=Resolver(), allow=[*opened, *allow])
    with tempfile.TemporaryDirectory(prefix="eg") as folder:
        client = OutboundClient(TrustedRoots(trust), timeouts=timeouts)
        path = Path(folder) / "egress.sock"
        told: list[tuple[str, Denied]] = []
        outbound = Outbound(
            policy,
            app,
            client,
            on_denied=lambda method, denied: told.append((method, denied)),
            shut=shut,
        )
        server = wire.Server(path, outbound, name="egress")
        await server.open()
        engine = wire.Client(path, loop=asyncio.get_running_loop())
        try:
            yield Lab(outbound, engine, Path(folder), told)
        finally:
            engine.close()
            await server.close()
            await outbound.close()
            await outbound.close()


def run(
    main: Coroutine[Any, Any, None],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run to the end, on the loop of choice."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main)


async def head_of(reader: asyncio.StreamReader) -> list[bytes]:
    """The lines of a request's head."""
    return (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]


def replying(*answers: bytes, heads: list[list[bytes]] | None = None) -> Talk:
    """A server that reads heads and replies with fixed bytes, in turn, then closes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            lines = await head_of(reader)
            if heads is not None:
                heads.append(lines)
            writer.write(answer)
            await writer.drain()

    return talk


# --- our own app, in process -------------------------------------------------------------------


async def mirror(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what it was asked, as JSON."""
    body = b""
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        body += message["body"]
    seen = {k: v for k, v in scope.items() if k in ("type", "method", "scheme", "path", "client")}
    seen["raw_path"] = scope["raw_path"].decode()
    seen["query"] = scope["query_string"].decode()
    seen["headers"] = [[n.decode(), v.decode()] for n, v in scope["headers"]]
    seen["body"] = body.decode()
    said = json.dumps(seen).encode()
    fields = [(b"Content-Type", b"application/json"), (b"connection", b"close"), (b"X-A", b"1")]
    await send({"type": "http.response.start", "status": 201, "headers": fields})
    await send({"type": "http.response.body", "body": said})


def test_our_own_app_gets_the_request_as_from_a_socket() -> None:
    """Method, path, query, headers and body arrive; Host is the URL's; hop-by-hop fields and
    forged addresses do not (interface.md 1; reliability.md 5, 7)."""

    async def main() -> None:
        async with lab(mirror) as it:
            headers: Headers = [
                (b"host", b"spoof.example"),
                (b"x-keep", b"1"),
                (b"x-keep", b"2"),
                (b"x-dropped", b"1"),
                (b"connection", b"keep-alive, X-Dropped"),
                (b"x-forwarded-for", b"1.2.3.4"),
                (b"cf-connecting-ip", b"1.2.3.4"),
            ]
            answer = await it.fetch("POST", f"{API}/v1/a%2Fb%20c?q=%20", headers, b"hello")
            seen = json.loads(answer.body)
            assert answer.status == 201
            assert answer.header(b"x-a") == b"1"
            assert answer.header(b"connection") is None
            assert seen["method"] == "POST"
            assert (seen["path"], seen["raw_path"], seen["query"]) == (
                "/v1/a/b c",
                "/v1/a%2Fb%20c",
                "q=%20",
            )
            assert seen["headers"] == [
                ["host", "127.0.0.1:8787"],
                ["x-keep", "1"],
                ["x-keep", "2"],
                ["content-length", "5"],
            ]
            assert seen["body"] == "hello"
            assert it.denied == []

    run(main())


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        (f"{API}/v1/x", True),
        (f"{API}/ai/anthropic/messages", True),
        ("http://local.fn.localhost:8787/hello", False),
        ("http://local.cdn.localhost:8787/key", False),
    ],
)
def test_platform_headers_of_a_guest_reach_the_api_alone(url: str, kept: bool) -> None:
    """`x-amba-*` goes to the API and AI routes, in no spelling to functions (contract E.10;
    reliability.md 5, 6; T8)."""

    async def main() -> None:
        async with lab(mirror) as it:
            headers: Headers = [(b"x-amba-user-id", b"u_1"), (b"X_Amba-Project-Id", b"p")]
            answer = await it.fetch("GET", url, headers)
            found = {n for n, _ in json.loads(answer.body)["headers"]}
            assert found == {"host"} | ({"x-amba-user-id", "x_amba-project-id"} if kept else set())

    run(main())


def test_a_head_request_is_answered_without_a_body() -> None:
    """HEAD has the headers of GET and no body, even from an app that sends one (issue 2, 4)."""

    async def main() -> None:
        async with lab(mirror) as it:
            answer = await it.fetch("HEAD", f"{API}/x")
            assert (answer.status, answer.body) == (201, b"")

    run(main())


def test_an_app_that_fails_before_its_answer_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    """The function sees a server error, the log the reason (architecture.md 6)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/raise":
            raise LookupError("broken on purpose")

    async def main() -> None:
        async with lab(app) as it:
            assert (await it.fetch("GET", f"{API}/raise")).status == 500
            assert (await it.fetch("GET", f"{API}/return")).status == 500

    run(main())
    assert "broken on purpose" in caplog.text


@pytest.mark.parametrize("fault", ["raise", "return", "short", "long"])
def test_an_app_that_fails_in_its_answer_breaks_it_off(fault: str) -> None:
    """A truncated answer never looks complete, and a longer one never runs into the next
    (reliability.md T7)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        fields = [(b"content-length", b"4")] if fault in ("short", "long") else []
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        if fault == "long":
            await send({"type": "http.response.body", "body": b"12345"})
            return
        await send({"type": "http.response.body", "body": b"123", "more_body": fault != "short"})
        if fault == "raise":
            raise LookupError

    async def main() -> None:
        async with lab(app) as it:
            with pytest.raises(wire.WireError):
                await it.fetch("GET", f"{API}/")

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_64_mib_stream_from_our_app_in_step_with_the_reader(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A download waits for the function: what is under way stays small (issue 2, 4)."""
    chunk, count = b"x" * 65536, 1024
    sent = received = lag = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent, lag
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for i in range(count):
            await send({"type": "http.response.body", "body": chunk, "more_body": i < count - 1})
            sent += len(chunk)
            lag = max(lag, sent - received)

    async def main() -> None:
        nonlocal received
        async with lab(app) as it:
            connection = await it.begin("GET", f"{API}/")
            await connection.head()
            while data := await connection.read():
                received += len(data)
            assert received == sent == count * len(chunk)
            assert lag < LAG_MAX

    run(main(), loop)


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_64_mib_stream_to_our_app_in_step_with_its_receive(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """An upload waits for the app, which answers while it still reads (issue 2, 4)."""
    chunk, count = b"x" * 65536, 1024
    sent = received = lag = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal received
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (message := await receive())["more_body"]:
            received += len(message["body"])
        await send({"type": "http.response.body", "body": b"%d" % received})

    async def main() -> None:
        nonlocal sent, lag
        async with lab(app) as it:
            connection = await it.begin("POST", f"{API}/", length=None)
            await connection.head()
            for _ in range(count):
                connection.write(chunk)
                await connection.drain()
                sent += len(chunk)
                lag = max(lag, sent - received)
            connection.end()
            assert await drink(connection) == b"%d" % sent
            assert lag < LAG_MAX

    run(main(), loop)


def test_an_app_may_answer_without_reading_the_body() -> None:
    """An early answer arrives whole, and the rest of the upload is taken and dropped (issue 2,
    row 11; workerd forgets an answer when its upload is cut short)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b"too large"})

    async def main() -> None:
        async with lab(app) as it:
            await answered_early(it, f"{API}/", b"too large")

    run(main())


async def answered_early(it: Lab, url: str, expected: bytes) -> None:
    """An upload that is answered 413 after its first MiB of four, and may go on to its end."""
    connection = await it.begin("POST", url, length=4 * MIB)
    connection.write(b"x" * MIB)
    await connection.head()
    assert (connection.status, await drink(connection)) == (413, expected)
    assert (b"connection", b"close") in connection.headers
    for _ in range(3):
        connection.write(b"x" * MIB)
        await connection.drain()
    connection.abort()


def test_a_receive_that_was_given_up_loses_no_bytes() -> None:
    """An app may wait for the body with a deadline and ask again (ASGI spec, receive)."""
    waiting = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        given_up = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait({given_up})
        waiting.set()
        await mirror(scope, receive, send)

    async def main() -> None:
        async with lab(app) as it:
            connection = await it.begin("POST", f"{API}/", length=None)
            await waiting.wait()
            connection.write(b"late")
            connection.end()
            await connection.head()
            assert json.loads(await drink(connection))["body"] == "late"

    run(main())


@pytest.mark.parametrize("stage", ["before", "during", "upload"])
def test_an_app_is_told_when_the_engine_leaves(stage: str) -> None:
    """A function that dies or aborts ends the work done for it: `receive` says so, and `send`
    fails (ASGI spec; issue 2 row 11)."""
    seen: list[str] = []
    at_work, over = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if stage != "upload":
            await receive()
        if stage == "during":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        at_work.set()
        seen.append((await receive())["type"])
        try:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except OSError:
            seen.append("OSError")
        over.set()

    async def main() -> None:
        async with lab(app) as it:
            connection = await it.begin("POST", f"{API}/", length=9 if stage == "upload" else 0)
            await at_work.wait()
            connection.abort()
            await over.wait()
            assert seen == ["http.disconnect", "OSError"]

    run(main())


@pytest.mark.slow
def test_an_app_that_will_not_notice_is_cancelled() -> None:
    """Work for nobody ends after a grace (limits.EGRESS_APP_LEAVE_S)."""
    at_work, cancelled = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        at_work.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def main() -> None:
        async with lab(app) as it:
            connection = await it.begin("GET", f"{API}/")
            await at_work.wait()
            connection.abort()
            await cancelled.wait()

    run(main())


def test_work_after_an_answer_goes_on_and_ends_with_the_handler() -> None:
    """An app may log after its answer; `close` waits for none of it (architecture.md 3, 12)."""
    seen: list[str] = []
    answered = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
        await answered.wait()
        seen.append("after")
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cancelled")

    async def main() -> None:
        async with lab(app) as it:
            assert (await it.fetch("GET", f"{API}/")).status == 204
            assert seen == []
            answered.set()
        assert seen == ["after", "cancelled"]

    run(main())


def test_closing_ends_a_request_that_our_app_is_still_at() -> None:
    """A handler that closes leaves nobody waiting (style.md, Async)."""
    at_work = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        at_work.set()
        await asyncio.Event().wait()

    async def main() -> None:
        async with lab(app) as it:
            asking = asyncio.ensure_future(it.fetch("GET", f"{API}/"))
            await at_work.wait()
            await it.outbound.close()
            assert (await asking).status == 400

    run(main())


# --- nowhere -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1/", DeniedReason.ADDRESS),
        ("http://localhost:3000/", DeniedReason.NAME),
        ("https://169.254.169.254/latest", DeniedReason.ADDRESS),
        ("http://no-such.example.com/", DeniedReason.UNRESOLVED),
        ("http://example.com:25/", DeniedReason.PORT),
        ("/origin-form", DeniedReason.MALFORMED),
    ],
)
def test_what_is_denied_breaks_the_connection_and_is_told(url: str, reason: DeniedReason) -> None:
    """The function sees a network error, the person one refusal with a reason (issue 4 item 4;
    reliability.md 5, 11 and 22)."""

    async def main() -> None:
        async with lab() as it:
            assert (await it.refused("GET", url)).reason is reason
            assert (await it.refused("POST", url)).reason is reason
            assert len(it.denied) == 2

    run(main())


def test_a_denied_address_is_never_connected_to() -> None:
    """A canary on loopback sees no connection, by literal or by name (reliability.md 5, 23)."""
    canary = socket.create_server(("127.0.0.1", 0))
    canary.setblocking(False)
    port = canary.getsockname()[1]

    async def main() -> None:
        async with lab() as it:
            for host in ("127.0.0.1", "localhost", "example.com", "[::ffff:127.0.0.1]"):
                for scheme in ("http", "https"):
                    await it.refused("GET", f"{scheme}://{host}:{port}/")

    run(main())
    with canary, pytest.raises(BlockingIOError):
        canary.accept()


def test_the_refusal_is_one_line_with_what_to_allow(caplog: pytest.LogCaptureFixture) -> None:
    """The default log line says what, why and the fix (issue 4 item 4)."""
    denied = Denied("http://h:1", DeniedReason.NAME, "h is local", 'allow = ["h:1"]')
    log_denied("GET", denied)
    assert caplog.messages == ['egress GET http://h:1: h is local (name); allow = ["h:1"]']


@pytest.mark.parametrize(
    ("method", "url", "headers", "word"),
    [
        ("CONNECT", "db.example.com:5432", [], b"connect"),
        ("GET", API, [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")], b"WebSockets"),
        ("GET", OUT, [(b"connection", b"Upgrade"), (b"upgrade", b"h2c")], b"WebSocket"),
    ],
)
def test_what_is_not_emulated_says_so(method: str, url: str, headers: Headers, word: bytes) -> None:
    """connect(), other upgrades, and WebSockets to ourselves: 501, told, never a silent stub
    (architecture.md 6; reliability.md 5, 9)."""

    async def main() -> None:
        async with lab() as it:
            answer = await it.fetch(method, url, headers)
            assert answer.status == 501
            assert word in answer.body
            assert [d.reason for _, d in it.denied] == [DeniedReason.NOT_EMULATED]

    run(main())


# --- the network -------------------------------------------------------------------------------


def test_a_request_leaves_clean_and_its_answer_comes_back_untouched() -> None:
    """Host is the URL's; hop-by-hop and platform headers stay here; an encoded body passes as it
    is (reliability.md 5, 7, 16 and 17)."""
    heads: list[list[bytes]] = []
    answer_bytes = (
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Encoding: gzip\r\nSet-Cookie: a\r\n"
        b"Set-Cookie: b\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nConnection: X-Hop\r\n\r\n"
        b"\x1f\x8b\x00\x01"
    )

    async def main() -> None:
        async with listening(replying(answer_bytes, heads=heads)) as port, lab(port=port) as it:
            headers: Headers = [
                (b"host", b"internal"),
                (b"x-amba-user-id", b"u_1"),
                (b"X_AMBA_USER_ID", b"u_1"),
                (b"connection", b"x-private"),
                (b"x-private", b"1"),
                (b"te", b"trailers"),
                (b"authorization", b"Bearer t"),
                (b"accept-encoding", b"br"),
            ]
            answer = await it.fetch("GET", f"{OUT}:{port}/a%2Fb?c", headers)
            assert heads == [
                [
                    b"GET /a%2Fb?c HTTP/1.1",
                    b"host: example.com:%d" % port,
                    b"authorization: Bearer t",
                    b"accept-encoding: br",
                ]
            ]
            assert answer == Answer(
                200,
                [
                    (b"content-length", b"4"),
                    (b"content-encoding", b"gzip"),
                    (b"set-cookie", b"a"),
                    (b"set-cookie", b"b"),
                ],
                b"\x1f\x8b\x00\x01",
            )

    run(main())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        b"3\r\nhel\r\n2\r\nlo\r\n0\r\nx: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
    ],
)
def test_every_framing_of_an_answer_is_read(
    answer: bytes, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Length, chunks (trailers dropped), or the end of the connection (RFC 9112 section 6.3)."""

    async def main() -> None:
        async with listening(replying(answer)) as port, lab(port=port) as it:
            got = await it.fetch("GET", f"{OUT}:{port}/")
            assert (got.status, got.body) == (200, b"hello")

    run(main(), loop)


def test_a_redirect_is_handed_back_not_followed() -> None:
    """The engine follows, and each hop is decided on anew (reliability.md 5, 6)."""
    moved = b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"

    async def main() -> None:
        async with listening(replying(moved)) as port, lab(port=port) as it:
            got = await it.fetch("GET", f"{OUT}:{port}/")
            assert got.status == 302
            assert got.header(b"location") == b"http://169.254.169.254/"

    run(main())


def test_connections_are_kept_per_name_and_used_again() -> None:
    """Two requests to a name share a connection, another name at the same address never does
    (reliability.md 5, 1)."""
    served: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(0)
        mine = len(served) - 1
        while await head_of(reader):
            served[mine] += 1
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async def main() -> None:
        async with listening(talk) as port, lab(port=port) as it:
            for name in ("example.com", "example.com", "other.example.com"):
                assert (await it.fetch("GET", f"http://{name}:{port}/")).body == b"ok"
            assert served == [2, 1]

    run(main())


def test_a_kept_connection_that_died_is_replaced_where_nothing_is_lost() -> None:
    """GET is sent again over a fresh connection (RFC 9110 section 9.2.2); POST is not."""
    methods: list[bytes] = []
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        methods.append((await head_of(reader))[0].split()[0])
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        methods.append((await head_of(reader))[0].split()[0])  # and then closes, unanswered

    async def main() -> None:
        async with listening(talk) as port, lab(port=port) as it:
            url = f"{OUT}:{port}/"
            assert (await it.fetch("GET", url)).body == b"ok"
            assert (await it.fetch("GET", url)).body == b"ok"
            assert (methods, connections) == ([b"GET"] * 3, 2)
            assert (await it.refused("POST", url)).reason is DeniedReason.UNREACHABLE
            assert (methods[3:], connections) == ([b"POST"], 2)

    run(main())


def test_an_idle_connection_is_not_used_after_its_time() -> None:
    """One kept for longer than `limits.WIRE_IDLE_S` is closed, not used (engines.md 2)."""
    connections = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await head_of(reader):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(talk) as port, lab(port=port) as it:
            await it.fetch("GET", f"{OUT}:{port}/")
            real = loop.time
            past_s = limits.WIRE_IDLE_S.value + 1
            loop.time = lambda: real() + past_s  # type: ignore[method-assign]  # the loop's
            await it.fetch("GET", f"{OUT}:{port}/")
            assert connections == 2

    run(main())


def test_the_number_of_kept_addresses_is_bounded() -> None:
    """The oldest goes first (limits.EGRESS_PEERS), and its connections with it."""
    most = limits.EGRESS_PEERS.value
    first_ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = (await head_of(reader))[1].decode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await reader.read()
        assert host.startswith("host: h0.") or first_ended.is_set()
        first_ended.set()

    async def main() -> None:
        async with listening(talk) as port:
            names = [f"h{i}.example.com" for i in range(most + 1)]
            async with lab(allow=[f"{name}:{port}" for name in names]) as it:
                for name in names:
                    assert (await it.fetch("GET", f"http://{name}:{port}/")).body == b"ok"
                await first_ended.wait()

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_64_mib_go_out_and_come_back_at_the_same_time(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A server that echoes while it receives works, with little under way (issue 2, 4)."""
    chunk, count = bytes(range(256)) * 256, 1024
    lag = sent = received = 0

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await head_of(reader)
        assert b"transfer-encoding: chunked" in head
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        size = 1
        while size:
            line = await reader.readline()
            size = int(line, 16)
            writer.write(line + await reader.readexactly(size + 2))
            await writer.drain()

    async def main() -> None:
        nonlocal lag, sent, received
        digest = hashlib.sha256()
        async with listening(echo) as port, lab(port=port) as it:
            connection = await it.begin("POST", f"{OUT}:{port}/", length=None)

            async def upload() -> None:
                nonlocal sent, lag
                for _ in range(count):
                    connection.write(chunk)
                    await connection.drain()
                    sent += len(chunk)
                    lag = max(lag, sent - received)
                connection.end()

            uploading = asyncio.ensure_future(upload())
            await connection.head()
            while data := await connection.read():
                digest.update(data)
                received += len(data)
            await uploading
            assert received == count * len(chunk)
            assert digest.digest() == hashlib.sha256(chunk * count).digest()
            assert lag < 5 * LAG_MAX  # two hops, both ways, and what TCP grows its buffers to

    run(main(), loop)


def test_an_early_answer_of_a_server_ends_the_upload() -> None:
    """413 before the body was read arrives; the server is left, the rest of the upload dropped
    (issue 2, row 11)."""
    lefts: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 413 No\r\ncontent-length: 3\r\n\r\nbig")
        await writer.drain()
        try:
            lefts.append(len(await reader.read()))
        except ConnectionError:
            lefts.append(0)

    async def main() -> None:
        async with listening(talk) as port, lab(port=port) as it:
            await answered_early(it, f"{OUT}:{port}/", b"big")
            assert len(lefts) >= 1

    run(main())


@pytest.mark.parametrize(
    ("reply", "status", "body"),
    [
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", 403, b"no"),
        (b"SSH-2.0-OpenSSH\r\n", None, b"not HTTP"),
    ],
)
def test_a_websocket_that_a_server_refuses_is_an_answer(
    reply: bytes, status: int | None, body: bytes
) -> None:
    """A refusal of the upgrade is an ordinary answer, a broken one a network error
    (RFC 6455 section 4.1)."""
    heads: list[list[bytes]] = []

    async def main() -> None:
        async with listening(replying(reply, heads=heads)) as port, lab(port=port) as it:
            url = f"{OUT}:{port}/s"
            headers: Headers = [
                *((b"connection", b"Upgrade"), (b"upgrade", b"websocket")),
                *((b"sec-websocket-key", b"a2V5"), (b"x-amba-user-id", b"u_1")),
            ]
            if status is None:
                with pytest.raises(wire.WireError, match="closed"):
                    await it.fetch("GET", url, headers)
                assert body.decode() in it.denied[-1][1].message
            else:
                answer = await it.fetch("GET", url, headers)
                assert (answer.status, answer.body) == (status, body)
            assert sorted(heads[0][2:]) == [
                b"connection: Upgrade",
                b"sec-websocket-key: a2V5",
                b"upgrade: websocket",
            ]

    run(main())


@pytest.mark.parametrize("stage", ["upload", "waiting", "upgrade", "answer"])
def test_the_server_is_left_when_the_engine_leaves(stage: str) -> None:
    """No request goes on for a function that is gone, also not one that would have become a
    WebSocket (issue 2, row 11)."""
    at_work, left = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        if stage == "answer":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")
        at_work.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        left.set()

    async def main() -> None:
        async with listening(talk) as port, lab(port=port) as it:
            length = 9 if stage == "upload" else 0
            fields: Headers = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
            if stage == "upgrade":
                connection = await it.begin("GET", f"{OUT}:{port}/", fields)
            else:
                connection = await it.begin("POST", f"{OUT}:{port}/", length=length)
            await at_work.wait()
            if stage == "answer":
                await connection.head()
            connection.abort()
            async with asyncio.timeout(5):
                await left.wait()

    run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_server_that_never_reads_keeps_no_connection(
    loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it does not take when the exchange is over is dropped, and so is it (T13, row G11)."""
    monkeypatch.setattr(limits, "EGRESS_CLOSE_S", limits.Deadline(0.01, "", ""))

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            running = asyncio.get_running_loop()
            peers = Peers(running, lambda: True)
            _, connection = await running.create_connection(
                lambda: RemoteConnection(peers), *silent.getsockname()
            )
            connection.begin(b"POST", b"/", b"", 32 * MIB)
            connection.write(bytes(32 * MIB))  # more than the system takes for it
            connection.close_idle()
            connection.close_idle()  # whoever else closes it changes nothing
            async with asyncio.timeout(5):
                with pytest.raises(wire.WireError, match="closed"):
                    await connection.head()
            assert connection.lost

    run(main(), loop)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"", "closed"),
        (b"HTTP/1.1 200", "closed"),
        (b"SSH-2.0-OpenSSH\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", "gzip"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 11, "interim"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * limits.EGRESS_HEAD_BYTES.value + b"\r\n\r\n", "large"),
        (b"HTTP/1.1 200 OK\r\n" + b"x:y\r\n" * 4096 + b"\r\n", "large"),
    ],
)
def test_an_answer_that_is_no_answer_is_a_network_error(answer: bytes, word: str) -> None:
    """Broken, over-long and endless heads end the connection, and the log says why
    (reliability.md 3.G row G11; 5, 17)."""

    async def main() -> None:
        async with listening(replying(answer)) as port, lab(port=port) as it:
            denied = await it.refused("GET", f"{OUT}:{port}/")
            assert denied.reason is DeniedReason.UNREACHABLE
            assert word in denied.message
            assert "engine" not in denied.message

    run(main())


def test_a_truncated_answer_is_broken_off() -> None:
    """Half a body never looks whole (issue 2, row 11)."""
    half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello"

    async def main() -> None:
        async with listening(replying(half)) as port, lab(port=port) as it:
            with pytest.raises(wire.WireError):
                await it.fetch("GET", f"{OUT}:{port}/")

    run(main())


def test_ten_interim_answers_are_borne() -> None:
    """The limit itself still passes (limits.EGRESS_INTERIM)."""
    answer = b"HTTP/1.1 103 H\r\n\r\n" * 10 + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    async def main() -> None:
        async with listening(replying(answer)) as port, lab(port=port) as it:
            assert (await it.fetch("GET", f"{OUT}:{port}/")).body == b"ok"

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["first byte", "idle", "upload"])
def test_a_server_that_says_nothing_is_given_up(stage: str) -> None:
    """First byte, silence within a body, and a server that takes no more bytes have deadlines
    (reliability.md 5, 18)."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        if stage == "idle":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")
        await asyncio.Event().wait()

    async def main() -> None:
        soon = Timeouts(connect_s=5, first_byte_s=0.05, idle_s=0.05)
        async with listening(talk) as port, lab(port=port, timeouts=soon) as it:
            url = f"{OUT}:{port}/"
            if stage == "first byte":
                assert "in time" in (await it.refused("GET", url)).message
                return
            if stage == "idle":
                with pytest.raises(wire.WireError):
                    await it.fetch("GET", url)
                return
            connection = await it.begin("POST", url, length=64 * MIB)

            async def flood() -> None:
                while True:
                    connection.write(b"x" * 65536)
                    await connection.drain()

            with pytest.raises(wire.WireError):
                await flood()
            assert "in time" in it.denied[-1][1].message

    run(main())


def test_a_port_where_nobody_listens_is_a_network_error() -> None:
    """Refused connections look like denials to the function, not to the log
    (reliability.md 5, 11)."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def main() -> None:
        async with lab(port=port) as it:
            denied = await it.refused("GET", f"{OUT}:{port}/")
            assert denied.reason is DeniedReason.UNREACHABLE
            assert "cannot be reached" in denied.message

    run(main())


def test_the_next_address_is_tried_when_one_fails() -> None:
    """Every pinned address may serve, in order (reliability.md 5, 3)."""
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    async def main() -> None:
        async with listening(replying(answer)) as port:
            addresses = ("127.0.0.2", "127.0.0.1")
            external = External(Target("http", "example.com", port, b"/"), addresses)
            client = OutboundClient(TrustedRoots())

            async def handler(request: wire.Request) -> wire.Response:
                return await client.send(request, external)

            with tempfile.TemporaryDirectory(prefix="eg") as folder:
                server = wire.Server(Path(folder) / "s", handler, name="direct")
                await server.open()
                engine = wire.Client(server.path, loop=asyncio.get_running_loop())
                connection = await engine.acquire()
                connection.begin(b"GET", b"/", b"", 0)
                await connection.head()
                assert await drink(connection) == b"ok"
                engine.close()
                client.close()
                await server.close()

    run(main())


# --- TLS ---------------------------------------------------------------------------------------

KEY = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQganOyaHqQArJdNx2d
uClnKEftnGc/GBQARH30jBzL4imhRANCAATjalJ+rTCZtHdHclyrxaKR/Sg6Nxug
o2jnBUbgW6wGYXWg4KnoTIu+cYcH5IEVPtRNY1lGnH7MuPrfnEmmu+Jl
-----END PRIVATE KEY-----
"""
"""A key for tests alone, with a certificate until 2126 for secure.example.com and 127.0.0.1."""

CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIIBtTCCAVygAwIBAgIUWO4ralqFMJ9R2dlrtt68dL1GGMIwCgYIKoZIzj0EAwIw
HTEbMBkGA1UEAwwSc2VjdXJlLmV4YW1wbGUuY29tMCAXDTI2MTEyMjE2MzczOFoY
DzIxMjYxMDI5MTYzNzM4WjAdMRswGQYDVQQDDBJzZWN1cmUuZXhhbXBsZS5jb20w
WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATjalJ+rTCZtHdHclyrxaKR/Sg6Nxug
o2jnBUbgW6wGYXWg4KnoTIu+cYcH5IEVPtRNY1lGnH7MuPrfnEmmu+Jlo3gwdjAd
BgNVHQ4EFgQUHrwW9iXJtFc3ek9kAhf6hiMRiqcwHwYDVR0jBBgwFoAUHrwW9iXJ
tFc3ek9kAhf6hiMRiqcwDwYDVR0TAQH/BAUwAwEB/zAjBgNVHREEHDAaghJzZWN1
cmUuZXhhbXBsZS5jb22HBH8AAAEwCgYIKoZIzj0EAwIDRwAwRAIgJmpvVyPi4RXK
lgxFs25yalwGTfwDlYlv4KatcCDTuq4CIGLA3twO5zm/NCld/ZPiUxnz69lZh7P0
qjMhzDf1fH1g
-----END CERTIFICATE-----
"""


def server_tls(folder: Path, names: list[str | None]) -> ssl.SSLContext:
    """A server's context for the certificate above; `names` collects the SNI of each client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (folder / "tls.pem").write_text(KEY + CERTIFICATE)
    context.load_cert_chain(folder / "tls.pem")
    context.sni_callback = lambda _connection, name, _context: names.append(name)
    return context


def trusting() -> ssl.SSLContext:
    """A client's context that trusts the certificate above and nothing else."""
    return ssl.create_default_context(cadata=CERTIFICATE)


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_tls_is_spoken_to_the_pinned_address_under_the_urls_name(
    tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """SNI, certificate check and Host follow the URL, the connection the address; an address is
    checked against the certificate too (reliability.md 5, 1; 3.G row G10)."""
    seen: list[str | None] = []
    heads: list[list[bytes]] = []
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    async def main() -> None:
        talk = replying(answer, heads=heads)
        async with listening(talk, tls=server_tls(tmp_path, seen)) as port:
            allow = [f"127.0.0.1:{port}"]
            async with lab(port=port, allow=allow, trust=trusting) as it:
                assert (await it.fetch("GET", f"https://secure.example.com:{port}/")).body == b"ok"
                assert (await it.fetch("GET", f"https://127.0.0.1:{port}/")).body == b"ok"
                assert seen == ["secure.example.com", None]
                assert heads[0][1] == b"host: secure.example.com:%d" % port

    run(main(), loop)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "trust"), [("other", trusting), ("secure", None)])
def test_a_certificate_that_does_not_fit_is_a_network_error(
    tmp_path: Path, name: str, trust: Callable[[], ssl.SSLContext] | None
) -> None:
    """The wrong name and an unknown issuer are refused, and the log says so
    (reliability.md 3.G row G10)."""

    async def main() -> None:
        talk = replying(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        async with listening(talk, tls=server_tls(tmp_path, [])) as port:
            roots = trust or ssl.create_default_context
            async with lab(port=port, trust=roots) as it:
                denied = await it.refused("GET", f"https://{name}.example.com:{port}/")
                assert "certificate is not trusted" in denied.message

    run(main())


def test_tls_to_a_server_that_speaks_none_is_a_network_error() -> None:
    """Plain HTTP on an https port is told as what it is: no connection (row G10)."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def main() -> None:
        async with listening(talk) as port, lab(port=port, trust=trusting) as it:
            denied = await it.refused("GET", f"https://secure.example.com:{port}/")
            assert denied.reason is DeniedReason.UNREACHABLE

    run(main())


# --- the real engine ---------------------------------------------------------------------------

GUEST = """
export default { async fetch(request) {
  const steps = await request.json(), out = {};
  for (const [name, url, init] of steps) {
    try {
      if (init?.socket) { out[name] = await socket(url); continue; }
      if (init?.connect) { out[name] = await tcp(url); continue; }
      if (init?.megabytes) init.body = new Uint8Array(init.megabytes << 20);
      const r = await fetch(url, init);
      out[name] = `${r.status} ${(await r.text()).slice(0, 200)}`;
    } catch (e) { out[name] = `${e.name}: ${e.message}`; }
  }
  return Response.json(out);
} };
async function socket(url) {
  const r = await fetch(url, { headers: { upgrade: "websocket" } });
  if (!r.webSocket) return `${r.status} ${await r.text()}`;
  const s = r.webSocket; s.accept();
  const said = new Promise((done) => s.addEventListener("message", (m) => done(m.data)));
  s.send("ping"); const data = await said; s.close(1000, "done"); return data;
}
async function tcp(address) {
  const { connect } = await import("cloudflare:sockets");
  await connect(address).opened; return "opened";
}
"""
CONFIG = """using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "fn", worker = (modules = [(name = "fn.mjs", esModule = embed "fn.mjs")],
      compatibilityDate = "2026-01-01")),
    (name = "internet", external = (address = "unix:%s", http = (style = proxy))),
  ],
  sockets = [(name = "http", service = "fn")]
);
"""


async def ask_guest(folder: Path, steps: list[Any]) -> dict[str, str]:
    """Run the guest in a real workerd whose egress is the lab's socket; what each step gave."""
    (folder / "fn.mjs").write_text(GUEST)
    (folder / "c.capnp").write_text(CONFIG % (folder / "egress.sock"))
    listener = wire.listen_unix(folder / "http.sock")
    program = Path(amba_runtime.__file__).parent / "native" / "workerd"
    process = await asyncio.create_subprocess_exec(
        str(program),
        *("serve", str(folder / "c.capnp"), "--socket-fd", f"http={listener.fileno()}"),
        pass_fds=[listener.fileno()],
    )
    listener.close()
    try:
        client = wire.Client(folder / "http.sock", loop=asyncio.get_running_loop())
        connection = await client.acquire()
        body = json.dumps(steps).encode()
        connection.begin(b"POST", b"/", b"host: guest\r\n", len(body))
        connection.write(body)
        connection.end()
        await connection.head()
        answer: dict[str, str] = json.loads(await drink(connection))
        connection.abort()
        return answer
    finally:
        process.kill()
        await process.wait()


LOST = "Error: Network connection lost."


@pytest.mark.slow
def test_a_guest_in_the_real_engine_reaches_what_it_may_and_nothing_else(tmp_path: Path) -> None:
    """fetch(), redirects, TLS, denials, early answers, WebSockets and connect() as a function
    sees them (engines.md 3; reliability.md B6; contract E.10)."""
    heads: list[list[bytes]] = []
    ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/early":
            await send({"type": "http.response.start", "status": 413, "headers": []})
            await send({"type": "http.response.body", "body": b"too large"})
        else:
            await mirror(scope, receive, send)

    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while lines := await head_of(reader):
            heads.append(lines)
            path = lines[0].split()[1]
            to = {b"/in": b"http://169.254.169.254/latest", b"/own": API.encode() + b"/v1/there"}
            if path in to:
                writer.write(
                    b"HTTP/1.1 302 F\r\ncontent-length: 0\r\nlocation: %b\r\n\r\n" % to[path]
                )
            else:
                length = next((int(n[15:]) for n in lines if n.startswith(b"content-length")), 0)
                await reader.readexactly(length)
                writer.write(ok)

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def main() -> None:
        async with (
            listening(web) as port,
            listening(web, tls=server_tls(tmp_path, [])) as tls_port,
            serve(echo, "127.0.0.1", 0) as sockets,
        ):
            ws_port = next(iter(sockets.sockets)).getsockname()[1]
            allow = [f"secure.example.com:{tls_port}", f"example.com:{ws_port}"]
            async with lab(app, port=port, allow=allow, trust=trusting) as it:
                forged = {"headers": {"x-amba-user-id": "u_1", "host": "spoof.example"}}
                seen = await ask_guest(
                    it.folder,
                    [
                        ["get", f"{OUT}:{port}/get", forged],
                        ["post", f"{OUT}:{port}/post", {"method": "POST", "body": "hello"}],
                        ["tls", f"https://secure.example.com:{tls_port}/"],
                        ["hop to metadata", f"{OUT}:{port}/in"],
                        ["hop to own", f"{OUT}:{port}/own"],
                        ["denied", "http://localhost:3000/"],
                        ["denied post", "http://10.0.0.1/", {"method": "POST", "body": "x"}],
                        ["number", "http://2130706433/"],
                        ["unresolved", "http://no.example.com/"],
                        ["own", f"{API}/v1/x?y", forged],
                        ["own function", "http://local.fn.localhost:8787/hello", forged],
                        ["early", f"{API}/early", {"method": "POST", "megabytes": 4}],
                        ["after early", f"{API}/v1/z"],
                        ["socket", f"{OUT}:{ws_port}/", {"socket": True}],
                        ["own socket", f"{API}/", {"socket": True}],
                        ["connect", "db.example.com:5432", {"connect": True}],
                    ],
                )
                assert seen["get"] == seen["post"] == seen["tls"] == "200 ok"
                assert heads[0][:2] == [b"GET /get HTTP/1.1", b"host: example.com:%d" % port]
                assert not any(b"amba" in line for line in heads[0])
                for name in ("hop to metadata", "denied", "denied post", "number", "unresolved"):
                    assert seen[name] == LOST, name
                assert '"path": "/v1/there"' in seen["hop to own"]
                assert seen["own"].startswith("201 ")
                assert "x-amba-user-id" not in seen["own function"]
                assert seen["early"] == "413 too large"
                assert seen["after early"].startswith("201 ")
                assert seen["socket"] == "ping"
                assert seen["own socket"].startswith("501 WebSockets")
                assert "cannot connect" in seen["connect"]
                assert [d.reason.value for _, d in it.denied] == [
                    *("address", "name", "address", "address", "unresolved"),
                    *("not_emulated", "not_emulated"),
                ]

    run(main())


def test_a_version_on_trial_reaches_nothing() -> None:
    """Not our own app, not the network, until it serves: a network error (architecture.md 4)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def main() -> None:
        async with lab(app, shut=True) as it:
            for url in ("http://127.0.0.1:8787/healthz", "http://no.example.com/", "/odd"):
                assert (await it.refused("GET", url)).reason is DeniedReason.NOT_ACTIVE
            it.outbound.unlock()
            assert (await it.fetch("GET", "http://127.0.0.1:8787/healthz")).status == 204
            await it.refused("GET", "http://no.example.com/")

    run(main())

"""HTTP over Unix sockets: what the two ends promise each other, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import socket
import stat
import struct
import tempfile
import termios
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from amba_runtime import limits, wire
from amba_runtime.wire import (
    Client,
    Connection,
    Handler,
    Headers,
    Intake,
    NothingSentError,
    Request,
    Response,
    Server,
    Tunnel,
    WireError,
    engine_connections,
    open_files,
)

KIB = 1024
LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(uvloop.new_event_loop, id="uvloop"),
]
Body = Callable[["Bench"], Coroutine[Any, Any, None]]
Run = Callable[[Body], None]


class Bench:
    """A short folder for sockets, and what was opened in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s"
        self._open: list[Server | Client] = []
        self._stack = contextlib.AsyncExitStack()

    async def serve(self, handler: Handler, **how: Any) -> Server:
        server = Server(self.path, handler, name="test", **how)
        await server.open()
        self._stack.push_async_callback(server.close)
        return server

    def client(self) -> Client:
        client = Client(self.path, loop=asyncio.get_running_loop())
        self._stack.callback(client.close)
        return client

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that says what the test says."""
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        self._stack.callback(writer.close)
        return reader, writer

    async def peer(
        self, talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> None:
        """A server that says what the test says, and then closes."""

        async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await talk(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

        server = await asyncio.start_unix_server(met, str(self.path))
        self._stack.push_async_callback(server.wait_closed)
        self._stack.callback(server.close)

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test's body on each event loop."""

    def run_body(body: Body) -> None:
        async def main() -> None:
            with tempfile.TemporaryDirectory(prefix="w-") as folder:
                bench = Bench(Path(folder))
                try:
                    async with asyncio.timeout(10):
                        await body(bench)
                finally:
                    await bench.close()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return run_body


def begin(
    connection: Connection,
    target: bytes = b"/",
    *,
    method: bytes = b"GET",
    headers: Headers | None = None,
    length: int | None = 0,
) -> None:
    fields: Headers = [(b"host", b"h"), *(headers or [])]
    connection.begin(method, target, wire.render(fields), length)


async def rest(connection: Connection) -> bytes:
    parts: list[bytes] = []
    while data := await connection.read():
        parts.append(data)
    return b"".join(parts)


async def ask(
    client: Client, target: bytes = b"/", *, method: bytes = b"GET", body: bytes = b""
) -> tuple[int, Headers, bytes]:
    """One exchange, released."""
    connection = await client.acquire()
    begin(connection, target, method=method, length=len(body))
    connection.write(body)
    connection.end()
    await connection.head()
    data = await rest(connection)
    status, headers = connection.status, connection.headers
    connection.release()
    return status, headers, data


async def echo(request: Request) -> Response:
    """Answers with what it got."""
    body = await request.read(64 * 1024 * KIB)
    return Response(200, [(b"x-method", request.method.encode()), (b"x-t", request.target)], body)


async def numbers(count: int, size: int = 1) -> AsyncIterator[bytes]:
    for n in range(count):
        yield b"%d" % (n % 10) * size


# --- server ------------------------------------------------------------------------------------


def test_requests_follow_one_another_on_one_connection(run: Run) -> None:
    """Keep-alive, whatever the bodies were: one connection is accepted for all."""

    async def body(bench: Bench) -> None:
        await bench.serve(echo)
        client = bench.client()
        seen: set[int] = set()
        for n in range(20):
            connection = await client.acquire()
            seen.add(id(connection))
            begin(connection, b"/%d" % n, method=b"POST", length=n)
            connection.write(b"x" * n)
            connection.end()
            await connection.head()
            assert await rest(connection) == b"x" * n
            assert dict(connection.headers)[b"x-t"] == b"/%d" % n
            connection.release()
        assert len(seen) == 1

    run(body)


def test_the_socket_is_ours_alone(run: Run) -> None:
    """Mode 0600; gone after `close`, which is idempotent."""

    async def body(bench: Bench) -> None:
        server = await bench.serve(echo)
        assert stat.S_IMODE(bench.path.stat().st_mode) == 0o600
        await server.close()
        await server.close()
        assert not bench.path.exists()
        with pytest.raises(WireError, match="does not accept connections"):
            await bench.client().acquire()

    run(body)


def test_a_path_that_is_too_long_leaves_nothing_open(run: Run) -> None:
    """The kernel's refusal passes, without a leaked socket."""

    async def body(bench: Bench) -> None:
        with pytest.raises(OSError, match="too long"):
            wire.listen_unix(bench.path.with_name("x" * 200))

    run(body)


@pytest.mark.parametrize(
    ("method", "response", "wanted"),
    [
        ("GET", Response(200, [], b"abc"), b"content-length: 3\r\n\r\nabc"),
        ("GET", Response(299, [(b"a", b"b")], b""), b"HTTP/1.1 299 -\r\na: b\r\ncontent-length: 0"),
        ("HEAD", Response(200, [], b"abc"), b"content-length: 3\r\n\r\n"),
        ("GET", Response(204), b"HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "GET",
            Response(304, [], b"never"),
            b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
        ),
        ("GET", Response(200, [(b"content-length", b"2")], b"ab"), b"content-length: 2\r\n\r\nab"),
    ],
)
def test_how_an_answer_is_framed(run: Run, method: str, response: Response, wanted: bytes) -> None:
    """Lengths are computed unless they are given; no body where HTTP has none."""

    async def body(bench: Bench) -> None:
        async def handler(request: Request) -> Response:
            return response

        await bench.serve(handler)
        reader, writer = await bench.raw()
        writer.write(f"{method} / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".encode())
        data = await reader.read()
        assert wanted in data
        assert data.endswith(wanted) or response.status == 299

    run(body)


def test_a_stream_is_chunked_unless_its_length_is_known(run: Run) -> None:
    """An iterator goes out piece by piece; empty pieces end nothing."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one", b"", b"two"):
            yield piece

    async def body(bench: Bench) -> None:
        async def handler(request: Request) -> Response:
            known = [(b"content-length", b"6")] if request.target == b"/known" else []
            return Response(200, known, pieces())

        await bench.serve(handler)
        for path, framing in ((b"/", b"transfer-encoding: chunked"), (b"/known", b"length: 6")):
            reader, writer = await bench.raw()
            writer.write(b"GET %b HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n" % path)
            assert framing in await reader.read()
        status, _, data = await ask(bench.client(), b"/known")
        assert (status, data) == (200, b"onetwo")

    run(body)


def test_expect_is_answered_when_the_body_is_wanted(run: Run) -> None:
    """100 goes out on the first read, and never for a body that nobody reads."""

    async def body(bench: Bench) -> None:
        async def handler(request: Request) -> Response:
            if request.target == b"/read":
                return Response(200, [], await request.read(10))
            return Response(413)

        await bench.serve(handler)
        reader, writer = await bench.raw()
        head = b"POST %b HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n"
        writer.write(head % b"/read")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200")
        writer.write(head % b"/refuse")
        assert (await reader.read()).startswith(b"HTTP/1.1 413")

    run(body)


def test_a_body_past_its_limit_is_refused(run: Run) -> None:
    """`read` takes `bytes_max` and no more; the peer gets 400 and the end."""

    async def body(bench: Bench) -> None:
        async def handler(request: Request) -> Response:
            return Response(200, [], await request.read(3))

        await bench.serve(handler)
        client = bench.client()
        assert (await ask(client, method=b"POST", body=b"abc"))[2] == b"abc"
        assert (await ask(client, method=b"POST", body=b"abcd"))[0] == 400

    run(body)


@pytest.mark.parametrize(("error", "status"), [(WireError("odd"), 400), (ValueError("a bug"), 500)])
def test_a_handler_that_fails_is_answered_for(
    run: Run, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken body is the peer's fault, anything else ours; the connection serves on."""

    async def body(bench: Bench) -> None:
        async def handler(request: Request) -> Response:
            if request.target == b"/bad":
                raise error
            return Response(200)

        await bench.serve(handler)
        client = bench.client()
        assert (await ask(client, b"/bad"))[0] == status
        assert (await ask(client))[0] == 200

    with caplog.at_level(logging.INFO, "amba.wire"):
        run(body)
    assert str(error) in caplog.text


def test_a_stream_that_fails_is_no_clean_end(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """The peer sees the connection break after what was sent."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise ValueError("half-way")

    async def body(bench: Bench) -> None:
        async def handler(request: Request) -> Response:
            return Response(200, [], broken())

        await bench.serve(handler)
        connection = await bench.client().acquire()
        begin(connection)

        async def whole() -> bytes:
            await connection.head()
            return await rest(connection)

        with pytest.raises(WireError):
            await whole()

    run(body)
    assert "half-way" in caplog.text


def test_an_unread_body_ends_the_connection(run: Run) -> None:
    """The answer arrives; what follows an unread body could not be told apart from it."""

    async def body(bench: Bench) -> None:
        async def handler(request: Request) -> Response:
            return Response(200, [], b"early")

        await bench.serve(handler)
        reader, writer = await bench.raw()
        writer.write(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nsome")
        assert (await reader.read()).endswith(b"early")

    run(body)


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(
    run: Run, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """400 and the end, and a line in the log: an engine should not do that."""

    async def body(bench: Bench) -> None:
        await bench.serve(echo)
        reader, writer = await bench.raw()
        writer.write(data)
        assert (await reader.read()).startswith(b"HTTP/1.1 400 Bad Request\r\n")

    run(body)
    assert "bad request from the engine" in caplog.text


@pytest.mark.parametrize("kind", ["one endless field", "many fields", "an endless target"])
def test_a_head_has_a_limit(run: Run, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Past `limits.WIRE_HEAD` it is refused, in pieces or in one field that never ends."""
    size = limits.WIRE_HEAD.value + 300 * KIB

    async def body(bench: Bench) -> None:
        await bench.serve(echo)
        reader, writer = await bench.raw()
        if kind == "an endless target":
            writer.write(b"GET /" + b"x" * size)
        elif kind == "one endless field":
            writer.write(b"GET / HTTP/1.1\r\nhost: h\r\nlong: " + b"x" * size)
        else:
            writer.write(b"GET / HTTP/1.1\r\nhost: h\r\n" + b"a: b\r\n" * (size // 6))
        with contextlib.suppress(ConnectionError):
            assert (await reader.read()).startswith(b"HTTP/1.1 431 ")

    run(body)
    assert "passes" in caplog.text


def test_a_head_inside_the_limit_passes(run: Run) -> None:
    """400 KiB in one field is long, and no reason to refuse."""

    async def body(bench: Bench) -> None:
        await bench.serve(echo)
        client = bench.client()
        for _ in range(3):  # the count starts anew with each request
            assert (await ask(client, b"/" + b"x" * 400 * KIB))[0] == 200

    run(body)


def test_trailers_are_no_headers(run: Run) -> None:
    """Fields behind a chunked body never reach the handler."""

    async def body(bench: Bench) -> None:
        async def handler(request: Request) -> Response:
            await request.read(10)
            names = b",".join(name for name, _ in request.headers)
            return Response(200, [], names)

        await bench.serve(handler)
        reader, writer = await bench.raw()
        writer.write(
            b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
            b"1\r\na\r\n0\r\nx-late: 1\r\n\r\n"
        )
        assert (await reader.readuntil(b"transfer-encoding")).endswith(b"host,transfer-encoding")

    run(body)


def test_two_requests_at_once_are_too_many(run: Run) -> None:
    """Pipelining is not spoken: the second ends the connection."""

    async def body(bench: Bench) -> None:
        async def handler(request: Request) -> Response:
            await asyncio.Event().wait()
            return Response(200)

        await bench.serve(handler)
        reader, writer = await bench.raw()
        writer.write(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n" * 2)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""

    run(body)


def test_a_peer_that_leaves_cancels_its_handler(run: Run) -> None:
    """And what was being sent is closed: no generator is left hanging."""

    async def body(bench: Bench) -> None:
        ended: list[str] = []
        begun = asyncio.Event()
        over = asyncio.Event()

        async def endless() -> AsyncGenerator[bytes]:
            try:
                begun.set()
                while True:
                    yield b"x" * 65536
            finally:
                ended.append("stream")
                over.set()

        async def handler(request: Request) -> Response:
            if request.target == b"/stream":
                return Response(200, [], endless())
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended.append("handler")
                over.set()
                raise
            return Response(200)

        await bench.serve(handler)
        for path in (b"/stream", b"/wait"):
            begun.clear()
            over.clear()
            _, writer = await bench.raw()
            writer.write(b"GET %b HTTP/1.1\r\nhost: h\r\n\r\n" % path)
            await begun.wait()
            writer.close()
            await over.wait()
        assert ended == ["stream", "handler"]

    run(body)


def test_a_peer_that_leaves_mid_body_is_an_error(run: Run) -> None:
    """A body that breaks off never reads as complete."""

    async def body(bench: Bench) -> None:
        fate: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def handler(request: Request) -> Response:
            try:
                await request.read(1000)
                fate.set_result("whole")
            except asyncio.CancelledError:
                fate.set_result("cancelled")
                raise
            except WireError as error:
                fate.set_result(str(error))
            return Response(200)

        await bench.serve(handler)
        _, writer = await bench.raw()
        writer.write(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nsome")
        await asyncio.sleep(0)
        writer.close()
        assert await fate in ("the peer left mid-body", "cancelled")

    run(body)


def test_closing_ends_the_handlers_at_work(run: Run) -> None:
    """`close` returns when they have ended."""

    async def body(bench: Bench) -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def handler(request: Request) -> Response:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return Response(200)

        server = await bench.serve(handler)
        connection = await bench.client().acquire()
        begin(connection)
        await begun.wait()
        await server.close()
        assert ended.is_set()
        with pytest.raises(WireError):
            await connection.head()

    run(body)


def test_a_tunnel_carries_raw_bytes(run: Run) -> None:
    """After 101 both sides speak as they like, bytes sent along with the head included."""

    async def body(bench: Bench) -> None:
        async def mirror(tunnel: Tunnel) -> None:
            while data := await tunnel.read():
                await tunnel.write(data.upper())
            tunnel.close()
            tunnel.close()

        async def handler(request: Request) -> Response:
            assert request.upgrade
            assert request.header(b"upgrade") == b"echo"
            assert request.header(b"absent") is None
            return Response(
                101, [(b"upgrade", b"echo"), (b"connection", b"upgrade")], tunnel=mirror
            )

        await bench.serve(handler)
        reader, writer = await bench.raw()
        writer.write(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nab")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(2) == b"AB"
        writer.write(b"cd")
        assert await reader.readexactly(2) == b"CD"
        writer.write_eof()
        assert await reader.read() == b""

    run(body)


UPGRADE = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"


@pytest.mark.parametrize("stubborn", [False, True], ids=["cancelled", "answers all the same"])
def test_a_peer_that_leaves_before_its_upgrade_leaves_nothing_behind(
    run: Run, stubborn: bool
) -> None:
    """Its handler is ended, and what a late answer would hand over is dropped (threat T13)."""

    async def body(bench: Bench) -> None:
        told: list[str] = []
        begun, over = asyncio.Event(), asyncio.Event()

        async def never(tunnel: Tunnel) -> None:
            told.append("tunnel")

        def drop() -> None:
            told.append("dropped")
            over.set()

        async def handler(request: Request) -> Response:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told.append("cancelled")
                if not stubborn:
                    over.set()
                    raise
            return Response(101, [], tunnel=never, drop=drop)

        await bench.serve(handler)
        _, writer = await bench.raw()
        writer.write(UPGRADE)
        await begun.wait()
        writer.close()
        await over.wait()
        assert told == (["cancelled", "dropped"] if stubborn else ["cancelled"])

    run(body)


def test_a_tunnel_is_for_who_asked_for_it(run: Run) -> None:
    """Where no upgrade was asked for, it is dropped; one that began is not (ours)."""

    async def body(bench: Bench) -> None:
        told: list[str] = []
        ended = asyncio.Event()

        async def tunneling(tunnel: Tunnel) -> None:
            told.append("tunnel")

        def drop() -> None:
            told.append("dropped")
            ended.set()

        async def handler(request: Request) -> Response:
            return Response(101, [], tunnel=tunneling, drop=drop)

        await bench.serve(handler)
        reader, writer = await bench.raw()
        writer.write(UPGRADE)
        assert (await reader.read()).startswith(b"HTTP/1.1 101 ")
        assert told == ["tunnel"]
        _, writer = await bench.raw()
        writer.write(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        await ended.wait()
        assert told == ["tunnel", "dropped"]

    run(body)


def test_a_slow_reader_holds_a_stream_back(run: Run) -> None:
    """What the peer does not read is not asked for: buffers stay bounded."""

    async def body(bench: Bench) -> None:
        made = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal made
            while made < 400:
                made += 1
                yield b"x" * 65536

        async def handler(request: Request) -> Response:
            return Response(200, [], endless())

        await bench.serve(handler)
        connection = await bench.client().acquire()
        begin(connection)
        await connection.head()
        for _ in range(50):
            await asyncio.sleep(0)
        assert made * 64 < 4 * 1024  # KiB: ours, the kernel's, and asyncio's own
        assert len(await rest(connection)) == 400 * 65536
        connection.release()

    run(body)


# --- client ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "length", "framing"),
    [
        (b"GET", 0, b""),
        (b"HEAD", 0, b""),
        (b"OPTIONS", 0, b""),
        (b"POST", 0, b"content-length: 0\r\n"),
        (b"PUT", 3, b"content-length: 3\r\n"),
        (b"DELETE", 3, b"content-length: 3\r\n"),
        (b"POST", None, b"transfer-encoding: chunked\r\n"),
    ],
)
def test_how_a_request_is_framed(
    run: Run, method: bytes, length: int | None, framing: bytes
) -> None:
    """A length, chunks, or nothing where nothing is usual."""

    async def body(bench: Bench) -> None:
        heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.set_result(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

        await bench.peer(talk)
        connection = await bench.client().acquire()
        begin(connection, b"/a?b", method=method, headers=[(b"x", b"y")], length=length)
        head = method + b" /a?b HTTP/1.1\r\nhost: h\r\nx: y\r\n" + framing + b"\r\n"
        assert await heard == head
        connection.abort()

    run(body)


def test_chunks_of_a_request(run: Run) -> None:
    """Each write is a chunk; an empty one is none; `end` ends."""

    async def body(bench: Bench) -> None:
        await bench.serve(echo)
        connection = await bench.client().acquire()
        begin(connection, method=b"POST", length=None)
        for piece in (b"one", b"", b"two"):
            connection.write(piece)
            await connection.drain()
        connection.end()
        await connection.head()
        assert await rest(connection) == b"onetwo"
        connection.release()

    run(body)


async def answers(*parts: bytes) -> Callable[..., Awaitable[None]]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return talk


def test_interim_answers_are_skipped(run: Run) -> None:
    """100 and 103 are not the answer, and neither are their headers."""

    async def body(bench: Bench) -> None:
        await bench.peer(
            await answers(
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nReal: 1\r\n\r\nok",
            )
        )
        status, headers, data = await ask(bench.client())
        assert (status, headers, data) == (200, [(b"content-length", b"2"), (b"real", b"1")], b"ok")

    run(body)


def test_trailers_of_an_answer_are_dropped(run: Run) -> None:
    """They come after the head was told."""

    async def body(bench: Bench) -> None:
        await bench.peer(
            await answers(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                b"1\r\na\r\n0\r\nx-late: 1\r\n\r\n",
            )
        )
        status, headers, data = await ask(bench.client())
        assert (status, data) == (200, b"a")
        assert b"x-late" not in dict(headers)

    run(body)


@pytest.mark.parametrize(
    "parts",
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n",),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nsho",),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"zz\r\n"),
    ],
)
def test_an_answer_that_breaks_off_is_an_error(run: Run, parts: tuple[bytes, ...]) -> None:
    """By length, by chunks, in a chunk, or by nonsense: never a short end."""

    async def body(bench: Bench) -> None:
        await bench.peer(await answers(*parts))
        connection = await bench.client().acquire()
        begin(connection)
        await connection.head()
        with pytest.raises(WireError):
            await rest(connection)
        assert not connection.complete
        connection.release()

    run(body)


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nbad\x00: 1\r\n\r\n"])
def test_an_answer_that_is_none_is_an_error(run: Run, data: bytes) -> None:
    """Told as what it is, and the connection is gone."""

    async def body(bench: Bench) -> None:
        await bench.peer(await answers(data))
        connection = await bench.client().acquire()
        begin(connection)
        with pytest.raises(WireError, match="not HTTP"):
            await connection.head()
        connection.release()
        assert bench.client().idle() is None

    run(body)


@pytest.mark.parametrize("kind", ["one endless field", "many fields"])
def test_an_answers_head_has_a_limit(run: Run, kind: str) -> None:
    """A guest cannot make us hold more than `limits.WIRE_HEAD` of headers."""
    size = limits.WIRE_HEAD.value + 300 * KIB
    fields = b"long: " + b"x" * size if kind == "one endless field" else b"a: b\r\n" * (size // 6)

    async def body(bench: Bench) -> None:
        await bench.peer(await answers(b"HTTP/1.1 200 OK\r\n" + fields))
        connection = await bench.client().acquire()
        begin(connection)
        with pytest.raises(WireError, match="head of the answer passes"):
            await connection.head()

    run(body)


def test_a_head_request_leaves_a_clean_connection(run: Run) -> None:
    """The length in its answer is nobody's body: the next exchange is undisturbed."""

    async def body(bench: Bench) -> None:
        await bench.serve(echo)
        client = bench.client()
        connection = await client.acquire()
        for method in (b"HEAD", b"GET", b"HEAD", b"POST"):
            begin(connection, method=method, length=4 if method == b"POST" else 0)
            connection.write(b"four" if method == b"POST" else b"")
            await connection.head()
            assert connection.status == 200
            assert await rest(connection) == (b"four" if method == b"POST" else b"")
            connection.release()
            assert client.idle() is connection

    run(body)


def test_a_connection_that_is_to_close_is_not_kept(run: Run) -> None:
    """`connection: close` ends it with its exchange."""

    async def body(bench: Bench) -> None:
        await bench.peer(
            await answers(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        )
        client = bench.client()
        await ask(client)
        assert client.idle() is None

    run(body)


def test_an_unfinished_exchange_is_not_kept(run: Run) -> None:
    """Released before its end, a connection is cut: nobody gets the rest of the answer."""

    async def body(bench: Bench) -> None:
        async def handler(request: Request) -> Response:
            return Response(200, [], numbers(100, 65536))

        await bench.serve(handler)
        client = bench.client()
        connection = await client.acquire()
        begin(connection)
        await connection.head()
        connection.release()
        assert client.idle() is None

    run(body)


def test_an_idle_connection_has_its_time(run: Run) -> None:
    """One that has rested for `WIRE_IDLE_S` is closed instead of used; `fresh` uses none."""

    async def body(bench: Bench) -> None:
        await bench.serve(echo)
        client = bench.client()
        await ask(client)
        kept = await client.acquire()
        client.put(kept)
        assert await client.acquire() is kept
        client.put(kept)
        other = await client.acquire(fresh=True)
        assert other is not kept
        kept.idle_since_s -= limits.WIRE_IDLE_S.value + 0.1
        assert client.idle() is None
        begin(other)
        await other.head()
        other.abort()

    run(body)


async def lost(*connections: Connection) -> None:
    """They are closed, within some seconds."""
    for _ in range(500):
        if all(connection.lost for connection in connections):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("a connection stayed open")


def test_what_a_busy_moment_opened_is_closed_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No idle connection outlives its time, though nobody asks for one: it is a file of ours."""
    monkeypatch.setattr(limits, "WIRE_IDLE_S", limits.Deadline(0.05, "idle", "this test"))

    async def body(bench: Bench) -> None:
        await bench.serve(echo)
        client = bench.client()
        busy = [await client.acquire() for _ in range(20)]
        for connection in busy:
            client.put(connection)
        await lost(*busy)
        client.put(await client.acquire())  # another moment has a look of its own
        again = client.idle()
        assert again is not None
        client.put(again)
        await lost(again)

    run(body)


def test_few_idle_connections_are_kept(run: Run) -> None:
    """Above `WIRE_IDLE_CONNECTIONS` they are closed; after `close` none is kept."""

    async def body(bench: Bench) -> None:
        await bench.serve(echo, most=2 * limits.WIRE_IDLE_CONNECTIONS.value)
        client = bench.client()
        connections = [
            await client.acquire(fresh=True) for _ in range(limits.WIRE_IDLE_CONNECTIONS.value + 3)
        ]
        for connection in connections:
            begin(connection)
            await connection.head()
            await rest(connection)
        for connection in connections:
            connection.release()
        kept: list[Connection] = []
        while (connection_ := client.idle()) is not None:
            kept.append(connection_)
        assert len(kept) == limits.WIRE_IDLE_CONNECTIONS.value
        for connection in connections:
            connection.abort()
        client.close()
        client.close()
        client.put(connections[0])
        assert client.idle() is None
        with pytest.raises(WireError, match="stopped"):
            await client.acquire()

    run(body)


def test_a_connection_lost_while_idle_is_never_used(run: Run) -> None:
    """The peer closed it: the next exchange gets another one."""

    async def body(bench: Bench) -> None:
        server = await bench.serve(echo)
        client = bench.client()
        await ask(client)
        await server.close()
        server = await bench.serve(echo)
        await asyncio.sleep(0.01)
        assert (await ask(client))[0] == 200

    run(body)


def test_an_answer_that_nobody_asked_for_is_never_taken(run: Run) -> None:
    """Bytes on a resting connection end it: they must not answer the next request."""

    async def body(bench: Bench) -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst")
            await asyncio.sleep(0.01)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray")
            await reader.read()

        await bench.peer(talk)
        client = bench.client()
        for _ in range(3):
            assert (await ask(client))[2] == b"first"
            await asyncio.sleep(0.02)

    run(body)


class ShutDoor:
    """Accepts one connection and closes it: at once when bytes are there, unread or read."""

    def __init__(self, path: Path, *, reads: bool) -> None:
        self._listener = wire.listen_unix(path)
        self._listener.setblocking(True)
        self._thread = threading.Thread(target=self._serve, args=(reads,))
        self._thread.start()

    def _serve(self, reads: bool) -> None:
        visitor, _ = self._listener.accept()
        waiting = 0
        while not waiting:
            packed = fcntl.ioctl(visitor, termios.FIONREAD, struct.pack("i", 0))
            (waiting,) = struct.unpack("i", packed)
        if reads:
            visitor.recv(65536)
        visitor.close()
        self._listener.close()

    def join(self) -> None:
        self._thread.join()


@pytest.mark.parametrize("reads", [False, True], ids=["never read", "read"])
def test_a_request_that_was_never_read_may_be_sent_again(run: Run, reads: bool) -> None:
    """The kernel tells whether the engine had taken it: only then is it run twice by a retry."""

    async def body(bench: Bench) -> None:
        door = ShutDoor(bench.path, reads=reads)
        connection = await bench.client().acquire()
        begin(connection)
        with pytest.raises(WireError) as failed:
            await connection.head()
        assert isinstance(failed.value, NothingSentError) is not reads
        door.join()

    run(body)


def test_a_request_to_a_closed_end_may_be_sent_again(run: Run) -> None:
    """A write that fails at once was not taken."""

    async def body(bench: Bench) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        client = bench.client()
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(lambda: Connection(client), sock=ours)
        theirs.close()
        begin(connection)
        with pytest.raises(NothingSentError):
            await connection.head()

    run(body)


def test_an_early_answer_survives_a_failed_write(run: Run) -> None:
    """The peer answers and closes without reading: what it said is read, not thrown away."""
    size = 128 * KIB

    async def body(bench: Bench) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        client = bench.client()
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_unix_connection(lambda: Connection(client), sock=ours)
        begin(connection, method=b"POST", length=10_000_000)
        theirs.setblocking(True)
        assert theirs.recv(65536).startswith(b"POST")
        theirs.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % size)
        theirs.sendall(b"y" * size)
        theirs.close()
        connection.write(b"x" * 65536)  # before the loop has read a byte of the answer

        async def upload() -> None:
            for _ in range(100):
                connection.write(b"x" * 65536)
                await connection.drain()
                await asyncio.sleep(0)

        with pytest.raises(WireError, match="while a body was being sent"):
            await upload()
        await connection.head()
        assert connection.status == 200
        assert await rest(connection) == b"y" * size
        connection.release()

    run(body)


def test_a_slow_engine_holds_the_writer_back(run: Run) -> None:
    """`drain` waits while the engine does not read, and goes on when it does."""

    async def body(bench: Bench) -> None:
        read = asyncio.Event()

        async def handler(request: Request) -> Response:
            await read.wait()
            return Response(200, [], b"%d" % len(await request.read(100 * 1024 * KIB)))

        await bench.serve(handler)
        connection = await bench.client().acquire()
        begin(connection, method=b"POST", length=None)
        sent = 0

        async def upload() -> None:
            nonlocal sent
            for _ in range(500):
                connection.write(b"x" * 65536)
                await connection.drain()
                sent += 65536
            connection.end()

        uploading = asyncio.create_task(upload())
        for _ in range(50):
            await asyncio.sleep(0)
        assert sent < 4 * 1024 * KIB
        read.set()
        await uploading
        await connection.head()
        assert await rest(connection) == b"%d" % (500 * 65536)
        connection.release()

    run(body)


def test_a_cut_body_can_still_be_answered(run: Run) -> None:
    """`cut` ends our half only: the engine sees a broken body, and may answer."""

    async def body(bench: Bench) -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            got = await reader.read()
            writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n" % len(got) + got)

        await bench.peer(talk)
        connection = await bench.client().acquire()
        begin(connection, method=b"POST", length=100)
        connection.write(b"some")
        connection.cut()
        connection.cut()
        await connection.head()
        assert (connection.status, await rest(connection)) == (400, b"some")

    run(body)


def test_an_abort_ends_everything_at_once(run: Run) -> None:
    """Head and reading fail; writing is quiet; a second abort is nothing."""

    async def body(bench: Bench) -> None:
        begun = asyncio.Event()

        async def handler(request: Request) -> Response:
            begun.set()
            await asyncio.Event().wait()
            return Response(200)

        await bench.serve(handler)
        connection = await bench.client().acquire()
        begin(connection, method=b"POST", length=None)
        await begun.wait()
        connection.abort()
        with pytest.raises(WireError):
            await connection.head()
        with pytest.raises(WireError):
            await connection.read()
        connection.abort()
        connection.write(b"late")
        connection.end()
        with pytest.raises(WireError):
            await connection.drain()

    run(body)


def test_connections_of_one_engine_are_bounded(run: Run) -> None:
    """One more than may be is dropped at once; when one has gone, the next is taken (E17-E19)."""

    async def body(bench: Bench) -> None:
        async def handler(request: Request) -> Response:
            return Response(204)

        await bench.serve(handler)
        most = limits.WIRE_CONNECTIONS.value
        # one at a time: as many as that would not fit into the backlog
        held = [await bench.raw() for _ in range(most)]
        reader, _ = await bench.raw()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        held[0][1].close()
        await held[0][1].wait_closed()
        async with asyncio.timeout(5):
            while True:
                reader, writer = await bench.raw()
                writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    if (await reader.readexactly(12)).endswith(b"204"):
                        break

    run(body)


def test_engines_share_what_files_there_are(run: Run) -> None:
    """Connections to all our sockets together are bounded; one that goes makes room (E19, K4)."""

    async def body(bench: Bench) -> None:
        async def handler(request: Request) -> Response:
            return Response(204)

        intake = Intake()
        most = engine_connections(open_files())
        assert 0 < most <= limits.WIRE_ALL_CONNECTIONS.value
        for _ in range(most - 1):  # of other engines
            assert intake.take("other", least=True)
        door = intake.door("p-1")
        await bench.serve(handler, intake=door)
        assert await _answers(bench)
        async with asyncio.timeout(5):
            while True:  # until the one before has gone
                reader, writer = await bench.raw()
                writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    await reader.readexactly(12)
                    break
            assert door.count == 1
            assert not await _answers(bench)
            writer.close()
            while not await _answers(bench):
                pass
        assert door.count <= 1

    run(body)


async def _answers(bench: Bench) -> bool:
    reader, writer = await bench.raw()
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return (await reader.read()).startswith(b"HTTP/1.1 204")
    except ConnectionError:
        return False
    finally:
        writer.close()


def test_no_project_takes_what_others_need() -> None:
    """Four whose engines connect without end, and each takes fewer than it leaves: there is room
    for a fifth; and any socket has its few, whatever else its project holds (row E19)."""
    intake = Intake()
    most = engine_connections(open_files())
    held = {name: [intake.door(name) for _ in range(8)] for name in "abcd"}
    for doors in held.values():
        for door in doors * most:
            if not door.take():
                break
    taken = {name: sum(door.count for door in doors) for name, doors in held.items()}
    assert taken["a"] >= most // 2
    assert most - sum(taken.values()) >= most // 2**5
    other = intake.door("e")
    while other.take():
        pass
    assert other.count >= most // 2**6
    late = intake.door("a")
    assert [late.take() for _ in range(limits.WIRE_LEAST.value + 1)] == (
        [True] * limits.WIRE_LEAST.value + [False]
    )
    for door in (late, other, *(door for doors in held.values() for door in doors)):
        while door.count:
            door.leave()
    again = intake.door("a")
    while again.take():
        pass
    assert again.count == taken["a"], "all were given back"


@pytest.mark.parametrize(
    ("files", "most"), [(None, 4096), (10**6, 4096), (1024, 128), (256, 32), (64, 8)]
)
def test_engines_have_a_share_of_our_files(files: int | None, most: int) -> None:
    """A quarter, for two each: the guest's to us, and ours to where it goes (row K4)."""
    assert engine_connections(files) == most


def test_a_failed_request_is_logged_without_its_query(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """It may hold a secret; the path says enough (reliability.md H, secrets)."""
    caplog.set_level("DEBUG")

    async def body(bench: Bench) -> None:
        async def handler(request: Request) -> Response:
            if b"/ours" in request.target:
                raise RuntimeError("oops")
            if b"/theirs" in request.target:
                raise WireError("not so")

            async def broken() -> AsyncIterator[bytes]:
                yield b"a"
                raise RuntimeError("midway")

            return Response(200, [], broken())

        await bench.serve(handler)
        for path in (b"/ours", b"/theirs", b"/midway"):
            reader, writer = await bench.raw()
            writer.write(b"GET http://x.test" + path + b"?key=canary HTTP/1.1\r\nhost: x\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                await reader.read(100)
                if path == b"/midway":
                    await reader.read()

    run(body)
    said = caplog.text
    assert all(f"http://x.test/{path}" in said for path in ("ours", "theirs", "midway")), said
    assert "canary" not in said

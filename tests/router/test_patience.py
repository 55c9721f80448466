"""What keeps us waiting is ended in time, and nothing else is: on a loop whose clock tests move.

Source: reliability.md 0 (finding 3), 3.A row A7 and B2.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest
from tests.router.moved_loop import MovedLoop

from amba_router.asgi import Receive, Scope, Send
from amba_router.patience import Outflow
from amba_run.serve import Listener, bind, most_connections
from amba_runtime import limits

HOST = b"Host: a.fn.localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
END = b"0\r\n\r\n"
HEAD_S = limits.EDGE_HEAD_S.value
BODY_IDLE_S = limits.EDGE_BODY_IDLE_S.value
BODY_S = limits.EDGE_BODY_S.value
KEEP_ALIVE_S = limits.EDGE_KEEP_ALIVE_S.value
WRITE_S = limits.EDGE_WRITE_IDLE_S.value
RATE = limits.EDGE_RATE.value
HANDSHAKE = (
    b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Client:
    """A client that reads when it is told to."""

    def __init__(self, socket_: socket.socket, loop: MovedLoop) -> None:
        self.socket = socket_
        self.loop = loop
        self.heard = b""

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.socket, data)
        await asyncio.sleep(0)

    async def until(self, mark: bytes) -> bytes:
        while mark not in self.heard:
            data = await self.loop.sock_recv(self.socket, 65536)
            assert data, self.heard
            self.heard += data
        found, self.heard = self.heard, b""
        return found

    async def rest(self) -> bytes:
        """All that comes until the server closes, or resets."""
        with contextlib.suppress(ConnectionResetError):
            while data := await self.loop.sock_recv(self.socket, 65536):
                self.heard += data
        found, self.heard = self.heard, b""
        return found

    async def reset(self) -> None:
        """What came is read to a reset: nobody takes the answer for whole."""
        try:
            while await self.loop.sock_recv(self.socket, 2**20):
                pass
        except ConnectionResetError:
            return
        pytest.fail("a clean end")

    async def is_open(self) -> bool:
        """Nothing has come, not even the end."""
        await asyncio.sleep(0.01)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False


class Front:
    """A server whose app does what a test says; one loop for both."""

    def __init__(self, loop: MovedLoop, app: Any) -> None:
        self.loop = loop
        self.app = app
        self.port = 0
        self.clients: list[Client] = []

    async def connect(self, *, buffer_bytes: int = 0) -> Client:
        client = socket.socket()
        if buffer_bytes:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        client.setblocking(False)
        await self.loop.sock_connect(client, ("127.0.0.1", self.port))
        self.clients.append(Client(client, self.loop))
        await asyncio.sleep(0.002)
        return self.clients[-1]


def run(app: Any, body: Callable[[Front], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        loop = cast(MovedLoop, asyncio.get_running_loop())
        front = Front(loop, app)
        sockets = bind("127.0.0.1", 0)
        front.port = sockets[0].getsockname()[1]
        listener = Listener(app, sockets)
        await listener.open()
        try:
            await body(front)
        finally:
            for client in front.clients:
                client.socket.close()
            await listener.close(grace_s=0.1)

    with asyncio.Runner(loop_factory=MovedLoop) as runner:
        runner.run(main())


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers at once, whatever the body."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


class Reading:
    """An app that reads its body, and notes how that ended."""

    def __init__(self, *, ask: asyncio.Event | None = None) -> None:
        self.pieces: list[bytes] = []
        self.broken = False
        self.entered = asyncio.Event()
        self.ended = asyncio.Event()
        self.go = ask
        self.news = asyncio.Condition()

    async def has(self, size: int) -> None:
        """So many bytes have been read."""
        async with self.news:
            await self.news.wait_for(lambda: sum(map(len, self.pieces)) >= size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.entered.set()
        if self.go is not None:
            await self.go.wait()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.broken = True
                self.ended.set()
                return
            async with self.news:
                self.pieces.append(message["body"])
                self.news.notify_all()
            if not message["more_body"]:
                break
        await ok(scope, receive, send)
        self.ended.set()


def late(raw: bytes) -> None:
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 "), raw
    assert b"connection: close" in head
    assert json.loads(body)["error"]["code"] == "REQUEST_TIMEOUT"


def test_a_silent_client_is_let_go() -> None:
    """It has asked for nothing and is told nothing, after 10 s (A7)."""

    async def body(front: Front) -> None:
        client = await front.connect()
        await front.loop.pass_(HEAD_S - 1)
        assert await client.is_open()
        await front.loop.pass_(1)
        assert await client.rest() == b""

    run(ok, body)


def test_a_head_that_drips_is_refused() -> None:
    """Each byte comes in time, the head does not: 408 after 10 s in all (A7)."""

    async def body(front: Front) -> None:
        client = await front.connect()
        for byte in range(10):
            await client.send(GET[byte : byte + 1])
            assert await client.is_open()
            await front.loop.pass_(HEAD_S / 10)
        late(await client.rest())

    run(ok, body)


def test_a_later_head_has_its_own_time() -> None:
    """It begins with its first byte, however long the connection was idle before (A7)."""

    async def body(front: Front) -> None:
        client = await front.connect()
        await client.send(GET)
        await client.until(END)
        await front.loop.pass_(KEEP_ALIVE_S - 2)
        await client.send(b"GET")
        await front.loop.pass_(HEAD_S - 1)
        assert await client.is_open()
        await client.send(GET[3:])
        await client.until(END)
        await client.send(b"GET")
        assert await client.is_open()
        await front.loop.pass_(HEAD_S)
        late(await client.rest())

    run(ok, body)


def test_a_late_head_behind_an_answer_under_way() -> None:
    """The answer goes out whole, nothing is put into it, then the connection ends (A7, A11)."""
    go = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await go.wait()
        await send({"type": "http.response.body", "body": b"two"})

    async def body(front: Front) -> None:
        client = await front.connect()
        await client.send(GET + b"GET / HT")
        head = await client.until(b"one\r\n")
        await front.loop.pass_(HEAD_S)
        assert await client.is_open()
        go.set()
        assert await client.rest() == b"3\r\ntwo\r\n" + END
        assert head.count(b"HTTP/1.1") == 1

    run(app, body)


def test_an_idle_connection_is_kept_for_a_while() -> None:
    """75 s since its last answer, then it ends without a word."""

    async def body(front: Front) -> None:
        client = await front.connect()
        for _ in range(3):
            await client.send(GET)
            await client.until(END)
            await front.loop.pass_(KEEP_ALIVE_S - 1)
            assert await client.is_open()
        await front.loop.pass_(1)
        assert await client.rest() == b""

    run(ok, body)


def test_a_function_may_take_its_time() -> None:
    """The edge times clients: a request that is all here is the limits' business."""
    app = Reading(ask=asyncio.Event())

    async def body(front: Front) -> None:
        assert app.go is not None
        client = await front.connect()
        await client.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhi")
        await app.entered.wait()
        for _ in range(20):
            await front.loop.pass_(KEEP_ALIVE_S)
        app.go.set()
        assert (await client.until(END)).startswith(b"HTTP/1.1 200")

    run(app, body)


POST = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n"


@pytest.mark.parametrize("piece", [b"", b"x" * 1000])
def test_a_body_that_stops_is_broken_off(piece: bytes) -> None:
    """After 30 s without a byte: 408, and the function's body rejects, never ends (A7, A9)."""
    app = Reading()

    async def body(front: Front) -> None:
        client = await front.connect()
        await client.send(POST)
        await app.entered.wait()
        if piece:
            await front.loop.pass_(BODY_IDLE_S - 1)
            await client.send(piece)
            await app.has(1)
        await front.loop.pass_(BODY_IDLE_S - 1)
        assert await client.is_open()
        await front.loop.pass_(1)
        late(await client.rest())
        await app.ended.wait()

    run(app, body)
    assert app.broken


def test_a_body_that_drips_is_broken_off() -> None:
    """Each byte comes in time, but 60 s and a second per 500 bytes are all there are (A7)."""
    app = Reading()

    async def body(front: Front) -> None:
        client = await front.connect()
        await client.send(POST)
        await app.entered.wait()
        spent_s = 0
        while spent_s < BODY_S:
            assert await client.is_open()
            await client.send(b"x")
            await front.loop.pass_(10)
            spent_s += 10
        await front.loop.pass_(1)
        late(await client.rest())

    run(app, body)
    assert app.broken
    assert b"".join(app.pieces) == b"x" * 6


def test_a_slow_upload_that_goes_on_is_kept() -> None:
    """A client that sends 500 bytes a second may send for as long as it has bytes."""
    app = Reading()

    async def body(front: Front) -> None:
        client = await front.connect()
        await client.send(POST.replace(b"1000000", b"%d" % (RATE * 400)))
        await app.entered.wait()
        for _ in range(20):
            await client.send(b"x" * (RATE * 20))
            await asyncio.sleep(0.001)
            await front.loop.pass_(20)
        assert (await client.until(END)).startswith(b"HTTP/1.1 200")

    run(app, body)
    assert len(b"".join(app.pieces)) == RATE * 400


def test_a_body_that_we_do_not_read_is_not_late() -> None:
    """While the function holds the client up, the client's time stands still."""
    app = Reading(ask=asyncio.Event())

    async def body(front: Front) -> None:
        assert app.go is not None
        client = await front.connect()
        await client.send(POST + b"x" * 200_000)
        await app.entered.wait()
        await asyncio.sleep(0.01)
        for _ in range(20):
            await front.loop.pass_(KEEP_ALIVE_S)
        app.go.set()
        await app.has(200_000)
        await front.loop.pass_(BODY_IDLE_S - 1)
        assert await client.is_open()
        await client.send(b"x" * 800_000)
        assert (await client.until(END)).startswith(b"HTTP/1.1 200")

    run(app, body)


def test_a_client_that_waits_for_100_is_not_late() -> None:
    """Its time begins when it is told to go on (A13)."""
    app = Reading(ask=asyncio.Event())

    async def body(front: Front) -> None:
        assert app.go is not None
        client = await front.connect()
        await client.send(POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        await app.entered.wait()
        for _ in range(9):
            await front.loop.pass_(BODY_IDLE_S)
        assert await client.is_open()
        app.go.set()
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await front.loop.pass_(2 * BODY_IDLE_S)
        late(await client.rest())

    run(app, body)
    assert app.broken


def test_the_rest_of_a_request_that_was_answered_early() -> None:
    """One that never comes ends the connection, and is not answered a second time (A1, A7)."""

    async def body(front: Front) -> None:
        client = await front.connect()
        await client.send(POST)
        assert (await client.until(END)).startswith(b"HTTP/1.1 200")
        await front.loop.pass_(BODY_IDLE_S - 1)
        assert await client.is_open()
        await front.loop.pass_(1)
        assert await client.rest() == b""

    run(ok, body)


LARGE = b"x" * (32 * 2**20)


class Large:
    """An app with a large answer; `left` once it is out or broken off."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = (b"content-length", b"%d" % len(LARGE))
        if self.way == "whole":
            scope["extensions"]["amba.whole"](200, [length], LARGE)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": [length]})
            for at in range(0, len(LARGE), 2**20):
                piece = LARGE[at : at + 2**20]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        self.left.set()


@pytest.mark.parametrize("way", ["whole", "whole, then close", "stream"])
def test_a_client_that_does_not_read_is_cut_off(way: str) -> None:
    """After 60 s in which it takes nothing, in the middle of an answer or behind it (A7)."""
    app = Large(way.partition(",")[0])
    request = GET if "close" not in way else GET.replace(b"1.1", b"1.0")

    async def body(front: Front) -> None:
        client = await front.connect(buffer_bytes=4096)
        await client.send(request)
        await asyncio.sleep(0.02)
        for _ in range(3):
            await front.loop.pass_(WRITE_S / 4)
        client.socket.recv(1)  # one byte is nothing
        assert app.left.is_set() is (app.way == "whole")
        await front.loop.pass_(WRITE_S / 4 + 1)
        await front.loop.pass_(1)
        await asyncio.wait_for(app.left.wait(), 1)
        await client.reset()

    run(app, body)


def test_a_client_that_reads_slowly_is_kept() -> None:
    """As long as it takes something, the answer may take its time (A7)."""
    app = Large("whole")

    async def body(front: Front) -> None:
        client = await front.connect(buffer_bytes=65536)
        await client.send(GET)
        got = 0
        for _ in range(30):
            await asyncio.sleep(0.005)
            wanted = 70_000  # loopback acknowledges in steps of 64 KiB
            while wanted > 0:
                data = await front.loop.sock_recv(client.socket, wanted)
                assert data
                got, wanted = got + len(data), wanted - len(data)
            await front.loop.pass_(15)
        while got < len(LARGE):
            data = await front.loop.sock_recv(client.socket, 2**20)
            assert data
            got += len(data)

    run(app, body)


# how many


def crowded(raw: bytes) -> None:
    assert raw.startswith(b"HTTP/1.1 503 "), raw
    assert b"retry-after: 1\r\n" in raw
    assert json.loads(raw.partition(b"\r\n\r\n")[2])["error"]["code"] == "overloaded"


@pytest.fixture
def room_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGE_CONNECTIONS", "EDGE_CONNECTIONS_LEAST"):
        monkeypatch.setattr(limits, name, limits.Limit(2, "connections", "", "a test"))


@pytest.mark.usefixtures("room_for_two")
def test_one_too_many_is_refused() -> None:
    """503 with Retry-After; past a margin, a reset; then there is room again (K4)."""

    async def body(front: Front) -> None:
        first = await front.connect()
        await front.connect()
        third, fourth = await front.connect(), await front.connect()
        crowded(await third.rest())
        assert await fourth.rest() == b""
        first.socket.close()
        await front.loop.pass_(limits.EDGE_LINGER_S.value)
        await asyncio.sleep(0.01)
        again = await front.connect()
        await again.send(GET)
        assert (await again.until(END)).startswith(b"HTTP/1.1 200")

    run(ok, body)


@pytest.mark.usefixtures("room_for_two")
def test_an_idle_connection_makes_room() -> None:
    """Who has been answered and asks for nothing yields to who comes (K3, K4)."""

    async def body(front: Front) -> None:
        first, second = await front.connect(), await front.connect()
        await first.send(GET)
        await first.until(END)
        await front.loop.pass_(limits.EDGE_SQUEEZED_S.value)
        third = await front.connect()
        assert await first.rest() == b""
        for client in (second, third):
            await client.send(GET)
            assert (await client.until(END)).startswith(b"HTTP/1.1 200")

    run(ok, body)


@pytest.mark.parametrize(
    ("files", "most"), [(None, 10_000), (10**6, 10_000), (256, 48), (1024, 336), (64, 16)]
)
def test_files_are_left_for_engines(files: int | None, most: int) -> None:
    """Of what a process may open, a client takes two, and engines have a quarter (K4)."""
    assert most_connections(files) == most


# WebSockets


def frame(opcode: int, data: bytes = b"", *, last: bool = True) -> bytes:
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2)
    return bytes([opcode | (0x80 if last else 0)]) + size + bytes(4) + data


async def accept(receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})


def socket_app(says: Callable[[Receive, Send], Awaitable[None]]) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await accept(receive, send)
        await says(receive, send)

    return app


def test_a_websocket_that_is_not_read_is_cut_off() -> None:
    """A client that takes nothing for 60 s is gone, and the guest's sending ends (A7)."""
    ended = asyncio.Event()

    async def says(receive: Receive, send: Send) -> None:
        try:
            while True:
                await send({"type": "websocket.send", "bytes": LARGE[: 2**20]})
        finally:
            ended.set()

    async def body(front: Front) -> None:
        client = await front.connect(buffer_bytes=4096)
        await client.send(HANDSHAKE)
        await asyncio.sleep(0.05)
        assert not ended.is_set()
        for _ in range(6):
            await front.loop.pass_(Outflow.look_s())
        await asyncio.wait_for(ended.wait(), 1)

    run(socket_app(says), body)


def test_pings_whose_answers_are_not_read_are_not_read() -> None:
    """A flood of pings costs a bounded buffer; the client's own socket stops it (A8)."""

    async def says(receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def body(front: Front) -> None:
        client = await front.connect(buffer_bytes=4096)
        await client.send(HANDSHAKE)
        flood = frame(9, b"x" * 125) * 500
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 * 2**20:
                await asyncio.wait_for(front.loop.sock_sendall(client.socket, flood), 0.5)
                sent += len(flood)
        assert sent < 32 * 2**20
        # and once it reads, all goes on
        got = 0
        while got < sent // 2:
            got += len(await asyncio.wait_for(front.loop.sock_recv(client.socket, 2**20), 5))

    run(socket_app(says), body)


@pytest.mark.slow
def test_fragments_are_counted() -> None:
    """Empty ones weigh nothing and are bounded all the same (A8)."""
    got: list[Any] = []

    async def says(receive: Receive, send: Send) -> None:
        got.append(await receive())

    async def body(front: Front) -> None:
        client = await front.connect()
        await client.send(HANDSHAKE)
        await client.until(b"\r\n\r\n")
        await client.send(frame(1, b"a", last=False))
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(limits.WEBSOCKET_FRAGMENTS.value // 1024):
                await client.send(frame(0, last=False) * 1024)
            await client.send(frame(0, last=False))
        heard = await client.rest()
        assert heard[:1] == b"\x88"
        assert heard[2:4] == (1009).to_bytes(2)

    run(socket_app(says), body)
    assert got[0]["type"] == "websocket.disconnect"

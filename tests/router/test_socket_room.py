"""What a client's WebSocket messages take of our memory and patience, on a real socket.

Source: reliability.md T20; limits.WEBSOCKET_FREE, _PROJECT_ROOM, _ROOM, _PING_S, _PONG_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tracemalloc
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from tests.router.moved_loop import MovedLoop

from amba_router.asgi import Message, Receive, Scope, Send
from amba_run.serve import Listener, bind
from amba_runtime import limits
from amba_runtime.message_room import Account, MessageRoom, MessageShare
from amba_runtime.outcome import Breach

pytestmark = pytest.mark.slow

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a.fn.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
COST = limits.WEBSOCKET_FRAME_COST.value


def frame(opcode: int, data: bytes = b"", *, last: bool = True, of: int = 0) -> bytes:
    """A frame under a mask of zeros, perhaps only the beginning of one of `of` bytes."""
    size = of or len(data)
    long = bytes([0x80 | size]) if size < 126 else b"\xff" + size.to_bytes(8)
    return bytes([opcode | (0x80 if last else 0)]) + long + bytes(4) + data


class Client:
    """One socket: what it hears, and what the app on the other side does for it."""

    def __init__(self, account: Account | None) -> None:
        self.account = account
        self.got: list[Message] = []
        self.asks = asyncio.Semaphore(0)
        self.news = asyncio.Event()
        self.accepts = asyncio.Event()
        self.accepts.set()
        self.says: asyncio.Queue[Message] = asyncio.Queue()
        self.said = 0
        self.raw = socket.socket()
        self.heard = b""

    async def send(self, *data: bytes) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.raw, b"".join(data))

    async def until(self, mark: bytes) -> None:
        loop = asyncio.get_running_loop()
        while mark not in self.heard:
            data = await loop.sock_recv(self.raw, 65536)
            assert data, self.heard
            self.heard += data
        self.heard = self.heard.partition(mark)[2]

    async def closed(self) -> int:
        """The code of the close frame that ends what it hears; 0 for a reset."""
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(self.raw, 65536):
                self.heard += data
        except ConnectionResetError:
            return 0
        pongs(self)  # a ping has any four bytes
        at = self.heard.index(bytes([0x80 | CLOSE]))
        return int.from_bytes(self.heard[at + 2 : at + 4])

    async def has(self, count: int) -> None:
        """The app was given so many messages."""
        while len(self.got) < count:
            self.news.clear()
            await self.news.wait()


class Front:
    """A server; its app asks for as many messages as a test lets it."""

    def __init__(self, loop: MovedLoop) -> None:
        self.loop = loop
        self.port = 0
        self.clients: list[Client] = []
        self.running: list[Client] = []

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = self.clients[-1]
        assert (await receive())["type"] == "websocket.connect"
        await client.accepts.wait()
        accept: Message = {"type": "websocket.accept", "subprotocol": None, "headers": []}
        if client.account is not None:
            accept["amba.account"] = client.account.inward
        await send(accept)
        telling = asyncio.create_task(self._tell(client, send))
        try:
            while True:
                await client.asks.acquire()
                message = await receive()
                client.got.append(message)
                client.news.set()
                if message["type"] == "websocket.disconnect":
                    return
                del message
        finally:
            telling.cancel()
            if client.account is not None:
                client.account.close()

    async def _tell(self, client: Client, send: Send) -> None:
        while True:
            await send(await client.says.get())
            client.said += 1

    async def connect(
        self, account: Account | None = None, *, opened: bool = True, buffer_bytes: int = 0
    ) -> Client:
        client = Client(account)
        if not opened:
            client.accepts.clear()
        if buffer_bytes:
            client.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        # `arrived` waits for less long than Nagle's algorithm may
        client.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.raw.setblocking(False)
        self.clients.append(client)
        await self.loop.sock_connect(client.raw, ("127.0.0.1", self.port))
        await client.send(HANDSHAKE)
        if opened:
            await client.until(b"\r\n\r\n")
        return client


def run(body: Callable[[Front], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        front = Front(cast(MovedLoop, asyncio.get_running_loop()))
        sockets = bind("127.0.0.1", 0)
        front.port = sockets[0].getsockname()[1]
        listener = Listener(front.app, sockets)
        await listener.open()
        try:
            await body(front)
        finally:
            for client in front.clients:
                client.asks.release()
                client.raw.close()
            await listener.close(grace_s=0.1)

    with asyncio.Runner(loop_factory=MovedLoop) as runner:
        runner.run(main())


def share(most: int, *, free: int = 100) -> MessageShare:
    return MessageRoom(most=most, free=free).share()


@pytest.mark.parametrize(
    "data",
    [
        frame(BINARY, b"x" * 1_500, of=3_000),
        frame(BINARY, b"x" * 600, last=False) + frame(CONT, b"x" * 600, last=False),
        frame(BINARY, b"x" * 900),
        frame(TEXT, b"x" * 300 + "\U0001f600".encode()),
        b"".join(frame(TEXT, b"") for _ in range(5)),
    ],
    ids=["a part of one", "fragments", "a whole one", "wide text", "many empty ones"],
)
def test_a_message_without_room_ends_its_socket(data: bytes) -> None:
    """1013 where it lies here in part, in pieces, whole, as wide text, or as many (T20)."""

    async def body(front: Front) -> None:
        project = share(2_000)
        client = await front.connect(project.account())
        await client.send(data)
        assert await client.closed() == 1013
        assert client.account is not None
        breach = client.account.breach
        assert breach is not None
        assert (breach.limit, breach.most) == ("websocket_project_bytes", 1_000)
        assert breach.used > 1_000
        for _ in range(9):
            client.asks.release()
        await arrived()
        assert client.got[-1]["code"] == 1013
        assert project.held == 0

    run(body)


def test_a_message_is_held_until_the_app_asks_for_the_next() -> None:
    """Not only until it was taken: it lies here until it was passed on (T20)."""

    async def body(front: Front) -> None:
        project = share(1_500)
        client = await front.connect(project.account())
        await client.send(frame(BINARY, b"x" * 500))
        client.asks.release()
        await client.has(1)
        assert project.held == 500 + COST - 100
        other = await front.connect(project.account())
        await other.send(frame(BINARY, b"x" * 500))
        assert await other.closed() == 1013
        client.asks.release()
        await arrived()
        assert project.held == 0
        third = await front.connect(project.account())
        await third.send(frame(BINARY, b"x" * 500))
        await arrived()
        assert project.held == 500 + COST - 100

    run(body)


def test_a_message_that_was_passed_on_is_not_kept_by_the_parser() -> None:
    """Of 8 MiB nothing is left while the next message is awaited (T20)."""
    size = 8 * limits.MIB

    async def body(front: Front) -> None:
        client = await front.connect(MessageRoom().share().account())
        client.asks.release()
        client.asks.release()
        tracemalloc.start()
        try:
            await client.send(frame(BINARY, b"x" * size))
            await client.has(1)
            assert tracemalloc.get_traced_memory()[0] > size
            client.got.clear()
            await arrived()
            assert tracemalloc.get_traced_memory()[0] < size // 2
        finally:
            tracemalloc.stop()

    run(body)


def test_small_messages_need_no_room() -> None:
    """Where large ones have used it all up, a chat goes on (limits.WEBSOCKET_FREE)."""

    async def body(front: Front) -> None:
        room = MessageRoom(most=0)
        client = await front.connect(room.share().account())
        for number in range(20):
            await client.send(frame(TEXT, b"hello"))
            client.asks.release()
            await client.has(number + 1)
        assert client.got == [{"type": "websocket.receive", "text": "hello"}] * 20
        assert client.account is not None
        assert client.account.breach is None

    run(body)


def test_sockets_of_one_project_cannot_hold_more_than_its_share() -> None:
    """Twenty sockets with a part of a message each: as many stay as fit, and the sum is
    bounded; another project's message is served (T20, the finding of the review).
    """

    async def body(front: Front) -> None:
        mib = limits.MIB
        room = MessageRoom(most=40 * mib, of_project=10 * mib)
        project, most = room.share(), 0
        clients = [await front.connect(project.account()) for _ in range(20)]
        for client in clients:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                await client.send(frame(BINARY, b"x" * mib, of=2 * mib))
            await asyncio.sleep(0.01)
            most = max(most, room.held)
        assert 7 * mib < most <= 10 * mib
        refused = [c for c in clients if c.account is not None and c.account.breach is not None]
        assert 10 <= len(refused) <= 12
        other = await front.connect(room.share().account())
        await other.send(frame(BINARY, b"y" * mib))
        other.asks.release()
        await other.has(1)
        assert other.got[0]["bytes"] == b"y" * mib

    run(body)


def test_a_client_that_sends_much_before_it_is_accepted_is_cut_off() -> None:
    """It has to wait for our answer; little is kept for it all the same (RFC 6455 4.1)."""

    async def body(front: Front) -> None:
        little = await front.connect(opened=False)
        await little.send(frame(TEXT, b"early"))
        little.accepts.set()
        little.asks.release()
        await little.has(1)
        assert little.got[0]["text"] == "early"
        much = await front.connect(opened=False)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            await much.send(frame(BINARY, b"x" * 200_000, of=300_000))
        assert await much.closed() == 0
        much.accepts.set()

    run(body)


@pytest.mark.parametrize(
    "early",
    [frame(TEXT, b"\xff"), frame(3), frame(CONT, b"x"), frame(BINARY, of=2**40)],
    ids=["no UTF-8", "no such frame", "no beginning", "too large"],
)
def test_what_makes_no_sense_before_the_handshake_is_over_is_cut_off(
    early: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """No close frame could say it, and nothing of ours fails over it (RFC 6455 4.1, 7.1.7)."""

    async def body(front: Front) -> None:
        client = await front.connect(opened=False)
        await client.send(early)
        assert await client.closed() == 0
        client.accepts.set()
        client.asks.release()

    run(body)
    assert [r for r in caplog.records if r.levelname in ("ERROR", "CRITICAL")] == []


@pytest.mark.parametrize("trickles", [False, True], ids=["silence", "a trickle"])
def test_a_message_that_does_not_come_whole_in_time_ends_its_socket(trickles: bool) -> None:
    """As a request's body would: 30 s without a byte, or 60 s and too slow (row A7)."""

    async def body(front: Front) -> None:
        client = await front.connect(share(10_000).account())
        await client.send(frame(BINARY, b"x", last=False))
        await arrived()
        step_s = 15.0
        for _ in range(3 if trickles else 1):
            await front.loop.pass_(step_s)
            if trickles:
                await arrived()
                # the client is alive, and answers pings: it says nothing else
                await client.send(frame(CONT, b"x", last=False), *pongs(client))
                await arrived()
        assert not ended(client)
        await front.loop.pass_(step_s)
        await front.loop.pass_(step_s)
        assert await client.closed() == 1008

    run(body)


def pongs(client: Client) -> list[bytes]:
    """Answers to the pings that it has heard."""
    with contextlib.suppress(OSError):
        client.heard += client.raw.recv(65536)
    answers: list[bytes] = []
    while client.heard[:1] == bytes([0x80 | PING]):
        size = client.heard[1]
        answers.append(frame(PONG, client.heard[2 : 2 + size]))
        client.heard = client.heard[2 + size :]
    return answers


def ended(client: Client) -> bool:
    """Whether it has heard a close frame, behind pings that it leaves without an answer."""
    pongs(client)
    return client.heard[:1] == bytes([0x80 | CLOSE])


async def arrived() -> None:
    """What was sent on a real socket is there, and what it leads to is done."""
    for _ in range(20):
        await asyncio.sleep(0.001)


def test_a_client_that_is_gone_without_a_word_is_noticed_by_a_ping() -> None:
    """One that answers stays, one that does not loses its place (limits.WEBSOCKET_PONG_S)."""

    async def body(front: Front) -> None:
        alive, gone = await front.connect(), await front.connect()
        for _ in range(2):
            await front.loop.pass_(limits.WEBSOCKET_PING_S.value)
            await arrived()
            await alive.send(*pongs(alive))
            await arrived()
        await front.loop.pass_(limits.WEBSOCKET_PONG_S.value)
        assert await gone.closed() == 1011
        assert not ended(alive)

    run(body)


@pytest.mark.parametrize("why", ["sends", "takes", "is not read"])
def test_a_ping_ends_no_client_whose_line_is_busy(why: str) -> None:
    """Its answer comes behind a large message of its own, or the ping behind one of ours, or it
    is we who do not read: that is no silence; silence is (limits.WEBSOCKET_PONG_S).
    """

    size = 16 * limits.MIB

    async def body(front: Front) -> None:
        client = await front.connect(share(100_000).account(), buffer_bytes=65_536)
        if why == "sends":
            await client.send(frame(BINARY, b"x", of=99_999))
        elif why == "takes":
            client.says.put_nowait({"type": "websocket.send", "bytes": b"z" * size})
        else:
            await client.send(frame(BINARY, b"whole"))
        await arrived()
        got: list[bytes] = []
        for _ in range(6):  # the time to a ping, that to its answer, and as much again
            await front.loop.pass_(10)
            if why == "sends":
                await client.send(b"x" * 5_000)
            elif why == "takes":
                got.append(await front.loop.sock_recv(client.raw, 65_536))
            await arrived()
        await front.loop.pass_(5)
        if why == "sends":
            await client.send(b"x")
        elif why == "takes":
            while sum(map(len, got)) < 10 + size:
                got.append(await front.loop.sock_recv(client.raw, 2**20))
                assert got[-1], "cut off"
            client.heard = b"".join(got)[10 + size :]
        else:
            client.asks.release()
            await client.has(1)
        await arrived()
        assert not ended(client)
        await front.loop.pass_(19)
        await arrived()
        assert not ended(client)
        await front.loop.pass_(20)
        # its message is late before its answer is
        assert await client.closed() == (1008 if why == "sends" else 1011)

    run(body)


def test_who_sends_without_a_pause_is_not_late() -> None:
    """Each message has a time of its own, also where no piece ends with one (row A7)."""

    async def body(front: Front) -> None:
        client = await front.connect(share(10_000).account())
        stream, pieces = frame(BINARY, b"x" * 100), 20
        for _ in range(pieces * 2):
            client.asks.release()
        await client.send(stream[:50])
        for _ in range(pieces):
            await arrived()
            await front.loop.pass_(10)
            assert not ended(client)
            await client.send(stream[50:] + stream[:50])
        await client.has(pieces)
        assert {message["type"] for message in client.got} == {"websocket.receive"}

    run(body)


def test_what_a_client_does_not_take_is_not_fetched_from_the_guest() -> None:
    """A send returns once the client has taken it: at most one message waits (T20)."""

    async def body(front: Front) -> None:
        client = await front.connect(buffer_bytes=4096)
        for _ in range(3):
            client.says.put_nowait({"type": "websocket.send", "bytes": b"z" * 8 * limits.MIB})
        await arrived()
        assert (client.said, client.says.qsize()) == (0, 2)
        got = 0
        while got < 24 * limits.MIB:
            got += len(await front.loop.sock_recv(client.raw, 2**20))
        await arrived()
        assert client.said == 3

    run(body)


def test_text_that_is_none_ends_its_socket() -> None:
    """1007, and nothing reaches the guest (RFC 6455 section 8.1)."""

    async def body(front: Front) -> None:
        client = await front.connect(share(1_000).account())
        await client.send(frame(TEXT, b"\xff"))
        assert await client.closed() == 1007
        client.asks.release()
        await client.has(1)
        assert client.got[0]["type"] == "websocket.disconnect"

    run(body)


def test_the_node_has_a_sum_of_its_own() -> None:
    """Where all projects together have used it up, the breach says that it is the node (T20)."""

    async def body(front: Front) -> None:
        room = MessageRoom(most=1_600, of_project=1_600, free=0)
        for size in (500, 500):
            client = await front.connect(room.share().account())
            await client.send(frame(BINARY, b"x" * size))
        assert await client.closed() == 1013
        assert client.account is not None
        most = (1_600 - 500 - COST) // 2
        assert client.account.breach == Breach("websocket_bytes", 500 + COST, most)

    run(body)

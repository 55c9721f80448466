"""A WebSocket request that a guest answers in its own way: the answer arrives as it was given."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.runtime.engine.lab import Lab, on_workerd
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, unix_serve
from websockets.exceptions import ConnectionClosed, InvalidMessage

from amba_runtime import limits
from amba_runtime.engine.base import Refused
from amba_runtime.engine.workerd.guest_socket import WorkerdSocket
from amba_runtime.engine.workerd.handshake import Inbox, open_socket
from amba_runtime.message_room import MessageRoom, MessageShare

Opening = Awaitable[tuple[ClientConnection, Inbox]]

MANY = """
const headers = new Headers({ location: "http://local/elsewhere", "x-long": "a".repeat(20000) });
for (let i = 0; i < 300; i++) headers.set(`x-many-${i}`, `${i}`);
export default {
  fetch(request) {
    if (new URL(request.url).pathname === "/open") {
      const [theirs, ours] = Object.values(new WebSocketPair());
      ours.accept();
      ours.send("at once");
      return new Response(null, { status: 101, webSocket: theirs, headers });
    }
    return new Response("elsewhere", { status: 302, headers });
  },
};
"""


@pytest.mark.slow
def test_an_answer_with_many_headers_is_no_failure() -> None:
    """300 headers, one of 20,000 bytes, and a redirect: all of it the caller's to see (E.2)."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(MANY)
        with pytest.raises(Refused) as refused:
            await isolate.socket(b"/", [(b"host", b"local")], [])
        assert (refused.value.status, refused.value.body) == (302, b"elsewhere")
        fields = dict(refused.value.headers)
        assert fields[b"location"] == b"http://local/elsewhere"
        assert fields[b"x-long"] == b"a" * 20000
        assert [fields[b"x-many-%d" % i] for i in range(300)] == [b"%d" % i for i in range(300)]

    on_workerd(body)


@pytest.mark.slow
def test_a_socket_may_open_with_many_headers() -> None:
    """The guest's 101 has no fewer headers than its other answers; its first message follows."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(MANY)
        guest = await isolate.socket(b"/open", [(b"host", b"local")], [])
        assert dict(guest.headers)[b"x-many-299"] == b"299"
        assert await guest.receive() == "at once"
        await guest.close(1000, "")

    on_workerd(body)


def against(pieces: list[bytes], check: Callable[[Opening], Awaitable[None]]) -> None:
    """Open a socket to an engine that answers so, piece by piece."""

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async def main(path: Path) -> None:
        server = await asyncio.start_unix_server(engine, path)
        async with asyncio.timeout(5), server:
            await check(open_socket(path, "local", "/", [], []))

    with TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder, "fn.sock")))


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"HTTP/1.1 101 Switching"],
        [b"HTTP/1.1 101 Switching Protocols\r\nx: "],
        [b"HTTP/1.1 200 OK\r\n", b"x: " + b"a" * limits.WIRE_HEAD.value, b"\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: none\r\n\r\n"],
        [b"what?\r\n\r\n"],
    ],
)
def test_no_answer_is_an_error(pieces: list[bytes]) -> None:
    """A head that never ends, passes `limits.WIRE_HEAD` or makes no sense is told as such."""

    async def check(opening: Opening) -> None:
        with pytest.raises(InvalidMessage):
            await opening

    against(pieces, check)


COST = limits.WEBSOCKET_FRAME_COST.value


class Talk:
    """A guest's end of a socket, of a server in its place, and ours."""

    def __init__(self, socket: WorkerdSocket, share: MessageShare) -> None:
        self.socket = socket
        self.share = share

    async def arrived(self) -> None:
        """What was sent on a real socket is there."""
        for _ in range(20):
            await asyncio.sleep(0.001)


def talking(
    guest: Callable[[ServerConnection], Awaitable[None]],
    test: Callable[[Talk], Awaitable[None]],
    *,
    most: int = 1_000,
) -> None:
    """Open a socket to `guest`, held to a room of `most` bytes of which none are free."""

    async def main(path: Path) -> None:
        async with asyncio.timeout(10), unix_serve(guest, path, ping_interval=None):
            share = MessageRoom(most=most, free=0).share()
            account = share.account()
            socket = WorkerdSocket(*await open_socket(path, "local", "/", [], []))
            socket.hold_to(account.outward)
            try:
                await test(Talk(socket, share))
            finally:
                await socket.close(1000, "")
                account.close()
            assert share.held == 0

    with TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder, "fn.sock")))


async def _whole(guest: ServerConnection) -> None:
    await guest.send(b"x" * 1_001)
    await guest.wait_closed()


async def _pieces(guest: ServerConnection) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 400
        await guest.wait_closed()

    with contextlib.suppress(ConnectionClosed):
        await guest.send(pieces())


async def _wide(guest: ServerConnection) -> None:
    await guest.send("x" * 300 + "\U0001f600")
    await guest.wait_closed()


async def _many(guest: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        for _ in range(5):
            await guest.send(b"")
    await guest.wait_closed()


@pytest.mark.parametrize(
    "how", [_whole, _pieces, _wide, pytest.param(_many, marks=pytest.mark.slow)]
)
def test_a_guests_message_without_room_ends_its_socket(
    how: Callable[[ServerConnection], Awaitable[None]],
) -> None:
    """1013 on both sides: whole, in pieces, as wide text, or as many (T20)."""
    codes: list[int | None] = []

    async def guest(connection: ServerConnection) -> None:
        await how(connection)
        codes.append(connection.close_code)

    async def test(talk: Talk) -> None:
        await talk.arrived()
        assert await talk.socket.receive() is None
        assert talk.socket.close_code == 1013
        assert talk.socket.close_reason == "too many bytes of messages under way"

    talking(guest, test)
    assert codes == [1013]


def test_a_guests_message_is_held_until_the_next_is_asked_for() -> None:
    """What the caller has not taken yet lies here (T20)."""
    asked = asyncio.Event()

    async def guest(connection: ServerConnection) -> None:
        await connection.send(b"x" * 500)
        await asked.wait()
        await connection.send("y" * 400)
        await connection.wait_closed()

    async def test(talk: Talk) -> None:
        await talk.arrived()
        assert talk.share.held == 500 + COST
        assert await talk.socket.receive() == b"x" * 500
        assert 500 <= talk.share.held <= 600
        waiting = asyncio.create_task(talk.socket.receive())
        await talk.arrived()
        assert talk.share.held == 0
        asked.set()
        assert await waiting == "y" * 400
        assert 400 <= talk.share.held <= 500

    talking(guest, test, most=2_000)


@pytest.mark.slow
def test_a_guests_message_that_was_passed_on_is_not_kept_by_the_parser() -> None:
    """Of 8 MiB nothing is left while the next message is awaited (T20)."""
    size = 8 * limits.MIB

    async def guest(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await connection.send(b"x" * size)
            await connection.recv()

    async def test(talk: Talk) -> None:
        tracemalloc.start()
        try:
            message = await talk.socket.receive()
            assert message is not None
            assert len(message) == size
            del message
            waiting = asyncio.create_task(talk.socket.receive())
            await talk.arrived()
            assert tracemalloc.get_traced_memory()[0] < size // 2
            waiting.cancel()
        finally:
            tracemalloc.stop()

    talking(guest, test, most=64 * limits.MIB)


@pytest.mark.slow
def test_a_guest_that_does_not_hear_of_it_holds_up_nobody() -> None:
    """An engine that answers no close frame is left after a second (limits.WEBSOCKET_CLOSE_S)."""

    ended = asyncio.Event()

    async def guest(connection: ServerConnection) -> None:
        await connection.send(b"x" * 1_001)
        connection.transport.pause_reading()
        await ended.wait()
        connection.transport.resume_reading()

    async def test(talk: Talk) -> None:
        await talk.arrived()
        try:
            assert await talk.socket.receive() is None
            assert not ended.is_set()
        finally:
            ended.set()

    talking(guest, test)

"""A WebSocket request that a guest answers in its own way: the answer arrives as it was given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.runtime.engine.lab import Lab, on_workerd
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidMessage

from amba_runtime import limits
from amba_runtime.engine.base import Refused
from amba_runtime.engine.workerd.handshake import open_socket

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


def against(
    pieces: list[bytes], check: Callable[[Awaitable[ClientConnection]], Awaitable[None]]
) -> None:
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

    async def check(opening: Awaitable[ClientConnection]) -> None:
        with pytest.raises(InvalidMessage):
            await opening

    against(pieces, check)

"""Who leaves while waiting is noticed, and nothing that was read is lost (K1, K2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from amba_router.ahead import Ahead
from amba_router.asgi import Message

GONE = {"type": "http.disconnect"}
WHOLE = {"type": "http.request", "body": b"", "more_body": False}
PIECE = {"type": "http.request", "body": b"x", "more_body": True}
OPENED = {"type": "websocket.connect"}
HELLO = {"type": "websocket.receive", "text": "hi"}


class Client:
    """What it sends, and the turn that its request waits for."""

    def __init__(self, *messages: Message) -> None:
        self.coming: asyncio.Queue[Message] = asyncio.Queue()
        for message in messages:
            self.coming.put_nowait(message)
        self.ahead = Ahead(self.coming.get)
        self.turn = asyncio.Event()
        self.held = 0

    async def take(self) -> None:
        await self.turn.wait()
        self.held += 1

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(5):
            await body()

    asyncio.run(main())


@pytest.mark.parametrize(
    "messages",
    [(GONE,), (WHOLE, GONE), (OPENED, {"type": "websocket.disconnect", "code": 1006})],
    ids=["at once", "behind a request", "before a WebSocket"],
)
def test_a_client_that_leaves_is_noticed_before_its_turn(messages: tuple[Message, ...]) -> None:
    """Its wait ends, and what it sent before is still there for whoever asks."""

    async def body() -> None:
        client = Client(*messages)
        assert not await client.ahead.outlasts(client.take())
        client.turn.set()
        await client.settle()
        assert client.held == 0
        assert [await client.ahead.receive() for _ in messages] == list(messages)

    run(body)


@pytest.mark.parametrize(
    ("messages", "read"),
    [((), 0), ((WHOLE,), 1), ((PIECE, PIECE), 1), ((OPENED, HELLO, HELLO), 2)],
    ids=["nothing", "no body", "a body", "a WebSocket"],
)
def test_no_more_is_read_than_one_piece(messages: tuple[Message, ...], read: int) -> None:
    """What comes of a body behind its first piece stays with the client; order is kept."""

    async def body() -> None:
        client = Client(*messages)
        waiting = asyncio.create_task(client.ahead.outlasts(client.take()))
        await client.settle()
        assert client.coming.qsize() == len(messages) - read
        client.turn.set()
        assert await waiting
        assert client.held == 1
        client.coming.put_nowait(GONE)
        heard = [await client.ahead.receive() for _ in range(len(messages) + 1)]
        assert heard == [*messages, GONE]

    run(body)


def test_a_client_that_waits_for_our_word_is_not_read() -> None:
    """To read from one that expects 100-continue would ask for its body (RFC 9110 10.1.1)."""

    async def body() -> None:
        client = Client(GONE)
        client.turn.set()
        assert await client.ahead.outlasts(client.take(), read=False)
        assert client.coming.qsize() == 1

    run(body)


def test_a_refusal_is_passed_on() -> None:
    """What the turn raises is the caller's."""

    async def refused() -> None:
        raise KeyError("no place")

    async def body() -> None:
        with pytest.raises(KeyError, match="no place"):
            await Client().ahead.outlasts(refused())

    run(body)


def test_one_that_is_called_off_leaves_nothing_running() -> None:
    """Cancelled from outside, both waits end."""

    async def body() -> None:
        client = Client()
        waiting = asyncio.create_task(client.ahead.outlasts(client.take()))
        await client.settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(body)

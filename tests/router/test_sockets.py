"""WebSockets between a caller and a guest: messages, close codes, and ends that break off."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from amba_router.asgi import Message
from amba_router.sockets import relay_socket
from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.engine.base import Refused, Surroundings
from amba_runtime.engine.fake import FakeIsolate, FakeRequest, FakeResponse
from amba_runtime.message_room import Account, Direction, MessageRoom
from amba_runtime.outcome import Outcome
from amba_runtime.wire import Headers, Request, Response, WireError

HIDDEN = frozenset({b"connection", b"upgrade", b"amba-run-tell"})


class Guest:
    """A guest's end: what it says is queued, what it hears is kept."""

    def __init__(self) -> None:
        self.subprotocol: str | None = "chat"
        self.headers: Headers = [
            (b"x-own", b"1"),
            (b"upgrade", b"websocket"),
            (b"sec-websocket-accept", b"secret"),
            (b"amba-run-tell", b"{}"),
        ]
        self.close_code: int | None = None
        self.close_reason = ""
        self.heard: list[str | bytes] = []
        self.closed: list[tuple[int, str]] = []
        self.deaf = False
        self.account: Direction | None = None
        self.news = asyncio.Event()
        self._says: asyncio.Queue[str | bytes | None] = asyncio.Queue()

    def says(self, message: str | bytes) -> None:
        self._says.put_nowait(message)

    def ends(self, code: int | None, reason: str = "") -> None:
        """Its side closes; what is sent to it afterwards fails."""
        self.close_code, self.close_reason, self.deaf = code, reason, True
        self._says.put_nowait(None)

    def hold_to(self, account: Direction) -> None:
        self.account = account

    async def send(self, message: str | bytes) -> None:
        if self.deaf:
            raise WireError("the guest closed the WebSocket")
        self.heard.append(message)
        self.news.set()

    async def receive(self) -> str | bytes | None:
        return await self._says.get()

    async def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))


async def nobody(request: FakeRequest) -> FakeResponse:
    return FakeResponse()


async def nowhere(request: Request) -> Response:
    return Response(403)


class SocketIsolate(FakeIsolate):
    """A fake isolate that opens sockets to one guest."""

    def __init__(self, guest: Guest) -> None:
        surroundings = Surroundings(nowhere, None, lambda label, tell: None, lambda reason: None)
        super().__init__(nobody, surroundings)
        self.guest = guest
        self.asked: list[tuple[bytes, Headers, list[str]]] = []

    async def socket(self, target: bytes, headers: Headers, subprotocols: Sequence[str]) -> Guest:
        self.asked.append((target, headers, list(subprotocols)))
        return self.guest


class Rig:
    """A caller, a guest, and the relay between them."""

    def __init__(self) -> None:
        self.guest = Guest()
        self.isolate: FakeIsolate = SocketIsolate(self.guest)
        self.sent: list[Message] = []
        self.refuses_to_listen = False
        self.clock = ManualClock()
        self.account: Account | None = None
        self._coming: asyncio.Queue[Message] = asyncio.Queue()
        self._coming.put_nowait({"type": "websocket.connect"})

    def hears(self, **message: Any) -> None:
        """Something comes from the caller."""
        self._coming.put_nowait({"type": "websocket.receive", **message})

    def leaves(self, **facts: Any) -> None:
        self._coming.put_nowait({"type": "websocket.disconnect", **facts})

    async def receive(self) -> Message:
        return await self._coming.get()

    async def send(self, message: Message) -> None:
        if self.refuses_to_listen:
            raise OSError("the caller is gone")
        self.sent.append(message)
        self.guest.news.set()

    async def until(self, there: Callable[[], bool]) -> None:
        """Wait for what either side got."""
        while not there():
            self.guest.news.clear()
            await self.guest.news.wait()

    async def relay(self) -> tuple[int, Outcome]:
        return await relay_socket(
            self.isolate,
            b"/path",
            [(b"host", b"h")],
            ["chat", "other"],
            self.receive,
            self.send,
            not_passed_on=HIDDEN,
            clock=self.clock,
            account=self.account,
        )


def run(body: Callable[[Rig], Coroutine[Any, Any, None]]) -> Rig:
    rigs: list[Rig] = []

    async def main() -> None:
        rigs.append(Rig())
        async with asyncio.timeout(5):
            await body(rigs[0])

    asyncio.run(main())
    return rigs[0]


def test_messages_pass_both_ways() -> None:
    """Text as text, bytes as bytes, in order; the head is filtered, the subprotocol chosen."""

    async def body(rig: Rig) -> None:
        rig.guest.says("first")
        rig.guest.says(b"\x00")
        rig.guest.says("")
        relaying = asyncio.create_task(rig.relay())
        rig.hears(text="hi", bytes=None)
        rig.hears(bytes=b"\xff")
        rig.hears(text="")
        await rig.until(lambda: len(rig.guest.heard) == 3 and len(rig.sent) == 4)
        rig.leaves(code=1000, reason="bye")
        assert await relaying == (101, Outcome.OK)

    rig = run(body)
    assert rig.guest.heard == ["hi", b"\xff", ""]
    assert rig.guest.closed == [(1000, "bye")]
    assert rig.sent == [
        {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-own", b"1")]},
        {"type": "websocket.send", "text": "first"},
        {"type": "websocket.send", "bytes": b"\x00"},
        {"type": "websocket.send", "text": ""},
    ]
    assert isinstance(rig.isolate, SocketIsolate)
    assert rig.isolate.asked == [(b"/path", [(b"host", b"h")], ["chat", "other"])]


@pytest.mark.parametrize(
    ("code", "sent"), [(1000, 1000), (4321, 4321), (None, 1000), (1005, 1000), (1006, 1011)]
)
def test_the_guests_close_is_told(code: int | None, sent: int) -> None:
    """Its own code, or the one that may stand for none and for an engine that ended."""

    async def body(rig: Rig) -> None:
        rig.guest.ends(code, "why")
        assert await rig.relay() == (101, Outcome.OK)

    rig = run(body)
    assert rig.sent[-1] == {"type": "websocket.close", "code": sent, "reason": "why"}


@pytest.mark.parametrize(
    ("facts", "closed", "outcome"),
    [
        ({"code": 1000, "reason": "done"}, (1000, "done"), Outcome.OK),
        ({"code": 4000, "reason": ""}, (4000, ""), Outcome.OK),
        ({"code": 1005, "reason": ""}, (1000, ""), Outcome.OK),
        ({"code": 1012}, (1012, ""), Outcome.OK),
        ({"code": 1005}, (1006, ""), Outcome.CANCELED),
        ({"code": 1006}, (1006, ""), Outcome.CANCELED),
        ({}, (1006, ""), Outcome.CANCELED),
    ],
)
def test_the_callers_close_is_told(
    facts: dict[str, Any], closed: tuple[int, str], outcome: Outcome
) -> None:
    """A close frame is a close; a connection that was lost without one broke off."""

    async def body(rig: Rig) -> None:
        rig.leaves(**facts)
        assert await rig.relay() == (101, outcome)

    assert run(body).guest.closed == [closed]


def test_a_caller_that_cannot_be_told_broke_off() -> None:
    """A send that fails ends the guest's side as broken."""

    async def body(rig: Rig) -> None:
        rig.refuses_to_listen = True
        assert await rig.relay() == (101, Outcome.CANCELED)

    assert run(body).guest.closed == [(1006, "")]


def test_what_comes_after_the_guests_close_is_dropped() -> None:
    """The caller was about to hear of it."""

    async def body(rig: Rig) -> None:
        rig.guest.deaf = True
        rig.hears(text="too late")
        relaying = asyncio.create_task(rig.relay())
        for _ in range(10):
            await asyncio.sleep(0)
        rig.guest.ends(1000)
        assert await relaying == (101, Outcome.OK)

    rig = run(body)
    assert rig.guest.heard == []
    assert rig.sent[-1]["code"] == 1000


def test_a_refusal_is_for_the_dispatcher() -> None:
    """Nothing was sent to the caller yet."""

    async def body(rig: Rig) -> None:
        surroundings = Surroundings(nowhere, None, lambda label, tell: None, lambda reason: None)
        rig.isolate = FakeIsolate(nobody, surroundings)
        with pytest.raises(Refused) as refused:
            await rig.relay()
        assert refused.value.status == 426

    assert run(body).sent == []


def test_a_relay_that_is_cancelled_closes_the_guest() -> None:
    """A server that stops leaves no socket open behind it."""

    async def body(rig: Rig) -> None:
        relaying = asyncio.create_task(rig.relay())
        await rig.until(lambda: bool(rig.sent))
        relaying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await relaying

    assert run(body).guest.closed == [(1001, "")]


def test_a_socket_over_which_nothing_comes_is_closed() -> None:
    """After so long without a message either way both sides hear 1001; each message begins the
    time anew (reliability.md T20: half-dead peers keep no places).
    """
    idle_s = limits.WEBSOCKET_IDLE_S.value

    async def body(rig: Rig) -> None:
        relaying = asyncio.create_task(rig.relay())
        await rig.until(lambda: bool(rig.sent))
        await rig.clock.advance(idle_s - 1)
        rig.hears(text="still here")
        await rig.until(lambda: bool(rig.guest.heard))
        await rig.clock.advance(idle_s - 1)
        rig.guest.says("me too")
        await rig.until(lambda: len(rig.sent) == 2)
        await rig.clock.advance(idle_s - 1)
        assert not relaying.done()
        await rig.clock.advance(1)
        assert await relaying == (101, Outcome.OK)

    rig = run(body)
    said = {"type": "websocket.close", "code": 1001, "reason": "nothing came for 600 s"}
    assert rig.sent[-1] == said
    assert rig.guest.closed == [(1001, "nothing came for 600 s")]


def test_an_idle_socket_whose_caller_cannot_be_told_ends_all_the_same() -> None:
    """The guest hears of it."""

    async def body(rig: Rig) -> None:
        relaying = asyncio.create_task(rig.relay())
        await rig.until(lambda: bool(rig.sent))
        rig.refuses_to_listen = True
        await rig.clock.advance(limits.WEBSOCKET_IDLE_S.value)
        assert await relaying == (101, Outcome.OK)

    assert run(body).guest.closed == [(1001, "nothing came for 600 s")]


class Text(str):
    """One that a weak reference can follow."""


def test_a_message_that_was_passed_on_is_kept_by_nobody() -> None:
    """Neither way, while the next one is awaited: it counts no more (T20)."""
    kept: list[weakref.ref[Text]] = []

    def fresh() -> Text:
        text = Text("large")
        kept.append(weakref.ref(text))
        return text

    async def body(rig: Rig) -> None:
        relaying = asyncio.create_task(rig.relay())
        rig.guest.says(fresh())
        rig.hears(text=fresh())
        await rig.until(lambda: len(rig.guest.heard) == 1 and len(rig.sent) == 2)
        rig.guest.heard.clear()
        rig.sent.clear()
        for _ in range(10):
            await asyncio.sleep(0)
        assert [reference() for reference in kept] == [None, None]
        rig.leaves(code=1000, reason="")
        await relaying

    run(body)


def test_both_ends_are_told_what_their_messages_are_held_to() -> None:
    """The guest's end by `hold_to`, the edge with the accept: each its own direction (T20)."""

    async def body(rig: Rig) -> None:
        rig.account = MessageRoom().share().account()
        rig.guest.ends(1000)
        assert await rig.relay() == (101, Outcome.OK)

    rig = run(body)
    assert rig.account is not None
    assert rig.guest.account is rig.account.outward
    assert rig.sent[0]["amba.account"] is rig.account.inward

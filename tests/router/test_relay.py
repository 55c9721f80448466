"""One exchange between an ASGI server and a guest: bodies, deadlines, and callers that leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from amba_router.asgi import Message
from amba_router.relay import Relay, RelayFailed
from amba_runtime import limits
from amba_runtime.engine.base import Surroundings
from amba_runtime.engine.fake import (
    FakeExchange,
    FakeHandler,
    FakeIsolate,
    FakeRequest,
    FakeResponse,
)
from amba_runtime.limits import MIB, FunctionLimits
from amba_runtime.outcome import Outcome
from amba_runtime.wire import Request, Response, WireError

LIMITS = FunctionLimits.dev()


class Caller:
    """An ASGI server's end: what the caller sends, and what it got."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []
        self.asked = 0

    def sends(self, body: bytes, *, more: bool = False) -> None:
        self.coming.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leaves(self) -> None:
        self.coming.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> Message:
        self.asked += 1
        return await self.coming.get()

    async def receive_at_once(self) -> Message:
        """As uvicorn does with a body that came along with its head."""
        self.asked += 1
        return self.coming.get_nowait()

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(m["body"] for m in self.sent if m["type"] == "http.response.body")

    @property
    def ended(self) -> bool:
        last = self.sent[-1]
        return last["type"] == "http.response.body" and not last.get("more_body", False)


async def echo(request: FakeRequest) -> FakeResponse:
    return FakeResponse(body=await request.read())


async def mirror(request: FakeRequest) -> FakeResponse:
    return FakeResponse(body=request.body)


async def early(request: FakeRequest) -> FakeResponse:
    return FakeResponse(body=b"early")


async def silent(request: FakeRequest) -> FakeResponse:
    await asyncio.Event().wait()
    return FakeResponse()


class Recorded(FakeExchange):
    """Counts how it was given back."""

    released = 0
    aborted = 0

    def release(self) -> None:
        self.released += 1
        super().release()

    def abort(self, reason: str = "the exchange was aborted") -> None:
        self.aborted += 1
        super().abort(reason)

    def answer(self, body: bytes) -> None:
        """The guest answers now."""
        self._answer(200, body)


async def nowhere(request: Request) -> Response:
    return Response(403)


def exchange_with(
    handler: FakeHandler, *, method: bytes = b"GET", length: int | None = 0
) -> Recorded:
    """An exchange whose head was sent."""
    surroundings = Surroundings(nowhere, None, lambda label, tell: None, lambda reason: None)
    exchange = Recorded(FakeIsolate(handler, surroundings))
    exchange.begin(method, b"/", b"", length)
    return exchange


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(5):
            await body()

    asyncio.run(main())


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# --- the request's body ------------------------------------------------------------------------


def test_a_body_that_is_here_starts_no_task() -> None:
    """It is passed on in one step, without a wait (relay's promise)."""

    async def body() -> None:
        caller, exchange = Caller(), exchange_with(echo, length=5)
        caller.sends(b"hello")
        relay = Relay(exchange, caller.receive_at_once, caller.send, limits=LIMITS)
        before = len(asyncio.all_tasks())
        await relay.send_body(5)
        assert len(asyncio.all_tasks()) == before
        await relay.wait_head()
        await relay.answer(200, [])
        assert (caller.body, caller.ended, caller.asked) == (b"hello", True, 1)
        relay.stop()
        assert (exchange.released, exchange.aborted) == (1, 0)

    run(body)


def test_a_body_in_pieces_is_passed_on_as_it_comes() -> None:
    """The guest answers the first piece before the second was sent."""

    async def body() -> None:
        caller, exchange = Caller(), exchange_with(mirror, length=None)
        relay = Relay(exchange, caller.receive, caller.send, limits=LIMITS)
        caller.sends(b"one", more=True)
        await relay.send_body(None)
        await relay.wait_head()
        answering = asyncio.create_task(relay.answer(200, []))
        await turns()
        assert caller.body == b"one"
        caller.sends(b"two", more=True)
        caller.sends(b"", more=True)
        caller.sends(b"three")
        await answering
        assert (caller.body, caller.ended) == (b"onetwothree", True)
        relay.stop()
        assert (exchange.released, exchange.aborted) == (1, 0)

    run(body)


@pytest.mark.parametrize("first", [None, b"some"])
def test_an_early_answer_does_not_wait_for_the_body(first: bytes | None) -> None:
    """Nothing of it, or not all, was sent: the connection to the engine is not used again."""

    async def body() -> None:
        caller, exchange = Caller(), exchange_with(early, length=100)
        relay = Relay(exchange, caller.receive, caller.send, limits=LIMITS)
        if first is not None:
            caller.sends(first, more=True)
        await relay.send_body(100)
        await relay.wait_head()
        await relay.answer(200, [])
        assert (caller.body, caller.ended) == (b"early", True)
        relay.stop()
        assert exchange.released == 0
        assert exchange.aborted > 0

    run(body)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_caller_that_leaves_in_mid_upload(at_once: bool) -> None:
    """The guest's reading fails, and what it makes of that goes nowhere (reliability A9)."""

    async def body() -> None:
        fate: list[str] = []

        async def reads(request: FakeRequest) -> FakeResponse:
            try:
                fate.append(repr(await request.read()))
            except WireError as error:
                fate.append(str(error))
            return FakeResponse()

        caller, exchange = Caller(), exchange_with(reads, length=100)
        receive = caller.receive_at_once if at_once else caller.receive
        relay = Relay(exchange, receive, caller.send, limits=LIMITS)
        if at_once:
            caller.leaves()
        await relay.send_body(100)
        if not at_once:
            await turns()
            caller.sends(b"some", more=True)
            caller.leaves()
        await relay.wait_head()
        assert relay.gone
        assert fate == ["the request body broke off"]
        relay.stop()
        assert (exchange.released, exchange.aborted) == (0, 1)

    run(body)


def test_a_guest_that_ignores_the_cut_is_ended() -> None:
    """It has `CUT_BODY_S` to notice; then its work on the request ends."""

    async def body() -> None:
        caller, exchange = Caller(), exchange_with(silent, length=100)
        relay = Relay(exchange, caller.receive, caller.send, limits=LIMITS)
        await relay.send_body(100)
        caller.leaves()
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(WireError):
            await relay.wait_head()
        assert relay.gone
        assert loop.time() - began >= limits.CUT_BODY_S.value - 0.02
        relay.stop()

    run(body)


@pytest.mark.parametrize(("size", "passes"), [(MIB, True), (MIB + 1, False)])
def test_a_body_has_its_limit(size: int, passes: bool) -> None:
    """By what came, whatever its head said; at the limit it is inside (contract A.7)."""

    async def body() -> None:
        caller, exchange = Caller(), exchange_with(echo, length=None)
        small = LIMITS.override({"request_body_mib": 1})
        relay = Relay(exchange, caller.receive, caller.send, limits=small)
        await relay.send_body(None)
        caller.sends(b"x" * (size - 10), more=True)
        caller.sends(b"x" * 10)
        if passes:
            await relay.wait_head()
        else:
            with pytest.raises(RelayFailed) as failed:
                await relay.wait_head()
            assert failed.value.outcome is Outcome.CANCELED
            assert failed.value.problem.status == 413
            assert failed.value.problem.details["bytes_max"] == MIB
        relay.stop()

    run(body)


# --- deadlines ---------------------------------------------------------------------------------


def test_a_silent_guest_is_cut_off() -> None:
    """After `first_byte_ms`; the reason is kept."""

    async def body() -> None:
        caller, exchange = Caller(), exchange_with(silent)
        quick = LIMITS.override({"first_byte_ms": 30})
        relay = Relay(exchange, caller.receive, caller.send, limits=quick)
        with pytest.raises(WireError):
            await relay.wait_head()
        assert (relay.timed_out, relay.gone) == (True, False)
        relay.stop()

    run(body)


def test_without_deadlines_a_guest_has_its_time() -> None:
    """0 switches both clocks off; the caller can still leave."""

    async def body() -> None:
        caller, exchange = Caller(), exchange_with(silent)
        patient = LIMITS.override({"first_byte_ms": 0, "idle_ms": 0})
        relay = Relay(exchange, caller.receive, caller.send, limits=patient)
        waiting = asyncio.create_task(relay.wait_head())
        await asyncio.sleep(limits.DISCONNECT_WATCH_S.value * 2)
        assert not waiting.done()
        caller.leaves()
        with pytest.raises(WireError):
            await waiting
        assert (relay.timed_out, relay.gone) == (False, True)
        relay.stop()

    run(body)


def test_a_caller_that_leaves_early_is_noticed() -> None:
    """The watch begins after a moment, so that quick answers do not pay for it."""

    async def body() -> None:
        caller, exchange = Caller(), exchange_with(silent)
        relay = Relay(exchange, caller.receive, caller.send, limits=LIMITS)
        caller.leaves()
        with pytest.raises(WireError):
            await relay.wait_head()
        assert relay.gone
        relay.stop()
        assert exchange.released == 0

    run(body)


def test_a_stream_has_its_time_between_chunks() -> None:
    """`idle_ms` counts from the last chunk: a steady stream passes it, a silent one does not."""

    async def body() -> None:
        async def paced() -> AsyncIterator[bytes]:
            for n in range(4):
                yield b"%d" % n
                await asyncio.sleep(0.03)
            await asyncio.Event().wait()

        async def streams(request: FakeRequest) -> FakeResponse:
            return FakeResponse(body=paced())

        caller, exchange = Caller(), exchange_with(streams)
        relay = Relay(
            exchange, caller.receive, caller.send, limits=LIMITS.override({"idle_ms": 60})
        )
        await relay.wait_head()
        with pytest.raises(WireError):
            await relay.answer(200, [])
        assert relay.timed_out
        assert (caller.body, caller.ended) == (b"0123", False)
        relay.stop()

    run(body)


# --- the answer --------------------------------------------------------------------------------


def test_a_whole_answer_goes_out_in_one_call_where_the_server_takes_one() -> None:
    """The exchange is given back before it is sent."""

    async def body() -> None:
        caller, exchange = Caller(), exchange_with(early)
        got: list[tuple[int, Any, bytes, int]] = []

        def whole(status: int, headers: Any, data: bytes) -> bool:
            got.append((status, headers, data, exchange.released))
            return True

        relay = Relay(exchange, caller.receive, caller.send, limits=LIMITS, whole=whole)
        await relay.wait_head()
        await relay.answer(201, [(b"a", b"b")])
        assert got == [(201, [(b"a", b"b")], b"early", 1)]
        assert (caller.sent, caller.asked) == ([], 0)
        relay.stop()

    run(body)


def test_the_head_of_a_stream_goes_out_at_once() -> None:
    """Also when the guest takes its time with the first chunk."""

    async def body() -> None:
        gate = asyncio.Event()

        async def later() -> AsyncIterator[bytes]:
            await gate.wait()
            yield b"data"

        async def streams(request: FakeRequest) -> FakeResponse:
            return FakeResponse(body=later())

        caller, exchange = Caller(), exchange_with(streams)
        relay = Relay(exchange, caller.receive, caller.send, limits=LIMITS)
        await relay.wait_head()
        answering = asyncio.create_task(relay.answer(200, []))
        await turns()
        assert [m["type"] for m in caller.sent] == ["http.response.start", "http.response.body"]
        assert caller.sent[1] == {"type": "http.response.body", "body": b"", "more_body": True}
        gate.set()
        await answering
        assert (caller.body, caller.ended) == (b"data", True)
        relay.stop()

    run(body)


def test_a_caller_that_leaves_in_mid_stream_ends_the_guests_work() -> None:
    """The stream breaks off on our side, and nothing is sent any more."""

    async def body() -> None:
        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await asyncio.sleep(0)

        async def streams(request: FakeRequest) -> FakeResponse:
            return FakeResponse(body=endless())

        caller, exchange = Caller(), exchange_with(streams)
        relay = Relay(exchange, caller.receive, caller.send, limits=LIMITS)
        await relay.wait_head()
        answering = asyncio.create_task(relay.answer(200, []))
        await turns()
        caller.leaves()
        with pytest.raises(WireError):
            await answering
        assert relay.gone
        assert not caller.ended
        relay.stop()
        assert exchange.released == 0

    run(body)


def test_a_caller_that_leaves_late_ends_nobody_elses_work() -> None:
    """Once the connection was given back it may serve somebody else: it is left alone (A9)."""

    async def body() -> None:
        caller, exchange = Caller(), exchange_with(silent)
        unread, watched = asyncio.Event(), asyncio.Event()

        async def receive() -> Message:
            watched.set()
            return await caller.receive()

        async def stuck(message: Message) -> None:
            await unread.wait()  # a client that reads nothing: the server has no room
            await caller.send(message)

        relay = Relay(exchange, receive, stuck, limits=LIMITS)
        waiting = asyncio.create_task(relay.wait_head())
        await watched.wait()  # the guest is slow: somebody looks whether the caller stays
        exchange.answer(b"late")
        await waiting
        answering = asyncio.create_task(relay.answer(200, []))
        await turns()
        assert (exchange.released, exchange.aborted) == (1, 0)
        caller.leaves()
        await turns()
        assert relay.gone
        unread.set()
        await answering
        relay.stop()
        assert (exchange.released, exchange.aborted) == (1, 0)

    run(body)


def test_no_deadline_ends_what_was_given_back() -> None:
    """A clock that fires after the release finds nothing to end (A9)."""

    async def body() -> None:
        caller, exchange = Caller(), exchange_with(early)
        relay = Relay(exchange, caller.receive, caller.send, limits=LIMITS)
        await relay.wait_head()
        await relay.answer(200, [])
        relay._deadline_s = 0.001  # pyright: ignore[reportPrivateUsage] # long past
        relay._tick()  # pyright: ignore[reportPrivateUsage]
        relay.stop()
        assert (exchange.released, exchange.aborted) == (1, 0)

    run(body)


def test_a_request_can_be_sent_again() -> None:
    """`again` is the same relay over another exchange."""

    async def body() -> None:
        caller, exchange = Caller(), exchange_with(silent)
        relay = Relay(exchange, caller.receive, caller.send, limits=LIMITS)
        relay.stop()
        second = relay.again(exchange_with(early))
        await second.wait_head()
        await second.answer(200, [])
        assert caller.body == b"early"
        second.stop()

    run(body)


def test_an_answer_that_is_not_wanted_is_given_back() -> None:
    """Where it is whole; the rest of a stream is cut off instead."""

    async def body() -> None:
        for handler, length, released in ((early, 0, 1), (mirror, None, 0)):
            caller, exchange = Caller(), exchange_with(handler, length=length)
            relay = Relay(exchange, caller.receive, caller.send, limits=LIMITS)
            await relay.wait_head()
            relay.discard()
            relay.stop()
            relay.stop()
            assert exchange.released == released
            assert (exchange.aborted > 0) is not (released > 0)

    run(body)


def test_a_caller_that_does_not_read_is_cut_off() -> None:
    """A send that takes longer than `idle_ms` ends the stream: nothing is held for ever (A7)."""

    async def body() -> None:
        ended = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x"
            finally:
                ended.set()

        async def streams(request: FakeRequest) -> FakeResponse:
            return FakeResponse(body=endless())

        async def stuck(message: Message) -> None:
            if message.get("body"):
                await asyncio.Event().wait()

        caller, exchange = Caller(), exchange_with(streams)
        relay = Relay(exchange, caller.receive, stuck, limits=LIMITS.override({"idle_ms": 30}))
        await relay.wait_head()
        with pytest.raises(WireError, match="does not read"):
            await relay.answer(200, [])
        assert relay.timed_out
        relay.stop()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # and the task can still wait

    run(body)


def test_a_server_that_stops_is_not_taken_for_a_slow_caller() -> None:
    """A cancellation from outside passes through."""

    async def body() -> None:
        async def streams(request: FakeRequest) -> FakeResponse:
            async def one() -> AsyncIterator[bytes]:
                yield b"x"

            return FakeResponse(body=one())

        async def stuck(message: Message) -> None:
            if message.get("body"):
                await asyncio.Event().wait()

        caller, exchange = Caller(), exchange_with(streams)
        relay = Relay(exchange, caller.receive, stuck, limits=LIMITS)
        await relay.wait_head()
        answering = asyncio.create_task(relay.answer(200, []))
        await turns()
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering
        relay.stop()

    run(body)

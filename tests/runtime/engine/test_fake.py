"""The shipped fake: what is its own, beside the suite that it shares with every engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.runtime.engine.lab import Lab, ask, begin, rest

from amba_runtime.engine.base import Refused, StartFailed
from amba_runtime.engine.fake import FakeEngine, FakeIsolate, FakeRequest, FakeResponse
from amba_runtime.manifest import Bundle
from amba_runtime.outcome import Outcome
from amba_runtime.wire import NothingSentError, WireError


async def hello(request: FakeRequest) -> FakeResponse:
    name = request.header("x-name")
    return FakeResponse(201, [(b"content-length", b"7")], f"hi {name}"[:7].encode())


def lab() -> tuple[Lab, FakeEngine]:
    engine = FakeEngine({"hello": hello})
    return Lab(engine), engine


def test_handlers_are_found_by_name() -> None:
    """A name without a callable fails to start, in the guest's words."""

    async def main() -> None:
        place, engine = lab()
        await engine.open()
        assert engine.name == "fake"
        isolate = await place.serving(Bundle.of(b""), name="hello")
        given = await ask(isolate, headers={"x-name": "Ada"})
        assert (given.status, given.body) == (201, b"hi Ada")
        assert given.all(b"content-length") == [b"7"]  # the guest's own word stands
        assert (await ask(isolate)).body == b"hi None"
        with pytest.raises(StartFailed, match="no fake handler for other"):
            await place.start(Bundle.of(b""), name="other")
        await engine.close()

    asyncio.run(main())


def test_it_has_no_sockets_and_all_events_end_well() -> None:
    """What it cannot do it refuses as a guest would."""

    async def main() -> None:
        place, engine = lab()
        isolate = await place.serving(Bundle.of(b""), name="hello")
        with pytest.raises(Refused) as refused:
            await isolate.socket(b"/", [], [])
        assert refused.value.status == 426
        event = await isolate.scheduled(cron="* * * * *", scheduled_time_ms=0)
        assert (event.outcome, event.result["noRetry"]) == (Outcome.OK, False)
        assert (await isolate.queue(queue="q", messages=[])).outcome is Outcome.OK
        assert isolate.cpu_s() is None
        await engine.close()

    asyncio.run(main())


def test_a_crash_is_told_once() -> None:
    """And what had an exchange before it finds that nothing was taken."""

    async def main() -> None:
        place, engine = lab()
        isolate = await place.serving(Bundle.of(b""), name="hello")
        assert isinstance(isolate, FakeIsolate)
        exchange = await isolate.exchange()
        isolate.crash("on purpose")
        isolate.crash("again")
        assert [ended.reason for ended in place.told.deaths] == ["on purpose"]
        begin(exchange)
        with pytest.raises(NothingSentError):
            await exchange.head()
        await engine.close()

    asyncio.run(main())


def test_a_stream_waits_for_its_reader() -> None:
    """Sixty-four pieces ahead at most, and an abort ends it."""

    async def main() -> None:
        made = 0

        async def endless(request: FakeRequest) -> FakeResponse:
            async def pieces() -> AsyncIterator[bytes]:
                nonlocal made
                while True:
                    made += 1
                    yield b"x"

            return FakeResponse(body=pieces())

        place = Lab(FakeEngine({"endless": endless}))
        isolate = await place.serving(Bundle.of(b""), name="endless")
        exchange = await isolate.exchange()
        begin(exchange)
        await exchange.head()
        assert not exchange.complete
        assert exchange.take() == b""
        for _ in range(200):
            await asyncio.sleep(0)
        assert 60 < made < 70
        assert await exchange.read() == b"x"
        exchange.abort()
        with pytest.raises(WireError):
            await rest(exchange)
        await place.engine.close()

    asyncio.run(main())

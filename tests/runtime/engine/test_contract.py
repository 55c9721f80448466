"""One suite for every engine: what the seam promises, whatever runs behind it.

The guest is tests/guests/streams on a real engine; the fake has the same routes in Python.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.runtime.engine.lab import (
    Lab,
    answer,
    ask,
    begin,
    guest,
    pid_of,
    rest,
    workerd_lab,
)

from amba_runtime.engine.base import Isolate, QueueMessage, Refused, StartFailed
from amba_runtime.engine.fake import FakeEngine, FakeIsolate, FakeRequest, FakeResponse
from amba_runtime.manifest import Bundle
from amba_runtime.outcome import LogLine, Outcome, Tell
from amba_runtime.wire import WireError

# --- the same guest in Python ------------------------------------------------------------------


async def broken_stream() -> AsyncIterator[bytes]:
    yield b"before the fault\n"
    raise RuntimeError("failed in mid-stream")


async def download(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, 65536):
        yield bytes((start + n) % 251 for n in range(min(65536, size - start)))


class FakeStreams:
    """The routes of tests/guests/streams that the suite asks for."""

    def __init__(self) -> None:
        self.isolates: list[FakeIsolate] = []

    async def __call__(self, request: FakeRequest) -> FakeResponse:
        url = urlsplit(request.target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        match url.path:
            case "/text":
                text = (await request.read()).decode()
                return FakeResponse(body=json.dumps({"text": text}).encode())
            case "/echo":
                return FakeResponse(body=request.body)
            case "/head":
                return FakeResponse(headers=[(b"x-seen-method", request.method.encode())])
            case "/status":
                return FakeResponse(status=int(query["code"]))
            case "/set-cookie":
                return FakeResponse(
                    headers=[(b"set-cookie", b"a=1; Path=/"), (b"set-cookie", b"b")]
                )
            case "/throw":
                raise TypeError("thrown on purpose")
            case "/log-mark":
                mark = query["mark"]
                tell = Tell([LogLine("log", [word, mark], 0) for word in ("first", "second")])
                await asyncio.sleep(0)
                return FakeResponse(body=mark.encode(), tell=tell)
            case "/error-mid-stream":
                return FakeResponse(body=broken_stream())
            case "/download":
                return FakeResponse(body=download(int(query["bytes"])))
            case "/never":
                await asyncio.Event().wait()
            case "/wait-until":
                tell = Tell([LogLine("log", ["logged after the response"], 0)])
                id_ = request.header("x-amba-request-id") or ""
                asyncio.get_running_loop().call_soon(self.isolates[0].late, id_, tell)
                return FakeResponse(body=b"answered\n")
            case _:
                pass
        return FakeResponse(404)


# --- the engines -------------------------------------------------------------------------------


class World(Lab):
    """An engine with the guest's isolate; `crash` ends that one as the world might."""

    isolate: Isolate
    cannot_start: tuple[str, str]

    async def crash(self) -> None:
        raise NotImplementedError


class FakeWorld(World):
    def __init__(self) -> None:
        streams = FakeStreams()
        self.fake = FakeEngine({"guest": streams})
        streams.isolates = self.fake.isolates
        super().__init__(self.fake)
        self.cannot_start = ("nobody", "")

    async def crash(self) -> None:
        self.fake.isolates[0].crash()


class WorkerdWorld(World):
    cannot_start = ("guest", "throw new Error('no')")

    async def crash(self) -> None:
        import os
        import signal

        os.kill(pid_of(self.isolate), signal.SIGKILL)


@contextlib.asynccontextmanager
async def fake_world() -> AsyncGenerator[World]:
    world = FakeWorld()
    world.isolate = await world.serving(Bundle.of(b""))
    yield world
    await world.engine.close()


@contextlib.asynccontextmanager
async def workerd_world() -> AsyncGenerator[World]:
    async with workerd_lab() as lab:
        world = WorkerdWorld(lab.engine)
        world.isolate = await world.serving(STREAMS[0])
        yield world


STREAMS: list[Bundle] = []
Body = Callable[[World], Coroutine[Any, Any, None]]
Run = Callable[[Body], None]


@pytest.fixture(params=["fake", pytest.param("workerd", marks=pytest.mark.slow)])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test's body on each engine."""
    if request.param == "workerd" and not STREAMS:
        STREAMS.append(guest("streams"))

    def run_body(body: Body) -> None:
        async def main() -> None:
            opened = fake_world() if request.param == "fake" else workerd_world()
            async with asyncio.timeout(20), opened as world:
                await body(world)

        asyncio.run(main())

    return run_body


# --- the suite ---------------------------------------------------------------------------------


def test_an_isolate_describes_itself(run: Run) -> None:
    """Handlers and the kind of the default export, before any request (contract B)."""

    async def body(world: World) -> None:
        description = await world.isolate.describe()
        assert (description.handlers, description.default) == (("fetch",), "object")
        assert description.startup == Tell()
        assert world.isolate.alive

    run(body)


def test_a_bundle_that_does_not_start_says_why(run: Run) -> None:
    """StartFailed with the guest's own words; nothing is told as a death."""

    async def body(world: World) -> None:
        name, source = world.cannot_start
        with pytest.raises(StartFailed, match="Uncaught Error: no"):
            await (await world.start(source, name=name)).describe()
        assert world.told.deaths == []
        assert (await ask(world.isolate, "/head")).status == 200

    run(body)


def test_a_request_and_its_answer(run: Run) -> None:
    """Method, target, headers and body go in; status, headers and body come out."""

    async def body(world: World) -> None:
        given = await ask(world.isolate, "/text", method="POST", body="zwölf ☕".encode())
        assert json.loads(given.body) == {"text": "zwölf ☕"}
        assert (await ask(world.isolate, "/status?code=418")).status == 418
        cookies = (await ask(world.isolate, "/set-cookie")).all(b"set-cookie")
        assert len(cookies) == 2

    run(body)


def test_a_head_request_has_no_body(run: Run) -> None:
    """HEAD ends with its head, and the exchange can be released."""

    async def body(world: World) -> None:
        for _ in range(2):
            given = await ask(world.isolate, "/head", method="HEAD")
            assert (given.status, given.body) == (200, b"")
            assert given.all(b"x-seen-method") == [b"HEAD"]

    run(body)


def test_a_small_answer_is_complete_at_once(run: Run) -> None:
    """`complete` means that one `take` has it all."""

    async def body(world: World) -> None:
        exchange = await world.isolate.exchange()
        begin(exchange, "/log-mark?mark=abc&ms=0")
        await exchange.head()
        assert exchange.complete
        assert exchange.take() == b"abc"
        exchange.release()

    run(body)


def test_bodies_stream_both_ways(run: Run) -> None:
    """The first piece comes back before the second was sent."""

    async def body(world: World) -> None:
        exchange = await world.isolate.exchange()
        begin(exchange, "/echo", method="POST", length=None)
        exchange.write(b"first")
        await exchange.drain()
        await exchange.head()
        assert await exchange.read() == b"first"
        exchange.write(b"second")
        exchange.end()
        assert await rest(exchange) == b"second"
        exchange.release()

    run(body)


def test_a_big_answer_arrives_whole(run: Run) -> None:
    """2 MiB that the guest makes as they are asked for."""

    async def body(world: World) -> None:
        size = 2 * 1024 * 1024
        given = await ask(world.isolate, f"/download?bytes={size}")
        assert len(given.body) == size
        assert given.body[250:253] == b"\xfa\x00\x01"

    run(body)


def test_many_exchanges_one_after_another(run: Run) -> None:
    """What was released is used again, or not: nobody can tell."""

    async def body(world: World) -> None:
        for n in range(50):
            assert (await ask(world.isolate, f"/log-mark?mark={n}&ms=0")).body == b"%d" % n

    run(body)


def test_console_lines_belong_to_their_invocation(run: Run) -> None:
    """Twenty at once: each answer carries its own lines (engines.md 3)."""

    async def body(world: World) -> None:
        marks = [f"m{n}" for n in range(20)]
        given = await asyncio.gather(
            *[ask(world.isolate, f"/log-mark?mark={mark}&ms=5") for mark in marks]
        )
        for mark, one in zip(marks, given, strict=True):
            assert one.tell is not None
            assert [line.message for line in one.tell.logs] == [["first", mark], ["second", mark]]

    run(body)


def test_a_throw_is_an_answer_of_ours(run: Run) -> None:
    """The shim says `exception` and what was thrown; no Python exception (architecture 3, 10)."""

    async def body(world: World) -> None:
        given = await ask(world.isolate, "/throw")
        assert (given.status, given.threw) == (500, True)
        assert given.tell is not None
        (error,) = given.tell.exceptions
        assert (error.name, error.message) == ("TypeError", "thrown on purpose")

    run(body)


def test_late_lines_have_their_request_id(run: Run) -> None:
    """What `waitUntil` writes after the answer is told under the request's id."""

    async def body(world: World) -> None:
        given = await ask(world.isolate, "/wait-until?ms=10", request_id="r-late")
        assert given.body == b"answered\n"
        lines = await world.told.until(lambda: world.told.lines("r-late"))
        assert lines == [["logged after the response"]]

    run(body)


def test_an_answer_that_breaks_off_is_an_error(run: Run) -> None:
    """What came is read, then WireError: never a short end."""

    async def body(world: World) -> None:
        exchange = await world.isolate.exchange()
        begin(exchange, "/error-mid-stream")
        await exchange.head()
        with pytest.raises(WireError):
            await rest(exchange)
        exchange.abort()
        assert (await ask(world.isolate, "/head")).status == 200

    run(body)


def test_an_abort_ends_one_exchange_only(run: Run) -> None:
    """Its waiting fails with WireError; others go on."""

    async def body(world: World) -> None:
        doomed, other = await world.isolate.exchange(), await world.isolate.exchange()
        begin(doomed, "/never")
        begin(other, "/echo", method="POST", length=4)
        await asyncio.sleep(0)
        doomed.abort()
        with pytest.raises(WireError):
            await doomed.head()
        other.write(b"four")
        other.end()
        assert (await answer(other)).body == b"four"

    run(body)


def test_a_cut_body_never_resolves(run: Run) -> None:
    """A body that is cut makes the guest's reading fail (reliability row A9)."""

    async def body(world: World) -> None:
        exchange = await world.isolate.exchange()
        begin(exchange, "/text", method="POST", length=100)
        exchange.write(b"only this")
        await exchange.drain()
        exchange.cut()
        given = await answer(exchange)
        assert (given.status, given.threw) == (500, True)

    run(body)


def test_an_engine_that_ends_fails_what_is_under_way(run: Run) -> None:
    """WireError for every exchange, one reason told, `alive` gone (reliability row E30)."""

    async def body(world: World) -> None:
        exchanges = [await world.isolate.exchange() for _ in range(3)]
        for exchange in exchanges:
            begin(exchange, "/never")
        await asyncio.sleep(0.02)
        await world.crash()
        for exchange in exchanges:
            with pytest.raises(WireError):
                await exchange.head()
        await world.told.until(lambda: world.told.deaths)
        assert len(world.told.deaths) == 1
        assert not world.isolate.alive
        with pytest.raises(WireError):
            await world.isolate.exchange()
        await world.isolate.close()
        assert len(world.told.deaths) == 1

    run(body)


def test_a_closed_isolate_is_gone_and_nobody_mourns(run: Run) -> None:
    """`close` is idempotent, fails what is under way, and tells no death."""

    async def body(world: World) -> None:
        exchange = await world.isolate.exchange()
        begin(exchange, "/never")
        await world.isolate.close()
        await world.isolate.close()
        with pytest.raises(WireError):
            await exchange.head()
        assert (world.isolate.alive, world.told.deaths) == (False, [])
        with pytest.raises(WireError):
            await world.isolate.exchange()

    run(body)


def test_closing_the_engine_closes_its_isolates(run: Run) -> None:
    """Both are idempotent."""

    async def body(world: World) -> None:
        await world.engine.close()
        await world.engine.close()
        assert not world.isolate.alive
        assert world.told.deaths == []

    run(body)


def test_a_refused_socket_is_the_guests_answer(run: Run) -> None:
    """An ordinary response to a WebSocket request comes as Refused, with status and body."""

    async def body(world: World) -> None:
        with pytest.raises(Refused) as refused:
            await world.isolate.socket(b"/ws-refuse", [(b"host", b"local")], [])
        assert refused.value.status in (403, 426)
        assert refused.value.body

    run(body)


def test_an_event_without_a_handler_is_no_crash(run: Run) -> None:
    """`scheduled` and `queue` come back as values, whatever became of them."""

    async def body(world: World) -> None:
        event = await world.isolate.scheduled(cron="* * * * *", scheduled_time_ms=0)
        assert event.outcome in (Outcome.OK, Outcome.EXCEPTION)
        message = QueueMessage("1", 0, 1, "null")
        event = await world.isolate.queue(queue="q", messages=[message])
        assert event.outcome in (Outcome.OK, Outcome.EXCEPTION)
        assert world.isolate.alive

    run(body)


def test_cpu_time_is_a_number_or_unknown(run: Run) -> None:
    """Seconds that never go back, or None where the system does not say."""

    async def body(world: World) -> None:
        before = world.isolate.cpu_s()
        await ask(world.isolate, "/download?bytes=1000000")
        after = world.isolate.cpu_s()
        if before is None or after is None:
            assert before is after
        else:
            assert 0 <= before <= after < 60

    run(body)


def test_an_idle_exchange_is_one_that_was_released(run: Run) -> None:
    """`idle` gives one without waiting, or None; it is as good as any."""

    async def body(world: World) -> None:
        await ask(world.isolate, "/head")
        exchange = world.isolate.idle()
        if exchange is not None:
            begin(exchange, "/log-mark?mark=again&ms=0")
            assert (await answer(exchange)).body == b"again"

    run(body)


def test_new_values_are_taken_and_work_is_counted(run: Run) -> None:
    """While it lives; one that is gone is a WireError."""

    async def body(world: World) -> None:
        await world.isolate.configure({"KEY": "2"})
        assert await world.isolate.pending() == 0
        await world.isolate.close()
        with pytest.raises(WireError):
            await world.isolate.configure({"KEY": "3"})

    run(body)

"""Limits at work in the data plane: what a caller is told of each, what is told of it, and that
nobody else is hurt. Time, CPU time and memory are in the tests' hands; the engine is the fake.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from amba_router.asgi import App, Message, Scope
from amba_router.dispatch import Dispatcher
from amba_router.hosts import Hosts
from amba_router.identity import Identities
from amba_router.journal import Invocation, Journal, LimitEvent
from amba_router.metrics import Metrics
from amba_router.routes import Project, Projects, Route
from amba_router.signing import Keyring
from amba_runtime import limits, wire
from amba_runtime.clock import ManualClock
from amba_runtime.engine.base import Surroundings
from amba_runtime.engine.fake import (
    FakeEngine,
    FakeHandler,
    FakeIsolate,
    FakeRequest,
    FakeResponse,
)
from amba_runtime.limits import KIB, MIB, FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.message_room import Direction
from amba_runtime.outcome import Breach, Ended, Outcome, Tell
from amba_runtime.slot import Slot
from amba_runtime.supervisor import Watchdog
from amba_runtime.trace import Hop, Trace
from amba_runtime.turnstile import Turnstile
from amba_runtime.wire import Headers

HOST = (b"host", b"local.fn.localhost:8787")
ID = ProjectId("11111111-2222-4333-8444-555555555555")
LOOK_S = limits.WATCH_EVERY_S.value


class Answer:
    """One request under way, and what its caller got."""

    def __init__(self) -> None:
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self.body = b""
        self.whole = False
        self.messages: list[str] = []
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.task: asyncio.Future[None] | None = None

    async def send(self, message: Message) -> None:
        self.messages.append(str(message["type"]))
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.fields = dict(message["headers"])
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")
            self.whole = not message.get("more_body", False)

    async def end(self) -> Answer:
        assert self.task is not None
        await self.task
        return self

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])

    @property
    def seen(self) -> tuple[int, str]:
        return self.status, self.code


class Rig:
    """One function `f` behind a dispatcher, watched and counted as on a node."""

    def __init__(self, engine: FakeEngine, changed: dict[str, int]) -> None:
        self.clock = ManualClock()
        self.engine = engine
        self.told: list[Invocation] = []
        self.breaches: list[LimitEvent] = []
        self.journal = Journal(self.clock)
        self.metrics = Metrics()
        self.journal.listen(self.told.extend, _quiet, self.breaches.append)
        self.journal.listen(self.metrics.batch, self.metrics.late, self.metrics.limit)
        self.watchdog = Watchdog(self.clock)
        self.turnstile = Turnstile(self.clock, waiting=0)
        settings = FunctionLimits.dev().override({"first_byte_ms": 0, **changed})
        self.slot = Slot(
            engine,
            Manifest(ID, FunctionName("f"), 1),
            Bundle.of(b""),
            limits_=settings,
            egress=_nowhere,
            storage=None,
            late=_quiet,
            clock=self.clock,
            breached=self.journal.breach,
            watchdog=self.watchdog,
            gate=self.turnstile.gate(ID, settings.concurrency),
        )
        projects = Projects()
        identities = Identities(ID, session_key=b"k" * 32, clock=self.clock)
        project = Project(ID, "local", Keyring((b"s" * 32,)), identities)
        project.routes[b"f"] = Route(FunctionName("f"), self.slot)
        projects.add(project)
        self.dispatcher = Dispatcher(
            hosts=Hosts(
                suffix="fn.localhost", cdn_suffix="cdn.localhost", platform=frozenset({"localhost"})
            ),
            projects=projects,
            journal=self.journal,
            clock=self.clock,
            platform=_no_plane,
            cdn=_no_plane,
        )

    @property
    def isolate(self) -> FakeIsolate:
        return self.engine.isolates[-1]

    def scope(self, *fields: tuple[bytes, bytes], **more: Any) -> Scope:
        return {
            "type": "http",
            "method": "GET",
            "raw_path": b"/f/x",
            "path": "/f/x",
            "query_string": b"",
            "headers": [HOST, *fields],
            "client": ("127.0.0.9", 5),
            "extensions": {},
            **more,
        }

    def begin(self, *fields: tuple[bytes, bytes], **more: Any) -> Answer:
        answer = Answer()
        if more.get("type") == "websocket":
            answer.incoming.put_nowait({"type": "websocket.connect"})
        answer.task = asyncio.ensure_future(
            self.dispatcher(self.scope(*fields, **more), answer.incoming.get, answer.send)
        )
        return answer

    def offer(self) -> Answer:
        """As the edge does it."""
        answer = Answer()
        scope = self.scope()

        def whole(status: int, headers: Headers, body: bytes) -> bool:
            answer.status, answer.body, answer.whole = status, body, True
            return True

        def promote(app: App) -> None:
            answer.task = asyncio.ensure_future(app(scope, answer.incoming.get, answer.send))

        scope["extensions"]["amba.whole"] = whole
        assert self.dispatcher.offer(scope, whole, promote)
        return answer

    async def spend(self, seconds: float, *, busy: float = 0.0) -> None:
        step_s = LOOK_S / 5
        for _ in range(round(seconds / step_s)):
            isolate = self.isolate
            if isolate.alive:
                isolate.cpu_used_s = (isolate.cpu_used_s or 0.0) + busy * step_s
            await self.clock.advance(step_s)

    def events(self) -> list[tuple[int, Outcome]]:
        self.journal.flush()
        return [(i.status, i.outcome) for i in self.told]

    def actions(self) -> list[tuple[str, str]]:
        return [(e.breach.limit, e.action) for e in self.breaches if e.action != "warned"]


def _quiet(_slot: Slot, _request_id: str, _tell: Tell) -> None:
    """Late lines are another test's."""


async def _nowhere(request: wire.Request) -> wire.Response:
    raise AssertionError("egress was asked")


async def _no_plane(*_: Any) -> None:
    raise AssertionError("another plane was asked")


async def hang(request: FakeRequest) -> FakeResponse:
    if request.header("x-quick") is None:
        await asyncio.Event().wait()
    return FakeResponse(body=b"quick")


async def trickle(request: FakeRequest) -> FakeResponse:
    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    return FakeResponse(body=body())


def on_rig(
    handler: FakeHandler | FakeEngine, test: Callable[[Rig], Awaitable[None]], **changed: int
) -> None:
    async def main() -> None:
        engine = handler if isinstance(handler, FakeEngine) else FakeEngine({"f": handler})
        rig = Rig(engine, changed)
        await rig.slot.start()
        rig.isolate.cpu_used_s = 1.0
        rig.isolate.memory_held = 40 * MIB
        try:
            async with asyncio.timeout(10):
                await test(rig)
            assert rig.slot.inflight == len(rig.slot.invocations) == rig.turnstile.inside == 0
        finally:
            await rig.watchdog.close()
            await rig.slot.retire(drain_s=0)
            await engine.close()
            rig.journal.flush()

    asyncio.run(main())


# CPU, memory, stall


def test_one_that_used_up_its_cpu_time_is_told_so_alone() -> None:
    """503 cpu_limit for it, and its neighbour is served (architecture.md 6; row E5)."""

    async def test(rig: Rig) -> None:
        storm = rig.begin()
        await rig.spend(0.04, busy=1.0)
        neighbour = rig.begin()
        await rig.spend(0.08, busy=1.0)
        assert (await storm.end()).seen == (503, "cpu_limit")
        neighbour.incoming.put_nowait({"type": "http.disconnect"})
        await neighbour.end()
        assert (await rig.begin((b"x-quick", b"")).end()).body == b"quick"
        assert rig.isolate is rig.engine.isolates[0]
        assert rig.events() == [
            (503, Outcome.EXCEEDED_CPU),
            (0, Outcome.CANCELED),
            (200, Outcome.OK),
        ]
        assert rig.actions() == [("cpu_ms", "cut")]
        event = next(e for e in rig.breaches if e.action == "cut")
        assert (event.project, event.function, event.version) == (ID, "f", 1)
        assert event.request_id == rig.told[0].request_id
        assert 'amba_limit_breaches_total{limit="cpu_ms"} 1' in rig.metrics.text()

    on_rig(hang, test, cpu_ms=50)


def test_all_in_flight_are_told_what_ended_their_process() -> None:
    """One event, 503 for each, another isolate at once (row E1; section 4.3 note 11)."""

    async def test(rig: Rig) -> None:
        answers = [rig.begin() for _ in range(3)]
        short = rig.offer()
        rig.isolate.free.clear()
        await rig.spend(0.2, busy=1.0)
        for answer in answers:
            assert (await answer.end()).seen == (503, "cpu_limit")
        assert (await short.end()).seen == (503, "cpu_limit")
        assert rig.actions() == [("cpu_ms", "killed")]
        assert rig.events() == [(503, Outcome.EXCEEDED_CPU)] * 4
        assert "held its thread" in rig.told[0].note
        assert len(rig.engine.isolates) == 2
        assert (await rig.begin((b"x-quick", b"")).end()).status == 200

    on_rig(hang, test, cpu_ms=100)


def test_memory_and_stall_have_answers_of_their_own() -> None:
    """503 memory_limit; 503 with Retry-After for one that stood still (rows E10, E31)."""

    async def test(rig: Rig) -> None:
        answer = rig.begin()
        await rig.spend(LOOK_S)
        rig.isolate.memory_held = 600 * MIB
        await rig.spend(2 * LOOK_S)
        assert (await answer.end()).seen == (503, "memory_limit")
        await rig.spend(LOOK_S)
        answer = rig.begin()
        rig.isolate.free.clear()
        await rig.spend(2.5)
        assert (await answer.end()).seen == (503, "overloaded")
        assert answer.fields[b"retry-after"] == b"1"
        assert "stopped answering" in answer.body.decode()
        assert rig.actions() == [("memory_mib", "killed"), ("stall_ms", "killed")]
        assert rig.events() == [(503, Outcome.EXCEEDED_MEMORY), (503, Outcome.LOAD_SHED)]

    on_rig(hang, test)


def test_an_answer_under_way_breaks_off_for_the_same_reason() -> None:
    """The caller sees no clean end; the event says why (row E30)."""

    async def test(rig: Rig) -> None:
        answer = rig.begin()
        await rig.spend(LOOK_S)
        breach = Breach("memory_mib", 600, 512)
        rig.isolate.kill(Ended(Outcome.EXCEEDED_MEMORY, "out of memory in its group", breach))
        await answer.end()
        assert (answer.status, answer.whole, answer.body) == (200, False, b"first")
        assert rig.events() == [(200, Outcome.EXCEEDED_MEMORY)]
        assert rig.told[0].note == "out of memory in its group"
        assert rig.actions() == [("memory_mib", "killed")]

    on_rig(trickle, test)


# the clocks


def test_so_long_in_all_before_the_answer() -> None:
    """total_ms: 504, and the invocation is ended; the isolate lives (interface.md 4)."""

    async def test(rig: Rig) -> None:
        answer = rig.begin()
        await rig.spend(1.1)
        assert (await answer.end()).seen == (504, "function_timeout")
        assert rig.actions() == [("total_ms", "cut")]
        assert rig.events() == [(504, Outcome.EXCEEDED_WALL_TIME)]
        assert rig.isolate.alive

    on_rig(hang, test, total_ms=1_000)


def test_so_long_in_all_in_mid_answer() -> None:
    """A stream is cut at total_ms, also for a caller who does not read."""

    async def test(rig: Rig) -> None:
        answer = rig.begin()
        deaf = Answer()
        held = asyncio.Event()

        async def send(message: Message) -> None:
            await deaf.send(message)
            if message.get("more_body"):
                await held.wait()

        deaf.task = asyncio.ensure_future(rig.dispatcher(rig.scope(), deaf.incoming.get, send))
        await rig.spend(0.9)
        assert (answer.body, answer.whole) == (b"first", False)
        await rig.spend(0.2)
        await answer.end()
        await deaf.end()
        assert not answer.whole
        assert rig.events() == [(200, Outcome.EXCEEDED_WALL_TIME)] * 2
        assert rig.actions() == [("total_ms", "cut")] * 2

    on_rig(trickle, test, total_ms=1_000)


def test_too_long_until_its_isolate_is_there() -> None:
    """The wait for a start counts: the shorter of total_ms and first_byte_ms ends it."""

    class Slow(FakeEngine):
        held = False

        async def start(
            self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
        ) -> FakeIsolate:
            if self.held:
                await asyncio.Event().wait()
            return await super().start(manifest, bundle, surroundings)

    async def test(rig: Rig) -> None:
        engine.held = True
        await rig.slot.evict()
        assert (await rig.begin().end()).seen == (504, "function_timeout")
        assert rig.actions() == [("total_ms", "cut")]
        assert rig.breaches[-1].breach == Breach("total_ms", 30, 30)

    engine = Slow({"f": hang})
    on_rig(engine, test, total_ms=30, first_byte_ms=50)


def test_one_that_was_ended_before_it_had_a_way() -> None:
    """Its time ran out while its isolate started: what starts is not asked any more."""
    asked: list[str] = []
    ready = asyncio.Event()

    class Late(FakeEngine):
        async def start(
            self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
        ) -> FakeIsolate:
            if self.isolates:
                await ready.wait()
            return await super().start(manifest, bundle, surroundings)

    async def tell(request: FakeRequest) -> FakeResponse:
        await asyncio.sleep(0)
        asked.append(request.target)
        return FakeResponse()

    async def test(rig: Rig) -> None:
        await rig.slot.evict()
        answer = rig.begin()
        await rig.spend(1.1)
        ready.set()
        assert (await answer.end()).seen == (504, "function_timeout")
        assert asked == []
        assert rig.actions() == [("total_ms", "cut")]

    on_rig(Late({"f": tell}), test, total_ms=1_000)


@pytest.mark.parametrize(("handler", "limit"), [(hang, "first_byte_ms"), (trickle, "idle_ms")])
def test_silence_is_told_as_what_it_is(handler: FakeHandler, limit: str) -> None:
    """Each deadline of the relay tells its own name."""

    async def test(rig: Rig) -> None:
        await rig.begin().end()
        assert rig.actions() == [(limit, "cut")]
        assert rig.breaches[-1].breach.used >= rig.breaches[-1].breach.most == 40
        assert rig.events()[0][1] is Outcome.EXCEEDED_WALL_TIME

    on_rig(handler, test, **{limit: 40})


# sizes


def _headed(size: int, count: int = 1) -> FakeHandler:
    """Answers with `count` headers of `size` bytes in all, as they are on the wire."""
    fixed = len(b"content-length: 1\r\n")

    async def handler(request: FakeRequest) -> FakeResponse:
        left = size - fixed - 8 * (count - 1)
        many = [(b"x%03d" % n, b"") for n in range(count - 1)]
        return FakeResponse(200, [(b"a", b"v" * (left - 5)), *many], b"x")

    return handler


@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize(
    ("more", "count", "limit"),
    [
        (-1, 1, ""),
        (0, 1, ""),
        (1, 1, "response_header_kib"),
        (0, 199, ""),
        (0, 200, "response_headers"),
    ],
)
def test_headers_of_an_answer(more: int, count: int, limit: str, short: bool) -> None:
    """At -1, = and +1 byte of response_header_kib, and of 200 headers: 502 over it (2.3)."""

    async def test(rig: Rig) -> None:
        answer = rig.offer() if short else rig.begin()
        await rig.clock.advance(0.0)
        if answer.task is not None:
            await answer.end()
        assert answer.whole
        if not limit:
            assert (answer.status, answer.body) == (200, b"x")
            assert rig.actions() == []
            return
        assert answer.seen == (502, "upstream_failure")
        assert json.loads(answer.body)["error"]["details"]["limit"] == limit
        assert rig.actions() == [(limit, "refused")]
        assert rig.events() == [(502, Outcome.INTERNAL_ERROR)]

    on_rig(_headed(4 * KIB + more, count), test, response_header_kib=4)


def test_a_body_that_is_too_large() -> None:
    """413 by its declared length, or once that much came; one event each."""

    async def test(rig: Rig) -> None:
        declared = rig.begin((b"content-length", b"%d" % (MIB + 1)), method="POST")
        assert (await declared.end()).seen == (413, "PAYLOAD_TOO_LARGE")
        chunked = rig.begin((b"transfer-encoding", b"chunked"), method="POST")
        for more in (True, False):
            chunked.incoming.put_nowait(
                {"type": "http.request", "body": b"x" * MIB, "more_body": more}
            )
        assert (await chunked.end()).seen == (413, "PAYLOAD_TOO_LARGE")
        assert rig.actions() == [("request_body_mib", "refused")] * 2
        assert [e.breach for e in rig.breaches] == [Breach("request_body_mib", 2, 1)] * 2

    on_rig(hang, test, request_body_mib=1)


# traces and turns


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("hop", "breach"),
    [
        (Hop(Trace(3), 2), None),
        (Hop(Trace(4), 3), Breach("trace_depth", 4, 3)),
        (Hop(Trace(limits.TRACE_CALLS.value), 1), None),
        (Hop(Trace(limits.TRACE_CALLS.value + 1), 1), Breach("trace_calls", 1001, 1000)),
    ],
)
def test_functions_that_call_functions(hop: Hop, breach: Breach | None, kind: str) -> None:
    """508 at trace_depth, or when one request has become too many; not invoked (row E29)."""
    asked: list[str] = []

    async def count(request: FakeRequest) -> FakeResponse:
        asked.append(request.target)
        return FakeResponse()

    async def test(rig: Rig) -> None:
        more: dict[str, Any] = {"amba.hop": hop}
        if kind == "websocket":
            extensions: dict[str, Any] = {"websocket.http.response": {}}
            more.update(type=kind, subprotocols=[], extensions=extensions)
        answer = await rig.begin(**more).end()
        if breach is None:
            assert rig.actions() == []
            return
        assert asked == []
        assert [e.breach for e in rig.breaches] == [breach]
        assert rig.actions() == [(breach.limit, "refused")]
        assert rig.events() == [(508, Outcome.CANCELED)]
        if kind == "http":
            assert answer.seen == (508, "loop_detected")

    on_rig(count, test, trace_depth=3)


def test_a_place_in_a_trace_is_found_by_request_id() -> None:
    """While it is in flight, and for a while after (package C asks)."""

    async def test(rig: Rig) -> None:
        deep = Hop(Trace(2), 1)
        answer = rig.begin(**{"amba.hop": deep})
        await rig.clock.advance(0.0)
        (request_id,) = rig.slot.invocations
        assert rig.slot.hop_of(request_id) is deep
        answer.incoming.put_nowait({"type": "http.disconnect"})
        await answer.end()
        assert rig.slot.hop_of(request_id) is deep
        assert rig.slot.hop_of(None) is deep
        await rig.clock.advance(limits.HOP_KEPT_S.value + 1)
        assert rig.slot.hop_of(None) == Hop()

    on_rig(hang, test)


def test_too_many_at_once() -> None:
    """429 concurrency_limit with Retry-After, on either way in; places come back (T20)."""

    async def test(rig: Rig) -> None:
        first = [rig.begin() for _ in range(2)]
        await rig.clock.advance(0.0)
        refused = await rig.begin().end()
        assert refused.seen == (429, "concurrency_limit")
        assert int(refused.fields[b"retry-after"]) >= 1
        assert not rig.dispatcher.offer(rig.scope(), _unused, _unused)
        assert rig.actions() == [("concurrency", "refused")]
        assert rig.events() == [(429, Outcome.LOAD_SHED)]
        for answer in first:
            answer.incoming.put_nowait({"type": "http.disconnect"})
            await answer.end()
        assert (await rig.begin((b"x-quick", b"")).end()).status == 200

    on_rig(hang, test, concurrency=2)


def test_a_full_version_gives_its_turn_back() -> None:
    """The hard bound behind the turnstile: 503, and no place of the node's is lost."""

    async def test(rig: Rig) -> None:
        rig.slot.inflight += limits.INFLIGHT.value
        assert (await rig.begin().end()).seen == (503, "overloaded")
        rig.slot.inflight -= limits.INFLIGHT.value

    on_rig(hang, test)


def _unused(*_: Any) -> Any:
    raise AssertionError("nothing is sent this way")


# WebSockets


class _Talks(FakeEngine):
    """Its guests accept WebSockets and say nothing."""

    def __init__(self) -> None:
        super().__init__({"f": hang})

    async def start(
        self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
    ) -> FakeIsolate:
        isolate = _TalkingIsolate(self.handlers["f"], surroundings)
        self.isolates.append(isolate)
        return isolate


class _Socket:
    """One that stays open."""

    subprotocol: str | None = None
    headers: Headers = []  # noqa: RUF012
    close_code: int | None = None
    close_reason = ""

    def hold_to(self, account: Direction) -> None:
        """Nothing is held."""
        self.account = account

    async def send(self, message: str | bytes) -> None:
        """Never read."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def receive(self) -> str | bytes | None:
        await self.gone.wait()
        return None

    async def close(self, code: int, reason: str) -> None:
        self.close_code = code


class _TalkingIsolate(FakeIsolate):
    socket_: _Socket

    async def socket(self, target: bytes, headers: Headers, subprotocols: Sequence[str]) -> Any:
        self.socket_ = _Socket()
        return self.socket_


def test_a_websocket_may_last_but_not_spin() -> None:
    """No clock but CPU ends it; then it is closed, and its task lives to tell."""

    async def test(rig: Rig) -> None:
        answer = rig.begin(type="websocket", subprotocols=[])
        await rig.spend(3.0, busy=0.1)
        (call,) = rig.slot.invocations.values()
        assert call.lasting
        assert call.begun
        assert answer.messages == ["websocket.accept"]
        await rig.spend(0.3, busy=1.0)
        await answer.end()
        assert answer.messages == ["websocket.accept", "websocket.close"]
        assert rig.events() == [(101, Outcome.EXCEEDED_CPU)]
        assert rig.actions() == [("cpu_ms", "cut")]

    on_rig(_Talks(), test, cpu_ms=100, total_ms=500)


def test_websockets_have_seats_of_their_own() -> None:
    """One too many is told so at once, plain requests go on, and a seat that is left is free
    (T20).
    """

    async def test(rig: Rig) -> None:
        rig.turnstile.seats = 1
        first = rig.begin(type="websocket", subprotocols=[])
        await rig.clock.advance(0.0)
        second = await rig.begin(
            type="websocket", subprotocols=[], extensions={"websocket.http.response": {}}
        ).end()
        assert second.messages == ["websocket.http.response.start", "websocket.http.response.body"]
        assert (await rig.begin((b"x-quick", b"")).end()).status == 200
        assert isinstance(rig.isolate, _TalkingIsolate)
        rig.isolate.socket_.gone.set()
        await first.end()
        assert rig.turnstile.seated == 0
        assert [status for status, _ in rig.events()] == [503, 200, 101]

    on_rig(_Talks(), test)


def test_messages_without_room_are_told_as_a_limit() -> None:
    """The journal hears of the room that was used up, and nothing is held afterwards (T20)."""

    async def test(rig: Rig) -> None:
        answer = rig.begin(type="websocket", subprotocols=[])
        await rig.clock.advance(0.0)
        assert isinstance(rig.isolate, _TalkingIsolate)
        account = rig.isolate.socket_.account
        assert account.hold(MIB)
        assert rig.turnstile.messages.held
        assert not account.hold(limits.WEBSOCKET_ROOM.value * 2)
        rig.isolate.socket_.gone.set()
        await answer.end()
        assert rig.actions() == [("websocket_project_bytes", "cut")]
        assert rig.turnstile.messages.held == 0

    on_rig(_Talks(), test)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_who_leaves_while_waiting_frees_the_place_in_the_queue(kind: str) -> None:
    """Not at its turn but at once; it is told as canceled (K1, K2)."""

    async def test(rig: Rig) -> None:
        rig.turnstile.waiting_most = 9
        first = rig.begin()
        await rig.clock.advance(0.0)
        waiting = rig.begin(**({} if kind == "http" else {"type": kind, "subprotocols": []}))
        await rig.clock.advance(0.0)
        assert len(rig.turnstile.turns) == 1
        waiting.incoming.put_nowait({"type": f"{kind}.disconnect"})
        await waiting.end()
        assert rig.turnstile.turns == {}
        assert waiting.messages == []
        assert rig.events() == [(0, Outcome.CANCELED)]
        first.incoming.put_nowait({"type": "http.disconnect"})
        await first.end()

    on_rig(hang, test, concurrency=1)


def test_what_a_waiting_client_sent_reaches_the_guest() -> None:
    """A body whose first piece was read ahead arrives whole (K2)."""

    async def test(rig: Rig) -> None:
        rig.turnstile.waiting_most = 9
        first = rig.begin()
        await rig.clock.advance(0.0)
        waiting = rig.begin((b"content-length", b"4"), method="POST")
        for body, more in ((b"ab", True), (b"cd", False)):
            message = {"type": "http.request", "body": body, "more_body": more}
            waiting.incoming.put_nowait(message)
        await rig.clock.advance(0.0)
        assert waiting.incoming.qsize() == 1
        first.incoming.put_nowait({"type": "http.disconnect"})
        await first.end()
        assert (await waiting.end()).body == b"abcd"

    async def echo(request: FakeRequest) -> FakeResponse:
        if request.method == "GET":
            return await hang(request)
        return FakeResponse(body=await request.read())

    on_rig(echo, test, concurrency=1)


@pytest.mark.parametrize("rounds", range(8))
def test_a_turn_that_comes_as_its_task_is_called_off_is_given_back(rounds: int) -> None:
    """No place is lost on a request whose server cancels it so many steps after its turn came:
    before it knows, before it is under way, and after (T20).
    """

    async def test(rig: Rig) -> None:
        rig.turnstile.waiting_most = 9
        gate = rig.slot.gate
        assert gate is not None
        assert gate.try_enter()
        waiting = rig.begin()
        await rig.clock.advance(0.0)
        assert gate.waiting == 1
        gate.leave()
        for _ in range(rounds):
            await asyncio.sleep(0)
        assert waiting.task is not None
        waiting.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting.task
        assert rig.turnstile.inside == rig.slot.inflight == 0
        assert rig.slot.invocations == {}

    on_rig(hang, test, concurrency=1)


@pytest.mark.parametrize("places", [1, 2])
def test_a_function_that_waits_for_itself_is_told_soon(places: int) -> None:
    """Where every place is held by a caller of who waits, none can become free: 429 after
    `limits.VAIN_WAIT_S`, not after 5 s (row E29; reliability.md 2.3, concurrency).
    """

    async def test(rig: Rig) -> None:
        rig.turnstile.waiting_most = 9
        outer = [rig.begin() for _ in range(places)]
        await rig.clock.advance(0.0)
        hops = [rig.slot.hop_of(request_id) for request_id in list(rig.slot.invocations)]
        inner = [rig.begin(**{"amba.hop": hop.next()}) for hop in hops]
        await rig.clock.advance(limits.VAIN_WAIT_S.value)
        assert (await inner[-1].end()).seen == (429, "concurrency_limit")
        assert len(rig.turnstile.turns) == places - 1  # the others may hope: one caller goes on
        for answer in (*outer, *inner[:-1]):
            answer.incoming.put_nowait({"type": "http.disconnect"})
            await answer.end()

    on_rig(hang, test, concurrency=places)


def test_a_function_that_calls_itself_after_its_answer_is_not_refused() -> None:
    """`waitUntil(fetch(itself))`, then an answer, with one place: what is asked comes some ms
    before its caller has ended, and has its turn then (row E29).
    """

    async def test(rig: Rig) -> None:
        rig.turnstile.waiting_most = 9
        outer = rig.begin()
        await rig.clock.advance(0.0)
        hop = rig.slot.hop_of(next(iter(rig.slot.invocations)))
        inner = rig.begin((b"x-quick", b""), **{"amba.hop": hop.next()})
        await rig.clock.advance(limits.VAIN_WAIT_S.value / 2)
        outer.incoming.put_nowait({"type": "http.disconnect"})
        await outer.end()
        assert (await inner.end()).body == b"quick"

    on_rig(hang, test, concurrency=1)


def test_a_function_that_may_have_a_place_in_time_waits_for_it() -> None:
    """A caller of who waits holds one place, a stranger the other, who may leave (row E29)."""

    async def test(rig: Rig) -> None:
        rig.turnstile.waiting_most = 9
        outer, stranger = rig.begin(), rig.begin()
        await rig.clock.advance(0.0)
        hop = rig.slot.hop_of(next(iter(rig.slot.invocations)))
        inner = rig.begin((b"x-quick", b""), **{"amba.hop": hop.next()})
        await rig.clock.advance(0.0)
        assert len(rig.turnstile.turns) == 1
        stranger.incoming.put_nowait({"type": "http.disconnect"})
        assert (await inner.end()).body == b"quick"
        for answer in (stranger, outer):
            answer.incoming.put_nowait({"type": "http.disconnect"})
            await answer.end()

    on_rig(hang, test, concurrency=2)


def test_a_websocket_ends_with_its_process() -> None:
    """What ended the isolate is what is told of it, once."""

    async def test(rig: Rig) -> None:
        answer = rig.begin(type="websocket", subprotocols=[])
        await rig.clock.advance(0.0)
        isolate = rig.isolate
        assert isinstance(isolate, _TalkingIsolate)
        breach = Breach("memory_mib", 600, 512)
        isolate.kill(Ended(Outcome.EXCEEDED_MEMORY, "too large", breach))
        isolate.socket_.gone.set()
        await answer.end()
        assert answer.messages[-1] == "websocket.close"
        assert rig.events() == [(101, Outcome.EXCEEDED_MEMORY)]
        assert rig.told[0].note == "too large"

    on_rig(_Talks(), test)


def test_a_websocket_that_is_cancelled_is_cancelled() -> None:
    """Only its own end is taken back: a server that closes ends the task."""

    async def test(rig: Rig) -> None:
        answer = rig.begin(type="websocket", subprotocols=[])
        await rig.clock.advance(0.0)
        assert answer.task is not None
        answer.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer.task

    on_rig(_Talks(), test)


# warnings


def test_a_warning_comes_once_a_minute() -> None:
    """dev warns at four fifths, once per function, limit and minute; metrics count none."""

    async def test(rig: Rig) -> None:
        for _ in range(3):
            rig.slot.breached("", Breach("memory_mib", 410, 512), "warned")
        rig.slot.breached("", Breach("cpu_ms", 81, 100), "warned")
        assert [e.breach.limit for e in rig.breaches] == ["memory_mib", "cpu_ms"]
        await rig.clock.advance(limits.WARN_EVERY_S.value)
        rig.slot.breached("", Breach("memory_mib", 411, 512), "warned")
        assert [e.breach.used for e in rig.breaches] == [410, 81, 411]
        assert "amba_limit_breaches_total{" not in rig.metrics.text()

    on_rig(hang, test)

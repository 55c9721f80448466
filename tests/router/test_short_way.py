"""The short way of the data plane: a request without a body that is answered whole, at once,
has no task of its own; whatever turns out otherwise is promoted to the long way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from amba_router.asgi import App, Message, Scope
from amba_router.dispatch import Dispatcher
from amba_router.hosts import Hosts
from amba_router.identity import Identities
from amba_router.journal import Invocation, Journal
from amba_router.rate_limit import RateCounter, RateLimit
from amba_router.relay import Relay
from amba_router.routes import Project, Projects, Route
from amba_router.signing import Keyring
from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.engine.base import Surroundings
from amba_runtime.engine.fake import (
    FakeEngine,
    FakeExchange,
    FakeIsolate,
    FakeRequest,
    FakeResponse,
)
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.outcome import Outcome
from amba_runtime.pool import Slot
from amba_runtime.wire import Headers, NothingSentError, WireError


def _quiet(*_: Any) -> None:
    """Late lines are another test's."""


HOST = (b"host", b"local.fn.localhost:8787")
ID = ProjectId("11111111-2222-4333-8444-555555555555")


@dataclass(slots=True)
class Caller:
    """One client: what it got, and whether its request took the short way."""

    answers: list[tuple[int, bytes]] = field(default_factory=lambda: list[tuple[int, bytes]]())
    promoted: list[App] = field(default_factory=lambda: list[App]())
    messages: asyncio.Queue[Message] = field(default_factory=asyncio.Queue[Message])
    here: bool = True
    status: int = 0
    body: bytes = b""
    task: asyncio.Future[None] | None = None

    def whole(self, status: int, headers: Headers, body: bytes) -> bool:
        if self.here:
            self.answers.append((status, body))
        return self.here

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message.get("body", b"")
            if not message.get("more_body", False):
                self.answers.append((self.status, self.body))


class Rig:
    """A dispatcher with one function, `f`, on the fake engine."""

    def __init__(self, engine: FakeEngine, slot: Slot) -> None:
        self.engine = engine
        self.slot = slot
        self.told: list[Invocation] = []
        clock = ManualClock()
        journal = Journal()
        journal.listen(self.told.extend, _quiet)
        self.journal = journal
        projects = Projects()
        identities = Identities(ID, session_key=b"k" * 32, clock=clock)
        self.project = Project(ID, "local", Keyring((b"s" * 32,)), identities)
        self.route = Route(FunctionName("f"), slot)
        self.project.routes[b"f"] = self.route
        projects.add(self.project)

        async def nothing(*_: Any) -> None:
            raise AssertionError("another plane was asked")

        self.dispatcher = Dispatcher(
            hosts=Hosts(
                suffix="fn.localhost",
                cdn_suffix="cdn.localhost",
                platform=frozenset({"127.0.0.1"}),
            ),
            projects=projects,
            journal=journal,
            clock=clock,
            platform=nothing,
            cdn=nothing,
        )

    def scope(self, path: bytes = b"/f/x", *fields: tuple[bytes, bytes], **more: Any) -> Scope:
        return {
            "type": "http",
            "method": "GET",
            "raw_path": path,
            "path": path.decode("latin-1"),
            "query_string": b"",
            "headers": [HOST, *fields],
            "client": ("127.0.0.9", 5),
            "extensions": {},
            **more,
        }

    def offer(self, caller: Caller, scope: Scope | None = None) -> bool:
        """As the edge does it; a promoted request runs in a task of its own."""
        scope = scope or self.scope()
        scope["extensions"]["amba.whole"] = caller.whole

        def promote(app: App) -> None:
            caller.promoted.append(app)
            caller.task = asyncio.ensure_future(app(scope, caller.messages.get, caller.send))

        return self.dispatcher.offer(scope, caller.whole, promote)

    def outcomes(self) -> list[tuple[int, Outcome]]:
        self.journal.flush()
        return [(i.status, i.outcome) for i in self.told]


Handler = Callable[[FakeRequest], Awaitable[FakeResponse]]


def on_rig(
    handler: Handler,
    body: Callable[[Rig], Awaitable[None]],
    *,
    engine: FakeEngine | None = None,
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run `body` with a rig whose function is `handler`."""
    own = engine

    async def main() -> None:
        async def nowhere(_: Any) -> Any:
            raise AssertionError("egress was asked")

        engine = own or FakeEngine({"f": handler})
        slot = Slot(
            engine,
            Manifest(ID, FunctionName("f"), 1),
            Bundle.of(b""),
            limits_=FunctionLimits.dev(),
            egress=nowhere,
            storage=None,
            late=_quiet,
            clock=ManualClock(),
        )
        await slot.start()
        rig = Rig(engine, slot)
        try:
            await body(rig)
        finally:
            await slot.retire(drain_s=0)
            await engine.close()
            rig.journal.flush()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


async def hello(request: FakeRequest) -> FakeResponse:
    return FakeResponse(200, [], b"hello " + request.target.encode())


async def until(done: Callable[[], Any]) -> None:
    async with asyncio.timeout(2):
        while not done():  # noqa: ASYNC110  the loop itself is what is waited for
            await asyncio.sleep(0)


def test_a_whole_answer_needs_no_task() -> None:
    """Sent, answered, told, left; nothing was promoted."""

    async def body(rig: Rig) -> None:
        caller = Caller()
        assert rig.offer(caller)
        assert rig.slot.inflight == 1
        await until(lambda: caller.answers)
        assert caller.answers == [(200, b"hello /x")]
        assert caller.promoted == []
        assert rig.slot.inflight == 0
        assert rig.outcomes() == [(200, Outcome.OK)]

    on_rig(hello, body)


def test_the_path_form_takes_it_too() -> None:
    """`/fn/{slug}/{name}` on a bare host is the same function (interface.md 1)."""

    async def body(rig: Rig) -> None:
        caller = Caller()
        scope = rig.scope(b"/fn/local/f/deep//x", query_string=b"a=1")
        scope["headers"] = [(b"host", b"127.0.0.1:1")]
        assert rig.offer(caller, scope)
        await until(lambda: caller.answers)
        assert caller.answers == [(200, b"hello /deep//x?a=1")]

    on_rig(hello, body)


REFUSALS: dict[str, Callable[[Rig], Scope]] = {
    "a body by length": lambda rig: rig.scope(b"/f", (b"content-length", b"1")),
    "a body in chunks": lambda rig: rig.scope(b"/f", (b"transfer-encoding", b"chunked")),
    "odd framing": lambda rig: rig.scope(b"/f", (b"content-length", b"x")),
    "two hosts": lambda rig: rig.scope(b"/f", HOST),
    "no such function": lambda rig: rig.scope(b"/g"),
    "no name": lambda rig: rig.scope(b"/"),
    "the platform": lambda rig: rig.scope(b"/v1", headers=[(b"host", b"127.0.0.1")]),
    "the CDN": lambda rig: rig.scope(b"/k", headers=[(b"host", b"local.cdn.localhost")]),
    "no such project": lambda rig: rig.scope(b"/f", headers=[(b"host", b"other.fn.localhost")]),
    "a foreign host": lambda rig: rig.scope(b"/f", headers=[(b"host", b"example.com")]),
    "no host": lambda rig: rig.scope(b"/f", headers=[]),
    # the path form is the bare host's alone: elsewhere it names a function called `fn`
    "another project by its path": lambda rig: rig.scope(b"/fn/local/f"),
    "a project by a path on a foreign host": lambda rig: rig.scope(
        b"/fn/local/f", headers=[(b"host", b"example.com")]
    ),
    "a project by a path on the CDN": lambda rig: rig.scope(
        b"/fn/local/f", headers=[(b"host", b"local.cdn.localhost")]
    ),
    "a project by a path on no host": lambda rig: rig.scope(
        b"/fn/local/f", headers=[(b"host", b"fn localhost")]
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_needs_more_is_left_to_the_app(what: str) -> None:
    """A body, a refusal, another plane: nothing was done yet."""

    async def body(rig: Rig) -> None:
        assert rig.offer(Caller(), REFUSALS[what](rig)) is False
        assert rig.slot.inflight == 0
        assert rig.outcomes() == []

    on_rig(hello, body)


def test_a_broken_or_full_or_dead_function_is_left_to_the_app() -> None:
    """The long way has the words for it."""

    async def body(rig: Rig) -> None:
        rig.route.broken = ("does not build", b"<p>")
        assert rig.offer(Caller()) is False
        rig.route.broken = None
        rig.slot.inflight = limits.INFLIGHT.value
        assert rig.offer(Caller()) is False
        rig.slot.inflight = 0
        isolate = rig.slot.isolate
        assert isinstance(isolate, FakeIsolate)
        await isolate.close()
        assert rig.offer(Caller()) is False
        rig.route.slot = None
        assert rig.offer(Caller()) is False
        assert rig.slot.inflight == 0

    on_rig(hello, body)


def test_a_stream_is_promoted_where_it_stands() -> None:
    """Its first bytes are not lost; it is answered once."""

    async def stream(_: FakeRequest) -> FakeResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one "
            yield b"two"

        return FakeResponse(200, [], pieces())

    async def body(rig: Rig) -> None:
        caller = Caller()
        assert rig.offer(caller)
        await until(lambda: caller.task is not None and caller.task.done())
        assert caller.answers == [(200, b"one two")]
        assert len(caller.promoted) == 1
        assert rig.slot.inflight == 0
        assert rig.outcomes() == [(200, Outcome.OK)]

    on_rig(stream, body)


def test_an_exception_is_promoted_to_its_envelope() -> None:
    """500 `unhandled_exception`, told once (contract A.7)."""

    async def throw(_: FakeRequest) -> FakeResponse:
        raise ValueError("on purpose")

    async def body(rig: Rig) -> None:
        caller = Caller()
        assert rig.offer(caller)
        await until(lambda: caller.task is not None and caller.task.done())
        [(status, text)] = caller.answers
        assert status == 500
        assert b'"unhandled_exception"' in text
        assert rig.slot.inflight == 0
        assert rig.outcomes() == [(500, Outcome.EXCEPTION)]

    on_rig(throw, body)


def test_silence_is_promoted_and_watched() -> None:
    """After the grace the client is watched: when it leaves, the guest's work ends."""
    cancelled: list[bool] = []

    async def silent(_: FakeRequest) -> FakeResponse:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.append(True)
        return FakeResponse()

    async def body(rig: Rig) -> None:
        caller = Caller()
        assert rig.offer(caller)
        await until(lambda: caller.promoted)
        await caller.messages.put({"type": "http.disconnect"})
        await until(lambda: caller.task is not None and caller.task.done())
        assert cancelled == [True]
        assert caller.answers == []
        assert rig.slot.inflight == 0
        assert rig.outcomes() == [(0, Outcome.CANCELED)]

    on_rig(silent, body)


def test_a_client_that_left_is_told_as_canceled() -> None:
    """The answer came, and nobody was there."""

    async def body(rig: Rig) -> None:
        caller = Caller(here=False)
        assert rig.offer(caller)
        await until(lambda: rig.slot.inflight == 0)
        assert rig.outcomes() == [(0, Outcome.CANCELED)]

    on_rig(hello, body)


def test_an_engine_that_dies_gives_its_status() -> None:
    """502 `upstream_failure` by the long way, once."""

    async def silent(_: FakeRequest) -> FakeResponse:
        await asyncio.get_running_loop().create_future()
        return FakeResponse()

    async def body(rig: Rig) -> None:
        caller = Caller()
        assert rig.offer(caller)
        isolate = rig.slot.isolate
        assert isinstance(isolate, FakeIsolate)
        isolate.crash("it fell over")
        await until(lambda: caller.task is not None and caller.task.done())
        [(status, text)] = caller.answers
        assert (status, b'"upstream_failure"' in text) == (502, True)
        assert rig.slot.inflight == 0
        assert rig.outcomes() == [(502, Outcome.INTERNAL_ERROR)]

    on_rig(silent, body)


def test_a_hundred_at_once_keep_apart() -> None:
    """Each gets its own answer, and none is left waiting."""

    async def body(rig: Rig) -> None:
        callers = [Caller() for _ in range(100)]
        for number, caller in enumerate(callers):
            assert rig.offer(caller, rig.scope(b"/f/%d" % number))
        await until(lambda: all(c.answers for c in callers))
        assert [c.answers for c in callers] == [
            [(200, b"hello /%d" % number)] for number in range(100)
        ]
        assert rig.slot.inflight == 0

    on_rig(hello, body)


def test_a_fault_before_the_head_is_sent_leaves_nothing_behind() -> None:
    """The long way has the words for it; nothing counts as under way (E1)."""

    async def body(rig: Rig) -> None:
        assert rig.offer(Caller(), rig.scope(client=("\udcff", 5))) is False
        assert rig.slot.inflight == 0
        caller = Caller()
        assert rig.offer(caller)
        await until(lambda: caller.answers)
        assert caller.answers == [(200, b"hello /x")]

    on_rig(hello, body)


def test_an_answer_that_cannot_be_sent_is_told_to_its_client() -> None:
    """The fault does not go up into the engine's connection: an app fails with it, once (A.7)."""

    class Deaf(Caller):
        def whole(self, status: int, headers: Headers, body: bytes) -> bool:
            raise RuntimeError("a header holds a line break")

    async def body(rig: Rig) -> None:
        caller = Deaf()
        assert rig.offer(caller)
        await until(lambda: caller.task is not None and caller.task.done())
        assert caller.task is not None
        with pytest.raises(RuntimeError, match="line break"):
            await caller.task
        assert len(caller.promoted) == 1
        assert rig.slot.inflight == 0
        assert rig.outcomes() == [(0, Outcome.INTERNAL_ERROR)]
        other = Caller()
        assert rig.offer(other)
        await until(lambda: other.answers)
        assert rig.slot.inflight == 0

    on_rig(hello, body)


def test_the_first_bytes_deadline_counts_from_the_beginning() -> None:
    """Promotion gives a silent guest no new time: `first_byte_ms` runs since it was asked (A.7)."""

    async def silent(_: FakeRequest) -> FakeResponse:
        await asyncio.get_running_loop().create_future()
        return FakeResponse()

    async def body(rig: Rig) -> None:
        exchange = await rig.slot.exchange()
        exchange.begin(b"GET", b"/", b"", 0)
        caller = Caller()
        relay = Relay(
            exchange,
            caller.messages.get,
            caller.send,
            limits=FunctionLimits.dev().override({"first_byte_ms": 60_000}),
            since_s=asyncio.get_running_loop().time() - 60,
        )
        async with asyncio.timeout(5):
            with pytest.raises(WireError):
                await relay.wait_head()
        assert relay.timed_out
        relay.stop()

    on_rig(silent, body)


def test_a_function_with_a_rate_limit_takes_the_long_way() -> None:
    """Where a request that is one too many can be refused."""

    async def body(rig: Rig) -> None:
        limit = RateLimit("60s", 60, 1, "ip")
        rig.route.counter = RateCounter(limit, scope="p:f", clock=ManualClock())
        assert not rig.offer(Caller())
        assert rig.outcomes() == []

    on_rig(hello, body)


@pytest.mark.parametrize("name", [b"accept", b"g", b"hosts", b"i", b"x-forwarded-host", b"zz"])
def test_only_two_hosts_are_one_too_many(name: bytes) -> None:
    """Other fields come as often as they like, before the host and after it (B10)."""

    async def body(rig: Rig) -> None:
        scope = rig.scope()
        scope["headers"] = [(name, b"1"), (name, b"other.example"), HOST, (name, b"2")]
        caller = Caller()
        assert rig.offer(caller, scope)
        await until(lambda: caller.answers)
        assert caller.answers == [(200, b"hello /x")]

    on_rig(hello, body)


def test_each_answer_shows_that_a_function_gets_on() -> None:
    """The watchdog ends what stands still, and no function that answers: each answer counts,
    whichever way it takes (row E1).
    """

    async def body(rig: Rig) -> None:
        caller = Caller()
        before = rig.slot.answers
        assert rig.offer(caller)
        await until(lambda: len(caller.answers) == 1)
        assert rig.slot.answers == before + 1
        assert rig.offer(caller)
        await until(lambda: len(caller.answers) == 2)
        assert rig.slot.answers == before + 2
        await rig.dispatcher(rig.scope(), caller.messages.get, caller.send)
        assert caller.answers == [(200, b"hello /x")] * 3
        assert rig.slot.answers == before + 3

    on_rig(hello, body)


class _Unread(FakeExchange):
    """Ends without having read the request, as a kept connection may."""

    def begin(self, method: bytes, target: bytes, headers: Any, length: int | None) -> None:
        self.head().set_exception(NothingSentError("unread"))


class _Stale(FakeIsolate):
    """The connection at hand is dead, a new one is well."""

    def idle(self) -> FakeExchange:
        return _Unread(self)


class _StaleEngine(FakeEngine):
    async def start(
        self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
    ) -> FakeIsolate:
        isolate = _Stale(self.handlers[manifest.name], surroundings)
        self.isolates.append(isolate)
        return isolate


def test_a_request_that_was_never_read_is_sent_again() -> None:
    """A connection that was closed meanwhile costs nobody an answer (row H3)."""

    async def body(rig: Rig) -> None:
        caller = Caller()
        assert rig.offer(caller)
        await until(lambda: caller.task is not None and caller.task.done())
        assert caller.answers == [(200, b"hello /x")]
        assert rig.slot.inflight == 0
        assert rig.outcomes() == [(200, Outcome.OK)]

    on_rig(hello, body, engine=_StaleEngine({"f": hello}))


class _HandMoved(asyncio.SelectorEventLoop):
    """A loop whose time stands where it is put, while it is put anywhere."""

    stands_s: float | None = None

    def time(self) -> float:
        return super().time() if self.stands_s is None else self.stands_s


def test_each_has_its_own_time_before_it_is_promoted() -> None:
    """One look promotes those that have waited, and no younger one; the next look promotes that
    (architecture.md 3).
    """

    async def silent(_: FakeRequest) -> FakeResponse:
        await asyncio.get_running_loop().create_future()
        return FakeResponse()

    async def body(rig: Rig) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _HandMoved)
        watch_s = limits.DISCONNECT_WATCH_S.value
        began_s = loop.stands_s = loop.time()

        async def promoted(after: float) -> list[int]:
            loop.stands_s = began_s + after * watch_s
            for _ in range(5):
                await asyncio.sleep(0)
            return [len(caller.promoted) for caller in callers]

        callers = [Caller(), Caller(), Caller()]
        assert rig.offer(callers[0])
        seen = [await promoted(0.5)]
        assert rig.offer(callers[1])
        assert rig.offer(callers[2])
        seen += [await promoted(after) for after in (0.99, 1.01, 1.9, 2.1)]
        loop.stands_s = None
        assert seen == [[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 1]]
        for caller in callers:
            caller.messages.put_nowait({"type": "http.disconnect"})
        await until(lambda: all(c.task is not None and c.task.done() for c in callers))
        assert rig.slot.inflight == 0

    on_rig(silent, body, loop=_HandMoved)

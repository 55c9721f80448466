"""A slot hides its isolate's deaths: it restarts, it rests, it drains, it leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest
from tests.runtime.flying import Invocation

from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.engine.base import Description, StartFailed, Surroundings
from amba_runtime.engine.fake import (
    FakeEngine,
    FakeExchange,
    FakeIsolate,
    FakeRequest,
    FakeResponse,
)
from amba_runtime.errors import InternalCode, InternalError
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.outcome import Ended, LogLine, Outcome, Tell
from amba_runtime.slot import Env, Kept, Overloaded, Resting, Slot
from amba_runtime.turnstile import Turnstile
from amba_runtime.wire import Request, Response, WireError


async def _hello(request: FakeRequest) -> FakeResponse:
    return FakeResponse(body=b"hello")


async def _hang(request: FakeRequest) -> FakeResponse:
    await asyncio.Event().wait()
    return FakeResponse()


async def _nowhere(request: Request) -> Response:
    raise AssertionError("no guest here fetches")


class _Isolate(FakeIsolate):
    """A fake guest that keeps an idle connection, has a CPU clock, and can break on the way."""

    def __init__(self, engine: _Engine, surroundings: Surroundings) -> None:
        super().__init__(engine.handlers["f"], surroundings)
        self.refuses = False
        self.connecting: asyncio.Event | None = None
        self.surroundings = surroundings
        self.closes = 0
        self._engine = engine

    async def close(self) -> None:
        self.closes += 1
        await super().close()

    async def describe(self) -> Description:
        if self._engine.describing is not None:
            await self._engine.describing(self)
        return await super().describe()

    def idle(self) -> FakeExchange | None:
        return FakeExchange(self)

    async def exchange(self, *, fresh: bool = False) -> FakeExchange:
        if self.connecting is not None:
            await self.connecting.wait()
        if self.refuses:
            raise WireError("connection refused")
        return await super().exchange(fresh=fresh)

    def cpu_s(self) -> float | None:
        return 0.25


class _Engine(FakeEngine):
    """Fails to start as told by `failure`; waits at `gate`; runs `describing` in `describe`."""

    def __init__(self) -> None:
        super().__init__({"f": _hello})
        self.made: list[_Isolate] = []
        self.manifests: list[Manifest] = []
        self.bundles: list[Bundle] = []
        self.failure: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.describing: Callable[[_Isolate], Awaitable[None]] | None = None

    async def start(
        self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
    ) -> _Isolate:
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        isolate = _Isolate(self, surroundings)
        self.made.append(isolate)
        self.manifests.append(manifest)
        self.bundles.append(bundle)
        return isolate

    @property
    def running(self) -> int:
        return sum(isolate.alive for isolate in self.made)


class _Stage:
    """A slot on a fake engine, with time in hand."""

    def __init__(self, *, storage: bool = True, kept: Kept | None = None) -> None:
        self.clock = ManualClock()
        self.engine = _Engine()
        self.told: list[tuple[Slot, str, Tell]] = []
        self.slot = Slot(
            self.engine,
            Manifest(ProjectId("p"), FunctionName("f"), 1, storage=storage),
            None if kept else Bundle.of(b"export default {}"),
            limits_=FunctionLimits.dev(),
            egress=_nowhere,
            storage=_nowhere,
            database=_nowhere,
            late=lambda slot, label, tell: self.told.append((slot, label, tell)),
            clock=self.clock,
            kept=kept,
        )

    async def started(self) -> _Stage:
        await self.slot.start()
        return self

    async def settle(self) -> None:
        await self.clock.advance(0.0)

    async def ask(self) -> bytes:
        exchange = await self.slot.exchange()
        exchange.begin(b"GET", b"/", b"", 0)
        await exchange.head()
        body = exchange.take()
        exchange.release()
        return body

    async def crash(self) -> None:
        self.engine.made[-1].crash()
        await self.settle()

    async def crash_until_it_rests(self, wait_s: float) -> None:
        """End it again and again until the next start is `wait_s` away."""
        expected = 0.0
        while True:
            await self.crash()
            if expected >= wait_s:
                return
            await self.clock.advance(expected)
            expected = max(limits.RESTART_WAIT_S.value, expected * 2)


# --- starting ---


def test_a_started_slot_knows_what_it_runs_and_serves() -> None:
    """`start` returns the description; what the start cost is no invocation's CPU."""

    async def run() -> None:
        stage = _Stage()
        assert stage.slot.isolate is None
        assert stage.slot.idle() is None
        description = await stage.slot.start()
        assert stage.slot.description is description
        assert description.handlers == ("fetch",)
        assert stage.slot.isolate is stage.engine.made[0]
        assert stage.slot.cpu_seen_s == 0.25
        assert await stage.ask() == b"hello"
        assert stage.slot.idle() is not None
        await stage.slot.retire()

    asyncio.run(run())


def test_an_engine_that_refuses_a_bundle_leaves_nothing() -> None:
    """StartFailed passes through with the guest's own words (architecture.md 4, step 7)."""

    async def run() -> None:
        stage = _Stage()
        stage.engine.failure = StartFailed("Uncaught Error: no key", "at worker.js")
        with pytest.raises(StartFailed, match="no key"):
            await stage.slot.start()
        assert (stage.engine.made, stage.slot.isolate) == ([], None)
        await stage.slot.retire()

    asyncio.run(run())


def test_a_top_level_that_throws_leaves_nothing_running() -> None:
    """The isolate whose describing failed is closed, and its death starts no other one."""

    async def run() -> None:
        async def throws(isolate: _Isolate) -> None:
            isolate.crash("engine process 7 ended")
            raise StartFailed("Uncaught Error: no key")

        stage = _Stage()
        stage.engine.describing = throws
        with pytest.raises(StartFailed, match="no key"):
            await stage.slot.start()
        await stage.clock.advance(3600.0)
        assert (len(stage.engine.made), stage.engine.running) == (1, 0)
        with pytest.raises(WireError, match="retired"):
            await stage.slot.exchange()
        assert stage.engine.running == 0

    asyncio.run(run())


def test_a_start_that_is_given_up_leaves_nothing_running() -> None:
    """Cancelled while it describes itself: the isolate is closed all the same."""

    async def run() -> None:
        async def never(isolate: _Isolate) -> None:
            await asyncio.Event().wait()

        stage = _Stage()
        stage.engine.describing = never
        task = asyncio.create_task(stage.slot.start())
        await stage.settle()
        assert stage.engine.running == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stage.engine.running == 0

    asyncio.run(run())


@pytest.mark.parametrize("declared", [True, False])
def test_storage_is_given_where_the_manifest_declares_it(declared: bool) -> None:
    """A capability comes only as a binding: none declared, none behind it (style.md, env)."""

    async def run() -> None:
        stage = await _Stage(storage=declared).started()
        surroundings = stage.engine.made[0].surroundings
        assert (surroundings.storage is not None) is declared
        assert surroundings.egress is _nowhere
        assert surroundings.database is _nowhere  # every function has it
        await stage.slot.retire()

    asyncio.run(run())


def test_late_lines_are_told_with_their_slot() -> None:
    """What a guest says after its answer goes on with the request's id, unchanged."""

    async def run() -> None:
        stage = await _Stage().started()
        tell = Tell([LogLine("log", ["later"], 1)])
        stage.engine.made[0].late("id-1", tell)
        assert stage.told == [(stage.slot, "id-1", tell)]
        await stage.crash()
        stage.engine.made[1].late("id-2", tell)
        assert stage.told[1:] == [(stage.slot, "id-2", tell)]
        await stage.slot.retire()

    asyncio.run(run())


# --- how many at once ---


def test_requests_under_way_are_counted_and_bounded() -> None:
    """limits.INFLIGHT enter, the next is Overloaded and not counted; one leaves, one enters."""

    async def run() -> None:
        slot = _Stage().slot
        for _ in range(limits.INFLIGHT.value):
            slot.enter()
        for _ in range(2):
            with pytest.raises(Overloaded):
                slot.enter()
        assert slot.inflight == limits.INFLIGHT.value
        slot.leave()
        slot.enter()
        with pytest.raises(Overloaded):
            slot.enter()

    asyncio.run(run())


# --- ends and restarts ---


def test_a_crash_breaks_its_requests_and_the_next_is_served() -> None:
    """The first restart waits for nothing and for nobody's request (reliability.md E32)."""

    async def run() -> None:
        stage = await _Stage().started()
        stage.engine.made[0].handler = _hang
        exchange = await stage.slot.exchange()
        exchange.begin(b"GET", b"/", b"", 0)
        await stage.settle()
        stage.engine.made[0].crash("engine process 7 ended (signal 9)")
        with pytest.raises(WireError, match="signal 9"):
            await exchange.head()
        assert stage.slot.idle() is None
        ended = await stage.slot.cause()
        assert ended == Ended(Outcome.INTERNAL_ERROR, "engine process 7 ended (signal 9)")
        await stage.settle()
        assert stage.slot.isolate is stage.engine.made[1]
        assert stage.slot.cpu_seen_s == 0.25
        assert await stage.ask() == b"hello"
        assert stage.engine.running == 1
        await stage.slot.retire()

    asyncio.run(run())


def test_the_cause_of_a_death_that_did_not_happen_is_empty() -> None:
    """A connection broke and the engine lives: after a moment there is no reason to tell."""

    async def run() -> None:
        stage = await _Stage().started()
        assert await stage.slot.cause() is None
        await stage.slot.retire()

    asyncio.run(run())


def test_requests_during_a_restart_share_it() -> None:
    """Ten that come while it restarts are served by one new isolate, after its wait."""

    async def run() -> None:
        stage = await _Stage().started()
        await stage.crash()
        await stage.crash()
        waiting = [asyncio.create_task(stage.ask()) for _ in range(10)]
        await stage.clock.advance(0.099)
        assert not any(task.done() for task in waiting)
        await stage.clock.advance(0.001)
        assert list(await asyncio.gather(*waiting)) == [b"hello"] * 10
        assert len(stage.engine.made) == 3
        await stage.slot.retire()

    asyncio.run(run())


def test_a_request_that_is_given_up_does_not_stop_the_restart() -> None:
    """Its cancellation is its own; the others still get the isolate."""

    async def run() -> None:
        stage = await _Stage().started()
        await stage.crash()
        await stage.crash()
        gone, stays = (asyncio.create_task(stage.ask()) for _ in range(2))
        await stage.settle()
        gone.cancel()
        await stage.clock.advance(0.1)
        assert gone.cancelled()
        assert await stays == b"hello"
        await stage.slot.retire()

    asyncio.run(run())


@pytest.mark.parametrize("how", ["closed", "refuses"])
def test_an_end_that_nobody_told_is_found_by_the_next_request(how: str) -> None:
    """Nothing was sent yet, so another isolate takes the request, and the old one is closed."""

    async def run() -> None:
        stage = await _Stage().started()
        if how == "closed":
            await stage.engine.made[0].close()
        else:
            stage.engine.made[0].refuses = True
        assert await stage.ask() == b"hello"
        assert (len(stage.engine.made), stage.engine.running) == (2, 1)
        await stage.slot.retire()

    asyncio.run(run())


def test_two_that_find_the_same_end_start_one() -> None:
    """They share the restart."""

    async def run() -> None:
        stage = await _Stage().started()
        stage.engine.made[0].refuses = True
        assert list(await asyncio.gather(stage.ask(), stage.ask())) == [b"hello"] * 2
        assert len(stage.engine.made) == 2
        await stage.slot.retire()

    asyncio.run(run())


def test_one_that_was_connecting_when_it_ended_takes_the_new_one() -> None:
    """It was revived meanwhile: the late comer starts no third, and ends no healthy one."""

    async def run() -> None:
        stage = await _Stage().started()
        first = stage.engine.made[0]
        first.connecting, first.refuses = asyncio.Event(), True
        asked = asyncio.create_task(stage.ask())
        await stage.settle()
        await stage.crash()
        first.connecting.set()
        assert await asked == b"hello"
        assert (len(stage.engine.made), stage.engine.running) == (2, 1)
        await stage.slot.retire()

    asyncio.run(run())


FAILURES = [
    StartFailed("Uncaught Error: no key"),
    InternalError(InternalCode.ENGINE_START, "no key"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=["guest", "engine"])
def test_a_failed_restart_is_told_to_the_next_request_and_tried_again(failure: Exception) -> None:
    """A WireError with the reason, ever later, until it starts again (reliability.md E32)."""

    async def run() -> None:
        stage = await _Stage().started()
        stage.engine.failure = failure
        await stage.crash()
        assert stage.slot.isolate is None
        for wait_s in (0.1, 0.2):
            asked = asyncio.create_task(stage.ask())
            await stage.clock.advance(wait_s * 0.99)
            assert not asked.done()
            await stage.clock.advance(wait_s * 0.01)
            with pytest.raises(WireError, match=r"does not start any more: .*no key"):
                await asked
        stage.engine.failure = None
        asked = asyncio.create_task(stage.ask())
        await stage.clock.advance(0.4)
        assert await asked == b"hello"
        await stage.slot.retire()

    asyncio.run(run())


def test_a_restart_that_does_not_describe_itself_is_closed() -> None:
    """Half a restart leaves no process behind."""

    async def run() -> None:
        async def throws(isolate: _Isolate) -> None:
            raise StartFailed("Uncaught Error: flaky")

        stage = await _Stage().started()
        stage.engine.describing = throws
        await stage.crash()
        assert (len(stage.engine.made), stage.engine.running) == (2, 0)
        assert stage.slot.isolate is None
        await stage.slot.retire()

    asyncio.run(run())


def test_a_request_does_not_wait_for_a_long_rest() -> None:
    """Beyond limits.RESTART_PATIENCE_S it is Resting, in whole seconds; then it serves (E32)."""

    async def run() -> None:
        stage = await _Stage().started()
        await stage.crash_until_it_rests(1.6)
        made = len(stage.engine.made)
        with pytest.raises(Resting, match="starts again in 2 s") as caught:
            await stage.ask()
        assert caught.value.retry_after_s == 2
        await stage.clock.advance(0.6)
        asked = asyncio.create_task(stage.ask())  # one second is left: this one may wait
        await stage.clock.advance(1.0)
        assert await asked == b"hello"
        assert len(stage.engine.made) == made + 1
        await stage.slot.retire()

    asyncio.run(run())


# --- the end ---


def test_what_is_left_of_a_crashed_one_is_put_away_before_its_rest() -> None:
    """Its sockets are files of ours: a thousand that crash and rest would hold them all (E32)."""

    async def run() -> None:
        stage = await _Stage().started()
        await stage.crash_until_it_rests(1.6)
        assert stage.slot.isolate is None
        assert [isolate.closes for isolate in stage.engine.made] == [1] * len(stage.engine.made)
        await stage.slot.retire()

    asyncio.run(run())


def test_retiring_waits_for_what_is_under_way_and_closes() -> None:
    """Drained by the last `leave`, not before it (architecture.md 4, step 10)."""

    async def run() -> None:
        stage = await _Stage().started()
        stage.slot.enter()
        stage.slot.enter()
        retiring = asyncio.create_task(stage.slot.retire())
        await stage.settle()
        assert await stage.ask() == b"hello"  # a request that had entered still gets its isolate
        stage.slot.leave()
        await stage.settle()
        assert (retiring.done(), stage.engine.running) == (False, 1)
        stage.slot.leave()
        await retiring
        assert (stage.engine.running, stage.slot.isolate) == (0, None)

    asyncio.run(run())


def test_draining_is_bounded() -> None:
    """What is under way after `drain_s` is cut off."""

    async def run() -> None:
        stage = await _Stage().started()
        stage.engine.made[0].handler = _hang
        stage.slot.enter()
        exchange = await stage.slot.exchange()
        exchange.begin(b"GET", b"/", b"", 0)
        await stage.slot.retire(drain_s=0.01)
        with pytest.raises(WireError, match="stopped"):
            await exchange.head()
        assert stage.engine.running == 0

    asyncio.run(run())


def test_a_version_that_never_served_is_discarded_at_once() -> None:
    """No drain, whatever is counted; afterwards nothing is served and nothing restarts."""

    async def run() -> None:
        stage = await _Stage().started()
        stage.slot.enter()
        await stage.slot.retire(drain_s=0)
        assert (stage.engine.running, stage.slot.idle()) == (0, None)
        with pytest.raises(WireError, match="retired"):
            await stage.slot.exchange()
        assert len(stage.engine.made) == 1
        stage.slot.leave()
        await stage.slot.retire()

    asyncio.run(run())


def test_retiring_twice_is_retiring_once() -> None:
    """Both that wait for the drain end with the last request, neither at its deadline."""

    async def run() -> None:
        stage = await _Stage().started()
        stage.slot.enter()
        both = [asyncio.create_task(stage.slot.retire(drain_s=50.0)) for _ in range(2)]
        await stage.settle()
        stage.slot.leave()
        await stage.settle()
        assert [task.done() for task in both] == [True, True]
        await stage.slot.retire()
        assert stage.engine.running == 0

    asyncio.run(run())


def test_a_retired_isolate_that_crashes_stays_down() -> None:
    """A crash during the drain breaks its requests and starts nothing."""

    async def run() -> None:
        stage = await _Stage().started()
        stage.slot.enter()
        retiring = asyncio.create_task(stage.slot.retire())
        await stage.settle()
        await stage.crash()
        with pytest.raises(WireError, match="retired"):
            await stage.slot.exchange()
        stage.slot.leave()
        await retiring
        assert (len(stage.engine.made), stage.engine.running) == (1, 0)

    asyncio.run(run())


def test_an_isolate_that_refuses_is_not_replaced_once_retired() -> None:
    """The engine's own words pass through; no other one is started for a retired version."""

    async def run() -> None:
        stage = await _Stage().started()
        stage.engine.made[0].refuses = True
        stage.slot.enter()
        retiring = asyncio.create_task(stage.slot.retire())
        await stage.settle()
        with pytest.raises(WireError, match="connection refused"):
            await stage.slot.exchange()
        stage.slot.leave()
        await retiring
        assert (len(stage.engine.made), stage.engine.running) == (1, 0)

    asyncio.run(run())


@pytest.mark.parametrize("at", ["rest", "start", "describe"])
def test_retiring_while_it_restarts_ends_the_restart(at: str) -> None:
    """Wherever the restart is, it ends, its process too; who waits for it hears so."""

    async def run() -> None:
        async def never(isolate: _Isolate) -> None:
            await asyncio.Event().wait()

        stage = await _Stage().started()
        await stage.crash()
        if at == "start":
            stage.engine.gate = asyncio.Event()
        elif at == "describe":
            stage.engine.describing = never
        await stage.crash()
        if at != "rest":
            await stage.clock.advance(0.1)
        asked = asyncio.create_task(stage.ask())
        await stage.settle()
        await stage.slot.retire()
        with pytest.raises(WireError, match="retired"):
            await asked
        await stage.clock.advance(3600.0)
        assert stage.engine.running == 0
        assert len(stage.engine.made) == (3 if at == "describe" else 2)

    asyncio.run(run())


# --- dormant ---


class _Shelf:
    """Where a version's content lies; it may fail to be read, or take its time."""

    def __init__(self, **env: str) -> None:
        self.content = Bundle.of(b"export default { fetch() {} }")
        self.values = env
        self.reads = 0
        self.failure: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def bundle(self) -> Bundle:
        self.reads += 1
        if self.failure is not None:
            raise self.failure
        return self.content

    async def env(self) -> Env:
        values = tuple(self.values.items())
        if self.gate is not None:
            await self.gate.wait()
        return values


def test_a_dormant_version_starts_with_its_first_requests() -> None:
    """Ten that come at once share one start, and it is no failure to back off from."""

    async def run() -> None:
        shelf = _Shelf(KEY="1")
        stage = _Stage(kept=shelf)
        assert (stage.slot.idle(), stage.slot.awake, stage.slot.isolate) == (None, False, None)
        answers = await asyncio.gather(*[stage.ask() for _ in range(10)])
        assert answers == [b"hello"] * 10
        assert (len(stage.engine.made), shelf.reads) == (1, 1)
        assert stage.engine.manifests[0].env == (("KEY", "1"),)
        assert stage.engine.bundles == [shelf.content]
        assert (stage.slot.bundle, stage.slot.manifest.env) == (None, ())
        assert stage.slot.description is not None
        await stage.slot.retire()

    asyncio.run(run())


FAULTS = [
    *FAILURES,
    InternalError(InternalCode.BLOB_DAMAGED, "no key"),
    OSError("no key"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_dormant_version_that_does_not_start_says_why_and_rests(fault: Exception) -> None:
    """A reason for the log, then longer and longer waits, as after a crash (reliability E32)."""

    async def run() -> None:
        shelf = _Shelf()
        stage = _Stage(kept=shelf)
        shelf.failure = fault
        for wait_s in (0.0, 0.0, 0.1, 0.2, 0.4, 0.8):
            asked = asyncio.create_task(stage.ask())
            await stage.clock.advance(wait_s)
            with pytest.raises(WireError, match=r"does not start any more: .*no key"):
                await asked
        with pytest.raises(Resting):
            await stage.ask()
        shelf.failure = None
        await stage.clock.advance(1.6)
        assert await stage.ask() == b"hello"
        await stage.slot.retire()

    asyncio.run(run())


def test_an_evicted_one_comes_back_and_nothing_is_held() -> None:
    """The next request starts another, at once: to be evicted is no crash."""

    async def run() -> None:
        stage = _Stage(kept=_Shelf())
        for lives in range(1, 6):
            assert await stage.ask() == b"hello"
            assert len(stage.engine.made) == lives
            await stage.slot.evict()
            assert (stage.slot.isolate, stage.engine.running) == (None, 0)
        await stage.slot.evict()
        await stage.slot.retire()

    asyncio.run(run())


@pytest.mark.parametrize("end", ["evict", "retire", "crash"])
def test_names_of_invocations_are_known_while_their_isolate_lives(end: str) -> None:
    """In flight and after: what `waitUntil` sends is theirs; then they are nobody's (row E17)."""

    async def main() -> None:
        stage = await _Stage().started()
        slot, call = stage.slot, Invocation("r-1")
        assert slot.callers.believed("r-1") is None
        assert slot.try_enter(call)
        assert slot.callers.believed("r-1") == "r-1"
        slot.leave(call)
        assert slot.callers.believed("r-1") == "r-1"
        if end == "evict":
            await slot.evict()
        elif end == "crash":
            await stage.crash()
            assert stage.engine.running == 1
        else:
            await slot.retire(drain_s=0)
        assert slot.callers.believed("r-1") is None
        await slot.retire(drain_s=0)

    asyncio.run(main())


def test_what_is_under_way_is_not_evicted() -> None:
    """Nor is what asked for it while it was being looked at."""

    async def run() -> None:
        stage = _Stage(kept=_Shelf())
        await stage.ask()
        stage.slot.enter()
        assert await stage.slot.working()
        await stage.slot.evict()
        assert stage.engine.running == 1
        stage.slot.leave()
        assert not await stage.slot.working()
        stage.engine.made[0].waiting = 1
        assert await stage.slot.working()
        await stage.slot.retire(drain_s=0)

    asyncio.run(run())


class _Silent(_Isolate):
    """Holds its thread: it answers nobody, or fails to."""

    failure: Exception | None = None

    async def pending(self) -> int:
        if self.failure is not None:
            raise self.failure
        await asyncio.Event().wait()
        return 0


def _silenced(stage: _Stage) -> _Silent:
    isolate = stage.engine.made[0]
    isolate.__class__ = _Silent
    assert isinstance(isolate, _Silent)
    return isolate


def test_an_isolate_that_does_not_say_whether_it_works_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not evicted. One that is gone is no work."""
    _shorten(monkeypatch)

    async def run() -> None:
        stage = _Stage(kept=_Shelf())
        await stage.ask()
        isolate = _silenced(stage)
        assert await stage.slot.working()
        isolate.failure = WireError("gone")
        assert not await stage.slot.working()
        await stage.slot.retire(drain_s=0)

    asyncio.run(run())


def test_an_isolate_that_says_nothing_is_not_waited_for_as_work_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A loop without end in a version that was replaced does not burn on for a whole drain."""
    _shorten(monkeypatch)

    async def run() -> None:
        stage = await _Stage().started()
        isolate = _silenced(stage)
        retiring = asyncio.create_task(stage.slot.retire())
        async with asyncio.timeout(5):
            while not retiring.done():
                await stage.clock.advance(limits.PENDING_EVERY_S.value)
        assert not isolate.alive

    asyncio.run(run())


def _shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loop itself measures, a clock of ours cannot move."""
    monkeypatch.setattr(limits, "PENDING_S", limits.Deadline(0.001, "a test's", "ours"))


def test_a_version_once_stored_is_held_no_more() -> None:
    """After `keep_in` its bytes and secrets are read from there at each start."""

    async def run() -> None:
        stage = await _Stage().started()
        shelf = _Shelf(KEY="2")
        stage.slot.keep_in(shelf)
        assert (stage.slot.bundle, shelf.reads) == (None, 0)
        await stage.crash()
        assert await stage.ask() == b"hello"
        assert shelf.reads == 1
        assert stage.engine.manifests[1].env == (("KEY", "2"),)
        await stage.slot.retire()

    asyncio.run(run())


def test_a_retired_start_is_given_up() -> None:
    """A dormant version that is replaced while it starts leaves nothing running."""

    async def run() -> None:
        stage = _Stage(kept=_Shelf())
        stage.engine.gate = asyncio.Event()
        asked = asyncio.create_task(stage.ask())
        await stage.settle()
        assert stage.slot.awake
        await stage.slot.retire(drain_s=0)
        with pytest.raises(WireError, match="retired"):
            await asked
        assert stage.engine.made == []

    asyncio.run(run())


# --- new values of its bindings ---


def test_new_values_reach_the_isolate_that_runs() -> None:
    """Only those that were named, as the store has them by now (contract C.2)."""

    async def run() -> None:
        shelf = _Shelf(KEY="1", OTHER="x")
        stage = _Stage(kept=shelf)
        await stage.slot.refresh(("KEY",))
        assert stage.engine.made == []
        await stage.ask()
        shelf.values = {"KEY": "2", "OTHER": "y"}
        await stage.slot.refresh(("KEY", "GONE"))
        assert stage.engine.made[0].env == {"KEY": "2"}
        await stage.slot.refresh(("GONE",))
        await stage.slot.retire()

    asyncio.run(run())


def test_one_that_starts_meanwhile_has_the_new_values_too() -> None:
    """It may have read the old ones just before they changed."""

    async def run() -> None:
        shelf = _Shelf(KEY="1")
        stage = _Stage(kept=shelf)
        stage.engine.gate = asyncio.Event()
        asked = asyncio.create_task(stage.ask())
        await stage.settle()
        shelf.values = {"KEY": "2"}
        told = asyncio.create_task(stage.slot.refresh(("KEY",)))
        await stage.settle()
        assert not told.done()
        stage.engine.gate.set()
        await asyncio.gather(asked, told)
        assert stage.engine.made[0].env == {"KEY": "2"}
        await stage.slot.retire()

    asyncio.run(run())


def test_two_changes_arrive_in_their_order() -> None:
    """The second is read and told after the first, however long that takes."""

    async def run() -> None:
        shelf = _Shelf(KEY="1")
        stage = _Stage(kept=shelf)
        await stage.ask()
        shelf.gate = asyncio.Event()
        first = asyncio.create_task(stage.slot.refresh(("KEY",)))
        await stage.settle()
        shelf.values = {"KEY": "2"}
        second = asyncio.create_task(stage.slot.refresh(("KEY",)))
        await stage.settle()
        shelf.gate.set()
        await asyncio.gather(first, second)
        assert stage.engine.made[0].env == {"KEY": "2"}
        await stage.slot.retire()

    asyncio.run(run())


class _Deaf(_Isolate):
    dies = False

    async def configure(self, values: Mapping[str, str]) -> None:
        if self.dies:
            self.crash()
        raise WireError("it did not listen")


@pytest.mark.parametrize("dies", [True, False])
def test_one_that_cannot_be_told_is_an_error_unless_it_ended(dies: bool) -> None:
    """A dead one starts again with what the store has: nothing is left to tell."""

    async def run() -> None:
        shelf = _Shelf(KEY="1")
        stage = _Stage(kept=shelf)
        await stage.ask()
        isolate = stage.engine.made[0]
        isolate.__class__ = _Deaf
        assert isinstance(isolate, _Deaf)
        isolate.dies = dies
        if dies:
            await stage.slot.refresh(("KEY",))
        else:
            with pytest.raises(WireError, match="did not listen"):
                await stage.slot.refresh(("KEY",))
        await stage.slot.retire(drain_s=0)

    asyncio.run(run())


def test_a_version_without_a_store_has_the_values_it_was_given() -> None:
    """In dev a changed secret is another version."""

    async def run() -> None:
        stage = await _Stage().started()
        await stage.slot.refresh(("KEY",))
        assert stage.engine.made[0].env == {}
        await stage.slot.retire()

    asyncio.run(run())


def test_a_start_without_content_is_our_fault() -> None:
    """No bundle and nowhere to read one: a broken invariant, named."""

    async def run() -> None:
        stage = _Stage()
        stage.slot.bundle = None
        with pytest.raises(InternalError, match="no bundle"):
            await stage.slot.start()

    asyncio.run(run())


# --- work that outlives its answer ---


def test_a_retired_one_ends_its_work_first() -> None:
    """Promises given to `waitUntil` are waited for, within the drain (style.md, drain)."""

    async def run() -> None:
        stage = await _Stage().started()
        isolate = stage.engine.made[0]
        isolate.waiting = 1
        retiring = asyncio.create_task(stage.slot.retire())
        await stage.clock.advance(1.0)
        assert isolate.alive
        isolate.waiting = 0
        await stage.clock.advance(limits.PENDING_EVERY_S.value)
        await retiring
        assert not isolate.alive

    asyncio.run(run())


def test_work_without_end_is_cut_off() -> None:
    """The drain is bounded; 0 waits for nothing."""

    async def run() -> None:
        stage = await _Stage().started()
        stage.engine.made[0].waiting = 1
        await stage.slot.retire(drain_s=0.01)
        assert stage.engine.running == 0

    asyncio.run(run())


def test_who_waits_for_a_turn_is_drained_too() -> None:
    """A reload while requests wait for their turn drops none of them: the old version serves
    those that came to it (issue 2, item 6).
    """

    async def run() -> None:
        stage = _Stage()
        turnstile = Turnstile(stage.clock, most=1)
        stage.slot.gate = gate = turnstile.gate("p", 9)
        await stage.started()
        other = turnstile.gate("q", 9)
        assert other.try_enter()  # so that the node is full, and this function is not
        entering = asyncio.create_task(gate.enter())
        await stage.settle()
        retiring = asyncio.create_task(stage.slot.retire(drain_s=50.0))
        await stage.clock.advance(1)
        assert stage.engine.running == 1
        other.leave()
        await entering
        await stage.clock.advance(1)
        assert stage.engine.running == 1
        gate.leave()
        await stage.clock.advance(1)
        assert stage.engine.running == 0
        await retiring

    asyncio.run(run())

"""A node's isolates stay within its bounds: idle ones go, busy ones are never touched."""

from __future__ import annotations

import asyncio

import pytest

from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.engine.base import StartFailed, Surroundings
from amba_runtime.engine.fake import FakeEngine, FakeIsolate, FakeRequest, FakeResponse
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.outcome import Tell
from amba_runtime.pool import Env, Overloaded, Pool, Slot
from amba_runtime.wire import Request, Response, WireError


async def _hello(request: FakeRequest) -> FakeResponse:
    return FakeResponse(body=b"hello")


async def _nowhere(request: Request) -> Response:
    raise AssertionError("no guest here fetches")


def _unheard(slot: Slot, request_id: str, tell: Tell) -> None:
    """Nothing late is said here."""


class _Shelf:
    async def bundle(self) -> Bundle:
        return Bundle.of(b"export default {}")

    async def env(self) -> Env:
        return ()


class _Engine(FakeEngine):
    """Waits at `gate`, counts those that start at once."""

    def __init__(self) -> None:
        super().__init__({})
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_once = 0
        self.most_at_once = 0

    async def start(
        self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
    ) -> FakeIsolate:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.gate.wait()
        self.at_once -= 1
        if manifest.name == "broken":
            raise StartFailed("Uncaught Error: no key")
        isolate = FakeIsolate(_hello, surroundings)
        self.isolates.append(isolate)
        return isolate


class _Stage:
    """A pool of few, and as many functions as a test names."""

    def __init__(self, *, most: int = 2, hard: int = 3, idle_s: float = 0.0) -> None:
        self.clock = ManualClock()
        self.engine = _Engine()
        self.pool = Pool(self.clock, most=most, hard=hard, idle_s=idle_s)
        self.slots: dict[str, Slot] = {}

    def slot(self, name: str) -> Slot:
        if name not in self.slots:
            self.slots[name] = Slot(
                self.engine,
                Manifest(ProjectId("p"), FunctionName(name), 1),
                None,
                limits_=FunctionLimits.hosted(),
                egress=_nowhere,
                storage=None,
                late=_unheard,
                clock=self.clock,
                kept=_Shelf(),
                room=self.pool,
            )
        return self.slots[name]

    async def ask(self, *names: str) -> None:
        """One request each, one after the other; then everything that follows."""
        for name in names:
            slot = self.slot(name)
            slot.enter()
            try:
                exchange = await slot.exchange()
                exchange.begin(b"GET", b"/", b"", 0)
                await exchange.head()
                exchange.release()
            finally:
                slot.leave()
        await self.settle()

    async def hold(self, name: str) -> None:
        """A request that goes on."""
        self.slot(name).enter()
        await self.ask(name)

    async def settle(self) -> None:
        for _ in range(5):
            await self.clock.advance(0.0)

    @property
    def awake(self) -> list[str]:
        return [name for name, slot in self.slots.items() if slot.isolate is not None]

    async def close(self) -> None:
        await self.pool.close()
        await asyncio.gather(*[slot.retire(drain_s=0) for slot in self.slots.values()])
        assert self.pool.live == 0
        assert not any(isolate.alive for isolate in self.engine.isolates)


def test_idle_ones_over_the_bound_go_least_recently_used_first() -> None:
    """At most so many stay; each comes back with its next request (issue 3, item 5)."""

    async def run() -> None:
        stage = _Stage(most=2)
        await stage.ask("a", "b")
        assert stage.awake == ["a", "b"]
        await stage.ask("c")
        assert stage.awake == ["b", "c"]
        stage.slot("b").used()
        await stage.ask("a")
        assert stage.awake == ["a", "b"]
        assert (stage.pool.live, stage.pool.starts, stage.pool.evictions) == (2, 4, 2)
        stage.slot("c").used()
        assert stage.pool.live == 2
        await stage.close()

    asyncio.run(run())


def test_busy_ones_stay_and_more_are_started_up_to_the_hard_bound() -> None:
    """Over the soft bound nobody at work is ended; over the hard one a start is refused."""

    async def run() -> None:
        stage = _Stage(most=1, hard=3)
        for name in "abc":
            await stage.hold(name)
        assert stage.awake == ["a", "b", "c"]
        for _ in range(2):
            with pytest.raises(Overloaded):
                await stage.ask("d")
        stage.slot("b").leave()
        await stage.hold("d")
        assert stage.awake == ["a", "c", "d"]
        await stage.close()

    asyncio.run(run())


def test_work_that_outlives_its_answer_is_work() -> None:
    """`waitUntil` keeps an isolate, but no longer than a drain would wait for it."""

    async def run() -> None:
        stage = _Stage(most=1, hard=1)
        await stage.ask("a")
        stage.engine.isolates[0].waiting = 1
        with pytest.raises(Overloaded):
            await stage.ask("b")
        await stage.clock.advance(limits.DRAIN_S.value)
        await stage.ask("b")
        assert stage.awake == ["b"]
        await stage.close()

    asyncio.run(run())


def test_a_few_start_at_once_and_the_others_wait() -> None:
    """200 cold functions at once do not fork 200 programs at once (reliability.md E33)."""

    async def run() -> None:
        stage = _Stage(most=100, hard=100)
        stage.engine.gate.clear()
        asked = [asyncio.create_task(stage.ask(f"f{n}")) for n in range(50)]
        await stage.settle()
        assert stage.engine.at_once == limits.ISOLATE_STARTS.value
        stage.engine.gate.set()
        await asyncio.gather(*asked)
        assert stage.engine.most_at_once == limits.ISOLATE_STARTS.value
        assert stage.pool.live == 50
        await stage.close()

    asyncio.run(run())


def test_a_start_that_fails_gives_its_place_back() -> None:
    """Ten failures on a node of one, and there is still room for one."""

    async def run() -> None:
        stage = _Stage(most=1, hard=1)
        for _ in range(10):
            with pytest.raises(WireError):
                await stage.ask("broken")
            await stage.clock.advance(60.0)
        assert (stage.pool.live, stage.pool.starts) == (0, 0)
        await stage.ask("a")
        assert stage.pool.live == 1
        await stage.close()

    asyncio.run(run())


def test_a_crash_gives_its_place_back() -> None:
    """One that ended unasked and could not start again is not counted as alive."""

    async def run() -> None:
        stage = _Stage()
        await stage.ask("a")
        stage.engine.gate.clear()
        stage.engine.isolates[0].crash()
        await stage.settle()
        assert stage.pool.live == 0
        stage.engine.gate.set()
        await stage.settle()
        assert stage.pool.live == 1
        await stage.close()

    asyncio.run(run())


def test_what_is_idle_for_too_long_is_evicted() -> None:
    """After the time, and not before it; one at work is left alone (issue 3, item 5)."""

    async def run() -> None:
        stage = _Stage(most=10, hard=10, idle_s=60.0)
        await stage.pool.open()
        await stage.pool.open()
        await stage.ask("a")
        await stage.hold("busy")
        await stage.clock.advance(30.0)
        await stage.ask("b")
        await stage.clock.advance(25.0)
        assert stage.awake == ["a", "busy", "b"]
        await stage.clock.advance(limits.EVICT_EVERY_S.value * 2)
        await stage.settle()
        assert stage.awake == ["busy", "b"]
        await stage.clock.advance(30.0)
        await stage.settle()
        assert stage.awake == ["busy"]
        stage.slot("busy").leave()
        await stage.close()

    asyncio.run(run())


def test_no_time_is_no_eviction_by_time() -> None:
    """0 keeps what there is room for; what there is none for goes at the next look."""

    async def run() -> None:
        stage = _Stage(most=1, hard=5, idle_s=0.0)
        await stage.pool.open()
        await stage.hold("a")
        await stage.hold("b")
        await stage.clock.advance(86_400.0)
        assert stage.awake == ["a", "b"]
        stage.slot("a").leave()
        await stage.clock.advance(limits.EVICT_EVERY_S.value)
        await stage.settle()
        assert stage.awake == ["b"]
        stage.slot("b").leave()
        await stage.close()

    asyncio.run(run())

"""The watchdog, look by look: what an isolate may use, how it shows life, what ends it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import pytest

from amba_runtime import limits, wire
from amba_runtime.clock import ManualClock
from amba_runtime.engine.fake import FakeEngine, FakeIsolate, FakeRequest, FakeResponse
from amba_runtime.limits import MIB, FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.outcome import Action, Breach, Ended, Outcome
from amba_runtime.slot import Slot
from amba_runtime.supervisor import Watchdog
from amba_runtime.trace import Hop

LOOK_S = limits.WATCH_EVERY_S.value
STALL_S = limits.STALL_S.value


@dataclass(eq=False, slots=True)
class Invocation:
    """One invocation that does as it is told."""

    request_id: str
    started_s: float
    begun: bool = False
    lasting: bool = False
    event: bool = False
    hop: Hop | None = None
    ends: list[Ended] = field(default_factory=lambda: list[Ended]())

    def end(self, ended: Ended) -> None:
        self.ends.append(ended)


class Clock(ManualClock):
    """One that can be found to have gone on while nobody ran."""

    paused_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.paused_s


class Stage:
    """A slot under watch, with time, CPU time, memory and signs of life in hand."""

    def __init__(self, changed: Mapping[str, int]) -> None:
        self.clock = Clock()
        self.engine = FakeEngine({"f": _hello})
        self.told: list[tuple[str, Breach, Action]] = []
        self.watchdog = Watchdog(self.clock)
        self.slot = Slot(
            self.engine,
            Manifest(ProjectId("p"), FunctionName("f"), 1),
            Bundle.of(b""),
            limits_=FunctionLimits.dev().override(changed),
            egress=_nowhere,
            storage=None,
            late=lambda _slot, _id, _tell: None,
            clock=self.clock,
            breached=lambda _slot, id_, breach, action: self.told.append((id_, breach, action)),
            watchdog=self.watchdog,
        )

    @property
    def isolate(self) -> FakeIsolate:
        return self.engine.isolates[-1]

    def enter(self, name: str, *, begun: bool = False, lasting: bool = False) -> Invocation:
        call = Invocation(name, self.clock.monotonic_s(), begun, lasting)
        assert self.slot.try_enter(call)
        return call

    def answer(self, *calls: Invocation) -> None:
        for call in calls:
            self.slot.answers += 1
            self.slot.leave(call)

    async def spend(self, seconds: float, *, busy: float = 1.0, step_s: float = LOOK_S / 5) -> None:
        """Let time pass; `busy` is the share of it that is CPU time of the isolate's."""
        for _ in range(round(seconds / step_s)):
            isolate = self.isolate
            if isolate.alive:
                isolate.cpu_used_s = (isolate.cpu_used_s or 0.0) + busy * step_s
            await self.clock.advance(step_s)

    def actions(self, limit: str) -> list[Action]:
        return [action for _, breach, action in self.told if breach.limit == limit]

    def ended(self) -> Ended:
        assert self.slot.last_end is not None
        return self.slot.last_end


async def _hello(request: FakeRequest) -> FakeResponse:
    return FakeResponse(body=b"hello")


async def _nowhere(request: wire.Request) -> wire.Response:
    raise AssertionError("no guest here fetches")


def on_stage(test: Callable[[Stage], Awaitable[None]], **changed: int) -> None:
    """Run `test` with a slot that has started; nothing is left running."""

    async def main() -> None:
        stage = Stage(changed)
        await stage.slot.start()
        stage.isolate.cpu_used_s = 1.0
        stage.isolate.memory_held = 40 * MIB
        try:
            async with asyncio.timeout(10):
                await test(stage)
        finally:
            await stage.watchdog.close()
            await stage.watchdog.close()
            await stage.slot.retire(drain_s=0)

    asyncio.run(main())


# CPU


def test_a_stretch_that_holds_the_thread_ends_the_process() -> None:
    """One synchronous stretch that uses all of cpu_ms: killed, told once (reliability.md E1)."""

    async def test(stage: Stage) -> None:
        call = stage.enter("a")
        isolate = stage.isolate
        isolate.free.clear()
        await stage.spend(0.050)
        assert isolate.alive
        while isolate.alive:
            await stage.spend(LOOK_S / 5)
        assert stage.ended().outcome is Outcome.EXCEEDED_CPU
        breach = stage.ended().breach
        assert breach is not None
        assert breach.limit == "cpu_ms"
        assert 50 < breach.used <= 50 + 2 * LOOK_S * 1000
        assert stage.actions("cpu_ms")[-1] == "killed"
        assert stage.actions("cpu_ms").count("killed") == 1
        assert stage.told[-1][0] == "a"
        assert call.ends == []  # its process ended, and it with it
        stage.slot.leave(call)
        await stage.spend(0.04)
        assert stage.slot.isolate is stage.isolate is not isolate

    on_stage(test, cpu_ms=50)


@pytest.mark.parametrize(("held_mib", "lag_s"), [(40, 0.026), (210, 0.011), (210, 0.1)])
def test_a_loop_that_always_lags_excuses_nobody(held_mib: int, lag_s: float) -> None:
    """One look that comes late is no proof; the next one is, however late (reliability.md E1)."""

    async def test(stage: Stage) -> None:
        stage.enter("a")
        isolate = stage.isolate
        isolate.memory_held = held_mib * MIB
        isolate.free.clear()
        spun_s = 0.0
        while isolate.alive and spun_s < 2:
            isolate.cpu_used_s = (isolate.cpu_used_s or 0.0) + LOOK_S + lag_s
            stage.clock.paused_s += lag_s
            await stage.clock.advance(LOOK_S)
            spun_s += LOOK_S + lag_s
        assert stage.ended().outcome is Outcome.EXCEEDED_CPU
        assert spun_s < 0.050 + 4 * (LOOK_S + lag_s)

    on_stage(test, cpu_ms=50, memory_mib=256)


def test_the_stretch_ends_with_an_answer_or_a_sign() -> None:
    """Many requests that each are quick keep no thread, however busy it is."""

    async def test(stage: Stage) -> None:
        stage.isolate.free.clear()
        for n in range(100):
            call = stage.enter(str(n))
            await stage.spend(LOOK_S)
            stage.answer(call)
        assert stage.isolate.alive
        waiting = stage.enter("waiting")
        for _ in range(4):  # signs of life come between its stretches
            await stage.spend(0.040)
            stage.isolate.free.set()
            await stage.spend(0.0051, busy=0)
            stage.isolate.free.clear()
        assert stage.slot.last_end is None
        stage.slot.leave(waiting)

    on_stage(test, cpu_ms=50)


def test_an_invocation_that_uses_it_up_in_pieces_is_ended_alone() -> None:
    """A storm of timers lets the thread go: it alone is ended, at its limit (E5)."""

    async def test(stage: Stage) -> None:
        call = stage.enter("storm")
        await stage.spend(0.045)
        assert call.ends == []
        await stage.spend(0.060)
        (ended,) = call.ends
        assert ended.outcome is Outcome.EXCEEDED_CPU
        assert ended.breach is not None
        assert 50 < ended.breach.used <= 50 + LOOK_S * 1000
        assert stage.actions("cpu_ms") == ["cut"] or stage.actions("cpu_ms") == ["warned", "cut"]
        await stage.spend(0.2)  # it is slow to go: nothing is said twice
        assert len(call.ends) == 1
        assert stage.actions("cpu_ms").count("cut") == 1
        assert stage.isolate.alive
        stage.slot.leave(call)

    on_stage(test, cpu_ms=50)


def test_the_time_is_shared_by_those_that_have_no_answer_yet() -> None:
    """Who streams an answer is billed only when nobody else waits."""

    async def test(stage: Stage) -> None:
        streams = stage.enter("streams", begun=True)
        waits = stage.enter("waits")
        await stage.spend(0.3)
        assert len(waits.ends) == 1
        assert streams.ends == []
        stage.slot.leave(waits)
        await stage.spend(0.15)
        assert len(streams.ends) == 1
        stage.slot.leave(streams)

    on_stage(test, cpu_ms=100)


def test_one_that_waits_beside_quick_ones_is_not_ended_for_them() -> None:
    """CPU time that may be others' counts only in bulk: a waiting neighbour is unhurt."""

    async def test(stage: Stage) -> None:
        waits = stage.enter("waits")
        for n in range(400):
            call = stage.enter(str(n))
            await stage.spend(LOOK_S / 5, busy=0.5)
            stage.answer(call)
        assert waits.ends == []
        stage.slot.leave(waits)

    on_stage(test, cpu_ms=50)


def test_doubtful_time_ends_one_too_in_bulk() -> None:
    """A storm is no better hidden among answers of others: from CPU_DOUBT_MS on it counts."""

    async def test(stage: Stage) -> None:
        storm = stage.enter("storm")
        for n in range(limits.CPU_DOUBT_MS.value * 4 // 25):
            call = stage.enter(str(n))
            await stage.spend(LOOK_S)
            stage.answer(call)
        assert len(storm.ends) == 1
        stage.slot.leave(storm)

    on_stage(test, cpu_ms=50)


def test_a_websocket_is_billed_while_it_keeps_its_isolate_busy() -> None:
    """Messages now and then add up to nothing; a storm behind one is ended."""

    async def test(stage: Stage) -> None:
        call = stage.enter("socket", begun=True, lasting=True)
        for _ in range(20):
            await stage.spend(LOOK_S)
            await stage.spend(4 * LOOK_S, busy=0.1)
        assert call.ends == []
        await stage.spend(0.25)
        assert [e.outcome for e in call.ends] == [Outcome.EXCEEDED_CPU]
        stage.slot.leave(call)

    on_stage(test, cpu_ms=100, total_ms=500)


def test_switched_off_it_ends_nobody() -> None:
    """cpu_ms = 0, as in dev: a busy function is left to its other clocks."""

    async def test(stage: Stage) -> None:
        call = stage.enter("a")
        await stage.spend(3.0, step_s=LOOK_S)
        assert (call.ends, stage.told, stage.isolate.alive) == ([], [], True)
        stage.slot.leave(call)

    on_stage(test, cpu_ms=0)


def test_where_the_system_tells_no_cpu_time() -> None:
    """The time of day stands for it: a thread that is held is still let go of."""

    async def test(stage: Stage) -> None:
        stage.isolate.cpu_used_s = None
        stage.isolate.memory_held = None
        isolate = stage.isolate
        call = stage.enter("a")
        isolate.free.clear()
        for _ in range(30):
            await stage.clock.advance(LOOK_S)
        assert not isolate.alive
        assert stage.ended().outcome is Outcome.EXCEEDED_CPU
        stage.slot.leave(call)

    on_stage(test, cpu_ms=200)


def test_a_pause_of_ours_is_no_silence_of_the_guest() -> None:
    """A stopped laptop, or a loop that was held: whoever was not heard meanwhile lives."""

    async def test(stage: Stage) -> None:
        call = stage.enter("a")
        stage.isolate.free.clear()
        await stage.spend(LOOK_S)
        await stage.spend(LOOK_S)
        stage.isolate.cpu_used_s = 60.0
        stage.clock.paused_s = 60.0
        await stage.spend(LOOK_S, busy=0.0)
        stage.isolate.free.set()
        await stage.spend(1.0, busy=0.0)
        assert (stage.slot.last_end, call.ends) == (None, [])
        stage.slot.leave(call)

    on_stage(test, cpu_ms=200, first_byte_ms=0)


# stall and wall


def test_an_isolate_that_stands_still_is_replaced() -> None:
    """No sign of life for two seconds while its CPU stands still: killed (reliability.md E31)."""

    async def test(stage: Stage) -> None:
        call = stage.enter("a")
        isolate = stage.isolate
        isolate.free.clear()
        await stage.spend(STALL_S, busy=0.0)
        assert isolate.alive
        await stage.spend(limits.PING_EVERY_S.value + 3 * LOOK_S, busy=0.0)
        assert not isolate.alive
        assert stage.ended().outcome is Outcome.LOAD_SHED
        assert stage.actions("stall_ms") == ["killed"]
        stage.slot.leave(call)

    on_stage(test)


def test_one_that_only_waits_shows_life() -> None:
    """A function that awaits its upstream for long does nothing, and answers when asked."""

    async def test(stage: Stage) -> None:
        call = stage.enter("a")
        await stage.spend(10 * STALL_S, busy=0.0, step_s=LOOK_S)
        assert (stage.isolate.alive, stage.told) == (True, [])
        stage.slot.leave(call)

    on_stage(test)


def test_a_thread_held_for_the_first_bytes_time_is_let_go() -> None:
    """Without a CPU limit a loop still ends: with first_byte_ms, so that others are served."""

    async def test(stage: Stage) -> None:
        call = stage.enter("a")
        isolate = stage.isolate
        isolate.free.clear()
        await stage.spend(1.0)
        assert isolate.alive
        stage.slot.leave(call)  # its caller was told at one second; the loop goes on
        await stage.spend(0.1)
        assert not isolate.alive
        assert stage.ended().outcome is Outcome.EXCEEDED_WALL_TIME
        assert stage.actions("first_byte_ms")[-1] == "killed"

    on_stage(test, first_byte_ms=1_000)


def test_one_invocation_may_take_so_long_in_all() -> None:
    """total_ms ends it alone, warned at four fifths; 0 is off, and a WebSocket may last."""

    async def test(stage: Stage) -> None:
        call = stage.enter("a")
        socket = stage.enter("socket", begun=True, lasting=True)
        await stage.spend(0.79, busy=0.0)
        assert stage.told == []
        await stage.spend(0.2, busy=0.0)
        assert stage.actions("total_ms") == ["warned"]
        await stage.spend(0.1, busy=0.0)
        assert stage.actions("total_ms") == ["warned", "cut"]
        assert [e.outcome for e in call.ends] == [Outcome.EXCEEDED_WALL_TIME]
        assert socket.ends == []
        stage.slot.leave(call)
        stage.slot.leave(socket)

    on_stage(test, total_ms=1_000)


# memory


@pytest.mark.parametrize(("held_mib", "ends"), [(127, False), (128, False), (129, True)])
def test_memory_is_polled(held_mib: int, ends: bool) -> None:
    """Over memory_mib it is killed, at it is not; near it is warned (reliability.md T4)."""

    async def test(stage: Stage) -> None:
        call = stage.enter("a")
        isolate = stage.isolate
        isolate.memory_held = held_mib * MIB
        await stage.spend(2 * LOOK_S, busy=0.0)
        assert isolate.alive is not ends
        if ends:
            assert stage.ended() == Ended(
                Outcome.EXCEEDED_MEMORY,
                "it held 129 MiB of memory",
                Breach("memory_mib", 129, 128),
            )
        assert stage.actions("memory_mib")[0] == ("killed" if ends else "warned")
        stage.slot.leave(call)

    on_stage(test, memory_mib=128)


def test_growth_is_looked_at_more_closely() -> None:
    """The overshoot is bounded: ever closer looks while it grows fast towards its cap (row 4)."""

    async def test(stage: Stage) -> None:
        call = stage.enter("a")
        isolate = stage.isolate
        while isolate.alive:
            assert isolate.memory_held is not None
            isolate.memory_held += MIB  # 1 GiB a second
            await stage.spend(1 / 1024, busy=0.0, step_s=1 / 1024)
        ended = stage.ended()
        assert ended.breach is not None
        assert 256 < ended.breach.used <= 256 + 1024 * limits.WATCH_CAP_S.value * 2
        stage.slot.leave(call)

    on_stage(test, memory_mib=256)


# at rest


def test_nobody_looks_where_nothing_is_under_way() -> None:
    """One question for unfinished work after the last answer, then nothing at all."""

    async def test(stage: Stage) -> None:
        for n in range(3):
            call = stage.enter(str(n))
            assert stage.slot.watched
            await stage.spend(LOOK_S, busy=0.0)
            stage.answer(call)
            await stage.spend(10 * LOOK_S, busy=0.0)
            assert not stage.slot.watched
        assert len(asyncio.all_tasks()) == 1

    on_stage(test)


def test_work_that_outlives_its_answer_is_watched() -> None:
    """`waitUntil` that spins is ended at cpu_ms like any other; nobody is in flight (E24)."""

    async def test(stage: Stage) -> None:
        isolate = stage.isolate
        isolate.waiting = 1
        call = stage.enter("a")
        await stage.spend(LOOK_S, busy=0.0)
        stage.answer(call)
        await stage.spend(30.0, busy=0.0, step_s=LOOK_S)  # it waits, and is left in peace
        assert isolate.alive
        await stage.spend(limits.WATCH_REST_S.value + 0.2)  # and works, in pieces
        assert not isolate.alive
        assert stage.ended().outcome is Outcome.EXCEEDED_CPU
        assert stage.told[-1][0] == ""

    on_stage(test, cpu_ms=100)


def test_a_loop_after_the_answer_is_ended() -> None:
    """The question for unfinished work is one for life, too."""

    async def test(stage: Stage) -> None:
        isolate = stage.isolate
        call = stage.enter("a")
        await stage.spend(LOOK_S, busy=0.0)
        asked = asyncio.Event()

        async def no_answer() -> int:
            await asked.wait()
            return 0

        isolate.pending = no_answer  # type: ignore[method-assign]  # one that fails
        stage.answer(call)
        await stage.spend(0.3)
        assert not isolate.alive
        assert stage.ended().outcome is Outcome.EXCEEDED_CPU

    on_stage(test, cpu_ms=100)


def test_work_begins_anew_while_one_is_at_rest() -> None:
    """The next invocation is watched from its beginning, and has all of its budget."""

    async def test(stage: Stage) -> None:
        isolate = stage.isolate
        isolate.waiting = 1
        call = stage.enter("a")
        await stage.spend(LOOK_S, busy=0.0)
        stage.answer(call)
        await stage.spend(1.02, busy=0.0)
        assert not stage.slot.watched
        second = stage.enter("b")
        assert stage.slot.watched
        isolate.free.clear()
        await stage.spend(0.1)
        assert isolate.alive
        await stage.spend(0.075)
        assert not isolate.alive
        stage.slot.leave(second)

    on_stage(test, cpu_ms=100)


# others


def test_a_crowd_is_warned_of() -> None:
    """dev says at four fifths that concurrency is near; of few, one more or less says nothing."""

    async def test(stage: Stage) -> None:
        calls = [stage.enter(str(n)) for n in range(8)]
        await stage.spend(LOOK_S, busy=0.0)
        assert stage.told == [("", Breach("concurrency", 8, 10), "warned")]
        for call in calls:
            stage.slot.leave(call)

    on_stage(test, concurrency=10)


def test_an_isolate_that_ends_by_itself_is_met_anew() -> None:
    """A fresh process begins at nothing: what the old one used is nobody's."""

    async def test(stage: Stage) -> None:
        call = stage.enter("a")
        await stage.spend(0.1)
        stage.isolate.crash()
        await stage.clock.advance(0.0)
        assert len(stage.engine.isolates) == 2
        stage.isolate.cpu_used_s = 0.001
        await stage.spend(0.08)
        assert stage.actions("cpu_ms") == []
        assert stage.isolate.alive
        stage.slot.leave(call)
        await stage.slot.evict()
        await stage.spend(0.1)
        assert not stage.slot.watched

    on_stage(test, cpu_ms=250)


def test_a_fault_of_the_watchdogs_ends_no_function(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, and the next invocation is watched again."""

    async def test(stage: Stage) -> None:
        def broken() -> int | None:
            raise ValueError("no such number")

        call = stage.enter("a")
        with monkeypatch.context() as patch:
            patch.setattr(stage.isolate, "memory_bytes", broken)
            await stage.spend(2 * LOOK_S, busy=0.0)
        assert "the watchdog failed at f" in caplog.text
        assert stage.isolate.alive
        assert not stage.slot.watched
        stage.slot.leave(call)
        stage.slot.leave(stage.enter("b"))
        assert stage.slot.watched

    on_stage(test)


def test_after_its_end_nothing_is_watched() -> None:
    """A closed watchdog starts no task; slots go on without it."""

    async def test(stage: Stage) -> None:
        call = stage.enter("a")
        await stage.watchdog.close()
        stage.slot.leave(call)
        stage.slot.watched = False
        other = stage.enter("b")
        assert not stage.slot.watched
        stage.slot.leave(other)
        assert len(asyncio.all_tasks()) == 1

    on_stage(test)


def test_each_slot_has_a_pace_of_its_own() -> None:
    """One that is looked at closely costs the others nothing."""

    async def test(stage: Stage) -> None:
        looks: list[str] = []

        def other() -> int | None:
            looks.append("other")
            return 40 * MIB

        slot = Slot(
            stage.engine,
            Manifest(ProjectId("p"), FunctionName("f"), 2),
            Bundle.of(b""),
            limits_=FunctionLimits.dev(),
            egress=_nowhere,
            storage=None,
            late=lambda _slot, _id, _tell: None,
            clock=stage.clock,
            watchdog=stage.watchdog,
        )
        near = stage.isolate
        near.memory_held = 200 * MIB
        await slot.start()
        stage.isolate.memory_bytes = other  # type: ignore[method-assign]  # one that fails
        first = stage.enter("a")
        second = Invocation("b", stage.clock.monotonic_s())
        assert slot.try_enter(second)
        looks.clear()
        for _ in range(100):
            await stage.clock.advance(0.001)
        assert 3 <= len(looks) <= 5
        stage.slot.leave(first)
        slot.leave(second)
        await slot.retire(drain_s=0)

    on_stage(test, memory_mib=256)


def test_a_question_that_fails_makes_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    """An isolate that ends while it is asked: nothing is left unheard."""

    async def test(stage: Stage) -> None:
        async def broken() -> None:
            raise wire.WireError("the engine closed the connection")

        stage.isolate.ping = broken  # type: ignore[method-assign]  # one that fails
        call = stage.enter("a")
        await stage.spend(limits.PING_EVERY_S.value + LOOK_S / 2, busy=0.0)
        stage.isolate.crash()
        stage.slot.leave(call)
        await stage.spend(2 * LOOK_S, busy=0.0)
        gc.collect()

    on_stage(test)
    assert "never retrieved" not in caplog.text


def test_unfinished_work_that_cannot_be_asked_for_is_none() -> None:
    """The engine is gone or says nonsense: nobody waits for it."""

    async def test(stage: Stage) -> None:
        async def broken() -> int:
            raise wire.WireError("the engine closed the connection")

        stage.isolate.pending = broken  # type: ignore[method-assign]  # one that fails
        stage.answer(stage.enter("a"))
        await stage.spend(10 * LOOK_S, busy=0.0)
        assert not stage.slot.watched
        assert len(asyncio.all_tasks()) == 1

    on_stage(test)

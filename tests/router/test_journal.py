"""What happened is told once, in batches, shortly after; telling never fails anybody."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from tests.runtime.flying import Invocation as Flying

from amba_router.journal import Invocation, Journal, LimitEvent
from amba_runtime import limits, wire
from amba_runtime.clock import ManualClock
from amba_runtime.engine.base import Surroundings
from amba_runtime.engine.fake import FakeEngine, FakeIsolate, FakeRequest, FakeResponse
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.outcome import Breach, LogLine, Outcome, Tell
from amba_runtime.pool import Slot


def invocation(request_id: str, slot: Slot | None = None) -> Invocation:
    return Invocation(request_id, "hello", 1, "GET", "/", 200, Outcome.OK, 0.0, 1.0, slot)


def lines(*texts: str) -> Tell:
    return Tell([LogLine("log", [text], 0) for text in texts])


async def go_on(turn: Iterator[int]) -> None:
    """Somebody else, who has a turn whenever there is one."""
    for _ in range(100_000):
        next(turn)
        await asyncio.sleep(0)


class Ear:
    """Hears batches and late lines."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.told: list[Invocation] = []
        self.late: list[tuple[str, list[object]]] = []
        self.heard = asyncio.Event()

    def batch(self, told: Sequence[Invocation]) -> None:
        self.batches.append([i.request_id for i in told])
        self.told.extend(told)
        self.heard.set()

    def lately(self, slot: Slot, request_id: str, tell: Tell) -> None:
        self.late.append((request_id, [line.message for line in tell.logs]))


async def no_egress(request: wire.Request) -> wire.Response:
    raise AssertionError("nothing is fetched here")


async def hello(request: FakeRequest) -> FakeResponse:
    return FakeResponse()


class TickingIsolate(FakeIsolate):
    """Says how much CPU time it has used."""

    used_s = 0.0

    def cpu_s(self) -> float | None:
        return self.used_s


class TickingEngine(FakeEngine):
    async def start(
        self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
    ) -> FakeIsolate:
        isolate = TickingIsolate(self.handlers[manifest.name], surroundings)
        self.isolates.append(isolate)
        return isolate


async def slot_on(engine: FakeEngine, journal: Journal) -> Slot:
    slot = Slot(
        engine,
        Manifest(ProjectId("p"), FunctionName("hello"), 1),
        Bundle.of(b""),
        limits_=FunctionLimits.dev(),
        egress=no_egress,
        storage=None,
        late=journal.late,
        clock=ManualClock(),
    )
    await slot.start()
    return slot


def test_events_are_told_in_batches_and_in_order() -> None:
    """Each invocation is told once, within the flush time (interface.md 3)."""

    async def main() -> None:
        journal, ear = Journal(), Ear()
        journal.listen(ear.batch, ear.lately)
        for name in "abc":
            journal.add(invocation(name))
        assert ear.batches == []
        await asyncio.wait_for(ear.heard.wait(), 5)
        assert ear.batches == [["a", "b", "c"]]
        journal.add(invocation("d"))
        journal.flush()
        journal.flush()
        assert ear.batches == [["a", "b", "c"], ["d"]]

    asyncio.run(main())
    assert limits.JOURNAL_FLUSH_S.value <= 0.1


def test_late_lines_join_an_event_that_waits() -> None:
    """Lines of `waitUntil` join their invocation, or are told alone when it was told."""

    async def main() -> None:
        journal, ear = Journal(), Ear()
        journal.listen(ear.batch, ear.lately)
        engine = FakeEngine({"hello": hello})
        slot = await slot_on(engine, journal)
        with_lines = invocation("a", slot)
        with_lines.tell = lines("first")
        journal.add(with_lines)
        journal.add(invocation("b", slot))
        engine.isolates[0].late("a", lines("second"))
        engine.isolates[0].late("b", lines("only"))
        journal.flush()
        assert [[line.message for line in i.tell.logs] for i in ear.told if i.tell] == [
            [["first"], ["second"]],
            [["only"]],
        ]
        assert ear.late == []
        engine.isolates[0].late("a", lines("third"))
        assert ear.late == [("a", [["third"]])]
        await slot.retire(drain_s=0)

    asyncio.run(main())


def test_lines_before_there_is_an_answer_are_told_with_it() -> None:
    """Of one that is under way; of a WebSocket, which has begun, they are told at once."""

    async def main() -> None:
        journal, ear = Journal(), Ear()
        journal.listen(ear.batch, ear.lately)
        engine = FakeEngine({"hello": hello})
        slot = await slot_on(engine, journal)
        slow, socket = Flying("slow"), Flying("socket", begun=True)
        slot.invocations.update(slow=slow, socket=socket)
        for text in ("one", "two"):
            engine.isolates[0].late("slow", lines(text))
        engine.isolates[0].late("socket", lines("now"))
        slot.invocations.clear()
        assert ear.late == [("socket", [["now"]])]
        for answered in (invocation("slow", slot), invocation("slow", slot)):
            answered.tell = lines("three")
            journal.add(answered)
            journal.flush()
        first, second = ear.told
        assert first.tell == lines("one", "two", "three")
        assert second.tell == lines("three")
        await slot.retire(drain_s=0)

    asyncio.run(main())


def test_only_so_much_is_kept_of_those_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """limits.JOURNAL_EARLY_BYTES: who has waited longest is told at once, and none is lost."""
    said = Tell.unread('{"l": [["log", 1, ["x"]]]}').size
    early = replace(limits.JOURNAL_EARLY_BYTES, value=3 * said)
    monkeypatch.setattr(limits, "JOURNAL_EARLY_BYTES", early)

    async def main() -> None:
        journal, ear = Journal(), Ear()
        journal.listen(ear.batch, ear.lately)
        engine = FakeEngine({"hello": hello})
        slot = await slot_on(engine, journal)
        for round_ in "xy":
            for name in "abc":
                slot.invocations[name] = Flying(name)
                word = f'{{"l": [["log", 1, ["{round_}"]]]}}'
                engine.isolates[0].late(name, Tell.unread(word))
        assert ear.late == [("a", [["x"], ["y"]]), ("b", [["x"], ["y"]])]
        journal.add(invocation("c", slot))
        journal.flush()
        assert ear.told[0].tell == Tell([LogLine("log", ["x"], 1), LogLine("log", ["y"], 1)])
        slot.invocations.clear()
        await slot.retire(drain_s=0)

    asyncio.run(main())


def test_lines_that_nobody_can_tell_fail_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Neither whoever wrote them nor the next who is told."""

    def broken(slot: Slot, request_id: str, tell: Tell) -> None:
        raise OSError("the pipe is closed")

    async def main() -> None:
        journal, ear = Journal(), Ear()
        journal.listen(ear.batch, broken)
        journal.listen(ear.batch, broken, pieces=True)
        journal.listen(ear.batch, ear.lately)
        engine = FakeEngine({"hello": hello})
        slot = await slot_on(engine, journal)
        engine.isolates[0].late("a", lines("x"))
        assert ear.late == [("a", [["x"]])]
        await slot.retire(drain_s=0)

    asyncio.run(main())
    assert caplog.text.count("lines of a could not be told") == 2


def test_much_is_told_a_piece_at_a_time() -> None:
    """Others have their turn between pieces of `limits.LOG_PIECE` lines; who flushes waits not."""
    most = limits.LOG_PIECE.value
    much = Tell([LogLine("log", [n], 0) for n in range(3 * most + 1)])

    async def main() -> None:
        journal, ear, whole = Journal(), Ear(), Ear()
        turn, turns, all_said = itertools.count(), list[int](), asyncio.Event()

        def late(slot: Slot, request_id: str, tell: Tell) -> None:
            ear.lately(slot, request_id, tell)
            turns.append(next(turn))
            if len(turns) == 3:
                all_said.set()

        journal.listen(ear.batch, late, pieces=True)
        journal.listen(whole.batch, whole.lately)
        others = asyncio.create_task(go_on(turn))
        engine = FakeEngine({"hello": hello})
        slot = await slot_on(engine, journal)
        one = invocation("a", slot)
        one.tell = much
        journal.add(one)
        await asyncio.wait_for(ear.heard.wait(), 5)
        await asyncio.wait_for(all_said.wait(), 5)
        others.cancel()
        first, second, third = turns
        assert second - first > 1 < third - second
        [told] = ear.told
        assert told.tell is not None
        said = [line.message for line in told.tell.logs] + [m for _, ms in ear.late for m in ms]
        assert said == [[n] for n in range(3 * most + 1)]
        assert whole.told[0].tell == much
        for name in "bc":
            other = invocation(name, slot)
            other.tell = much
            journal.add(other)
        engine.isolates[0].late("d", much)
        assert len(ear.late) == 3 + 1  # the first piece of the last
        journal.flush()
        assert len(ear.late) == 3 + 4 + 3 + 3
        assert [(name, len(lines)) for name, lines in whole.late] == [("d", 3 * most + 1)]
        await slot.retire(drain_s=0)

    asyncio.run(main())


def test_only_so_many_pieces_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """limits.JOURNAL_PIECES: what is over it is told at once, and none is lost."""
    monkeypatch.setattr(limits, "JOURNAL_PIECES", replace(limits.JOURNAL_PIECES, value=5))
    much = Tell([LogLine("log", [n], 0) for n in range(4 * limits.LOG_PIECE.value)])

    async def main() -> None:
        journal, ear = Journal(), Ear()
        journal.listen(ear.batch, ear.lately, pieces=True)
        engine = FakeEngine({"hello": hello})
        slot = await slot_on(engine, journal)
        for name in "abc":
            engine.isolates[0].late(name, much)
        assert len(ear.late) == 12 - 5
        answered = invocation("d", slot)
        answered.tell = much
        journal.add(answered)
        await asyncio.wait_for(ear.heard.wait(), 5)
        assert len(ear.late) >= 12 + 3 - 5
        journal.flush()
        assert [name for name, _ in ear.late] == [*"aaaabbbbccccddd"]
        await slot.retire(drain_s=0)

    asyncio.run(main())


def test_a_listener_that_fails_fails_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    """Telling never fails a request, and one deaf listener leaves the others their events."""

    def broken(told: Sequence[Invocation]) -> None:
        raise OSError("the pipe is closed")

    async def main() -> None:
        journal, ear = Journal(), Ear()
        journal.listen(broken, ear.lately)
        journal.listen(ear.batch, ear.lately)
        journal.add(invocation("a"))
        journal.flush()
        journal.add(invocation("b"))
        journal.flush()
        assert ear.batches == [["a"], ["b"]]

    asyncio.run(main())
    assert caplog.text.count("1 invocations could not be told") == 2


def test_what_waits_is_bounded() -> None:
    """A flood of invocations is told early instead of being kept."""

    async def main() -> None:
        journal, ear = Journal(), Ear()
        journal.listen(ear.batch, ear.lately)
        most = limits.JOURNAL_EVENTS.value
        for n in range(most + 1):
            journal.add(invocation(str(n)))
        assert [len(batch) for batch in ear.batches] == [most]
        journal.flush()
        assert [len(batch) for batch in ear.batches] == [most, 1]

    asyncio.run(main())


def test_cpu_time_is_shared_out() -> None:
    """A batch's CPU time goes evenly to its invocations, and no millisecond is told twice."""

    async def main() -> None:
        journal, ear = Journal(), Ear()
        journal.listen(ear.batch, ear.lately)
        engine = TickingEngine({"hello": hello})
        slot = await slot_on(engine, journal)
        isolate = engine.isolates[0]
        assert isinstance(isolate, TickingIsolate)
        for used_s, names in ((0.010, "ab"), (0.010, "c"), (0.025, "d")):
            isolate.used_s = used_s
            for name in names:
                journal.add(invocation(name, slot))
            journal.flush()
        assert [i.cpu_ms for i in ear.told] == [5.0, 5.0, 0.0, 15.0]
        isolate.used_s = 0.0  # a new process starts at nothing
        journal.add(invocation("e", slot))
        journal.flush()
        assert ear.told[-1].cpu_ms == 0.0
        await slot.retire(drain_s=0)
        journal.add(invocation("f", slot))
        journal.flush()
        assert ear.told[-1].cpu_ms is None

    asyncio.run(main())


def test_an_engine_that_does_not_say_its_cpu_time() -> None:
    """Unknown is None, not zero."""

    async def main() -> None:
        journal, ear = Journal(), Ear()
        journal.listen(ear.batch, ear.lately)
        slot = await slot_on(FakeEngine({"hello": hello}), journal)
        journal.add(invocation("a", slot))
        journal.add(invocation("b", None))
        journal.flush()
        assert [i.cpu_ms for i in ear.told] == [None, None]
        await slot.retire(drain_s=0)

    asyncio.run(main())


def test_a_limit_is_told_at_once_and_to_everybody(caplog: pytest.LogCaptureFixture) -> None:
    """A listener that fails fails nobody; what is remembered of warnings is bounded."""

    def broken(event: LimitEvent) -> None:
        raise OSError("the pipe is closed")

    async def main() -> None:
        clock = ManualClock()
        journal, ear = Journal(clock), Ear()
        told: list[LimitEvent] = []
        journal.listen(ear.batch, ear.lately, broken)
        journal.listen(ear.batch, ear.lately, told.append)
        slot = await slot_on(FakeEngine({"hello": hello}), journal)
        breach = Breach("cpu_ms", 51, 50)
        for _ in range(2):
            journal.breach(slot, "r", breach, "killed")
        assert told == [LimitEvent(breach, "killed", "p", "hello", 1, "r")] * 2
        for n in range(limits.BREACHES_TOLD.value + 1):
            journal.breach(slot, "r", Breach(str(n), 9, 10), "warned")
        journal.breach(slot, "r", Breach("0", 9, 10), "warned")
        assert len(told) == 2 + limits.BREACHES_TOLD.value + 2
        await slot.retire(drain_s=0)

    asyncio.run(main())
    assert "a limit of hello could not be told" in caplog.text

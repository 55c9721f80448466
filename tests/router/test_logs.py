"""A function's logs: the shape of contract D.5, bounded, and nothing missed by who tails them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from amba_router.journal import Invocation, Journal
from amba_router.logs import LogPage, LogStore, StackMapper
from amba_runtime import limits, wire
from amba_runtime.clock import ManualClock
from amba_runtime.engine.fake import FakeEngine
from amba_runtime.limits import FunctionLimits, Limit
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.outcome import GuestException, LogLine, Outcome, Tell
from amba_runtime.slot import Slot

STACK = "Error: no\n    at fetch (fn.mjs:1:2)"


async def _no_egress(request: wire.Request) -> wire.Response:
    raise AssertionError("nothing is fetched here")


class Stage:
    """A store that hears a journal, and a clock in hand."""

    def __init__(self) -> None:
        self.clock = ManualClock(1_000.0)
        self.asked: list[tuple[str, str, int]] = []
        self.journal = Journal()
        self.store = LogStore(self.clock, self.mapper)
        self.store.hear(self.journal)
        self.ids = 0

    async def mapper(self, project_id: str, name: str, version: int) -> StackMapper:
        self.asked.append((project_id, name, version))
        return lambda stack: stack.replace("fn.mjs:1:2", f"src/{name}.ts:7:3")

    def slot(self, name: str = "hello", *, project: str = "p", version: int = 1) -> Slot:
        return Slot(
            FakeEngine({}),
            Manifest(ProjectId(project), FunctionName(name), version),
            Bundle.of(b""),
            limits_=FunctionLimits.hosted(),
            egress=_no_egress,
            storage=None,
            late=self.journal.late,
            clock=self.clock,
        )

    def invoked(
        self,
        slot: Slot | None = None,
        *,
        tell: Tell | None = None,
        outcome: Outcome = Outcome.OK,
        status: int = 200,
        at_s: float | None = None,
        path: str = "/x",
    ) -> str:
        """One invocation that took 2 ms and ended now; told when the journal is flushed."""
        slot = slot or self.slot()
        self.ids += 1
        request_id = f"r-{self.ids}"
        began_s = (self.clock.time_s() if at_s is None else at_s) - 0.002
        m = slot.manifest
        self.journal.add(
            Invocation(
                *(request_id, m.name, m.version, "GET", path, status, outcome, began_s, 2.0),
                slot,
                tell,
            )
        )
        return request_id

    async def read(
        self,
        name: str = "hello",
        *,
        project: str = "p",
        since_ms: int = 0,
        until_ms: int = 10**13,
        limit: int = 100,
        request_id: str | None = None,
    ) -> LogPage:
        return await self.store.events(
            project,
            name,
            since_ms=since_ms,
            until_ms=until_ms,
            limit=limit,
            request_id=request_id,
        )

    async def ids_of(self, **asked: Any) -> list[str]:
        return [event["RequestId"] for event in (await self.read(**asked)).events]


def staged(body: Callable[[Stage], Awaitable[None]]) -> None:
    async def run() -> None:
        await body(Stage())

    asyncio.run(run())


def lines(*texts: Any) -> Tell:
    return Tell([LogLine("warn", [text], 5) for text in texts])


def test_an_event_has_the_platforms_shape() -> None:
    """Every member of contract D.5 by its spelling, and ours beside them."""

    async def body(stage: Stage) -> None:
        tell = Tell([LogLine("log", ["a", {"b": 1}], 7)], [GuestException("Error", "no", STACK, 8)])
        slot = stage.slot(version=3)
        stage.invoked(slot, tell=tell, outcome=Outcome.EXCEPTION, status=500)
        page = await stage.read()
        assert tuple(page) == (
            [
                {
                    "Event": {
                        "Timestamp": 999_998,
                        "Request": {"Method": "GET", "Path": "/x"},
                        "Response": {"Status": 500},
                    },
                    "ScriptName": "hello-v3",
                    "Outcome": "exception",
                    "Logs": [{"Level": "log", "Message": ["a", {"b": 1}], "TimestampMs": 7}],
                    "Exceptions": [
                        {
                            "Name": "Error",
                            "Message": "no",
                            "Stack": "Error: no\n    at fetch (src/hello.ts:7:3)",
                            "TimestampMs": 8,
                        }
                    ],
                    "EventTimestampMs": 1_000_000,
                    "RequestId": "r-1",
                    "Version": 3,
                    "WallTimeMs": 2.0,
                    "CPUTimeMs": None,
                }
            ],
            False,
        )
        json.dumps(page.events)

    staged(body)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_outcomes_are_spelled_as_the_wire_does(outcome: Outcome) -> None:
    """`canceled` is written `cancelled`, the others as they are (architecture.md 6)."""

    async def body(stage: Stage) -> None:
        stage.invoked(outcome=outcome)
        [event] = (await stage.read()).events
        expected = {"canceled": "cancelled"}.get(outcome.value, outcome.value)
        assert event["Outcome"] == expected

    staged(body)


def test_newest_first_and_the_rest_is_told() -> None:
    """`limit` gives the newest; `truncated` says that there were older ones."""

    async def body(stage: Stage) -> None:
        for _ in range(5):
            stage.invoked()
            await stage.clock.advance(1.0)
        assert await stage.ids_of() == ["r-5", "r-4", "r-3", "r-2", "r-1"]
        assert not (await stage.read(limit=5)).truncated
        page = await stage.read(limit=2)
        assert ([e["RequestId"] for e in page.events], page.truncated) == (["r-5", "r-4"], True)

    staged(body)


def test_since_is_inclusive_and_until_is_not() -> None:
    """Unix milliseconds (contract D.5)."""

    async def body(stage: Stage) -> None:
        for _ in range(3):
            stage.invoked()
            await stage.clock.advance(1.0)
        times = [e["EventTimestampMs"] for e in (await stage.read()).events]
        assert times == [1_002_000, 1_001_000, 1_000_000]
        assert await stage.ids_of(since_ms=1_001_000) == ["r-3", "r-2"]
        assert await stage.ids_of(until_ms=1_001_000) == ["r-1"]
        assert await stage.ids_of(since_ms=1_001_000, until_ms=1_001_001) == ["r-2"]
        assert await stage.ids_of(since_ms=2_000_000) == []
        assert await stage.ids_of(request_id="r-2") == ["r-2"]
        assert await stage.ids_of(request_id="nobody's") == []

    staged(body)


def test_a_tail_misses_nothing() -> None:
    """Newest time + 1 ms as the next `since`: also what ended in that very ms, or before it."""

    async def body(stage: Stage) -> None:
        seen: list[str] = []
        since_ms = 0

        async def poll() -> None:
            nonlocal since_ms
            events = (await stage.read(since_ms=since_ms)).events
            seen.extend(e["RequestId"] for e in reversed(events))
            since_ms = max([since_ms - 1, *(e["EventTimestampMs"] for e in events)]) + 1

        stage.invoked()
        await poll()
        stage.invoked()
        stage.invoked(at_s=999.0)
        await poll()
        await poll()
        await stage.clock.advance(1.0)
        stage.invoked()
        await poll()
        assert seen == ["r-1", "r-2", "r-3", "r-4"]

    staged(body)


def test_functions_and_projects_are_kept_apart() -> None:
    """Two projects' functions of one name, two functions of one project."""

    async def body(stage: Stage) -> None:
        stage.invoked(stage.slot())
        stage.invoked(stage.slot("other"))
        stage.invoked(stage.slot(project="q"))
        assert await stage.ids_of() == ["r-1"]
        assert await stage.ids_of(name="other") == ["r-2"]
        assert await stage.ids_of(project="q") == ["r-3"]
        assert await stage.read("never") == ([], False)
        stage.store.forget_project("p")
        assert await stage.ids_of() == []
        assert await stage.ids_of(project="q") == ["r-3"]
        stage.store.forget_project("p")

    staged(body)


def test_maps_are_wanted_only_for_stacks_that_are_shown() -> None:
    """Once per version; a logged error's stack is one, a text that is none stays whole."""

    async def body(stage: Stage) -> None:
        stage.invoked(tell=lines("plain", 3, None, ["\n    at "]))
        await stage.read()
        assert stage.asked == []
        long = STACK + "\n    at x" * limits.STACK_LINES.value
        stage.invoked(tell=lines(long))
        await stage.read()
        assert stage.asked == []
        stage.invoked(tell=lines(STACK, "and " + STACK))
        stage.invoked(tell=lines(STACK))
        events = (await stage.read(limit=2)).events
        assert stage.asked == [("p", "hello", 1)]
        assert [m for e in events for line in e["Logs"] for m in line["Message"]] == [
            "Error: no\n    at fetch (src/hello.ts:7:3)",
            "Error: no\n    at fetch (src/hello.ts:7:3)",
            "and Error: no\n    at fetch (src/hello.ts:7:3)",
        ]

    staged(body)


def test_late_lines_join_their_event_while_nobody_has_read_it() -> None:
    """Afterwards they are an event of their own with the same request id."""

    async def body(stage: Stage) -> None:
        slot = stage.slot()
        one, two = stage.invoked(slot, tell=lines("first")), stage.invoked(slot)
        stage.journal.flush()
        stage.journal.late(slot, one, lines("second"))
        stage.journal.late(slot, two, Tell([], [GuestException("E", "late", "", 1)]))
        newest, oldest = (await stage.read()).events
        assert [line["Message"] for line in oldest["Logs"]] == [["first"], ["second"]]
        assert [error["Message"] for error in newest["Exceptions"]] == ["late"]
        stage.journal.late(slot, one, lines("third"))
        stage.journal.late(slot, "r-unknown", lines("whose"))
        whose, third = (await stage.read(limit=2)).events
        assert (third["RequestId"], third["Event"]["Request"]["Path"]) == (one, "/x")
        assert third["Logs"][0]["Message"] == ["third"]
        assert (whose["RequestId"], whose["Outcome"]) == ("r-unknown", "ok")
        assert third["EventTimestampMs"] > newest["EventTimestampMs"]

    staged(body)


def _with(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    old: Limit = getattr(limits, name)
    monkeypatch.setattr(limits, name, Limit(value, old.unit, old.bounds, old.source))


def test_a_function_keeps_so_many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """limits.LOG_STORE_EVENTS: the oldest go."""
    _with(monkeypatch, "LOG_STORE_EVENTS", 3)

    async def body(stage: Stage) -> None:
        for _ in range(5):
            stage.invoked()
        assert await stage.ids_of() == ["r-5", "r-4", "r-3"]

    staged(body)


def test_a_function_keeps_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """limits.LOG_STORE_FUNCTION_BYTES, late lines included."""
    _with(monkeypatch, "LOG_STORE_FUNCTION_BYTES", 8_000)

    async def body(stage: Stage) -> None:
        for _ in range(5):
            stage.invoked(tell=lines("x" * 2_000))
        assert await stage.ids_of() == ["r-5", "r-4"]
        stage.invoked(tell=lines("x" * 9_000))
        assert await stage.ids_of() == []

    staged(body)


def test_a_node_keeps_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """limits.LOG_STORE_BYTES: who holds most loses first, the quiet keep theirs."""
    _with(monkeypatch, "LOG_STORE_BYTES", 20_000)

    async def body(stage: Stage) -> None:
        quiet, loud = stage.slot("quiet"), stage.slot("loud")
        stage.invoked(quiet, tell=lines("x" * 1_000))
        for _ in range(20):
            stage.invoked(loud, tell=lines("x" * 2_000))
        stage.journal.flush()
        assert await stage.ids_of(name="quiet") == ["r-1"]
        kept = await stage.ids_of(name="loud")
        assert kept[0] == "r-21"
        assert 2 <= len(kept) <= 6
        for _ in range(20):
            stage.journal.late(loud, "r-21", lines("x" * 2_000))
        assert await stage.ids_of(name="quiet") == ["r-1"]

    staged(body)


def test_an_event_that_no_isolate_had_is_not_kept() -> None:
    """Nothing says whose it was."""

    async def body(stage: Stage) -> None:
        stage.journal.add(Invocation("r", "hello", 1, "GET", "/", 500, Outcome.OK, 0.0, 1.0, None))
        assert await stage.ids_of() == []

    staged(body)


def test_a_long_path_is_cut() -> None:
    """16 KiB of target in each of 10,000 events is not what logs are for."""

    async def body(stage: Stage) -> None:
        stage.invoked(path="/" + "x" * 10_000)
        [event] = (await stage.read()).events
        assert len(event["Event"]["Request"]["Path"]) == 2048

    staged(body)

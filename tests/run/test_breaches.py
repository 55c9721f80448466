"""Limits that were passed, told to people and to programs."""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace

from amba_router.journal import LimitEvent
from amba_run.breaches import Pace
from amba_run.node_report import NodeTalk
from amba_run.report import JsonReporter, TerminalReporter
from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.outcome import Action, Breach


def event(action: Action, *, limit: str = "cpu_ms", function: str = "f") -> LimitEvent:
    return LimitEvent(Breach(limit, 1_051, 50), action, "p\x1b[2J", function, 3, "r-1")


def test_programs_get_one_event_each() -> None:
    """The fields of issue 4 item 2, in `dev --json` and `node --json` alike."""
    out = io.StringIO()
    say = JsonReporter(out, io.StringIO())
    for _ in range(2):
        say.limit(event("killed"))
    say.close()
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {
            "event": "limit",
            "limit": "cpu_ms",
            "used": 1051,
            "most": 50,
            "action": "killed",
            "project": "p\x1b[2J",
            "function": "f",
            "version": 3,
            "request_id": "r-1",
        }
    ] * 2


def test_people_get_one_line() -> None:
    """What was passed, by how much, and what was done; a flood of them is one line a second."""
    out = io.StringIO()
    say = TerminalReporter(out, colour=False)
    for _ in range(5):
        say.limit(event("cut"))
    say.limit(event("warned", limit="memory_mib"))
    say.close()
    assert out.getvalue() == (
        "limit cpu_ms: f v3 used 1,051 of 50: the invocation was ended\n"
        "limit memory_mib: f v3 used 1,051 of 50: near\n"
    )


def test_what_figures_do_not_say_is_said() -> None:
    """A breach with words of its own is told in them (row E10)."""
    told = event("killed", limit="memory_mib")
    told = replace(told, breach=replace(told.breach, note="its heap was full at 48 MiB"))
    assert Pace(ManualClock()).text(told) == (
        "limit memory_mib: f v3: its heap was full at 48 MiB: its process was ended"
    )


def test_people_at_a_node_hear_of_processes_that_were_ended() -> None:
    """The rest is for the logs and the metrics; whose it is steers no terminal."""
    err = io.StringIO()
    say = NodeTalk(err)
    for action in ("warned", "refused", "cut", "killed", "killed"):
        say.limit(event(action))
    say.close()
    line = "p\\x1b[2J: limit cpu_ms: f v3 used 1,051 of 50: its process was ended\n"
    assert err.getvalue() == line


def test_what_was_left_unsaid_is_counted() -> None:
    """After a second the same is said again, with how many came between; memory is bounded."""

    async def main() -> None:
        clock = ManualClock()
        pace = Pace(clock)
        assert pace.text(event("refused"))
        assert [pace.text(event("refused")) for _ in range(3)] == ["", "", ""]
        assert pace.text(event("refused", function="g"))
        await clock.advance(limits.BREACH_LINE_S.value)
        assert pace.text(event("refused")).endswith("refused (3 more before)")
        for n in range(limits.BREACHES_TOLD.value):
            assert pace.text(event("refused", function=f"f{n}"))
        assert pace.text(event("refused"))  # forgotten with the others

    asyncio.run(main())

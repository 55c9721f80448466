"""What a hosted node says, to programs and to people."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest

from amba_router.journal import Invocation
from amba_router.logs import StackMapper
from amba_run.node_report import NodeJson, NodeTalk, for_node
from amba_runtime import wire
from amba_runtime.clock import ManualClock
from amba_runtime.engine.fake import FakeEngine
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import FunctionName, Manifest, ProjectId
from amba_runtime.outcome import GuestException, LogLine, Outcome, Tell
from amba_runtime.slot import Slot

STACK = "Error: no\n    at fetch (fn.mjs:1:2)"
FACTS = {"origin": "http://127.0.0.1:1", "state": "/s", "engine": "fake"}


async def _no_egress(request: wire.Request) -> wire.Response:
    raise AssertionError("nothing is fetched here")


def _unheard(slot: Slot, request_id: str, tell: Tell) -> None:
    """Nothing late is said here."""


def _slot() -> Slot:
    return Slot(
        FakeEngine({}),
        Manifest(ProjectId("p"), FunctionName("f"), 3),
        None,
        limits_=FunctionLimits.hosted(),
        egress=_no_egress,
        storage=None,
        late=_unheard,
        clock=ManualClock(),
    )


def _invocation(request_id: str, slot: Slot | None, tell: Tell | None = None) -> Invocation:
    return Invocation(request_id, "f", 3, "GET", "/", 200, Outcome.OK, 0.0, 1.0, slot, tell)


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def _map(project_id: str, name: str, version: int) -> StackMapper:
    return lambda stack: stack.replace("fn.mjs:1:2", f"{project_id}/{name}.ts:{version}:1")


@pytest.mark.parametrize("mapped", [True, False])
def test_events_have_stacks_in_the_users_files(mapped: bool) -> None:
    """By maps that lie in the store; without them as they are (interface.md 3)."""
    out, err = io.StringIO(), io.StringIO()

    async def run() -> None:
        say = NodeJson(out, err)
        if mapped:
            say.map_with(_map)
        slot = _slot()
        thrown = Tell([LogLine("error", [STACK, 1], 5)], [GuestException("Error", "no", STACK, 6)])
        plain = Tell([LogLine("log", ["hi"], 5)])
        say.requests([_invocation("r-1", slot, thrown), _invocation("r-2", slot, plain)])
        say.requests([_invocation("r-3", None, thrown)])
        async with asyncio.timeout(5):
            while len(out.getvalue().splitlines()) < 3:  # noqa: ASYNC110  another thread writes
                await asyncio.sleep(0)
        say.late(slot, "r-1", plain)
        say.close()

    asyncio.run(run())
    by_id = {line["request_id"]: line for line in _lines(out) if line["event"] == "request"}
    shown = "Error: no\n    at fetch (p/f.ts:3:1)" if mapped else STACK
    assert by_id["r-1"]["logs"][0]["Message"] == [shown, 1]
    assert by_id["r-1"]["exceptions"][0]["Stack"] == shown
    assert by_id["r-2"]["logs"][0]["Message"] == ["hi"]
    assert [by_id[id_].get("project") for id_ in ("r-1", "r-2", "r-3")] == ["p", "p", None]
    assert by_id["r-3"]["exceptions"][0]["Stack"] == STACK
    assert _lines(out)[-1]["event"] == "late"


def test_programs_get_lines_and_people_words() -> None:
    """Events on stdout, talk on stderr; control characters of strangers steer no terminal."""
    out, err = io.StringIO(), io.StringIO()
    say = NodeJson(out, err)
    say.ready(dict(FACTS))
    say.say("done \x1b[2J")
    say.warn("careful")
    say.stopping()
    say.close()
    assert _lines(out) == [{"event": "ready", **FACTS}, {"event": "stopping"}]
    assert err.getvalue() == "done \\x1b[2J\nwarning: careful\n"


def test_people_are_told_where_it_is_and_the_token_once() -> None:
    """Requests are for `functions logs`."""
    err = io.StringIO()
    say = NodeTalk(err)
    say.ready(dict(FACTS))
    say.ready({**FACTS, "keys": {"pat": "amb_dpat_x"}})
    say.requests([_invocation("r-1", None)])
    say.say("done")
    say.warn("careful")
    say.stopping()
    say.close()
    head = "amba-run node  http://127.0.0.1:1  (fake)  state: /s\n"
    assert err.getvalue() == (
        f"{head}{head}developer token, shown this once: amb_dpat_x\n"
        "done\nwarning: careful\nstopping\n"
    )


def test_late_lines_are_for_the_logs_too() -> None:
    """A person sees nothing of them."""

    async def run() -> None:
        err = io.StringIO()
        say = NodeTalk(err)
        say.late(_slot(), "r-1", Tell())
        say.close()
        assert err.getvalue() == ""

    asyncio.run(run())


@pytest.mark.parametrize(("json_", "kind"), [(True, NodeJson), (False, NodeTalk)])
def test_the_option_chooses(json_: bool, kind: type) -> None:
    """--json."""
    say = for_node(json_=json_)
    assert isinstance(say, kind)
    say.close()

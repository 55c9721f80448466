"""Two processes of the trigger layer on one database: each slot is fired by one of them, once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.router.store.world import opened_state, project

from amba_router.store import schedule_rows
from amba_router.store.control import ControlStore
from amba_router.store.on_demand import OnDemand
from amba_router.store.project_store import ProjectStore
from amba_router.store.schedule_rows import Wanted
from amba_runtime.clock import SystemClock

ROOT = Path(__file__).parents[3]
CHILD = "tests.router.triggers.slots_child"
FUNCTIONS = 500
SCHEDULES = 10
"""Of each function: one for each last digit of a minute, so that 500 are due in each minute."""
SLOTS = 20
"""Minutes; each schedule has two of them."""


async def _furnish(path: Path, now_ms: int) -> str:
    """A project with as many schedules, each of a function of its own; its id."""
    clock = SystemClock()
    async with opened_state(path, clock) as state:
        id_ = (await project(ControlStore(state, clock))).record.id
        wanted = [
            Wanted(f"f{n}", f"{minute}-59/10 * * * *", "UTC", "skip")
            for n in range(FUNCTIONS)
            for minute in range(SCHEDULES)
        ]
        ids = [f"s{n}" for n in range(len(wanted))]
        await ProjectStore(OnDemand(state, clock)).write(
            id_,
            lambda s: schedule_rows.replace(s, None, "api", wanted, ids=ids, now_ms=now_ms),
        )
        return id_


def _pass(children: list[subprocess.Popen[str]]) -> list[list[str]]:
    """The minutes pass, each for both at once; what they say at the end."""

    def heard(word: str) -> None:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == f"{word}\n"

    heard("loaded")
    for _ in range(SLOTS):
        for child in children:
            assert child.stdin is not None
            child.stdin.write("minute\n")
            child.stdin.flush()
        heard("done")
    said = [child.communicate(timeout=60)[0].splitlines() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    return said


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_ten_thousand_slots_are_fired_once(tmp_path: Path) -> None:
    """10,000 slots, two owners: fired twice or never: 0 (issue 6, Must show 4; row J7)."""
    # a clock that waits for its owner's work: a machine that stands still makes nothing late
    first = round(time.time()) // 60 * 60_000 + 60_000
    begin_ms = first - 60_000
    id_ = asyncio.run(_furnish(tmp_path, begin_ms))
    children = [
        subprocess.Popen(
            [sys.executable, "-m", CHILD, str(tmp_path), id_, str(FUNCTIONS), str(begin_ms / 1000)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(2)
    ]
    try:
        said = _pass(children)
    finally:
        for child in children:
            child.kill()
            child.wait()
    slots = range(first, first + SLOTS * 60_000, 60_000)
    fired = Counter(line for lines in said for line in lines[:-1])
    assert [lines[-1] for lines in said] == ["skipped 0"] * 2
    expected = {
        f"f{n} {at // 60_000 % 10}-59/10 * * * * {at}" for n in range(FUNCTIONS) for at in slots
    }
    twice = [line for line, count in fired.items() if count > 1]
    assert (len(expected - fired.keys()), len(twice), len(fired.keys() - expected)) == (0, 0, 0)
    assert len(fired) == FUNCTIONS * SLOTS == 10_000
    assert min(len(lines) for lines in said) > SLOTS  # both had a share

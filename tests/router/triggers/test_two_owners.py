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
CHILD = Path(__file__).with_name("slots_child.py")
FUNCTIONS = 500
SCHEDULES = 10
"""Of each function: one for each last digit of a minute, so that 500 are due in each minute."""
SLOTS = 20
"""Minutes; each schedule has two of them."""
SPEED = 24.0
"""A minute in 2.5 seconds."""
AFTER_S = 150.0
"""They go on for so long, so that what was due at the end is not cut off by the end of the test."""


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


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_ten_thousand_slots_are_fired_once(tmp_path: Path) -> None:
    """10,000 slots, two owners: fired twice or never: 0 (issue 6, Must show 4; row J7)."""
    # both clocks begin on a minute of the machine's own, which is theirs at that moment
    begin_s = time.time() + 6
    id_ = asyncio.run(_furnish(tmp_path, round(begin_s * 1000) - 1))
    run_s = 60.0 * SLOTS
    children = [
        subprocess.Popen(
            [
                *(sys.executable, str(CHILD), str(tmp_path), id_, str(FUNCTIONS)),
                *(repr(begin_s), str(SPEED), str(run_s + AFTER_S)),
            ],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(2)
    ]
    said = [child.communicate(timeout=150)[0].splitlines() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert [lines[0] for lines in said] == ["loaded"] * 2
    assert [lines[-1] for lines in said] == ["skipped 0"] * 2
    begin_ms = round(begin_s * 1000)
    first = begin_ms // 60_000 * 60_000 + 60_000
    slots = range(first, begin_ms + round(run_s * 1000), 60_000)
    fired = Counter(
        line
        for lines in said
        for line in lines[1:-1]
        if first <= int(line.rpartition(" ")[2]) <= slots[-1]
    )
    assert len(slots) == SLOTS
    expected = {
        f"f{n} {at // 60_000 % 10}-59/10 * * * * {at}" for n in range(FUNCTIONS) for at in slots
    }
    twice = [line for line, count in fired.items() if count > 1]
    assert (len(expected - fired.keys()), len(twice), len(fired.keys() - expected)) == (0, 0, 0)
    assert len(fired) == FUNCTIONS * SLOTS == 10_000
    assert min(len(lines) for lines in said) > FUNCTIONS  # both had a share

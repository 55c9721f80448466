"""`amba-run doctor --attack`, in process: the walls of this machine, and the ways out."""

from __future__ import annotations

import asyncio

import pytest

from amba_run import attack
from amba_run.attack import Walls, WaysOut
from amba_runtime.engine.workerd.engine import WorkerdEngine, find_workerd
from amba_runtime.sandbox.escape import Finding, Verdict

HOLE = Finding("fork", "open", Verdict.HOLE)
REFUSED = Finding("fork", "EPERM", Verdict.REFUSED)


@pytest.mark.parametrize(
    ("walls", "ok"),
    [
        (Walls(3, "", (REFUSED,)), True),
        (Walls(2, "", (REFUSED,)), True),
        (Walls(1, "", (REFUSED,)), False),
        (Walls(3, "", (REFUSED, HOLE)), False),
        (Walls(3, "", fault="it did not run"), False),
    ],
)
def test_when_the_walls_stand(walls: Walls, ok: bool) -> None:
    """Tier 2 or more, a probe that ran, no hole: all three (reliability.md F1)."""
    assert walls.ok is ok


@pytest.mark.parametrize(
    ("ways_out", "ok"),
    [
        (WaysOut(9), True),
        (WaysOut(9, connections=1), False),
        (WaysOut(9, answered={"http://127.1/": "200"}), False),
        (WaysOut(fault="it did not run"), False),
    ],
)
def test_when_the_ways_out_are_shut(ways_out: WaysOut, ok: bool) -> None:
    """Nobody came, and nobody was answered (reliability.md G1)."""
    assert ways_out.ok is ok


@pytest.mark.slow
def test_the_strongest_walls_here_stand() -> None:
    """Every try refused as listed, and no connection to any canary (must show 1 and 5)."""
    walls, ways_out = asyncio.run(attack.attack(find_workerd()))
    assert ways_out == WaysOut(len(ways_out.answered) or ways_out.tried)
    assert ways_out.tried >= 60
    if walls.tier < 2:
        pytest.skip(f"no walls here: {walls.notes}")
    assert walls.ok
    assert len(walls.findings) >= 70
    assert [f for f in walls.findings if f.verdict is Verdict.OTHERWISE] == []


@pytest.mark.slow
def test_without_walls_it_says_so() -> None:
    """At tier 0 nearly everything works, and that is not hidden; egress holds by itself."""
    walls, ways_out = asyncio.run(attack.attack(find_workerd(), most=0))
    assert (walls.tier, walls.ok, walls.fault) == (0, False, "")
    assert len(walls.holes) >= 30
    assert ways_out.ok


@pytest.mark.slow
def test_a_lost_way_out_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even the allowed canary answers, nothing is known."""
    monkeypatch.setattr(attack, "GUEST", attack.GUEST.replace("await fetch(", "await fetchh("))

    async def run() -> WaysOut:
        engine = WorkerdEngine(program=find_workerd(), most=0)
        try:
            await engine.open()
            return await attack.try_ways_out(engine)
        finally:
            await engine.close()

    assert asyncio.run(run()).fault.startswith("no way out at all")


@pytest.mark.slow
def test_a_function_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault, not a traceback and not an all-clear."""
    monkeypatch.setattr(attack, "GUEST", "throw new Error('%d') /* %s */")

    async def run() -> WaysOut:
        engine = WorkerdEngine(program=find_workerd(), most=0)
        try:
            await engine.open()
            return await attack.try_ways_out(engine)
        finally:
            await engine.close()

    assert "could not be run" in asyncio.run(run()).fault


@pytest.mark.slow
def test_a_probe_that_does_not_start_is_told() -> None:
    """The spawner is gone: a fault, and nothing left behind."""

    async def run() -> Walls:
        engine = WorkerdEngine(program=find_workerd(), most=0)
        try:
            await engine.open()
            await engine.spawner.close()
            return await attack.try_walls(engine)
        finally:
            await engine.close()

    walls = asyncio.run(run())
    assert "could not be run" in walls.fault
    assert not walls.ok


def test_elsewhere_there_is_no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS and Windows: said, nothing is tried."""
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    walls = asyncio.run(attack.try_walls(WorkerdEngine(program=find_workerd(), most=0)))
    assert walls.fault == "there is no probe for this machine"

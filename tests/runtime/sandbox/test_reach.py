"""Programs that lie where an engine's own user may not go are brought to where it may."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from amba_runtime.engine.workerd.engine import WorkerdEngine, find_workerd
from amba_runtime.private import barrier
from amba_runtime.sandbox.reach import WHEEL_LIBRARIES, Reach


def _program(folder: Path, mode: int = 0o755) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "tool"
    program.write_bytes(b"#!/bin/true")
    program.chmod(mode)
    return program


def test_a_program_that_anybody_may_run_stays() -> None:
    """Nothing is copied without a need."""
    reach = Reach()
    assert reach.of(Path("/bin/sh")) == Path("/bin/sh").resolve()
    reach.close()


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_program_that_is_shut_away_is_brought(tmp_path: Path, mode: int) -> None:
    """Once, to where the way is open, with what the wheel lays beside its bwrap; then it goes."""
    tmp_path.chmod(0o700)
    program = _program(tmp_path / "site" / "package" / "bin", mode)
    libraries = tmp_path / "site" / WHEEL_LIBRARIES
    libraries.mkdir()
    (libraries / "libcap.so").write_bytes(b"library")
    reach = Reach()
    moved = reach.of(program)
    assert barrier(moved) is None
    assert moved.stat().st_mode & 0o777 == 0o755
    assert moved.read_bytes() == b"#!/bin/true"
    beside = moved.parent.parent.parent / WHEEL_LIBRARIES / "libcap.so"
    assert beside.read_bytes() == b"library"
    assert barrier(beside) is None
    assert reach.of(program) == moved
    reach.close()
    assert not moved.exists()
    assert program.exists()
    reach.close()


@pytest.mark.slow
def test_an_engine_that_is_shut_away_is_jailed_all_the_same(tmp_path: Path) -> None:
    """As strong as elsewhere: an installation in /root is no weaker one (row F4)."""
    if os.getuid() != 0:
        pytest.skip("only root has users to give")
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o700)
    program = shut / "workerd"
    os.link(find_workerd(), program)

    async def tier(path: Path) -> int:
        engine = WorkerdEngine(program=path)
        try:
            await engine.open()
            return engine.sandbox.tier
        finally:
            await engine.close()

    assert asyncio.run(tier(program)) == asyncio.run(tier(find_workerd()))

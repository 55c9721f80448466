"""Small drills with every run; `python -m tests.drills` has the long ones (issue 3, rows 4 to 11).

Times are not judged here: only what is lost, mixed or refused.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.drills import crash, disk, switch
from tests.drills.figures import Figure, table

pytestmark = pytest.mark.slow


def reached(figures: list[Figure]) -> bool:
    """Every figure that something is asked of; the table shows in pytest's output."""
    print(table(figures))
    return all(figure.good is not False for figure in figures)


def test_a_switch_under_load_fails_and_mixes_nothing(tmp_path: Path) -> None:
    """Every answer belongs to one deployment, none to one that was superseded (row 5)."""
    assert reached(switch.run(tmp_path, deploys=12, rollbacks=4, seed=11))


def test_kill_nine_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Deploys, rollbacks and secrets that were answered are there after `kill -9` (row 6)."""
    assert reached(crash.run(tmp_path, rounds=4, seed=12))


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="a tmpfs of its own needs root and unshare",
)
def test_full_read_only_and_damaged_disks_are_told(tmp_path: Path) -> None:
    """507, STATE_READ_ONLY, STATE_DAMAGED; what was stored stays (row 11)."""
    figures = disk.run(tmp_path)
    assert reached(figures)
    assert len(figures) >= 11

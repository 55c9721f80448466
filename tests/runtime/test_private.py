"""Private folders: gone at the end, also at an end that nobody could tidy up after."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from amba_runtime.private import LOCK, PrivateFolder, sweep


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the test's own."""
    place = tmp_path / "t"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def test_a_folder_is_ours_alone_and_goes_with_close(temporary: Path) -> None:
    """Mode 0700, under the prefix; `close` removes it, twice does no harm."""
    folder = PrivateFolder("state-")
    assert folder.path.parent == temporary
    assert folder.path.name.startswith("amba-state-")
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.close()
    folder.close()
    assert not folder.path.exists()


def test_what_a_killed_process_left_is_swept(temporary: Path) -> None:
    """The secrets of a process that was killed go; those of a living one stay."""
    code = (
        "import os, signal, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from amba_runtime.private import PrivateFolder\n"
        "folder = PrivateFolder()\n"
        "(folder.path / 'worker.capnp').write_text('secret')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(temporary)], check=False)
    (left,) = temporary.iterdir()
    assert (left / "worker.capnp").exists()
    alive = PrivateFolder()
    assert sweep() == 1
    assert list(temporary.iterdir()) == [alive.path]
    assert sweep() == 0
    alive.close()


def test_a_sweep_touches_nothing_else(temporary: Path, tmp_path: Path) -> None:
    """Other names, folders without a lock, files and symbolic links stay."""
    other = tmp_path / "other"
    other.mkdir()
    (other / LOCK).touch()
    (temporary / "amba-link").symlink_to(other)
    (temporary / "amba-file").touch()
    (temporary / "amba-unlocked").mkdir()
    (temporary / "mine").mkdir()
    (temporary / "mine" / LOCK).touch()
    linked = temporary / "amba-linked-lock"
    linked.mkdir()
    (linked / LOCK).symlink_to(other / LOCK)
    before = sorted(os.listdir(temporary))
    assert sweep() == 0
    assert sorted(os.listdir(temporary)) == before
    assert (other / LOCK).exists()


def test_a_sweep_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where there is no temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    assert sweep() == 0

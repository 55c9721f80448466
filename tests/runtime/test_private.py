"""Private folders: gone at the end, also at an end that nobody could tidy up after."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from amba_runtime import private
from amba_runtime.private import LOCK, PrivateFolder, barrier, open_place, sweep


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


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder where every user may come, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="reach-", dir=open_place()) as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_what_shuts_others_out_is_found(reachable: Path) -> None:
    """The outermost folder that only its owner may enter; a path that is not there is an error."""
    for name in ("a", "a/b", "a/b/c"):
        (reachable / name).mkdir()
        (reachable / name).chmod(0o755)
    assert barrier(reachable / "a" / "b" / "c") is None
    (reachable / "a" / "b").chmod(0o700)
    assert barrier(reachable / "a" / "b") is None  # what it is itself is another question
    assert barrier(reachable / "a" / "b" / "c") == reachable / "a" / "b"
    (reachable / "a").chmod(0o750)
    assert barrier(reachable / "a" / "b" / "c") == reachable / "a"
    with pytest.raises(FileNotFoundError):
        barrier(reachable / "nothing" / "at" / "all")


def test_engines_with_users_of_their_own_get_a_place_that_is_open(
    reachable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary folder where every user may come, else a usual one; both are swept."""
    usual, other = reachable / "usual", reachable / "other"
    for place in (usual, other):
        place.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(usual))
    monkeypatch.setattr(private, "OPEN_PLACES", (reachable / "nothing", other))
    assert open_place() == usual  # there is none: better shut than nowhere
    other.chmod(0o711)
    assert open_place() == other
    folder = PrivateFolder("x-", within=open_place())
    assert folder.path.parent == other
    left = other / "amba-left"
    left.mkdir()
    (left / LOCK).touch()
    assert sweep() == 1
    assert folder.path.exists()
    folder.close()
    usual.chmod(0o755)
    assert open_place() == usual

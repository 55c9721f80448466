"""Control groups: found, made, joined, read and removed. Source: reliability.md 4.3."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from amba_runtime.sandbox import cgroups
from amba_runtime.sandbox.cgroups import Cgroups, Group

MIB = 1024 * 1024

HOG = """
import os, sys
for path in sys.argv[1:]:
    with open(path, "wb", buffering=0) as file:
        file.write(b"0")
print("in", flush=True)
sys.stdin.readline()
kept = []
while True:
    kept.append(b"x" * (1 << 20))
"""


class Kernel:
    """A tree of version 2 that behaves as the kernel's where it matters to us."""

    def __init__(self, root: Path, *, offered: str = "cpu memory pids", path: str = "/a") -> None:
        self.root = root
        self.above = root / path.lstrip("/")
        self.above.mkdir(parents=True)
        (root / "cgroup.controllers").write_text(offered)
        if self.above != root:
            (self.above / "cgroup.controllers").write_text(offered)
        (self.above / "cgroup.subtree_control").write_text("")
        (self.above / "cgroup.procs").write_text(f"{os.getpid()}\n")
        self.own = root / "own"
        self.own.write_text(f"0::{path}\n")

    def write(self, path: Path, text: str) -> None:
        """A group that holds processes can give nothing down; one process is in one group."""
        procs = path.parent / "cgroup.procs"
        if path.name == "cgroup.subtree_control":
            if procs.exists() and procs.read_text():
                raise OSError(errno.EBUSY, "Device or resource busy")
            text = text.replace("+", "")
        if path.name == "cgroup.procs":
            left = [pid for pid in (self.above / "cgroup.procs").read_text().split() if pid != text]
            (self.above / "cgroup.procs").write_text("\n".join(left))
            text = (path.read_text() if path.exists() else "") + text + "\n"
        path.write_text(text)

    def detect(self) -> Cgroups:
        return Cgroups.detect(self.root, self.own, self.write)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A group delegated to us, with this process in it."""
    return Kernel(tmp_path)


@pytest.fixture
def real() -> Iterator[Cgroups]:
    """Groups of this machine."""
    found = Cgroups.detect()
    if "memory" not in found.controllers:
        pytest.skip(f"no control groups to write to here: {found.note}")
    yield found
    found.close()


def _v1(tmp_path: Path, *controllers: str, path: str = "/") -> tuple[Path, Path]:
    root = tmp_path / "root"
    for controller in controllers:
        (root / controller).mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("".join(f"{i}:{c}:{path}\n" for i, c in enumerate(controllers)) + "0::/\n")
    return root, own


def _text(group: Group, name: str) -> str:
    return (group.procs[0].parent / name).read_text()


def test_version_2_moves_us_to_a_leaf_and_limits_the_rest(kernel: Kernel) -> None:
    """No group has both processes and limited children (cgroup-v2, no internal processes)."""
    found = kernel.detect()
    assert found.version == 2
    assert found.controllers == {"memory", "pids", "cpu"}
    assert found.note == ""
    assert (kernel.above / cgroups.LEAF / "cgroup.procs").read_text() == f"{os.getpid()}\n"
    assert (kernel.above / "cgroup.subtree_control").read_text() == "memory pids cpu"
    found.close()


def test_version_2_sets_each_limit(kernel: Kernel) -> None:
    """memory without swap, all of it ended at once, threads, less CPU than ours (4.3)."""
    found = kernel.detect()
    group = found.open("one", memory_bytes=256 * MIB)
    assert _text(group, "memory.max") == str(256 * MIB)
    assert _text(group, "memory.swap.max") == "0"
    assert _text(group, "memory.oom.group") == "1"
    assert _text(group, "pids.max") == "64"
    assert (group.procs[0].parent.parent / "cpu.weight").read_text() == "50"
    assert [path.name for path in group.procs] == ["cgroup.procs"]


def test_version_2_reads_what_the_kernel_says(kernel: Kernel) -> None:
    """What is held is told without files that can be dropped; deaths for memory are counted."""
    group = kernel.detect().open("one", memory_bytes=MIB)
    folder = group.procs[0].parent
    assert (group.memory_bytes(), group.peak_bytes(), group.out_of_memory()) == (None, None, 0)
    (folder / "memory.current").write_text("900000\n")
    (folder / "memory.peak").write_text("950000\n")
    (folder / "memory.stat").write_text("anon 5\ninactive_file 100000\nactive_file 200000\nodd\n")
    (folder / "memory.events").write_text("oom 2\noom_kill 1\n")
    (folder / "cgroup.procs").write_text("7\n8\n")
    assert group.memory_bytes() == 600_000
    assert group.peak_bytes() == 950_000
    assert group.out_of_memory() == 1
    assert sorted(group.members()) == [7, 8]
    assert group.kill()
    assert (folder / "cgroup.kill").read_text() == "1"


def test_version_2_in_a_leaf_uses_the_group_above(tmp_path: Path) -> None:
    """A node started by a node of ours stands in the leaf already."""
    kernel = Kernel(tmp_path, path="/a")
    (kernel.above / cgroups.LEAF).mkdir()
    kernel.own.write_text(f"0::/a/{cgroups.LEAF}\n")
    (kernel.above / "cgroup.procs").write_text("")
    found = kernel.detect()
    assert found.version == 2
    assert found.open("one", memory_bytes=MIB).procs[0].parents[2] == kernel.above


def test_version_2_takes_what_is_delegated(tmp_path: Path) -> None:
    """Memory is the one that we need; what else is missing is said."""
    found = Kernel(tmp_path, offered="memory").detect()
    assert found.controllers == {"memory"}
    assert found.note == "pids: not delegated; cpu: not delegated"


@pytest.mark.parametrize("offered", ["", "hugetlb", "cpu pids"])
def test_version_2_without_memory_is_none(tmp_path: Path, offered: str) -> None:
    """Where memory is not delegated, the watchdog looks for itself."""
    found = Kernel(tmp_path, offered=offered).detect()
    assert found.version == 0
    assert "no memory controller" in found.note


def test_strangers_in_our_group_are_left_alone(kernel: Kernel) -> None:
    """We move nobody else, and then not ourselves either: there are no groups."""
    (kernel.above / "cgroup.procs").write_text(f"{os.getpid()}\n1\n")
    found = kernel.detect()
    assert found.version == 0
    assert "processes of others stand in it" in found.note
    assert (kernel.above / "cgroup.procs").read_text().split() == [str(os.getpid()), "1"]
    assert not (kernel.above / cgroups.LEAF).exists()


def test_a_group_that_cannot_be_made_is_no_group(kernel: Kernel) -> None:
    """A refusal on the way down leaves nothing behind."""

    def refuse(path: Path, text: str) -> None:
        if path.name == "cgroup.subtree_control" and path.parent.parent == kernel.above:
            raise OSError(errno.EACCES, "Permission denied")
        if path.name != "cgroup.procs":
            path.write_text(text)

    found = Cgroups.detect(kernel.root, kernel.own, refuse)
    assert found.version == 0
    assert "Permission denied" in found.note
    assert [p.name for p in kernel.above.iterdir() if p.name.startswith("amba-4")] == []


def test_version_2_not_ours_to_give_down(kernel: Kernel) -> None:
    """An undelegated group is read-only: said, not raised."""

    def refuse(_path: Path, _text: str) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    assert "Permission denied" in Cgroups.detect(kernel.root, kernel.own, refuse).note


def test_version_1_sets_each_limit(tmp_path: Path) -> None:
    """memory and swap together, threads, less CPU than ours; joined by `tasks` (4.3)."""
    found = Cgroups.detect(*_v1(tmp_path, "memory", "pids", "cpu"))
    assert found.version == 1
    group = found.open("one", memory_bytes=256 * MIB, pids=9)
    memory, pids, cpu = (path.parent for path in group.procs)
    assert (memory / "memory.limit_in_bytes").read_text() == str(256 * MIB)
    assert (memory / "memory.memsw.limit_in_bytes").read_text() == str(256 * MIB)
    assert (pids / "pids.max").read_text() == "9"
    assert (cpu.parent / "cpu.shares").read_text() == "512"
    assert {path.name for path in group.procs} == {"tasks"}
    assert group.kill() is False


def test_version_1_without_swap_accounting(tmp_path: Path) -> None:
    """Where swap is not counted, the group does not use any."""

    def refuse(path: Path, text: str) -> None:
        if path.name == "memory.memsw.limit_in_bytes":
            raise OSError(errno.EACCES, "Permission denied")
        path.write_text(text)

    root, own = _v1(tmp_path, "memory")
    group = Cgroups.detect(root, own, refuse).open("one", memory_bytes=MIB)
    assert _text(group, "memory.swappiness") == "0"


def test_version_1_says_what_is_missing(tmp_path: Path) -> None:
    """One controller is better than none."""
    found = Cgroups.detect(*_v1(tmp_path, "memory"))
    assert found.controllers == {"memory"}
    assert found.note == "pids: not mounted; cpu: not mounted"
    group = found.open("one", memory_bytes=MIB)
    (group.procs[0].parent / "memory.usage_in_bytes").write_text("500")
    (group.procs[0].parent / "memory.stat").write_text("total_inactive_file 100\n")
    assert group.memory_bytes() == 400


def test_version_1_that_is_read_only(tmp_path: Path) -> None:
    """A mount that refuses is no group, and says why."""

    def refuse(_path: Path, _text: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    root, own = _v1(tmp_path, "cpu")
    found = Cgroups.detect(root, own, refuse)
    assert found.version == 0
    assert "cpu: Read-only file system" in found.note
    assert list((root / "cpu").iterdir()) == []


@pytest.mark.parametrize("listed", ["", "0::/\n", "3:cpuset:/\n"])
def test_no_controllers_are_no_groups(tmp_path: Path, listed: str) -> None:
    """A system without groups gives null groups, which do nothing and raise nothing."""
    own = tmp_path / "own"
    own.write_text(listed)
    found = Cgroups.detect(tmp_path, own)
    assert found.version == 0
    group = found.open("one", memory_bytes=MIB)
    assert group.procs == ()
    assert (group.memory_bytes(), group.peak_bytes()) == (None, None)
    assert (group.out_of_memory(), group.members(), group.kill()) == (0, [], False)
    group.close()
    found.close()


def test_a_system_that_lists_no_groups(tmp_path: Path) -> None:
    """Elsewhere than on Linux there is no such file."""
    assert "cannot be read" in Cgroups.detect(tmp_path, tmp_path / "absent").note


def test_a_refused_limit_leaves_nothing(tmp_path: Path) -> None:
    """`open` raises, and its folders are gone."""

    def refuse(path: Path, text: str) -> None:
        if path.name == "memory.limit_in_bytes":
            raise OSError(errno.EINVAL, "Invalid argument")

    root, own = _v1(tmp_path, "memory")
    found = Cgroups.detect(root, own, refuse)
    with pytest.raises(OSError, match="Invalid argument"):
        found.open("one", memory_bytes=MIB)
    assert list(root.rglob("one")) == []
    found.close()
    assert list((root / "memory").iterdir()) == []


def test_a_busy_group_is_removed_later(tmp_path: Path) -> None:
    """What a last process still stands in goes with the next call, or with the owner."""
    root, own = _v1(tmp_path, "pids")
    found = Cgroups.detect(root, own)
    group = found.open("one", memory_bytes=MIB)
    folder = group.procs[0].parent  # the files in it keep it, as a process would
    group.close()
    group.close()
    assert folder.exists()
    (folder / "pids.max").unlink()
    found.open("two", memory_bytes=MIB)
    assert not folder.exists()
    found.close()
    assert found.version == 0


def test_groups_of_the_dead_are_swept(tmp_path: Path) -> None:
    """An owner is a pid and its start: another process with the same pid is another owner."""
    root, own = _v1(tmp_path, "memory")
    space = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    dead = root / "memory" / f"amba-{space}-{os.getpid()}-1-abcdef01"
    (dead / "group").mkdir(parents=True)
    elsewhere = root / "memory" / f"amba-1-{os.getpid()}-1-abcdef01"
    elsewhere.mkdir()
    stranger = root / "memory" / "amba-things"
    stranger.mkdir()
    found = Cgroups.detect(root, own)
    found.open("one", memory_bytes=MIB)
    assert cgroups.sweep(root / "memory") == 0
    left = set((root / "memory").iterdir())
    assert dead not in left
    assert {elsewhere, stranger} < left
    assert len(left) == 3
    assert cgroups.sweep(root / "absent") == 0


def _hog(group: Group) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", HOG, *map(str, group.procs)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@pytest.mark.slow
def test_a_memory_bomb_dies_in_its_group(real: Cgroups) -> None:
    """The kernel ends it at the cap, counts it, and we stand beside (reliability.md E10, T4)."""
    group = real.open("bomb", memory_bytes=48 * MIB)
    with _hog(group) as hog:
        assert hog.stdout is not None
        assert hog.stdin is not None
        assert hog.stdout.readline() == b"in\n"
        assert group.members() == [hog.pid]
        held = group.memory_bytes()
        assert held is not None
        assert 0 < held < 48 * MIB
        assert group.out_of_memory() == 0
        hog.stdin.write(b"\n")
        hog.stdin.flush()
        assert hog.wait(20) == -signal.SIGKILL
    assert group.out_of_memory() == 1
    assert (group.peak_bytes() or 0) <= 48 * MIB
    folder = group.procs[0].parent
    group.close()
    real.close()
    assert not folder.parent.exists()


@pytest.mark.slow
def test_what_a_dead_owner_left_is_ended(real: Cgroups) -> None:
    """A process that outlived its owner goes with its group."""
    group = real.open("left", memory_bytes=48 * MIB)
    with _hog(group) as hog:
        assert hog.stdout is not None
        assert hog.stdout.readline() == b"in\n"
        real.close()
        assert hog.wait(20) == -signal.SIGKILL
    group.close()
    real.close()

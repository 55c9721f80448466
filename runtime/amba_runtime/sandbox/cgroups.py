"""Control groups: memory, number of processes and share of CPU of what runs in the walls.

One folder per owner (an engine of ours) and controller, one per isolate below it. Version 1
and version 2 of the kernel's interface are spoken; where neither can be written to, groups do
nothing and the watchdog looks at the process itself. Never RLIMIT_AS or RLIMIT_DATA: V8
reserves far more than it uses. Source: reliability.md 4.3, notes 1 and 10; the kernel's
admin-guide/cgroup-v1 and cgroup-v2.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from amba_runtime import entropy, limits

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
CONTROLLERS = ("memory", "pids", "cpu")
LEAF = "amba-node"
"""Where we go ourselves: version 2 lets no process stand in a group that has limited ones."""

_OWNER = re.compile(r"amba-(?P<space>[0-9]+)-(?P<pid>[0-9]+)-(?P<start>[0-9]+)-[0-9a-z]+")

Write = Callable[[Path, str], None]


class Group:
    """The group of one process and its children. A null group has no files and no limits.

    Attributes:
        procs: a process writes "0" into each, before it gives up its user, to be in it.
    """

    def __init__(
        self, folders: dict[str, Path], *, version: int, late: list[Path], write: Write
    ) -> None:
        self._folders = folders
        self._unique = list(dict.fromkeys(folders.values()))
        self._version = version
        self._late = late
        self._write = write
        # version 1 moves a thread by itself without stopping the world for 6 to 25 ms, as a
        # move by `cgroup.procs` does; who joins has one thread, so that it is the same
        member = "tasks" if version == 1 else "cgroup.procs"
        self.procs = tuple(folder / member for folder in self._unique)

    def cap(self, memory_bytes: int, pids: int) -> None:
        """Set the limits. Raises OSError."""
        memory = self._folders.get("memory")
        if memory is not None and self._version == 1:
            self._write(memory / "memory.limit_in_bytes", str(memory_bytes))
            try:  # memory and swap together, where the kernel counts swap
                self._write(memory / "memory.memsw.limit_in_bytes", str(memory_bytes))
            except OSError:
                self._write(memory / "memory.swappiness", "0")
        elif memory is not None:
            # no memory.high: it slows a hungry function down where it should end
            self._write(memory / "memory.max", str(memory_bytes))
            self._write(memory / "memory.oom.group", "1")
            with contextlib.suppress(OSError):  # absent where swap is not counted
                self._write(memory / "memory.swap.max", "0")
        if "pids" in self._folders:
            self._write(self._folders["pids"] / "pids.max", str(pids))

    def memory_bytes(self) -> int | None:
        """What the group holds, kernel memory included, files that can be dropped not."""
        folder = self._folders.get("memory")
        if folder is None:
            return None
        v1 = self._version == 1
        usage = _number(folder / ("memory.usage_in_bytes" if v1 else "memory.current"))
        if usage is None:
            return None
        counts = _counts(folder / "memory.stat")
        prefix = "total_" if v1 else ""
        files = counts.get(f"{prefix}inactive_file", 0) + counts.get(f"{prefix}active_file", 0)
        return max(0, usage - files)

    def peak_bytes(self) -> int | None:
        """The most that it ever held, files included; None where the system does not say."""
        folder = self._folders.get("memory")
        v1 = self._version == 1
        name = "memory.max_usage_in_bytes" if v1 else "memory.peak"
        return None if folder is None else _number(folder / name)

    def out_of_memory(self) -> int:
        """How many of its processes the kernel killed for memory."""
        folder = self._folders.get("memory")
        if folder is None:
            return 0
        name = "memory.oom_control" if self._version == 1 else "memory.events"
        return _counts(folder / name).get("oom_kill", 0)

    def members(self) -> list[int]:
        """Pids of the processes in it."""
        return [pid for folder in self._unique[:1] for pid in _pids(folder)]

    def kill(self) -> bool:
        """End every process in it at once. False where the system cannot: kill by pid."""
        if self._version != 2 or not self._unique:
            return False
        try:
            self._write(self._unique[0] / "cgroup.kill", "1")
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Remove it, or later what its last process still stands in. Idempotent."""
        self._late += [folder for folder in self._unique if not _remove(folder)]
        self._unique = []


class Cgroups:
    """The groups of one owner. `close` removes them; what it cannot, a later `sweep` does.

    Attributes:
        version: 1 or 2 of the kernel's interface; 0 where there are no groups for us.
        controllers: of CONTROLLERS, what we may set.
        note: why there is nothing, or not all; "" where there is.
    """

    def __init__(
        self, *, version: int, bases: dict[str, Path], note: str = "", write: Write | None = None
    ) -> None:
        self.version = version
        self.note = note
        self._bases = bases  # controller -> our own folder in it; changed by `close` only
        self._late: list[Path] = []
        self._write = write or _write

    @property
    def controllers(self) -> frozenset[str]:
        """Which limits are in force."""
        return frozenset(self._bases)

    @classmethod
    def none(cls, note: str = "not asked for") -> Cgroups:
        """No groups: every `open` gives a null group."""
        return cls(version=0, bases={}, note=note)

    @classmethod
    def detect(cls, root: Path = ROOT, own: Path = OWN, write: Write | None = None) -> Cgroups:
        """Find what we may use, make our folders, remove those of dead owners. Never raises.

        Call before children are started: with version 2 we may have to move to a leaf of our
        own group, and they should come along. A few milliseconds; touches the disk.
        """
        write = write or _write
        try:
            listed = own.read_text()
        except OSError as error:
            return cls.none(f"control groups cannot be read: {error.strerror}")
        places = _places(listed)
        if any(controller in places for controller in CONTROLLERS):
            return _open_v1(root, places, write)
        if "" in places and (root / "cgroup.controllers").exists():
            return _open_v2(root, places[""], write)
        return cls.none("this system has no control groups of memory or processes")

    def open(self, name: str, *, memory_bytes: int, pids: int | None = None) -> Group:
        """Make the group of one isolate.

        Args:
            name: a word unique among those of this owner.
            memory_bytes: all that it may hold; swap is none.
            pids: threads count too; limits.CGROUP_PIDS if None.

        Raises:
            OSError: the system refused; nothing is left behind.
        """
        self._tidy()
        folders = {controller: base / name for controller, base in self._bases.items()}
        group = Group(folders, version=self.version, late=self._late, write=self._write)
        try:
            for folder in dict.fromkeys(folders.values()):
                folder.mkdir()
            group.cap(memory_bytes, limits.CGROUP_PIDS.value if pids is None else pids)
        except OSError:
            group.close()
            raise
        return group

    def _tidy(self) -> None:
        self._late[:] = [folder for folder in self._late if not _remove(folder)]

    def close(self) -> None:
        """Remove every folder of this owner that no process stands in. Idempotent."""
        self._tidy()
        for base in dict.fromkeys(self._bases.values()):
            _remove_owner(base)
        self._bases = {}
        self.version = 0


def sweep(folder: Path) -> int:
    """Remove the groups below `folder` whose owner is dead, ending what is left in them.

    Only owners of our own process namespace are judged. Returns how many were removed.
    """
    removed = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in islice(entries, limits.SWEPT_ENTRIES.value):
            match = _OWNER.fullmatch(entry.name)
            if match is None or match["space"] != _process_space():
                continue
            if _start_time(int(match["pid"])) != match["start"]:
                removed += _remove_owner(Path(entry.path))
    return removed


def _places(listed: str) -> dict[str, str]:
    """Controller -> path of our group, as /proc/self/cgroup lists it; "" is version 2."""
    found: dict[str, str] = {}
    for line in listed.splitlines():
        _id, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _owner_name() -> str:
    pid = os.getpid()
    return f"amba-{_process_space()}-{pid}-{_start_time(pid)}-{entropy.short_id()}"


def _open_v1(root: Path, places: dict[str, str], write: Write) -> Cgroups:
    bases: dict[str, Path] = {}
    missing: list[str] = []
    name = _owner_name()
    for controller in CONTROLLERS:
        if controller not in places:
            missing.append(f"{controller}: not mounted")
            continue
        above = root / controller
        inner = above / places[controller].lstrip("/")
        # a container may see its own group as the root of the mount
        above = inner if inner.is_dir() else above
        sweep(above)
        try:
            (above / name).mkdir()
            if controller == "cpu":
                write(above / name / "cpu.shares", str(limits.CGROUP_CPU_SHARES.value))
            bases[controller] = above / name
        except OSError as error:
            missing.append(f"{controller}: {error.strerror}")
            _remove(above / name)
    if not bases:
        return Cgroups.none("control groups (version 1) cannot be written: " + "; ".join(missing))
    return Cgroups(version=1, bases=bases, note="; ".join(missing), write=write)


def _open_v2(root: Path, path: str, write: Write) -> Cgroups:
    own = root / path.lstrip("/")
    own = own if own.is_dir() else root
    above = own.parent if own.name == LEAF else own
    offered = _words(above / "cgroup.controllers")
    wanted = [controller for controller in CONTROLLERS if controller in offered]
    if "memory" not in wanted:
        return Cgroups.none(f"the group {above} has no memory controller: delegate it to us")
    sweep(above)
    folder = above / _owner_name()
    order = " ".join(f"+{controller}" for controller in wanted)
    try:
        if not set(wanted) <= _words(above / "cgroup.subtree_control"):
            _give_down(above, order, write)
        folder.mkdir()
        write(folder / "cgroup.subtree_control", order)
        if "cpu" in wanted:
            write(folder / "cpu.weight", str(limits.CGROUP_CPU_WEIGHT.value))
    except OSError as error:
        _remove(folder)
        return Cgroups.none(f"the group {above} cannot be used: {error.strerror}")
    note = "; ".join(f"{c}: not delegated" for c in CONTROLLERS if c not in wanted)
    return Cgroups(version=2, bases=dict.fromkeys(wanted, folder), note=note, write=write)


def _give_down(above: Path, order: str, write: Write) -> None:
    """Let groups below have limits; go to a leaf ourselves where that is the condition."""
    try:
        write(above / "cgroup.subtree_control", order)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        me = os.getpid()
        pids = _pids(above)
        if any(pid != me and _parent(pid) != me for pid in pids):
            raise OSError(errno.EBUSY, "processes of others stand in it") from None
        (above / LEAF).mkdir(exist_ok=True)
        for pid in pids:
            write(above / LEAF / "cgroup.procs", str(pid))
        write(above / "cgroup.subtree_control", order)


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _words(path: Path) -> set[str]:
    try:
        return set(path.read_text().split())
    except OSError:
        return set()


def _counts(path: Path) -> dict[str, int]:
    """Lines `name number`; what does not fit is skipped."""
    return dict(_pairs(path))


def _pairs(path: Path) -> Iterator[tuple[str, int]]:
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, number = line.partition(" ")
            if number.isdigit():
                yield name, int(number)


def _pids(folder: Path) -> list[int]:
    return [int(word) for word in _words(folder / "cgroup.procs") if word.isdigit()]


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on; empty for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _start_time(pid: int) -> str:
    """In ticks since the machine started: a pid and this name one process for ever."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _process_space() -> str:
    """Which pids we see: numbers of another namespace mean nothing to us."""
    try:
        return "".join(c for c in os.readlink("/proc/self/ns/pid") if c.isdigit())
    except OSError:
        return "0"


def _remove(folder: Path) -> bool:
    """Whether it is gone. A group goes only when nothing stands in it."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _remove_owner(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        for group in [entry for entry in folder.iterdir() if entry.is_dir()]:
            for pid in _pids(group):  # their owner is gone, and they should be too
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            _remove(group)
    return _remove(folder)

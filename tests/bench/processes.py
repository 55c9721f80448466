"""Start, watch, weigh and end the programs under test. Every end is by pid."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil  # type: ignore[import-untyped,unused-ignore]  # mypy has no types for it
from tests.bench.guard import family

STOP_S = 5.0
"""How long a program may take to end by itself after SIGTERM."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One look at a process tree: bytes resident (shared pages count in each), bytes private.

    Private is what ends with the process: dirty pages of its own. Clean pages of a program file
    are left out, for whether they are shared depends on who else runs that program.
    """

    resident: int
    private: int
    processes: int
    descriptors: int
    programs: dict[str, tuple[int, int]]
    """By program name: how many processes, and how many descriptors they hold together."""


class Guard:
    """A helper process that ends our children if we are killed: see `guard.py`.

    Used as a context manager; at its end it has nothing to do, unless children were left.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("guard.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        pipe.close()
        self._process.wait()

    def tell(self, verb: str, pid: int) -> None:
        """Add a child, or remove one that was ended in the ordinary way."""
        pipe = self._process.stdin
        assert pipe is not None
        pipe.write(f"{verb} {pid}\n")
        pipe.flush()


class Child:
    """One program with its descendants, in a session of its own, output to a file.

    From start to `stop`, which is idempotent and leaves nothing behind.
    """

    def __init__(
        self,
        guard: Guard,
        command: Sequence[str],
        *,
        folder: Path,
        output: Path,
        extra_env: Mapping[str, str],
    ) -> None:
        self.output = output
        self._guard = guard
        with output.open("wb") as sink:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **extra_env},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        guard.tell("add", self._process.pid)
        self._psutil = psutil.Process(self._process.pid)

    def ended(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    def tail(self, lines: int = 20) -> str:
        """The end of what it printed, for error messages."""
        text = self.output.read_text("utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def weigh(self) -> Weight:
        """Look at the whole tree now. Zombies count as processes: somebody forgot them."""
        resident = private = descriptors = 0
        count: Counter[str] = Counter()
        open_files: Counter[str] = Counter()
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                name = process.name()
                count[name] += 1
                with contextlib.suppress(psutil.ZombieProcess):
                    resident += process.memory_info().rss
                    private += _private(process)
                    descriptors += (held := process.num_fds())
                    open_files[name] += held
        return Weight(
            resident,
            private,
            count.total(),
            descriptors,
            {name: (count[name], open_files[name]) for name in sorted(count)},
        )

    def python_resident(self) -> int:
        """Bytes resident in the Python processes of the tree: amba-run itself, no engine."""
        total = 0
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                if _is_python(process):
                    total += process.memory_info().rss
        return total

    def _tree(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self._psutil, *self._psutil.children(recursive=True)]
        return []

    def stop(self) -> None:
        """SIGTERM to the program, a while to end, then SIGKILL to all that is left of it."""
        if self._process.returncode is not None and not self._left([]):
            return
        members = family(self._psutil)
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        for process in self._left(members):
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process.wait()
        self._guard.tell("remove", self._process.pid)

    def _left(self, members: list[psutil.Process]) -> list[psutil.Process]:
        known = {member.pid: member for member in members}
        known.update((process.pid, process) for process in family(self._psutil))
        return [process for process in known.values() if _alive(process)]


def _private(process: psutil.Process) -> int:
    # Linux counts dirty pages for us; elsewhere psutil's unique set size is the nearest
    with contextlib.suppress(OSError):
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text("ascii")
        found = re.search(r"^Private_Dirty:\s+(\d+) kB$", rollup, re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    return int(process.memory_full_info().uss)


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _is_python(process: psutil.Process) -> bool:
    # amba-run's processes may have set a title of their own: the program file decides
    with contextlib.suppress(psutil.ZombieProcess, psutil.AccessDenied):
        return Path(process.exe()).name.startswith("python")
    return False


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago, for programs that must be told one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def load_average_1m() -> float:
    """Programs running or waiting, averaged over a minute."""
    return os.getloadavg()[0]


def busy_share() -> float:
    """How busy all processors together were during one second, 0 to 1."""
    return float(psutil.cpu_percent(interval=1.0)) / 100

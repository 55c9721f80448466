"""Outlive the benchmark by a moment and end what it left: run with a pipe on stdin.

Each line read is the pid and the start time of a child that leads its own session. At the end of
the pipe, however the benchmark ended, those still alive are killed with all their descendants and
all of their session. Stands alone: nothing of ours is imported.
"""

from __future__ import annotations

import contextlib
import os
import sys

import psutil  # type: ignore[import-untyped,unused-ignore]  # mypy has no types for it


def family(leader: psutil.Process) -> list[psutil.Process]:
    """The leader, its descendants, and whoever is left of its session.

    Children of a leader that is gone belong to init by then; its session still names them.
    """
    found = {leader.pid: leader}
    with contextlib.suppress(psutil.Error):
        found.update((process.pid, process) for process in leader.children(recursive=True))
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in found and os.getsid(process.pid) == leader.pid:
                found[process.pid] = process
    return list(found.values())


def main() -> None:
    """Collect until the pipe ends, then kill. Signals meant for the benchmark pass by."""
    leaders: dict[int, psutil.Process] = {}
    for line in sys.stdin:
        verb, pid = line.split()
        if verb == "add":
            with contextlib.suppress(psutil.Error):
                leaders[int(pid)] = psutil.Process(int(pid))
        else:
            leaders.pop(int(pid), None)
    for leader in leaders.values():
        if psutil.pid_exists(leader.pid) and not leader.is_running():
            continue  # the number is somebody else's by now, so nobody of that session is left
        for process in family(leader):
            with contextlib.suppress(psutil.Error):
                process.kill()


if __name__ == "__main__":
    main()

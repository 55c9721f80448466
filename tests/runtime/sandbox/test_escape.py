"""The escape probe: what it tries, how answers are judged, and that it works without walls."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from amba_runtime.sandbox import Sandbox, escape
from amba_runtime.sandbox.escape import KILLED, ProbeFailed, Verdict, judge
from amba_runtime.sandbox.escape_elf import MACHINES, results
from amba_runtime.sandbox.escape_steps import OPEN, Bait, Step, steps
from amba_runtime.spawner import Spawner

BAIT = Bait("/amba", "word", 77, ("/run/other.sock",), ("other",))
F1 = {
    *("socket AF_INET", "socket AF_INET6", "socket AF_NETLINK", "socket AF_VSOCK"),
    *("unshare CLONE_NEWUSER", "mount", "ptrace", "bpf", "io_uring_setup", "userfaultfd"),
    *("perf_event_open", "keyctl", "process_vm_readv", "fork", "clone without CLONE_THREAD"),
    *("clone CLONE_NEWUSER", "memfd_create", "kill", "setns", "chroot", "personality"),
    *("open_by_handle_at", "getdents64", "PR_SET_MM", "clone3", "open /etc/passwd"),
    *("open /proc/self/maps", "make a file in /tmp", "write over its code", "socket AF_UNIX"),
    *("open /", "mmap RWX", "PR_SET_DUMPABLE", "connect /run/other.sock", "exec /bin/sh"),
    *("vfork", "make a file by its code"),
}
"""Names for the rows of reliability.md F1, measurement B4."""

NEEDED_HERE = {"socket AF_UNIX", "mmap RWX", "connect to its own way out"}

Exited = Callable[[int], None]
linux = pytest.mark.skipif(escape.machine() is None, reason="there is no probe for this machine")


@contextmanager
def _listening(name: str) -> Generator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        yield


@pytest.mark.parametrize("machine", MACHINES)
def test_every_row_of_f1_is_tried(machine: str) -> None:
    """36 or more rows; x86 has a few calls that other machines lack (reliability.md F1)."""
    names = [step.name for step in steps(BAIT, machine) if step.judged]
    assert len(names) == len(set(names)) >= 68
    missing = F1 - set(names)
    assert missing == (set() if machine == "x86_64" else {"fork", "vfork"})


@pytest.mark.parametrize("machine", MACHINES)
def test_walls_of_tier_3_let_nothing_through_that_is_not_listed(machine: str) -> None:
    """What is open at tier 3 is what an engine needs (measurement B4)."""
    opened = {s.name for s in steps(BAIT, machine) if s.judged and OPEN in s.expected(3)}
    assert opened == NEEDED_HERE | {"open /", "PR_SET_DUMPABLE"}
    weaker = {s.name for s in steps(BAIT, machine) if s.judged and OPEN in s.expected(2)}
    assert weaker == opened | {"connect /run/other.sock"}


STEP = Step("x", steps(BAIT, "x86_64")[0].call, at3="EPERM", at2="EPERM open", bare="open ESRCH")
NEEDED = Step("y", STEP.call, at3=OPEN, at2=OPEN)


@pytest.mark.parametrize(
    ("step", "tier", "answer", "verdict"),
    [
        (STEP, 3, "EPERM", Verdict.REFUSED),
        (STEP, 3, KILLED, Verdict.REFUSED),
        (STEP, 3, "ENOENT", Verdict.OTHERWISE),
        (STEP, 3, OPEN, Verdict.HOLE),
        (STEP, 2, OPEN, Verdict.KNOWN),
        (STEP, 1, OPEN, Verdict.HOLE),
        (STEP, 1, "ESRCH", Verdict.HOLE),
        (STEP, 0, "EPERM", Verdict.OTHERWISE),
        (NEEDED, 3, OPEN, Verdict.NEEDED),
        (NEEDED, 0, OPEN, Verdict.NEEDED),
        (NEEDED, 3, "EPERM", Verdict.OTHERWISE),
    ],
)
def test_how_an_answer_is_judged(step: Step, tier: int, answer: str, verdict: Verdict) -> None:
    """Open is a hole unless the tier's table says so; an error of the kernel's own is no wall."""
    assert judge(step, answer, tier) is verdict


async def _bare(folder: Path, *, paths: Sequence[str] = ()) -> tuple[list[Step], list[str]]:
    spawner = Spawner()
    await spawner.open()

    async def start(program: Path, own: Path, fds: Sequence[int], exited: Exited) -> None:
        await spawner.spawn([str(program)], cwd=own, fds=fds, exited=exited)

    try:
        return await escape.attack(start, folder, inside=Sandbox().inside, paths=paths)
    finally:
        await spawner.close()


@linux
def test_each_try_works_without_walls(tmp_path: Path) -> None:
    """A refusal proves something only where the same call gets through without walls.

    Rows that root alone could do, or that a container may refuse, are judged in the battery.
    """
    path = str(tmp_path / "canary")
    probe = tmp_path / "probe"
    probe.mkdir()
    with _listening(path):
        tries, answers = asyncio.run(_bare(probe, paths=[path]))
    got = dict(zip([step.name for step in tries], answers, strict=True))
    always = {
        *("socket AF_INET", "socket AF_NETLINK", f"connect {path}", "open /etc/passwd"),
        *("open /proc/self/maps", "make a file in /tmp", "write over its code", "getdents64"),
        *("change the mode of its code", "make a folder", "make a link", "remove its code"),
        *("fork", "clone without CLONE_THREAD", "kill", "memfd_create", "PR_SET_DUMPABLE"),
        *("exec /bin/sh", "mmap RWX", "socket AF_UNIX", "open the node's environment"),
    }
    assert {name for name in always if got.get(name, OPEN) != OPEN} == set()
    found = escape.findings(tries, answers, 0)
    assert len(found) == sum(step.judged for step in tries)
    assert {f.name for f in found if f.verdict is Verdict.NEEDED} == NEEDED_HERE
    assert list(Path("/tmp").glob("amba-escape-*")) == []


class Played:
    """Stands for a program in walls: says what it is told to, and ends with a code."""

    def __init__(self, *runs: tuple[int, int]) -> None:
        self.runs = list(runs)
        self.programs: list[Path] = []

    async def __call__(self, program: Path, _own: Path, fds: Sequence[int], exited: Exited) -> None:
        said, code = self.runs.pop(0)
        self.programs.append(program)
        os.write(fds[3], (1).to_bytes(8, "little", signed=True) * said)
        asyncio.get_running_loop().call_soon(exited, code)


def _attack(tmp_path: Path, start: Played) -> list[str]:
    return asyncio.run(escape.attack(start, tmp_path, inside=Sandbox().inside))[1]


@linux
def test_a_call_that_is_killed_for_is_left_out_the_next_time(tmp_path: Path) -> None:
    """What comes behind a call that ends the program is tried all the same."""
    whole = len(steps(Bait("/x", "y", 1), escape.machine() or ""))
    start = Played((20, -31), (30, -31), (whole, 0))
    answers = _attack(tmp_path, start)
    assert len(answers) == whole
    assert [i for i, answer in enumerate(answers) if answer == KILLED] == [20, 30]
    assert len({program.read_bytes() for program in start.programs}) == 3


@linux
def test_a_program_in_its_place_is_seen(tmp_path: Path) -> None:
    """The last try replaces the probe, which then ends well and says no more."""
    whole = len(steps(Bait("/x", "y", 1), escape.machine() or ""))
    assert _attack(tmp_path, Played((whole - 1, 0)))[-1] == OPEN


@linux
def test_a_probe_that_says_nothing_is_no_proof(tmp_path: Path) -> None:
    """Silence is not taken for safety."""
    with pytest.raises(ProbeFailed, match="said nothing and ended with code 127"):
        _attack(tmp_path, Played((0, 127)))


@linux
def test_a_probe_that_is_always_ended_is_no_proof(tmp_path: Path) -> None:
    """It comes to an end, however often it is killed."""
    with pytest.raises(ProbeFailed, match="ended over every call"):
        _attack(tmp_path, Played(*[(1, -31)] * 200))


def test_where_there_is_no_probe_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS, Windows, other processors."""
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(ProbeFailed, match="no probe for"):
        _attack(tmp_path, Played())
    assert results(b"") == []

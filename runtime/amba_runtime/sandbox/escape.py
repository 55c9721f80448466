"""The escape probe: run what broke out of JavaScript would run, and compare with the table.

The program goes through the same spawner and the same walls in the place of the engine, so that
what it finds is what an attacker would find. Source: reliability.md row F1.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import platform
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from amba_runtime import entropy, limits
from amba_runtime.sandbox.escape_elf import MACHINES, Call, assemble, results
from amba_runtime.sandbox.escape_steps import LINK, OPEN, WAY_OUT, Bait, Step, steps

KILLED = "killed"
"""In the place of an error's name: the walls ended the program over this call."""

CONFIG = "config"
"""The file in the probe's folder that stands for an engine's configuration."""

Start = Callable[[Path, Path, Sequence[int], Callable[[int], None]], Awaitable[None]]
"""Start a program: its file, the folder it may read, its descriptors, whom to tell its end."""


class ProbeFailed(Exception):
    """The probe did not get as far as its tries: nothing is known about the walls."""


class Verdict(StrEnum):
    """`HOLE`: got through where it should not. `KNOWN`: got through, and the table says so.

    `OTHERWISE`: refused, but not in the way that was listed: another wall stood in the way.
    """

    REFUSED = "refused"
    OTHERWISE = "otherwise"
    NEEDED = "needed"
    KNOWN = "known"
    HOLE = "hole"


@dataclass(frozen=True, slots=True)
class Finding:
    """How one try ended: `answer` is OPEN, KILLED or the name of an error."""

    name: str
    answer: str
    verdict: Verdict


def machine() -> str | None:
    """The machine to assemble for; None where the probe does not run."""
    system, name = platform.system(), platform.machine()
    return name if system == "Linux" and name in MACHINES else None


def judge(step: Step, answer: str, tier: int) -> Verdict:
    """Compare an answer with what the walls of a tier give.

    Below tier 2 there are no walls for system calls: whatever works is a hole.
    """
    expected = step.expected(tier)
    if answer == OPEN:
        if step.needed:
            return Verdict.NEEDED
        return Verdict.KNOWN if OPEN in expected and tier >= 2 else Verdict.HOLE
    if tier < 2 and answer in step.bare.split():
        return Verdict.HOLE  # an error, but the kernel's own: the call got through
    return Verdict.REFUSED if answer in expected or answer == KILLED else Verdict.OTHERWISE


def findings(tries: Sequence[Step], answers: Sequence[str], tier: int) -> list[Finding]:
    """One for each step that is judged."""
    return [
        Finding(step.name, answer, judge(step, answer, tier))
        for step, answer in zip(tries, answers, strict=True)
        if step.judged
    ]


async def attack(
    start: Start,
    folder: Path,
    *,
    inside: Callable[[Path, str], str],
    paths: Sequence[str] = (),
    abstract: Sequence[str] = (),
) -> tuple[list[Step], list[str]]:
    """Run every try and say what came of each.

    Args:
        start: starts a program inside the walls to be tried.
        folder: empty and ours; the probe's program and its `own` folder are made in it.
        inside: how a file of that own folder is called inside the walls (`Sandbox.inside`).
        paths, abstract: Unix sockets that are listened on outside.

    Raises:
        ProbeFailed: it did not run, or not to its end.
    """
    name = machine()
    if name is None:
        raise ProbeFailed(f"there is no probe for {platform.system()} on {platform.machine()}")
    own = folder / "own"
    own.mkdir(mode=0o700)
    (own / CONFIG).write_text("what an engine reads")
    bait = Bait(
        str(Path(inside(own, CONFIG)).parent),
        entropy.short_id(),
        os.getpid(),
        tuple(paths),
        tuple(abstract),
    )
    with socket.socket(socket.AF_UNIX) as way_out:
        way_out.bind(str(own / WAY_OUT))
        way_out.listen()
        tries = steps(bait, name)
        return tries, await _through(start, folder, own, tries, name)


async def _through(
    start: Start, folder: Path, own: Path, tries: Sequence[Step], name: str
) -> list[str]:
    """The answer to each try; the probe is started again behind each that ends it."""
    calls = [step.call for step in tries]
    nothing = Call(next(s.call.number for s in tries if s.name == "(getpid)"))
    killed: set[int] = set()
    for _ in tries:
        program = folder / f"probe-{len(killed)}"
        program.write_bytes(assemble(calls, machine=name, tell=LINK))
        program.chmod(0o755)
        said, code = await _run(start, program, own)
        got = results(said)
        answers = [_answer(i, value, killed) for i, value in enumerate(got)]
        if len(got) == len(tries):
            return answers
        if not got:
            raise ProbeFailed(f"the probe said nothing and ended with code {code}")
        if code == 0 and len(got) == len(tries) - 1:
            return [*answers, OPEN]  # another program ran in its place, and ended well
        killed.add(len(got))
        calls[len(got)] = nothing
    raise ProbeFailed("the probe was ended over every call")


def _answer(index: int, value: int, killed: set[int]) -> str:
    if index in killed:
        return KILLED
    return OPEN if value >= 0 else errno.errorcode.get(-value, str(value))


async def _run(start: Start, program: Path, own: Path) -> tuple[bytes, int | None]:
    """What one run wrote, and its exit code."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()
    ours, theirs = socket.socketpair()
    null = os.open(os.devnull, os.O_RDWR)
    said = b""
    with ours:
        ours.setblocking(False)
        try:
            await start(
                program,
                own,
                [null, null, null, theirs.fileno()],
                lambda code: None if ended.done() else ended.set_result(code),
            )
        finally:
            theirs.close()
            os.close(null)
        try:
            async with asyncio.timeout(limits.PROBE_S.value):
                with contextlib.suppress(OSError):  # it has ended already
                    await loop.sock_sendall(ours, b"1")
                with contextlib.suppress(OSError):
                    while len(said) < limits.PROBE_BYTES.value:
                        data = await loop.sock_recv(ours, 4096)
                        if not data:
                            break
                        said += data
                return said, await ended
        except TimeoutError:
            raise ProbeFailed(f"the probe did not end in {limits.PROBE_S.value:g} s") from None

"""The sandbox in force on this machine: which tier there is, and programs started inside it.

Source: reliability.md 4.2 (tiers), 4.3 (recipe), row F4.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from amba_runtime import limits
from amba_runtime.errors import InternalCode, InternalError
from amba_runtime.private import PrivateFolder, barrier, open_place
from amba_runtime.sandbox import bubblewrap, landlock, seccomp
from amba_runtime.sandbox.advice import advice
from amba_runtime.sandbox.enclosed import Enclosed
from amba_runtime.sandbox.libraries import NoProgramError, libraries
from amba_runtime.sandbox.reach import Reach
from amba_runtime.sandbox.start import Joins, Kit, Start
from amba_runtime.sandbox.users import Users
from amba_runtime.spawner import Spawner

STRONGEST = 3
_WORDS = {
    0: "plain child process: no wall but the engine's own",
    1: "no new privileges and resource limits: no wall but the engine's own",
    2: "Landlock and seccomp: no files, no network; processes and Unix sockets of its user are "
    "shared",
    3: "bubblewrap: namespaces of its own, an empty read-only root, seccomp",
}


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How strong the walls are, as `amba-run doctor` says it, and the way into them.

    Attributes:
        tier: 0 to 3.
        description: of the tier, in words.
        notes: why there is no higher one, each a sentence.
        fix: what to do about it, pasteable; "" where nothing is known.
        kit: what the walls are made of.
    """

    tier: int = 0
    description: str = _WORDS[0]
    notes: tuple[str, ...] = ()
    fix: str = ""
    kit: Kit = field(default_factory=Kit, repr=False)

    @classmethod
    async def detect(
        cls,
        program: Path,
        spawner: Spawner,
        *,
        most: int = STRONGEST,
        bwraps: Sequence[Path] | None = None,
        reach: Reach | None = None,
    ) -> Sandbox:
        """The strongest walls that hold this program here: each is tried with it, once.

        Args:
            program: an engine; it is asked for its version within the walls.
            spawner: open.
            most: no stronger one than this is looked for.
            bwraps: where bubblewrap may be; the wheel's and the system's if None.
            reach: brings programs to where an engine's own user may come; None brings none.

        Raises:
            InternalError: SPAWNER_GONE.
        """
        if sys.platform != "linux":
            return cls(notes=(f"there are no walls for {sys.platform} yet",))
        if most <= 0:
            return cls()
        one = cls(1, _WORDS[1])
        if most < 2:
            return one
        if not seccomp.supported():
            return replace(one, notes=("the system calls of this processor are not known",))
        try:
            loaded = await asyncio.to_thread(libraries, program)
        except (NoProgramError, OSError) as error:
            return replace(one, notes=(str(error),))
        kit = Kit(
            filter=seccomp.program(),
            libraries=loaded,
            landlock=landlock.abi(),
            users=Users.here(),
        )
        found, notes = await _strongest(program, spawner, most, kit, bwraps, reach)
        fix = advice(notes) if most == STRONGEST and found.tier < STRONGEST else ""
        return replace(found, notes=tuple(notes), fix=fix)

    @property
    def folder_mode(self) -> int:
        """For folders on the way to what a program may see: its user has to come through."""
        return 0o711 if self.kit.users.first else 0o700

    def private_folder(self, kind: str = "") -> PrivateFolder:
        """A new one, where a program's user may come to what lies in it. Raises OSError."""
        own_user = bool(self.kit.users.first)
        folder = PrivateFolder(kind, within=open_place() if own_user else None)
        folder.path.chmod(self.folder_mode)
        return folder

    def inside(self, folder: Path, name: str) -> str:
        """How a file of the folder given to `enclose` is called inside."""
        return f"{bubblewrap.FOLDER}/{name}" if self.tier >= 3 else str(folder / name)

    async def enclose(
        self,
        spawner: Spawner,
        program: Path,
        args: Sequence[str],
        *,
        folder: Path,
        fds: Sequence[int],
        exited: Callable[[int], None],
        group: Joins | None = None,
    ) -> Enclosed:
        """Start a program within the walls; returns once they were seen to stand.

        Args:
            args: its arguments, without its own name; see `inside` for paths.
            folder: the one folder of ours that it sees, read-only; where it has a user of its
                own, that user owns the folder and what is in it from now on.
            fds: become its descriptors 0, 1, 2, ...; the caller closes its own.
            exited: called once with the exit code (negative: the signal), perhaps before this
                returns.
            group: joined before anything else happens.

        Raises:
            InternalError: WALLS_MISSING: the process was ended; SPAWNER_GONE, ENGINE_START.
        """
        start = Start(self.tier, self.kit, spawner, program, exited)
        return await start.run(args, folder=folder, fds=fds, group=group)


async def _strongest(
    program: Path,
    spawner: Spawner,
    most: int,
    kit: Kit,
    bwraps: Sequence[Path] | None,
    reach: Reach | None,
) -> tuple[Sandbox, list[str]]:
    notes: list[str] = []
    near = await _near(kit, program, reach)
    fault = _shut_away(kit, near)
    if fault:
        return Sandbox(1, _WORDS[1]), [fault]
    kit = replace(kit, moved={_real(program): near})
    if most >= 3:
        paths = list(bubblewrap.candidates()) if bwraps is None else bwraps
        for path in paths:
            bwrap = await _near(kit, path, reach)
            three = Sandbox(3, f"{_WORDS[3]} ({bwrap})", kit=replace(kit, bwrap=bwrap))
            fault = _shut_away(kit, bwrap) or await _trials(three, program, spawner)
            if not fault:
                return three, []
            notes.append(f"{bwrap}: {fault}")
        if not paths:
            notes.append("bubblewrap is not installed")
    if not kit.landlock:
        notes.append("this kernel has no Landlock, or it is switched off")
    else:
        two = Sandbox(2, _WORDS[2], kit=kit)
        fault = await _trials(two, program, spawner)
        if not fault:
            if kit.landlock < landlock.SCOPED_FROM:
                notes.append("Landlock is old here: abstract Unix sockets can be reached")
            return two, notes
        notes.append(f"Landlock and seccomp: {fault}")
    return Sandbox(1, _WORDS[1]), notes


async def _near(kit: Kit, path: Path, reach: Reach | None) -> Path:
    """The program where an engine's own user may come to it, if it can be brought there."""
    if reach is None or not kit.users.first:
        return _real(path)
    try:
        return await asyncio.to_thread(reach.of, path)
    except OSError:
        return _real(path)  # `_shut_away` says what is in the way


def _real(path: Path) -> Path:
    """As `Start` looks for it."""
    return path.resolve()


def _shut_away(kit: Kit, path: Path) -> str:
    """What keeps an engine's own user from a program of ours; "" where it may come there."""
    if not kit.users.first:
        return ""
    try:
        shut = barrier(path)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return f"{path} is out of reach of an engine's own user: {shut} is shut" if shut else ""


async def _trials(sandbox: Sandbox, program: Path, spawner: Spawner) -> str:
    """What is wrong with these walls: "" when they were seen, and the program spoke from within."""
    fault = ""
    for _ in range(limits.SANDBOX_TRIALS.value):
        seen, fault = await _trial(sandbox, program, spawner)
        if seen or fault:
            return fault
    return "the program ends before its walls can be looked at"


async def _trial(sandbox: Sandbox, program: Path, spawner: Spawner) -> tuple[bool, str]:
    """Whether the walls were seen, and what is wrong."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[int] = loop.create_future()

    def exited(code: int) -> None:
        if not over.done():
            over.set_result(code)

    place = sandbox.private_folder("try-")
    try:
        folder = place.path / "in"
        folder.mkdir(mode=0o700)
        said_r, said_w = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        try:
            process = await sandbox.enclose(
                spawner,
                program,
                ["--version"],
                folder=folder,
                fds=[null, null, said_w],
                exited=exited,
            )
            try:
                code = await asyncio.wait_for(over, limits.SANDBOX_TRIAL_S.value)
            finally:
                process.kill()
                process.close()
        except TimeoutError:
            return False, "nothing came of a trial"
        except InternalError as error:
            if error.code is InternalCode.SPAWNER_GONE:
                raise
            return False, error.message
        finally:
            os.close(null)
            os.close(said_w)
            os.set_blocking(said_r, False)
            said = b""
            with contextlib.suppress(BlockingIOError):
                said = os.read(said_r, limits.SANDBOX_WORDS.value)
            os.close(said_r)
    finally:
        place.close()
    if code == 0:
        return process.seen, ""
    lines = said.decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return False, f"{last[:300]} ({how})"

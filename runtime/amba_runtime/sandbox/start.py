"""One program started within walls: what the child is told, and the wait until they stand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from amba_runtime import limits
from amba_runtime.errors import InternalCode, InternalError
from amba_runtime.sandbox import bubblewrap, landlock
from amba_runtime.sandbox.enclosed import Enclosed
from amba_runtime.sandbox.users import Users
from amba_runtime.sandbox.walls import Promise, identity, missing, read_status
from amba_runtime.spawner import Spawner


class Joins(Protocol):
    """A control group (`cgroups.Group`)."""

    @property
    def procs(self) -> Sequence[Path]: ...


@dataclass(frozen=True, slots=True)
class Kit:
    """What walls are made of here.

    Attributes:
        moved: programs that had to be brought within reach, by where they really lie.
    """

    bwrap: Path = Path()
    filter: bytes = b""
    libraries: tuple[str, ...] = ()
    landlock: int = 0
    users: Users = field(default_factory=Users)
    moved: Mapping[Path, Path] = field(default_factory=dict[Path, Path])


class Start:
    """One start of one program; `run` once."""

    def __init__(
        self,
        tier: int,
        kit: Kit,
        spawner: Spawner,
        program: Path,
        exited: Callable[[int], None],
    ) -> None:
        self._tier = tier
        self._kit = kit
        self._uid = kit.users.take() if tier >= 2 else None
        self._spawner = spawner
        program = program.resolve()  # the way to a link may be shut where its end is not
        self._program = kit.moved.get(program, program)
        self._tell = exited
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def _exited(self, code: int) -> None:
        if not self._over.done():
            self._over.set_result(None)
        # bubblewrap tells of a signal as a shell does
        self._tell(128 - code if self._tier >= 3 and code > 128 else code)

    async def run(
        self, args: Sequence[str], *, folder: Path, fds: Sequence[int], group: Joins | None
    ) -> Enclosed:
        """See `Sandbox.enclose`."""
        if self._uid is not None:
            _give(folder, self._uid)
        walls = self._walls(folder, group)
        if self._tier < 3:
            argv = [str(self._program), *args]
            outer = await self._spawn(argv, folder, fds, walls)
            promise = Promise(self._tier, self._uid, 0, self._launchers())
            return await self._stand(outer, outer, promise)
        filter_fd = _filled(self._kit.filter)
        info_r, info_w = os.pipe()
        try:
            argv = bubblewrap.command(
                self._kit.bwrap,
                self._program,
                args,
                folder=folder,
                libraries=self._kit.libraries,
                seccomp_fd=len(fds),
                info_fd=len(fds) + 1,
            )
            outer = await self._spawn(argv, Path("/"), [*fds, filter_fd, info_w], walls)
        except BaseException:
            os.close(info_r)
            raise
        finally:
            os.close(filter_fd)
            os.close(info_w)
        try:
            pid = await _child(info_r, self._over)
        except BaseException:
            self._spawner.kill(outer)
            raise
        if not pid:  # bubblewrap ended before there was a jail; what it said is on its stderr
            return Enclosed(outer, uid=self._uid, seen=False, pidfd=None, end=lambda _sig: None)
        promise = Promise(self._tier, self._uid, outer, self._launchers())
        return await self._stand(outer, pid, promise)

    def _launchers(self) -> frozenset[tuple[int, int]]:
        """What a process is before it is the program: the spawner's child, then bubblewrap."""
        found: set[tuple[int, int]] = set()
        for path in (Path(f"/proc/{self._spawner.pid}/exe"), self._kit.bwrap):
            with contextlib.suppress(OSError):
                found.add(identity(path))
        return frozenset(found)

    async def _spawn(
        self, argv: Sequence[str], cwd: Path, fds: Sequence[int], walls: dict[str, Any]
    ) -> int:
        return await self._spawner.spawn(argv, cwd=cwd, fds=fds, exited=self._exited, walls=walls)

    def _walls(self, folder: Path, group: Joins | None) -> dict[str, Any]:
        """The part of the order that `spawn_main` obeys between fork and exec."""
        walls: dict[str, Any] = {"join": [str(path) for path in group.procs] if group else []}
        if self._tier >= 1:
            files = limits.SANDBOX_FILES.value
            walls["limits"] = {"CORE": 0, "FSIZE": 0, "NOFILE": files}
            walls["privileges"] = self._tier >= 3  # bubblewrap gives up what it has by itself
        if self._uid is not None:
            walls["uid"] = self._uid
            walls["limits"]["NPROC"] = limits.SANDBOX_PROCESSES.value
        if self._tier == 2:
            walls["seccomp"] = b64encode(self._kit.filter).decode()
            walls["landlock"] = landlock.ruleset(
                self._kit.landlock,
                program=self._program,
                libraries=self._kit.libraries,
                folder=folder,
            )
        return walls

    async def _stand(self, outer: int, pid: int, promise: Promise) -> Enclosed:
        """Wait until the walls stand around a process, and end it if they do not."""
        pidfd = None
        seen = False
        try:
            if promise.tier >= 1:
                with contextlib.suppress(OSError):  # it has ended already
                    pidfd = os.pidfd_open(pid)
                seen = await self._look(pid, promise)
                if not seen:
                    self._end_left(pid, pidfd, promise)
        except BaseException:
            self._spawner.kill(outer)
            self._end_left(pid, pidfd, promise)
            if pidfd is not None:
                os.close(pidfd)
            raise

        def end(sig: int) -> None:
            self._spawner.kill(outer, sig)

        return Enclosed(pid, uid=self._uid, seen=seen, pidfd=pidfd, end=end)

    def _end_left(self, pid: int, pidfd: int | None, promise: Promise) -> None:
        """End what its keeper or our spawner has left behind, if that is what has this pid."""
        with contextlib.suppress(OSError):
            place = Path(f"/proc/{pid}")
            user = os.getuid() if self._uid is None else self._uid
            own_user = read_status(place)["Uid"].split()[:1] == [str(user)]
            own_program = identity(place / "exe") in {*promise.launchers, identity(self._program)}
            if pidfd is not None and own_user and own_program:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    async def _look(self, pid: int, promise: Promise) -> bool:
        """Whether the walls stand; False when the process ended before that could be told.

        Raises:
            InternalError: WALLS_MISSING.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + limits.SPAWN_S.value
        faults: list[str] | None = None
        wait_s = limits.SANDBOX_LOOK_S.value
        while loop.time() < until_s:
            try:
                faults = missing(pid, promise)
            except (FileNotFoundError, ProcessLookupError):
                # the news of its end may come behind the end itself
                await asyncio.wait({self._over}, timeout=limits.STOP_S.value)
                if self._over.done():
                    return False
                faults = ["no process"]
            except OSError as error:
                faults = [f"it cannot be looked at: {error.strerror}"]
            if faults == []:
                return True
            if faults is not None:
                break
            await asyncio.wait({self._over}, timeout=wait_s)
            # where many start at once, looking is what keeps them from it
            wait_s = min(2 * wait_s, limits.SANDBOX_LOOK_MOST_S.value)
            if self._over.done():
                return False
        raise InternalError(
            InternalCode.WALLS_MISSING,
            f"the walls of tier {promise.tier} around process {pid} do not stand: "
            f"{', '.join(faults or ['they were not raised in time'])}",
        )


def _give(folder: Path, uid: int) -> None:
    """Make a folder and what is in it a user's. Raises OSError."""
    with os.scandir(folder) as entries:
        for entry in entries:
            os.chown(entry.path, uid, uid, follow_symlinks=False)
    os.chown(folder, uid, uid)


def _filled(data: bytes) -> int:
    """The reading end of a pipe that holds `data`, which must be short, and then ends."""
    read, write = os.pipe()
    try:
        os.write(write, data)
    finally:
        os.close(write)
    return read


async def _child(info: int, over: asyncio.Future[None]) -> int:
    """The pid of what bubblewrap started, as it tells; 0 when it ended first. Closes `info`.

    Args:
        over: done once bubblewrap has ended.

    Raises:
        InternalError: ENGINE_START: it said nothing for `limits.SPAWN_S`.
    """
    loop = asyncio.get_running_loop()
    os.set_blocking(info, False)
    told: asyncio.Future[int] = loop.create_future()
    said = b""

    def read() -> None:
        nonlocal said
        try:
            data = os.read(info, limits.SANDBOX_WORDS.value)
        except BlockingIOError:
            return
        said += data
        pid = _told_pid(said)
        if pid or not data or len(said) > limits.SANDBOX_WORDS.value:
            loop.remove_reader(info)
            told.set_result(pid)

    loop.add_reader(info, read)
    try:
        waiting: set[asyncio.Future[Any]] = {told, over}
        await asyncio.wait(
            waiting, timeout=limits.SPAWN_S.value, return_when=asyncio.FIRST_COMPLETED
        )
        if over.done() and not told.done():
            read()  # it may have said it before its end
        if told.done():
            return told.result()
        if over.done():
            return 0
        raise InternalError(InternalCode.ENGINE_START, "bubblewrap says nothing")
    finally:
        loop.remove_reader(info)
        os.close(info)


def _told_pid(account: bytes) -> int:
    """From what bubblewrap writes to `--info-fd`; 0 while it is not whole."""
    try:
        return int(json.loads(account)["child-pid"])
    except (ValueError, TypeError, KeyError):
        return 0

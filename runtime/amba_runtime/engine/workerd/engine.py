"""Starts workerd processes, each in a private folder that dies with it."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import amba_runtime
from amba_runtime import entropy
from amba_runtime.background import ended
from amba_runtime.engine.base import Surroundings
from amba_runtime.engine.workerd import config
from amba_runtime.engine.workerd.isolate import WorkerdIsolate
from amba_runtime.errors import InternalCode, InternalError, UserCode, UserError
from amba_runtime.manifest import Bundle, Manifest
from amba_runtime.private import PrivateFolder, sweep
from amba_runtime.sandbox import STRONGEST, Sandbox
from amba_runtime.sandbox.cgroups import Cgroups, Group
from amba_runtime.sandbox.reach import Reach
from amba_runtime.spawner import Spawner
from amba_runtime.wire import Intake

logger = logging.getLogger("amba.workerd")

_PACKAGE = Path(amba_runtime.__file__).parent


def find_workerd(override: str | None = None) -> Path:
    """The program that travels in the wheel, or the one named by `AMBA_RUN_WORKERD`.

    Raises:
        UserError: PROGRAM_MISSING.
    """
    exe = "workerd.exe" if os.name == "nt" else "workerd"
    path = Path(override) if override else _PACKAGE / "native" / exe
    if not (path.is_file() and os.access(path, os.X_OK)):
        named = "AMBA_RUN_WORKERD names" if override else "this installation has"
        raise UserError(
            UserCode.PROGRAM_MISSING,
            f"{named} no workerd program: {path} is missing or not executable",
            hint="pip install --force-reinstall amba-run",
        )
    return path


class WorkerdEngine:
    """The default engine. `close` ends every process and removes every file."""

    name = "workerd"

    def __init__(
        self,
        *,
        program: Path,
        sandbox: Sandbox | None = None,
        most: int = STRONGEST,
        strict: bool = False,
    ) -> None:
        """Args:
        sandbox: the walls to take; the strongest up to tier `most` if None.
        strict: where memory can be capped by control groups, nothing starts without.
        """
        self._strict = strict
        self.spawner = Spawner()
        self.program = program
        self.cgroups = Cgroups.none()
        self.intake = Intake()
        self._reach = Reach()
        self.modules = {
            name: (_PACKAGE / "host" / name).read_bytes()
            for name in (*config.SHIM_MODULES, config.CONTROL_MODULE)
        }
        self._sandbox = sandbox
        self._looked = sandbox is not None
        self._most = most
        self._opening = asyncio.Lock()
        self._folder: PrivateFolder | None = None
        self._isolates: set[WorkerdIsolate] = set()

    @property
    def sandbox(self) -> Sandbox:
        """The walls in force; none before `open` has looked which there are."""
        return self._sandbox or Sandbox()

    async def open(self) -> None:
        """Make the private folder, start the spawner (again, if it was lost). Idempotent.

        What engines left behind whose host was killed goes first. The first time, the walls are
        tried with the engine.
        """
        async with self._opening:
            if self._folder is None and self._walled and not self.cgroups.version:
                # before there are children: they should come along into our own group
                self.cgroups = Cgroups.detect()
            await self.spawner.open()
            if not self._looked:
                self._sandbox = await Sandbox.detect(
                    self.program, self.spawner, most=self._most, reach=self._reach
                )
                self._looked = True
            if self._folder is None:
                self._folder = self.sandbox.private_folder()
                await asyncio.to_thread(sweep)

    @property
    def memory_note(self) -> str:
        """Why no control group caps what isolates hold; "" where one does. After `open`."""
        return "" if "memory" in self.cgroups.controllers else self.cgroups.note

    def group(self, name: str, *, memory_bytes: int) -> Group | None:
        """The control group of one isolate; None where the watchdog has to do without.

        Raises:
            InternalError: WALLS_MISSING: none can be made, and `strict` asks for one.
        """
        try:
            return self.cgroups.open(name, memory_bytes=memory_bytes)
        except OSError as error:
            if self._strict and "memory" in self.cgroups.controllers:
                raise InternalError(
                    InternalCode.WALLS_MISSING,
                    f"no control group can be made for a function ({error}), and --sandbox strict "
                    "starts none without",
                ) from error
            logger.warning("no control group for a function: %s", error)
            return None

    @property
    def _walled(self) -> bool:
        return self._most > 0 if self._sandbox is None else self._sandbox.tier > 0

    def arguments(self, configuration: str) -> tuple[str, ...]:
        """The command line behind the program's name; 3 and 4 are its listening sockets.

        Args:
            configuration: a file's name as it is inside the walls.
        """
        return (
            "serve",
            "--experimental",
            configuration,
            "--socket-fd=fn=3",
            "--socket-fd=control=4",
        )

    async def start(
        self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
    ) -> WorkerdIsolate:
        """Start a process. It takes requests at once; they wait until the bundle has run."""
        await self.open()
        assert self._folder is not None
        folder = self._folder.path / entropy.short_id()
        folder.mkdir(mode=0o700)
        folder.chmod(self.sandbox.folder_mode)
        isolate = WorkerdIsolate(self, folder, manifest, surroundings)
        self._isolates.add(isolate)
        try:
            await isolate.open(bundle)
        except BaseException:
            await isolate.close()
            raise
        return isolate

    def forget(self, isolate: WorkerdIsolate) -> None:
        """The isolate was closed: nothing of it is left."""
        self._isolates.discard(isolate)

    async def close(self) -> None:
        """End everything. Idempotent."""
        await ended(*[isolate.close() for isolate in list(self._isolates)])
        await self.spawner.close()
        self.cgroups.close()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.close()
        self._reach.close()
        self._looked = False  # what was found may name programs that are gone now

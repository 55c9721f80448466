"""Walls as this machine has them, for tests that need real ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from amba_runtime.engine.workerd.engine import find_workerd
from amba_runtime.private import PrivateFolder, open_place
from amba_runtime.sandbox import Enclosed, Sandbox
from amba_runtime.spawner import Spawner

SLEEP = Path("/bin/sleep")


class Yard:
    """A spawner, a folder, and the walls of one tier around what is started."""

    def __init__(self, spawner: Spawner, sandbox: Sandbox) -> None:
        self.spawner = spawner
        self.sandbox = sandbox
        self.place = sandbox.private_folder()
        self.folder = self.place.path / "in"
        self.folder.mkdir(mode=0o700)
        self.codes: asyncio.Queue[int] = asyncio.Queue()
        self.started: list[Enclosed] = []

    async def start(
        self, *args: str, program: Path | None = None, group: Any = None, err: int | None = None
    ) -> Enclosed:
        """A process whose descriptors lead nowhere, but for stderr."""
        null = os.open(os.devnull, os.O_RDWR)
        try:
            process = await self.sandbox.enclose(
                self.spawner,
                program or find_workerd(),
                args,
                folder=self.folder,
                fds=[null, null, null if err is None else err],
                exited=self.codes.put_nowait,
                group=group,
            )
        finally:
            os.close(null)
        self.started.append(process)
        return process

    async def sleeper(self, **facts: Any) -> Enclosed:
        """A program that does nothing until it is ended; its libraries are among an engine's."""
        return await self.start("60", program=SLEEP, **facts)

    def close(self) -> None:
        for process in self.started:
            process.close()
        self.place.close()


def within(
    tier: int, body: Callable[[Yard], Coroutine[Any, Any, None]], *, program: Path | None = None
) -> None:
    """Run a test's body with walls of a tier; skips it where there are none."""

    async def main() -> None:
        spawner = Spawner()
        await spawner.open()
        try:
            sandbox = await Sandbox.detect(program or find_workerd(), spawner, most=tier)
            if sandbox.tier != tier:
                pytest.skip(f"no walls of tier {tier} here: {'; '.join(sandbox.notes)}")
            yard = Yard(spawner, sandbox)
            try:
                async with asyncio.timeout(15):
                    await body(yard)
            finally:
                yard.close()
        finally:
            await spawner.close()

    asyncio.run(main())


async def detect(
    *, most: int = 3, bwraps: Sequence[Path] | None = None, program: Path | None = None
) -> Sandbox:
    """What is found, with a spawner for it alone."""
    spawner = Spawner()
    await spawner.open()
    try:
        async with asyncio.timeout(15):
            return await Sandbox.detect(
                program or find_workerd(), spawner, most=most, bwraps=bwraps
            )
    finally:
        await spawner.close()


class Reachable:
    """A folder for programs of the test's own, which every user may run."""

    def __init__(self) -> None:
        self._folder = PrivateFolder("test-", within=open_place())
        self._folder.path.chmod(0o711)

    def script(self, name: str, text: str) -> Path:
        path = self._folder.path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def close(self) -> None:
        self._folder.close()

"""The native esbuild as a child of ours: where it is, its life, and one build asked of it.

One child per `Esbuild`, spoken to over its standard input and output (`stdio`).
It ends when its input closes, so it cannot outlive us, however we die.

Why a service and not a process per build: messages come as values, not as text to be parsed, the
outputs stay in memory, and a small function builds in 1.2 ms instead of 5.
Why no incremental contexts: measured, they gain nothing (1.1 ms; 68 ms with or without for hono,
zod and jose together, where linking and printing is the work). 2 cores, esbuild 0.28.2, 2026-11-22.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from pathlib import Path
from types import TracebackType
from typing import Self

from amba_runtime import limits
from amba_runtime.errors import InternalCode, InternalError, UserCode, UserError

from .conversation import Reply, Request, TooLong, exchange, read_packet
from .stdio import PacketError

VERSION = "0.28.2"
"""The esbuild that travels in the wheel (package-lock.json). Another one makes other bytes."""

_ENVIRONMENT = {"GOGC": "400"}
"""The child's whole environment: no NODE_PATH, so that a build depends on files alone.

GOGC: a build of hono, zod and jose takes 68 ms instead of 90 when Go collects less often.
"""


def find_program(override: Path | None = None) -> Path:
    """The esbuild to run: `override` (AMBA_RUN_ESBUILD, read by the caller), else the wheel's.

    Raises:
        UserError: PROGRAM_MISSING; there is no executable file at that path.
    """
    program = override or Path(__file__).parent / "native" / "esbuild"
    if program.is_file() and os.access(program, os.X_OK):
        return program
    what = "is not executable" if program.is_file() else "is not there"
    raise UserError(
        UserCode.PROGRAM_MISSING,
        f"esbuild {what}: {program}",
        hint=(
            f"Set AMBA_RUN_ESBUILD to an executable esbuild {VERSION}, or unset it."
            if override
            else "Install again: pip install --force-reinstall amba-run"
        ),
        details={"program": str(program)},
    )


class Overwhelmed(InternalError):
    """The child died of the request, was too slow, or would have said more than it may."""


class _Gone(Exception):
    """The child ended while we spoke with it."""

    def __init__(self, child: asyncio.subprocess.Process, said: str) -> None:
        super().__init__()
        self.child = child
        self.said = said


class Esbuild:
    """One esbuild, started at the first build and again if it died.

    Life: until `close`, which the owner calls (or `async with`); it belongs to one event loop.
    Builds take turns; esbuild itself uses every core.

    Args:
        program: path of the program; None takes the one in the wheel.
        memory_max: bytes of address space it may take, where the system can hold it to that
            (Linux); None does not ask. Whoever gives it bytes of strangers sets this.
    """

    _child: asyncio.subprocess.Process | None = None
    """Changed only under `_turn`. When set, it has said its version and owes no answer."""

    def __init__(self, program: Path | None = None, *, memory_max: int | None = None) -> None:
        self._program = program
        self._memory_max = memory_max
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        if self._child is not None:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)

    async def start(self) -> None:
        """Start the child now, so that the first build need not wait for it.

        Raises:
            UserError: PROGRAM_MISSING.
            InternalError: BUNDLER_PROTOCOL.
        """
        async with self._turn:
            await self._running()

    async def build(self, request: Request) -> Reply:
        """Ask for one build. A build that fails is an answer too, with errors in it.

        A child that died since the last build is replaced without a word.
        Cancelled half-way, the child is ended, and the next build starts another.

        Raises:
            UserError: PROGRAM_MISSING.
            InternalError: BUNDLER_PROTOCOL; esbuild died, said nothing for too long (both are
                Overwhelmed), or spoke another language. The next build starts another child.
            TooMuch: only with `Request.imports_max`.
        """
        async with self._turn:
            used = self._child
            try:
                return await self._ask(request)
            except _Gone as gone:
                if gone.child is not used:
                    raise _overwhelmed("died", gone.said) from gone
            # It may have died long before we spoke to it: that is no failure of this build.
            try:
                return await self._ask(request)
            except _Gone as gone:
                raise _overwhelmed("died twice", gone.said) from gone

    async def close(self) -> None:
        """End the child. A second call does nothing."""
        async with self._turn:
            await self._end()

    async def _running(self) -> asyncio.subprocess.Process:
        if self._child is not None and self._child.returncode is None:
            return self._child
        await self._end()
        program = find_program(self._program)
        try:
            child = await asyncio.create_subprocess_exec(
                program,
                f"--service={VERSION}",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=_ENVIRONMENT,
                cwd=program.parent,
                start_new_session=True,  # Ctrl-C is for us; the child ends with its input
            )
        except OSError as error:
            raise _unusable(program, error.strerror or str(error)) from error
        self._child = child
        if self._memory_max is not None:
            _confine(child.pid, self._memory_max)
        greeted = False
        try:
            async with asyncio.timeout(limits.ESBUILD_START_S.value):
                version = await read_packet(child)
            if version != VERSION.encode():
                raise PacketError(f"it says it is {version[:40]!r}")
            greeted = True
        except PacketError as error:
            raise _unusable(program, await self._end() or str(error)) from error
        except (EOFError, ConnectionError, TimeoutError) as error:
            said = await self._end() or "it did not say its version"
            raise _unusable(program, said) from error
        finally:
            if not greeted:
                await self._end()
        return child

    async def _ask(self, request: Request) -> Reply:
        child = await self._running()
        answered = False
        wait_s = limits.ESBUILD_BUILD_S.value if request.wait_s is None else request.wait_s
        try:
            async with asyncio.timeout(wait_s):
                reply = await exchange(child, request)
            answered = True
            return reply
        except TimeoutError as error:
            raise _overwhelmed(f"did not answer in {wait_s:g} s") from error
        except TooLong as error:
            raise _overwhelmed("says too much", str(error)) from error
        except PacketError as error:
            raise _broken("spoke another language", str(error)) from error
        except (EOFError, ConnectionError) as error:
            raise _Gone(child, await self._end()) from error
        finally:
            if not answered:  # a late answer would be taken for that of the next build
                await self._end(now=request.scan)

    async def _end(self, *, now: bool = False) -> str:
        """End the child, by force if it must be, and give what it wrote on its standard error.

        Args:
            now: it is busy with bytes of a stranger and is not asked.
        """
        child, self._child = self._child, None
        if child is None:
            return ""
        assert child.stdin is not None, "started with a pipe"
        if now and child.returncode is None:
            child.kill()
        child.stdin.close()
        said = b""
        try:
            async with asyncio.timeout(limits.ESBUILD_STOP_S.value):
                # `communicate` also reads what is left, without which the pipes would stay open.
                _, said = await child.communicate()
        except TimeoutError:
            pass
        finally:
            if child.returncode is None:
                child.kill()
                await child.communicate()
        return said[: limits.ESBUILD_SAID.value].decode(errors="replace").strip()


def _broken(what: str, said: str = "") -> InternalError:
    text = f"esbuild {what}: {said}" if said else f"esbuild {what}"
    return InternalError(InternalCode.BUNDLER_PROTOCOL, text)


def _overwhelmed(what: str, said: str = "") -> Overwhelmed:
    return Overwhelmed(InternalCode.BUNDLER_PROTOCOL, str(_broken(what, said)))


def _confine(pid: int, memory_max: int) -> None:
    try:
        from resource import RLIMIT_AS, prlimit
    except ImportError:  # no Linux
        return
    with contextlib.suppress(ProcessLookupError):
        prlimit(pid, RLIMIT_AS, (memory_max, memory_max))


def _unusable(program: Path, why: str) -> UserError:
    return UserError(
        UserCode.PROGRAM_MISSING,
        f"{program} is not a usable esbuild {VERSION}: {why}",
        hint=f"Set AMBA_RUN_ESBUILD to esbuild {VERSION}, or unset it to use our own.",
        details={"program": str(program)},
    )

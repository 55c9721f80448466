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
import stat
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from amba_runtime import limits
from amba_runtime.errors import InternalCode, InternalError, UserCode, UserError

from .stdio import Packet, PacketError, Value, decode, encode

VERSION = "0.28.2"
"""The esbuild that travels in the wheel (package-lock.json). Another one makes other bytes."""

_ENVIRONMENT = {"GOGC": "400"}
"""The child's whole environment: no NODE_PATH, so that a build depends on files alone.

GOGC: a build of hono, zod and jose takes 68 ms instead of 90 when Go collects less often.
"""


@dataclass(frozen=True, slots=True)
class Request:
    """What esbuild is asked.

    Attributes:
        entry: absolute path of the entrypoint.
        folder: absolute path; every path in the answer is relative to it.
        flags: esbuild's command line, without entry and output options.
        resolve: import specifiers (Go regular expression) that are asked back and refused.
        refusal: the text of the error such an import gets, with its own place.
        trace: also report every file that was read, which costs a round trip per file.
        scan: each import that `resolve` matches stays, with a warning at its place whose text is
            `refusal`, its kind, a blank and the specifier; esbuild itself writes the output (to
            the null device), and there are no outputs in the answer.
        alone: no file but the entrypoint is read; any other gets `refusal` as an error.
        stdin: the bytes to read in place of the entrypoint, which is then not looked at.
        stdin_folder: where they are said to lie.
        imports_max: so many imports are answered; one more ends the build (TooMuch).
        wait_s: the answer is waited for; None takes that of a build.
        file_max: with `trace`: a file of more bytes, or that is no regular file, is not read and
            gets an error that names it.
    """

    entry: Path
    folder: Path
    flags: tuple[str, ...]
    resolve: str
    refusal: str
    trace: bool = False
    scan: bool = False
    alone: bool = False
    stdin: bytes | None = None
    stdin_folder: str | None = None
    imports_max: int | None = None
    wait_s: float | None = None
    file_max: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What esbuild answered: its own values, not yet ours.

    Attributes:
        errors, warnings: esbuild's messages as it shapes them (`messages` reads them).
        outputs: path as given with `--outfile` and its bytes; empty when there were errors.
        metafile: JSON, empty when there were errors.
        read: absolute paths of the files that were read; empty unless traced.
    """

    errors: Sequence[Value]
    warnings: Sequence[Value]
    outputs: dict[str, bytes]
    metafile: bytes
    read: tuple[str, ...]


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


class TooMuch(Exception):
    """There were more imports than `Request.imports_max`."""


class _TooLong(PacketError):
    """A packet over `limits.ESBUILD_PACKET`."""


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
                version = await _read(child)
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
                reply = await _exchange(child, request)
            answered = True
            return reply
        except TimeoutError as error:
            raise _overwhelmed(f"did not answer in {wait_s:g} s") from error
        except _TooLong as error:
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


async def _exchange(child: asyncio.subprocess.Process, request: Request) -> Reply:
    assert child.stdin is not None, "started with a pipe"
    child.stdin.write(encode(Packet(1, True, _build_command(request))))
    read: list[str] = []
    asked = 0
    while True:
        await child.stdin.drain()
        packet = decode(await _read(child))
        value = packet.value
        if not isinstance(value, dict):
            raise PacketError("an object was expected")
        if not packet.is_request:
            return _reply(value, tuple(read))
        asked += value.get("command") == "on-resolve"
        if request.imports_max is not None and asked > request.imports_max:
            raise TooMuch
        child.stdin.write(encode(Packet(packet.id, False, _answer(value, request, read))))


def _build_command(request: Request) -> Value:
    resolve: Value = [{"id": 0, "filter": request.resolve, "namespace": ""}]
    load: Value = (
        [{"id": 1, "filter": ".*", "namespace": "file"}] if request.trace or request.alone else []
    )
    plugin: Value = {
        "name": "amba-run",
        "onStart": False,
        "onEnd": False,
        "onResolve": resolve,
        "onLoad": load,
    }
    flags: list[Value] = [*request.flags]
    is_stdin = request.stdin is not None
    return {
        "command": "build",
        "key": 0,
        "entries": [] if is_stdin else [["", str(request.entry)]],
        "flags": flags,
        # Outputs that nobody reads are not sent (the flags name the null device as their place).
        "write": request.scan,
        "stdinContents": request.stdin,
        "stdinResolveDir": request.stdin_folder,
        "absWorkingDir": str(request.folder),
        "nodePaths": [],
        "context": False,
        "plugins": [plugin],
    }


def _answer(value: dict[str, Value], request: Request, read: list[str]) -> Value:
    """Our word on what esbuild asks back in the middle of a build."""
    match value.get("command"):
        case "on-resolve" if value.get("kind") == "entry-point":
            return {}
        case "on-resolve" if request.scan:
            said = " ".join((request.refusal + str(value.get("kind")), str(value.get("path"))))
            return {"id": 0, "external": True, "path": "amba-run:import", "warnings": [_said(said)]}
        case "on-resolve":
            text = request.refusal.format(path=value.get("path"))
            return {"id": 0, "errors": [_said(text)]}
        case "on-load" if request.alone and value.get("path") != str(request.entry):
            return {"id": 1, "errors": [_said(f"{request.refusal}a file")]}
        case "on-load":
            path = value.get("path")
            if isinstance(path, str):
                read.append(path)
                if request.file_max is not None and (fault := _trap(path, request.file_max)):
                    return {"id": 1, "errors": [_said(fault)]}
            return {}
        case "on-start":
            return {"errors": [], "warnings": []}
        case other:
            raise PacketError(f"esbuild asks for {other!r}")


def _trap(path: str, most: int) -> str:
    """What is wrong with a file that has no end, or holds whoever opens it; "" for any other."""
    try:
        status = os.stat(path)
    except OSError:
        return ""  # esbuild has the words for it
    if not stat.S_ISREG(status.st_mode):
        return f"{path} is not a regular file"
    return f"{path} is larger than {most // limits.MIB} MiB" if status.st_size > most else ""


def _said(text: str) -> Value:
    """A message of ours. Without a location esbuild puts the place of the import there."""
    return {
        "id": "",
        "pluginName": "",
        "text": text,
        "location": None,
        "notes": [],
        "detail": 0,
    }


def _reply(value: dict[str, Value], read: tuple[str, ...]) -> Reply:
    # `error` is esbuild's answer to a request it does not understand.
    match value:
        case {
            "errors": list(errors),
            "warnings": list(warned),
            "metafile": bytes(metafile),
        }:
            outputs: dict[str, bytes] = {}
            files = value.get("outputFiles")  # not there where esbuild itself writes them
            for file in files if isinstance(files, list) else ():
                match file:
                    case {"path": str(path), "contents": bytes(contents)}:
                        outputs[path] = contents
                    case _:
                        raise PacketError("an output file of another shape")
            return Reply(errors, warned, outputs, metafile, read)
        case {"error": str(text)}:
            raise PacketError(text)
        case _:
            raise PacketError(f"an answer of another shape: {sorted(value)}")


async def _read(child: asyncio.subprocess.Process) -> bytes:
    """The next length-prefixed bytes."""
    assert child.stdout is not None, "started with a pipe"
    (size,) = struct.unpack("<I", await child.stdout.readexactly(4))
    if size > limits.ESBUILD_PACKET.value:
        raise _TooLong(f"{size} bytes announced, {limits.ESBUILD_PACKET.value} allowed")
    return await child.stdout.readexactly(size)


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

"""One build asked of an esbuild that runs: the command, what it asks back, its answer."""

from __future__ import annotations

import asyncio
import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amba_runtime import limits

from .stdio import Packet, PacketError, Value, decode, encode


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


class TooMuch(Exception):
    """There were more imports than `Request.imports_max`."""


class TooLong(PacketError):
    """A packet over `limits.ESBUILD_PACKET`."""


async def exchange(child: asyncio.subprocess.Process, request: Request) -> Reply:
    """Ask for one build and answer what comes back in the middle of it.

    Raises:
        PacketError: it spoke another language; TooLong where it would have said too much.
        TooMuch: only with `Request.imports_max`.
        EOFError, ConnectionError: it ended.
    """
    assert child.stdin is not None, "started with a pipe"
    child.stdin.write(encode(Packet(1, True, _build_command(request))))
    read: list[str] = []
    asked = 0
    while True:
        await child.stdin.drain()
        packet = decode(await read_packet(child))
        value = packet.value
        if not isinstance(value, dict):
            raise PacketError("an object was expected")
        if not packet.is_request:
            return _reply(value, tuple(read))
        asked += value.get("command") == "on-resolve"
        if request.imports_max is not None and asked > request.imports_max:
            raise TooMuch
        child.stdin.write(encode(Packet(packet.id, False, _answer(value, request, read))))


async def read_packet(child: asyncio.subprocess.Process) -> bytes:
    """The next length-prefixed bytes."""
    assert child.stdout is not None, "started with a pipe"
    (size,) = struct.unpack("<I", await child.stdout.readexactly(4))
    if size > limits.ESBUILD_PACKET.value:
        raise TooLong(f"{size} bytes announced, {limits.ESBUILD_PACKET.value} allowed")
    return await child.stdout.readexactly(size)


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

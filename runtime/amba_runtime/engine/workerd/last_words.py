"""What workerd writes on its standard error, read as the reason of an end or of a failed start.

The text is partly the guest's own, so it is bounded, and nothing of it leads anywhere.
Source: workerd 1.20261023.1, server/server.c++ (`service NAME: MESSAGE`, frames as
`  at MODULE:LINE:COLUMN in FUNCTION`), seen 2026-11-22.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Iterable, Sequence

from amba_runtime import limits
from amba_runtime.engine.base import HOST_MODULES, StartFailed, StartFault

logger = logging.getLogger("amba.workerd")

_SAID = "service fn: "
_FRAME = re.compile(r"  at (?P<module>[^\s:]+):(?P<line>\d+):(?P<column>\d+)(?: in (?P<name>.+))?")
_UNSETTLED = "Top-level await in module is unsettled"
_HOST_FRAME = re.compile(r"Worker \"control\"'s binding|workerd/|\*\*\* Received|stack:")
_HEAP = re.compile(r"Reached heap limit|out of memory|OutOfMemory")
_NOISE = ("stack:", "Unable to find and open the program executable")
"""The second: it looks for a configuration in its own file, which it cannot see within walls."""
_WALLS = ("bwrap: ", "spawner: ")
MEMORY_USED_UP = "its start used all memory there is"
_LINK = re.compile(r"\s*https://\S+\s*\Z")


def last_words(lines: Sequence[str]) -> str:
    """The line of a dead engine's stderr that says most.

    V8 frames what was fatal with `#`; workerd names a signal and then prints its own stack.
    """
    words = [line.strip("# \t") for line in lines if not line.startswith(_NOISE)]
    fatal = [line for line in words if "fatal" in line.lower() and "error in ," not in line]
    signal = [line for line in words if "Received signal" in line]
    last = [line for line in words if line]
    return (fatal or signal or last or ["it said nothing"])[-1]


def heap_full(lines: Iterable[str]) -> bool:
    """Whether V8 ended the process because its heap was full."""
    return any(_HEAP.search(line) for line in lines)


def walls_refused(lines: Sequence[str]) -> str:
    """What kept the walls from being raised, before there was an engine; "" where nothing did."""
    first = lines[0] if lines else ""
    return first if first.startswith(_WALLS) else ""


def start_failed(lines: Sequence[str]) -> StartFailed:
    """Why a guest did not start, without a word of the engine's own where it can be told."""
    at = next((i for i, line in enumerate(lines) if line.startswith(_SAID)), None)
    if at is None:
        return _died(lines)
    reason: list[str] = [lines[at].removeprefix(_SAID)]
    frames: list[re.Match[str]] = []
    for line in lines[at + 1 :]:
        frame = _FRAME.fullmatch(line)
        if frame is not None:
            frames.append(frame)
        elif frames or _HOST_FRAME.match(line):
            break
        elif not line.startswith("  imported from "):
            reason.append(line)  # a message of several lines
    said = _LINK.sub("", "\n".join(reason))[: limits.VIOLATION_TEXT.value]
    if _UNSETTLED in said:
        return StartFailed(said, fault=StartFault.UNSETTLED)
    own = [f for f in frames if f["module"] not in HOST_MODULES]
    # What is thrown while it runs has a frame of the module that imports it below its own.
    parsing = said.startswith("Uncaught SyntaxError") and len(own) == len(frames) == 1
    shift = 1 if parsing else 0  # columns of what does not parse count from 0
    stack = [_as_v8(f, shift) for f in own]
    fault = StartFault.SYNTAX if parsing else StartFault.THREW
    return StartFailed(said, "\n".join(stack), fault=fault)


def _as_v8(frame: re.Match[str], shift: int) -> str:
    place = f"{frame['module']}:{frame['line']}:{int(frame['column']) + shift}"
    return f"    at {frame['name']} ({place})" if frame["name"] else f"    at {place}"


def _died(lines: Sequence[str]) -> StartFailed:
    text = "\n".join(lines)
    if "threw another exception" in text:
        return StartFailed("Uncaught exception (it cannot be turned into text)")
    if heap_full(lines):
        return StartFailed(MEMORY_USED_UP, fault=StartFault.MEMORY)
    return StartFailed(f"the engine ended: {last_words(lines)}", fault=StartFault.DIED)


class StderrLines(asyncio.Protocol):
    """Keeps the last lines a process wrote; the process can never block on us."""

    def __init__(self, lines: deque[str]) -> None:
        self._lines = lines
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *whole, rest = (self._rest + data).split(b"\n")
        self._rest = rest[: limits.LOG_LINE_BYTES.value]  # its head says what it is
        for line in whole:
            text = line[: limits.LOG_LINE_BYTES.value].decode("utf-8", "replace")
            logger.debug("workerd: %s", text)
            self._lines.append(text)

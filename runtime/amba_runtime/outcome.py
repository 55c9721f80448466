"""How an invocation ended: always a value, never a Python exception.

Spelled as workerd spells it (architecture.md section 6). The one table from outcome to HTTP
answer stands here, beside the names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple, TypeGuard, cast

from amba_runtime import limits


class Outcome(StrEnum):
    """The ten ways."""

    OK = "ok"
    EXCEPTION = "exception"
    EXCEEDED_CPU = "exceededCpu"
    EXCEEDED_MEMORY = "exceededMemory"
    EXCEEDED_WALL_TIME = "exceededWallTime"
    SCRIPT_NOT_FOUND = "scriptNotFound"
    CANCELED = "canceled"
    LOAD_SHED = "loadShed"
    RESPONSE_STREAM_DISCONNECTED = "responseStreamDisconnected"
    INTERNAL_ERROR = "internalError"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, code, kind and message for a caller whose request ended this way."""

    status: int
    code: str
    kind: str
    message: str


ANSWERS = {
    Outcome.EXCEPTION: Answer(
        500, "unhandled_exception", "internal", "the function threw, or returned no Response"
    ),
    Outcome.EXCEEDED_CPU: Answer(503, "cpu_limit", "internal", "the function used up its CPU time"),
    Outcome.EXCEEDED_MEMORY: Answer(
        503, "memory_limit", "internal", "the function used up its memory"
    ),
    Outcome.EXCEEDED_WALL_TIME: Answer(
        504, "function_timeout", "internal", "the function did not answer in time"
    ),
    Outcome.LOAD_SHED: Answer(
        503, "overloaded", "internal", "too many requests are under way; try again shortly"
    ),
    Outcome.INTERNAL_ERROR: Answer(
        502, "upstream_failure", "internal", "the engine ended before the function answered"
    ),
}
"""Outcome -> what the caller is told. Source: contract A.7; architecture.md section 6."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that was passed, or is near: its setting's name, and figures in that unit.

    `note` says what the figures do not: "" mostly.
    """

    limit: str
    used: int
    most: int
    note: str = ""


Action = Literal["killed", "refused", "cut", "warned"]
"""What was done about a breach: the isolate was ended; the request was not let in, or its answer
not passed on; one invocation was ended; nothing yet, it is near."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Why an isolate ended: the outcome of what it was at, the reason for our log, the limit."""

    outcome: Outcome
    reason: str
    breach: Breach | None = None


class LogLine(NamedTuple):
    """One console call. `message` holds the arguments as JSON values; untrusted.

    A tuple, as thousands are made at once while others wait.
    """

    level: str
    message: list[Any]
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class GuestException:
    """What a guest threw, as it told us; untrusted text. `stack` is "" where there is none."""

    name: str
    message: str
    stack: str
    timestamp_ms: int


class Tell:
    """Console lines and exceptions of one invocation, bounded by the shim and again here.

    What came in parts is kept as its text, and read when somebody asks: as objects it may be
    twenty times as large.

    Args:
        threw: there is no answer of the guest's: its handler ended in an exception.
    """

    __slots__ = ("_exceptions", "_logs", "_threw", "_unread", "size")

    def __init__(
        self,
        logs: list[LogLine] | None = None,
        exceptions: list[GuestException] | None = None,
        threw: bool = False,
    ) -> None:
        self._logs = [] if logs is None else logs
        self._exceptions = [] if exceptions is None else exceptions
        self._threw = threw
        self._unread: list[str | bytes] = []
        self.size = 0
        """Bytes, or characters, of the texts that it was made of."""

    @property
    def logs(self) -> list[LogLine]:
        """In the order in which they came."""
        self._read()
        return self._logs

    @property
    def exceptions(self) -> list[GuestException]:
        """In the order in which they came."""
        self._read()
        return self._exceptions

    @property
    def threw(self) -> bool:
        """See the class."""
        self._read()
        return self._threw

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tell):
            return NotImplemented
        mine = (self.logs, self.exceptions, self.threw)
        return mine == (other.logs, other.exceptions, other.threw)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Tell({self.logs!r}, {self.exceptions!r}, {self.threw!r})"

    @classmethod
    def unread(cls, text: str | bytes) -> Tell:
        """What the shim wrote, read when somebody asks; see `parse`."""
        tell = cls()
        tell._unread.append(text)
        tell.size = len(text)
        return tell

    @classmethod
    def parse(cls, text: str | bytes) -> Tell:
        """Read what the shim wrote: `{"l": [[level, ms, [args]]], "e": [[name, msg, stack, ms]]}`.

        `"o": "exception"` beside them stands for `threw`.

        The guest shares the shim's realm and may have written anything:
        what does not fit is dropped, nothing raises.
        """
        tell = cls.unread(text)
        tell._read()
        return tell

    def extend(self, other: Tell) -> None:
        """Add what came later, within `limits.LOG_TOLD_BYTES`."""
        if self.size + other.size > limits.LOG_TOLD_BYTES.value:
            return
        self.size += other.size
        if other._logs or other._exceptions or other._threw:
            self._add(other.logs, other.exceptions, other.threw)
        else:
            self._unread += other._unread

    def pieces(self) -> list[Tell]:
        """The same in order, `limits.LOG_PIECE` lines each; exceptions stand in the first."""
        most = limits.LOG_PIECE.value
        if len(self.logs) <= most:
            return [self]
        logs = [self.logs[at : at + most] for at in range(0, len(self.logs), most)]
        first = Tell(logs[0], self.exceptions, self.threw)
        return [first, *(Tell(lines) for lines in logs[1:])]

    def _read(self) -> None:
        if self._unread:
            texts, self._unread = self._unread, []
            for text in texts:
                self._add(*_parsed(text))

    def _add(
        self, logs: Sequence[LogLine], exceptions: Sequence[GuestException], threw: bool
    ) -> None:
        self._read()
        room = limits.LOG_LINES.value - len(self._logs)
        self._logs.extend(logs[: max(0, room)])
        room = limits.LOG_EXCEPTIONS.value - len(self._exceptions)
        self._exceptions.extend(exceptions[: max(0, room)])
        self._threw = self._threw or threw


def _parsed(text: str | bytes) -> tuple[list[LogLine], list[GuestException], bool]:
    logs: list[LogLine] = []
    exceptions: list[GuestException] = []
    try:
        data: Any = json.loads(text, parse_float=_finite, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return logs, exceptions, False
    if not isinstance(data, dict):
        return logs, exceptions, False
    found = cast(dict[str, Any], data)
    for row in _rows(found.get("l"), 3):
        level, at, message = row
        if isinstance(level, str) and _is_list(message):
            if not _FLAT.issuperset(map(type, message)) and not _shallow(
                message, limits.LOG_DEPTH.value
            ):
                message = ["[nested too deeply]"]
            logs.append(LogLine(level[:16], message, _ms(at)))
    for row in _rows(found.get("e"), 4)[: limits.LOG_EXCEPTIONS.value]:
        name, message, stack, at = row
        exceptions.append(
            GuestException(_text(name, 256), _text(message, 16_384), _text(stack, 16_384), _ms(at))
        )
    return logs, exceptions, found.get("o") == "exception"


def _rows(value: Any, width: int) -> list[list[Any]]:
    if not _is_list(value):
        return []
    rows = value[: limits.LOG_LINES.value]
    return [row for row in rows if _is_list(row) and len(row) == width]


_FLAT = frozenset({str, int, float, bool, type(None)})


def _shallow(value: object, levels: int) -> bool:
    """Whether whoever writes `value` as JSON can do so from any depth of the stack."""
    if isinstance(value, dict):
        inner: Iterable[object] = cast(dict[str, object], value).values()
    elif isinstance(value, list):
        inner = cast(list[object], value)
    else:
        return True
    return levels > 0 and all(_shallow(member, levels - 1) for member in inner)


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _no_number(text: str) -> None:
    """NaN and Infinity: Python would read and write them, and no reader of our JSON lines can."""


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _text(value: Any, most: int) -> str:
    return value[:most] if isinstance(value, str) else ""


def _ms(value: Any) -> int:
    if type(value) is int and 0 <= value < 2**53:
        return value
    ok = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53
    return int(value) if ok else 0


@dataclass(frozen=True, slots=True)
class Event:
    """How a `scheduled` or `queue` event ended.

    `result` is the engine's own account: `noRetry` for a schedule; `ackAll`, `explicitAcks`,
    `retryBatch` and `retryMessages` for a batch.
    """

    outcome: Outcome
    tell: Tell
    result: dict[str, Any]

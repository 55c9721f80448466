"""What is wrong with a user's file, and where: collected first, told all at once."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError

KeyPath = tuple[str | int, ...]
"""Where a value stands in a file: table and key names, and indexes into arrays."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to put right.

    Attributes:
        line: counted from 1; None where it could not be found.
        key: the key path as a user would write it, or "".
        message: what is wrong and what was expected; never a secret value.
    """

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.message) if part)


class Problems:
    """Collects problems; changed only by `add`."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, file: str, line: int | None, message: str, *, key: str = "") -> None:
        self.found.append(Problem(file, line, key, message))

    def raise_any(self, code: UserCode, subject: str, *, hint: str) -> None:
        """Raise one UserError that lists every problem, or nothing when there is none.

        The message lists `limits.PROBLEMS_SHOWN` at most, `details` the same ones as objects.
        """
        if not self.found:
            return
        ordered = sorted(self.found, key=lambda problem: (problem.file, problem.line or 0))
        shown = ordered[: limits.PROBLEMS_SHOWN.value]
        lines = [f"{subject}:", *(f"  {problem}" for problem in shown)]
        if len(ordered) > len(shown):
            lines.append(f"  and {len(ordered) - len(shown)} more")
        raise UserError(
            code,
            "\n".join(lines),
            hint=hint,
            details={
                "count": len(ordered),
                "problems": [
                    {"file": p.file, "line": p.line, "key": p.key, "message": p.message}
                    for p in shown
                ],
            },
        )


def shown(text: object) -> str:
    """A name or path fit for a terminal: nothing unprintable, nothing undecodable."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text))


def dotted(path: KeyPath) -> str:
    """`functions.hello.schedules[1]`; a name that is no bare TOML key stands in quotes."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part) is not None
            text += ("." if text else "") + (part if bare else f'"{shown(part)[:60]}"')
    return text


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`; did you mean "entry"?`, or "" when nothing is near."""
    import difflib  # only a mistake pays for it: start-up time counts

    near = difflib.get_close_matches(given[:80].lower(), sorted(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def one_of(known: Mapping[str, object] | Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in known)


def read_text(path: Path, *, problems: Problems) -> str | None:
    """The text of a user's file, or None when it is absent or (with a problem) unusable.

    Opened without blocking, so that a FIFO in its place cannot hang the start.
    A byte order mark is dropped.
    """
    name = shown(path)
    most = limits.CONFIG_FILE_BYTES.value
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | os.O_CLOEXEC)
    except FileNotFoundError:
        if path.is_symlink():
            problems.add(name, None, "is a link that leads nowhere; remove or mend it")
        return None
    except OSError as error:
        problems.add(name, None, f"cannot be read: {error.strerror}")
        return None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        problems.add(name, None, "is not a file; remove it or put a file in its place")
        return None
    with os.fdopen(handle, "rb") as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        problems.add(name, None, f"has more than {most} bytes; keep it smaller")
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problems.add(name, line, "is not UTF-8; save it as UTF-8")
        return None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        problems.add(name, line, "holds a NUL character; save it as plain UTF-8 text")
        return None
    return text


_BARE = r"(?:[A-Za-z0-9_-]+|\"(?:[^\"\\]|\\.)*\"|'[^']*')"
_KEY = rf"{_BARE}(?:[ \t]*\.[ \t]*{_BARE})*"
_HEADER = re.compile(rf"[ \t]*(\[\[?)[ \t]*({_KEY})[ \t]*\]")
_ASSIGNMENT = re.compile(rf"[ \t]*({_KEY})[ \t]*=")
_PART = re.compile(_BARE)


class TomlLines:
    """Where the keys of a TOML text stand: a scan of line starts, good enough for a message.

    Keys inside inline tables and arrays are not seen: the line of the key that holds them is
    given instead. Quoted keys with escapes are not seen either.
    """

    def __init__(self, text: str) -> None:
        self._lines: dict[KeyPath, int] = {}
        self._text: str | None = text

    def of(self, path: KeyPath) -> int | None:
        """The line of a key path, or of the nearest one above it; None when none was seen."""
        if self._text is not None:
            self._scan(self._text)
            self._text = None
        while path:
            line = self._lines.get(path)
            if line is not None:
                return line
            path = path[:-1]
        return None

    def _scan(self, text: str) -> None:
        table: KeyPath = ()
        counts: dict[KeyPath, int] = {}
        fence = ""  # the quotes that end the multi-line string this line begins in
        for number, line in enumerate(text.splitlines(), 1):
            if fence:
                if fence in line:
                    fence = ""
                continue
            if (header := _HEADER.match(line)) is not None:
                table = _parts(header[2])
                if header[1] == "[[":
                    self._lines.setdefault(table, number)
                    index = counts.get(table, 0)
                    counts[table] = index + 1
                    table = (*table, index)
                self._note(table, number)
            elif (assignment := _ASSIGNMENT.match(line)) is not None:
                self._note((*table, *_parts(assignment[1])), number)
                fence = next((q for q in ('"""', "'''") if line.count(q) == 1), "")

    def _note(self, path: KeyPath, number: int) -> None:
        for end in range(1, len(path) + 1):
            self._lines.setdefault(path[:end], number)


def _parts(key: str) -> KeyPath:
    return tuple(
        part[1:-1] if part[0] in "\"'" else part for part in (m[0] for m in _PART.finditer(key))
    )

"""The shapes of a configuration file: tables, arrays, names and numbers, and telling what is wrong.

What the keys mean is for the readers that are made of this one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TypeVar, cast

from amba_runtime.manifest import FUNCTION_NAME

from .problems import KeyPath, Problems, TomlLines, did_you_mean, dotted, one_of, shown

T = TypeVar("T")
D = TypeVar("D")
E = TypeVar("E", bound=StrEnum)

NAME_RULE = "a lower-case letter, then lower-case letters, digits, - and _, 58 characters in all"


class Shapes:
    """Reads one parsed file, noting every problem on the way.

    Each method takes a key path and the value there, and gives the value understood, or None
    after noting a problem (the result is thrown away then: `load_config` raises).
    """

    def __init__(self, file: Path, lines: TomlLines, prefix: KeyPath, problems: Problems) -> None:
        self.file = file
        self.lines = lines
        self.prefix = prefix
        self.problems = problems

    # --- shapes ---

    def table(
        self,
        path: KeyPath,
        value: object,
        known: Mapping[str, object] | tuple[str, ...],
        elsewhere: Mapping[str, str] | None = None,
        *,
        required: tuple[str, ...] = (),
    ) -> dict[str, object]:
        """The known members of a table; unknown and missing ones are noted."""
        if not isinstance(value, dict):
            self.wrong(path, f"a table with {one_of(known)}", value)
            return {}
        members = cast(dict[str, object], value)
        for name in sorted(members.keys() - set(known)):
            moved = (elsewhere or {}).get(name)
            near = did_you_mean(name, known) or f"; known are {one_of(known)}"
            self.note((*path, name), "unknown key" + (f": {moved}" if moved else near))
        for name in required:
            if name not in members:
                self.note(path, f'"{name}" is missing (needed: {one_of(required)})')
        return {name: members[name] for name in known if name in members}

    def named(
        self, path: KeyPath, value: object, kind: str, rule: re.Pattern[str], expected: str
    ) -> dict[str, object]:
        """A table whose keys are names; those that break the rule are noted and left out."""
        if not isinstance(value, dict):
            self.wrong(path, f"a table with one table per {kind}", value)
            return {}
        members = cast(dict[str, object], value)
        for name in members:
            if rule.match(name) is None:
                self.note((*path, name), f"is no name for a {kind}; expected {expected}")
        return {name: v for name, v in members.items() if rule.match(name)}

    def array(
        self, path: KeyPath, value: object, parse: Callable[[KeyPath, object], T | None]
    ) -> tuple[T, ...]:
        if not isinstance(value, list):
            self.wrong(path, "an array", value)
            return ()
        read = [parse((*path, i), v) for i, v in enumerate(cast(list[object], value))]
        return tuple(item for item in read if item is not None)

    def take(
        self,
        table: dict[str, object],
        path: KeyPath,
        key: str,
        parse: Callable[[KeyPath, object], T],
        default: D,
    ) -> T | D:
        return parse((*path, key), table[key]) if key in table else default

    def matching(
        self, path: KeyPath, value: object, rule: re.Pattern[str], expected: str
    ) -> str | None:
        if not isinstance(value, str) or rule.match(value) is None:
            self.wrong(path, expected, value)
            return None
        return value

    def choice(self, path: KeyPath, value: object, kind: type[E]) -> E | None:
        known = [member.value for member in kind]
        if not isinstance(value, str) or value not in known:
            near = did_you_mean(value, known) if isinstance(value, str) else ""
            self.wrong(path, f"one of {one_of(known)}", value, near)
            return None
        return kind(value)

    def number(
        self, path: KeyPath, value: object, expected: str, lowest: int, highest: int
    ) -> int | None:
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            self.wrong(path, f"a whole number, {expected}", value)
            return None
        return value

    def function_name(self, path: KeyPath, value: object) -> str | None:
        return self.matching(path, value, FUNCTION_NAME, f"the name of a function: {NAME_RULE}")

    # --- telling ---

    def wrong(self, path: KeyPath, expected: str, value: object, more: str = "") -> None:
        self.note(path, f"expected {expected}; got {_told(value)}{more}")

    def note(self, path: KeyPath, message: str) -> None:
        full = (*self.prefix, *path)
        self.problems.add(shown(self.file), self.lines.of(full), message, key=dotted(full))

    def place(self, path: KeyPath) -> str:
        line = self.lines.of((*self.prefix, *path))
        return shown(self.file) if line is None else f"{shown(self.file)}:{line}"


def _told(value: object) -> str:
    """A wrong value for a message: short, printable, in TOML's words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{shown(value[:60])}{"…" if len(value) > 60 else ""}"'
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a number far too large"
    return str(value)

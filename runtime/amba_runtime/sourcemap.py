"""The only reader of source maps: from a place in a bundle back to the user's file.

Maps and stacks come from strangers. Nothing here raises on any input, work is bounded by the size
of the map and of the stack (both capped in `limits`), and names that come out of a map are stripped
of control characters; they remain untrusted text.

Source: ECMA-426, version 3 maps (without sections, which esbuild does not make); V8's stack trace
API for the form of a stack line.
"""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_right
from collections.abc import Collection
from typing import Any, NamedTuple, TypeGuard

from . import limits

_DIGITS = {
    character: value
    for value, character in enumerate(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    )
}
_MAX = 2**31 - 1
_SEGMENT_CHARS_MAX = 5 * 7
"""Five numbers of 32 bits, seven digits each."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_MEMO_MAX = 4096


class Position(NamedTuple):
    """A place in a user's file; line and column count from 1, as V8 and editors do."""

    source: str
    line: int
    column: int
    name: str | None


class SourceMap:
    """One decoded map. It is immutable to the outside; memory is a few integers a line.

    Only the state at the start of each line is kept; a line is decoded when it is asked for.
    """

    __slots__ = ("_lines", "_names", "_sources", "_starts")

    def __init__(self, lines: list[str], sources: list[str], names: list[str]) -> None:
        self._lines = lines
        self._sources = sources
        self._names = names
        # Filled at the first lookup, as a bundle that never throws needs none of it.
        self._starts: array[int] | None = None

    @classmethod
    def parse(cls, document: bytes) -> SourceMap:
        """Read a map. What is no version 3 map becomes a map that leads nowhere.

        Args:
            document: JSON, UTF-8; over `limits.SOURCE_MAP` it is not read.
        """
        empty = cls([], [], [])
        if len(document) > limits.SOURCE_MAP.value:
            return empty
        try:
            parsed: Any = json.loads(document)
        except (ValueError, RecursionError):
            return empty
        match parsed:
            case {"version": 3, "mappings": str(mappings), "sources": sources}:
                names: Any = parsed.get("names")
                root: Any = parsed.get("sourceRoot")
            case _:
                return empty
        return cls(
            mappings.split(";"),
            [_joined(root, source) for source in _texts(sources)],
            _texts(names),
        )

    def lookup(self, line: int, column: int) -> Position | None:
        """Where this place of the bundle comes from.

        Args:
            line, column: from 1; the column in UTF-16 units, as V8 prints it.

        Returns:
            The place whose text begins at or before that column on that line; None when the line
            has none, or it was made by the bundler itself.
        """
        if not (1 <= line <= len(self._lines) and 1 <= column <= _MAX):
            return None
        if self._starts is None:
            self._starts = _line_starts(self._lines)
        at = (line - 1) * 4
        segments = _decode_line(self._lines[line - 1], self._starts[at : at + 4])
        found = bisect_right(segments, column - 1, key=lambda segment: segment[0]) - 1
        if found < 0:
            return None
        _, source, source_line, source_column, name = segments[found]
        if not 0 <= source < len(self._sources):
            return None
        if not (0 <= source_line < _MAX and 0 <= source_column < _MAX):
            return None
        named = self._names[name] if name is not None and 0 <= name < len(self._names) else None
        return Position(self._sources[source], source_line + 1, source_column + 1, named)

    def map_stack(self, stack: str, module_name: str, *, hidden: Collection[str] = ()) -> str:
        """Rewrite V8's lines about the bundle so that they name the user's files.

        Args:
            stack: `error.stack`; text of a stranger, cut at `limits.STACK` and `STACK_LINES`.
            module_name: the bundle's module as V8 prints it, with or without folders before it.
            hidden: modules of ours, whose lines are left out.

        Returns:
            The stack; lines that lead nowhere stay as they were.
        """
        lines = stack[: limits.STACK.value].split("\n")[: limits.STACK_LINES.value]
        mapped = (self._map_line(line, module_name, hidden) for line in lines)
        return "\n".join(line for line in mapped if line is not None)

    def _map_line(self, text: str, module_name: str, hidden: Collection[str]) -> str | None:
        """One line, or None for a frame of ours."""
        if not text.lstrip(" ").startswith("at "):
            return text
        # `at f (place)`, `at async f (place)`, `at new C (place)` or `at place`.
        end = ")" if text.endswith(")") else ""
        start = text.rfind("(") + 1 if end else text.rfind(" ") + 1
        parts = text[start : len(text) - len(end)].rsplit(":", 2)
        if len(parts) != 3:
            return text
        module, line, column = parts
        file = module.rpartition("/")[2]
        if file in hidden or module in hidden:
            return None
        if module_name not in (file, module):
            return text
        if not (_is_number(line) and _is_number(column)):
            return text
        place = self.lookup(int(line), int(column))
        if place is None:
            return text
        return f"{text[:start]}{place.source}:{place.line}:{place.column}{end}"


def _is_number(text: str) -> bool:
    return 0 < len(text) <= 10 and text.isascii() and text.isdigit()


def _texts(values: Any) -> list[str]:
    """The list with everything that is no string as "", so that indexes stay right."""
    items = values if _is_list(values) else []
    return [_CONTROL.sub("\ufffd", item) if isinstance(item, str) else "" for item in items]


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _joined(root: Any, source: str) -> str:
    if not isinstance(root, str) or not root:
        return source
    return f"{_CONTROL.sub(chr(0xFFFD), root).rstrip('/')}/{source}"


def _numbers(segment: str) -> tuple[int, ...] | None:
    """The one, four or five differences in a segment; None when it is damaged."""
    if len(segment) > _SEGMENT_CHARS_MAX:
        return None
    numbers: list[int] = []
    value = shift = 0
    for character in segment:
        digit = _DIGITS.get(character)
        if digit is None:
            return None
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            numbers.append(-(value >> 1) if value & 1 else value >> 1)
            value = shift = 0
    return tuple(numbers) if len(numbers) in (1, 4, 5) and not shift else None


def _line_starts(lines: list[str]) -> array[int]:
    """Source, line, column and name as they stand where each line begins, four to a line.

    A total that runs out of 32 bits ends the reading: every later line starts out of range, and
    so leads nowhere.
    """
    starts = array("q")
    state = [0, 0, 0, 0]
    memo: dict[str, tuple[int, ...] | None] = {}  # few different segments make up most of a map
    broken = False
    for line in lines:
        starts.extend(state)
        if broken or not line:
            continue
        for segment in line.split(","):
            numbers = memo.get(segment, ())
            if numbers == ():
                numbers = _numbers(segment)
                if len(memo) < _MEMO_MAX:
                    memo[segment] = numbers
            if numbers is None or len(numbers) == 1:
                continue
            for index, difference in enumerate(numbers[1:]):
                state[index] += difference
        if any(abs(total) > _MAX for total in state):
            broken, state = True, [-1, -1, -1, -1]
    return starts


def _decode_line(line: str, start: array[int]) -> list[tuple[int, int, int, int, int | None]]:
    """Segments by generated column: column, source, line, column, name (source -1: nowhere)."""
    state = list(start)
    column = 0
    segments: list[tuple[int, int, int, int, int | None]] = []
    if not line or state[0] < 0:
        return segments
    for text in line.split(","):
        numbers = _numbers(text)
        if numbers is None:
            continue
        column += numbers[0]
        for index, difference in enumerate(numbers[1:]):
            state[index] += difference
        where = state[0] if len(numbers) > 1 else -1
        name = state[3] if len(numbers) == 5 else None
        segments.append((column, where, state[1], state[2], name))
    # In order already, but for a map that somebody bent; sorting is stable and then costs little.
    segments.sort(key=lambda segment: segment[0])
    return segments

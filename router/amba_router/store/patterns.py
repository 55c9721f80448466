"""Patterns of LIKE, matched in a time that no pattern and no text can make long.

A pattern is cut at its `%`. What stands at an end is compared in place; what floats between two is
searched for once, the leftmost first: where that leaves no room for the rest, nothing does. So each
letter of a text is looked at once, however many wildcards there are, and the work is known before.
Source: Postgres' meaning of LIKE: `%` is any text, `_` one character, a backslash takes the meaning
of what follows; case counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern that was read.

    Attributes:
        first: what a text begins with; all of it, where there is no `last`.
        floating: what stands between two `%`, in order, none of them empty.
        last: what it ends with; None where the pattern has no `%`.
    """

    first: _Segment
    floating: tuple[_Segment, ...]
    last: _Segment | None

    @classmethod
    def read(cls, pattern: str) -> Self:
        """A pattern that does not end with a single backslash."""
        segments: list[list[str]] = [[]]
        literal = False
        for letter in pattern:
            if literal or letter not in "\\%_":
                segments[-1].append(letter)
                literal = False
            elif letter == "\\":
                literal = True
            elif letter == "%":
                segments.append([])
            else:
                segments[-1].append(_ANY)
        made = [_Segment.of(letters) for letters in segments]
        if len(made) == 1:
            return cls(made[0], (), None)
        return cls(made[0], tuple(one for one in made[1:-1] if one.letters), made[-1])

    def steps(self, length: int) -> int:
        """What a look at a text may cost. Args: length: the text's. Returns: 4 ns each."""
        searched = 0
        if self.floating:
            searched = _SEARCHED_WILD if any(one.masks for one in self.floating) else _SEARCHED
        ends = len(self.first.letters) + len(self.last.letters if self.last else ())
        return _PLACED * ends + _SEGMENT * len(self.floating) + searched * length

    def fits(self, text: str) -> bool:
        """Whether all of a text is as the pattern says."""
        at, stop = len(self.first.letters), len(text)
        if self.last is None:
            return at == stop and self.first.stands(text, 0)
        stop -= len(self.last.letters)
        if at > stop or not self.first.stands(text, 0) or not self.last.stands(text, stop):
            return False
        for segment in self.floating:
            at = segment.search(text, at, stop)
            if at < 0:
                return False
        return True


_ANY = ""
"""In place of a letter: each one."""

# measured
_PLACED = 10  # a letter of a pattern that has its place
_SEGMENT = 50  # each that floats
_SEARCHED = 1  # a letter of a text
_SEARCHED_WILD = 40  # where there is a `_` in what is searched for


@dataclass(frozen=True, slots=True)
class _Segment:
    """What stands between two `%`.

    Attributes:
        letters: `_ANY` stands for each.
        plain: the letters, where none is `_ANY`.
        masks: where there is one: by letter, a bit for each place where it may stand.
        anywhere: the bits of `_ANY`.
    """

    letters: tuple[str, ...]
    plain: str
    masks: dict[str, int]
    anywhere: int

    @classmethod
    def of(cls, letters: list[str]) -> Self:
        if _ANY not in letters:
            return cls(tuple(letters), "".join(letters), {}, 0)
        anywhere = sum(1 << at for at, letter in enumerate(letters) if letter is _ANY)
        masks = {_ANY: anywhere}
        for at, letter in enumerate(letters):
            if letter is not _ANY:
                masks[letter] = masks.get(letter, anywhere) | 1 << at
        return cls(tuple(letters), "", masks, anywhere)

    def stands(self, text: str, at: int) -> bool:
        """Whether it is in a text at a place; the text is long enough."""
        if not self.masks:
            return text.startswith(self.plain, at)
        return all(
            letter is _ANY or letter == text[at + index]
            for index, letter in enumerate(self.letters)
        )

    def search(self, text: str, start: int, stop: int) -> int:
        """The end of the leftmost place in this part of a text where it stands, or -1."""
        if not self.masks:
            found = text.find(self.plain, start, stop)
            return found if found < 0 else found + len(self.plain)
        # a bit for each beginning of the segment that the text ends with so far (Shift-And)
        begun, whole = 0, 1 << len(self.letters) - 1
        of, anywhere = self.masks.get, self.anywhere
        for at in range(start, stop):
            begun = (begun << 1 | 1) & of(text[at], anywhere)
            if begun & whole:
                return at + 1
        return -1

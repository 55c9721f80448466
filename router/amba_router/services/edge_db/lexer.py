"""From SQL to words, as Postgres cuts it. One pass, in time that grows with the text.

Source: PostgreSQL documentation, "Lexical Structure". What has no place in a statement of ours,
such as strings of other forms, is refused here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from amba_router.rows.statements import NotTaken


class Kind(Enum):
    """Of a word."""

    WORD = auto()
    NAME = auto()
    TEXT = auto()
    NUMBER = auto()
    PARAM = auto()
    SIGN = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """Attributes: text: a word in lower case; a name or a text without its quotes."""

    kind: Kind
    text: str
    position: int


_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*)
    |(?P<comment>/\*)
    |(?P<prefixed>(?:[ebxn]|u&)['"])
    |(?P<word>[a-z_][a-z0-9_$]*)
    |(?P<name>"(?:[^"]|"")*")
    |(?P<text>'(?:[^']|'')*')
    |(?P<param>\$[0-9]+)
    |(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?)
    |(?P<sign><=|>=|<>|!=|::|[=<>(),.;\[\]*+-])""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_COMMENT = re.compile(r"/\*|\*/")
_SHOWN = 12


def tokens(sql: str) -> list[Token]:
    """All words of a text, with one END after the last. Raises `NotTaken`."""
    found: list[Token] = []
    at = 0
    while at < len(sql):
        match = _TOKEN.match(sql, at)
        if match is None:
            raise _unknown(sql, at)
        kind, text, start = match.lastgroup, match[0], at
        at = match.end()
        if kind == "comment":
            at = _after_comment(sql, start)
        elif kind == "prefixed":
            raise NotTaken(
                f"{text[:-1]}{text[-1]}...{text[-1]} is a form of text or name that is not taken; "
                "send a parameter",
                start,
            )
        elif kind == "word":
            found.append(Token(Kind.WORD, text.lower(), start))
        elif kind == "name":
            found.append(Token(Kind.NAME, text[1:-1].replace('""', '"'), start))
        elif kind == "text":
            found.append(Token(Kind.TEXT, text[1:-1].replace("''", "'"), start))
        elif kind == "param":
            found.append(Token(Kind.PARAM, text[1:], start))
        elif kind == "number":
            found.append(Token(Kind.NUMBER, text, start))
        elif kind == "sign":
            found.append(Token(Kind.SIGN, "<>" if text == "!=" else text, start))
    found.append(Token(Kind.END, "", len(sql)))
    return found


def _after_comment(sql: str, start: int) -> int:
    """Comments of this form nest."""
    depth = 0
    for mark in _COMMENT.finditer(sql, start):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    raise NotTaken("a comment does not end", start)


def _unknown(sql: str, at: int) -> NotTaken:
    if sql[at] in "'\"":
        what = "a text" if sql[at] == "'" else "a quoted name"
        return NotTaken(f"{what} does not end", at)
    return NotTaken(f"{sql[at : at + _SHOWN]!r} is not taken", at)

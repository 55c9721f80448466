"""Words one after another: what comes next, and what is said of one that has no place there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import TypeVar

from amba_router.rows.statements import NotTaken
from amba_router.services.edge_db.lexer import Kind, Token, tokens
from amba_runtime import limits

T = TypeVar("T")

_RESERVED = """
    all analyse analyze and any array as asc between both case cast check collate cross
    current_date current_time current_timestamp default delete desc distinct do else end escape
    except exists false fetch for from full grant group having ilike in inner insert intersect
    into is join lateral left like limit localtime localtimestamp natural not notnull null
    offset on only or order outer overlaps returning right select session_user set similar some
    table tablesample then to true union unique update user using values when where window  with
"""
RESERVED = frozenset(_RESERVED.split())
"""Words that are no names unless they are quoted."""


class Reader:
    """A text, and how far it has been read.

    Attributes:
        parameters: the highest `$n` so far.
    """

    def __init__(self, sql: str) -> None:
        self._tokens = tokens(sql)
        self._at = 0
        self._depth = 0
        self.parameters = 0
        # of the statement or inner SELECT being read: its table's name, and what columns call it
        self._called = ""
        self._qualifiers: list[Token] = []

    # words

    @property
    def token(self) -> Token:
        """The next one."""
        return self._tokens[self._at]

    def skip(self, count: int = 1) -> Token:
        """Take words; gives the first of them."""
        token = self.token
        self._at += count
        return token

    def is_words(self, *words: str) -> bool:
        """Whether these come next."""
        ahead = self._tokens[self._at : self._at + len(words)]
        return [(t.kind, t.text) for t in ahead] == [(Kind.WORD, word) for word in words]

    def accept_words(self, *words: str) -> bool:
        """Take these if they come next."""
        found = self.is_words(*words)
        if found:
            self.skip(len(words))
        return found

    def is_sign(self, *signs: str) -> bool:
        """Whether these come next."""
        ahead = self._tokens[self._at : self._at + len(signs)]
        return [(t.kind, t.text) for t in ahead] == [(Kind.SIGN, sign) for sign in signs]

    def accept(self, sign: str) -> bool:
        """Take this if it comes next."""
        found = self.is_sign(sign)
        if found:
            self.skip()
        return found

    def expect(self, sign: str) -> None:
        """Take this. Raises `NotTaken`."""
        if not self.accept(sign):
            raise self.refused(f"{sign} belongs here")

    def expect_word(self, word: str) -> None:
        """Take this. Raises `NotTaken`."""
        if not self.accept_words(word):
            raise self.refused(f"{word.upper()} belongs here")

    def is_call(self, name: str) -> bool:
        """Whether a call of this function comes next."""
        return self.is_words(name) and self._tokens[self._at + 1].text == "("

    def refused(self, why: str) -> NotTaken:
        """The exception for the next word."""
        token = self.token
        if token.kind is Kind.END:
            return NotTaken(f"the statement ends where it goes on: {why}", token.position)
        shown = token.text[:40].upper() if token.kind is Kind.WORD else repr(token.text[:40])
        return NotTaken(f"{shown} is not taken here: {why}", token.position)

    # what consists of words

    def several(self, read: Callable[[], T], most: int) -> tuple[T, ...]:
        """One or more, with commas between."""
        found = [read()]
        while self.accept(","):
            if len(found) == most:
                raise self.refused(f"{most} are the most of these")
            found.append(read())
        return tuple(found)

    @contextlib.contextmanager
    def deeper(self) -> Generator[None]:
        """What stands in brackets, after NOT, or within a SELECT."""
        self._depth += 1
        if self._depth > limits.EDGE_DB_DEPTH.value:
            raise self.refused(f"{limits.EDGE_DB_DEPTH.value} levels are the most")
        yield
        self._depth -= 1

    def at_name(self) -> bool:
        """Whether a name comes next."""
        token = self.token
        if token.kind is Kind.WORD:
            return token.text not in RESERVED
        return token.kind is Kind.NAME

    def name(self, what: str) -> str:
        """Take a name. Raises `NotTaken`."""
        if not self.at_name():
            raise self.refused(f"{what} belongs here")
        return self.skip().text

    @contextlib.contextmanager
    def one_table(self) -> Generator[None]:
        """Names of columns in here are those of the one `table` in here."""
        outer = self._called, self._qualifiers
        self._called, self._qualifiers = "", []
        yield
        self._check_qualifiers()
        self._called, self._qualifiers = outer

    def _check_qualifiers(self) -> None:
        for said in self._qualifiers:
            if said.text != self._called:
                raise NotTaken(f"{said.text[:40]!r} is not the table asked for", said.position)

    def table(self) -> str:
        """Take a table's name and what else it is to be called; gives the name."""
        name = self.name("a table")
        if self.accept("."):
            if name != "public":
                raise NotTaken(
                    f"schema {name[:40]!r} is not here: tables are coll_NAME", self.token.position
                )
            name = self.name("a table")
        alias = name
        if self.accept_words("as") or self.at_name():
            alias = self.name("a name")
        if self.is_sign(","):
            raise self.refused("one table is asked for at a time")
        self._called = alias
        return name

    def column(self, *, star: bool = False) -> str:
        """Take a column's name, which may stand after its table's. Args: star: `t.*` is one."""
        token = self.token
        name = self.name("a column")
        if self.is_sign("("):
            raise NotTaken(
                f"function {name[:40]} is not taken: now() and count(*) are", token.position
            )
        if self.accept("."):
            self._qualifiers.append(token)
            if star and self.accept("*"):
                return "*"
            name = self.name("a column")
        return name

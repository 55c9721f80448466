"""Patterns of LIKE, against all that regular expressions say of short ones (E.5)."""

from __future__ import annotations

import itertools
import re

import pytest
from tests.router.services.collections.naive import pattern as expression

from amba_router.store.patterns import Pattern

TEXTS = ["".join(text) for size in range(6) for text in itertools.product("ab", repeat=size)]
PATTERNS = ["".join(text) for size in range(6) for text in itertools.product("ab_%", repeat=size)]


@pytest.mark.parametrize("size", range(6))
def test_each_short_pattern_fits_what_it_says(size: int) -> None:
    """All patterns of up to five characters, all texts of up to five letters."""
    for like in (one for one in PATTERNS if len(one) == size):
        read, wanted = Pattern.read(like), re.compile(expression(like))
        fitting = [text for text in TEXTS if read.fits(text)]
        assert fitting == [text for text in TEXTS if wanted.fullmatch(text)], like


@pytest.mark.parametrize(
    ("like", "fits", "fits_not"),
    [
        ("a\\%b", ["a%b"], ["axb", "a\\%b"]),
        ("%\\_%", ["_", "a_b"], ["a", ""]),
        ("%\\\\_%", ["\\x", "a\\\\"], ["\\", "_x"]),
        ("\\a%\\b", ["ab", "a\nb"], ["a", "\\a\\b"]),
        ("_", ["\n", "😀", "日"], ["", "e\u0301"]),
        ("%x_z%y__", ["xyzy\n\n", "xxyzyyyy", "xzxyzyab"], ["xyzyy", "xzyy__"]),
        ("%A%", ["A", "bAb"], ["a", "bab"]),
    ],
)
def test_escapes_and_characters_are_those_of_postgres(
    like: str, fits: list[str], fits_not: list[str]
) -> None:
    """A backslash before anything, one character of any kind, case."""
    read = Pattern.read(like)
    assert [text for text in fits + fits_not if read.fits(text)] == fits


def test_the_cost_is_known_before() -> None:
    """It grows with the text only where something floats, and not with what floats besides."""
    assert Pattern.read("abc%").steps(1_000_000) == Pattern.read("abc%").steps(0)
    plain, wild = Pattern.read("%ab%"), Pattern.read("%a_%")
    assert wild.steps(1_000) > plain.steps(1_000) > plain.steps(0)
    assert Pattern.read("%a_%ab%").steps(1_000) < 2 * wild.steps(1_000)

"""Where the keys of a TOML text stand, and how key paths and odd names are printed."""

from __future__ import annotations

import pytest

from amba_run.problems import KeyPath, Problem, TomlLines, dotted, shown

TEXT = '''\
a = 1
b.c = 2
"d e" . f = 3

[t]
a = """
[not.a.table]
a = 5
"""
g = [
  "x = y",
  { k = 1 },
]
one_line = """closed"""
after = 1

[[t.many]]
k = 1
[[t.many]]
k = 2
[t.'quoted.name'.sub]
z = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("a",), 1),
        (("b",), 2),
        (("b", "c"), 2),
        (("d e", "f"), 3),
        (("t",), 5),
        (("t", "a"), 6),
        (("t", "g"), 10),
        (("t", "g", 1, "k"), 10),
        (("t", "one_line"), 14),
        (("t", "after"), 15),
        (("t", "many"), 17),
        (("t", "many", 0, "k"), 18),
        (("t", "many", 1), 19),
        (("t", "many", 1, "k"), 20),
        (("t", "quoted.name", "sub", "z"), 22),
        (("t", "quoted.name"), 21),
        (("t", "unseen"), 5),
        (("x",), None),
        (("not", "a"), None),
        ((), None),
    ],
)
def test_lines(path: KeyPath, line: int | None) -> None:
    """A key has its line, what cannot be seen has the line of what holds it."""
    assert TomlLines(TEXT).of(path) == line


def test_printing() -> None:
    """Paths read as a user would write them; nothing unprintable comes out."""
    assert dotted(("a", "b-c", 0, "d e")) == 'a.b-c[0]."d e"'
    assert shown("a\x1b\n\udcffé") == "a\\x1b\\n\\udcffé"
    assert str(Problem("f", 3, "k", "m")) == "f:3: k: m"
    assert str(Problem("f", None, "", "m")) == "f: m"

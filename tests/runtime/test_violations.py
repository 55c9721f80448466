"""One broken rule as people and programs are told it."""

from __future__ import annotations

import pytest

from amba_runtime.violations import Rejected, Violation, ViolationCode, fix_import

CODE = ViolationCode.SYNTAX_ERROR


@pytest.mark.parametrize(
    ("violation", "place"),
    [
        (Violation(CODE, "m", "f"), ""),
        (Violation(CODE, "m", "f", "", "a.js"), "a.js"),
        (Violation(CODE, "m", "f", "", "a.js", 1, 1), "a.js:1:1"),
        (Violation(CODE, "m", "f", "", "a.js", 20, 3), "a.js:20:3"),
    ],
)
def test_a_place_is_as_exact_as_is_known(violation: Violation, place: str) -> None:
    """File, line and column, as editors take them (interface.md 2)."""
    assert violation.place == place
    first = violation.as_text().splitlines()[0]
    assert first == (f"{place}: SYNTAX_ERROR: m" if place else "SYNTAX_ERROR: m")


def test_what_is_not_known_is_left_empty() -> None:
    """No place, no chain and no stack, unless they are given (interface.md 2)."""
    assert Violation(CODE, "m", "f").as_json() == {
        "code": "SYNTAX_ERROR",
        "message": "m",
        "file": "",
        "line": 0,
        "column": 0,
        "chain": [],
        "fix": "f",
    }
    assert Violation(CODE, "m", "f", "s").as_json()["stack"] == "s"


def test_all_of_it_stands_on_lines_of_its_own() -> None:
    """The chain only where it led somewhere (interface.md 2)."""
    chain = ("index.js", "lib/a.js", "lib/b.js")
    whole = Violation(CODE, "m", "f", "at x\nat y", "lib/b.js", 3, 4, chain)
    assert whole.as_text().splitlines() == [
        "lib/b.js:3:4: SYNTAX_ERROR: m",
        "  imported by: index.js -> lib/a.js -> lib/b.js",
        "  at x",
        "  at y",
        "  fix: f",
    ]
    alone = Violation(CODE, "m", "", "", "index.js", 3, 4, ("index.js",))
    assert alone.as_text() == "index.js:3:4: SYNTAX_ERROR: m"
    two = Violation(CODE, "m", "", "", "a.js", 3, 4, ("index.js", "a.js"))
    assert two.as_text().splitlines()[1:] == ["  imported by: index.js -> a.js"]


def test_a_refusal_is_its_first_violation_in_a_word() -> None:
    """And holds all of them (interface.md 2)."""
    both = (Violation(CODE, "one", "f"), Violation(CODE, "two", "f"))
    assert str(Rejected(both)) == "one"
    assert Rejected(both).violations == both


@pytest.mark.parametrize(
    ("specifier", "words"),
    [
        ("node:anything", "Node built-ins"),
        ("fs", "Node built-ins"),
        ("stream/web", "Node built-ins"),
        ("fs-extra", "npm install fs-extra,"),
        ("@scope/name/deep", "npm install @scope/name,"),
        ("npm:zod@3", "npm install zod,"),
        ("cloudflare:workers", "env argument"),
        ("https://esm.example/x", "install the package with npm"),
        ("http://esm.example/x", "install the package with npm"),
        ("//esm.example/x", "install the package with npm"),
        ("data:text/javascript,1", "put the content into a file"),
        ("blob:x", "put the content into a file"),
        ("a b; rm -rf", "correct the name"),
        ("", "correct the name"),
        ("UPPER", "correct the name"),
    ],
)
def test_the_fix_of_an_import_can_be_pasted(specifier: str, words: str) -> None:
    """A command holds a package's name alone, never a stranger's text (contract B; T6)."""
    fix = fix_import(specifier)
    assert words in fix
    assert "rm -rf" not in fix

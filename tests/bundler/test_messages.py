"""Errors as text: readable, complete, and harmless to a terminal (issue 2, item 2)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amba_bundler.messages import BuildError, package_of, read_messages, render_errors
from amba_bundler.stdio import Value


def test_an_error_is_shown_with_its_place_and_fix() -> None:
    """Place and message, source line, caret under the word, notes, fix: in that order."""
    error = BuildError(
        message='Could not resolve "zodd"',
        file="fn.ts",
        line=12,
        column=9,
        source_line='\timport "zodd";',
        caret=8,
        caret_length=6,
        notes=("a note",),
        fix="npm install zodd",
    )
    assert render_errors([error]) == (
        'fn.ts:12:9: error: Could not resolve "zodd"\n'
        '  12 | \timport "zodd";\n'
        "     | \t       ^^^^^^\n"
        "  note: a note\n"
        "  fix: npm install zodd\n"
        "\n"
    )


def test_an_error_without_a_place_still_says_what() -> None:
    """No line: the file alone; no file: the message alone; a warning is called so."""
    errors = [BuildError("is empty", file="fn.ts"), BuildError("too much")]
    assert render_errors(errors, kind="warning") == (
        "fn.ts: warning: is empty\n\nwarning: too much\n\n"
    )


@given(st.text(max_size=40), st.text(max_size=40), st.integers(0, 40))
def test_no_source_can_move_the_cursor(message: str, line: str, caret: int) -> None:
    """Whatever the user's files hold, only printable text, tabs and our newlines come out."""
    error = BuildError(message, "f\x1b.ts", 1, 1, line, caret, 1, (message,), message)
    text = render_errors([error])
    assert text.count("\n") == (6 if line else 4) - (not message)
    assert not [c for c in text if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0]


_values: st.SearchStrategy[Value] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "location", "notes", "file", "line", "column", "lineText"]),
            inner,
        )
    ),
    max_leaves=12,
)


@pytest.mark.slow
@given(st.lists(_values, max_size=3))
def test_messages_of_another_shape_are_still_errors(values: list[Value]) -> None:
    """Nothing esbuild could say makes an error disappear."""
    assert len(read_messages(values, Path("/nowhere"))) == len(values)


def test_a_note_without_a_shape_is_left_out() -> None:
    """A message survives a note that cannot be read."""
    (error,) = read_messages([{"text": "t", "location": None, "notes": [None]}], Path("/nowhere"))
    assert error == BuildError("t")


def test_the_package_of_a_path() -> None:
    """The innermost `node_modules` counts, scoped names are whole, own files have none."""
    assert [
        package_of(path)
        for path in (
            "node_modules/zod/v4/core.js",
            "../node_modules/.pnpm/a@1/node_modules/@s/p/index.js",
            "lib/x.ts",
            "node_modules/",
        )
    ] == ["zod", "@s/p", "", ""]

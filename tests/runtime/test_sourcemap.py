"""Source maps and stacks (peers.md, pain 19): right for a real map, harmless for a hostile one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amba_runtime import limits
from amba_runtime.sourcemap import Position, SourceMap

_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_ESBUILD = Path(__file__).parents[2] / "bundler" / "amba_bundler" / "native" / "esbuild"

Segment = tuple[int, int, int, int, int | None]


def _vlq(number: int) -> str:
    rest = (-number << 1) | 1 if number < 0 else number << 1
    out = ""
    while True:
        digit, rest = rest & 31, rest >> 5
        out += _BASE64[digit | 32 if rest else digit]
        if not rest:
            return out


def _encode(lines: list[list[Segment]], sources: list[str], names: list[str]) -> bytes:
    """The reference encoder: the same differences, written the other way round."""
    last = [0, 0, 0, 0]
    texts: list[str] = []
    for line in lines:
        column, parts = 0, list[str]()
        for at, source, row, col, name in line:
            text = _vlq(at - column)
            column = at
            values = [source, row, col] if name is None else [source, row, col, name]
            for index, value in enumerate(values):
                text += _vlq(value - last[index])
                last[index] = value
            parts.append(text)
        texts.append(",".join(parts))
    document = {"version": 3, "sources": sources, "names": names, "mappings": ";".join(texts)}
    return json.dumps(document).encode()


_SOURCES = ["a.ts", "lib/b.ts", "../c.tsx"]
_NAMES = ["x", "handler"]
_segments = st.tuples(
    st.integers(0, 5000),
    st.integers(0, len(_SOURCES) - 1),
    st.integers(0, 2**30),
    st.integers(0, 2**30),
    st.none() | st.integers(0, len(_NAMES) - 1),
)
_lines = st.lists(
    st.lists(_segments, max_size=8, unique_by=lambda segment: segment[0]).map(sorted), max_size=8
)


@pytest.mark.slow
@given(_lines)
def test_what_is_encoded_is_found_again(lines: list[list[Segment]]) -> None:
    """Every segment is found at its own column, and at the last column before the next."""
    decoded = SourceMap.parse(_encode(lines, _SOURCES, _NAMES))
    for number, line in enumerate(lines, 1):
        for index, (at, source, row, col, name) in enumerate(line):
            named = None if name is None else _NAMES[name]
            expected = Position(_SOURCES[source], row + 1, col + 1, named)
            assert decoded.lookup(number, at + 1) == expected
            if index + 1 < len(line):
                assert decoded.lookup(number, line[index + 1][0]) == expected
        if line and line[0][0] > 0:
            assert decoded.lookup(number, line[0][0]) is None


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_bytes_that_are_no_map_lead_nowhere(document: bytes) -> None:
    """Any bytes give a map that answers None (hostile input never raises)."""
    assert SourceMap.parse(document).lookup(1, 1) is None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@pytest.mark.slow
@given(
    st.fixed_dictionaries(
        {
            "version": st.just(3),
            "sources": st.lists(_json, max_size=4),
            "names": _json,
            "sourceRoot": _json,
            "mappings": st.text("ABgz/+;,!\u00e9 ", max_size=120),
        }
    ),
    st.text(max_size=80),
)
def test_a_bent_map_never_raises(document: dict[str, object], tail: str) -> None:
    """Right members with wrong contents: lookups and stacks give an answer, never an exception."""
    decoded = SourceMap.parse(json.dumps(document).encode())
    for line in range(-1, 6):
        for column in (-1, 0, 1, 3, 2**40):
            place = decoded.lookup(line, column)
            assert place is None or (place.line >= 1 and place.column >= 1)
    stack = f"Error: {tail}\n    at f (fn.mjs:1:1)\n at {tail}fn.mjs:1:2"
    assert isinstance(decoded.map_stack(stack, "fn.mjs"), str)


@pytest.mark.parametrize(
    "mappings",
    [
        "gggggggggggggggggggggggggggggggggggggggggggggggggggg",
        "A" * 100_000,
        "AAAA" + ",A//////D" * 10 + ";AAAA",
        ";" * 100_000,
        "g",
        "AA",
    ],
)
def test_absurd_mappings_lead_nowhere_at_once(mappings: str) -> None:
    """Endless numbers, cut numbers, wrong counts: nothing is found and nothing grows."""
    document = {"version": 3, "sources": ["a"], "names": [], "mappings": mappings}
    decoded = SourceMap.parse(json.dumps(document).encode())
    assert decoded.lookup(mappings.count(";") + 1, 2**31) is None


def test_a_total_out_of_range_ends_the_map() -> None:
    """Differences that add up past 32 bits make the later lines lead nowhere, not to a big int."""
    huge = "A" + _vlq(0) + _vlq(2**31 - 1) + "A"
    mappings = ";".join(["AAAA", huge, huge, "AAAA"])
    document = {"version": 3, "sources": ["a"], "names": [], "mappings": mappings}
    decoded = SourceMap.parse(json.dumps(document).encode())
    assert decoded.lookup(1, 1) == Position("a", 1, 1, None)
    assert decoded.lookup(4, 1) is None


def test_a_deep_or_too_large_document_is_not_read() -> None:
    """Nesting that would end the interpreter, and one byte over the cap, lead nowhere."""
    assert SourceMap.parse(b"[" * 500_000).lookup(1, 1) is None
    good = _encode([[(0, 0, 0, 0, None)]], ["a"], [])
    room = limits.SOURCE_MAP.value - len(good)
    assert SourceMap.parse(good + b" " * room).lookup(1, 1) == Position("a", 1, 1, None)
    assert SourceMap.parse(good + b" " * (room + 1)).lookup(1, 1) is None


def test_a_segment_without_a_source_leads_nowhere() -> None:
    """Code that the bundler itself wrote has a segment of one number, and no place."""
    document = {"version": 3, "sources": ["a"], "names": [], "mappings": "AAAA,E"}
    decoded = SourceMap.parse(json.dumps(document).encode())
    assert decoded.lookup(1, 2) == Position("a", 1, 1, None)
    assert decoded.lookup(1, 3) is None


def test_a_source_root_stands_before_each_source() -> None:
    """`sourceRoot` is honoured, and control characters of either never reach a terminal."""
    document = {"version": 3, "sources": ["a\n\x1b[2J"], "sourceRoot": "src/", "mappings": "AAAA"}
    decoded = SourceMap.parse(json.dumps(document).encode())
    assert decoded.lookup(1, 1) == Position("src/a\ufffd\ufffd[2J", 1, 1, None)


_ONE = _encode([[(0, 0, 9, 4, None)], [(0, 1, 2, 2, 1)]], ["hello.ts", "lib/b.ts"], _NAMES)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("    at fetch (fn.mjs:1:5)", "    at fetch (hello.ts:10:5)"),
        ("    at async Object.fetch (fn.mjs:2:1)", "    at async Object.fetch (lib/b.ts:3:3)"),
        ("    at new Thing (fn.mjs:2:1)", "    at new Thing (lib/b.ts:3:3)"),
        ("    at fn.mjs:2:1", "    at lib/b.ts:3:3"),
        ("    at async fn.mjs:2:1", "    at async lib/b.ts:3:3"),
        ("    at f (file:///fn.mjs:1:1)", "    at f (hello.ts:10:5)"),
        ("    at Foo.f [as g] (fn.mjs:1:1)", "    at Foo.f [as g] (hello.ts:10:5)"),
        ("    at f (other.mjs:1:1)", "    at f (other.mjs:1:1)"),
        ("    at f (notfn.mjs:1:1)", "    at f (notfn.mjs:1:1)"),
        ("    at f (fn.mjs:7:1)", "    at f (fn.mjs:7:1)"),
        ("    at f (fn.mjs:1)", "    at f (fn.mjs:1)"),
        ("    at f (fn.mjs:٣:1)", "    at f (fn.mjs:٣:1)"),
        ("    at f (fn.mjs:99999999999:1)", "    at f (fn.mjs:99999999999:1)"),
        ("    at Array.map (<anonymous>)", "    at Array.map (<anonymous>)"),
        ("Error: see (fn.mjs:1:1)", "Error: see (fn.mjs:1:1)"),
        ("    at )", "    at )"),
        ("", ""),
    ],
)
def test_a_stack_line_names_the_users_file(line: str, expected: str) -> None:
    """Every form in which V8 writes a frame is mapped; everything else stays as it was."""
    assert SourceMap.parse(_ONE).map_stack(line, "fn.mjs") == expected


def test_frames_of_ours_are_left_out() -> None:
    """Lines about the shim say nothing to the user, so they are dropped; those around them stay."""
    stack = "E: x\n    at f (fn.mjs:1:1)\n    at async g (shim.mjs:1:69)\n    at h (o.mjs:1:1)"
    mapped = SourceMap.parse(_ONE).map_stack(stack, "fn.mjs", hidden={"shim.mjs"})
    assert mapped == "E: x\n    at f (hello.ts:10:5)\n    at h (o.mjs:1:1)"


def test_an_endless_stack_is_cut() -> None:
    """The number of lines and of characters is bounded, whatever a function throws."""
    decoded = SourceMap.parse(_ONE)
    many = decoded.map_stack("at fn.mjs:1:1\n" * 10_000, "fn.mjs")
    assert len(many.split("\n")) == limits.STACK_LINES.value
    assert len(decoded.map_stack("x" * 1_000_000, "fn.mjs")) == limits.STACK.value


def test_a_real_map_leads_to_the_line_that_threw(tmp_path: Path) -> None:
    """A map of the real esbuild, minified: the throw is found in the user's file."""
    (tmp_path / "lib.ts").write_text(
        "export function deep(n: number) {\n  throw new Error('🌍' + n);\n}\n"
    )
    (tmp_path / "fn.ts").write_text(
        'import { deep } from "./lib";\nexport default { fetch() { deep(1) } };\n'
    )
    flags = ["--bundle", "--format=esm", "--minify", "--sourcemap=external", "--outfile=o.mjs"]
    subprocess.run([_ESBUILD, "fn.ts", *flags, "--log-level=error"], cwd=tmp_path, check=True)
    code = (tmp_path / "o.mjs").read_text()
    column = len(code[: code.index("new Error")].encode("utf-16-le")) // 2 + 1
    decoded = SourceMap.parse((tmp_path / "o.mjs.map").read_bytes())
    place = decoded.lookup(1, column)
    assert place is not None
    assert (place.source, place.line, place.column) == ("lib.ts", 2, 9)
    stack = decoded.map_stack(f"Error: 🌍1\n    at r (o.mjs:1:{column})", "o.mjs")
    assert stack == "Error: 🌍1\n    at r (lib.ts:2:9)"

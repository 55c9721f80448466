"""Places lead to the user's file; a stranger's map or metafile breaks nothing."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amba_runtime import limits
from amba_runtime.manifest import Bundle
from amba_runtime.places import Places, chains_of, entry_of, words


def map_of(**facts: Any) -> bytes:
    base = {"version": 3, "sources": ["src/a.ts"], "names": [], "mappings": "AAEC"}
    return json.dumps({**base, **facts}).encode()


METAFILE = json.dumps(
    {
        "inputs": {
            "a.ts": {
                "imports": [{"path": "b.ts"}, {"path": "c.ts"}, {"path": "zod", "external": True}]
            },
            "b.ts": {"imports": [{"path": "d.ts"}]},
            "c.ts": {"imports": [{"path": "b.ts"}, {"path": "a.ts"}]},
            "d.ts": {"imports": []},
        },
        "outputs": {"o.mjs.map": {}, "o.mjs": {"entryPoint": "a.ts"}},
    }
).encode()


def test_a_place_is_the_users() -> None:
    """By the map beside the bundle; what it does not know stays the bundle's own."""
    places = Places(Bundle.of(b"x", source_map=map_of()), "hello.js")
    assert places.of(1, 1) == ("src/a.ts", 3, 2)
    assert places.of(2, 7) == ("hello.js", 2, 7)


def test_a_half_surrogate_pair_is_in_no_place() -> None:
    """JSON can spell it in a map's `sources`; no pipe or database takes it (reliability.md D6)."""
    source_map = rb'{"version":3,"sources":["\ud800.ts"],"names":[],"mappings":"AAAA"}'
    places = Places(Bundle.of(b"x", source_map=source_map), "hello.js")
    assert places.of(1, 1) == ("\ufffd.ts", 1, 1)


@pytest.mark.parametrize("form", ["base64", "percent"])
def test_a_map_in_the_last_comment_is_read(form: str) -> None:
    """As the 0.1.x command line leaves it (contract D.1); a map beside the bundle wins."""
    data = ";base64," + base64.b64encode(map_of()).decode()
    if form == "percent":
        data = ";charset=utf-8," + quote(map_of())
    code = f"x;\n//# sourceMappingURL=data:application/json{data}\n".encode()
    assert Places(Bundle.of(code), "hello.js").of(1, 1) == ("src/a.ts", 3, 2)
    other = Bundle.of(code, source_map=map_of(sources=["other.ts"]))
    assert Places(other, "hello.js").of(1, 1)[0] == "other.ts"


@pytest.mark.parametrize(
    "comment",
    [
        b"//# sourceMappingURL=data:application/json;base64,!!!",
        b"//# sourceMappingURL=data:application/json;base64,e30=\nmore();",
        b"//# sourceMappingURL=https://example.com/x.map",
        b"sourceMappingURL=",
        b"/* sourceMappingURL=data:application/json,{} */",
    ],
)
def test_another_comment_leads_nowhere(comment: bytes) -> None:
    """Damaged, not at the end, elsewhere, or no comment of a line."""
    assert Places(Bundle.of(comment), "hello.js").of(1, 1) == ("hello.js", 1, 1)


def test_a_stack_is_led_back_and_ours_is_left_out() -> None:
    """Frames of the bundle by the map, or by the bundle's name; the first is the place."""
    places = Places(Bundle.of(b"x", source_map=map_of()), "hello.js")
    stack = "    at f (fn.mjs:1:1)\n    at fn.mjs:8:2\n    at shim\ufffd.mjs:34:15"
    assert places.stack(stack) == "    at f (src/a.ts:3:2)\n    at hello.js:8:2"
    assert places.in_stack(stack) == ("src/a.ts", 3, 2)
    assert places.in_stack("Error: at other.mjs:1:1") == ("", 0, 0)
    assert places.stack("") == ""


def test_the_chain_is_the_shortest() -> None:
    """From the entrypoint; a file that the metafile does not know is alone (issue 3 item 1)."""
    places = Places(Bundle.of(b"x", metafile=METAFILE), "hello.js")
    assert places.chain("d.ts") == ("a.ts", "b.ts", "d.ts")
    assert places.chain("a.ts") == ("a.ts",)
    assert places.chain("zod") == ("zod",)
    assert places.chain("") == ()
    assert entry_of(METAFILE) == "a.ts"


def test_a_long_chain_is_cut() -> None:
    """The end of it, which is where the fault is."""
    count = limits.VIOLATION_CHAIN.value + 10
    inputs = {f"{n}.ts": {"imports": [{"path": f"{n + 1}.ts"}]} for n in range(count)}
    outputs = {"o.mjs": {"entryPoint": "0.ts"}}
    metafile = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    chain = Places(Bundle.of(b"x", metafile=metafile), "x.js").chain(f"{count - 1}.ts")
    assert len(chain) == limits.VIOLATION_CHAIN.value
    assert chain[-1] == f"{count - 1}.ts"


@pytest.mark.parametrize(
    "metafile",
    [
        None,
        b"",
        b"[",
        b"[]",
        b"{}",
        b'{"inputs": 1, "outputs": {}}',
        b"[" * 100_000,
        b'{"inputs": {"a": {"imports": 1}}, "outputs": {"o": {"entryPoint": "a"}}}',
        b'{"inputs": {"a": {"imports": [1]}}, "outputs": {"o": {"entryPoint": "a"}}}',
        b'{"inputs": {"a": 1}, "outputs": {"o": {"entryPoint": "a"}}}',
    ],
)
def test_a_strange_metafile_tells_nothing(metafile: bytes | None) -> None:
    """It came from elsewhere, and is for words alone."""
    assert chains_of(metafile) == {}
    assert entry_of(metafile) == ""


def sources(**texts: str) -> bytes:
    return map_of(sources=[*texts], sourcesContent=[*texts.values()])


@pytest.mark.parametrize(
    ("texts", "place"),
    [
        ({"a.ts": "import 'x';\n\n  export default fn;"}, ("a.ts", 3, 3)),
        ({"a.ts": "/* 😀 */\nexport { fn as default };"}, ("a.ts", 2, 1)),
        ({"a.ts": "x", "node_modules/b.ts": "export default 1;"}, ("", 0, 0)),
        ({"a.ts": "export default 1;", "node_modules/b.ts": "export default 1;"}, ("a.ts", 1, 1)),
        ({"b.ts": "export default 1;", "a.ts": "\nexport default 1;"}, ("", 0, 0)),
        ({"a.ts": "/*\nexport default {}\n*/\nexport default 1;"}, ("", 0, 0)),
        ({"a.ts": "export default 1;\nconst t = `\nexport default {}\n`;"}, ("", 0, 0)),
    ],
)
def test_the_default_export_is_looked_for_in_the_sources(
    texts: dict[str, str], place: tuple[str, int, int]
) -> None:
    """The user's own; where it could be two, none is named."""
    bundle = Bundle.of(b"export { a as default };", source_map=sources(**texts))
    assert Places(bundle, "x.js").default_export() == place


def test_the_entrypoints_default_export_is_the_one() -> None:
    """Where the metafile names it."""
    both = sources(**{"b.ts": "export default 1;", "a.ts": "\nexport default 1;"})
    bundle = Bundle.of(b"", source_map=both, metafile=METAFILE)
    assert Places(bundle, "x.js").default_export() == ("a.ts", 2, 1)


def test_without_a_map_it_is_looked_for_in_the_bundle() -> None:
    """As a developer without a bundler wrote it."""
    assert Places(Bundle.of(b"\nexport default 1"), "x.js").default_export() == ("x.js", 2, 1)
    assert Places(Bundle.of(b"1"), "x.js").default_export() == ("", 0, 0)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_document_breaks_it(document: bytes) -> None:
    """Neither as a map nor as a metafile nor as a comment."""
    comment = b"//# sourceMappingURL=data:application/json;base64," + base64.b64encode(document)
    for bundle in (
        Bundle.of(b"x", source_map=document, metafile=document),
        Bundle.of(comment),
        Bundle.of(b"//# sourceMappingURL=data:application/json," + document),
    ):
        places = Places(bundle, "x.js")
        assert places.of(1, 1)[1] >= 1
        places.default_export()
        places.chain("a")


@pytest.mark.parametrize(
    "facts",
    [
        {"sourcesContent": 5},
        {"sources": 5},
        {"sourcesContent": [5]},
        {"sources": [None], "sourcesContent": ["export default 1"]},
    ],
)
def test_a_strange_map_has_no_sources(facts: dict[str, Any]) -> None:
    """The bundle itself is looked at instead."""
    bundle = Bundle.of(b"1", source_map=map_of(**facts))
    assert Places(bundle, "x.js").default_export() == ("", 0, 0)


def test_a_stranger_s_words_are_bounded_and_harmless() -> None:
    """No control characters but line feeds, no half surrogate pairs (reliability.md C8)."""
    assert words("a\x1b[2J\r\nb\u202e") == "a\ufffd[2J\ufffd\nb\ufffd"
    assert words("\ud800a\udce9😀") == "\ufffda\ufffd😀"
    most = limits.VIOLATION_TEXT.value
    assert words("x" * (most + 1)) == "x" * most + "…"
    assert words("x" * most) == "x" * most

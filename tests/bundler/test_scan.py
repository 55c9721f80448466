"""Finished bundles are parsed: what is an import is found, what only looks like one is not."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from amba_bundler.esbuild import Esbuild
from amba_bundler.scan import EsbuildScan, climbs
from amba_runtime import limits
from amba_runtime.admission import Finding, Scanned

SHIM = """var __require = ((x) => typeof require !== "undefined" ? require : x)(function(x) {
  if (typeof require !== "undefined") return require.apply(this, arguments);
});
export default {};
"""


def scan(*codes: str | bytes, program: Path | None = None) -> list[Scanned]:
    """What is found in each, by one esbuild."""

    async def main() -> list[Scanned]:
        async with Esbuild(program, memory_max=limits.SCAN_MEMORY.value) as esbuild:
            scanner = EsbuildScan(esbuild)
            return [await scanner(c.encode() if isinstance(c, str) else c) for c in codes]

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("code", "findings"),
    [
        ("import x from 'zod'; export default x", [("static", "zod", 1, 15)]),
        (
            "import 'a'; import 'a'; export * from 'b'",
            [("static", "a", 1, 8), ("re-export", "b", 1, 39)],
        ),
        ("export {\n  x\n} from './y'", [("static", "./y", 3, 8)]),
        (
            "import('x'); import(`y`); import('z' + 'w')",
            [("dynamic", "x", 1, 8), ("dynamic", "y", 1, 21), ("dynamic", "zw", 1, 34)],
        ),
        (
            "import(a); import(`${a}`)",
            [("dynamic-expression", "", 1, 1), ("dynamic-expression", "", 1, 12)],
        ),
        ("require('x'); require(y)", [("require", "x", 1, 9), ("require", "", 1, 15)]),
        ("const r = require", [("require", "", 1, 11)]),
        (
            "import 'node:fs'; import 'cloudflare:workers'; import 'data:,x'; import 'https://x'",
            [
                ("static", "node:fs", 1, 8),
                ("static", "cloudflare:workers", 1, 26),
                ("static", "data:,x", 1, 55),
                ("static", "https://x", 1, 73),
            ],
        ),
        (
            "import.source('x'); import.defer('y')",
            [("dynamic", "x", 1, 15), ("dynamic", "y", 1, 34)],
        ),
        ("'😀é'; import 'x y \"z'", [("static", 'x y "z', 1, 15)]),
        ("'\u2028'; import 'x'", [("static", "x", 2, 11)]),
        ("import 'x' with { type: 'json' }", [("static", "x", 1, 8)]),
    ],
)
def test_every_import_is_found_at_its_place(
    code: str, findings: list[tuple[str, str, int, int]]
) -> None:
    """Kind, name, line, column in UTF-16 units (contract B; reliability.md D3)."""
    (found,) = scan(code)
    assert [(f.kind, f.specifier, f.line, f.column) for f in found.findings] == findings


@pytest.mark.parametrize(
    "code",
    [
        "const a = 'import x from \"zod\"'; /* import 'b' */ // require('c')",
        "const a = /import('x')/, b = `import('y') ${'require(1)'}`;",
        "function f(require) { require('x'); require(y); }",
        "const o = { require(x) {}, import(x) {} }; o.require('x'); o.import('y');",
        "import.meta.resolve('x'); new URL('./x', import.meta.url);",
        "typeof require; typeof module; typeof exports;",
        SHIM,
    ],
)
def test_what_only_looks_like_an_import_is_none(code: str) -> None:
    """Strings, comments, expressions, templates, bound names, members, `typeof` (row D3)."""
    (found,) = scan(code)
    assert found.findings == ()


@pytest.mark.parametrize(
    ("code", "format_", "exports"),
    [
        ("export default 1; export const a = 1, b = 2", "esm", ("a", "b", "default")),
        ("import 'x'", "esm", ()),
        ("module.exports = {}", "cjs", ("default",)),
        ("return", "cjs", ("default",)),
        ("addEventListener('fetch', f)", "none", ()),
        ("", "none", ()),
    ],
)
def test_format_and_exports(code: str, format_: str, exports: tuple[str, ...]) -> None:
    """As the parser sees them; `none` has neither imports nor exports."""
    (found,) = scan(code)
    assert (found.format, found.exports) == (format_, exports)


def test_a_syntax_error_is_a_finding() -> None:
    """In the parser's words; nothing is known of the exports then."""
    (found,) = scan("let x = ;\n")
    assert found == Scanned((Finding("syntax", "", 1, 9, 'Unexpected ";"'),))


def test_a_large_bundle_goes_through_a_file() -> None:
    """The same findings, and no file is left; the package.json around it has no say."""
    body = "x('" + "a" * limits.SCAN_STDIN.value + "');\n"
    small, large = scan("import 'zod';\n" * 1, f"import 'zod';\n{body}")
    assert large.findings == small.findings
    assert large.format == "esm"
    (cjs,) = scan(f"module.exports = 1;\n{body}")
    assert cjs.format == "cjs"


@pytest.mark.slow
@pytest.mark.parametrize(
    "bomb",
    [
        b"(" * 1_000_000,
        b"`${" * 400_000,
        b"!" * 3_000_000 + b"1",
        b"".join(b'import "a%d";' % i for i in range(limits.SCAN_FINDINGS.value + 1)),
        b"import(x);" * 20_000,
    ],
    ids=["brackets", "templates", "unary", "imports", "one line of expressions"],
)
def test_a_parser_bomb_ends_in_a_verdict(bomb: bytes) -> None:
    """Within seconds, and the next bundle is judged as ever (reliability.md D6)."""
    found, after = scan(bomb, b"import 'x'")
    assert [f.kind for f in found.findings] == ["complex"]
    assert [f.specifier for f in after.findings] == ["x"]


def test_as_many_imports_as_may_be_are_all_told() -> None:
    """One below the number that ends the scan (limits.SCAN_FINDINGS)."""
    most = limits.SCAN_FINDINGS.value
    (found,) = scan("".join(f"import 'a{i}';" for i in range(most)))
    assert [f.specifier for f in found.findings] == [f"a{i}" for i in range(most)]


def test_a_parser_that_is_too_slow_ends_in_a_verdict(
    program: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its process with it."""
    from amba_bundler import scan as module

    quick = replace(module._REQUEST, wait_s=0.05)  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(module, "_REQUEST", quick)
    silent = program(
        "v = b'0.28.2'; o = sys.stdout.buffer; o.write(struct.pack('<I', 6) + v); o.flush()\n"
        "time.sleep(60)"
    )
    (found,) = scan("1", program=silent)
    assert [f.kind for f in found.findings] == ["complex"]


@pytest.mark.parametrize("warning", ["{}", "5", "null"])
def test_a_strange_warning_is_passed_over(warning: str) -> None:
    """Only what has the parser's shape is read."""
    import json

    from amba_bundler.conversation import Reply
    from amba_bundler.scan import read_reply

    reply = Reply([], [json.loads(warning)], {}, b"", ())
    assert read_reply(reply, b"") == Scanned()


PAD = b"var pad = '" + b"z" * limits.SCAN_STDIN.value + b"';\n"
UP = "../" * 2000


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("import(`./${x}`)", "dynamic-expression"),
        ("import('./locale/' + x + '.js')", "dynamic-expression"),
        ("import(`./${x}.js`)", "dynamic-expression"),
        (f"import(`{UP}etc/${{x}}`)", "dynamic-expression"),
        ("import(`../../../../../../etc/${x}`)", "dynamic-expression"),
        ("import(null ?? `../../etc/${x}`)", "dynamic-expression"),
        ("require('../etc/' + x)", "require"),
        ("require(`./${x}.js`)", "require"),
    ],
)
def test_a_pattern_is_an_import_and_leads_nowhere(code: str, kind: str, *, large: bool) -> None:
    """What esbuild would look for on our disk is told at its place, the same on every disk (D9)."""
    (scanned,) = scan((PAD if large else b"") + code.encode())
    assert [(f.kind, f.line, f.text) for f in scanned.findings] == [(kind, 1 + large, "")]


@pytest.mark.parametrize(
    ("code", "steps"),
    [
        ("import(`../../x`)", 2),
        ("'.' + '.' + '/'", 2),
        ("`${'.'}./`", 2),
        ("'\\x2e\\u002e/' + `\\u{2e}\\u{02E}/`", 4),
        ("'.\\\n./'", 2),
        ("f(...a, ...b); a.b.c; 1.5; 'a.b'; /a.b/", 0),
    ],
)
def test_no_step_up_is_missed(code: str, steps: int) -> None:
    """However the dots are written: at least as many as lead up."""
    assert climbs(code.encode()) == steps


def test_a_deep_folder_is_made_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deeper than a recursion can go, and nothing of it is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    depth = limits.SCAN_DEPTH_FILE.value - limits.SCAN_DEPTH.value
    code = PAD + f"import(`{'../' * depth}x/${{x}}`)".encode()
    (scanned,) = scan(code)
    assert [f.kind for f in scanned.findings] == ["dynamic-expression"]
    assert list(tmp_path.iterdir()) == []


def test_what_throws_only_when_it_is_reached_is_no_error() -> None:
    """A bundler refuses to assign to a constant; engines throw there, if they get there."""
    (scanned,) = scan("const a = 1; export default { fetch() { a = 2 } }")
    assert scanned == Scanned()


def test_half_a_surrogate_pair_in_a_specifier() -> None:
    """It is an import like any other."""
    (scanned,) = scan('import "\\ud800x"; export default {}')
    assert [(f.kind, f.line, f.column) for f in scanned.findings] == [("static", 1, 8)]

"""What the bytes of a bundle tell on their own: size to the byte, encoding, findings in words."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from amba_runtime import limits
from amba_runtime.inspection import Finding, Scanned, inspect
from amba_runtime.manifest import Bundle
from amba_runtime.violations import Violation

CLEAN = Scanned((), "esm", ("default",))


def told(
    code: bytes, scanned: Scanned = CLEAN, *, source_map: bytes | None = None
) -> tuple[Violation, ...]:
    """The violations of bytes in which a parser finds the given."""

    async def scan(_code: bytes, /) -> Scanned:
        return scanned

    return asyncio.run(inspect(Bundle.of(code, source_map=source_map), scan=scan))


@pytest.mark.slow
def test_the_size_is_judged_to_the_byte() -> None:
    """8 MiB at gzip level 9 pass, one byte more does not (contract D.1, H-21)."""
    most = limits.BUNDLE_GZIP.value
    noise = random.Random(7).randbytes(most)
    length = most - 2048
    # noise does not shrink, so that a byte more is a byte more
    while (over := Bundle.of(noise[:length]).bytes_gzip() - most) != 0:
        length -= over
    assert "BUNDLE_TOO_LARGE" not in [v.code for v in told(noise[:length])]
    assert "BUNDLE_TOO_LARGE" not in [v.code for v in told(noise[: length - 1000])]
    assert "BUNDLE_TOO_LARGE" in [v.code for v in told(noise[: length + 1])]


def test_an_absurd_size_is_not_even_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpacked, a bundle has a cap too: a bomb costs its own bytes (reliability.md D5)."""
    monkeypatch.setattr(limits, "BUNDLE_BYTES", limits.Limit(100, "bytes", "", ""))
    monkeypatch.delattr(Bundle, "bytes_gzip")
    assert told(b"a" * 100) == ()
    (violation,) = told(b"a" * 101)
    assert violation.code == "BUNDLE_TOO_LARGE"
    assert "101 bytes" in violation.message


@pytest.mark.parametrize(
    ("code", "line", "column", "words"),
    [
        (b"\xff\xfea\0", 1, 1, "UTF-16"),
        (b"\xfe\xff\0a", 1, 1, "UTF-16"),
        (b"a\n\xe9", 2, 1, "byte 0xe9"),
        (b"a\nbcd\xe9", 2, 4, "byte 0xe9"),
        (b"\n\n\nab\xe9\n\xff", 4, 3, "byte 0xe9"),
        (b"abc\xe9", 1, 4, "byte 0xe9"),
        (b"\n\x9f", 2, 1, "byte 0x9f"),
        ("é😀".encode() + b"\xff", 1, 4, "byte 0xff"),
        (b"\xed\xa0\x80", 1, 1, "byte 0xed"),
    ],
)
def test_bytes_that_are_no_text_have_a_place(
    code: bytes, line: int, column: int, words: str
) -> None:
    """Line and column of the first bad byte, in UTF-16 units (reliability.md D6)."""
    (violation,) = told(code)
    assert violation.code == "NOT_UTF8"
    assert (violation.line, violation.column) == (line, column)
    assert violation.place.endswith(f":{line}:{column}")
    assert words in violation.message


@pytest.mark.parametrize("code", [b"", b" \n\t", "\ufeff".encode(), "\ufeff \n".encode()])
def test_nothing_is_no_bundle(code: bytes) -> None:
    """Empty, blank, or a byte order mark alone."""
    assert [v.code for v in told(code)] == ["EMPTY_BUNDLE"]


@pytest.mark.parametrize(
    ("finding", "code", "message"),
    [
        (Finding("static", "zod"), "EXTERNAL_IMPORT", 'an import of "zod"'),
        (Finding("re-export", "zod"), "EXTERNAL_IMPORT", 'a re-export of "zod"'),
        (Finding("dynamic", "zod"), "EXTERNAL_IMPORT", 'an import() of "zod"'),
        (Finding("static", "./a"), "MULTIPLE_FILES", '"./a"'),
        (Finding("static", "../a"), "MULTIPLE_FILES", '"../a"'),
        (Finding("dynamic", "/a"), "MULTIPLE_FILES", '"/a"'),
        (Finding("dynamic-expression"), "DYNAMIC_IMPORT", "known only at run time"),
        (Finding("require", "x"), "REQUIRE_CALL", "require('x')"),
        (Finding("require"), "REQUIRE_CALL", "a call of require"),
        (Finding("syntax", text="Unexpected \x1b[2J"), "SYNTAX_ERROR", "Unexpected \ufffd[2J"),
        (Finding("complex", text="too deep"), "BUNDLE_TOO_COMPLEX", "too deep"),
    ],
)
def test_each_finding_is_a_violation(finding: Finding, code: str, message: str) -> None:
    """Its code, what it is of, and a fix (contract B, rejections)."""
    (violation,) = told(b"x", Scanned((finding,), "esm", ("default",)))
    assert violation.code == code
    assert message in violation.message
    assert violation.fix
    assert violation.place == ""


@pytest.mark.parametrize(
    ("specifier", "fix"),
    [
        ("node:fs", "Node built-ins are not available"),
        ("fs", "Node built-ins are not available"),
        ("cloudflare:sockets", "take bindings from the env argument"),
        ("./x.js", "bundle it into one file"),
        ("..", "bundle it into one file"),
        ("zod", "npm install zod"),
        ("", "use import statements with a literal name"),
    ],
)
def test_a_require_gets_the_fix_for_its_kind(specifier: str, fix: str) -> None:
    """One that works: what no bundler resolves is not to be imported instead (contract B)."""
    (violation,) = told(b"x", Scanned((Finding("require", specifier),), "esm", ("default",)))
    assert violation.code == "REQUIRE_CALL"
    assert violation.fix.startswith(fix)


def test_a_long_name_is_cut() -> None:
    """A specifier is a stranger's text."""
    (violation,) = told(b"x", Scanned((Finding("static", "a" * 100_000),), "esm", ("default",)))
    assert len(violation.message) < 400


def test_a_finding_is_led_back_to_the_source() -> None:
    """Through the map that came along, and the chain at least its file (issue 3 item 1)."""
    mapped = json.dumps({"version": 3, "sources": ["lib/a.ts"], "names": [], "mappings": "AAEC"})
    found = Scanned((Finding("static", "zod", 1, 10),), "esm", ("default",))
    (violation,) = told(b"import 'zod'", found, source_map=mapped.encode())
    assert violation.place == "lib/a.ts:3:2"
    assert violation.chain == ("lib/a.ts",)


@pytest.mark.parametrize(
    ("scanned", "code", "missing"),
    [
        (Scanned((), "esm", ("a",)), b"export const a = 1", True),
        (Scanned((), "none", ()), b"(() => {})()", True),
        (Scanned((), "none", ()), b"addEventListener('fetch', f)", False),
        (Scanned((), "esm", ("a", "default")), b"", False),
        (Scanned((), "none", None), b"x y", False),
    ],
)
def test_a_default_export_that_is_not_there_shows_in_the_bytes(
    scanned: Scanned, code: bytes, missing: bool
) -> None:
    """Unless it is of the listener form, or could not be parsed (contract B)."""
    found = [v.code for v in told(code or b"x", scanned)]
    assert found == (["DEFAULT_EXPORT_MISSING"] if missing else [])


def test_commonjs_is_no_module() -> None:
    """The fix can be pasted."""
    (violation,) = told(b"module.exports = {}", Scanned((), "cjs", ("default",)))
    assert violation.code == "NOT_ESM"
    assert "export default {" in violation.fix

"""What the bytes of a bundle tell on their own: size, encoding, syntax, imports, exports.

Source: contract B (rejections), D.1 (one ES module, nothing external, 8 MiB at gzip level 9).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from amba_runtime import limits
from amba_runtime.manifest import Bundle
from amba_runtime.places import Places, words
from amba_runtime.violations import HANDLER, Violation, ViolationCode, fix_import

BUNDLE_NAME = "bundle.js"
"""What a bundle is called whose place no source map explains."""


NO_DEFAULT = (
    ViolationCode.DEFAULT_EXPORT_MISSING,
    "there is no default export, and no addEventListener('fetch', ...)",
)
SYNTAX_FIX = "correct the line, or bundle again with: amba-run deploy ENTRY"
NOT_ESM = Violation(
    ViolationCode.NOT_ESM,
    "the bundle is CommonJS (module.exports, exports or a top-level return), not an ES module",
    f"write {HANDLER} in place of module.exports, or bundle with: esbuild --format=esm",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a scan found at one place of the bundle's own bytes.

    Attributes:
        kind: `static`, `re-export`, `dynamic`, `dynamic-expression`, `require`, `syntax`, or
            `complex` (the scan gave up; `text` says why).
        specifier: what is imported; "" where that is no literal.
        line, column: in the bundle, from 1, the column in UTF-16 units; 0 where unknown.
        text: the parser's words; "" where the kind says it all.
    """

    kind: str
    specifier: str = ""
    line: int = 0
    column: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a parser says of the bundle's bytes.

    Attributes:
        format: `esm`, `cjs`, or `none` (neither imports nor exports, or not known).
        exports: names; None when they are not known because nothing could be parsed.
    """

    findings: tuple[Finding, ...] = ()
    format: str = "none"
    exports: tuple[str, ...] | None = None


class Scan(Protocol):
    """A parser of bundles. It ends within `limits.SCAN_S`, whatever it is given.

    Given are bytes that are UTF-8 and at most `limits.BUNDLE_BYTES`.
    """

    async def __call__(self, code: bytes, /) -> Scanned: ...


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the bytes alone tell.

    Attributes:
        violations: unsorted.
        startable: nothing keeps it from being started, so that its default export is asked, not
            guessed.
    """

    violations: tuple[Violation, ...]
    scanned: Scanned
    startable: bool


async def inspect(bundle: Bundle, *, scan: Scan, name: str = BUNDLE_NAME) -> tuple[Violation, ...]:
    """Everything that the bytes alone tell, all at once; nothing is started.

    Args:
        name: what the bundle is called where no source map leads further.
    """
    places = Places(bundle, name)
    found = await look(bundle, scan, places)
    return sort((*found.violations, *guess_default_export(bundle, found.scanned)))


async def look(bundle: Bundle, scan: Scan, places: Places) -> Inspection:
    """Bytes, then syntax and imports. What cannot be read is not parsed."""
    violations = await asyncio.to_thread(_judge_bytes, bundle, places)
    if any(v.code in _UNREADABLE for v in violations) or _is_huge(bundle):
        return Inspection(violations, Scanned(), False)
    scanned = await scan(bundle.code)
    if scanned.findings:
        more = await asyncio.to_thread(_judge_findings, scanned.findings, places)
        violations = (*violations, *more)
    if scanned.format == "cjs" and not _listens(bundle):
        return Inspection((*violations, NOT_ESM), scanned, False)
    startable = not violations or (
        all(finding.kind in _LAZY for finding in scanned.findings)
        and all(v.code != ViolationCode.BUNDLE_TOO_LARGE for v in violations)
    )
    return Inspection(violations, scanned, startable)


_UNREADABLE = frozenset({ViolationCode.NOT_UTF8, ViolationCode.EMPTY_BUNDLE})
_LAZY = frozenset({"dynamic", "dynamic-expression", "require"})
"""Imports that nothing resolves until they are reached."""


def _is_huge(bundle: Bundle) -> bool:
    return len(bundle.code) > limits.BUNDLE_BYTES.value


def _listens(bundle: Bundle) -> bool:
    """It may be of the `addEventListener('fetch', ...)` form (contract B, legacy form)."""
    return b"addEventListener" in bundle.code


def _judge_bytes(bundle: Bundle, places: Places) -> tuple[Violation, ...]:
    code = bundle.code
    if _is_huge(bundle):
        most = limits.BUNDLE_BYTES.value
        return (_too_large(f"the bundle has {len(code)} bytes; unpacked, {most} are the most"),)
    violations: list[Violation] = []
    # gzip adds less than a thousandth: what is far below needs no packing
    if len(code) > limits.BUNDLE_GZIP.value - limits.BUNDLE_GZIP.value // 100:
        packed, most = bundle.bytes_gzip(), limits.BUNDLE_GZIP.value
        if packed > most:
            violations.append(
                _too_large(f"the bundle has {packed} bytes at gzip level 9; {most} are the most")
            )
    try:
        text = code.decode()
    except UnicodeDecodeError as error:
        violations.append(_not_utf8(code, error.start, places))
        return tuple(violations)
    if not text.strip().strip("\ufeff"):
        violations.append(
            Violation(ViolationCode.EMPTY_BUNDLE, "the bundle is empty", f"write {HANDLER}")
        )
    return tuple(violations)


def _too_large(message: str) -> Violation:
    return Violation(
        ViolationCode.BUNDLE_TOO_LARGE,
        message,
        "see which packages weigh most, and leave them out: amba-run check --format text ENTRY",
    )


def _not_utf8(code: bytes, at: int, places: Places) -> Violation:
    if code.startswith((b"\xff\xfe", b"\xfe\xff")):
        message, fix = "the bundle is UTF-16, not UTF-8", "save it as UTF-8"
        return Violation(ViolationCode.NOT_UTF8, message, fix, "", *places.of(1, 1))
    line = code.count(b"\n", 0, at) + 1
    begin = code.rfind(b"\n", 0, at) + 1
    column = _units(code[begin:at].decode(errors="replace")) + 1
    message = f"the bundle is not UTF-8: byte 0x{code[at]:02x}"
    file, line, column = places.of(line, column)
    chain = places.chain(file)
    fix = "save the file as UTF-8"
    return Violation(ViolationCode.NOT_UTF8, message, fix, "", file, line, column, chain)


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _judge_findings(findings: tuple[Finding, ...], places: Places) -> tuple[Violation, ...]:
    return tuple(_judge_finding(finding, places) for finding in findings)


def _judge_finding(finding: Finding, places: Places) -> Violation:
    code, message, fix = _rule(finding)
    if not finding.line:
        return Violation(code, message, fix)
    file, line, column = places.of(finding.line, finding.column)
    return Violation(code, message, fix, "", file, line, column, places.chain(file))


def _rule(finding: Finding) -> tuple[ViolationCode, str, str]:
    """Code, message and fix of one finding."""
    name = words(finding.specifier)[:200]
    match finding.kind:
        case "syntax":
            return ViolationCode.SYNTAX_ERROR, words(finding.text), SYNTAX_FIX
        case "complex":
            return (
                ViolationCode.BUNDLE_TOO_COMPLEX,
                f"the bundle cannot be parsed within bounds: {words(finding.text)}",
                "bundle every import, split long generated expressions, keep data in env.STORAGE",
            )
        case "require":
            what = f"require({name!r})" if name else "a call of require"
            return (
                ViolationCode.REQUIRE_CALL,
                f"{what} is left in the bundle, and the platform has no require",
                _fix_require(finding.specifier),
            )
        case "dynamic-expression":
            return (
                ViolationCode.DYNAMIC_IMPORT,
                "an import() whose name is known only at run time is left in the bundle",
                'write the path as a string, import("./file.js"), and bundle again',
            )
        case kind:
            how = {"re-export": "a re-export", "dynamic": "an import()"}.get(kind, "an import")
            if _is_file(finding.specifier):
                return (
                    ViolationCode.MULTIPLE_FILES,
                    f'{how} of another file, "{name}", is left: a function is one file',
                    _ONE_FILE,
                )
            return (
                ViolationCode.EXTERNAL_IMPORT,
                f'{how} of "{name}" is left in the bundle; every import must be bundled',
                fix_import(finding.specifier),
            )


_ONE_FILE = "bundle it into one file: amba-run deploy ENTRY (esbuild --bundle)"


def _is_file(specifier: str) -> bool:
    return specifier in (".", "..") or specifier.startswith(("./", "../", "/"))


def _fix_require(specifier: str) -> str:
    if not specifier:
        return "use import statements with a literal name, and bundle again"
    return _ONE_FILE if _is_file(specifier) else fix_import(specifier)


def guess_default_export(bundle: Bundle, scanned: Scanned) -> tuple[Violation, ...]:
    """What the exports tell where the bundle was not started."""
    if scanned.exports is None or scanned.format == "cjs" or _listens(bundle):
        return ()
    if "default" in scanned.exports:
        return ()
    return (Violation(*NO_DEFAULT, HANDLER),)


def sort(violations: tuple[Violation, ...]) -> tuple[Violation, ...]:
    """By place, those without one last; each told once."""
    once = dict.fromkeys(violations)
    return tuple(sorted(once, key=lambda v: (not v.file, v.file, v.line, v.column)))

"""What imports and syntax errors stand in a finished bundle: esbuild's parser, asked about bytes.

A parser, not a search: names that are bound locally (webpack's own `require`), strings, comments,
regular expressions and templates are no imports. Nothing is read, resolved or written.

One thing esbuild would resolve without asking us: an import of a pattern (`import("./a/" + x)`),
for which it lists folders. A bundle is therefore said to lie in a folder that is not there, so
deep that no `../` in these bytes leads out of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from amba_runtime import entropy, limits
from amba_runtime.admission import Finding, Scanned

from .conversation import Reply, Request, TooMuch
from .esbuild import Esbuild, Overwhelmed
from .stdio import Value

_MARK = "amba-run found "
_FLAGS = (
    "--bundle",
    "--format=esm",
    "--platform=neutral",  # `browser` would define process.env.NODE_ENV, and drop code by it
    "--target=esnext",
    "--metafile",
    f"--outfile={os.devnull}",
    "--allow-overwrite",
    "--charset=utf8",
    "--tree-shaking=false",
    "--tsconfig-raw={}",
    "--log-level=silent",
    "--log-limit=0",
    "--log-override:unsupported-dynamic-import=warning",
    "--log-override:unsupported-require-call=warning",
    "--log-override:indirect-require=warning",
)
_STDIN = (*_FLAGS, "--loader=js")
_FILE = (*_FLAGS, "--loader:=js")
_REQUEST = Request(
    Path("/"),
    Path("/"),
    _STDIN,
    resolve=".*",
    refusal=_MARK,
    scan=True,
    alone=True,
    imports_max=limits.SCAN_FINDINGS.value,
    wait_s=limits.SCAN_S.value,
)
_KINDS = {
    "import-statement": "static",
    "dynamic-import": "dynamic",
    "require-call": "require",
    "require-resolve": "require",
}
_BY_ID = {
    "unsupported-dynamic-import": "dynamic-expression",
    "unsupported-require-call": "require",
    "indirect-require": "require",
}
_KEYWORD = re.compile(r"\b(?:import|export)\b")
_STATEMENT_CHARS = 4096
_STEP_UP = re.compile(
    rb"(?<=[/'\"`}\\eE\s\xa8\xa9])\.{1,2}(?=[/'\"`$\\])|\\x2e|\\u002e|\\u\{0*2e\}", re.IGNORECASE
)
_NOWHERE = "/amba-run-nowhere"
_PATTERN = re.compile(r'Could not resolve (import|require)\("')
_AT_RUN_TIME = re.compile(r'Cannot assign to (?:import )?".*"(?: because it is a constant)?\Z')
"""An error of a bundler: engines throw when they get there, if they do."""
_GUARD = re.compile(rb"\btypeof\s+require\b")


class EsbuildScan:
    """`amba_runtime.admission.Scan` by an esbuild that the caller opens and closes.

    Args:
        esbuild: of strangers' bytes it should be one of its own, made with
            `memory_max=limits.SCAN_MEMORY.value`: a hostile bundle can end it.
    """

    def __init__(self, esbuild: Esbuild) -> None:
        self._esbuild = esbuild

    async def __call__(self, code: bytes, /) -> Scanned:
        """Parse the bundle; every import left in it is a finding.

        A bundle that ends esbuild, or takes it too long, is a finding of kind `complex`.
        """
        try:
            reply = await self._ask(code)
        except TooMuch:
            return _complex(f"more than {limits.SCAN_FINDINGS.value} imports are left in it")
        except Overwhelmed:
            return _complex("it is nested too deeply, or takes too much time or memory")
        return await asyncio.to_thread(read_reply, reply, code)

    async def _ask(self, code: bytes) -> Reply:
        depth = await asyncio.to_thread(climbs, code) + limits.SCAN_DEPTH.value
        if len(code) <= limits.SCAN_STDIN.value or depth > limits.SCAN_DEPTH_FILE.value:
            folder = _NOWHERE + "/x" * depth
            return await self._esbuild.build(replace(_REQUEST, stdin=code, stdin_folder=folder))
        place = await asyncio.to_thread(_Deep, code, depth)
        try:
            request = replace(_REQUEST, entry=place.file, folder=place.folder, flags=_FILE)
            return await self._esbuild.build(request)
        finally:
            await asyncio.to_thread(place.remove)


def climbs(code: bytes) -> int:
    """How many folders up any path in these bytes can lead, at most.

    Each step up takes two dots inside a string or template, however it is put together: there a
    dot stands between slashes, quotes, braces, escapes and line ends alone. Three dots and more
    in a row are a name, or a spread.
    """
    return sum(1 for _ in _STEP_UP.finditer(code))


class _Deep:
    """A bundle as a file, alone in a deep folder of its own; larger ones come faster that way.

    A pattern that matches the file, whose name cannot be guessed, matches the decoy too, whose
    reading is refused. Its own package.json keeps esbuild from looking further up.
    """

    def __init__(self, code: bytes, depth: int) -> None:
        top = tempfile.mkdtemp(prefix="amba-scan-")
        self.folder = Path(top + "/x" * depth)
        self._depth = depth
        name = entropy.key_bytes(16).hex()
        self.file = self.folder / name
        self._files = (self.file, self.folder / f"{name}x{name}", self.folder / "package.json")
        try:
            path = top
            for _ in range(depth):
                path += "/x"
                os.mkdir(path, 0o700)
            for file, content in zip(self._files, (code, b"", b"{}"), strict=True):
                file.write_bytes(content)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Bottom up: it may be deeper than a recursion can go."""
        for file in self._files:
            file.unlink(missing_ok=True)
        path = str(self.folder)
        for _ in range(self._depth + 1):
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(path)
            path = path.rpartition("/")[0]


def _complex(why: str) -> Scanned:
    return Scanned((Finding("complex", text=why),))


def read_reply(reply: Reply, code: bytes) -> Scanned:
    """An answer of esbuild as findings."""
    lines = _Lines()
    findings = [found for e in reply.errors if (found := _of_error(e, lines)) is not None]
    guarded = _GUARD.search(code) is not None
    for warning in reply.warnings:
        findings.extend(_of_warning(warning, guarded, lines))
    findings = list(dict.fromkeys(findings))  # a pattern is told once a file
    kept = tuple(findings[: limits.SCAN_FINDINGS.value])
    if not reply.metafile:
        return Scanned(kept)
    account: dict[str, Any] = json.loads(reply.metafile)
    format_ = next((i.get("format") for i in account["inputs"].values()), None)
    exports = next((o.get("exports") for o in account["outputs"].values()), None)
    return Scanned(kept, format_ or "none", tuple(exports or ()))


def _of_error(error: Value, lines: _Lines) -> Finding | None:
    text = str(error.get("text")) if isinstance(error, dict) else ""
    if pattern := _PATTERN.match(text):
        kind = "dynamic-expression" if pattern[1] == "import" else "require"
        return _finding(kind, "", error, lines)
    if text.startswith(_MARK):  # a file that a pattern led to: `nowhere` should not let it
        return _finding("dynamic-expression", "", error, lines)
    if _AT_RUN_TIME.match(text):
        return None
    return _finding("syntax", "", error, lines)


def _of_warning(warning: Value, guarded: bool, lines: _Lines) -> Iterator[Finding]:
    match warning:
        case {"id": str(kind), "text": str(text)}:
            pass
        case _:
            return
    if text.startswith(_MARK):
        how, _, specifier = text.removeprefix(_MARK).partition(" ")
        found = _finding(_KINDS.get(how, "static"), specifier, warning, lines)
        if found.kind == "static" and lines.statement == "export":
            found = replace(found, kind="re-export")
        yield found
    elif kind == "empty-glob":
        how = "dynamic-expression" if "import(" in text else "require"
        yield _finding(how, "", warning, lines)
    # esbuild's own `__require` asks `typeof require` before it touches it, and whoever else does
    # needs none: the name alone is then no call.
    elif kind in _BY_ID and not (kind == "indirect-require" and guarded):
        yield _finding(_BY_ID[kind], "", warning, lines)


def _finding(kind: str, specifier: str, message: Value, lines: _Lines) -> Finding:
    text = message.get("text") if isinstance(message, dict) else ""
    line, column = lines.place(message)
    said = str(text) if kind == "syntax" else ""
    return Finding(kind, specifier, line, column, said)


class _Lines:
    """Reads places of messages. Keeps the line last seen: a bundle may be one line of megabytes.

    Attributes:
        statement: `import` or `export`, whichever stands last before the place; "" for neither.
    """

    def __init__(self) -> None:
        self.statement = ""
        self._text = ""
        self._encoded: bytes | None = None

    def place(self, message: Value) -> tuple[int, int]:
        """Line and column from 1, the column in UTF-16 units; zeros where there is none."""
        self.statement = ""
        match message:
            case {"location": {"line": int(line), "column": int(column), "lineText": str(text)}}:
                pass
            case _:
                return 0, 0
        before = self._before(text, column)
        keywords: list[str] = _KEYWORD.findall(before, max(0, len(before) - _STATEMENT_CHARS))
        self.statement = keywords[-1] if keywords else ""
        return line, len(before.encode("utf-16-le", "surrogatepass")) // 2 + 1

    def _before(self, text: str, column: int) -> str:
        """The characters of `text` before byte `column` of its UTF-8."""
        if text.isascii():
            return text[:column]
        if text != self._text or self._encoded is None:
            self._text, self._encoded = text, text.encode(errors="surrogatepass")
        return self._encoded[:column].decode(errors="ignore")

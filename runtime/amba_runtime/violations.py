"""What a refusal is made of: the closed set of codes, one broken rule, its place and JSON form.

Source: contract B (rejections), D.3; interface.md section 2 (`check`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

HANDLER = "export default { async fetch(request, env, ctx) { return new Response('hello') } }"
"""The smallest function there is, to be pasted."""

_PACKAGE = re.compile(r"(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*(?=[/@]|\Z)")
_NODE = re.compile(
    r"(assert|async_hooks|buffer|child_process|cluster|console|constants|crypto|dgram|"
    r"diagnostics_channel|dns|domain|events|fs|http|http2|https|inspector|module|net|os|path|"
    r"perf_hooks|process|punycode|querystring|readline|repl|stream|string_decoder|sys|timers|tls|"
    r"trace_events|tty|url|util|v8|vm|wasi|worker_threads|zlib)(/|\Z)"
)


class ViolationCode(StrEnum):
    """Every rule a bundle can break. Documented in runtime/README.md."""

    BUILD_FAILED = "BUILD_FAILED"
    BUNDLE_TOO_COMPLEX = "BUNDLE_TOO_COMPLEX"
    BUNDLE_TOO_LARGE = "BUNDLE_TOO_LARGE"
    DEFAULT_EXPORT_CLASS = "DEFAULT_EXPORT_CLASS"
    DEFAULT_EXPORT_FUNCTION = "DEFAULT_EXPORT_FUNCTION"
    DEFAULT_EXPORT_MISSING = "DEFAULT_EXPORT_MISSING"
    DYNAMIC_IMPORT = "DYNAMIC_IMPORT"
    EMPTY_BUNDLE = "EMPTY_BUNDLE"
    EXTERNAL_IMPORT = "EXTERNAL_IMPORT"
    MULTIPLE_FILES = "MULTIPLE_FILES"
    NOT_EMULATED = "NOT_EMULATED"
    NOT_ESM = "NOT_ESM"
    NOT_UTF8 = "NOT_UTF8"
    NO_HANDLER = "NO_HANDLER"
    OVER_BUDGET = "OVER_BUDGET"
    REQUIRE_CALL = "REQUIRE_CALL"
    STARTUP_LIMIT = "STARTUP_LIMIT"
    SYNTAX_ERROR = "SYNTAX_ERROR"
    TOP_LEVEL_FAILED = "TOP_LEVEL_FAILED"
    TOP_LEVEL_UNSETTLED = "TOP_LEVEL_UNSETTLED"


RULES = {
    ViolationCode.BUILD_FAILED: "The sources do not bundle.",
    ViolationCode.BUNDLE_TOO_COMPLEX: "The bundle cannot be parsed within bounds.",
    ViolationCode.BUNDLE_TOO_LARGE: "A bundle has 8 MiB at gzip level 9 at most.",
    ViolationCode.DEFAULT_EXPORT_CLASS: "The default export is an object, not a class.",
    ViolationCode.DEFAULT_EXPORT_FUNCTION: "The default export is an object, not a function.",
    ViolationCode.DEFAULT_EXPORT_MISSING: "A bundle has a default export.",
    ViolationCode.DYNAMIC_IMPORT: "No import() of a name known only at run time is left.",
    ViolationCode.EMPTY_BUNDLE: "A bundle is not empty.",
    ViolationCode.EXTERNAL_IMPORT: "Every import is bundled; none is left.",
    ViolationCode.MULTIPLE_FILES: "A function is one file.",
    ViolationCode.NOT_EMULATED: "The function asks for something that is not here.",
    ViolationCode.NOT_ESM: "A bundle is an ES module.",
    ViolationCode.NOT_UTF8: "A bundle is UTF-8.",
    ViolationCode.NO_HANDLER: "The default export has fetch, scheduled or queue.",
    ViolationCode.OVER_BUDGET: "A bundle stays within the size that was asked for.",
    ViolationCode.REQUIRE_CALL: "No require() is left.",
    ViolationCode.STARTUP_LIMIT: "A bundle starts within its CPU time.",
    ViolationCode.SYNTAX_ERROR: "A bundle parses.",
    ViolationCode.TOP_LEVEL_FAILED: "The top level of a bundle runs to its end.",
    ViolationCode.TOP_LEVEL_UNSETTLED: "Every top-level await settles.",
}
"""What each code asks for, one sentence."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule.

    Attributes:
        code: one of `ViolationCode`.
        message: what is wrong, one sentence, without the place.
        fix: what to do; can be pasted where it can be.
        stack: the guest's, in terms of its own files; "" where there is none.
        file: the user's file, else the bundle's name, "" where the bundle as a whole is meant.
        line, column: both from 1, the column in UTF-16 units; 0 where there is no place.
        chain: the files that led there, from the entrypoint to `file`; () where unknown.
    """

    code: str
    message: str
    fix: str
    stack: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    chain: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """`file:line:column`, `file`, or "" ."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def as_json(self) -> dict[str, Any]:
        """The form that `check`, the API's `details.violations` and dev's events share.

        Source: interface.md section 2; `stack` is ours, and left out where there is none.
        """
        shown: dict[str, Any] = {
            "code": str(self.code),
            "message": self.message,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "chain": list(self.chain),
            "fix": self.fix,
        }
        if self.stack:
            shown["stack"] = self.stack
        return shown

    def as_text(self) -> str:
        """For a terminal or a page: place, code, message, chain, stack and fix on lines of their
        own. Text of strangers in it; whoever prints it makes it harmless."""
        head = f"{self.code}: {self.message}"
        lines = [f"{self.place}: {head}" if self.place else head]
        if len(self.chain) > 1:
            lines.append(f"  imported by: {' -> '.join(self.chain)}")
        lines += [f"  {line}" for line in self.stack.splitlines()]
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


NO_PYTHON = Violation(
    ViolationCode.NOT_EMULATED,
    "functions written in Python are not emulated yet",
    "write it in JavaScript or TypeScript",
)


class Rejected(Exception):
    """A bundle may not serve. `violations` holds all of them, at least one."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__(violations[0].message)
        self.violations = violations


def fix_import(specifier: str) -> str:
    """What to do about an import of `specifier` that is left in a bundle."""
    again = "bundle again with: amba-run deploy ENTRY"
    if specifier.startswith("node:") or _NODE.match(specifier):
        return (
            "Node built-ins are not available on the platform: use the web's own "
            "(crypto, URL, TextEncoder, streams, fetch), or a package made for browsers or Workers"
        )
    if specifier.startswith("cloudflare:"):
        return "take bindings from the env argument, waitUntil from ctx, and remove the import"
    if specifier.startswith(("http:", "https:", "//")):
        return f"install the package with npm, import it by name, and {again}"
    if specifier.startswith(("data:", "blob:")):
        return f"put the content into a file, import that, and {again}"
    package = _PACKAGE.match(specifier.removeprefix("npm:"))
    if package is None:
        return f"correct the name, and {again}"
    return f"npm install {package[0]}, mark nothing as external, and {again}"

"""What a failed build says to a person: one error as a value, what to do about it, and its text.

Everything here comes from files we did not write, so text for a terminal is stripped of control
characters, and nothing is put into a command to paste unless it is a plain package name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError

from .stdio import Value

NODE_BUILTINS = {
    "async_hooks": "pass values as arguments",
    "buffer": "Uint8Array, TextEncoder and TextDecoder, atob and btoa",
    "child_process": "",
    "crypto": "the global crypto (crypto.subtle, crypto.randomUUID(), crypto.getRandomValues())",
    "dns": "",
    "events": "EventTarget",
    "fs": "an import of the file (text and JSON can be imported), or env.STORAGE",
    "http": "fetch()",
    "https": "fetch()",
    "net": "fetch()",
    "os": "",
    "path": "URL, or plain strings",
    "perf_hooks": "the global performance",
    "process": "the env argument of the handler",
    "querystring": "URLSearchParams",
    "stream": "ReadableStream, WritableStream and TransformStream",
    "timers": "setTimeout() and setInterval()",
    "tls": "fetch()",
    "url": "the globals URL and URLSearchParams",
    "util": "TextEncoder, structuredClone() and the other globals",
    "worker_threads": "",
    "zlib": "CompressionStream and DecompressionStream",
}
"""Node's modules that people reach for, and what the platform has instead ("" = nothing)."""

REMOTE_REFUSED = 'Cannot import "{path}": imports from a URL are not bundled'
"""Text of the error for an import that esbuild would leave in the bundle without a word."""

_PACKAGE = re.compile(r"(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*(?=/|\Z)")
_RUN_TIME_IMPORT = 'This "import" expression will not be bundled'
_UNRESOLVED = re.compile(r'Could not resolve "([^"]*)"')
_NO_LOADER = re.compile(r'No loader is configured for "([^"]*)" files: (.*)', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# Advice for other platforms than ours, where every import must resolve (contract D.1).
_MISLEADING = re.compile(r"You can (mark the path|use \"|surround this)")


@dataclass(frozen=True, slots=True)
class BuildError:
    """One error (or warning) of a build and its place.

    Attributes:
        message: what, as esbuild says it, or our own words where they are clearer.
        file: relative to the build's root, with `/`; "" when the build as a whole is meant.
        line, column: both from 1, the column in characters; 0 when there is no place.
        source_line: that line, or a window of it when it is very long; "" when unknown.
        caret, caret_length: where the place is in `source_line`, from 0, in characters.
        notes: esbuild's notes, each with its own place in brackets.
        fix: what to do, pasteable where it can be; "" when the message says it.
    """

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    source_line: str = ""
    caret: int = 0
    caret_length: int = 0
    notes: tuple[str, ...] = ()
    fix: str = ""


class BuildFailed(UserError):
    """Nothing was built; what was built before is untouched.

    Attributes:
        errors: all of them (up to `limits.BUILD_MESSAGES`), at least one.
        warnings: what esbuild said besides.
        inputs: absolute paths to watch, some of which may not exist yet: a change to any of them
            can be the fix.
    """

    def __init__(
        self,
        errors: Sequence[BuildError],
        inputs: tuple[Path, ...],
        *,
        warnings: tuple[BuildError, ...] = (),
        code: UserCode = UserCode.BUILD_FAILED,
    ) -> None:
        first = errors[0]
        where = f"{first.file}:{first.line}:{first.column}: " if first.line else ""
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        details: dict[str, Any] = {"errors": [asdict(error) for error in errors]}
        super().__init__(code, f"{where}{first.message}{more}", hint=first.fix, details=details)
        self.errors = tuple(errors)
        self.warnings = warnings
        self.inputs = inputs


def read_messages(values: Sequence[Value], folder: Path) -> tuple[BuildError, ...]:
    """esbuild's messages as ours, each with a fix where we know one.

    Args:
        values: `errors` or `warnings` of an answer.
        folder: the build's root, to see which packages are installed.
    """
    kept = [_read_message(value, folder) for value in values[: limits.BUILD_MESSAGES.value]]
    if len(values) > len(kept):
        kept.append(BuildError(f"{len(values) - len(kept)} more messages are not shown"))
    return tuple(kept)


def unresolved(error: BuildError) -> str:
    """The specifier this error could not resolve, or ""."""
    match = _UNRESOLVED.match(error.message)
    return match[1] if match else ""


def is_run_time_import(error: BuildError) -> bool:
    """The error is of an `import()` whose name is known only at run time."""
    return _RUN_TIME_IMPORT in error.message


def render_errors(errors: Iterable[BuildError], *, kind: str = "error") -> str:
    """The errors as text for a terminal: place, message, source line, caret, notes, fix.

    No colour, no control characters, and a newline at the end of each line.
    """
    lines: list[str] = []
    for error in errors:
        place = f"{error.file}:{error.line}:{error.column}: " if error.line else ""
        if error.file and not error.line:
            place = f"{error.file}: "
        lines.append(f"{place}{kind}: {error.message}")
        if error.source_line:
            number = str(error.line)
            blank = "".join(c if c == "\t" else " " for c in error.source_line[: error.caret])
            lines.append(f"  {number} | {error.source_line}")
            lines.append(f"  {' ' * len(number)} | {blank}{'^' * max(1, error.caret_length)}")
        lines.extend(f"  note: {note}" for note in error.notes)
        if error.fix:
            lines.append(f"  fix: {error.fix}")
        lines.append("")
    return "".join(f"{printable(line)}\n" for line in lines)


def printable(text: str) -> str:
    """`text` on one line and harmless to a terminal; tabs stay."""
    return _CONTROL.sub("\ufffd", text)


def _read_message(value: Value, folder: Path) -> BuildError:
    match value:
        case {"text": str(text), "location": location, "notes": list(notes)}:
            pass
        case _:
            return BuildError("esbuild gave a message that cannot be read")
    said = tuple(_read_note(note) for note in notes)
    place = _Place.of(location)
    fix = _fix(text, place, said, folder)
    kept = tuple(note for note in map(_trim_note, said) if note)
    return BuildError(
        _message(text),
        place.file,
        place.line,
        place.column,
        place.source_line,
        place.caret,
        place.length,
        kept,
        fix,
    )


@dataclass(frozen=True, slots=True)
class _Place:
    file: str = ""
    line: int = 0
    column: int = 0
    source_line: str = ""
    caret: int = 0
    length: int = 0
    suggestion: str = ""

    @classmethod
    def of(cls, location: Value) -> _Place:
        """esbuild counts lines from 1, columns from 0, and both columns and lengths in bytes."""
        match location:
            case {
                "file": str(file),
                "line": int(line),
                "column": int(column),
                "length": int(length),
                "lineText": str(text),
                "suggestion": str(suggestion),
            }:
                pass
            case _:
                return cls()
        encoded = text.encode()
        before = len(encoded[:column].decode(errors="ignore"))
        marked = len(encoded[column : column + length].decode(errors="ignore"))
        width = limits.BUILD_SOURCE_LINE.value
        start = max(0, before - width // 4) if len(text) > width else 0
        window = text[start : start + width]
        shown = min(marked, len(window) - (before - start))
        return cls(file, line, before + 1, window, before - start, max(0, shown), suggestion)


def _read_note(value: Value) -> str:
    match value:
        case {"text": str(text), "location": {"file": str(file), "line": int(line)}}:
            return f"{text.rstrip(':')} ({file}:{line})"
        case {"text": str(text)}:
            return text
        case _:
            return ""


def _trim_note(note: str) -> str:
    if "is built into node" in note:
        return note.split(" Are you trying")[0]
    return "" if _MISLEADING.match(note) else note


def _message(text: str) -> str:
    loader = _NO_LOADER.match(text)
    if loader and loader[1] == ".wasm":
        return f'Cannot import "{loader[2]}": WebAssembly modules are not available on the platform'
    if loader:
        return f'Cannot import "{loader[2]}": "{loader[1]}" files cannot be imported'
    return text


def _fix(text: str, place: _Place, notes: tuple[str, ...], folder: Path) -> str:
    loader = _NO_LOADER.match(text)
    if loader and loader[1] == ".wasm":
        return (
            "The platform takes one JavaScript file and compiles no WebAssembly at run time: "
            "use a pure JavaScript package instead."
        )
    if loader:
        return "Put the file into env.STORAGE, or its content into a .txt, .json or .ts file."
    if text.startswith("Cannot import") and "URL" in text:
        return "Install the package with npm and import it by name, or save the file beside yours."
    if _RUN_TIME_IMPORT in text and package_of(place.file):
        return fix_run_time_import(place.file, ())
    if _RUN_TIME_IMPORT in text:
        return 'Write the path as a string: import("./file.js"). Imports at run time are refused.'
    if place.suggestion:
        return f"Did you mean {place.suggestion}?"
    unresolvable = _UNRESOLVED.match(text)
    if not unresolvable:
        return ""
    return fix_for(unresolvable[1], importer=place.file, notes=notes, folder=folder)


def fix_for(specifier: str, *, importer: str, notes: tuple[str, ...], folder: Path) -> str:
    """What to do about an import of `specifier` that did not resolve; "" when we cannot say."""
    if specifier.startswith("cloudflare:"):
        return (
            f'"{specifier}" does not exist on the platform, where every import is bundled: '
            "take bindings from the env argument, waitUntil from ctx."
        )
    bare = specifier.removeprefix("node:")
    if specifier.startswith("node:") or any("is built into node" in note for note in notes):
        return _fix_node(bare.split("/")[0], importer)
    if specifier.startswith(("npm:", "jsr:", "bun:")):
        match = _PACKAGE.match(specifier.removeprefix("npm:"))
        return (
            f'npm install {match[0]}, and import "{match[0]}".'
            if match
            else ("Only files and npm packages can be imported.")
        )
    if specifier.startswith(("./", "../", "/")):
        return "Create the file, or correct the path."
    if specifier.startswith("data:"):
        return "Put the content into a file, and import that."
    if specifier.startswith("#"):
        return 'Add it to "imports" in package.json.'
    if specifier.startswith("@layers/amba-"):
        return (
            "This package of the 0.1 generation was unpublished: write "
            "export default { async fetch(req, env, ctx) { … } } and use env."
        )
    package = _PACKAGE.match(specifier)
    if not package:
        return 'Add it to "paths" in tsconfig.json if it is an alias, or correct the name.'
    if any("is not exported by package" in note for note in notes):
        return f'Import a path that "{package[0]}" exports (see "exports" in its package.json).'
    if _installed(package[0], folder):
        return f'"{package[0]}" is installed, but has no such file: correct the path.'
    return f"npm install {package[0]}"


def fix_run_time_import(file: str, own: Sequence[tuple[str, str]]) -> str:
    """What to do about an `import()` of a computed name in a package, which the user cannot mend.

    Args:
        file: the package's file.
        own: the user's own imports that lead there: specifier and file; empty when unknown.
    """
    most = limits.BUILD_OWN_IMPORTS.value
    named = ", ".join(f'"{specifier}" ({name})' for specifier, name in own[:most])
    more = f" and {len(own) - most} more" if len(own) > most else ""
    remove = f"the import of {named}{more}" if own else "the import that leads there"
    return (
        f'The package "{package_of(file)}" imports a name known only at run time, which the '
        f"platform refuses: remove {remove}, and use another package or code of your own instead."
    )


def _fix_node(name: str, importer: str) -> str:
    instead = NODE_BUILTINS.get(name, "")
    owner = package_of(importer)
    sentence = "Node built-ins are not available on the platform"
    if owner:
        return f'{sentence}: the package "{owner}" needs one made for browsers or Workers instead.'
    return f"{sentence}: use {instead}." if instead else f"{sentence}, and nothing replaces {name}."


def package_of(path: str) -> str:
    """Name of the package that a path of the build lies in; "" for the user's own files."""
    _, found, inside = path.rpartition("node_modules/")
    match = _PACKAGE.match(inside) if found else None
    return match[0] if match else ""


def _installed(package: str, folder: Path) -> bool:
    return any((up / "node_modules" / package).is_dir() for up in (folder, *folder.parents))

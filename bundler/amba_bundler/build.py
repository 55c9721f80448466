"""From an entrypoint to a bundle: the one set of options that dev, check and deploy build with.

Source: contract D.1 (esbuild, ESM, browser, es2022, conditions, nothing external).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import stat
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from amba_runtime import limits
from amba_runtime.errors import UserCode
from amba_runtime.manifest import Bundle

from .conversation import Reply, Request
from .esbuild import Esbuild, Overwhelmed
from .messages import (
    REMOTE_REFUSED,
    BuildError,
    BuildFailed,
    fix_for,
    fix_run_time_import,
    is_run_time_import,
    package_of,
    read_messages,
    unresolved,
)
from .portable import portable_names, rename_in_code, rename_in_map, rename_in_metafile

__all__ = ["Build", "BuildError", "BuildFailed", "BuildOptions", "Minify", "build"]

ENTRY_SUFFIXES = (".ts", ".tsx", ".mts", ".js", ".jsx", ".mjs", ".cts", ".cjs")
TEXT_SUFFIXES = (".txt", ".md", ".html", ".css", ".module.css", ".svg", ".sql")
"""Imported as a string. `.module.css` by name, or esbuild would make a second file of it."""

_OUTFILE = "amba-bundle.mjs"
_FLAGS = (
    "--bundle",
    "--format=esm",
    "--platform=browser",
    "--target=es2022",
    "--conditions=workerd,worker,browser,import",
    "--charset=utf8",
    "--legal-comments=eof",
    "--sourcemap=external",
    "--sources-content=true",
    "--metafile",
    f"--outfile={_OUTFILE}",
    "--allow-overwrite",
    "--log-level=silent",
    "--log-limit=0",
    # The real CLI minifies, and esbuild then puts "production" here by itself (contract D.1).
    # Said outright, so that what runs in dev is what is deployed, minified or not. (wrangler
    # takes it from the developer's shell, which makes the bundle depend on the shell.)
    '--define:process.env.NODE_ENV="production"',
    # An import that stays in the bundle is refused at upload (contract B), so here.
    "--log-override:unsupported-dynamic-import=error",
    # Left to `_leftovers`: the same message also means a `try { require() }`, which stays legal.
    "--log-override:ignored-dynamic-import=warning",
    "--log-override:unsupported-require-call=warning",
    *(f"--loader:{suffix}=text" for suffix in TEXT_SUFFIXES),
)
_RUN_TIME_ALLOWED = "--log-override:unsupported-dynamic-import=warning"
_REMOTE = r"^(https?:)?//"
_HANDLED = re.compile(r'Importing "([^"]*)" was allowed even though')
_HELLO = 'export default { async fetch(req, env, ctx) { return new Response("hello") } }'


class Minify(StrEnum):
    """Whether names and white space survive. `OFF` gives readable code, `ON` what is uploaded."""

    OFF = "off"
    ON = "on"


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build.

    Attributes:
        root: the folder that paths in the bundle, map and metafile are relative to; None takes
            the entrypoint's own. Give the project's folder, so that no path climbs out of it.
        minify: off by default; the real CLI minifies what it uploads (contract D.1).
    """

    root: Path | None = None
    minify: Minify = Minify.OFF


@dataclass(frozen=True, slots=True)
class Build:
    """What was built.

    Attributes:
        bundle: with source map (`sourcesContent` included) and metafile. The same input gives the
            same bytes wherever the root lies.
        inputs: absolute paths of every file that went in, sorted: what a watcher watches.
        warnings: what esbuild warned of.
    """

    bundle: Bundle
    inputs: tuple[Path, ...]
    warnings: tuple[BuildError, ...] = ()


async def build(
    entry: Path, options: BuildOptions | None = None, *, esbuild: Esbuild | None = None
) -> Build:
    """Bundle the entrypoint and all it imports into one ES module.

    Args:
        entry: the entrypoint; symbolic links are followed.
        options: None takes the defaults.
        esbuild: the child to ask; None starts the wheel's own for this build and ends it
            (10 ms; 1 ms with one that runs).

    Raises:
        BuildFailed: with every error and the files to watch for a fix. Code BUILD_FAILED, or
            ENTRY_NOT_FOUND when there is no such file.
        UserError: PROGRAM_MISSING.
        InternalError: BUNDLER_PROTOCOL.
    """
    if esbuild is None:
        async with Esbuild() as own:
            return await build(entry, options, esbuild=own)
    options = options or BuildOptions()
    entry = await asyncio.to_thread(_checked_entry, entry, options.root)
    folder = entry.parent
    if options.root is not None:
        folder = Path(await asyncio.to_thread(os.path.realpath, options.root))
    minify = ("--minify",) if options.minify is Minify.ON else ()
    request = Request(entry, folder, _FLAGS + minify, _REMOTE, REMOTE_REFUSED)
    try:
        reply = await esbuild.build(request)
    except Overwhelmed:
        # was it a pipe, a device, a file without end? Asked file by file, which takes longer
        request = replace(request, trace=True, file_max=limits.SOURCE_FILE.value)
        reply = await esbuild.build(request)
        if not reply.errors:
            raise
    warnings = read_messages(reply.warnings, folder)
    if reply.errors:
        # Once more, only to learn which files were read: esbuild has no metafile for a failure.
        traced = await esbuild.build(replace(request, trace=True))
        errors = read_messages(reply.errors, folder)
        read = {entry, *map(Path, traced.read), *_awaited(errors, folder)}
        dynamic = {
            m[1]: w.file for w in warnings if (m := _HANDLED.match(w.message)) and _is_import(w)
        }
        left, warnings = _leftovers(dynamic, warnings, folder)
        errors = await _say_who_leads_there(errors, request, esbuild)
        raise BuildFailed([*errors, *left], tuple(sorted(read)), warnings=warnings)
    return _finished(reply, folder, warnings)


def _finished(reply: Reply, folder: Path, warnings: tuple[BuildError, ...]) -> Build:
    metafile: dict[str, Any] = json.loads(reply.metafile)
    paths: list[str] = [*metafile["inputs"]]
    inputs = tuple(sorted({path for name in paths if (path := _input_path(name, folder))}))
    left, warnings = _leftovers(_external(metafile), warnings, folder)
    if left:
        raise BuildFailed(left, inputs, warnings=warnings)
    outputs = {Path(path).suffix: contents for path, contents in reply.outputs.items()}
    code, source_map, account = outputs[".mjs"], outputs[".map"], reply.metafile
    names = portable_names(paths, folder)
    source_map = rename_in_map(source_map, folder, names)
    if names:
        code = rename_in_code(code, names)
        metafile["outputs"][_OUTFILE]["bytes"] = len(code)
        account = rename_in_metafile(json.dumps(metafile).encode(), names)
    return Build(Bundle.of(code, source_map=source_map, metafile=account), inputs, warnings)


def _external(metafile: dict[str, Any]) -> dict[str, str]:
    """Specifiers of the imports that stand in the bundle, each with a file that imports it."""
    # A `require()` that stays is no import: it throws when it is reached, in somebody's `try`.
    stays = {
        (item["path"], item["kind"])
        for output in metafile["outputs"].values()
        for item in output["imports"]
        if item.get("external") and not item["kind"].startswith("require")
    }
    # Only to name the importer: imports that TypeScript dropped, as they were for types or for
    # nothing, are "external" here too.
    importers: dict[str, str] = {
        item["path"]: name
        for name, source in metafile["inputs"].items()
        for item in source["imports"]
        if item.get("external") and (item["path"], item["kind"]) in stays
    }
    return {specifier: importers.get(specifier, "") for specifier, _ in stays}


async def _say_who_leads_there(
    errors: tuple[BuildError, ...], request: Request, esbuild: Esbuild
) -> tuple[BuildError, ...]:
    """Imports at run time in somebody's package get the user's own imports of it as their fix."""
    if not any(is_run_time_import(error) and package_of(error.file) for error in errors):
        return errors
    # Only to learn who imports whom: there is no metafile unless these errors are no errors. With
    # others besides there is still none, and the fix stays the one without names.
    allowed = replace(request, flags=(*request.flags, _RUN_TIME_ALLOWED))
    reply = await esbuild.build(allowed)
    if reply.errors:
        return errors
    inputs = json.loads(reply.metafile)["inputs"]
    return tuple(
        replace(error, fix=fix_run_time_import(error.file, _own_imports(inputs, error.file)))
        if is_run_time_import(error) and package_of(error.file)
        else error
        for error in errors
    )


async def account(entry: Path, root: Path, *, leave: frozenset[str], esbuild: Esbuild) -> bytes:
    """The metafile of a build that fails for these specifiers alone; b"" if for others too.

    Only to learn who imports whom: esbuild has no metafile for a failure.
    """
    entry = await asyncio.to_thread(_checked_entry, entry, root)
    folder = Path(await asyncio.to_thread(os.path.realpath, root))
    flags = (*_FLAGS, _RUN_TIME_ALLOWED, f"--outfile={os.devnull}")
    pattern = "|".join(re.escape(specifier) for specifier in sorted(leave)) or "$^"
    request = Request(entry, folder, flags, f"^(?:{pattern})$", "", scan=True)
    return (await esbuild.build(request)).metafile


def _own_imports(inputs: dict[str, Any], target: str) -> tuple[tuple[str, str], ...]:
    """The user's own imports by which `target` gets in, sorted: specifier, and the file it is in.

    Args:
        inputs: of the metafile.
        target: the name of a package's file in it.
    """
    importers: dict[str, list[tuple[str, str]]] = {}
    for name, source in inputs.items():
        for item in source["imports"]:
            importers.setdefault(item["path"], []).append((item.get("original", ""), name))
    own: set[tuple[str, str]] = set()
    seen, todo = {target}, [target]
    while todo:
        for specifier, name in importers.get(todo.pop(), ()):
            if not package_of(name):
                own.add((specifier, name))
            elif name not in seen:
                seen.add(name)
                todo.append(name)
    return tuple(sorted(own))


def _leftovers(
    external: dict[str, str], warnings: tuple[BuildError, ...], folder: Path
) -> tuple[list[BuildError], tuple[BuildError, ...]]:
    """Imports that esbuild left in the bundle as errors, and the warnings that are no such thing.

    Args:
        external: their specifiers, each with the file that imports it.
        warnings: those that esbuild gave, of which some have the places of these imports.
    """
    errors: list[BuildError] = []
    others: list[BuildError] = []
    for warning in warnings:
        match = _HANDLED.match(warning.message)
        (errors if match and match[1] in external else others).append(warning)
    placed = {m[1] for error in errors if (m := _HANDLED.match(error.message))}
    errors.extend(
        BuildError(f'Importing "{specifier}" was allowed', file=file)
        for specifier, file in sorted(external.items())
        if specifier not in placed
    )
    return [_leftover(error, folder) for error in errors], tuple(others)


def _leftover(error: BuildError, folder: Path) -> BuildError:
    specifier = error.message.split('"')[1]
    return replace(
        error,
        message=f'Could not resolve "{specifier}"',
        notes=("Every import must resolve when the function is bundled, even one in a try.",),
        fix=fix_for(specifier, importer=error.file, notes=(), folder=folder),
    )


def _is_import(warning: BuildError) -> bool:
    """The place is the argument of an `import()`, not of a `require()`."""
    return re.search(r"\bimport\s*\(\s*$", warning.source_line[: warning.caret]) is not None


def _input_path(name: str, folder: Path) -> Path | None:
    """The file behind a name in the metafile; None for esbuild's own helpers and data URLs."""
    name = name.removeprefix("(disabled):").partition("?")[0]
    if name.startswith(("<", "data:")):
        return None
    return Path(os.path.normpath(folder / name))


def _awaited(errors: tuple[BuildError, ...], folder: Path) -> set[Path]:
    """Files that do not exist and whose appearance would resolve an import."""
    awaited: set[Path] = set()
    for error in errors:
        specifier = unresolved(error)
        if specifier.startswith(("./", "../")):
            base = os.path.normpath((folder / error.file).parent / specifier)
            awaited.update(Path(base + suffix) for suffix in ("", *ENTRY_SUFFIXES, ".json"))
            awaited.update(Path(base, f"index{suffix}") for suffix in ENTRY_SUFFIXES)
        elif error.fix.startswith("npm install "):
            package = error.fix.split()[2].rstrip(",")
            homes = [up for up in (folder, *folder.parents) if (up / "package.json").is_file()]
            awaited.update(
                home / "node_modules" / package / "package.json" for home in homes or [folder]
            )
    return awaited


def _checked_entry(entry: Path, root: Path | None) -> Path:
    """The entrypoint with links followed, if it is a readable script with something in it."""
    missing = UserCode.ENTRY_NOT_FOUND
    try:
        real = Path(os.path.realpath(entry, strict=True))
        status = real.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise _refused(entry, root, "there is no such file", "Correct the path.", missing) from None
    except OSError as error:
        raise _refused(entry, root, f"cannot be opened: {error.strerror}") from error
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        fix = "Name the file inside it, for example index.ts."
        raise _refused(entry, root, "is a folder, not a file", fix, missing)
    if not stat.S_ISREG(mode):
        raise _refused(entry, root, "is not a regular file", "Name a source file.", missing)
    if status.st_size > limits.SOURCE_FILE.value:
        what = f"is larger than {limits.SOURCE_FILE.value // limits.MIB} MiB"
        raise _refused(entry, root, what, "Name a source file; no bundle may be that large.")
    if real.suffix not in ENTRY_SUFFIXES:
        fix = f"A function is written in one of {' '.join(ENTRY_SUFFIXES)}."
        raise _refused(entry, root, f'is not a script by its name ("{real.suffix}")', fix)
    try:
        source = real.read_bytes()
    except OSError as error:
        raise _refused(entry, root, f"cannot be read: {error.strerror}") from error
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        what = f"is not UTF-8 (byte 0x{source[error.start]:02x} in line {line})"
        raise _refused(entry, root, what, "Save it as UTF-8.") from error
    if not text.strip():
        raise _refused(entry, root, "is empty", f"A function is at least: {_HELLO}")
    return real


def _refused(
    entry: Path,
    root: Path | None,
    what: str,
    fix: str = "",
    code: UserCode = UserCode.BUILD_FAILED,
) -> BuildFailed:
    """The entry by the name that esbuild would give it: relative to the root, with `/`."""
    name, shown = entry.name, str(entry)
    if root is not None:
        with contextlib.suppress(OSError, ValueError):  # a circle of links, a name that is none
            inside = Path(os.path.realpath(entry)).relative_to(os.path.realpath(root))
            name = shown = inside.as_posix()
    error = BuildError(f"{shown}: {what}", file=name, fix=fix)
    return BuildFailed([error], (entry.absolute(),), code=code)

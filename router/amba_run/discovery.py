"""Which functions a PATH holds: the file system's half of the truth, joined with the config's.

Source: interface.md section 2 (`amba-run dev [PATH]`); names by contract A.2.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError
from amba_runtime.manifest import FUNCTION_NAME, FunctionName

from .config_reader import ENTRY_SUFFIXES
from .config_shapes import NAME_RULE
from .config_values import FunctionConfig, ProjectConfig
from .problems import Problems, did_you_mean, one_of, shown

_SKIPPED = re.compile(r"[_.]|.*\.(?:test|spec)\.[^.]+\Z|.*\.d\.ts\Z", re.DOTALL)
_NEAR_SUFFIXES = (".jsx", ".cjs", ".cts", ".mts")


class SourceKind(Enum):
    """What language an entry file is in."""

    JAVASCRIPT = "javascript"  # and TypeScript: all that esbuild bundles
    PYTHON = "python"


@dataclass(frozen=True, slots=True)
class FunctionSource:
    """One function: its name, and its entry file as an absolute path."""

    name: FunctionName
    entry: Path

    @property
    def kind(self) -> SourceKind:
        """PYTHON for a `.py` entry, which whoever runs it may have to refuse."""
        return SourceKind.PYTHON if self.entry.suffix == ".py" else SourceKind.JAVASCRIPT


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found: functions by name, and one sentence for each thing passed over."""

    functions: tuple[FunctionSource, ...] = ()
    warnings: tuple[str, ...] = ()


def folder_of(path: Path) -> Path:
    """The folder in which PATH's configuration and secrets files are looked for.

    Raises:
        UserError: ENTRY_NOT_FOUND when there is neither a file nor a folder at PATH.
    """
    return path if stat.S_ISDIR(_mode(path)) else path.parent


def discover(path: Path, config: ProjectConfig) -> Discovery:
    """Find the functions under PATH, a file or a folder.

    A folder with no function in it is no error. Of a file only that function is served, and the
    tables of other names in the configuration are left alone.

    Raises:
        UserError: ENTRY_NOT_FOUND (nothing at PATH, or it cannot be read), INVALID_NAME (PATH is
            a file whose name cannot be a function's), NAME_TAKEN (two sources for one name; all
            such names are listed), INVALID_CONFIG (a table for a name that was not found and has
            no `entry`, or an `entry` that is not there; all are listed).
    """
    if stat.S_ISDIR(_mode(path)):
        return _Folder(Path(os.path.realpath(path)), path, config).read()
    return _one_file(path, config)


def _mode(path: Path) -> int:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "no such path can exist"
        raise UserError(
            UserCode.ENTRY_NOT_FOUND,
            f"{shown(path)} cannot be used: {reason}",
            hint="name a folder of functions, or one entry file: amba-run dev PATH",
        ) from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise UserError(
            UserCode.ENTRY_NOT_FOUND,
            f"{shown(path)} is {_thing(mode)}, neither a file nor a folder",
            hint="name a folder of functions, or one entry file: amba-run dev PATH",
        )
    return mode


def _one_file(path: Path, config: ProjectConfig) -> Discovery:
    name, suffix = os.path.splitext(path.name)
    if suffix not in ENTRY_SUFFIXES:
        raise UserError(
            UserCode.ENTRY_NOT_FOUND,
            f"{shown(path)} is no entry file: those end in {', '.join(ENTRY_SUFFIXES)}",
            hint="name the file with the handlers, or the folder it is in",
        )
    if FUNCTION_NAME.match(name) is None:
        raise UserError(
            UserCode.INVALID_NAME,
            f"{shown(path)} cannot be served: the file's name without {suffix} is the function's "
            f"name, which is {NAME_RULE}",
            hint=f"rename it to {_better_name(name)}{suffix}",
        )
    entry = Path(os.path.realpath(path.parent)) / path.name
    function = config.functions.get(name)
    if function is not None and function.entry is not None:
        configured = config.folder / function.entry
        if os.path.realpath(configured) != os.path.realpath(entry):
            raise _taken([(name, [shown(path), f"{function.place} (entry)"])])
    return Discovery((FunctionSource(FunctionName(name), entry),))


class _Folder:
    """One pass over one folder, gathering sources by name and warnings.

    Args:
        root: the real path; nothing outside it is served because of a link.
        given: the same as the user wrote it, for messages.
    """

    def __init__(self, root: Path, given: Path, config: ProjectConfig) -> None:
        self.root = root
        self.given = given
        self.config = config
        self.sources: dict[str, list[Path]] = {}
        self.warnings: list[str] = []

    def read(self) -> Discovery:
        for name in self.listing(self.root):
            if name != "node_modules" and _SKIPPED.match(name) is None:
                self.look_at(name)
        entries = self.join()
        functions = tuple(FunctionSource(FunctionName(n), entries[n]) for n in sorted(entries))
        for queue in self.config.queues:
            if queue.function not in entries:
                near = did_you_mean(queue.function, entries)
                self.warnings.append(
                    f'queue "{queue.queue}" is bound to "{queue.function}", which is no function '
                    f"here{near}"
                )
        return Discovery(functions, tuple(self.warnings))

    def listing(self, folder: Path) -> list[str]:
        """Names in a folder, sorted; a limit keeps PATH=/tmp from taking for ever."""
        names: list[str] = []
        most = limits.FOLDER_ENTRIES.value
        try:
            with os.scandir(folder) as items:
                for item in items:
                    names.append(item.name)
                    if len(names) > most:
                        raise UserError(
                            UserCode.ENTRY_NOT_FOUND,
                            f"{shown(self.given)} holds more than {most} files and folders",
                            hint="name a folder that holds functions only: amba-run dev PATH",
                        )
        except OSError as error:
            raise UserError(
                UserCode.ENTRY_NOT_FOUND,
                f"{shown(self.given)} cannot be listed: {error.strerror}",
                hint="make the folder readable, or name another: amba-run dev PATH",
            ) from error
        return sorted(names)

    def look_at(self, filename: str) -> None:
        """Add what one member of the folder is a source of, if anything; or warn."""
        path = self.root / filename
        stem, suffix = os.path.splitext(filename)
        is_source = suffix in ENTRY_SUFFIXES
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            if is_source:
                self.pass_over(filename, f"it cannot be read ({error.strerror})", "mend it")
            return
        if stat.S_ISDIR(mode):
            self.look_into(filename)
        elif not is_source:
            if suffix in _NEAR_SUFFIXES and FUNCTION_NAME.match(stem) and stat.S_ISREG(mode):
                fix = f"rename it to end in one of {', '.join(ENTRY_SUFFIXES)}"
                self.pass_over(filename, f"{suffix} is not the ending of an entry file", fix)
        elif not stat.S_ISREG(mode):
            self.pass_over(filename, f"it is {_thing(mode)}", "put a file in its place")
        elif self.may_serve(filename, stem, path):
            self.sources.setdefault(stem, []).append(path)

    def look_into(self, folder: str) -> None:
        """A subfolder is a function when it has an index file."""
        indexes: list[Path] = []
        for suffix in ENTRY_SUFFIXES:
            index = self.root / folder / f"index{suffix}"
            try:
                mode = os.stat(index).st_mode
            except (FileNotFoundError, NotADirectoryError):
                if index.is_symlink():
                    self.pass_over(str(index.relative_to(self.root)), "it leads nowhere", "mend it")
                continue
            except OSError as error:
                self.pass_over(folder, f"it cannot be read ({error.strerror})", "make it readable")
                return
            if stat.S_ISREG(mode):
                indexes.append(index)
            else:
                self.pass_over(
                    str(index.relative_to(self.root)),
                    f"it is {_thing(mode)}",
                    "put a file in its place",
                )
        for index in indexes:
            if self.may_serve(folder, folder, index):
                self.sources.setdefault(folder, []).append(index)

    def may_serve(self, filename: str, name: str, entry: Path) -> bool:
        """The name keeps the rule and the entry lies in the tree; else a warning."""
        if FUNCTION_NAME.match(name) is None:
            better = filename.replace(name, _better_name(name), 1)
            rule = f"a function's name is {NAME_RULE}"
            self.pass_over(filename, rule, f"rename it, for example to {better}")
            return False
        if not Path(os.path.realpath(entry)).is_relative_to(self.root):
            where = shown(os.path.realpath(entry))
            fix = f"copy it here, or run amba-run dev {where}"
            self.pass_over(filename, f"it is a link out of the folder, to {where}", fix)
            return False
        return True

    def pass_over(self, filename: str, why: str, fix: str) -> None:
        self.warnings.append(f"{shown(self.given / filename)} is skipped: {why}; {fix}")

    def join(self) -> dict[str, Path]:
        """Each name's one entry: what was found, and what `[functions.NAME] entry` adds."""
        problems = Problems()
        taken: list[tuple[str, list[str]]] = []
        for function in self.config.functions.values():
            found = self.sources.get(function.name, [])
            entry = self.configured(function, found, problems)
            if entry is not None and entry not in found:
                self.sources.setdefault(function.name, []).append(entry)
        for name, entries in sorted(self.sources.items()):
            if len(entries) > 1:
                taken.append((name, [shown(self.as_given(entry)) for entry in entries]))
        problems.raise_any(
            UserCode.INVALID_CONFIG,
            "the configuration does not fit the folder",
            hint='give each such table an entry = "FILE", or take it out',
        )
        if taken:
            raise _taken(taken)
        return {name: entries[0] for name, entries in self.sources.items()}

    def configured(
        self, function: FunctionConfig, found: list[Path], problems: Problems
    ) -> Path | None:
        """The entry a table names, or None when it only adds to a function that was found."""
        if function.entry is None:
            if not found:
                near = did_you_mean(function.name, self.sources)
                known = f"found were {one_of(sorted(self.sources))}" if self.sources else ""
                problems.add(
                    function.place,
                    None,
                    "no such function was found, and the table has no entry"
                    + (near or (known and f"; {known}")),
                    key=f"functions.{function.name}",
                )
            return None
        entry = self.config.folder / function.entry
        real = Path(os.path.realpath(entry))
        if any(os.path.realpath(path) == str(real) for path in found):
            return None  # the table names the very file that was found
        if not real.is_file():
            problems.add(
                function.place,
                None,
                f"there is no file {shown(entry)}",
                key=f"functions.{function.name}.entry",
            )
            return None
        return Path(os.path.realpath(entry.parent)) / entry.name

    def as_given(self, entry: Path) -> Path:
        """A path below the root as the user would write it."""
        return (
            self.given / entry.relative_to(self.root) if entry.is_relative_to(self.root) else entry
        )


def _taken(names: list[tuple[str, list[str]]]) -> UserError:
    lines = [f'the function "{name}" has {len(w)} sources: {" and ".join(w)}' for name, w in names]
    return UserError(
        UserCode.NAME_TAKEN,
        "\n".join(lines),
        hint="keep one; rename the others, or put _ before their names to have them skipped",
        details={"functions": [{"name": name, "sources": where} for name, where in names]},
    )


def _better_name(name: str) -> str:
    """The nearest name that keeps the rule."""
    letters = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-")
    return re.sub(r"\A[^a-z]+", "", letters)[:58] or "my-function"


def _thing(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "a folder"

"""What `amba-run check` judges: one function of a folder, or one finished bundle and its places.

Places are told as the user would write them, and are harmless to print.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from amba_bundler.messages import BuildError
from amba_run.config import ProjectConfig
from amba_run.discovery import FunctionSource
from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError
from amba_runtime.manifest import Bundle
from amba_runtime.places import words
from amba_runtime.violations import Violation, ViolationCode

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True, slots=True)
class Subject:
    """One function to be judged. `root` is the real folder that its places are relative to."""

    source: FunctionSource
    config: ProjectConfig
    root: Path
    entry: str


def read_bundle(path: Path) -> Bundle:
    """A finished bundle and the map beside it. More than may be is not read to its end."""
    if is_odd(path):
        raise UserError(
            UserCode.ENTRY_NOT_FOUND,
            f"{path} is no regular file",
            hint="name a bundle, or a folder of bundles",
        )
    try:
        with path.open("rb") as file:
            code = file.read(limits.BUNDLE_BYTES.value + 1)
    except OSError as error:
        raise UserError(
            UserCode.ENTRY_NOT_FOUND,
            f"{path} cannot be read: {error.strerror}",
            hint="make it readable, or name another file",
        ) from error
    beside = path.with_name(f"{path.name}.map")
    if not os.path.isfile(beside):
        return Bundle.of(code)
    try:
        with beside.open("rb") as file:
            return Bundle.of(code, source_map=file.read(limits.SOURCE_MAP.value + 1))
    except OSError:
        return Bundle.of(code)


def is_odd(path: Path) -> bool:
    """A folder, or a pipe, which would be waited for; what is not there is told elsewhere."""
    return os.path.exists(path) and not os.path.isfile(path)


def of_build(error: BuildError, chains: Mapping[str, tuple[str, ...]]) -> Violation:
    # the errors of esbuild count characters; editors and SARIF count UTF-16 units
    wide = sum(ord(char) > 0xFFFF for char in error.source_line[: error.caret])
    return Violation(
        ViolationCode.BUILD_FAILED,
        error.message,
        error.fix or "correct the line",
        file=error.file,
        line=error.line,
        column=error.column + wide if error.line else 0,
        chain=chains.get(error.file, (error.file,) if error.file else ()),
    )


def said_of(warning: BuildError, subject: Subject) -> str:
    """A warning of a build with its place, on one line."""
    place = f"{_of_root(subject, warning.file)}:{warning.line}: " if warning.line else ""
    return f"{place}{warning.message}"


def placed(violation: Violation, subject: Subject) -> Violation:
    """The violation with paths as the user would write them, and never without a file."""
    if not violation.file:
        return replace(violation, file=subject.entry, chain=(subject.entry,))
    chain: Sequence[str] = violation.chain or (violation.file,)
    return replace(
        violation,
        file=_of_root(subject, violation.file),
        chain=tuple(_of_root(subject, file) for file in chain),
    )


def _of_root(subject: Subject, file: str) -> str:
    """A file as the user would write it; the URL that another bundler put in a map as it is."""
    return words(file) if _URL.match(file) else shown(subject.root / words(file))


def shown(path: Path) -> str:
    """Relative to the current folder where it is below it, with `/`; harmless to print."""
    whole = os.path.abspath(path)
    real = Path(os.path.realpath(whole)) if not os.path.lexists(whole) else Path(whole)
    for here in (Path.cwd(), Path(os.path.realpath(Path.cwd()))):
        for candidate in (real, Path(os.path.realpath(whole))):
            if candidate.is_relative_to(here):
                return words(candidate.relative_to(here).as_posix())
    return words(Path(whole).as_posix())

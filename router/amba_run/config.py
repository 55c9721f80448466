"""What a user's folder and environment say: `amba.toml`, or `[tool.amba]` in a pyproject.

The only reader of `os.environ`. Everything is parsed and kept, also what a later part of the
product acts on; every problem of a file is told in one error. `schema/amba.schema.json` says the
same for editors, and a test holds the two together. Source: interface.md section 4.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from amba_runtime.errors import UserCode
from amba_runtime.secret import SecretText

from .config_reader import ConfigReader
from .config_values import (
    EgressTarget,
    EngineChoice,
    FunctionConfig,
    Missed,
    ProjectConfig,
    QueueBinding,
    RateLimit,
    RateLimitKey,
    Schedule,
)
from .problems import KeyPath, Problems, TomlLines, dotted, read_text, shown

__all__ = [
    "CONFIG_FILES",
    "EgressTarget",
    "EngineChoice",
    "Environment",
    "FunctionConfig",
    "Missed",
    "ProjectConfig",
    "QueueBinding",
    "RateLimit",
    "RateLimitKey",
    "Schedule",
    "load_config",
]

T = TypeVar("T")

CONFIG_FILE = "amba.toml"
PYPROJECT_FILE = "pyproject.toml"
CONFIG_FILES = (CONFIG_FILE, PYPROJECT_FILE)
"""Looked for in PATH's folder, never in the current one; `dev` watches both."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The process environment as read once at the start; an empty variable counts as unset."""

    workerd: Path | None = None
    esbuild: Path | None = None
    api_url: str | None = None
    pat: SecretText | None = None
    project_id: str | None = None
    signing_secret: SecretText | None = None
    no_color: bool = False

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Environment:
        """Read it from a mapping, such as a test's own."""
        return cls(
            workerd=_set(variables, "AMBA_RUN_WORKERD", Path),
            esbuild=_set(variables, "AMBA_RUN_ESBUILD", Path),
            api_url=_set(variables, "AMBA_API_URL", str),
            pat=_set(variables, "AMBA_PAT", SecretText),
            project_id=_set(variables, "AMBA_PROJECT_ID", str),
            signing_secret=_set(variables, "EDGE_HEADER_SIGNING_SECRET", SecretText),
            no_color=bool(variables.get("NO_COLOR")),
        )

    @classmethod
    def of_process(cls) -> Environment:
        """Read it from this process."""
        return cls.of(os.environ)


def _set(variables: Mapping[str, str], name: str, kind: Callable[[str], T]) -> T | None:
    value = variables.get(name)
    return kind(value) if value else None


def load_config(folder: Path) -> ProjectConfig:
    """Read `amba.toml`, or `[tool.amba]` of `pyproject.toml`, in `folder`.

    Raises:
        UserError: INVALID_CONFIG, listing every problem with file, line, key path, what was
            expected, and the nearest known name. Both files at once are a problem too: one that
            is silently not read is worse than an error (peers.md pain 17).
    """
    problems = Problems()
    found: list[tuple[Path, TomlLines, KeyPath, object]] = []
    places: tuple[tuple[str, tuple[str, ...]], ...]
    places = ((CONFIG_FILE, ()), (PYPROJECT_FILE, ("tool", "amba")))
    for name, prefix in places:
        path = folder / name
        text = read_text(path, problems=problems)
        if text is None or (prefix and prefix[-1] not in text):
            continue  # most pyprojects say nothing to us: they are not even parsed
        value = _parse_toml(path, text, problems)
        if not prefix or (value := _inner(value, prefix)) is not None:
            found.append((path, TomlLines(text), prefix, value))
    if len(found) > 1:
        path, lines, place, _ = found[1]
        problems.add(
            shown(path),
            lines.of(place),
            f"{CONFIG_FILE} is there as well; keep one of the two",
            key=dotted(place),
        )
    config = ProjectConfig(folder)
    if found and found[0][3] is not None:
        path, lines, place, value = found[0]
        config = ConfigReader(path, lines, place, problems).project(value)
    problems.raise_any(
        UserCode.INVALID_CONFIG,
        "the configuration cannot be used",
        hint="put these right; schema/amba.schema.json in the package amba_run has every key",
    )
    return config


def _parse_toml(path: Path, text: str, problems: Problems) -> object:
    """The tables of a TOML text, or None with a problem."""
    import tomllib  # only a folder with a file pays for it: start-up time counts

    try:
        return tomllib.loads(text)
    except RecursionError:
        problems.add(shown(path), None, "is nested too deeply")
    except ValueError as error:  # TOMLDecodeError, and an integer of thousands of digits
        message = str(error)
        place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z", message)
        line = int(place[1]) if place and place[1] else text.count("\n") + 1 if place else None
        column = f" (column {place[2]})" if place and place[2] else ""
        what = message[: place.start()] if place else "a number is too long"
        problems.add(shown(path), line, f"is not valid TOML: {shown(what)[:200]}{column}")
    return None


def _inner(value: object, path: tuple[str, ...]) -> object:
    for name in path:
        if not isinstance(value, dict):
            return None
        value = cast(dict[str, object], value).get(name)
    return value

"""What a check found, as values: one report, a row per function, and what weighs what in it.

How it is written down is in `formats/`. Source: interface.md section 2 (`check`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from amba_runtime.violations import Violation

from .messages import package_of

OWN_CODE = "(your code)"
GLUE = "(bundler)"
"""What esbuild itself adds: helpers, comments with paths, wrappers."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How a function's size differs from that in an earlier report; bytes, negative = smaller.

    Attributes:
        bytes_gzip: of the whole bundle at gzip level 9.
        before_gzip: what it was; 0 for a function that was not there.
        packages: differences before compression, only those that are not 0, largest first.
    """

    bytes_gzip: int
    before_gzip: int
    packages: tuple[tuple[str, int], ...] = ()

    @property
    def percent(self) -> float:
        """Of what it was; infinite for a function that was not there."""
        if self.before_gzip:
            return 100 * self.bytes_gzip / self.before_gzip
        return float("inf") if self.bytes_gzip else 0.0


@dataclass(frozen=True, slots=True)
class FunctionReport:
    """One function.

    Attributes:
        entry: as the user would write it, with `/`.
        bytes, bytes_gzip: of the bundle that would be uploaded; 0 when none was built.
        handlers: what it has; () when it was not started.
        packages: name and bytes before compression, heaviest first.
        seconds: building and judging it took.
        growth: None without an earlier report.
    """

    name: str
    entry: str
    bytes: int = 0
    bytes_gzip: int = 0
    handlers: tuple[str, ...] = ()
    violations: tuple[Violation, ...] = ()
    warnings: tuple[str, ...] = ()
    packages: tuple[tuple[str, int], ...] = ()
    seconds: float = 0.0
    growth: Growth | None = None

    @property
    def ok(self) -> bool:
        """It may be uploaded."""
        return not self.violations


@dataclass(frozen=True, slots=True)
class Report:
    """Everything one check found.

    Attributes:
        functions: by path, as they were given.
        started_at: ISO 8601 in UTC, whole seconds, without zone.
        warnings: about files that were passed over.
    """

    functions: tuple[FunctionReport, ...]
    started_at: str = "1970-01-01T00:00:00"
    warnings: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """No function is refused."""
        return all(function.ok for function in self.functions)


def by_package(metafile: bytes) -> list[tuple[str, int]]:
    """Bytes of the bundle that each package is to blame for, before compression.

    Args:
        metafile: as in `Bundle.metafile`.

    Returns:
        Pairs of package name (or `OWN_CODE`, or `GLUE`) and bytes, heaviest first, then by name.
        The bytes add up to the size of the bundle.
    """
    outputs: dict[str, Any] = json.loads(metafile)["outputs"]
    bytes_by: dict[str, int] = {}
    for path, output in outputs.items():
        if path.endswith(".map"):
            continue
        inputs: dict[str, dict[str, int]] = output["inputs"]
        rest = int(output["bytes"])
        for source, part in inputs.items():
            weight = part["bytesInOutput"]
            rest -= weight
            name = GLUE if source.startswith("<") else package_of(source) or OWN_CODE
            bytes_by[name] = bytes_by.get(name, 0) + weight
        bytes_by[GLUE] = bytes_by.get(GLUE, 0) + rest
    kept = [(name, weight) for name, weight in bytes_by.items() if weight]
    return sorted(kept, key=lambda pair: (-pair[1], pair[0]))


@dataclass(frozen=True, slots=True)
class Weights:
    """What an earlier report says of one function: gzip bytes, and bytes by package."""

    bytes_gzip: int
    packages: Mapping[str, int]


def read_weights(document: bytes) -> dict[str, Weights]:
    """The sizes in a saved JSON report, by entry and (after it) by name.

    Raises:
        ValueError: it is no such report; the message says what was expected.
    """
    try:
        saved: Any = json.loads(document)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    functions: Any = saved.get("functions") if _is_object(saved) else None
    if not _is_list(functions):
        raise ValueError('no list named "functions" is in it')
    found: dict[str, Weights] = {}
    for number, function in enumerate(functions, 1):
        match function:
            case {"name": str(name), "entry": str(entry), "bytes_gzip": int(packed)}:
                weights = Weights(packed, _packages(function.get("packages")))
                found[entry] = weights
                found.setdefault(f"name:{name}", weights)
            case _:
                raise ValueError(f"function {number} has no name, entry and bytes_gzip")
    return found


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _packages(value: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in value if _is_list(value) else ():
        match item:
            case {"name": str(name), "bytes": int(weight)}:
                found[name] = weight
            case _:
                raise ValueError("a package has no name and bytes")
    return found


def growth_of(function: FunctionReport, before: Mapping[str, Weights]) -> Growth:
    """The difference between a function and what an earlier report says of it."""
    old = before.get(function.entry) or before.get(f"name:{function.name}") or Weights(0, {})
    now = dict(function.packages)
    names: Iterable[str] = now.keys() | old.packages.keys()
    changed = [(name, now.get(name, 0) - old.packages.get(name, 0)) for name in names]
    return Growth(
        function.bytes_gzip - old.bytes_gzip,
        old.bytes_gzip,
        tuple(sorted((c for c in changed if c[1]), key=lambda c: (-abs(c[1]), c[0]))),
    )

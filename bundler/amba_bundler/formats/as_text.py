"""The report for people: a line per function, what weighs most, every violation with its fix."""

from __future__ import annotations

import math

from amba_bundler.messages import printable
from amba_bundler.report import FunctionReport, Report

PACKAGES_SHOWN = 5
_KIB = 1024


def write(report: Report, version: str) -> str:
    """Plain text without colour; nothing in it steers a terminal."""
    lines = [f"warning: {printable(warning)}" for warning in report.warnings]
    width = max((len(function.name) for function in report.functions), default=0)
    for function in report.functions:
        lines += _function(function, width)
    refused = sum(not function.ok for function in report.functions)
    count = len(report.functions)
    noun = "function" if count == 1 else "functions"
    passes = "passes" if count == 1 else "pass"
    said = f"{refused} of {count} {noun} refused" if refused else f"{count} {noun} {passes}"
    lines.append(said)
    return "".join(f"{line}\n" for line in lines)


def _function(function: FunctionReport, width: int) -> list[str]:
    verdict = "pass  " if function.ok else "refuse"
    size = ""
    if function.bytes:
        size = f"  {kib(function.bytes)}, {kib(function.bytes_gzip)} gzip"
    handlers = f"  {', '.join(function.handlers)}" if function.handlers else ""
    lines = [f"{verdict} {printable(function.name).ljust(width)}{size}{handlers}"]
    if len(function.packages) > 1:
        shown = function.packages[:PACKAGES_SHOWN]
        rest = sum(weight for _, weight in function.packages[PACKAGES_SHOWN:])
        parts = [f"{printable(name)} {kib(weight)}" for name, weight in shown]
        lines.append("       " + ", ".join([*parts, *([f"others {kib(rest)}"] if rest else [])]))
    if function.growth is not None:
        grown = function.growth
        percent = f" ({grown.percent:+.1f} %)" if math.isfinite(grown.percent) else " (new)"
        parts = [f"{printable(n)} {kib(w, sign=True)}" for n, w in grown.packages[:PACKAGES_SHOWN]]
        by = f"; {', '.join(parts)}" if parts else ""
        lines.append(f"       growth {kib(grown.bytes_gzip, sign=True)} gzip{percent}{by}")
    lines += [f"       warning: {printable(warning)}" for warning in function.warnings]
    for violation in function.violations:
        lines += [f"  {printable(line)}" for line in violation.as_text().splitlines()]
    return lines


def kib(count: int, *, sign: bool = False) -> str:
    """Bytes as people read them."""
    plus = "+" if sign else ""
    if abs(count) < _KIB:
        return f"{count:{plus}} B"
    if abs(count) < _KIB * _KIB:
        return f"{count / _KIB:{plus}.1f} KiB"
    return f"{count / _KIB / _KIB:{plus}.2f} MiB"

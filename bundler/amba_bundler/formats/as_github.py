"""The report as workflow commands: GitHub shows each as an annotation at its line.

Source: GitHub's documentation of workflow commands, and the escapes of its `@actions/core`.
"""

from __future__ import annotations

import re

from amba_bundler.report import FunctionReport, Report
from amba_runtime.violations import Violation

_STEERS = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""The log is read in a terminal and a browser; ends of lines are escaped instead."""


def write(report: Report, version: str) -> str:
    """One command a line; the last line is for people who read the log."""
    lines = [_command("warning", warning) for warning in report.warnings]
    for function in report.functions:
        lines += [_violation(function, violation) for violation in function.violations]
        for warning in function.warnings:
            lines.append(_command("warning", f"{function.name}: {warning}", file=function.entry))
    refused = sum(not function.ok for function in report.functions)
    lines.append(f"amba-run check: {len(report.functions)} functions, {refused} refused")
    return "".join(f"{line}\n" for line in lines)


def _violation(function: FunctionReport, violation: Violation) -> str:
    text = f"{function.name}: {violation.message}"
    if len(violation.chain) > 1:
        text += f"\nimported by: {' -> '.join(violation.chain)}"
    if violation.fix:
        text += f"\nfix: {violation.fix}"
    place = {"file": violation.file or function.entry}
    if violation.line:
        place |= {"line": str(violation.line), "col": str(violation.column)}
    return _command("error", text, **place, title=f"amba-run {violation.code}")


def _command(kind: str, text: str, **properties: str) -> str:
    shown = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{kind}{' ' if shown else ''}{shown}::{_data(text)}"


def _data(text: str) -> str:
    return _STEERS.sub("\ufffd", text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")

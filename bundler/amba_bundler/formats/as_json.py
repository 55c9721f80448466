"""The report for programs, and for `--against`. Source: interface.md section 2 (`check`)."""

from __future__ import annotations

import json
import math
from typing import Any

from amba_bundler.report import FunctionReport, Growth, Report


def write(report: Report, version: str) -> str:
    """One JSON object on one line."""
    shown = {
        "ok": report.ok,
        "functions": [_function(function) for function in report.functions],
        "warnings": list(report.warnings),
        "version": version,
    }
    return json.dumps(shown) + "\n"


def _function(function: FunctionReport) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": function.name,
        "entry": function.entry,
        "bytes": function.bytes,
        "bytes_gzip": function.bytes_gzip,
        "handlers": list(function.handlers),
        "violations": [v.as_json() for v in function.violations],
        "warnings": list(function.warnings),
        "packages": _packages(function.packages),
    }
    if function.growth is not None:
        shown["growth"] = _growth(function.growth)
    return shown


def _growth(growth: Growth) -> dict[str, Any]:
    return {
        "bytes_gzip": growth.bytes_gzip,
        "percent": round(growth.percent, 2) if math.isfinite(growth.percent) else None,
        "packages": _packages(growth.packages),
    }


def _packages(packages: tuple[tuple[str, int], ...]) -> list[dict[str, Any]]:
    return [{"name": name, "bytes": weight} for name, weight in packages]

"""The report as SARIF 2.1.0, for code scanning.

Source: OASIS SARIF 2.1.0; a result per violation, a rule per code.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from typing import Any
from urllib.parse import quote

from amba_bundler.report import FunctionReport, Report
from amba_runtime.violations import RULES, Violation

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_DRIVE = re.compile(r"[A-Za-z]:/")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def write(report: Report, version: str) -> str:
    """One log with one run. Columns are UTF-16 units; paths are relative to where it ran."""
    codes = [str(code) for code in RULES]
    results = [
        _result(function, violation, codes)
        for function in report.functions
        for violation in function.violations
    ]
    told = [*report.warnings, *(f"{f.name}: {w}" for f in report.functions for w in f.warnings)]
    run = {
        "tool": {
            "driver": {
                "name": "amba-run",
                "version": version,
                "semanticVersion": version,
                "rules": [_rule(str(code), text) for code, text in RULES.items()],
            }
        },
        "columnKind": "utf16CodeUnits",
        "invocations": [
            {
                "executionSuccessful": True,
                "exitCode": 0 if report.ok else 1,
                "startTimeUtc": f"{report.started_at}Z",
                "toolExecutionNotifications": [
                    {"level": "warning", "message": {"text": text}} for text in told
                ],
            }
        ],
        "results": results,
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _rule(code: str, text: str) -> dict[str, Any]:
    return {
        "id": code,
        "name": "".join(word.capitalize() for word in code.split("_")),
        "shortDescription": {"text": text},
        "defaultConfiguration": {"level": "error"},
    }


def _result(function: FunctionReport, violation: Violation, codes: list[str]) -> dict[str, Any]:
    code = str(violation.code)
    text = f"{function.name}: {violation.message}"
    if violation.fix:
        text += f"\nFix: {violation.fix}"
    file = violation.file or function.entry
    physical: dict[str, Any] = {"artifactLocation": _location(file)}
    if violation.line:
        physical["region"] = {
            "startLine": violation.line,
            "startColumn": max(1, violation.column),
        }
    # not the line: the same mistake stays the same alert when lines above it change
    identity = "\0".join((code, file, violation.message)).encode(errors="replace")
    print_ = hashlib.sha256(identity).hexdigest()
    return {
        "ruleId": code,
        "ruleIndex": codes.index(code),
        "level": "error",
        "message": {"text": text},
        "locations": [{"physicalLocation": physical}],
        "partialFingerprints": {"ambaRun/v1": print_},
        "properties": {
            "function": function.name,
            "chain": list(violation.chain),
            "fix": violation.fix,
        },
    }


def _location(file: str) -> dict[str, str]:
    if _URL.match(file):  # of another bundler's map: it holds its own escapes
        return {"uri": quote(_BARE_PERCENT.sub("%25", file), "%/:?=&;,+$@!*~", errors="replace")}
    path = quote(file, errors="replace")
    if posixpath.isabs(file):
        return {"uri": f"file://{path}"}
    if _DRIVE.match(file):
        return {"uri": f"file:///{path}"}
    return {"uri": path, "uriBaseId": "%SRCROOT%"}

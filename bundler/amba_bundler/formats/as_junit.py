"""The report as JUnit XML, which every CI system reads: a test case per function.

Source: what both public schemas of the format take, Jenkins' and the one for Ant's tasks, which
asks for every attribute and element written here.
"""

from __future__ import annotations

import re
from xml.sax.saxutils import escape, quoteattr

from amba_bundler.formats.as_text import kib
from amba_bundler.report import FunctionReport, Report

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(report: Report, version: str) -> str:
    """A document with one suite; all violations of a function are one failure."""
    seconds = sum(function.seconds for function in report.functions)
    failures = sum(not function.ok for function in report.functions)
    attributes = _attributes(
        name="amba-run check",
        package="amba-run",
        id="0",
        timestamp=report.started_at,
        hostname="localhost",
        tests=str(len(report.functions)),
        failures=str(failures),
        errors="0",
        time=f"{seconds:.3f}",
    )
    told = [*report.warnings, *(f"{f.name}: {w}" for f in report.functions for w in f.warnings)]
    sizes = [f"{f.name}: {kib(f.bytes)}, {kib(f.bytes_gzip)} gzip" for f in report.functions]
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        "<testsuites>",
        f"<testsuite{attributes}>",
        f"<properties><property{_attributes(name='version', value=version)}/></properties>",
        *(_case(function) for function in report.functions),
        f"<system-out>{_text(chr(10).join(sizes))}</system-out>",
        f"<system-err>{_text(chr(10).join(told))}</system-err>",
        "</testsuite>",
        "</testsuites>",
    ]
    return "\n".join(lines) + "\n"


def _case(function: FunctionReport) -> str:
    # what a token is allowed to hold: no line feed, no two blanks, none at its ends
    attributes = _attributes(
        name=function.name,
        classname=" ".join(function.entry.split()),
        time=f"{function.seconds:.3f}",
    )
    if function.ok:
        return f"<testcase{attributes}/>"
    first, *others = function.violations
    more = f" (and {len(others)} more)" if others else ""
    failure = _attributes(type=str(first.code), message=f"{first.message}{more}")
    text = _text("\n".join(violation.as_text() for violation in function.violations))
    return f"<testcase{attributes}>\n<failure{failure}>{text}</failure>\n</testcase>"


def _attributes(**values: str) -> str:
    return "".join(f" {key}={quoteattr(_xml(value))}" for key, value in values.items())


def _text(text: str) -> str:
    return escape(_xml(text))


def _xml(text: str) -> str:
    """Only what XML 1.0 may hold."""
    return _NOT_XML.sub("\ufffd", text)

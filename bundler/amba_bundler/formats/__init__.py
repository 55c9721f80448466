"""How a report is written down: one module per format, each a function from report to text."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from amba_bundler.report import Report

FORMATS = ("text", "json", "github", "sarif", "junit")
"""For whom: people; programs; annotations of a pull request; code scanning; test reports."""


def render(report: Report, format_: str, *, version: str) -> str:
    """The report in one of `FORMATS`, with a line feed at its end.

    Args:
        version: of amba-run, where a format tells it.
    """
    module = importlib.import_module(f"amba_bundler.formats.as_{format_}")
    write: Callable[[Report, str], str] = module.write
    return write(report, version)

"""What a drill found, and what it must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report. `good` is None for a figure that nothing is asked of."""

    row: str
    what: str
    seen: str
    need: str = ""
    good: bool | None = None


def at_most(row: str, what: str, seen: float, most: float, unit: str = "") -> Figure:
    """A figure that must not pass `most`."""
    return Figure(row, what, f"{seen:,.6g}{unit}", f"at most {most:,.6g}{unit}", seen <= most)


def at_least(row: str, what: str, seen: float, least: float, unit: str = "") -> Figure:
    """A figure that must reach `least`."""
    return Figure(row, what, f"{seen:,.6g}{unit}", f"at least {least:,.6g}{unit}", seen >= least)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which a share of all lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(figures: Sequence[Figure]) -> str:
    """All figures, aligned."""
    verdict = {True: "ok", False: "FALLS SHORT", None: ""}
    rows = [("row", "what", "seen", "need", "")]
    rows += [(f.row, f.what, f.seen, f.need, verdict[f.good]) for f in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )

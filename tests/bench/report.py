"""The table, the figures that must be shown, and the same as JSON. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.bench.model import (
    AMBA,
    CONTENDERS,
    MINIFLARE,
    WORKERD,
    WRANGLER,
    Figure,
    Results,
)
from tests.bench.stats import round_difference, round_ratio, spread


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure that must be reached: issue 2, "Must show".

    Attributes:
        row: of that table.
        seen: None when this run did not measure it.
        at_least: `need` and `aim` are lower bounds; else upper bounds.
        strict: being exactly at `need` is not enough.
    """

    row: int
    what: str
    unit: str
    seen: float | None
    need: float
    aim: float | None = None
    at_least: bool = False
    strict: bool = False

    def verdict(self) -> str:
        """`aim reached`, `ok`, `MISSED`, or `not measured`."""
        if self.seen is None:
            return "not measured"
        if not self._holds(self.need, strict=self.strict):
            return "MISSED"
        if self.aim is not None and self._holds(self.aim, strict=False):
            return "aim reached"
        return "ok"

    def _holds(self, bound: float, *, strict: bool) -> bool:
        assert self.seen is not None
        if self.seen == bound:
            return not strict
        return self.seen > bound if self.at_least else self.seen < bound


def goals(results: Results, stream_mib: int) -> list[Goal]:
    """The figures of issue 2, rows 5 to 9, as far as this run measured them."""

    def speed(peer: str) -> float | None:
        return ratio(results.figures.get(("hello", "32 connections")), peer)

    def amba(case: str, metric: str) -> float | None:
        values = results.values(case, metric, AMBA)
        return median(values) if values else None

    def left(what: str) -> float | None:
        before, after = amba("storm", f"{what} before"), amba("storm", f"{what} after")
        return None if before is None or after is None else abs(after - before)

    added = round_difference(
        results.values("hello", "p50 at 1", AMBA), results.values("hello", "p50 at 1", WORKERD)
    )
    start = amba("start", "start to first answer")
    saved = amba("save", "save to new answer")
    up = amba("stream", f"{stream_mib} MiB up, growth")
    down = amba("stream", f"{stream_mib} MiB down, growth")
    return [
        Goal(5, "throughput against miniflare", "x", speed(MINIFLARE), 2, 3, at_least=True),
        Goal(5, "throughput against wrangler dev", "x", speed(WRANGLER), 6, 9, at_least=True),
        Goal(5, "throughput against raw workerd", "x", speed(WORKERD), 0.65, 0.85, at_least=True),
        Goal(6, "added latency over raw workerd, p50", "ms", added, 0.15, 0.08),
        Goal(7, "start to first answer", "s", start, 0.5, 0.35, strict=True),
        Goal(7, "save to new answer, p50", "ms", saved, 50, 35, strict=True),
        Goal(8, f"memory growth, {stream_mib} MiB up", "MiB", up, 32, strict=True),
        Goal(8, f"memory growth, {stream_mib} MiB down", "MiB", down, 32, strict=True),
        Goal(9, "failed requests in the storm", "", amba("storm", "failed requests"), 0),
        Goal(9, "reloads not served in the storm", "", amba("storm", "reloads not served"), 0),
        Goal(9, "processes more or less after the storm", "", left("processes"), 0),
        Goal(9, "descriptors more or less after the storm", "", left("descriptors"), 0),
    ]


def ratio(figure: Figure | None, peer: str) -> float | None:
    """How many times better amba-run is than the peer: above 1 is better, below 1 is worse."""
    if figure is None:
        return None
    ours, theirs = figure.values.get(AMBA, []), figure.values.get(peer, [])
    if figure.better == "lower":
        ours, theirs = theirs, ours
    return round_ratio(ours, theirs)


def render(results: Results, reached: Sequence[Goal], facts: Mapping[str, str]) -> str:
    """The whole answer as text: facts, one table of figures and ratios, goals, notes."""
    shown = [name for name in CONTENDERS if any(name in f.values for f in _all(results))]
    peers = [name for name in shown if name != AMBA] if AMBA in shown else []
    head = ["case", "metric", "unit", *shown, *(f"x {peer}" for peer in peers)]
    rows = [head]
    previous = ""
    for figure in _all(results):
        case = figure.case if figure.case != previous else ""
        previous = figure.case
        cells = [cell(figure.values.get(name, [])) for name in shown]
        ratios = [_number(ratio(figure, peer)) for peer in peers]
        rows.append([case, figure.metric, figure.unit, *cells, *ratios])
    parts = ["\n".join(f"{name}: {value}" for name, value in facts.items()), columns(rows, left=3)]
    parts.append(
        "Medians of the rounds, with half their range; x: how many times better amba-run is "
        "(below 1: worse), median of the ratios round by round."
    )
    told = [goal for goal in reached if goal.seen is not None]
    if told:
        rows = [["row", "must show", "seen", "need", "aim", "verdict"]]
        rows += [_goal_row(goal) for goal in told]
        parts.append(columns(rows, left=2))
    if results.notes:
        parts.append("\n".join(["Notes:", *(f"- {note}" for note in results.notes)]))
    return "\n\n".join(parts)


def _goal_row(goal: Goal) -> list[str]:
    sign = "at least" if goal.at_least else "under" if goal.strict else "at most"
    unit = f" {goal.unit}" if goal.unit else ""
    aim = "" if goal.aim is None else f"{goal.aim:g}{unit}"
    seen = f"{_number(goal.seen)}{unit}"
    return [str(goal.row), goal.what, seen, f"{sign} {goal.need:g}{unit}", aim, goal.verdict()]


def columns(rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Align rows of equal length: the first `left` columns to the left, the others to the right.

    A rule follows the first row.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            text.ljust(width) if i < left else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(lines)


def cell(values: Sequence[float]) -> str:
    """Median and spread: `21,200 ±4%`; a dash when nothing was measured."""
    if not values:
        return "-"
    text = _number(median(values))
    return text if len(values) == 1 else f"{text} ±{spread(values) * 100:.0f}%"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def to_json(results: Results, reached: Sequence[Goal], facts: Mapping[str, str]) -> dict[str, Any]:
    """The same for machines: every round, medians, ratios and verdicts."""
    figures = [
        {
            "case": figure.case,
            "metric": figure.metric,
            "unit": figure.unit,
            "better": figure.better,
            "contenders": {
                name: {"rounds": values, "median": median(values), "spread": spread(values)}
                for name, values in figure.values.items()
            },
            "times_better": {
                peer: ratio(figure, peer)
                for peer in CONTENDERS
                if peer != AMBA and peer in figure.values and AMBA in figure.values
            },
        }
        for figure in _all(results)
    ]
    must_show = [
        {
            "row": goal.row,
            "what": goal.what,
            "unit": goal.unit,
            "seen": goal.seen,
            "need": goal.need,
            "aim": goal.aim,
            "verdict": goal.verdict(),
        }
        for goal in reached
    ]
    return {
        "facts": dict(facts),
        "figures": figures,
        "must_show": must_show,
        "notes": list(results.notes),
    }


def _all(results: Results) -> list[Figure]:
    """In the order in which cases, and the metrics within each, first came."""
    cases = list(dict.fromkeys(case for case, _ in results.figures))
    return sorted(results.figures.values(), key=lambda figure: cases.index(figure.case))

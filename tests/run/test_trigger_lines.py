"""Schedules, queues and events as lines: zones, bounds, and nothing that steers a terminal."""

from __future__ import annotations

from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from amba_run import trigger_lines
from amba_runtime import limits

VIENNA = ZoneInfo("Europe/Vienna")


def row(**more: Any) -> dict[str, Any]:
    return {
        "id": "s-1",
        "function_name": "digest",
        "cron": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "missed": "skip",
        "source": "file",
        "next_runs": [],
        "last_runs": [],
        **more,
    }


BOTH = "Sun 2026-07-05 22:30:15 UTC  (Mon 2026-07-06 00:30:15 CEST here)"


@pytest.mark.parametrize(
    ("at", "zone", "said"),
    [
        ("2026-07-05T22:30:15.000Z", "UTC", BOTH),
        ("2026-01-05T09:00:00.000Z", "Europe/Berlin", "Mon 2026-01-05 10:00 CET"),
        ("2026-10-25T00:30:00.000Z", "Europe/Berlin", "Sun 2026-10-25 02:30 CEST"),
        ("2026-10-25T01:30:00.000Z", "Europe/Berlin", "Sun 2026-10-25 02:30 CET"),
        ("2026-01-05T09:00:00.000Z", "Mars/Olympus", "2026-01-05T09:00:00.000Z"),
        ("2026-01-05T09:00:00.000Z", "../etc/passwd", "2026-01-05T09:00:00.000Z"),
        ("soon", "UTC", "soon"),
    ],
)
def test_a_moment_in_both_zones(at: str, zone: str, said: str) -> None:
    """The schedule's clock first, the reader's where it shows another; no zone, no guess."""
    assert trigger_lines.moment(at, zone, here=VIENNA) == said


def test_a_schedule_with_its_runs() -> None:
    """Next and last runs, outcome and error; a run under way has no outcome yet."""
    runs = [
        {"scheduled_at": "2026-01-05T01:30:00Z", "outcome": None, "error": None},
        {
            "scheduled_at": "2026-01-04T01:30:00Z",
            "outcome": "exception",
            "error": "no\x1b[2J",
            "request_id": "r-1",
        },
    ]
    told = trigger_lines.schedule(
        row(next_runs=["2026-01-06T01:30:00Z"], last_runs=runs), here=VIENNA
    )
    assert told.split("\n") == [
        "digest  30 2 * * *  Europe/Berlin  file  s-1",
        "  next  Tue 2026-01-06 02:30 CET",
        "  last  Mon 2026-01-05 02:30 CET  under way",
        "  last  Sun 2026-01-04 02:30 CET  exception  r-1",
        "        no\\x1b[2J",
    ]


def test_upcoming_is_sorted_and_bounded() -> None:
    """The soonest first, whatever their zone; those that never run again are left out."""
    rows = [row(id="b", next_runs=["2026-01-06T01:30:00Z"]), row(id="never")]
    rows.append(row(id="a", function_name="first", next_runs=["2026-01-06T01:30:00+01:00"]))
    assert trigger_lines.upcoming(rows, here=UTC) == [
        "first  30 2 * * *  next Tue 2026-01-06 01:30 CET  (Tue 2026-01-06 00:30 UTC here)",
        "digest  30 2 * * *  next Tue 2026-01-06 02:30 CET  (Tue 2026-01-06 01:30 UTC here)",
    ]
    most = limits.TRIGGERS_TOLD.value
    many = [row(id=f"{n}", next_runs=["2026-01-06T01:30:00Z"]) for n in range(most + 2)]
    assert len(trigger_lines.upcoming(many[:most], here=UTC)) == most
    assert trigger_lines.upcoming(many, here=UTC)[most:] == ["and 2 more schedules"]


def test_queues_and_their_consumers() -> None:
    """What waits, by state; as many lines as TRIGGERS_TOLD, and how many more."""
    queue: dict[str, Any] = {"queue_name": "orders", "function_name": "ship", "status": "active"}
    queue |= {"waiting": 2, "delayed": 0, "leased": 0, "dead": 1}
    assert trigger_lines.depth(queue) == "2 waiting, 1 dead"
    assert trigger_lines.consumers([queue]) == ["queue orders -> ship  2 waiting, 1 dead"]
    empty = {**queue, "waiting": 0, "dead": 0, "status": "paused"}
    assert trigger_lines.consumers([empty]) == ["queue orders -> ship  empty, paused"]
    most = limits.TRIGGERS_TOLD.value
    assert len(trigger_lines.consumers([queue] * most)) == most
    assert trigger_lines.consumers([queue] * (most + 1))[-1] == "and 1 more queues"


def test_a_queue_without_a_consumer() -> None:
    """One that lost its binding while messages waited (contract D.7)."""
    columns = trigger_lines.queue({"queue_name": "q\x07", "status": None, "dead": 1}, now_s=0)
    assert columns[:2] == ["q\\x07", "no consumer"]
    assert columns[-2:] == ["dead 1", ""]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "0 s"), (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3_600, "1 h"), (90_000, "1 d")],
)
def test_ages(seconds: float, said: str) -> None:
    """In the largest unit that fits; a clock that is behind ours makes none negative."""
    assert trigger_lines.age(seconds) == said


def test_columns_of_nothing() -> None:
    """No row, no line."""
    assert trigger_lines.columns([]) == []


def test_console_lines_of_several_lines() -> None:
    """Each stands below its level; words that are no text are JSON."""
    logs = [{"level": "warn", "message": "one\ntwo"}, {"level": "log", "message": ["a", None]}]
    told = trigger_lines.fired("queue", "orders", {"outcome": "ok", "logs": logs})
    assert told.split("\n") == ["ok  queue orders", "  warn: one", "    two", "  log: a null"]

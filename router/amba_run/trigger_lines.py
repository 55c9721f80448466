"""Schedules, queues and what a fired event did, as lines for people.

Rows are those of the platform API (contract D.6, D.7 and ours); nothing in them can steer a
terminal. Times are in the schedule's zone, and beside it in this machine's where that differs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from typing import Any, cast
from zoneinfo import ZoneInfo

from amba_run.output import neutral
from amba_runtime import limits

Row = dict[str, Any]

DEPTHS = ("waiting", "delayed", "leased", "dead")
"""The states of a queue's messages, in the order in which they are shown."""


def fired(kind: str, name: str, data: Row) -> str:
    """What came of an event that was fired: a head line, verdicts, console lines.

    Args:
        kind: `scheduled` or `queue`.
        data: as `POST /functions/{name}/scheduled` or `/queue/{queue}/deliver` answers.
    """
    head = f"{data.get('outcome')}  {kind} {name}  {_ms(data.get('ms'))}"
    lines = [f"{head}  {data.get('request_id') or ''}".rstrip()]
    if data.get("error"):
        lines.append(f"  {data['error']}")
    if data.get("no_retry"):
        lines.append("  noRetry() was called")
    for number, message in enumerate(_rows(data.get("messages")), 1):
        delay = message.get("delay_seconds")
        later = f", again in {delay} s" if delay is not None else ""
        lines.append(f"  message {number}: {message.get('verdict')}{later}")
    lines += [f"  {line}" for log in _rows(data.get("logs")) for line in _console(log)]
    return neutral("\n".join(lines))


def schedule(row: Row, *, here: tzinfo | None = None) -> str:
    """One schedule, its next runs and its last ones.

    Args:
        here: the zone of whoever reads; None is this machine's.
    """
    zone = str(row.get("timezone"))
    missed = "  runs once when missed" if row.get("missed") == "run_once" else ""
    head = f"{row.get('function_name')}  {row.get('cron')}  {zone}{missed}"
    lines = [f"{head}  {row.get('source')}  {row.get('id')}"]
    lines += [f"  next  {moment(str(at), zone, here=here)}" for at in row.get("next_runs") or ()]
    for run in _rows(row.get("last_runs")):
        how = run.get("outcome") or "under way"
        at = moment(str(run.get("scheduled_at")), zone, here=here)
        lines.append(f"  last  {at}  {how}  {run.get('request_id') or ''}".rstrip())
        if run.get("error"):
            lines.append(f"        {run['error']}")
    return neutral("\n".join(lines))


def moment(at: str, zone: str, *, here: tzinfo | None = None) -> str:
    """A time of the API in a schedule's zone, and in the reader's where the clocks differ."""
    try:
        when = datetime.fromisoformat(at)
        there = when.astimezone(ZoneInfo(zone))
    except (ValueError, OverflowError, OSError, KeyError):
        return at  # a zone that this machine does not have is a KeyError
    local = when.astimezone(here)
    said = _clock(there)
    return said if there.utcoffset() == local.utcoffset() else f"{said}  ({_clock(local)} here)"


def _clock(when: datetime) -> str:
    seconds = f":{when:%S}" if when.second else ""
    return f"{when:%a %Y-%m-%d %H:%M}{seconds} {when.tzname()}"


def upcoming(rows: Iterable[Row], *, here: tzinfo | None = None) -> list[str]:
    """A line per schedule with its next run, the soonest first; `limits.TRIGGERS_TOLD` at most."""
    known = [(str(runs[0]), row) for row in rows if (runs := row.get("next_runs"))]
    known.sort(key=lambda pair: (datetime.fromisoformat(pair[0]), str(pair[1].get("id"))))
    lines = [
        neutral(f"{row.get('function_name')}  {row.get('cron')}  next {_next(at, row, here=here)}")
        for at, row in known[: limits.TRIGGERS_TOLD.value]
    ]
    more = len(known) - len(lines)
    return [*lines, f"and {more} more schedules"] if more > 0 else lines


def _next(at: str, row: Row, *, here: tzinfo | None) -> str:
    return moment(at, str(row.get("timezone")), here=here)


def consumers(rows: Sequence[Row]) -> list[str]:
    """A line per queue with its consumer and what waits; `limits.TRIGGERS_TOLD` at most."""
    lines = [neutral(_consumer(row)) for row in rows[: limits.TRIGGERS_TOLD.value]]
    more = len(rows) - len(lines)
    return [*lines, f"and {more} more queues"] if more > 0 else lines


def _consumer(row: Row) -> str:
    paused = ", paused" if row.get("status") == "paused" else ""
    return f"queue {row.get('queue_name')} -> {row.get('function_name')}  {depth(row)}{paused}"


def queue(row: Row, *, now_s: float) -> list[str]:
    """One queue as the columns of a table: name, consumer, status, depths, age of the oldest."""
    oldest = row.get("oldest_waiting_at")
    since_s = None if not oldest else datetime.fromisoformat(str(oldest)).timestamp()
    columns = [row.get("queue_name"), row.get("function_name") or "no consumer", row.get("status")]
    columns += [f"{state} {row.get(state, 0)}" for state in DEPTHS]
    columns.append("" if since_s is None else f"oldest {age(now_s - since_s)}")
    return [neutral(str(column)) for column in columns]


def depth(row: Row) -> str:
    """How deep a queue is, in half a line: `2 waiting, 1 dead`."""
    held = [f"{row[state]} {state}" for state in DEPTHS if row.get(state)]
    return ", ".join(held) or "empty"


def job(row: Row) -> str:
    """One message: where it is, its payload, and why it is dead or waits again."""
    tries = f"{row.get('attempts')} attempts, {row.get('failures')} failures"
    reason = f"  {row['reason']}" if row.get("reason") else ""
    since = f"dead since {row['dead_at']}" if row.get("dead_at") else f"due {row.get('due_at')}"
    lines = [f"{row.get('id')}  {row.get('state')}{reason}  {tries}  {since}"]
    if row.get("error"):
        lines.append(f"  error: {row['error']}")
    payload = json.dumps(row.get("payload"), ensure_ascii=False)
    most = limits.PAYLOAD_SHOWN_CHARS.value
    lines.append(f"  {payload[:most]}{'…' if len(payload) > most else ''}")
    return neutral("\n".join(lines))


def age(seconds: float) -> str:
    """How long ago, in the largest unit that fits: `12 s`, `3 min`, `5 h`, `2 d`."""
    for unit_s, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)} {unit}"
    return f"{max(0, int(seconds))} s"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, each column as wide as its widest text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _console(log: Row) -> list[str]:
    message = log.get("message")
    words = cast(list[object], message) if isinstance(message, list) else [message]
    said = " ".join(word if isinstance(word, str) else json.dumps(word) for word in words)
    first, *rest = said.split("\n")
    return [f"{log.get('level')}: {first}", *(f"  {line}" for line in rest)]


def _ms(value: object) -> str:
    return f"{value:.1f} ms" if isinstance(value, int | float) else ""


def _rows(value: object) -> list[Row]:
    return cast(list[Row], value) if isinstance(value, list) else []

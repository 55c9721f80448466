"""Log events of the control plane as lines for people, and times as people write them.

Source: contract D.5 (the events), A.6.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, cast

from amba_run.output import neutral
from amba_runtime.clock import iso
from amba_runtime.errors import UserCode, UserError

_AGE = re.compile(r"(\d{1,9})(s|m|h|d)\Z")
_MILLISECONDS = re.compile(r"[0-9]{11,15}\Z")
"""Fewer digits are a date such as 20261122, or seconds, which a person is told."""
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def since_ms(text: str | None, *, now_ms: int) -> int | None:
    """Unix milliseconds of `--since`; None where nothing was said.

    Raises:
        UserError: INVALID_TIME.
    """
    if text is None:
        return None
    if match := _AGE.match(text):
        return max(0, now_ms - int(match[1]) * _UNIT_MS[match[2]])
    return _iso_ms(text, "--since", "such as 90s, 15m, 2h, 1d, or 2026-11-22T10:00:00Z")


def at_ms(text: str | None) -> int | None:
    """Unix milliseconds of `--at`: ISO 8601 (UTC where it names no zone), or such a number.

    Raises:
        UserError: INVALID_TIME.
    """
    if text is None:
        return None
    if _MILLISECONDS.match(text):
        return int(text)
    return _iso_ms(text, "--at", "such as 2026-11-22T10:00:00Z, or Unix milliseconds (13 digits)")


def _iso_ms(text: str, option: str, hint: str) -> int:
    try:
        when = datetime.fromisoformat(text)
        return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise UserError(
            UserCode.INVALID_TIME, f"{option} {text[:40]!r} is no time", hint=hint
        ) from None


def text_of(event: dict[str, Any]) -> str:
    """One event: a head line, then its console lines and exceptions, each indented."""
    head = f"{iso(int(event['EventTimestampMs']) / 1000)}  {event.get('Outcome')}"
    head += f"  {event.get('ScriptName')}  {event.get('RequestId', '')}".rstrip()
    lines = [head]
    for log in _rows(event.get("Logs")):
        words = cast(list[object], log.get("Message") or [])
        said = " ".join(w if isinstance(w, str) else json.dumps(w) for w in words)
        lines.append(f"  {log.get('Level')}: {said}")
    for thrown in _rows(event.get("Exceptions")):
        lines.append(f"  {thrown.get('Name')}: {thrown.get('Message')}")
    return neutral("\n".join(lines))


def _rows(value: object) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], value) if isinstance(value, list) else []

"""Log events of the control plane as lines for people, and times as people write them.

Source: contract D.5 (the events), A.6.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any, cast

from amba_run.report import neutral
from amba_runtime.clock import iso
from amba_runtime.errors import UserCode, UserError

_AGE = re.compile(r"(\d{1,9})(s|m|h|d)\Z")
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
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            UserCode.INVALID_TIME,
            f"--since {text[:40]!r} is no time",
            hint="such as 90s, 15m, 2h, 1d, or 2026-11-22T10:00:00Z",
        ) from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


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

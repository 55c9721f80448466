"""What handlers read from a request: its project and user, numbers, pages, times."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from amba_router.api import faults
from amba_router.api.operations import Asked, Query
from amba_router.store.control_records import ProjectRecord
from amba_runtime import limits
from amba_runtime.clock import iso

_OFFSET_MAX = 2**53
OFFSET = Query(
    "offset",
    {"type": "integer", "minimum": 0, "maximum": _OFFSET_MAX, "default": 0},
    "rows to skip",
)
LIMIT = Query(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": limits.LIST_ROWS.value, "default": 1000},
    "rows to give",
)
_NUMBER = re.compile(r"[0-9]{1,18}\Z")


def project_of(asked: Asked) -> ProjectRecord:
    """The project of an operation that has one; `authorize` has found it."""
    assert asked.project is not None
    return asked.project


def number(asked: Asked, name: str, default: int, *, least: int, most: int) -> int:
    """A query parameter that is a whole number. Raises `Refused` INVALID_LIMIT."""
    text = asked.query.get(name)
    if text is None:
        return default
    value = int(text) if _NUMBER.match(text) else -1
    if not least <= value <= most:
        raise faults.INVALID_LIMIT.refuse(
            f"{name} must be a whole number from {least} to {most}", {"parameter": name}
        )
    return value


def page(asked: Asked) -> tuple[int, int]:
    """(offset, limit) of a list."""
    offset = number(asked, "offset", 0, least=0, most=_OFFSET_MAX)
    most = limits.LIST_ROWS.value
    return offset, number(asked, "limit", most, least=1, most=most)


def confirmed(asked: Asked, name: str) -> None:
    """`?confirm=` must repeat the name. Raises `Refused` CONFIRM_REQUIRED."""
    if asked.query.get("confirm") != name:
        raise faults.CONFIRM_REQUIRED.refuse(f"add ?confirm={name[:64]} to say that you mean it")


def parse_ms(text: str) -> int | None:
    """Unix milliseconds of an ISO 8601 time (UTC where it names no zone), or of their digits."""
    if _NUMBER.match(text):
        return int(text)
    if not text.isascii() or len(text) > 64:
        return None
    try:
        # a plus sign in a query is a blank to whoever wrote it unescaped
        moment = datetime.fromisoformat(text.replace(" 0", "+0") if "T" in text else text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def iso_ms(ms: int) -> str:
    """ISO 8601, of a time that we made; what lies beyond the calendar is its end."""
    return iso(min(max(ms, 0), _LAST_MS) / 1000)


_LAST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""

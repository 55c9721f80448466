"""The cursor of lists of events, a project's and a user's: base64url of `{ts, id}`.

Source: contract E.4, E.6.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, cast

from amba_router.api import faults
from amba_router.api.asked import iso_ms, parse_ms
from amba_router.api.faults import Refused

_CURSOR = re.compile(r"[A-Za-z0-9_-]{1,200}\Z")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z", re.ASCII)
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def encode(occurred_ms: int, id_: str) -> str:
    """Of the last event of a page."""
    text = json.dumps({"ts": iso_ms(occurred_ms), "id": id_}, separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(text: str, *, since_ms: int, until_ms: int | None) -> tuple[int, str]:
    """(occurred_ms, id) of a cursor that a list of this range gave. Raises `Refused`."""
    try:
        said: Any = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        raise _invalid() from None
    if not _CURSOR.match(text) or not isinstance(said, dict):
        raise _invalid()
    members = cast(dict[str, Any], said)
    ts, id_ = members.get("ts"), members.get("id")
    if not isinstance(ts, str) or not isinstance(id_, str):
        raise _invalid()
    at = parse_ms(ts) if _TIME.match(ts) else None
    if at is None or not _ID.match(id_) or encode(at, id_) != text:
        raise _invalid()
    if at < since_ms or (until_ms is not None and at >= until_ms):
        raise _invalid()
    return at, id_


def _invalid() -> Refused:
    return faults.INVALID_CURSOR.refuse(
        "cursor must be the next_cursor of a list with the same parameters; "
        "leave it out to begin anew",
        {"parameter": "cursor"},
    )

"""Which names are time zones of this machine's database (`Europe/Vienna`, `UTC`)."""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(?:/[A-Za-z0-9_+-]{1,31}){0,2}\Z")
_NO_ZONES = frozenset({"localtime", "posixrules", "Factory"})
"""Files beside the zones on some machines, which name no place."""
_COPIES = ("posix/", "right/")
"""Folders on some machines with every zone again, the second one by clocks with leap seconds."""


def zone_of(name: str) -> ZoneInfo | None:
    """The zone; None for what names none."""
    if _ZONE.match(name) is None or name in _NO_ZONES or name.startswith(_COPIES):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of zones is an OSError
        return None


def is_timezone(name: str) -> bool:
    """Whether there is such a zone."""
    return zone_of(name) is not None

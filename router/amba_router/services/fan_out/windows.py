"""When a user's own day comes to the hours in which a message may be delivered.

Source: contract E.13 (`delivery_window`); what happens at midnight and when clocks are set is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_HOUR_S = 3600
_LOOKS = 80
"""Changes of the local hour within three days and some: one of each hour of a day is among them."""


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of a day, from `first` to before `end`; over midnight where `end` is not larger."""

    first: int
    end: int

    def has(self, hour: int) -> bool:
        """Args: hour: 0 to 23."""
        if self.first < self.end:
            return self.first <= hour < self.end
        return hour >= self.first or hour < self.end

    def opens_ms(self, now_ms: int, zone: str | None) -> int:
        """Now where the window is open; else when it is next, in Unix milliseconds.

        An hour that is left out as clocks are set forward is waited for until the next day.

        Args:
            zone: an IANA name; None, and one that this machine does not know, is UTC.
        """
        known = _zone(zone)
        at_s, ms = divmod(now_ms, 1000)
        for _ in range(_LOOKS):
            local = datetime.fromtimestamp(at_s, known)
            if self.has(local.hour):
                break
            # the next hour of this clock: it is set forward and back at full hours
            at_s += _HOUR_S - local.minute * 60 - local.second
            ms = 0
        return at_s * 1000 + ms


def _zone(name: str | None) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of zones is an OSError
        return ZoneInfo("UTC")

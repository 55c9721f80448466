"""Which user ids an engine may have that nobody else has, where we are root.

Without being root there is no choice: the engine has our own user, and the walls do without.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amba_runtime import entropy

UNUSED = (0x70000000, 0x7FFFFFFE)
"""Ids that no system gives away. Source: systemd's UIDS-GIDS, "1879048192 to 2147483647"."""
UNUSED_SMALL = (40_000, 59_999)
"""In a container of 65,536 ids: people and services have lower ones, systemd higher ones."""
UID_MAP = Path("/proc/self/uid_map")


@dataclass(frozen=True, slots=True)
class Users:
    """A range of ids, both ends included; none where `first` is 0."""

    first: int = 0
    last: int = 0

    @classmethod
    def here(cls, uid_map: Path = UID_MAP, *, euid: int | None = None) -> Users:
        """Those that are free here. Never raises."""
        if (os.geteuid() if euid is None else euid) != 0:
            return cls()
        try:
            lines = [
                [int(word) for word in line.split()] for line in uid_map.read_text().splitlines()
            ]
        except (OSError, ValueError):
            return cls()
        for first, last in (UNUSED, UNUSED_SMALL):
            if any(_covers(line, first, last) for line in lines):
                return cls(first, last)
        return cls()

    def take(self) -> int | None:
        """One of them by chance: in 2^28, two are hardly ever the same."""
        if not self.first:
            return None
        return self.first + int.from_bytes(entropy.key_bytes(8)) % (self.last - self.first + 1)


def _covers(line: Sequence[int], first: int, last: int) -> bool:
    return len(line) == 3 and line[0] <= first and last < line[0] + line[2]

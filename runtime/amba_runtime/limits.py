"""Every number of the platform, each with its unit and where it comes from.

Nothing else in the four packages holds a maximum, a deadline or a size. A limit marked
`setting` can be set per project or function in `amba.toml` (interface.md section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limit:
    """One number: its value in `unit`, what it bounds, and its source."""

    value: int
    unit: str
    bounds: str
    source: str


@dataclass(frozen=True, slots=True)
class Deadline:
    """One duration in seconds: what it bounds, and its source."""

    value: float
    bounds: str
    source: str


# --- the wire between us and an engine process ---
WIRE_BUFFER = Limit(256 * KIB, "bytes", "body bytes held per direction and exchange", "ours")
WIRE_HEAD = Limit(512 * KIB, "bytes", "head of a request from an engine", "ours")
WIRE_BACKLOG = Limit(1024, "connections", "waiting to be accepted on a Unix socket", "ours")
WIRE_IDLE_CONNECTIONS = Limit(256, "connections", "kept idle per engine process", "ours")
WIRE_IDLE_S = Deadline(2.0, "an idle connection to an engine is used again", "engines.md 2")

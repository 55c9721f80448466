"""The OS walls around an engine process. Today: none beyond an empty environment, a session
and process group of its own, and death with its parent (tier 0 of reliability.md 4.2).

The jail is the walls issue's; it replaces `wrap`, and nothing else has to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How strong the walls are, as `amba-run doctor` says it."""

    tier: int = 0
    description: str = "plain child process: no wall but the engine's own"

    def wrap(self, argv: Sequence[str]) -> tuple[str, ...]:
        """The command line that runs `argv` inside the walls."""
        return tuple(argv)

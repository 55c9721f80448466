"""How many connections engines may have to us: they are files of our process."""

from __future__ import annotations

from amba_runtime import limits


class Intake:
    """Connections of all engines to us: files of our process, which clients need as well.

    `count` is changed only by the connections themselves.
    """

    def __init__(self) -> None:
        self.count = 0

    @property
    def full(self) -> bool:
        """No more are taken, from whichever engine."""
        return self.count >= engine_connections(open_files())


def open_files() -> int | None:
    """How many files this process may open; None where there is no limit that we know of."""
    try:
        import resource
    except ImportError:
        return None  # Windows
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def engine_connections(files: int | None) -> int:
    """How many connections of engines a process takes that may open so many files.

    Each may take another one, to where a guest's request goes.
    """
    most = limits.WIRE_ALL_CONNECTIONS.value
    return most if files is None else min(most, files * limits.WIRE_SHARE.value // 100 // 2)

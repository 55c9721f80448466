"""How many connections engines may have to us: they are files of our process."""

from __future__ import annotations

from amba_runtime import limits
from amba_runtime.wire.pace import Pace


class Intake:
    """Connections of all engines to us: files of our process, which clients need as well.

    Attributes:
        pace: how many of the requests that come on them begin at a time.
    """

    def __init__(self) -> None:
        self.pace = Pace(limits.WIRE_BEGUN.value)
        self._count = 0
        self._held: dict[str, int] = {}  # by owner; none that holds nothing

    def door(self, owner: str) -> Door:
        """One socket's way in.

        Args:
            owner: whose engine connects: a project.
        """
        return Door(self, owner)

    def take(self, owner: str, *, least: bool) -> bool:
        """One more, if it may be; then `leave`.

        Nobody takes what others may need: an owner takes one more only while it holds fewer
        than are free, as at the turnstile.

        Args:
            least: it is among the few that each socket has, however many its owner holds.
        """
        free = engine_connections(open_files()) - self._count
        held = self._held.get(owner, 0)
        if free <= 0 or not (least or held < free):
            return False
        self._count += 1
        self._held[owner] = held + 1
        return True

    def leave(self, owner: str) -> None:
        """It was closed."""
        self._count -= 1
        held = self._held.pop(owner) - 1
        if held:
            self._held[owner] = held


class Door:
    """Connections to one socket. `count` is changed only here."""

    __slots__ = ("_intake", "_owner", "count")

    def __init__(self, intake: Intake, owner: str) -> None:
        self._intake = intake
        self._owner = owner
        self.count = 0

    def take(self) -> bool:
        """One more, if it may be; then `leave`."""
        if not self._intake.take(self._owner, least=self.count < limits.WIRE_LEAST.value):
            return False
        self.count += 1
        return True

    def leave(self) -> None:
        """It was closed."""
        self.count -= 1
        self._intake.leave(self._owner)

    async def turn(self) -> None:
        """Return when a request that came on one of them may begin (see `Pace`)."""
        await self._intake.pace.turn(self._owner)


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

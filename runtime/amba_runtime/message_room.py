"""How many bytes of WebSocket messages may lie in our memory: a share per project, a sum per node.

A message is up to 32 MiB and lies here whole, each way, while its reader takes its time. Each
direction of a socket holds no more than it leaves free to its project's others, and each project
no more than it leaves free to the other projects: whoever fills their part for as long as they
like, as much is free, and half of that for the next alone. Whoever finds no room for a message
closes its socket with 1013, "try again later": to wait for room would mean to wait for others
who wait.
Source: reliability.md T20; Cloudflare's limit on WebSocket messages.
"""

from __future__ import annotations

from amba_runtime import limits
from amba_runtime.outcome import Breach

NO_ROOM_CODE = 1013
"""Try again later. Source: IANA registry of WebSocket close codes."""
NO_ROOM_REASON = "too many bytes of messages under way"


class MessageRoom:
    """One per server.

    Args:
        most: bytes of all projects.
        of_project: bytes of one; None is `most`, for a server of one project, which then need
            not leave room to others.
        free: bytes of each direction of a socket that do not count: there are only so many
            sockets, so small messages need never fear large ones.

    Attributes:
        held: bytes that count, now. Changed by `Account.hold`.
    """

    def __init__(
        self,
        *,
        most: int = limits.WEBSOCKET_ROOM.value,
        of_project: int | None = None,
        free: int = limits.WEBSOCKET_FREE.value,
    ) -> None:
        self.most = most
        self.of_project = most if of_project is None else of_project
        self.shared = of_project is not None
        self.free = free
        self.held = 0

    def share(self) -> MessageShare:
        """That of one project."""
        return MessageShare(self)


class MessageShare:
    """What the sockets of one project hold together."""

    __slots__ = ("held", "room")

    def __init__(self, room: MessageRoom) -> None:
        self.room = room
        self.held = 0

    def account(self) -> Account:
        """For one socket, which closes it."""
        return Account(self)


class Account:
    """What one socket holds. `close` at its end.

    Attributes:
        breach: the room that a message did not find: what its direction, or its project, would
            have held, and what it may.
    """

    __slots__ = ("_inward", "_outward", "_share", "breach")

    def __init__(self, share: MessageShare) -> None:
        self._share = share
        self._inward = Direction(self)
        self._outward = Direction(self)
        self.breach: Breach | None = None

    @property
    def inward(self) -> Direction:
        """From the caller to the guest."""
        return self._inward

    @property
    def outward(self) -> Direction:
        """From the guest to the caller."""
        return self._outward

    def close(self) -> None:
        """Nothing is held any more, nor will be. Idempotent."""
        self._inward.close()
        self._outward.close()

    def take(self, held: int, count: int) -> bool:
        """For a `Direction`: it holds `count` bytes, not `held`; False where there is no room."""
        share = self._share
        room = share.room
        more = count - held
        if more > 0:
            most = (room.of_project - (share.held - held)) // 2
            if count > most:
                self._refused("websocket_project_bytes", count, most)
                return False
            most = (room.most - (room.held - share.held)) // (2 if room.shared else 1)
            if share.held + more > most:
                self._refused("websocket_bytes", share.held + more, most)
                return False
        share.held += more
        room.held += more
        return True

    def _refused(self, limit: str, used: int, most: int) -> None:
        self.breach = self.breach or Breach(limit, used, most)

    @property
    def free(self) -> int:
        """Bytes of a direction that do not count."""
        return self._share.room.free


class Direction:
    """One way through a socket."""

    __slots__ = ("_account", "_closed", "_held")

    def __init__(self, account: Account) -> None:
        self._account = account
        self._held = 0
        self._closed = False

    def hold(self, count: int) -> bool:
        """So many bytes lie here now; False, and nothing changed, where that is too many."""
        if self._closed:
            return True
        counted = max(0, count - self._account.free)
        if counted == self._held:
            return True
        if not self._account.take(self._held, counted):
            return False
        self._held = counted
        return True

    def close(self) -> None:
        """Nothing is held any more, nor will be. Idempotent."""
        self.hold(0)
        self._closed = True

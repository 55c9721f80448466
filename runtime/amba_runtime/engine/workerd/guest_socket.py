"""WebSockets to a guest, over the `websockets` library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from amba_runtime import limits, wire
from amba_runtime.engine.base import Refused
from amba_runtime.message_room import NO_ROOM_CODE, NO_ROOM_REASON, Direction

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

    from amba_runtime.engine.workerd.handshake import Inbox


async def open_guest_socket(
    path: Path, target: bytes, headers: wire.Headers, subprotocols: Sequence[str]
) -> WorkerdSocket:
    """Open one by way of a Unix socket.

    Raises:
        Refused: the guest answered with an ordinary response.
        WireError: the engine is gone.
    """
    from websockets.exceptions import InvalidHandshake, InvalidStatus

    from amba_runtime.engine.workerd.handshake import open_socket

    fields = [field for field in headers if field[0] != b"host"]
    host = next((v for n, v in headers if n == b"host"), b"localhost").decode("latin-1")
    try:
        connection, inbox = await open_socket(
            path, host, target.decode("latin-1"), fields, subprotocols
        )
    except InvalidStatus as refusal:
        answer = refusal.response
        raise Refused(
            answer.status_code,
            [
                (n.lower().encode("latin-1"), v.encode("latin-1"))
                for n, v in answer.headers.raw_items()
            ],
            bytes(answer.body or b"")[: limits.REFUSAL_BYTES.value],
        ) from None
    except (OSError, EOFError, InvalidHandshake, TimeoutError) as error:
        raise wire.WireError(f"the engine did not open a WebSocket: {error}") from error
    return WorkerdSocket(connection, inbox)


class WorkerdSocket:
    """One that stands."""

    def __init__(self, connection: ClientConnection, inbox: Inbox) -> None:
        self._connection = connection
        self._inbox = inbox

    @property
    def subprotocol(self) -> str | None:
        """What the guest chose."""
        return self._connection.subprotocol

    @property
    def headers(self) -> wire.Headers:
        """Of the guest's 101 answer."""
        response = self._connection.response
        if response is None:
            return []
        return [
            (n.lower().encode("latin-1"), v.encode("latin-1"))
            for n, v in response.headers.raw_items()
        ]

    @property
    def close_code(self) -> int | None:
        """Set once the socket has ended; 1006 when it broke off, 1013 when it was too much."""
        return NO_ROOM_CODE if self._inbox.overfull else self._connection.close_code

    @property
    def close_reason(self) -> str:
        """In the guest's words, unless it is we who closed."""
        if self._inbox.overfull:
            return NO_ROOM_REASON
        return self._connection.close_reason or ""

    def hold_to(self, account: Direction) -> None:
        """See `Socket`."""
        self._inbox.hold_to(account)

    async def send(self, message: str | bytes) -> None:
        """Deliver one message. Raises WireError when the guest has closed."""
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(message)
        except ConnectionClosed as error:
            raise wire.WireError("the guest closed the WebSocket") from error

    async def receive(self) -> str | bytes | None:
        """The next message; None once the socket has ended."""
        from websockets.exceptions import ConnectionClosed

        self._inbox.asked()
        try:
            message = await self._connection.recv()
        except ConnectionClosed:
            return None
        self._inbox.took(message)
        return None if self._inbox.overfull else message

    async def close(self, code: int, reason: str) -> None:
        """Say good-bye; with 1006 break off, as the caller did. Idempotent."""
        if code == 1006:
            self._connection.transport.abort()
            await self._connection.wait_closed()
            return
        await self._connection.close(code, reason)

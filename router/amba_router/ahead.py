"""A client that waits for its turn is listened to: one that leaves frees its place in the queue.

Source: reliability.md 2.3 (concurrency), rows K1 and K2.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any

from amba_router.asgi import Message, Receive

_LEFT = ("http.disconnect", "websocket.disconnect")


class Ahead:
    """Reads ahead from a client, no more than one message that has something in it.

    `receive` gives what was read, in order, then what comes; not while `outlasts` runs.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read: deque[Message] = deque()

    async def receive(self) -> Message:
        """ASGI: the next message."""
        return self._read.popleft() if self._read else await self._receive()

    async def outlasts(self, turn: Coroutine[Any, Any, None], *, read: bool = True) -> bool:
        """Wait for `turn`, unless the client leaves first.

        A client is known to have left only while it is read from: not behind a body (or a
        message of a WebSocket) of which more would have to be read than its first piece.

        Args:
            turn: begins with this call; cancelled where the client left.
            read: False reads nothing, and waits for `turn` alone.

        Returns:
            False where the client left; nothing that `turn` took is held then.

        Raises:
            Exception: what `turn` raises.
        """
        if not read:
            await turn
            return True
        loop = asyncio.get_running_loop()
        waiting = loop.create_task(turn)
        leaving = loop.create_task(self._left())
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done() and not leaving.result():
                await asyncio.wait({waiting})
        finally:
            leaving.cancel()
            if not waiting.done():
                waiting.cancel()
            await asyncio.gather(leaving, waiting, return_exceptions=True)
        if waiting.cancelled():
            return False
        waiting.result()
        return True

    async def _left(self) -> bool:
        """Whether the client left; False once no more may be read."""
        while True:
            message = await self._receive()
            self._read.append(message)
            if message["type"] in _LEFT:
                return True
            if message.get("more_body") or message["type"] == "websocket.receive":
                return False

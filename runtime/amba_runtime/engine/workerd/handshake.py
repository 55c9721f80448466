"""A WebSocket to a guest: one request, an ordinary answer seen as the guest gave it, its weight.

`websockets` has limits of its own for an answer's head and follows redirects. Neither is wanted
here: the engine is ours, and a guest's answer belongs to the caller.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.datastructures import Headers as Fields
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from amba_runtime import limits, wire
from amba_runtime.message_room import NO_ROOM_CODE, NO_ROOM_REASON, Direction

_FRAMING = ("content-length", "transfer-encoding")


async def open_socket(
    path: Path, host: str, target: str, headers: wire.Headers, subprotocols: Sequence[str]
) -> tuple[ClientConnection, Inbox]:
    """Ask the guest for a WebSocket.

    Args:
        path: of the engine's Unix socket.
        headers: without Host.

    Raises:
        InvalidStatus: the guest answered with an ordinary response, which it holds.
        InvalidHandshake, OSError, EOFError, TimeoutError: the engine is gone, or broke the
            protocol.
    """
    protocol = Inbox(
        parse_uri(f"ws://{host}{target}"),
        subprotocols=[Subprotocol(p) for p in subprotocols] or None,
        max_size=limits.WEBSOCKET_BYTES.value,
    )
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(limits.WEBSOCKET_OPEN_S.value):
        _, connection = await loop.create_unix_connection(
            lambda: ClientConnection(
                protocol,
                ping_interval=None,
                close_timeout=limits.WEBSOCKET_CLOSE_S.value,
                # a message of the guest's waits in the engine, whose memory is counted, not in ours
                max_queue=1,
            ),
            str(path),
        )
        try:
            await connection.handshake(
                [(n.decode("latin-1"), v.decode("latin-1")) for n, v in headers], None
            )
        except BaseException:
            connection.transport.abort()
            raise

    def part() -> None:
        connection.send_data()
        loop.call_later(limits.WEBSOCKET_CLOSE_S.value, connection.transport.abort)

    protocol.on_overfull = lambda: loop.call_soon(part)
    return connection, protocol


class Inbox(ClientProtocol):
    """The client's end; the answer's head is read here, up to `limits.WIRE_HEAD`.

    The library's parser gets a head with only the fields that frame the body, and what checks
    the answer, and whoever reads it afterwards, the fields that the guest sent.

    Attributes:
        overfull: the guest's messages found no room, so that the socket ends.
        on_overfull: called then, once.
    """

    overfull = False
    on_overfull: Callable[[], object] | None = None
    _head: bytearray | None = None
    _fields: Fields | None = None
    _account: Direction | None = None
    # bytes of messages that are here whole, oldest first, and of the one that is being passed on
    _whole: deque[int] | None = None
    _whole_sum = 0
    _taken = 0

    def hold_to(self, account: Direction) -> None:
        """Count what lies here from now on, and what does already."""
        self._account = account
        self._weigh()

    def asked(self) -> None:
        """The last message was passed on: the next one is asked for."""
        self._taken = 0
        self._weigh()

    def took(self, message: str | bytes) -> None:
        """The oldest message was taken: it still lies here, as text as wide as its characters."""
        if self._whole:
            self._whole_sum -= self._whole.popleft()
        self._taken = sys.getsizeof(message)
        self._weigh()

    def recv_frame(self, frame: Frame) -> None:
        """Take one frame from the parser."""
        before = self.current_size or 0
        data, frame.data = frame.data, b""  # the parser keeps its frame until the next one is here
        super().recv_frame(replace(frame, data=data))
        if frame.fin and frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            size = before + len(data) + limits.WEBSOCKET_FRAME_COST.value
            self._whole = self._whole or deque()
            self._whole.append(size)
            self._whole_sum += size

    def _weigh(self) -> None:
        if self._account is None or self.overfull:
            return
        lies = len(self.reader.buffer) + (self.current_size or 0) + self._whole_sum + self._taken
        if not self._account.hold(lies):
            self.overfull = True
            self.fail(NO_ROOM_CODE, NO_ROOM_REASON)
            self.reader.discard()
            if self.on_overfull is not None:
                self.on_overfull()

    def receive_data(self, data: bytes | bytearray) -> None:
        """Bytes from the engine."""
        if self._fields is None:
            data = self._framing_of(data)
        super().receive_data(data)
        self._weigh()

    def _framing_of(self, data: bytes | bytearray) -> bytes:
        """The head without the rest of its fields, once it is here; nothing until then."""
        self._head = head = self._head or bytearray()
        head += data
        lines, mark, rest = bytes(head).partition(b"\r\n\r\n")
        if len(lines) > limits.WIRE_HEAD.value:
            return bytes(head)  # the library refuses it
        if not mark:
            return b""
        status, _, text = lines.partition(b"\r\n")
        fields = [
            (n.decode("latin-1"), v.decode("latin-1"))
            for n, v in wire.parse_lines(text + b"\r\n" if text else b"")
        ]
        self._fields = Fields(fields)
        kept = Fields([field for field in fields if field[0].lower() in _FRAMING])
        return status + b"\r\n" + kept.serialize() + rest

    def process_response(self, response: Response) -> None:
        """Check the answer's head: the real one."""
        if self._fields is not None:
            response.headers = self._fields
        super().process_response(response)

"""One connection to a stranger on the network, and those kept to one of its addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import httptools

from amba_runtime import limits, wire
from amba_runtime.wire import WireError


class Peers(wire.Client):
    """Kept connections to one address under one name: `wire.Client` without its Unix socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop, has_room: Callable[[], bool]) -> None:
        super().__init__(Path(), loop=loop)
        self._has_room = has_room

    @property
    def kept(self) -> int:
        """Connections that idle."""
        return len(self._idle)

    def drop_stale(self) -> None:
        """Close what has idled too long to be used again."""
        horizon = self.loop.time() - limits.WIRE_IDLE_S.value
        stale = [c for c in self._idle if c.idle_since_s < horizon]
        self._idle = [c for c in self._idle if c.idle_since_s >= horizon]
        for connection in stale:
            connection.close_idle()

    def put(self, connection: wire.Connection) -> None:
        """Keep a connection whose exchange ended cleanly, while there is room."""
        if self._has_room():
            super().put(connection)
        else:
            connection.close_idle()

    def take(self) -> RemoteConnection | None:
        """The connection used last, if it is still good."""
        horizon = self.loop.time() - limits.WIRE_IDLE_S.value
        while self._idle:
            connection = self._idle.pop()
            if isinstance(connection, RemoteConnection) and not connection.lost:
                if connection.idle_since_s >= horizon:
                    return connection
                connection.close_idle()
        return None


class RemoteConnection(wire.Connection):
    """A connection to a stranger: heads are bounded, a body may end with the connection.

    After 101 (only where it was asked for) `read`, `write` and `drain` carry raw bytes.
    """

    __slots__ = (
        "_cut",
        "_ends_with_connection",
        "_head_bytes",
        "_interim",
        "_loop",
        "_upgraded",
        "_why",
        "wants_upgrade",
    )

    def __init__(self, owner: Peers) -> None:
        super().__init__(owner)
        self._loop = owner.loop
        self._cut: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._interim = 0
        self._ends_with_connection = False
        self._upgraded = False
        self._why = ""
        self.wants_upgrade = False

    def begin(self, method: bytes, target: bytes, headers: bytes, length: int | None) -> None:
        self._head_bytes = self._interim = 0
        self._ends_with_connection = False
        super().begin(method, target, headers, length)

    def close_idle(self) -> None:
        """Close politely; a server that does not take what is left is cut off."""
        super().close_idle()
        if not self.lost and self._cut is None:
            self._cut = self._loop.call_later(limits.EGRESS_CLOSE_S.value, self.abort)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + limits.EGRESS_FIELD_OVERHEAD.value
        if self._head_bytes > limits.EGRESS_HEAD_BYTES.value:
            self._refuse("the head of its answer is too large")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status == 101 and self.wants_upgrade and self._head is not None:
            self.status = status
            self._head.set_result(None)
            return
        if status < 200:
            self._interim += 1
            if self._interim > limits.EGRESS_INTERIM.value:
                self._refuse("it sends interim answers without end")
        fields = dict(self.headers)
        coding = fields.get(b"transfer-encoding")
        if coding is not None and coding.lower() != b"chunked":
            self._refuse(f"transfer-encoding {coding!r} is not spoken")
        self._ends_with_connection = coding is None and b"content-length" not in fields
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self.status != 101:
            super().on_message_complete()

    def buffer_updated(self, nbytes: int) -> None:
        if not self._upgraded and not self.wants_upgrade:
            super().buffer_updated(nbytes)
            return
        assert self._inbox is not None
        data = self._owner.view[:nbytes]
        if not self._upgraded and self._parser is not None:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as stop:
                self._upgraded = True
                data = data[int(stop.args[0]) :]
            except httptools.HttpParserError as error:
                self._fail(f"the engine's answer is not HTTP: {error}")
                self.abort()
                return
        if data:
            self._inbox.feed(bytes(data))  # the buffer that it lies in is used again

    def _refuse(self, why: str) -> NoReturn:
        self._why = why  # the parser wraps what its callbacks raise
        raise WireError(why)

    def _fail(self, reason: str, *, unread: bool = False) -> None:
        # `wire` speaks of engines; the other end is a server here. One that closes without a
        # byte of an answer has, by RFC 9110 section 9.2.2, left a repeatable request unread.
        told = self._why or reason.replace("the engine", "the server")
        super()._fail(told, unread=True)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._cut is not None:
            self._cut.cancel()
        may_end = self._ends_with_connection or self._upgraded
        if may_end and exc is None and self._inbox is not None:
            self._inbox.end()
        super().connection_lost(exc)

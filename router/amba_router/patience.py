"""How long a client may keep us waiting: for its head, its body, its next request, its reading.

One timer per connection. It looks at the clock when it fires, and what passes by meanwhile only
notes the time where the client is slow: a request in one piece costs nothing here.
Source: reliability.md 0 (finding 3), 3.A row A7 and B2.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from itertools import islice
from typing import Any, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from amba_router.problem import Problem
from amba_runtime import limits

RESTING, HEAD, BODY = range(3)
"""What of the newest request is not here yet. RESTING: nothing, it is complete."""

LATE = Problem(408, "REQUEST_TIMEOUT", "invalid_request", "the request took too long to arrive")
CROWDED = Problem(
    503, "overloaded", "internal", "too many clients are connected; try again", retry_after_s=1
)

_UNSET = -1.0
_LOOKS = 4
"""A client that stops reading is noticed within a quarter of the time it has."""


class Flow(FlowControl):
    """Back-pressure with a clock that stands still while it is we who do not read."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport)
        self._loop = loop
        self._paused_s = 0.0
        self._since_s = 0.0

    def time(self) -> float:
        """Seconds, of which a client has as many as we read."""
        now_s = self._since_s if self.read_paused else self._loop.time()
        return now_s - self._paused_s

    def pause_reading(self) -> None:
        """The client waits from here on."""
        if not self.read_paused:
            self._since_s = self._loop.time()
            super().pause_reading()

    def resume_reading(self) -> None:
        """We wait again."""
        if self.read_paused:
            self._paused_s += self._loop.time() - self._since_s
            super().resume_reading()


class Outflow:
    """What of our answers a client has not taken, and whether it takes any of it."""

    __slots__ = ("_least", "_loop", "_since_s", "_transport", "_unread")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._unread = 0
        self._since_s = 0.0

    @staticmethod
    def look_s() -> float:
        """Seconds between two looks at a client that does not read."""
        return limits.EDGE_WRITE_IDLE_S.value / _LOOKS

    def moved(self) -> None:
        """The client has taken so much that we write again."""
        self._unread = 0

    def stuck(self, *, paused: bool) -> bool:
        """Whether it has taken (almost) nothing for as long as it may. Ask every `look_s`.

        Args:
            paused: nothing is written but a word on the connection's own account.
        """
        if not self._transport.get_write_buffer_size():
            self._unread = 0
            return False
        unread = self._transport.get_write_buffer_size() + _in_kernel(self._transport)
        now_s = self._loop.time()
        # the first look may come a look's time after it stopped reading
        patience_s = limits.EDGE_WRITE_IDLE_S.value - self.look_s()
        taken = self._unread - unread
        if (
            not self._unread
            or (taken < 0 and not paused)
            or taken >= patience_s * limits.EDGE_RATE.value
        ):
            self._unread, self._since_s = unread, now_s
            return False
        self._unread = max(self._unread, unread)
        return now_s - self._since_s >= patience_s


def reset(transport: asyncio.Transport) -> None:
    """End a connection so that nobody takes what came for whole, and the kernel keeps nothing."""
    peer: socket.socket = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it may be gone already
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _in_kernel(transport: asyncio.Transport) -> int:
    """Bytes that the kernel holds because the client's has not acknowledged them.

    Its own buffer is so large that ours says little of a slow reader. 0 where it cannot be asked.
    """
    try:
        import fcntl
        import termios

        peer: Any = transport.get_extra_info("socket")
        held = fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        return int(struct.unpack("i", held)[0])
    except (ImportError, OSError, AttributeError):
        return 0


class PatientProtocol(HttpToolsProtocol):
    """A connection with one timer. What it waits for is in `_stage`; the rest is a subclass's."""

    _stage = HEAD
    _unfinished_bytes = 0
    _head_since_s = 0.0
    _body_since_s = 0.0
    _body_began_s = _UNSET
    _body_bytes = 0
    _idle_since_s = 0.0
    _due_s = 0.0
    _timer: asyncio.TimerHandle | None = None
    _outflow: Outflow

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client has as long for its first head as for any, its first byte included."""
        stream = cast(asyncio.Transport, transport)  # a stream's; uvloop's are no subclass
        super().connection_made(stream)
        self.flow = Flow(stream, self.loop)
        stream.set_write_buffer_limits(high=0)  # what a client does not take is not made
        self._outflow = Outflow(stream, self.loop)
        self._idle_since_s = self._head_since_s = self.loop.time()
        most = self.limit_concurrency
        if most is not None and len(self.connections) > most:
            self._squeeze(most)
        self._look_in(limits.EDGE_HEAD_S.value)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._forget()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._look_in(self._outflow.look_s())

    def resume_writing(self) -> None:
        """It reads again."""
        self._outflow.moved()
        super().resume_writing()

    # what a subclass does

    def is_idle(self) -> bool:
        """Nothing is under way on this connection."""
        raise NotImplementedError

    def refuse(self, problem: Problem) -> None:
        """Answer where an answer may still be given, and end the connection."""
        raise NotImplementedError

    def _is_silent(self) -> bool:
        """Nothing has come on this connection yet."""
        raise NotImplementedError

    def _waits_for_continue(self) -> bool:
        """The client waits for our word before it sends its body."""
        raise NotImplementedError

    # the timer

    def _await_more(self) -> None:
        """Some of a request has come, and some has not."""
        now_s = cast(Flow, self.flow).time()
        if self._stage == BODY:
            self._body_since_s = now_s
            if self._body_began_s < 0:
                self._body_began_s, self._body_bytes = now_s, 0
                self._look_in(limits.EDGE_BODY_IDLE_S.value)
        elif self._head_since_s < 0:
            self._head_since_s = now_s
            self._look_in(limits.EDGE_HEAD_S.value)

    def _look_in(self, seconds: float) -> None:
        due_s = self.loop.time() + seconds
        if self._timer is not None:
            if self._due_s <= due_s:
                return
            self._timer.cancel()
        self._due_s = due_s
        self._timer = self.loop.call_later(seconds, self._look)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """End what has waited for too long, or look again when something could have."""
        self._timer = None
        again_s = limits.EDGE_KEEP_ALIVE_S.value
        if self.transport.get_write_buffer_size():
            if self._outflow.stuck(paused=self.flow.write_paused):
                reset(self.transport)
                return
            again_s = self._outflow.look_s()
        if not self.transport.is_closing():
            left_s = self._left_s()
            if left_s <= 0:
                self._too_late()
                left_s = limits.EDGE_LINGER_S.value
            again_s = min(again_s, left_s)
        self._look_in(again_s)

    def _left_s(self) -> float:
        """Seconds until the client is late, if nothing comes."""
        now_s = cast(Flow, self.flow).time()
        if self._stage == HEAD:
            return self._head_since_s + limits.EDGE_HEAD_S.value - now_s
        if self._stage == BODY:
            if self._waits_for_continue():
                self._body_since_s = self._body_began_s = now_s
            rate = limits.EDGE_RATE.value
            whole_s = limits.EDGE_BODY_S.value + self._body_bytes / rate
            idle_s = limits.EDGE_BODY_IDLE_S.value
            return min(self._body_since_s + idle_s, self._body_began_s + whole_s) - now_s
        if self.is_idle():
            return self._idle_since_s + limits.EDGE_KEEP_ALIVE_S.value - self.loop.time()
        return limits.EDGE_KEEP_ALIVE_S.value

    def _too_late(self) -> None:
        if self.flow.read_paused:
            return  # the rest may be here, unread
        if self._stage == RESTING or self._is_silent():
            self.transport.close()  # it has asked for nothing: there is nothing to answer
        else:
            self.refuse(LATE)

    def _squeeze(self, most: int) -> None:
        """Too many are connected: an idle one makes room, or the new one is refused."""
        horizon_s = self.loop.time() - limits.EDGE_SQUEEZED_S.value
        for other in islice(self.connections, limits.EDGE_SQUEEZED.value):
            if isinstance(other, PatientProtocol) and other.gives_way(horizon_s):
                return
        if len(self.connections) > most + max(1, most // 8):
            self.transport.abort()  # no time to be polite
        else:
            self.refuse(CROWDED)

    def gives_way(self, horizon_s: float) -> bool:
        """Close when idle since before `horizon_s`, on the loop's clock."""
        if self._stage != RESTING or not self.is_idle() or self._idle_since_s > horizon_s:
            return False
        if self.transport.is_closing():
            return False
        self.transport.close()
        return True

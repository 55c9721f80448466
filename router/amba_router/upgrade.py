"""Behind an upgrade: uvicorn's WebSocket protocol, given a head that the edge has judged.

Nothing parses that head a second time, with other limits and with silence for an answer, and
whatever refuses the handshake does so in the platform's envelope.
What of a client's messages lies here is weighed: the app says with `websocket.accept`, as
`amba.account`, what it is held to. Until then, and beyond it, the connection ends.
Source: reliability.md 2.3; RFC 6455 section 4.2; contract A.7.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Generator
from dataclasses import replace
from http import HTTPStatus
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.datastructures import Headers as Fields
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request, Response
from websockets.protocol import Protocol
from websockets.server import ServerProtocol

from amba_router.patience import Outflow, reset
from amba_router.problem import BAD_REQUEST, INTERNAL, Problem
from amba_runtime import limits
from amba_runtime.message_room import NO_ROOM_REASON, Direction
from amba_runtime.wire import Headers

logger = logging.getLogger("amba.edge")

_UNSET = -1.0


class _Judged(ServerProtocol):
    """The server's end of a WebSocket whose request was read already."""

    def parse(self) -> Generator[None]:
        """Frames from the first byte on."""
        yield from Protocol.parse(self)

    def recv_frame(self, frame: Frame) -> None:
        """Take one frame from the parser, which keeps its own until the next one is here."""
        data, frame.data = frame.data, b""
        super().recv_frame(replace(frame, data=data))

    def reject(self, status: HTTPStatus | int, text: str) -> Response:
        """A handshake that cannot be accepted: no key, for one."""
        said = text.partition("\n")[0].removesuffix(".")
        problem = replace(BAD_REQUEST, message=said) if said else BAD_REQUEST
        return _response(problem)


class EdgeSocket(WebSocketsSansIOProtocol):
    """One client connection, from its WebSocket request on. `begin` takes it over."""

    conn: ServerProtocol
    app: Any
    default_headers: Headers

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _Judged(max_size=config.ws_max_size, logger=self.conn.logger)
        self._refusal: tuple[int, Headers, bytearray] | None = None
        self._account: Direction | None = None
        # bytes of the messages that the app has not asked for, oldest first, and of its last one
        self._waiting: deque[int] = deque()
        self._waiting_sum = 0
        self._with_app = 0
        self._began_s = _UNSET  # when a message began that is not here whole
        self._came_s = _UNSET  # when its last piece came, or when we last began to read again
        self._alive_s = _UNSET  # when something last showed that the client is there
        self._outflow: Outflow | None = None
        self._looking: asyncio.TimerHandle | None = None

    def begin(
        self, transport: asyncio.Transport, target: bytes, headers: Headers, rest: bytes
    ) -> None:
        """Take a connection over, with a judged request.

        Args:
            target: in origin form.
            rest: what came behind the head.
        """
        self.connection_made(transport)
        transport.set_protocol(self)
        fields = Fields([(n.decode("ascii"), v.decode("latin-1")) for n, v in headers])
        self.handle_connect(Request(target.decode("ascii"), fields))
        if rest and not self.transport.is_closing():
            self.data_received(rest)

    # a client that does not read, or sends what costs more than it weighs

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Look at what the client takes, from time to time."""
        super().connection_made(transport)
        self._outflow = Outflow(self.transport, self.loop)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left."""
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        if self._outflow is not None and self._outflow.stuck(paused=not self.writable.is_set()):
            reset(self.transport)
        else:
            if self._is_late():
                self._give_up(CloseCode.POLICY_VIOLATION, "the message took too long to arrive")
            self._looking = self.loop.call_later(Outflow.look_s(), self._look)

    # what lies here of its messages

    def data_received(self, data: bytes) -> None:
        """Weigh what came; a message for which there is no room ends the connection."""
        super().data_received(data)
        if self.close_sent or self.disconnected:
            return
        unfinished = len(self.conn.reader.buffer) + (self.conn.current_size or 0)
        now_s = self.loop.time()
        if not unfinished:
            self._began_s = _UNSET
        elif self._began_s < 0:
            self._began_s = now_s
        self._came_s = self._alive_s = now_s
        self._weigh()

    def _weigh(self) -> None:
        lies = len(self.conn.reader.buffer) + (self.conn.current_size or 0)
        lies += self._waiting_sum + self._with_app
        if self._account is not None:
            if not self._account.hold(lies):
                self._give_up(CloseCode.TRY_AGAIN_LATER, NO_ROOM_REASON)
        elif not self.handshake_complete and lies > limits.WEBSOCKET_FREE.value:
            reset(self.transport)  # it has to wait for our answer: RFC 6455 section 4.1

    def _is_late(self) -> bool:
        """Whether a message that has begun to come takes too long, as a request's body would."""
        if self._began_s < 0 or self.read_paused or self.close_sent:
            return False
        now_s = self.loop.time()
        size = len(self.conn.reader.buffer) + (self.conn.current_size or 0)
        most_s = limits.EDGE_BODY_S.value + size / limits.EDGE_RATE.value
        return (
            now_s - self._came_s >= limits.EDGE_BODY_IDLE_S.value or now_s - self._began_s >= most_s
        )

    def _give_up(self, code: CloseCode, reason: str) -> None:
        self.conn.fail(code, reason)
        self.conn.reader.discard()
        self.frames = []
        self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """Say why, and close; before the handshake is over no frame can say it."""
        if self.conn.close_sent is None:
            reset(self.transport)
        else:
            super().handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        """Queue a message that is here whole, and note what it weighs."""
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        self._began_s = _UNSET  # what came behind it begins in this moment: `data_received`
        if self.close_sent:
            return
        size = len(data)
        if self.curr_msg_data_type == "text":
            try:
                text = data.decode()
            except UnicodeDecodeError:
                self._give_up(CloseCode.INVALID_DATA, "a text message is not UTF-8")
                return
            size = sys.getsizeof(text)  # as wide as its widest character
            self.queue.put_nowait({"type": "websocket.receive", "text": text})
        else:
            self.queue.put_nowait({"type": "websocket.receive", "bytes": data})
        size += limits.WEBSOCKET_FRAME_COST.value
        self._waiting.append(size)
        self._waiting_sum += size
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    async def receive(self) -> Any:
        """Give one ASGI message; the app is done with the one before."""
        if self._with_app:
            self._with_app = 0
            self._weigh()
        was_paused = self.read_paused
        message = await super().receive()
        if message["type"] == "websocket.receive":
            self._with_app = self._waiting.popleft()
            self._waiting_sum -= self._with_app
        if was_paused and not self.read_paused:  # meanwhile it was we who waited
            self._alive_s = self.loop.time()
            if self._began_s >= 0:
                self._began_s = self._came_s = self._alive_s
        return message

    def handle_ping(self) -> None:
        """Answer; one that does not read our answers is not read either."""
        super().handle_ping()
        if not self.writable.is_set():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again, so that it may be read."""
        super().resume_writing()
        self._alive_s = self.loop.time()
        if self._outflow is not None:
            self._outflow.moved()
        if not self.read_paused:
            self.transport.resume_reading()

    def keepalive_timeout(self) -> None:
        """End a client that is gone, not one that is slow: its answer comes behind all else.

        One that sends, but no message in time, is ended by `_look`; one that does not take
        what is sent, too.
        """
        wait_s = limits.WEBSOCKET_PONG_S.value
        seen = self._alive_s >= self.loop.time() - wait_s
        if seen or self.read_paused or self.transport.get_write_buffer_size():
            self.pong_timer = self.loop.call_later(wait_s, self.keepalive_timeout)
        else:
            super().keepalive_timeout()

    def handle_cont(self, event: Frame) -> None:
        """A piece of a message; empty ones have no size, but are counted."""
        if len(self.frames) >= limits.WEBSOCKET_FRAGMENTS.value:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            self.handle_parser_exception()
        elif not self.close_sent:
            super().handle_cont(event)

    async def run_asgi(self) -> None:
        """Run the app; one that fails is told in the log, and its client as honestly as it goes."""
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:  # of any app: its client is answered below
            logger.exception("WebSocket %r failed", self.scope["raw_path"])
        self.send_500_response()
        if self.close_timer is None:
            self.transport.close()

    def send_500_response(self) -> None:
        """In the platform's envelope, where nothing was answered yet."""
        if self.handshake_complete or self._refusal is not None:
            return
        known: Any = self.scope
        body = INTERNAL.body(known.get("amba.request_id"))
        self._answer(INTERNAL.status, INTERNAL.headers(len(body)), body)

    async def send(self, message: Any) -> None:
        """Take one ASGI message; an HTTP answer leaves as the app said it."""
        kind = message["type"]
        if kind == "websocket.http.response.start" and not self.handshake_complete:
            self._refusal = (message["status"], list(message.get("headers", ())), bytearray())
        elif kind == "websocket.http.response.body" and self._refusal is not None:
            status, headers, body = self._refusal
            body += message.get("body", b"")
            if not message.get("more_body", False) and not self.handshake_complete:
                self._answer(status, headers, bytes(body))
        else:
            if kind == "websocket.accept":
                self._account = message.get("amba.account")
                if _has(message.get("headers", ()), b"date"):
                    self.default_headers = []
            await super().send(message)
            if kind == "websocket.send":
                await self.writable.wait()  # not one more before the client has taken this one

    def _answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Write a whole HTTP answer, then close."""
        if status != HTTPStatus.NOT_MODIFIED:
            headers = [field for field in headers if field[0] != b"content-length"]
        if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            body = b""  # and no word on its length: RFC 9110 section 8.6
        else:
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        if not _has(headers, b"date"):
            headers = [*self.default_headers, *headers]
        lines = [b"%b: %b\r\n" % field for field in (*headers, (b"connection", b"close"))]
        self.handshake_complete = True
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
        start = STATUS_LINE.get(status) or b"HTTP/1.1 %d \r\n" % status
        self.transport.write(b"".join((start, *lines, b"\r\n", body)))
        self.transport.close()


def _has(headers: Any, name: bytes) -> bool:
    return any(field[0] == name for field in cast(Headers, headers))


def _response(problem: Problem) -> Response:
    body = problem.body(None)
    fields = [*problem.headers(len(body)), (b"connection", b"close")]
    text = Fields([(n.decode("ascii"), v.decode("latin-1")) for n, v in fields])
    return Response(problem.status, HTTPStatus(problem.status).phrase, text, body)

"""Behind an upgrade: uvicorn's WebSocket protocol, given a head that the edge has judged.

Nothing parses that head a second time, with other limits and with silence for an answer, and
whatever refuses the handshake does so in the platform's envelope.
Source: reliability.md 2.3; RFC 6455 section 4.2; contract A.7.
"""

from __future__ import annotations

import asyncio
import logging
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
from amba_runtime.wire import Headers

logger = logging.getLogger("amba.edge")


class _Judged(ServerProtocol):
    """The server's end of a WebSocket whose request was read already."""

    def parse(self) -> Generator[None]:
        """Frames from the first byte on."""
        yield from Protocol.parse(self)

    def reject(self, status: HTTPStatus | int, text: str) -> Response:
        """A handshake that cannot be accepted: no key, for one."""
        said = text.partition("\n")[0].removesuffix(".")
        problem = replace(BAD_REQUEST, message=said) if said else BAD_REQUEST
        return _response(problem)


class EdgeSocket(WebSocketsSansIOProtocol):
    """One client connection, from its WebSocket request on. `begin` once it is connected."""

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
        self._outflow: Outflow | None = None
        self._looking: asyncio.TimerHandle | None = None

    def begin(self, target: bytes, headers: Headers, rest: bytes) -> None:
        """Take a judged request.

        Args:
            target: in origin form.
            rest: what came behind the head.
        """
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
            self._looking = self.loop.call_later(Outflow.look_s(), self._look)

    def handle_ping(self) -> None:
        """Answer; one that does not read our answers is not read either."""
        super().handle_ping()
        if not self.writable.is_set():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again, so that it may be read."""
        super().resume_writing()
        if self._outflow is not None:
            self._outflow.moved()
        if not self.read_paused:
            self.transport.resume_reading()

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
        except Exception:
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
            if kind == "websocket.accept" and _has(message.get("headers", ()), b"date"):
                self.default_headers = []
            await super().send(message)

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

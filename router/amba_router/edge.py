"""The strict front of the house: uvicorn's httptools protocol with its laxities taken out.

Refuses what two readers could understand differently, counts and sizes what a head may hold,
and drops trailers, which the parent would merge into the headers of a running request.
Source: reliability.md 0 (findings 3 and 3b), 2.3, 3.A and B1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, cast
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle
from uvicorn.server import ServerState

from amba_router.asgi import App, Scope
from amba_router.cycle import Cycle
from amba_router.heads import (
    HEAD_TOO_LARGE,
    METHODS,
    NO_SUCH_METHOD,
    TARGET_TOO_LONG,
    judge,
    judge_socket,
    origin_form,
    without_upgrade,
)
from amba_router.patience import BODY, HEAD, RESTING, PatientProtocol
from amba_router.problem import BAD_REQUEST, Problem
from amba_router.relay import Whole
from amba_runtime import limits

if TYPE_CHECKING:
    from amba_router.upgrade import EdgeSocket

Offer = Callable[[Scope, Whole, Callable[[App], None]], bool]
"""An app may take a request without a task: see `Dispatcher.offer`."""

_ASGI = {"version": "3.0", "spec_version": "2.3"}


class _Refused(Exception):
    """Stops the parser; the problem is in `EdgeProtocol._refusal`."""


class EdgeProtocol(PatientProtocol):
    """One client connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._progress = False
        self._host = b""
        self._read_bytes = 0  # since a head ended, with the piece that it ended in
        self._dropped_bytes = 0
        self._refusal: Problem | None = None
        self._closed_to_input = False
        self._socket: EdgeSocket | None = None
        self._replayed: bytes | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._half_closed: asyncio.TimerHandle | None = None
        # the newest request, and the one that is being answered: pipelined ones wait between
        self._current: Cycle | None = None
        self._running: Cycle | None = None
        loaded: Any = vars(config)["loaded_app"]
        self._app = cast(ASGI3Application, loaded)
        self._offer: Offer | None = getattr(loaded, "offer", None)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a head, a trailer or a chunk extension that never ends is refused."""
        if self._closed_to_input:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > limits.EDGE_LINGER_BYTES.value:
                self.transport.abort()
            return
        size = len(data)
        if size > limits.EDGE_SLICE.value and (
            self._stage != BODY or any(name == b"transfer-encoding" for name, _ in self.headers)
        ):
            self._feed_slices(data)
            return
        self._read_bytes += size
        self._progress = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        except httptools.HttpParserUpgrade as stop:
            if self._replayed is None:
                self._become_socket(data[int(stop.args[0]) :])
            else:
                self._read_on(self._replayed + data[int(stop.args[0]) :])
        if self._progress:
            self._unfinished_bytes = 0
            self._read_bytes = size  # the next head may have begun in this piece
            if self._stage:
                self._await_more()
            return
        self._unfinished_bytes += size
        if self._stage:
            self._await_more()
        most = limits.EDGE_SLICE.value
        if self._stage != BODY:
            most = limits.EDGE_HEAD.value + limits.EDGE_TARGET.value
        if self._unfinished_bytes > most and not self._closed_to_input:
            self._refusal = HEAD_TOO_LARGE
            self.send_400_response("")

    def _feed_slices(self, data: bytes) -> None:
        """What lies between two pieces of a body is measured, however large the reads are."""
        most = limits.EDGE_SLICE.value
        for at in range(0, len(data), most):
            if self._socket is not None:
                self._socket.data_received(data[at:])
                return
            self.data_received(data[at : at + most])

    def _read_on(self, data: bytes) -> None:
        """Ignore an upgrade to anything but WebSocket, as a server may (RFC 9110 section 7.8).

        The parser takes what follows such a head for another protocol, a body included. A new
        one is given the head again without the upgrade, and this time its events are known.

        Args:
            data: that head, and all that came behind the real one.
        """
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(data)

    def _become_socket(self, rest: bytes) -> None:
        """Hand the connection over, with the head that was judged and what came behind it."""
        self._stage = RESTING
        self._forget()
        self.connections.discard(self)
        made: Any = self.ws_protocol_class
        self._socket = cast("EdgeSocket", made(self.config, self.server_state, self.app_state))
        self._socket.begin(self.transport, origin_form(self.url), self.headers, rest)

    def on_message_begin(self) -> None:
        """A new request starts."""
        if self._replayed is not None:
            return
        self._stage = HEAD
        self.url = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        if self._replayed is not None:
            return
        self.url += url
        if len(self.url) > limits.EDGE_TARGET.value:
            self._refuse(TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; a trailer is none."""
        if self._stage == HEAD:
            name = name.lower()
            if value[-1:] in b" \t" and name != b"transfer-encoding":
                # the parser leaves blanks behind a value, and a coding with blanks is none to it
                value = value.rstrip(b" \t")
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is here: judge it whole, then start the request."""
        if self._replayed is not None:
            self._replayed = None
            return
        self._progress = True
        parser: Any = self.parser  # gone only once the connection is
        version: str = parser.get_http_version()
        judged = judge(version, self.url, self.headers, self._host, read=self._read_bytes)
        if isinstance(judged, Problem):
            self._refuse(judged)
        self._host = judged
        method: str = parser.get_method().decode("ascii")
        if method not in METHODS:
            self._refuse(NO_SUCH_METHOD)
        before = self._current
        if len(self.pipeline) >= limits.EDGE_PIPELINED.value:
            self._refuse(BAD_REQUEST)  # what waits already is answered, then the connection ends
        upgrade: bool = parser.should_upgrade()
        # an upgrade is no such thing in HTTP/1.0 (RFC 9110 section 7.8)
        if upgrade and version != "1.0" and self._should_upgrade():
            if before is not None and not before.response_complete:
                self._refuse(BAD_REQUEST)  # a WebSocket cannot start behind an answer under way
            problem = judge_socket(method, self.headers)
            if problem is not None:
                self._refuse(problem)
            return
        raw_path, mark, query = origin_form(self.url).partition(b"?")
        path = raw_path.decode("ascii")
        self._stage = BODY
        self._head_since_s = self._body_began_s = -1.0
        if upgrade:
            self._replayed = without_upgrade(method, self.headers)
        cycle = Cycle(self, keep_alive=version != "1.0" and parser.should_keep_alive())
        scope: Any = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "method": method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            # `whole` cannot wait: to a client that does not read, an answer goes by `send`
            "extensions": {} if self.flow.write_paused else {"amba.whole": cycle.whole},
        }
        if mark and not query:
            scope["amba.bare_query"] = True
        cycle.scope = self.scope = scope
        self.cycle = self._current = cycle
        if before is None or before.response_complete:
            self._running = cycle
            if (
                self._offer is None
                or self.flow.write_paused
                or not self._offer(scope, cycle.whole, cycle.promote)
            ):
                self._start_asgi_task(cycle, self._app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self._app))

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._progress = True
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is complete, except behind a head that will be read again, or a WebSocket's."""
        cycle = self._current
        if self._replayed is not None or self._stage != BODY or cycle is None:
            return
        self._stage = RESTING
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left: the parent tells the newest request, which may still be waiting."""
        for timer in (self._lingering, self._half_closed):
            if timer is not None:
                timer.cancel()
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's says None
        """The client sends no more: one that has asked for all it wants may read its answer.

        A client that left looks the same, and a guest's work must not go on for it. So only an
        answer that has not begun is waited for, and not for long.

        Returns:
            True to keep our side open.
        """
        newest, running = self._current, self._running
        if newest is None or newest.more_body or newest.response_complete or running is None:
            return False
        if running.response_started and not running.response_complete:
            return False
        newest.keep_alive = False
        self._half_closed = self.loop.call_later(limits.EDGE_HALF_CLOSED_S.value, self._left)
        return True

    def _left(self) -> None:
        running = self._running
        if running is not None and not running.response_started:
            self.transport.close()

    def resume_writing(self) -> None:
        """The client reads again: what was pipelined behind a large answer goes on."""
        super().resume_writing()
        running = self._running
        if (
            self.pipeline
            and running is not None
            and running.response_complete
            and not self.transport.is_closing()
        ):
            self._start_asgi_task(*self.pipeline.pop())

    def shutdown(self) -> None:
        """The server ends."""
        if self._lingering is not None:
            self.transport.close()
        else:
            super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # the task is kept by its cycle, which the connection keeps: no set, no callback
        ours = cast(Cycle, cycle)
        self._running = ours
        ours.task = self.loop.create_task(cycle.run_asgi(app))

    def on_response_complete(self) -> None:
        """An answer is out: start what was pipelined behind it, or begin to idle."""
        if self.transport.is_closing():
            return
        running = self._running
        if running is not None and not running.keep_alive:
            if self._closed_to_input or self._stage != RESTING:
                self._closed_to_input = True
                self._linger()  # more is coming
            else:
                self.transport.close()
            return
        if self.pipeline:
            if not self.flow.write_paused:
                self._start_asgi_task(*self.pipeline.pop())
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        self._idle_since_s = self.loop.time()

    def is_idle(self) -> bool:
        """No request is being answered."""
        cycle = self._current
        return cycle is None or cycle.response_complete

    def _is_silent(self) -> bool:
        return self._current is None and not self._unfinished_bytes

    def _waits_for_continue(self) -> bool:
        cycle = self._current
        return cycle is not None and cycle.waiting_for_100_continue

    def refuse(self, problem: Problem) -> None:
        """End the connection with a problem, unless it would be put into an answer."""
        if not self._closed_to_input:
            self._refusal = problem
            self.send_400_response("")

    def _refuse(self, problem: Problem) -> NoReturn:
        self._refusal = problem
        raise _Refused(problem.message)

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong in the platform's envelope, then close.

        Requests before the faulty one are answered, and nothing is said of it when there are
        such; a request that is being answered is cut off when the fault lies in its own body.
        """
        self._closed_to_input = True
        cycle = self._current
        if cycle is not None and not cycle.response_complete:
            if cycle.more_body and cycle is not self._running:
                self.pipeline.popleft()
                waiting = self.pipeline[0][0] if self.pipeline else self._running
                cycle = cast(Cycle, waiting)
                cycle.keep_alive = False
                return
            if not cycle.more_body:
                cycle.keep_alive = False
                return
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                cycle.break_off()
                return
        elif cycle is not None and self._stage == BODY:
            self._linger()  # the rest of a request that was answered early: one answer is enough
            return
        problem = self._refusal or BAD_REQUEST
        body = problem.body(None)
        lines = [STATUS_LINE[problem.status]]
        lines += [b"%b: %b\r\n" % field for field in problem.headers(len(body))]
        lines += [b"connection: close\r\n\r\n", body]
        self.transport.write(b"".join(lines))
        self._linger()

    def _linger(self) -> None:
        """End our side, and drop what still comes for a moment before the connection ends.

        Closing with input unread resets the connection, and a client that is still sending
        would lose the answer. Source: RFC 9112 section 9.6.
        """
        self.transport.write_eof()
        self.flow.resume_reading()
        self._lingering = self.loop.call_later(limits.EDGE_LINGER_S.value, self.transport.abort)

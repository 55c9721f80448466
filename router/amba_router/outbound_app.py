"""Our own app for `outbound`: a request from the wire becomes an ASGI call in process.

Streaming both ways: the app is asked for no more than the function takes, and takes from it no
more than it asks for. Source: architecture.md section 3; interface.md section 1; contract E.10.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from amba_router import headers as names
from amba_router.outbound_bodies import CLOSE, body_length, discard, nominated
from amba_runtime import limits
from amba_runtime.egress import Own
from amba_runtime.wire import Headers, Request, Response, WireError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
ASGIApp = Callable[
    [Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

logger = logging.getLogger("amba.egress")

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_REBUILT = (names.HOP_BY_HOP | {b"host", b"expect"}) - _FRAMING
_CLAIMS_OF_ORIGIN = (b"x-forwarded-", b"forwarded", b"x-real-ip", names.CONNECTING_IP)


def scope_of(request: Request, own: Own) -> Scope:
    """The ASGI scope of a request to ourselves; host and URL rebuilt from the decision.

    Framing headers stay (an app tells by them whether a body follows); what only a reverse proxy
    may claim about a caller goes, and so do platform headers, except on the API and AI routes.
    """
    target = own.target
    path, _, query = target.path.partition(b"?")
    dropped = _REBUILT | (nominated(request.headers) - _FRAMING)
    fields: Headers = [(b"host", target.authority.encode())]
    for name, value in request.headers:
        if name in dropped or name.startswith(_CLAIMS_OF_ORIGIN):
            continue
        if own.platform or not names.is_reserved(name):
            fields.append((name, value))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": target.scheme,
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": fields,
        "client": ("127.0.0.1", 0),
        "server": (target.host, target.port),
    }


async def call_app(
    app: ASGIApp, request: Request, scope: Scope, *, running: set[asyncio.Task[None]]
) -> Response:
    """Call an ASGI app with a request from the wire; returns when its answer has begun.

    An app that fails before that gets 500 said for it; one that fails later breaks the
    connection off. When the engine leaves, `receive` says `http.disconnect`, `send` raises
    OSError, and the app is cancelled after `limits.EGRESS_APP_LEAVE_S`.

    Args:
        running: holds the call while it runs, also after its answer; its owner cancels the rest.

    Raises:
        WireError: the call was cancelled by the owner of `running`.
    """
    call = _Call(request)
    task = asyncio.get_running_loop().create_task(call.run(app, scope))
    running.add(task)
    task.add_done_callback(running.discard)
    body = _AppBody(request, call, task)
    try:
        await asyncio.shield(call.head)
    except BaseException:
        await body.aclose()
        raise
    body.expect(call.headers)
    fields = [*call.headers, *CLOSE] if call.body_follows else call.headers
    return Response(call.status, fields, body)


class _Call:
    """One request and answer, between the wire's handler and the app's task.

    State changed by `receive`, `send` and `leave` alone. `queue` holds one chunk of the answer;
    b"" is its end, None a break.
    """

    def __init__(self, request: Request) -> None:
        loop = asyncio.get_running_loop()
        self._request = request
        self._chunks = request.chunks()
        self._reading: asyncio.Task[bytes | None] | None = None
        self.body_follows = body_length(request) != 0
        self._body_ended = False
        self._answer_bodiless = request.method == "HEAD"
        self.head: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self.complete = False
        self.status = 500
        self.headers: Headers = []

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Call the app; whatever it does, the head is set and the queue ends."""
        what = "returned before its answer was complete"
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._cancelled()
            raise
        except Exception:  # of any app: the function waits for an answer
            what = "failed"
            if not self.gone.done():
                logger.exception("our app failed: %s", self._request.method)
        if self.complete or self.gone.done():
            return
        if self.head.done():
            logger.warning("our app %s: %s", what, self._request.method)
            await self.queue.put(None)
            return
        await self.send({"type": "http.response.start", "status": 500})
        await self.send({"type": "http.response.body", "body": b"Internal Server Error"})

    def _cancelled(self) -> None:
        self.leave()
        self.queue.put_nowait(None)
        if not self.head.done():
            self.head.set_exception(WireError("the server is closing"))
            self.head.exception()  # whoever waited may be gone too: no noise

    def leave(self) -> None:
        """The engine no longer listens; a `send` that waits is let through."""
        if not self.gone.done():
            self.gone.set_result(None)
        while not self.queue.empty():
            self.queue.get_nowait()
        if self._reading is not None:
            self._reading.cancel()

    async def receive(self) -> Message:
        """ASGI: the next part of the body, then (when it comes) the disconnect."""
        if self.body_follows and not self.gone.done():
            # An app may stop waiting (wait_for) and ask again: a read outlives who asked for it.
            reading = self._reading
            if reading is None:
                reading = asyncio.get_running_loop().create_task(self._read())
                self._reading = reading
            either: set[asyncio.Future[Any]] = {reading, self.gone}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not reading.cancelled():
                data, self._reading = reading.result(), None
                if data is None:
                    self.leave()
                else:
                    self.body_follows = bool(data)
                    self._body_ended = not data
                    return {"type": "http.request", "body": data, "more_body": bool(data)}
        elif not self._body_ended and not self.gone.done():
            self._body_ended = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.shield(self.gone)
        return {"type": "http.disconnect"}

    async def _read(self) -> bytes | None:
        """The next bytes; b"" at the end, None when the function broke off."""
        try:
            return await anext(self._chunks, b"")
        except WireError:
            return None

    async def send(self, message: Message) -> None:
        """ASGI: returns when the function may be sent more. Raises OSError when it is gone."""
        if self._answer_bodiless:
            await asyncio.sleep(0)  # what it says beyond the head is taken and dropped
        elif self.gone.done():
            raise OSError("the function that asked is gone")
        if message["type"] == "http.response.start" and not self.head.done():
            self.status = message["status"]
            self.headers = [
                (name.lower(), value)
                for name, value in message.get("headers", ())
                if name.lower() not in names.HOP_BY_HOP
            ]
            self.head.set_result(None)
        elif message["type"] == "http.response.body" and not self.complete:
            body = message.get("body", b"")
            self.complete = not message.get("more_body", False)
            if self._answer_bodiless:
                return
            if body:
                await self.queue.put(bytes(body))
            if self.complete:
                await self.queue.put(b"")


class _AppBody(AsyncIterator[bytes]):
    """The app's answer, chunk by chunk; at most two are held. `aclose` is idempotent."""

    def __init__(self, request: Request, call: _Call, task: asyncio.Task[None]) -> None:
        self._request = request
        self._call = call
        self._task = task
        self._left: int | None = None

    def expect(self, fields: Headers) -> None:
        """Hold the app to the length it declared: the wire is framed by it."""
        declared = dict(fields).get(b"content-length")
        self._left = None if declared is None else int(declared)

    async def __anext__(self) -> bytes:
        data = await self._call.queue.get()
        if data is None:
            raise WireError("our app broke its answer off")
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0 or (self._left and not data):
                raise WireError("our app's answer has not the length it declared")
        if not data:
            raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        """The answer is over, or no longer wanted: an app that is not done is given notice."""
        call = self._call
        over = call.complete and call.queue.empty()
        call.leave()
        if over:  # what an app does after its answer takes its own time
            await discard(self._request)
            return
        await asyncio.wait({self._task}, timeout=limits.EGRESS_APP_LEAVE_S.value)
        self._task.cancel()
        await asyncio.wait({self._task})

"""An engine without JavaScript, shipped for tests of everything above the seam.

A "bundle" is a Python callable, found by the function's name. It passes the seam's contract
suite wherever that asks nothing of JavaScript.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from amba_runtime.engine.base import Description, QueueMessage, Refused, StartFailed, Surroundings
from amba_runtime.manifest import Bundle, Manifest
from amba_runtime.outcome import Ended, Event, GuestException, Outcome, Tell
from amba_runtime.sandbox import Sandbox
from amba_runtime.wire import Headers, NothingSentError, WireError, parse_lines


@dataclass(slots=True)
class FakeRequest:
    """What a fake guest sees of a dispatched request."""

    method: str
    target: str
    headers: Headers
    body: AsyncIterator[bytes]

    def header(self, name: str) -> str | None:
        """The first value of a lower-case name, or None."""
        wanted = name.encode()
        return next((v.decode("latin-1") for n, v in self.headers if n == wanted), None)

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([data async for data in self.body])


@dataclass(slots=True)
class FakeResponse:
    """What a fake guest answers; an iterator is streamed."""

    status: int = 200
    headers: Headers = field(default_factory=lambda: Headers())
    body: bytes | AsyncIterator[bytes] = b""
    tell: Tell | None = None


FakeHandler = Callable[[FakeRequest], Awaitable[FakeResponse]]


class FakeExchange:
    """One request to a fake guest: an `Exchange` made of queues."""

    def __init__(self, isolate: FakeIsolate) -> None:
        self.status = 0
        self.headers: Headers = []
        self._isolate = isolate
        self._loop = asyncio.get_running_loop()
        self._head: asyncio.Future[None] = self._loop.create_future()
        self._in: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._out: asyncio.Queue[bytes | None] = asyncio.Queue(64)
        self._task: asyncio.Task[None] | None = None
        self._whole: bytes | None = None
        self._begun: Callable[[], None] | None = None
        self._broken = False
        self._cut = False

    @property
    def complete(self) -> bool:
        """The whole body is at hand."""
        return self._whole is not None

    def begin(self, method: bytes, target: bytes, headers: bytes, length: int | None) -> None:
        """Start the guest."""
        if not self._isolate.alive:
            self._head.set_exception(NothingSentError("the fake engine was stopped"))
            return
        fields = parse_lines(headers)
        request = FakeRequest(method.decode(), target.decode("latin-1"), fields, self._body())
        if length == 0:
            self._in.put_nowait(None)
        self._isolate.exchanges.add(self)
        self._task = self._loop.create_task(self._run(request))

    async def _body(self) -> AsyncIterator[bytes]:
        while (data := await self._in.get()) is not None:
            yield data
        if self._cut:
            raise WireError("the request body broke off")

    async def _run(self, request: FakeRequest) -> None:
        try:
            response = await self._isolate.handler(request)
        except Exception as error:  # a guest may throw anything
            tell = Tell(threw=True)
            tell.exceptions.append(_exception(error))
            self.headers = [(self._isolate.tell_header, _text(tell))]
            self._answer(500, b"")
            return
        self.headers = list(response.headers)
        if response.tell is not None:
            self.headers.append((self._isolate.tell_header, _text(response.tell)))
        if isinstance(response.body, bytes):
            if not any(n == b"content-length" for n, _ in self.headers):
                self.headers.append((b"content-length", b"%d" % len(response.body)))
            self._answer(response.status, b"" if request.method == "HEAD" else response.body)
            return
        self.status = response.status
        self._head.set_result(None)
        try:
            async for data in response.body:
                await self._out.put(data)
        except Exception:  # a guest may throw anything
            self._broken = True
        await self._out.put(None)

    def _answer(self, status: int, body: bytes) -> None:
        self.status = status
        self._whole = body
        if not self._head.done():
            self._head.set_result(None)

    def write(self, data: bytes) -> None:
        """Body bytes for the guest."""
        if data:
            self._in.put_nowait(data)

    def end(self) -> None:
        """The body is complete."""
        self._in.put_nowait(None)

    def cut(self) -> None:
        """The body broke off: the guest's next read fails."""
        self._cut = True
        self._in.put_nowait(None)

    async def drain(self) -> None:
        """Let the guest run; what it has not read yet is kept."""
        await asyncio.sleep(0)

    def notify(self, begun: Callable[[], None] | None) -> None:
        """Call `begun` when the answer has begun or failed; None takes that back."""
        self._begun = begun
        if begun is not None:
            self._head.add_done_callback(lambda _: self._tell_begun())

    def _tell_begun(self) -> None:
        begun, self._begun = self._begun, None
        if begun is not None:
            begun()

    def head(self) -> asyncio.Future[None]:
        """Done when status and headers are there."""
        return self._head

    def take(self) -> bytes:
        """What is here now."""
        if self._whole is not None:
            data, self._whole = self._whole, b""
            return data
        return b""

    async def read(self) -> bytes:
        """The next bytes; b"" at the end."""
        if self._whole is not None:
            return self.take()
        data = await self._out.get()
        if data is None and self._broken:
            raise WireError("the fake guest broke off")
        return data or b""

    def release(self) -> None:
        """Done with it."""
        self._isolate.exchanges.discard(self)

    def abort(self, reason: str = "the exchange was aborted") -> None:
        """End the guest's work."""
        self._isolate.exchanges.discard(self)
        self._broken = True
        if self._task is not None:
            self._task.cancel()
        if not self._head.done():
            self._head.set_exception(WireError(reason))
            self._head.exception()
        while not self._out.empty():
            self._out.get_nowait()
        self._out.put_nowait(None)


class FakeIsolate:
    """One fake guest. `crash` ends it as an engine process would end."""

    def __init__(self, handler: FakeHandler, surroundings: Surroundings) -> None:
        self.handler = handler
        self.exchanges: set[FakeExchange] = set()
        self.tell_header = surroundings.tell_header
        self.env: dict[str, str] = {}
        self.waiting = 0
        self.cpu_used_s: float | None = None
        self.memory_held: int | None = None
        self.free = asyncio.Event()
        self.free.set()
        self._surroundings = surroundings
        self._alive = True

    @property
    def alive(self) -> bool:
        """Not closed, not crashed."""
        return self._alive

    async def describe(self) -> Description:
        """Always a fetch handler."""
        return Description(("fetch",), "object", Tell())

    def idle(self) -> FakeExchange | None:
        """A new one, as if it had been kept; None once it has ended."""
        return FakeExchange(self) if self._alive else None

    async def exchange(self, *, fresh: bool = False) -> FakeExchange:
        """A new one each time."""
        if not self._alive:
            raise WireError("the fake engine was stopped")
        return FakeExchange(self)

    async def socket(self, target: bytes, headers: Headers, subprotocols: Sequence[str]) -> Any:
        """No WebSockets: every request for one is refused as a guest would refuse it."""
        raise Refused(426, [(b"content-type", b"text/plain")], b"no WebSockets here")

    async def scheduled(
        self, *, cron: str, scheduled_time_ms: int, tell: Tell | None = None
    ) -> Event:
        """Ends well, and does nothing."""
        return Event(Outcome.OK, tell or Tell(), {"outcome": "ok", "noRetry": False})

    async def queue(
        self, *, queue: str, messages: Sequence[QueueMessage], tell: Tell | None = None
    ) -> Event:
        """Ends well, and does nothing."""
        return Event(Outcome.OK, tell or Tell(), {"outcome": "ok", "ackAll": False})

    async def configure(self, values: Mapping[str, str]) -> None:
        """Kept in `env`, for tests to read."""
        if not self._alive:
            raise WireError("the fake engine was stopped")
        self.env.update(values)

    async def pending(self) -> int:
        """As many as a test says."""
        return self.waiting

    def late(self, request_id: str, tell: Tell) -> None:
        """Say something after the answer."""
        self._surroundings.tell(request_id, tell)

    def cpu_s(self) -> float | None:
        """As much as a test says."""
        return self.cpu_used_s

    def memory_bytes(self) -> int | None:
        """As much as a test says."""
        return self.memory_held

    async def ping(self) -> None:
        """Returns while `free` is set, as a test says."""
        await self.free.wait()

    def crash(self, reason: str = "the fake engine crashed") -> None:
        """End unasked: exchanges under way break off, and whoever is responsible is told."""
        self.kill(Ended(Outcome.INTERNAL_ERROR, reason))

    def kill(self, ended: Ended) -> None:
        """The same, for the reason given."""
        if self._alive:
            self._alive = False
            for exchange in list(self.exchanges):
                exchange.abort(ended.reason)
            self._surroundings.died(ended)

    async def close(self) -> None:
        """Idempotent."""
        self._alive = False
        for exchange in list(self.exchanges):
            exchange.abort("the fake engine was stopped")


class FakeEngine:
    """Runs Python callables.

    Args:
        handlers: by function name; a name that is missing fails to start.
    """

    name = "fake"

    def __init__(self, handlers: Mapping[str, FakeHandler]) -> None:
        self.handlers = dict(handlers)
        self.isolates: list[FakeIsolate] = []
        self.sandbox = Sandbox()
        self.memory_note = ""

    async def open(self) -> None:
        """Nothing to do."""

    async def start(
        self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
    ) -> FakeIsolate:
        """A new fake isolate. Raises StartFailed for a name without a callable."""
        handler = self.handlers.get(manifest.name)
        if handler is None:
            raise StartFailed(f"Uncaught Error: no fake handler for {manifest.name}")
        isolate = FakeIsolate(handler, surroundings)
        self.isolates.append(isolate)
        return isolate

    async def close(self) -> None:
        """Close every isolate. Idempotent."""
        for isolate in self.isolates:
            await isolate.close()


def _exception(error: Exception) -> GuestException:
    return GuestException(type(error).__name__, str(error), "", 0)


def _text(tell: Tell) -> bytes:
    return json.dumps(
        {
            "l": [[line.level, line.timestamp_ms, line.message] for line in tell.logs],
            "e": [[e.name, e.message, e.stack, e.timestamp_ms] for e in tell.exceptions],
            "o": "exception" if tell.threw else "ok",
        }
    ).encode()

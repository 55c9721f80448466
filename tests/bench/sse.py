"""Fan-out: many clients, each reading its own server-sent events, and how late these arrive."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import httptools
from tests.bench.model import Plan, Target
from tests.bench.stats import percentile

CONNECTS_AT_ONCE = 50
EXTRA_S = 30.0
"""Over the time that the events themselves take."""


@dataclass(frozen=True, slots=True)
class FanOut:
    """What the clients saw together.

    Attributes:
        per_s: events received a second, from the first connect to the last event.
        failed: clients that did not get every event.
    """

    per_s: float
    late_p50_ms: float
    late_p99_ms: float
    all_connected_s: float
    failed: int


class _Reader(asyncio.Protocol):
    """One client; the server closes at the end of the stream."""

    def __init__(self, request: bytes, late_ms: list[float]) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self.first_at = 0.0
        self.events = 0
        self._request = request
        self._late_ms = late_ms
        self._rest = b""
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()  # it counts as failed: events are missing

    def on_body(self, body: bytes) -> None:
        """A piece of the stream, which may end within an event."""
        now_ms = time.time() * 1000
        lines = (self._rest + body).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(b"data: "):
                self._late_ms.append(now_ms - float(line[6:]))
                self.events += 1
                self.first_at = self.first_at or time.perf_counter()

    def on_message_complete(self) -> None:
        """The stream has ended, whether or not the server closes."""
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()


async def fan_out(target: Target, plan: Plan) -> FanOut:
    """Connect all clients, read all events. Ends by itself after a bounded time."""
    loop = asyncio.get_running_loop()
    query = f"?events={plan.sse_events}&every_ms={plan.sse_every_ms}"
    request = target.head("GET", query=query, fields="Connection: close\r\n")
    late_ms: list[float] = []
    readers: list[_Reader] = []
    turn = asyncio.Semaphore(CONNECTS_AT_ONCE)

    async def connect() -> None:
        async with turn:
            reader = _Reader(request, late_ms)
            readers.append(reader)
            try:
                await loop.create_connection(lambda: reader, "127.0.0.1", target.port)
            except OSError:
                reader.done.set_result(None)  # it counts as failed: it has no events

    began = time.perf_counter()
    await asyncio.gather(*(connect() for _ in range(plan.sse_clients)))
    bound_s = plan.sse_events * plan.sse_every_ms / 1000 + EXTRA_S
    await asyncio.wait([reader.done for reader in readers], timeout=bound_s)
    seconds = time.perf_counter() - began
    for reader in readers:
        reader.abort()
    await asyncio.sleep(0)
    return FanOut(
        per_s=len(late_ms) / seconds,
        late_p50_ms=percentile(late_ms or [0.0], 50),
        late_p99_ms=percentile(late_ms or [0.0], 99),
        all_connected_s=max(reader.first_at for reader in readers) - began,
        failed=sum(reader.events != plan.sse_events for reader in readers),
    )

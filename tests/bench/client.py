"""Our own light HTTP client: load where there is no wrk, streams, and the load of the storm.

Bare asyncio protocols and sockets, llhttp to find the ends of answers; bodies are not kept.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httptools
from tests.bench.model import MIB, BenchError, LoadResult, Target
from tests.bench.stats import percentile

ANSWER_S = 10.0
"""How long one answer of a load may take; wrk is told the same."""


class _Answers(asyncio.Protocol):
    """One keep-alive connection of a closed loop: the next request goes when an answer is whole."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._began = 0.0
        self._waiting = False
        self._body = bytearray()
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._load.opened(self)
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        if self._load.over:
            self._transport.close()
            return
        self._body.clear()
        self._began = time.perf_counter()
        self._waiting = True
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._waiting = False
            self._load.fail(f"not HTTP: {error}")
            self.abort()

    def on_body(self, body: bytes) -> None:
        """A piece of the answer; the first 64 bytes are kept for the load's `check`."""
        if len(self._body) < 64:
            self._body += body[: 64 - len(self._body)]

    def on_message_complete(self) -> None:
        """The answer is whole."""
        assert self._transport is not None
        status = self._parser.get_status_code()
        if status < 200:
            return  # 100 Continue and its like
        self._waiting = False
        self._load.answered(status, bytes(self._body), time.perf_counter() - self._began)
        if self._parser.should_keep_alive():
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting:
            self._waiting = False
            self._load.fail(f"connection lost before the answer was whole: {exc or 'end of file'}")
        self._load.lost(self)

    def overdue(self, now: float) -> bool:
        """An answer is awaited for too long."""
        return self._waiting and now - self._began > ANSWER_S

    def abort(self) -> None:
        """Close at once; an answer that is still awaited counts as failed."""
        if self._transport is not None:
            self._transport.abort()


@dataclass(slots=True, eq=False)
class Load:
    """A closed loop of some connections against one target, until `over`.

    Attributes:
        request: the bytes of one whole request.
        check: says of a 200's first 64 body bytes whether it is good.
        reasons: the failures in words, each with how often it came; ten kinds at most.
    """

    target: Target
    request: bytes
    check: Callable[[bytes], bool]
    over: bool = False
    errors: int = 0
    times_s: list[float] = field(default_factory=list[float])
    reasons: Counter[str] = field(default_factory=Counter[str])
    _open: set[_Answers] = field(default_factory=set[_Answers])
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def run(self, connections: int, until: Callable[[], bool]) -> LoadResult:
        """Load until `until()`, looked at every 20 ms; answers that are under way are awaited."""
        began = time.perf_counter()
        for _ in range(connections):
            self._connect_soon()
        while not until():
            await asyncio.sleep(0.02)
            now = time.perf_counter()
            for connection in [each for each in self._open if each.overdue(now)]:
                connection.abort()
        seconds = time.perf_counter() - began
        self.over = True
        deadline = time.perf_counter() + ANSWER_S
        # two sets, emptied by callbacks of protocols and tasks: looking is simpler than an event
        while (self._open or self._tasks) and time.perf_counter() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for connection in list(self._open):
            connection.abort()
        await asyncio.sleep(0)
        ms = [value * 1000 for value in self.times_s] or [0.0]
        return LoadResult(
            len(self.times_s), seconds, self.errors, percentile(ms, 50), percentile(ms, 99)
        )

    def answered(self, status: int, body: bytes, seconds: float) -> None:
        """Called by a connection for each whole answer."""
        if status == 200 and self.check(body):
            self.times_s.append(seconds)
        else:
            self.fail(f"status {status}, body {body!r}")

    def fail(self, reason: str) -> None:
        """Count one failed request."""
        self.errors += 1
        if reason in self.reasons or len(self.reasons) < 10:
            self.reasons[reason] += 1

    def opened(self, connection: _Answers) -> None:
        """Called by a connection when it is one."""
        self._open.add(connection)

    def lost(self, connection: _Answers) -> None:
        """Called by a connection at its end: another takes its place."""
        self._open.discard(connection)
        if not self.over:
            self._connect_soon()

    def _connect_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        while not self.over:
            try:
                await self._open_one()
            except OSError as error:
                self.fail(f"cannot connect: {error}")
                await asyncio.sleep(0.05)
            else:
                return

    async def _open_one(self) -> None:
        connection = _Answers(self)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: connection, "127.0.0.1", self.target.port)


def run_load(target: Target, *, connections: int, seconds: float, request: bytes) -> LoadResult:
    """One measurement, as `run_wrk` makes it."""

    async def go() -> LoadResult:
        end = time.perf_counter() + seconds
        load = Load(target, request, check=lambda _: True)
        return await load.run(connections, lambda: time.perf_counter() > end)

    return asyncio.run(go())


async def upload(target: Target, size: int, *, timeout_s: float) -> float:
    """Send `size` bytes as one POST; return the seconds until the whole answer was there.

    Raises:
        BenchError: anything but a 200 that says `size`.
    """
    loop = asyncio.get_running_loop()
    block = memoryview(bytes(MIB))
    began = time.perf_counter()
    try:
        async with asyncio.timeout(timeout_s):
            with await _connect_socket(target) as sock:
                head = target.head("POST", fields=f"Content-Length: {size}\r\n{_CLOSE}")
                await loop.sock_sendall(sock, head)
                left = size
                while left > 0:
                    await loop.sock_sendall(sock, block[:left])
                    left -= min(left, len(block))
                status, body = await _read_answer(sock)
    except (OSError, TimeoutError, httptools.HttpParserError) as error:
        raise BenchError(f"upload of {size} bytes broke off: {error!r}") from error
    if status != 200 or body != str(size).encode():
        raise BenchError(f"upload of {size} bytes was answered: {status} {body[:500]!r}")
    return time.perf_counter() - began


async def download(target: Target, query: str, *, timeout_s: float) -> int:
    """Read one answer to its end and throw it away; return how many bytes came, framing included.

    Raises:
        BenchError: it was not a 200, or broke off in time or by error.
    """
    loop = asyncio.get_running_loop()
    buffer = bytearray(MIB // 4)
    total = 0
    try:
        async with asyncio.timeout(timeout_s):
            with await _connect_socket(target) as sock:
                await loop.sock_sendall(sock, target.head("GET", query=query, fields=_CLOSE))
                while got := await loop.sock_recv_into(sock, buffer):
                    if total == 0 and not buffer.startswith(b"HTTP/1.1 200"):
                        raise BenchError(f"download was answered: {bytes(buffer[:500])!r}")
                    total += got
    except (OSError, TimeoutError) as error:
        raise BenchError(f"download broke off after {total} bytes: {error!r}") from error
    return total


_CLOSE = "Connection: close\r\n"


async def _connect_socket(target: Target) -> socket.socket:
    sock = socket.socket()
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", target.port))
    except BaseException:
        sock.close()
        raise
    return sock


class _WholeAnswer:
    """Collects one small answer."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.body = b""
        self.status = 0

    def on_body(self, body: bytes) -> None:
        """A piece of it; an answer that is not small is cut."""
        self.body = (self.body + body)[: 64 * 1024]

    def on_message_complete(self) -> None:
        """It is whole, unless it was a 100 Continue or its like."""
        if self.parser.get_status_code() >= 200:
            self.status = self.parser.get_status_code()


async def _read_answer(sock: socket.socket) -> tuple[int, bytes]:
    """Status and body; the server need not close. OSError when it ends before that."""
    answer = _WholeAnswer()
    while not answer.status:
        piece = await asyncio.get_running_loop().sock_recv(sock, 65536)
        if not piece:
            raise ConnectionError("the connection ended before the answer was whole")
        answer.parser.feed_data(piece)
    return answer.status, answer.body

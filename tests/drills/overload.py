"""Row 8 (K1, K2): more than a function can answer, and one hot project among twenty.

Open loop: requests go out when they are due, however many have not been answered.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Self

from tests.drills.figures import Figure, at_least, at_most, quantile
from tests.drills.nodes import DrillError, NodeProcess, ask, create_project, deploy

CONNECTIONS_MAX = 900
GRACE_S = 12.0
"""After the last request is due; a queue holds one for 5 s at most."""
REFUSED = (429, 503)

BURN_MS = 5
BURN = f"""
let sink = 0;
export default {{ async fetch() {{
  for (let i = 0; i < ROUNDS; i++) sink = (sink + i * i) % 1000003;
  return new Response("done");
}} }};
// about {BURN_MS} ms of one core; ROUNDS is set when it is deployed
"""
NAP_MS = 20
NAP = f"""
export default {{ async fetch() {{
  await new Promise((done) => setTimeout(done, {NAP_MS}));
  return new Response("rested");
}} }};
"""
HOT_AT_ONCE = 2
QUIET = 19


@dataclass(frozen=True, slots=True)
class Shot:
    """One request: its status (0 for none), how long it took, whether a time to return was told."""

    status: int
    took_s: float
    retry_after: bool


class _Connection(asyncio.Protocol):
    """One kept connection; `ask` once at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bool]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """It broke; so does what was asked."""
        self.transport = None
        self._settle((0, False))

    def _settle(self, value: tuple[int, bool]) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(value)

    def data_received(self, data: bytes) -> None:
        """Whole answers only: each has a Content-Length."""
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        head = head.lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) >= length:
            self._buffer = b""
            status = int(head[9:12])
            if b"connection: close" in head and self.transport is not None:
                self.transport.close()
            self._settle((status, b"retry-after:" in head))

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bool]]:
        """Send a request; status and whether it may be repeated soon."""
        assert self.transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer


class Gun:
    """Sends requests to one path at a steady rate, whatever comes back. `async with`."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        self._idle: deque[_Connection] = deque()
        self._all: list[_Connection] = []
        self.shots: list[Shot] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._all:
            if connection.transport is not None:
                connection.transport.close()

    async def fire(self, rate: float, seconds: float) -> list[Shot]:
        """So many a second, evenly; returns when all are answered, or will not be."""
        self.shots = []
        began = monotonic()
        tasks: set[asyncio.Task[None]] = set()
        for n in range(int(rate * seconds)):
            wait_s = began + n / rate - monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            task = asyncio.create_task(self._one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=GRACE_S)
            for task in late:
                task.cancel()
            self.shots += [Shot(0, GRACE_S, retry_after=False)] * len(late)
        return self.shots

    async def loop(self, connections: int, seconds: float) -> list[Shot]:
        """Closed loop: so many at once, each asking again when it was answered."""
        self.shots = []
        until = monotonic() + seconds

        async def again() -> None:
            while monotonic() < until:
                await self._one()

        await asyncio.gather(*[again() for _ in range(connections)])
        return self.shots

    async def _one(self) -> None:
        connection = await self._connection()
        began = monotonic()
        status, retry_after = (0, False)
        if connection is not None:
            status, retry_after = await connection.ask(self._request)
            if connection.transport is not None and not connection.transport.is_closing():
                self._idle.append(connection)
        self.shots.append(Shot(status, monotonic() - began, retry_after))

    async def _connection(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        self._all = [c for c in self._all if c.transport is not None]
        if len(self._all) >= CONNECTIONS_MAX:
            return None  # counts as an error: the client is what is full
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(_Connection, "127.0.0.1", self._port)
        except OSError:
            return None
        self._all.append(connection)
        return connection


@dataclass(frozen=True, slots=True)
class Load:
    """What came of requests over so many seconds."""

    offered: float
    goodput: float
    refused: int
    errors: int
    no_retry_after: int
    p99_good_s: float
    p99_refused_s: float

    @classmethod
    def of(cls, shots: list[Shot], *, rate: float, seconds: float) -> Load:
        """Count."""
        good = [s.took_s for s in shots if s.status == 200]
        refused = [s for s in shots if s.status in REFUSED]
        return cls(
            rate,
            len(good) / seconds,
            len(refused),
            len(shots) - len(good) - len(refused),
            sum(not s.retry_after for s in refused),
            quantile(good, 0.99) if good else 0.0,
            quantile([s.took_s for s in refused], 0.99) if refused else 0.0,
        )


def overload(
    node: NodeProcess, *, seconds: float, steps: tuple[float, ...]
) -> tuple[Load, list[Load]]:
    """K1: the peak of a function that computes, then an open loop at multiples of it."""
    project, slug = create_project(node, "overload-drill")
    path = f"/fn/{slug}/burn"
    rounds = _rounds(node, project, slug)
    deploy(node.api(project), "burn", BURN.replace("ROUNDS", str(rounds)))

    async def measure() -> tuple[Load, list[Load]]:
        async with Gun(node.port, path) as gun:
            await gun.loop(8, min(2.0, seconds))  # warm
            peak = Load.of(await gun.loop(16, seconds), rate=0, seconds=seconds)
            loads: list[Load] = []
            for step in steps:
                rate = peak.goodput * step
                loads.append(Load.of(await gun.fire(rate, seconds), rate=rate, seconds=seconds))
            return peak, loads

    return asyncio.run(measure())


def _rounds(node: NodeProcess, project: str, slug: str) -> int:
    """How often to go round for BURN_MS of this machine."""
    rounds = 1_000_000
    deploy(node.api(project), "burn", BURN.replace("ROUNDS", str(rounds)))
    best = 1e9
    for _ in range(5):
        began = monotonic()
        answer = ask(node.port, f"/fn/{slug}/burn")
        if answer.status != 200:
            raise DrillError(f"the function does not answer: {answer}")
        best = min(best, monotonic() - began)
    return max(1000, int(rounds * BURN_MS / 1000 / best))


def crowd(node: NodeProcess, *, seconds: float, rate: float = 1.0) -> tuple[Load, Load, Load]:
    """K2: twenty projects, one of them asked ten times what it can answer.

    Args:
        rate: requests a second to each quiet one.

    Returns:
        The quiet ones alone, the quiet ones beside the hot one, and the hot one.
    """
    hot_rate = 10 * HOT_AT_ONCE * 1000 / NAP_MS
    project, slug = create_project(node, "hot-drill")
    deploy(node.api(project), "nap", NAP, {"concurrency": HOT_AT_ONCE})
    hot = f"/fn/{slug}/nap"
    quiet: list[str] = []
    for n in range(QUIET):
        project, slug = create_project(node, f"quiet-drill-{n}")
        deploy(node.api(project), "nap", NAP)
        quiet.append(f"/fn/{slug}/nap")

    async def ask_quiet() -> Load:
        guns = [Gun(node.port, path) for path in quiet]

        async def one(n: int, gun: Gun) -> list[Shot]:
            await asyncio.sleep(n / QUIET / rate)  # spread over the second
            async with gun:
                return await gun.fire(rate, seconds)

        shots = await asyncio.gather(*[one(n, gun) for n, gun in enumerate(guns)])
        every = [shot for some in shots for shot in some]
        return Load.of(every, rate=rate * QUIET, seconds=seconds)

    async def measure() -> tuple[Load, Load, Load]:
        await ask_quiet()  # warm
        alone = await ask_quiet()
        async with Gun(node.port, hot) as gun:
            firing = asyncio.create_task(gun.fire(hot_rate, seconds + 2))
            await asyncio.sleep(1)
            beside = await ask_quiet()
            shots = await firing
        return alone, beside, Load.of(shots, rate=hot_rate, seconds=seconds + 2)

    return asyncio.run(measure())


def run(folder: Path, *, seconds: float = 20.0) -> list[Figure]:
    """Both, each on a node of its own."""
    with NodeProcess(folder / "overload") as node:
        peak, loads = overload(node, seconds=seconds, steps=(0.5, 1.0, 2.0, 5.0))
    with NodeProcess(folder / "crowd") as node:
        alone, beside, hot = crowd(node, seconds=seconds)
    worst = loads[-1]
    figures = [Figure("8", "peak of a function of 5 ms CPU", f"{peak.goodput:.0f}/s")]
    figures += [
        Figure(
            "8",
            f"at {load.offered:.0f}/s",
            f"{load.goodput:.0f}/s good, {load.refused} refused, "
            f"p99 {load.p99_good_s * 1000:.0f} ms",
        )
        for load in loads
    ]
    longer = worst.p99_good_s / loads[1].p99_good_s if loads[1].p99_good_s else 0.0
    ratio = beside.p99_good_s / alone.p99_good_s if alone.p99_good_s else 0.0
    return [
        *figures,
        at_least(
            "8", "goodput at 5x against peak", round(worst.goodput / peak.goodput, 3), 0.8, "x"
        ),
        at_most("8", "a refusal at 5x, p99", round(worst.p99_refused_s * 1000, 1), 50, " ms"),
        at_most("8", "p99 of the answered, 5x against 1x", round(longer, 2), 3, "x"),
        at_most("8", "neither answered nor refused", sum(x.errors for x in loads), 0),
        at_most("8", "refusals without Retry-After", sum(x.no_retry_after for x in loads), 0),
        Figure("8", f"hot project at {hot.offered:.0f}/s", f"{hot.goodput:.0f}/s good"),
        at_most("8", "errors of 19 quiet projects", beside.errors + beside.refused, 0),
        at_most("8", "their p99 beside the hot one against alone", round(ratio, 2), 2, "x"),
    ]

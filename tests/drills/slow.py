"""Row 7: clients that say nothing, drip, or do not read, beside good traffic (A7).

On a node, against two functions; the good traffic is a third one's. An attacked function has as
many slow clients as its concurrency, and the others are told to come again. All on loopback, the
slow clients in a process of their own, so that their work does not lie in what the good ones
wait; ends by itself within three minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import re
import socket
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import psutil
from tests.drills.figures import Figure, at_most, quantile
from tests.run.noding import NodeProcess

from amba_runtime import limits

MIB = 1024 * 1024
GOOD = 'export default { fetch: () => new Response("good\\n") };'
BODY = "export default { fetch: async (r) => new Response(await r.text()) };"
LARGE = """
const piece = new Uint8Array(65536);
export default {
  fetch() {
    const pull = (controller) => controller.enqueue(piece);
    return new Response(new ReadableStream({ pull }, { highWaterMark: 0 }));
  },
};
"""
CLIENTS = 300
RATE = 20
QUIET_S = 10.0
LONG_QUIET_S = 60.0
"""As long as an attack: rare moments of the machine's own lie in both alike."""
KINDS = ("silent", "head drip", "body drip", "slow reader")
MOST_S = {
    "silent": limits.EDGE_HEAD_S.value,
    "head drip": limits.EDGE_HEAD_S.value,
    "body drip": limits.EDGE_BODY_S.value,
    "slow reader": limits.EDGE_WRITE_IDLE_S.value,
}
"""Seconds after which the server has ended such a client."""
STATUSES = {
    "silent": frozenset({0}),
    "head drip": frozenset({408}),
    "body drip": frozenset({408, 429, 503}),
    "slow reader": frozenset({0, 200, 429, 503}),
}
"""What it may have been told; 0 is nothing."""
_PATIENCE_S = 30.0


@dataclass(slots=True)
class Found:
    """What an attack came to.

    Attributes:
        ended: kind to (seconds the longest lived, statuses they were told).
        faults: good requests that were not answered 200.
    """

    quiet_p99_s: float = 0.0
    p99_s: float = 0.0
    grown_bytes: int = 0
    faults: int = 0
    ended: dict[str, tuple[float, frozenset[int]]] = field(
        default_factory=dict[str, tuple[float, frozenset[int]]]
    )


def attack(
    port: int,
    pid: int,
    clients: int,
    *,
    good: str,
    body: str,
    large: str,
    quiet_s: float = QUIET_S,
) -> Found:
    """So many of each kind at once, good traffic before and during.

    Args:
        good: path of the function that is to be spared.
        body: of one that reads its body and answers.
        large: of one whose answer is too large for all buffers on its way.
        quiet_s: of good traffic alone, beforehand.
    """
    paths = {"silent": good, "head drip": good, "body drip": body, "slow reader": large}
    # a fork of this process would hold its sockets
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as elsewhere:
        elsewhere.submit(int).result()  # it has started before anything is measured
        return asyncio.run(_attack(elsewhere, port, pid, clients, good, paths, quiet_s))


def crowd(
    port: int, clients: int, paths: dict[str, str]
) -> dict[str, tuple[float, frozenset[int]]]:
    """`Found.ended` of so many slow clients of each kind at once."""
    return asyncio.run(_crowd(port, clients, paths))


async def _crowd(
    port: int, clients: int, paths: dict[str, str]
) -> dict[str, tuple[float, frozenset[int]]]:
    kinds = [
        asyncio.gather(
            # strangers' clocks are not set to one another: they begin over a second
            *(_client(port, paths[kind], kind, after_s=n / clients) for n in range(clients))
        )
        for kind in KINDS
    ]
    ended: dict[str, tuple[float, frozenset[int]]] = {}
    for kind, waiting in zip(KINDS, kinds, strict=True):
        lives = await waiting
        ended[kind] = (max(s for s, _ in lives), frozenset(status for _, status in lives))
    return ended


async def _attack(
    elsewhere: ProcessPoolExecutor,
    port: int,
    pid: int,
    clients: int,
    path: str,
    paths: dict[str, str],
    quiet_s: float,
) -> Found:
    found = Found()
    process = psutil.Process(pid)
    quiet: list[float] = []
    await _good(port, path, asyncio.Event(), [], found, seconds=2)
    await _good(port, path, asyncio.Event(), quiet, found, seconds=quiet_s)
    found.quiet_p99_s = quantile(quiet, 0.99)
    for other in set(paths.values()):  # what a first request costs is no slow client's doing
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {other} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        await reader.read(2**16)
        writer.close()
    before = process.memory_info().rss
    done = asyncio.Event()
    during: list[float] = []
    peak = [before]

    async def weigh() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], process.memory_info().rss)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), 0.5)

    async with asyncio.TaskGroup() as group:
        group.create_task(weigh())
        good = group.create_task(_good(port, path, done, during, found))
        loop = asyncio.get_running_loop()
        found.ended = await loop.run_in_executor(elsewhere, crowd, port, clients, paths)
        done.set()
        await good
    found.p99_s = quantile(during, 0.99)
    found.grown_bytes = peak[0] - before
    return found


async def _good(
    port: int,
    path: str,
    done: asyncio.Event,
    took: list[float],
    found: Found,
    *,
    seconds: float = 600.0,
) -> None:
    """Good requests at a constant rate, each on a connection of its own, open loop."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
    end = monotonic() + seconds
    tasks: set[asyncio.Task[None]] = set()

    async def one() -> None:
        began = monotonic()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            head = await reader.read(2**16)
            took.append(monotonic() - began)
            writer.close()
            if not head.startswith(b"HTTP/1.1 200"):
                found.faults += 1
        except OSError:
            found.faults += 1

    due = monotonic()
    while not done.is_set() and monotonic() < end:
        tasks.add(asyncio.create_task(one()))
        tasks = {task for task in tasks if not task.done()}
        due += 1 / RATE
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), max(0.0, due - monotonic()))
    await asyncio.gather(*tasks)


async def _client(port: int, path: str, kind: str, *, after_s: float) -> tuple[float, int]:
    """One bad client, to its end: seconds it lived, the status it was told."""
    await asyncio.sleep(after_s)
    host = f"Host: 127.0.0.1:{port}\r\n"
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setblocking(False)
    if kind == "slow reader":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    heard = bytearray()
    try:
        await loop.sock_connect(client, ("127.0.0.1", port))
        began = monotonic()
        with contextlib.suppress(OSError, TimeoutError):
            if kind == "slow reader":
                await loop.sock_sendall(client, f"GET {path} HTTP/1.1\r\n{host}\r\n".encode())
                await _read_slowly(client, heard, began)
            else:
                head = f"POST {path} HTTP/1.1\r\n{host}"
                drip = b"X: " + b"x" * 200 if kind == "head drip" else b"b" * 200
                if kind == "body drip":
                    head += "Content-Length: 100000\r\n\r\n"
                if kind != "silent":
                    await loop.sock_sendall(client, head.encode())
                await _drip(client, b"" if kind == "silent" else drip, heard, began, MOST_S[kind])
        lived = monotonic() - began
    finally:
        client.close()
    told = re.match(rb"HTTP/1\.1 ([0-9]{3}) ", heard)
    return lived, int(told[1]) if told else 0


async def _drip(
    client: socket.socket, drip: bytes, heard: bytearray, began: float, most_s: float
) -> None:
    """A byte a second, until the server ends it."""
    loop = asyncio.get_running_loop()
    at = 0
    while monotonic() - began < most_s + _PATIENCE_S:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while data := await loop.sock_recv(client, 65536):
                    heard += data
                return
        if at < len(drip):
            await loop.sock_sendall(client, drip[at : at + 1])
            at += 1


async def _read_slowly(client: socket.socket, heard: bytearray, began: float) -> None:
    """A byte a second, until the server has ended it."""
    loop = asyncio.get_running_loop()
    while monotonic() - began < MOST_S["slow reader"] + _PATIENCE_S:
        heard += await loop.sock_recv(client, 1 if heard else 12)
        if not heard.startswith(b"HTTP/1.1 200"):
            return  # it was told to come again
        await asyncio.sleep(1)
        if _is_reset(client):
            return


def _is_reset(client: socket.socket) -> bool:
    """The server has ended it: it may not have been read to there."""
    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0 or _state(client) != 1


def _state(client: socket.socket) -> int:
    """1 is ESTABLISHED. Source: linux/tcp.h, tcp_info."""
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def run(folder: Path, *, clients: int = CLIENTS) -> list[Figure]:
    """The figures of row 7."""
    with NodeProcess(folder / "state", data_home=folder / "data") as node:
        for name, code in (("good", GOOD), ("body", BODY), ("large", LARGE)):
            node.deploy(name, code)
        paths = {name: f"/fn/acme/{name}/" for name in ("good", "body", "large")}
        found = attack(node.port, node.process.pid, clients, **paths, quiet_s=LONG_QUIET_S)
    what = f"{clients} of each kind"
    return [
        *(
            at_most(
                "7", f"{what}: a {kind} client lives", found.ended[kind][0], MOST_S[kind] + 5, " s"
            )
            for kind in KINDS
        ),
        at_most("7", "p99 of good traffic against quiet", found.p99_s / found.quiet_p99_s, 2, "x"),
        Figure(
            "7",
            "p99 quiet, during",
            f"{found.quiet_p99_s * 1e3:.1f} ms, {found.p99_s * 1e3:.1f} ms",
        ),
        at_most("7", "growth of memory", found.grown_bytes / MIB, 50, " MiB"),
        at_most("7", "good requests that failed", found.faults, 0),
    ]

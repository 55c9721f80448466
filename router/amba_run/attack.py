"""`amba-run doctor --attack`: try the walls of this very machine, and the ways out of them.

Two attacks. The escape probe runs in the place of an engine. Then a function on the real engine,
behind the real egress, asks for every address that it must not reach: listeners of ours on
loopback count who comes, and none may. One listener is allowed, so that silence means something.
All of it stays on loopback and ends by itself. Source: reliability.md F1, G1, G2, section 5.23.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amba_runtime import entropy, limits
from amba_runtime.sandbox import STRONGEST, escape
from amba_runtime.sandbox.escape import Verdict

if TYPE_CHECKING:
    from amba_runtime.engine.base import Isolate
    from amba_runtime.engine.workerd.engine import WorkerdEngine
    from amba_runtime.sandbox.cgroups import Group

LOOPBACK = ("127.0.0.1", "127.0.0.53", "127.255.255.254", "::1")
"""Denied addresses that anybody may listen on, without a door for the network."""

_SPELLINGS = (
    *("http://127.0.0.1:{}/", "https://127.0.0.1:{}/", "http://127.0.0.1.:{}/", "http://127.1:{}/"),
    *("http://2130706433:{}/", "http://0x7f.1:{}/", "http://017700000001:{}/", "http://0:{}/"),
    *("http://0.0.0.0:{}/", "http://127.0.0.53:{}/", "http://127.255.255.254:{}/"),
    *("http://[::ffff:127.0.0.1]:{}/", "http://[::ffff:7f00:1]:{}/", "http://[::127.0.0.1]:{}/"),
    *("http://[64:ff9b::7f00:1]:{}/", "http://[2002:7f00:1::]:{}/", "http://localhost:{}/"),
    *("http://LOCALHOST.:{}/", "http://a.localhost:{}/", "http://ip6-localhost:{}/"),
    *("http://[::1]:{}/", "http://[0:0:0:0:0:0:0:1]:{}/", "http://[::]:{}/"),
    *("http://%31%32%37.0.0.1:{}/", "http://user@127.0.0.1:{}/", "ws://127.0.0.1:{}/"),
    "connect://127.0.0.1:{}",
)
"""Ways to write loopback. Source: reliability.md rows G1 and G2."""

_METADATA = (
    *("http://169.254.169.254/latest/meta-data/", "http://169.254.170.2/", "http://2852039166/"),
    *("http://100.100.100.200/", "http://192.0.0.192/", "http://168.63.129.16/"),
    *("http://[fd00:ec2::254]/", "http://[fd20:ce::254]/", "http://[::ffff:169.254.169.254]/"),
    *("http://metadata.google.internal/", "http://metadata.internal/", "http://[fe80::1]/"),
)
"""Where clouds keep credentials. Source: reliability.md 3.G (deny table to ship)."""

GUEST = """
import { connect } from "cloudflare:sockets";
async function one(url) {
  try {
    if (url.startsWith("connect:")) {
      const connection = connect(url.slice(10));
      await connection.opened;
      return "open";
    }
    const headers = url.startsWith("ws:") ? { Upgrade: "websocket" } : {};
    const signal = AbortSignal.timeout(%d);
    const answer = await fetch(url.replace("ws:", "http:"), { headers, signal });
    return `${answer.status} ${await answer.text()}`;
  } catch (error) {
    return `error: ${error}`;
  }
}
export default {
  async fetch() {
    const said = {};
    for (const url of %s) said[url] = await one(url);
    return Response.json(said);
  },
};
"""
"""Asks for one address after the other. Filled in: milliseconds for each, JSON of the addresses."""


@dataclass(frozen=True, slots=True)
class Walls:
    """What the escape probe found.

    Attributes:
        fault: why nothing is known; "" where the probe ran.
        findings: one for each try.
    """

    tier: int
    description: str
    findings: tuple[escape.Finding, ...] = ()
    fault: str = ""
    notes: tuple[str, ...] = ()
    fix: str = ""

    @property
    def holes(self) -> list[escape.Finding]:
        """What got through where it should not."""
        return [finding for finding in self.findings if finding.verdict is Verdict.HOLE]

    @property
    def ok(self) -> bool:
        """No wall is missing of those that this tier promises, and it promises some."""
        return self.tier >= 2 and not self.fault and not self.holes


@dataclass(frozen=True, slots=True)
class WaysOut:
    """What became of requests to addresses that are denied.

    Attributes:
        tried: how many.
        connections: what the listeners counted.
        answered: URL -> what the function was told, for each that was not an error.
        fault: why nothing is known; "" where the function ran.
    """

    tried: int = 0
    connections: int = 0
    answered: dict[str, str] = field(default_factory=lambda: dict[str, str]())
    fault: str = ""

    @property
    def ok(self) -> bool:
        """Nobody came."""
        return not (self.fault or self.connections or self.answered)


async def attack(program: Path, *, most: int = STRONGEST) -> tuple[Walls, WaysOut]:
    """Try the strongest walls up to tier `most`, then the ways out.

    Args:
        program: the engine.

    Raises:
        InternalError: the spawner process was lost.
    """
    from amba_runtime.engine.workerd.engine import WorkerdEngine

    engine = WorkerdEngine(program=program, most=most)
    try:
        await engine.open()
        return await try_walls(engine), await try_ways_out(engine)
    finally:
        await engine.close()


async def try_walls(engine: WorkerdEngine) -> Walls:
    """Run the escape probe in the walls of an open engine, with bait of ours outside."""
    from amba_runtime.errors import InternalError

    sandbox = engine.sandbox
    groups: list[Group] = []
    word = f"amba-escape-{entropy.short_id()}"

    async def start(
        program: Path, own: Path, fds: Sequence[int], exited: Callable[[int], None]
    ) -> None:
        name = f"probe-{len(groups)}"
        groups.append(engine.cgroups.open(name, memory_bytes=limits.PROBE_MEMORY.value))
        process = await sandbox.enclose(
            engine.spawner, program, [], folder=own, fds=fds, exited=exited, group=groups[-1]
        )
        process.close()

    walls = Walls(sandbox.tier, sandbox.description, notes=sandbox.notes, fix=sandbox.fix)
    if escape.machine() is None:
        return replace(walls, fault="there is no probe for this machine")
    place = sandbox.private_folder()
    try:
        with _listening(str(place.path / "node.sock")), _listening(f"\0{word}"):
            folder = place.path / "probe"
            folder.mkdir()
            folder.chmod(sandbox.folder_mode)
            tries, answers = await escape.attack(
                start,
                folder,
                inside=sandbox.inside,
                paths=[str(place.path / "node.sock")],
                abstract=[word],
            )
    except (escape.ProbeFailed, InternalError, OSError) as error:
        return replace(walls, fault=f"the probe could not be run: {error}")
    finally:
        for group in groups:
            group.close()
        place.close()
    return replace(walls, findings=tuple(escape.findings(tries, answers, sandbox.tier)))


@contextlib.contextmanager
def _listening(name: str) -> Generator[None]:
    """A Unix socket that is listened on; one that begins with NUL has no path."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        yield


async def try_ways_out(engine: WorkerdEngine) -> WaysOut:
    """Have a function ask for denied addresses, through the egress that all functions have."""
    from amba_router.names import SystemResolver
    from amba_router.outbound import Outbound
    from amba_router.outbound_client import OutboundClient, TrustedRoots
    from amba_runtime.egress import EgressPolicy, OwnAddresses
    from amba_runtime.engine.base import StartFailed, Surroundings
    from amba_runtime.errors import AmbaRunError
    from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
    from amba_runtime.wire import WireError

    counter = _Counter()
    async with _canaries(counter) as ports, _canaries(_Counter()) as (allowed, *_):
        control = f"http://127.0.0.1:{allowed}/"
        urls = [form.format(port) for form in _SPELLINGS for port in ports] + list(_METADATA)
        policy = EgressPolicy(
            OwnAddresses(port=0), resolver=SystemResolver(), allow=[f"127.0.0.1:{allowed}"]
        )
        outbound = Outbound(
            policy, _no_app, OutboundClient(TrustedRoots()), on_denied=lambda _method, _denied: None
        )
        around = Surroundings(outbound, None, lambda _label, _tell: None, lambda _ended: None)
        manifest = Manifest(ProjectId("doctor"), FunctionName("attack"), 1, (), False, "2026-01-01")
        wait_ms = int(limits.ATTACK_FETCH_S.value * 1000)
        code = GUEST % (wait_ms, json.dumps([*urls, control]))
        try:
            isolate = await engine.start(manifest, Bundle.of(code.encode()), around)
            try:
                await isolate.describe()
                async with asyncio.timeout(limits.ATTACK_S.value):
                    said = await _ask(isolate)
            finally:
                await isolate.close()
        except (AmbaRunError, StartFailed, WireError, OSError, TimeoutError, ValueError) as error:
            return WaysOut(fault=f"the function could not be run: {error!r}")
        finally:
            await outbound.close()
        if said.get(control) != "200 canary":
            return WaysOut(fault=f"no way out at all: the allowed one said {said.get(control)!r}")
        answered = {url: said.get(url, "nothing") for url in urls}
        kept = {url: told for url, told in answered.items() if not told.startswith("error: ")}
        return WaysOut(len(urls), counter.connections, kept)


@dataclass(slots=True)
class _Counter:
    connections: int = 0


@contextlib.asynccontextmanager
async def _canaries(counter: _Counter) -> AsyncGenerator[list[int]]:
    """Listeners on every loopback address that can be had; yields their ports."""

    async def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counter.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\ncanary")
            await writer.drain()
        writer.close()

    async with contextlib.AsyncExitStack() as stack:
        ports: list[int] = []
        for address in LOOPBACK:
            with contextlib.suppress(OSError):
                server = await stack.enter_async_context(
                    await asyncio.start_server(come, address, 0)
                )
                ports.append(server.sockets[0].getsockname()[1])
        yield ports


async def _ask(isolate: Isolate) -> dict[str, str]:
    """URL -> what the guest says came of it."""
    exchange = await isolate.exchange(fresh=True)
    exchange.begin(b"GET", b"/", b"host: attack\r\n", 0)
    exchange.end()
    await exchange.head()
    parts: list[bytes] = []
    while data := await exchange.read():
        parts.append(data)
    exchange.release()
    said: dict[str, Any] = json.loads(b"".join(parts))
    return {url: str(told) for url, told in said.items()}


async def _no_app(_scope: Any, _receive: Any, _send: Any) -> None:
    """There is no server of ours behind this egress."""

"""What a whole server lets functions look up and reach: bounds per project, no way back to us."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from amba_run.node import Node
from amba_run.tenant import Tenant
from amba_runtime import limits, wire
from amba_runtime.clock import ManualClock
from amba_runtime.engine.base import Surroundings
from amba_runtime.engine.fake import FakeEngine, FakeIsolate, FakeRequest, FakeResponse
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId

NAME = FunctionName("asks")
PUBLIC, NEIGHBOUR = "93.184.215.14", "10.0.0.7"


class _Address(NamedTuple):
    """As psutil's, in part."""

    family: socket.AddressFamily
    address: str


class Silent:
    """A resolver (`egress.Resolver`): names of `silent.test` are never answered."""

    def __init__(self) -> None:
        self.under_way = 0
        self.busy = asyncio.Event()

    async def resolve(self, name: str) -> Sequence[str]:
        """A neighbour's address, which is denied: nothing leaves this machine."""
        if "silent" in name:
            self.under_way += 1
            if self.under_way == limits.RESOLVE_AT_ONCE.value:
                self.busy.set()
            await asyncio.get_running_loop().create_future()
        return (NEIGHBOUR,)


class Handing(FakeEngine):
    """Keeps what each isolate was given to reach the world through."""

    def __init__(self) -> None:
        super().__init__({NAME: _answers})
        self.egress: dict[str, wire.Handler] = {}

    async def start(
        self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
    ) -> FakeIsolate:
        self.egress[manifest.project_id] = surroundings.egress
        return await super().start(manifest, bundle, surroundings)


async def _answers(_request: FakeRequest) -> FakeResponse:
    return FakeResponse()


class Function:
    """A function's end of its egress socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def get(self, url: str) -> bytes:
        """All that comes back; nothing for what is denied."""
        reader, writer = await asyncio.open_unix_connection(str(self._path))
        host = url.split("/")[2]
        writer.write(f"GET {url} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        try:
            return await reader.read()
        finally:
            writer.close()


def served(
    folder: Path,
    resolver: Silent,
    body: Callable[[ManualClock, Function, Function], Awaitable[None]],
) -> None:
    """A node with the projects `one` and `two`, a function in each."""

    async def main() -> None:
        clock, engine = ManualClock(), Handing()
        node = Node(engine=engine, clock=clock, state=folder / "state", resolver=resolver)
        servers: list[wire.Server] = []
        try:
            await node.open(host="127.0.0.1", port=0)
            for slug in ("one", "two"):
                project = node.add(Tenant(ProjectId(slug), slug, "token", "secret", b"k" * 32))
                slot = await node.start(
                    project,
                    NAME,
                    Bundle.of(b"export default {}"),
                    version=1,
                    secrets=(),
                    limits=FunctionLimits.dev().override({"subrequests_at_once": 100}),
                    storage=False,
                    compatibility_date="2026-01-01",
                )
                node.activate(node.route(project, NAME), slot)
                servers.append(wire.Server(folder / slug, engine.egress[slug], name=slug))
                await servers[-1].open()
            async with asyncio.timeout(10):
                await body(clock, Function(folder / "one"), Function(folder / "two"))
        finally:
            for server in servers:
                await server.close()
            await node.close()

    asyncio.run(main())


def test_silent_names_of_one_project_leave_those_of_another_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A few look-ups of a project hang, and hold up nobody else's (rows G, K; threat T20)."""
    resolver = Silent()

    async def body(clock: ManualClock, one: Function, two: Function) -> None:
        most = limits.RESOLVE_AT_ONCE.value
        asking = [
            asyncio.ensure_future(one.get(f"http://a{n}.silent.test/")) for n in range(3 * most)
        ]
        await resolver.busy.wait()
        assert await two.get("http://example.com/") == b""
        assert "function asks GET http://example.com: example.com resolves to" in caplog.text
        while not all(task.done() for task in asking):  # some may reach us only now
            await clock.advance(limits.EGRESS_RESOLVE_S.value)
        assert await asyncio.gather(*asking) == [b""] * len(asking)
        assert "a0.silent.test. was not resolved in 5 s" in caplog.text
        assert resolver.under_way == most

    served(tmp_path, resolver, body)


def test_no_function_finds_a_server_at_this_machines_own_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a public one that came while the server ran: hairpin (reliability.md 5, 13)."""
    interfaces = {"eth0": [_Address(socket.AF_INET, "192.0.2.7")]}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: interfaces)

    async def body(clock: ManualClock, one: Function, _two: Function) -> None:
        # known as of a moment ago
        assert await one.get("http://192.0.2.7/") == b""
        interfaces["eth0"].append(_Address(socket.AF_INET, PUBLIC))
        await clock.advance(limits.OWN_ADDRESSES_S.value)
        assert await one.get(f"http://{PUBLIC}/") == b""
        assert f"{PUBLIC}, which is an address of this machine" in caplog.text

    served(tmp_path, Silent(), body)

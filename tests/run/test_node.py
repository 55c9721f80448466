"""The wiring, on the fake engine: versions come, serve, and go with their connections."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from amba_router.journal import Invocation
from amba_router.routes import Project
from amba_run.node import Node
from amba_run.tenant import Tenant
from amba_runtime.clock import SystemClock
from amba_runtime.engine.base import StartFailed
from amba_runtime.engine.fake import FakeEngine, FakeRequest, FakeResponse
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, ProjectId
from amba_runtime.outcome import Tell
from amba_runtime.pool import Slot

HELLO = FunctionName("hello")


async def hello(request: FakeRequest) -> FakeResponse:
    """Tells who the dispatcher says is calling."""
    return FakeResponse(body=f"{request.header('x-amba-project-id')} {request.target}".encode())


class Served:
    """A node with one project, and ways to change and ask it."""

    def __init__(self, state: Path) -> None:
        self.engine = FakeEngine({"hello": hello})
        self.node = Node(engine=self.engine, clock=SystemClock(), state=state)
        self.told: list[Invocation] = []
        self.node.journal.listen(self.told.extend, _nothing)

    async def project(self) -> Project:
        """Open the node; the project `acme` in it."""
        await self.node.open(host="127.0.0.1", port=0)
        tenant = Tenant(ProjectId("p_1"), "acme", "token", "secret", b"k" * 32)
        return self.node.add(tenant)

    async def start(self, project: Project, name: FunctionName, version: int) -> Slot:
        """A version that does not serve yet."""
        return await self.node.start(
            project,
            name,
            Bundle.of(b"export default {}"),
            version=version,
            secrets=(),
            limits=FunctionLimits.dev(),
            storage=False,
            compatibility_date="2026-01-01",
        )

    async def ask(self, target: str) -> tuple[int, bytes]:
        """One request, from a thread."""

        def request() -> tuple[int, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", self.node.port, timeout=5)
            try:
                connection.request("GET", target)
                response = connection.getresponse()
                return response.status, response.read()
            finally:
                connection.close()

        return await asyncio.to_thread(request)


def _nothing(_slot: Slot, _request_id: str, _tell: Tell) -> None:
    """No late line is expected."""


def served(state: Path, work: Callable[[Served], Awaitable[None]]) -> Served:
    """Run with a node that is closed at the end, twice: the second time does nothing."""
    it = Served(state)

    async def run() -> None:
        try:
            await work(it)
        finally:
            await it.node.close()
            await it.node.close()

    asyncio.run(run())
    return it


def test_a_version_serves_once_it_is_active(tmp_path: Path) -> None:
    """Started is not serving; the switch retires the old one (architecture.md 4)."""

    async def work(it: Served) -> None:
        project = await it.project()
        await it.node.listen()
        assert (await it.ask("/readyz"))[0] == 200
        route = it.node.route(project, HELLO)
        assert it.node.route(project, HELLO) is route
        first = await it.start(project, HELLO, 1)
        assert (await it.ask("/fn/acme/hello"))[0] == 404
        it.node.activate(route, first)
        assert await it.ask("/fn/acme/hello/x?y") == (200, b"p_1 /x?y")
        it.node.activate(route, await it.start(project, HELLO, 2))
        assert route.slot is not first
        assert (await it.ask("/fn/acme/hello"))[0] == 200
        async with asyncio.timeout(5):
            while it.engine.isolates[0].alive:  # noqa: ASYNC110  a fake has no event for it
                await asyncio.sleep(0)
        assert it.engine.isolates[1].alive

    it = served(tmp_path, work)
    assert [i.version for i in it.told] == [1, 2]
    assert not any(isolate.alive for isolate in it.engine.isolates)


def test_a_version_that_does_not_start_leaves_nothing(tmp_path: Path) -> None:
    """The old one serves on; what never served can be thrown away."""

    async def work(it: Served) -> None:
        project = await it.project()
        with pytest.raises(StartFailed):
            await it.start(project, FunctionName("missing"), 1)
        assert it.engine.isolates == []
        slot = await it.start(project, HELLO, 1)
        await it.node.discard(slot)
        assert not it.engine.isolates[0].alive

    served(tmp_path, work)


def test_closing_what_was_never_opened(tmp_path: Path) -> None:
    """A start that fails early ends as cleanly as any."""

    async def work(_: Served) -> None:
        pass

    assert served(tmp_path, work).node.origin == ""


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")],
)
def test_the_origin_is_an_address_clients_can_use(tmp_path: Path, host: str, shown: str) -> None:
    """`AMBA_API_URL` and the ready line: never 0.0.0.0 (interface.md 1)."""

    async def work(it: Served) -> None:
        await it.node.open(host=host, port=0)
        assert it.node.origin == f"http://{shown}:{it.node.port}"

    served(tmp_path, work)

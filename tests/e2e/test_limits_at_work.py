"""Limits on the real engine: what spins, grows or stands still ends in time, and alone."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from amba_router.journal import Invocation, LimitEvent
from amba_router.routes import Project
from amba_run.node import Node
from amba_run.tenant import Tenant
from amba_runtime.clock import SystemClock
from amba_runtime.engine.workerd.engine import WorkerdEngine, find_workerd
from amba_runtime.engine.workerd.isolate import WorkerdIsolate
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, ProjectId
from amba_runtime.outcome import Outcome, Tell
from amba_runtime.slot import Slot

pytestmark = pytest.mark.slow

GUEST = b"""
const doings = {
  "/spin": () => { for (;;) {} },
  "/microtasks": async () => { const f = () => Promise.resolve().then(f); await f(); },
  "/timers": () => new Promise(() => {
    const f = () => { for (let i = 0; i < 1e6; i++); setTimeout(f, 0); };
    f();
  }),
  "/later": (ctx) => ctx.waitUntil((async () => { await scheduler.wait(200); for (;;) {} })()),
  "/hang": () => {
    console.log("before I wait");
    return new Promise(() => setTimeout(() => console.log("while I wait"), 300));
  },
  "/slow": async () => {
    console.log("before");
    await scheduler.wait(250);
    console.log("after");
  },
  "/grow": async () => {
    for (const kept = [];; kept.push(new Uint8Array(1 << 22).fill(1))) await scheduler.wait(0);
  },
};
export default {
  async fetch(request, env, ctx) {
    await doings[new URL(request.url).pathname]?.(ctx);
    if (request.method === "POST") await request.text();
    return new Response("fine");
  },
};
"""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    retry_after: str | None
    seconds: float

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


class Stage:
    """A node in this process, with one project."""

    def __init__(self, state: Path) -> None:
        engine = WorkerdEngine(program=find_workerd())
        self.node = Node(engine=engine, clock=SystemClock(), state=state)
        self.told: list[Invocation] = []
        self.breaches: list[LimitEvent] = []
        self.node.journal.listen(self.told.extend, _quiet, self._breached)
        self.done = asyncio.Event()
        self.project: Project | None = None

    def _breached(self, event: LimitEvent) -> None:
        self.breaches.append(event)
        if event.action != "warned":
            self.done.set()

    async def open(self) -> None:
        await self.node.open(host="127.0.0.1", port=0)
        tenant = Tenant(ProjectId("p_1"), "acme", "token", "secret", b"k" * 32)
        self.project = self.node.add(tenant)
        await self.node.listen()

    async def deploy(self, name: str, **changed: int) -> Slot:
        assert self.project is not None
        function = FunctionName(name)
        slot = await self.node.start(
            self.project,
            function,
            Bundle.of(GUEST),
            version=1,
            secrets=(),
            limits=FunctionLimits.dev().override(changed),
            storage=False,
            compatibility_date="2026-01-01",
        )
        self.node.activate(self.node.route(self.project, function), slot)
        return slot

    async def ask(self, target: str, *, body: bytes | None = None) -> Answer:
        def request() -> Answer:
            began_s = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", self.node.port, timeout=15)
            try:
                method = "GET" if body is None else "POST"
                connection.request(method, f"/fn/acme{target}", body)
                response = connection.getresponse()
                text = response.read()
                seconds = time.monotonic() - began_s
                return Answer(response.status, text, response.getheader("retry-after"), seconds)
            finally:
                connection.close()

        return await asyncio.to_thread(request)

    def actions(self) -> list[tuple[str, str]]:
        return [(e.breach.limit, e.action) for e in self.breaches if e.action != "warned"]


def _quiet(_slot: Slot, _request_id: str, _tell: Tell) -> None:
    """Late lines are another test's."""


def on_stage(tmp_path: Path, test: Callable[[Stage], Awaitable[None]]) -> None:
    async def main() -> None:
        stage = Stage(tmp_path)
        await stage.open()
        try:
            async with asyncio.timeout(40):
                await test(stage)
        finally:
            await stage.node.close()

    asyncio.run(main())


def test_what_spins_is_ended_and_replaced(tmp_path: Path) -> None:
    """cpu_ms = 50: 503 cpu_limit within 250 ms of CPU beyond it, then 200 (rows E1, E5, E6)."""

    async def test(stage: Stage) -> None:
        await stage.deploy("f", cpu_ms=50)
        await stage.deploy("quiet", cpu_ms=50)
        for doing, action in (("spin", "killed"), ("microtasks", "killed"), ("timers", "cut")):
            stage.breaches.clear()
            neighbour = asyncio.create_task(stage.ask("/quiet/"))
            answer = await stage.ask(f"/f/{doing}")
            assert (answer.status, answer.code) == (503, "cpu_limit")
            assert stage.actions() == [("cpu_ms", action)]
            used = next(e.breach.used for e in stage.breaches if e.action == action)
            assert 50 <= used <= 300
            assert (await neighbour).status == 200
            assert (await stage.ask("/f/")).body == b"fine"

    on_stage(tmp_path, test)


def test_what_spins_after_its_answer_is_ended(tmp_path: Path) -> None:
    """The caller has its 200; the isolate is ended, and the next request is served (E24)."""

    async def test(stage: Stage) -> None:
        slot = await stage.deploy("f", cpu_ms=100)
        before = slot.isolate
        assert (await stage.ask("/f/later")).status == 200
        await asyncio.wait_for(stage.done.wait(), 10)
        assert stage.actions() == [("cpu_ms", "killed")]
        assert (await stage.ask("/f/")).status == 200
        assert slot.isolate is not before

    on_stage(tmp_path, test)


def test_what_grows_is_ended(tmp_path: Path) -> None:
    """A bomb of ArrayBuffers, which V8's own heap limit does not count (rows E10 to E12)."""

    async def test(stage: Stage) -> None:
        await stage.deploy("f", memory_mib=128)
        answer = await stage.ask("/f/grow")
        assert (answer.status, answer.code) == (503, "memory_limit")
        assert stage.actions() == [("memory_mib", "killed")]
        assert (await stage.ask("/f/")).status == 200

    on_stage(tmp_path, test)


def test_what_stands_still_is_replaced(tmp_path: Path) -> None:
    """SIGSTOP: in flight 503 with Retry-After; the next is served (row E31)."""

    async def test(stage: Stage) -> None:
        slot = await stage.deploy("f")
        isolate = slot.isolate
        assert isinstance(isolate, WorkerdIsolate)
        os.kill(isolate.pid, signal.SIGSTOP)
        answer = await stage.ask("/f/", body=b"x")  # not one that could be asked again
        assert (answer.status, answer.code, answer.retry_after) == (503, "overloaded", "1")
        assert answer.seconds < 4.0
        assert stage.actions() == [("stall_ms", "killed")]
        assert (await stage.ask("/f/")).status == 200
        stage.node.journal.flush()
        assert [i.outcome for i in stage.told] == [Outcome.LOAD_SHED, Outcome.OK]

    on_stage(tmp_path, test)


def test_what_was_said_before_a_deadline_is_told(tmp_path: Path) -> None:
    """A handler that never answers has no answer to send its lines on: they come beforehand."""

    async def test(stage: Stage) -> None:
        await stage.deploy("f", first_byte_ms=900)
        assert (await stage.ask("/f/hang")).status == 504
        assert (await stage.ask("/f/slow")).status == 200
        stage.node.journal.flush()
        told = [[line.message[0] for line in i.tell.logs] for i in stage.told if i.tell is not None]
        assert told == [["before I wait", "while I wait"], ["before", "after"]]

    on_stage(tmp_path, test)


def test_a_loop_without_a_cpu_limit_is_let_go(tmp_path: Path) -> None:
    """In dev cpu_ms is off: first_byte_ms ends the thread that holds all others up."""

    async def test(stage: Stage) -> None:
        await stage.deploy("f", first_byte_ms=700)
        answer = await stage.ask("/f/spin")
        assert (answer.status, answer.code) == (504, "function_timeout")
        assert (await stage.ask("/f/")).status == 200
        assert stage.actions() == [("first_byte_ms", "cut"), ("first_byte_ms", "killed")]

    on_stage(tmp_path, test)

"""`amba-run node` from its start to its end: state, engine, routes, API, ready line, drain.

Source: interface.md sections 1 to 3; architecture.md section 7; issue 3 items 4 and 5.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from amba_bundler.esbuild import Esbuild
from amba_bundler.scan import EsbuildScan
from amba_router.api.app import Api
from amba_router.api.callers import Directory
from amba_router.asgi import App, Receive, Scope, Send
from amba_router.control.plane import ControlPlane
from amba_router.forwarded import Proxies
from amba_router.logs import LogStore
from amba_router.metrics import PATH, Metrics, MetricsApp
from amba_router.platform import Platform
from amba_router.store.control import ControlStore
from amba_router.store.control_records import CreatedProject, NewProject, Snapshot
from amba_router.store.on_demand import OnDemand
from amba_router.store.state import State
from amba_run import __version__
from amba_run.addresses import Addresses, listener_hosts
from amba_run.dev_state import DEVELOPER_ID
from amba_run.emulation import Emulation
from amba_run.gate import HostGuard
from amba_run.hosting import Hosting
from amba_run.node import Node
from amba_run.node_report import NodeJson, NodeReporter
from amba_run.serve import Listener, bind
from amba_run.trigger_metrics import QueueMetrics
from amba_run.triggering import Triggers
from amba_runtime import limits
from amba_runtime.background import ended
from amba_runtime.clock import Clock
from amba_runtime.engine.base import Engine
from amba_runtime.errors import UserCode, UserError
from amba_runtime.message_room import MessageRoom
from amba_runtime.pool import Pool
from amba_runtime.turnstile import Turnstile

SANDBOXES = ("strict", "best-effort", "off")
STRICT_TIER = 3
"""The weakest tier that `strict` takes (reliability.md 4.2)."""


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What `amba-run node` was asked for; `state` may not exist yet."""

    state: Path
    host: str = "127.0.0.1"
    port: int = 8788
    addresses: Addresses = field(default_factory=Addresses)
    trust_proxy: tuple[str, ...] = ()
    sandbox: str = "strict"
    allow_egress: tuple[str, ...] = ()
    metrics_listen: tuple[str, int] | None = None
    live_isolates: int = limits.LIVE_ISOLATES.value
    evict_after_s: float = limits.ISOLATE_IDLE_S.value


class NodeServer:
    """One hosted node. `run` until `stop` is set."""

    def __init__(
        self,
        options: NodeOptions,
        *,
        engine: Engine,
        esbuild: Esbuild,
        clock: Clock,
        say: NodeReporter,
    ) -> None:
        self._options = options
        self._engine = engine
        self._esbuild = esbuild
        self._clock = clock
        self._say = say
        self._proxies = Proxies(options.trust_proxy) if options.trust_proxy else None
        self.ready = False

    async def run(self, stop: asyncio.Event, *, now: asyncio.Event | None = None) -> None:
        """Serve until told to stop; requests under way end first, within `limits.DRAIN_S`.

        Args:
            now: set by whoever has no more patience: what is under way is cut off.

        Raises:
            UserError: the state directory, the port or an option cannot be used.
        """
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._engine.close)
            await self._engine.open()
            self._check_sandbox()
            self._check_memory()
            state = await State.open(self._options.state, self._clock)
            stack.push_async_callback(state.close)
            for line in state.repairs.lines():
                self._say.say(f"state: {line}")
            await self._serve(stack, state, stop, now or asyncio.Event())

    async def _serve(
        self,
        stack: contextlib.AsyncExitStack,
        state: State,
        stop: asyncio.Event,
        now: asyncio.Event,
    ) -> None:
        options = self._options
        store = _OneProject(state, self._clock) if self._alone else ControlStore(state, self._clock)
        pool = Pool(self._clock, most=options.live_isolates, idle_s=options.evict_after_s)
        states = OnDemand(state, self._clock)
        node = Node(
            engine=self._engine,
            clock=self._clock,
            state=states,
            egress_allow=options.allow_egress,
            addresses=options.addresses,
            proxies=self._proxies,
            room=pool,
            turnstile=Turnstile(
                self._clock,
                of_project=limits.PROJECT_CONCURRENCY.value,
                seats=limits.NODE_WEBSOCKETS.value,
                of_project_seats=limits.PROJECT_WEBSOCKETS.value,
                messages=MessageRoom(of_project=limits.WEBSOCKET_PROJECT_ROOM.value),
            ),
        )
        stack.push_async_callback(self._esbuild.close)
        hosting = Hosting(node, store, scan=EsbuildScan(self._esbuild), clock=self._clock)
        node.journal.listen(self._say.requests, self._say.late, self._say.limit, pieces=True)
        if isinstance(self._say, NodeJson):
            self._say.map_with(hosting.maps.mapper)
        _count_isolates(hosting.metrics, pool)
        _count_turns(hosting.metrics, node.turnstile)
        _count_logs(hosting.metrics, hosting.logs)
        triggers = Triggers(node.projects, node.journal, states, self._clock)
        QueueMetrics(triggers, self._clock).tell(hosting.metrics)
        api = _Api(triggers)
        stack.push_async_callback(self._close, node, hosting, api, pool, now)
        await self._bind(node, hosting, api)
        await self._open_metrics(stack, hosting.metrics)
        pat = await store.mint_first_pat(DEVELOPER_ID)
        snapshot = await store.snapshot()
        for problem in snapshot.problems:
            self._say.warn(problem)
        self._check_alone(snapshot)
        hosting.restore(snapshot)
        directory = Directory(snapshot, self._clock)
        _count_schedules(hosting.metrics, triggers)
        api.plane = plane = ControlPlane(
            store=store,
            host=hosting,
            logs=hosting.logs,
            directory=directory,
            clock=self._clock,
            timetable=triggers.declared,
        )
        api.emulation = emulation = Emulation(
            states,
            node.storage,
            directory,
            self._clock,
            triggers=triggers,
            reach=lambda: node.reach,
        )
        api.app = Api(
            (plane.operations, *emulation.parts()),
            directory,
            self._clock,
            users=emulation,
            version=__version__,
        )
        await pool.open()
        await node.listen()
        triggers.open()
        self._announce(node, pat)
        if pat is not None and await asyncio.to_thread(self._say.told):
            await store.first_pat_told()
        await stop.wait()
        self._say.stopping()

    async def _bind(self, node: Node, hosting: Hosting, api: _Api) -> None:
        def platform(ready: Callable[[], bool]) -> App:
            inner = Platform(ready=ready, api=api)
            return MetricsApp(hosting.metrics, inner, known=hosting.knows_developer)

        options = self._options
        try:
            await node.open(host=options.host, port=options.port, platform=platform)
        except UserError as error:
            if error.code is UserCode.PORT_IN_USE:
                hint = f"use --listen {options.host}:0 for any free port"
                raise UserError(error.code, error.message, hint=hint) from error
            raise

    def _announce(self, node: Node, pat: str | None) -> None:
        facts: dict[str, object] = {
            "origin": node.origin,
            "state": str(self._options.state),
            "engine": self._engine.name,
            "sandbox": self._engine.sandbox.tier,
        }
        if pat is not None:
            facts["keys"] = {"pat": pat}
        self._say.ready(facts)
        self.ready = True

    async def _close(
        self, node: Node, hosting: Hosting, api: _Api, pool: Pool, now: asyncio.Event
    ) -> None:
        grace_s = limits.DRAIN_S.value if self.ready else 0.0
        api.triggers.stop()
        draining = asyncio.create_task(
            ended(api.triggers.close(grace_s=grace_s), node.drain(grace_s=grace_s))
        )
        impatient = asyncio.create_task(now.wait())
        await asyncio.wait({draining, impatient}, return_when=asyncio.FIRST_COMPLETED)
        impatient.cancel()
        if not draining.done():
            draining.cancel()
            await asyncio.wait({draining})
        await api.triggers.close(grace_s=0.0)
        await api.close()
        await pool.close()
        await hosting.close()
        await node.close(grace_s=0.0)

    # the sandbox

    @property
    def _alone(self) -> bool:
        return self._options.sandbox == "off"

    def _check_sandbox(self) -> None:
        walls = self._engine.sandbox
        if walls.tier >= STRICT_TIER or self._alone:
            return
        have = f"tier {walls.tier}: {walls.description}"
        why = "".join(f"; {note}" for note in walls.notes)
        if self._options.sandbox == "strict":
            other = "use --sandbox best-effort where all functions are yours"
            raise UserError(
                UserCode.SANDBOX_WEAK,
                f"--sandbox strict takes tier {STRICT_TIER}, and there is less here ({have}{why})",
                hint=f"{walls.fix}\n  or {other}" if walls.fix else other,
            )
        self._say.warn(
            f"the sandbox is weak here ({have}{why}): host only functions that you trust; "
            "amba-run doctor says more"
        )

    def _check_memory(self) -> None:
        """Without control groups the watchdog holds (reliability.md 1.4, T4): it is said."""
        note = self._engine.memory_note
        if note and not self._alone:
            self._say.warn(
                f"the kernel caps no function's memory here ({note}): a watchdog looks at it "
                "every few milliseconds; amba-run doctor says what to do"
            )

    def _check_alone(self, snapshot: Snapshot) -> None:
        if self._alone and len(snapshot.projects) > 1:
            raise UserError(
                UserCode.SANDBOX_WEAK,
                f"--sandbox off hosts one project; {self._options.state} "
                f"has {len(snapshot.projects)}",
                hint="use --sandbox best-effort, or another --state",
            )

    async def _open_metrics(self, stack: contextlib.AsyncExitStack, metrics: Metrics) -> None:
        where = self._options.metrics_listen
        if where is None:
            return
        sockets = bind(*where)
        app = HostGuard(MetricsApp(metrics, None, known=None), listener_hosts(where[0]))
        listener = Listener(app, sockets)
        await listener.open()
        stack.push_async_callback(listener.close, grace_s=0.0)
        self._say.say(f"metrics: http://{_shown(sockets[0])}{PATH}")


class _Api:
    """The platform API, once it is there: before the first request."""

    def __init__(self, triggers: Triggers) -> None:
        self.triggers = triggers
        self.app: Api | None = None
        self.plane: ControlPlane | None = None
        self.emulation: Emulation | None = None

    async def close(self) -> None:
        """Finish what was begun. Idempotent."""
        if self.plane is not None:
            await self.plane.close()
        if self.emulation is not None:
            await self.emulation.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None, "requests are answered once all is there"
        await self.app(scope, receive, send)


class _OneProject(ControlStore):
    """Without a sandbox there is no wall between projects: there is one."""

    def __init__(self, state: State, clock: Clock) -> None:
        super().__init__(state, clock)
        self._turn = asyncio.Lock()

    async def create_project(self, new: NewProject) -> CreatedProject:
        """See `ControlStore`. Raises UserError CONFLICT when there is one."""
        async with self._turn:
            if (await self.snapshot()).projects:
                raise UserError(
                    UserCode.CONFLICT,
                    "this node runs with --sandbox off and hosts one project",
                    hint="start it with --sandbox best-effort for more",
                )
            return await super().create_project(new)


def _count_isolates(metrics: Metrics, pool: Pool) -> None:
    metrics.gauge("amba_isolates_live", "gauge", "Isolates alive.", lambda: pool.live)
    metrics.gauge("amba_cold_starts_total", "counter", "Isolates started.", lambda: pool.starts)
    metrics.gauge("amba_evictions_total", "counter", "Idle isolates ended.", lambda: pool.evictions)


def _count_turns(metrics: Metrics, turnstile: Turnstile) -> None:
    inside, waiting = "amba_invocations", "amba_invocations_waiting"
    metrics.gauge(inside, "gauge", "Invocations under way.", lambda: turnstile.inside)
    metrics.gauge(waiting, "gauge", "Waiting for their turn.", lambda: len(turnstile.turns))
    room, seats = turnstile.messages, "amba_websockets"
    metrics.gauge(seats, "gauge", "WebSockets open.", lambda: turnstile.seated)
    metrics.gauge("amba_websocket_bytes", "gauge", "Bytes of messages held.", lambda: room.held)


def _count_schedules(metrics: Metrics, triggers: Triggers) -> None:
    firings = triggers.schedules.firings
    metrics.family(
        "amba_schedule_firings_total",
        "counter",
        "Firings that ended.",
        lambda: [({"outcome": told}, count) for told, count in sorted(firings.outcomes.items())],
    )
    name, help_ = "amba_schedule_skipped_total", "Slots left out: the one before still ran."
    metrics.gauge(name, "counter", help_, lambda: firings.skipped)
    name, help_ = "amba_schedule_late_seconds", "How late the newest firing began."
    metrics.gauge(name, "gauge", help_, lambda: firings.late_s)


def _count_logs(metrics: Metrics, logs: LogStore) -> None:
    metrics.gauge("amba_log_bytes", "gauge", "Bytes of events kept.", lambda: logs.held_bytes)


def _shown(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

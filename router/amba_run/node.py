"""The wiring: engine, projects, dispatcher, egress and STORAGE of one server.

The dev server, the hosted node and the tests differ in what they pass in here,
not in branches inside it. Source: architecture.md sections 3 and 4.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from amba_router.asgi import App, Scope, Send
from amba_router.denials import DenialLog
from amba_router.dispatch import Dispatcher
from amba_router.forwarded import BehindProxies, Proxies
from amba_router.identity import Identities
from amba_router.journal import Journal
from amba_router.names import Names, SystemResolver
from amba_router.outbound import Outbound
from amba_router.outbound_client import OutboundClient, TrustedRoots
from amba_router.pages import Pages
from amba_router.platform import Platform
from amba_router.routes import Project, Projects, Route
from amba_router.services.edge_db.binding import EdgeDb
from amba_router.services.storage.routes import serve_object
from amba_router.services.storage.service import StorageService
from amba_router.signing import Keyring
from amba_router.store.on_demand import OnDemand
from amba_router.store.state import State
from amba_run.addresses import Addresses, Reach
from amba_run.gate import Gate, PageGuard
from amba_run.machine import MachineAddresses
from amba_run.serve import Listener, bind
from amba_run.tenant import Tenant
from amba_runtime.background import Background, ended
from amba_runtime.bindings.platform import platform_env
from amba_runtime.clock import Clock
from amba_runtime.egress import AddressTable, EgressPolicy, Resolver
from amba_runtime.egress_rules import NO_RULES, EgressRules
from amba_runtime.engine.base import Engine
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest
from amba_runtime.outcome import Action, Breach
from amba_runtime.slot import Env, Kept, Room, Slot
from amba_runtime.supervisor import Watchdog
from amba_runtime.tally import Tally
from amba_runtime.turnstile import Turnstile


class Node:
    """One server. `open`, `add`, `deploy` as often as needed, `close`; all from one event loop.

    Attributes:
        port: of the listener, set by `open`.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        clock: Clock,
        state: Path | State | OnDemand,
        egress_allow: Iterable[str] = (),
        token: str | None = None,
        addresses: Addresses | None = None,
        proxies: Proxies | None = None,
        room: Room | None = None,
        resolver: Resolver | None = None,
        table: AddressTable | None = None,
        pages: Pages | None = None,
        turnstile: Turnstile | None = None,
    ) -> None:
        """Args:
        state: a folder that is opened at the first use of STORAGE, or one that is open, or one
            that others use as well.
        token: what callers from beyond loopback have to know; None asks nothing.
        proxies: whose word on a caller's address counts.
        room: who may have an isolate at all; None is everybody.
        resolver: of the names that functions ask for; None is the machine's.
        table: what no function may reach; None is the usual table and this machine's addresses.
        pages: whose web pages may call, for a server on a laptop; None is everybody's.
        turnstile: how many invocations may be under way; None is a node's usual number.
        """
        self.journal = Journal(clock)
        self.projects = Projects()
        self.port = 0
        self._reach = Reach(addresses or Addresses(), "", frozenset())
        self._engine = engine
        self._clock = clock
        self._egress_allow = tuple(egress_allow)
        self._token = token
        self._proxies = proxies
        self._room = room
        self._watchdog = Watchdog(clock)
        self._resolver = resolver or SystemResolver()
        self._names = Names(self._resolver, clock)
        self._table = table
        self._pages = pages
        self.turnstile = turnstile or Turnstile(clock)
        self._roots = TrustedRoots()
        self._own = None if isinstance(state, OnDemand) else OnDemand(state, clock)
        self.storage = StorageService(self._own or cast(OnDemand, state), clock)
        self._database = EdgeDb(self._own or cast(OnDemand, state), clock)
        self._sockets: list[socket.socket] = []
        self._listener: Listener | None = None
        self._dispatcher: Dispatcher | None = None
        self._policy: EgressPolicy | None = None
        self._tenants: dict[str, Tenant] = {}
        self._outbounds: dict[int, Outbound] = {}
        self._retiring = Background()
        self._ready = False

    async def open(
        self, *, host: str, port: int, platform: Callable[[Callable[[], bool]], App] | None = None
    ) -> None:
        """Bind, start the engine. Requests are answered from `listen` on.

        Args:
            platform: makes what answers on the bare host, given what tells readiness.
        """
        self._sockets = bind(host, port)
        self.port = self._sockets[0].getsockname()[1]
        self._reach = reach = Reach.of(self._reach.addresses, host, self.port)
        self._policy = EgressPolicy(
            reach.own(),
            resolver=self._resolver,
            allow=self._egress_allow,
            table=self._table or AddressTable(machine=MachineAddresses(self._clock)),
        )
        self._dispatcher = Dispatcher(
            hosts=reach.hosts(),
            projects=self.projects,
            journal=self.journal,
            clock=self._clock,
            platform=(platform or _no_control)(lambda: self._ready),
            cdn=self._serve_object,
        )
        await self._engine.open()

    async def listen(self) -> None:
        """Answer requests from here on."""
        assert self._dispatcher is not None
        app: App = self._dispatcher
        if self._pages is not None:
            app = PageGuard(app, self._pages)
        if self._token is not None:
            app = Gate(app, self._token)
        if self._proxies is not None:
            app = BehindProxies(app, self._proxies)
        self._listener = Listener(app, self._sockets)
        await self._listener.open()
        self._ready = True

    @property
    def origin(self) -> str:
        """Of the listener."""
        return self._reach.origin

    @property
    def reach(self) -> Reach:
        """How this server is reached; its port is known once it is open."""
        return self._reach

    def fn_url(self, slug: str, name: str) -> str:
        """Where a function answers, as it works when pasted. Source: contract A.1."""
        return self._reach.fn_url(slug, name)

    def add(self, tenant: Tenant) -> Project:
        """Make a project reachable, in the place of one with its slug."""
        identities = Identities(
            tenant.id,
            session_key=tenant.session_key,
            clock=self._clock,
            persona=tenant.persona,
            pages=self._pages,
        )
        for pat, developer_id in tenant.pats:
            identities.add_pat(pat, developer_id)
        identities.set_session_keys((tenant.session_key, *tenant.older_sessions))
        project = Project(tenant.id, tenant.slug, tenant.keyring(), identities)
        self._tenants[tenant.id] = tenant
        self.projects.add(project)
        return project

    def set_tenant(self, tenant: Tenant) -> None:
        """Isolates that start from here on are given this internal token.

        Its signing secrets are in force with `add`: a `Project` keeps the keyring it was made with.
        """
        self._tenants[tenant.id] = tenant

    def route(self, project: Project, name: FunctionName) -> Route:
        """The function's place in the routes, made when missing; it serves nothing yet."""
        return project.routes.setdefault(name.encode(), Route(name))

    async def start(
        self,
        project: Project,
        name: FunctionName,
        bundle: Bundle,
        *,
        version: int,
        secrets: tuple[tuple[str, str], ...],
        limits: FunctionLimits,
        storage: bool,
        compatibility_date: str,
        egress: EgressRules = NO_RULES,
    ) -> Slot:
        """Start a version without letting it serve yet.

        Raises:
            StartFailed: its top level throws.
            Overloaded: there is no room for it.
        """
        manifest = Manifest(
            project.id,
            name,
            version,
            (*self.platform_env(project.id, project.keyring), *secrets),
            storage,
            compatibility_date,
        )
        slot = self._slot(manifest, bundle, limits, None, egress)
        try:
            await slot.start()
        except BaseException:
            await self._release(slot)
            raise
        return slot

    def dormant(
        self,
        manifest: Manifest,
        limits: FunctionLimits,
        kept: Kept,
        egress: EgressRules = NO_RULES,
    ) -> Slot:
        """A version that was deployed earlier: its first request starts it."""
        return self._slot(manifest, None, limits, kept, egress)

    def keep_in(self, slot: Slot, kept: Kept) -> None:
        """From here on a slot's content is read from there, but secrets that stay outside."""
        slot.keep_in(self._outbounds[id(slot)].placeholders.kept(kept))

    def platform_env(self, project_id: str, keyring: Keyring) -> Env:
        """The strings that every function of a project gets, as of now.

        Args:
            keyring: what stamps the requests to the isolate that is given them.
        """
        tenant = self._tenants[project_id]
        return platform_env(
            api_url=self._reach.api_url,
            project_id=tenant.id,
            internal_token=tenant.internal_token,
            signing_secret=keyring.newest.decode(),
            cdn_host=self._reach.cdn_host(tenant.slug),
        )

    def _slot(
        self,
        manifest: Manifest,
        bundle: Bundle | None,
        limits: FunctionLimits,
        kept: Kept | None,
        egress: EgressRules,
    ) -> Slot:
        assert self._dispatcher is not None
        assert self._policy is not None
        outbound = Outbound(
            self._policy.asking(self._names.of(manifest.project_id)),
            self._dispatcher,
            OutboundClient(self._roots),
            on_denied=DenialLog(
                f"project {manifest.project_id} function {manifest.name}", self._clock
            ),
            shut=kept is None,
            rules=egress,
        )
        slot = Slot(
            self._engine,
            replace(manifest, env=outbound.placeholders.mask(manifest.env)),
            bundle,
            limits_=limits,
            egress=outbound,
            storage=self.storage.bucket(manifest.project_id) if manifest.storage else None,
            database=self._database.handler(manifest.project_id),
            late=self.journal.late,
            clock=self._clock,
            kept=None if kept is None else outbound.placeholders.kept(kept),
            room=self._room,
            breached=self.journal.breach,
            watchdog=self._watchdog,
            gate=self.turnstile.gate(manifest.project_id, limits.concurrency),
        )
        outbound.attach(slot.tell_header, slot.hop_of, partial(self._breached, slot), Tally(slot))
        self._outbounds[id(slot)] = outbound
        return slot

    def _breached(self, slot: Slot, request_id: str, breach: Breach) -> None:
        """A limit that the shim keeps was passed: log lines are cut off, the rest refused."""
        action: Action = "cut" if breach.limit == "log_kib" else "refused"
        self.journal.breach(slot, request_id, breach, action)

    def activate(self, route: Route, slot: Slot) -> None:
        """Let a started version serve; the one before drains and ends by itself."""
        self._outbounds[id(slot)].unlock()
        old, route.slot = route.slot, slot
        route.broken = None
        if slot.description is not None:
            route.handlers = slot.description.handlers
        if old is not None:
            self.retire(old)

    def retire(self, slot: Slot) -> None:
        """Drain and end a version in the background."""
        self._retiring.spawn(self._retire(slot))

    async def discard(self, slot: Slot) -> None:
        """End a version that never served."""
        await slot.retire(drain_s=0)
        await self._release(slot)

    async def _retire(self, slot: Slot) -> None:
        await slot.retire()
        await self._release(slot)

    async def _release(self, slot: Slot) -> None:
        outbound = self._outbounds.pop(id(slot), None)
        if outbound is not None:
            await outbound.close()

    async def _serve_object(
        self, project: Project, key: bytes, scope: Scope, send: Send, request_id: str
    ) -> None:
        await serve_object(
            self.storage,
            project.id,
            key.decode("latin-1"),
            scope,
            send,
            request_id=request_id,
        )

    async def drain(self, *, grace_s: float) -> None:
        """Take no new requests; let those under way end, and work that outlives them.

        Args:
            grace_s: what is not done after so many seconds is cut off.
        """
        self._ready = False
        until_s = self._clock.monotonic_s() + grace_s
        if self._listener is not None:
            await self._listener.close(grace_s=grace_s)
        left_s = max(0.0, until_s - self._clock.monotonic_s())
        await asyncio.gather(*[slot.retire(drain_s=left_s) for slot in self._slots()])

    async def close(self, *, grace_s: float = 0.3) -> None:
        """End everything. Idempotent.

        Args:
            grace_s: requests under way have so long.
        """
        self._ready = False
        self.turnstile.close()
        if self._listener is not None:
            await self._listener.close(grace_s=grace_s)
        for listener in self._sockets:
            listener.close()
        await self._retiring.close()
        self.journal.flush()
        await ended(*[slot.retire(drain_s=0) for slot in self._slots()])
        await ended(*[outbound.close() for outbound in self._outbounds.values()])
        await self._watchdog.close()
        await self._engine.close()
        await self.storage.close()
        if self._own is not None:
            await self._own.close()

    def _slots(self) -> list[Slot]:
        return [
            route.slot
            for project in self.projects.all()
            for route in project.routes.values()
            if route.slot is not None
        ]


def _no_control(ready: Callable[[], bool]) -> App:
    return Platform(ready=ready)

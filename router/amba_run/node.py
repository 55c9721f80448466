"""The wiring: engine, projects, dispatcher, egress and STORAGE of one server.

The dev server, the hosted node and the tests differ in what they pass in here,
not in branches inside it. Source: architecture.md sections 3 and 4.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from amba_router.asgi import App, Scope, Send
from amba_router.dispatch import Dispatcher
from amba_router.hosts import Hosts
from amba_router.identity import NOBODY, Identities, Identity
from amba_router.journal import Journal
from amba_router.outbound import Outbound, SystemResolver
from amba_router.outbound_client import OutboundClient, TrustedRoots
from amba_router.platform import Platform
from amba_router.routes import Project, Projects, Route
from amba_router.services.storage.routes import serve_object
from amba_router.services.storage.service import StorageService
from amba_router.signing import Keyring
from amba_run.gate import Gate
from amba_run.serve import Listener, bind, own_addresses
from amba_runtime.bindings.platform import platform_env
from amba_runtime.clock import Clock
from amba_runtime.egress import EgressPolicy, OwnAddresses
from amba_runtime.engine.base import Engine
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.pool import Slot

SUFFIX = "fn.localhost"
CDN_SUFFIX = "cdn.localhost"
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


@dataclass(frozen=True, slots=True)
class Tenant:
    """The fixed facts and keys of one project. Secrets: never printed, never logged."""

    id: ProjectId
    slug: str
    internal_token: str
    signing_secret: str
    session_key: bytes
    persona: Identity = NOBODY
    pats: tuple[tuple[str, str], ...] = ()
    """(token, developer id)."""


class Node:
    """One server. `open`, `add`, `deploy` as often as needed, `close`; all from one event loop.

    Attributes:
        origin: `http://127.0.0.1:PORT`, set by `open`.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        clock: Clock,
        state: Path,
        egress_allow: Iterable[str] = (),
        token: str | None = None,
    ) -> None:
        """Args: token: what callers from beyond loopback have to know; None asks nothing."""
        self.journal = Journal()
        self.projects = Projects()
        self.origin = ""
        self.port = 0
        self._engine = engine
        self._clock = clock
        self._egress_allow = tuple(egress_allow)
        self._token = token
        self._roots = TrustedRoots()
        self._storage = StorageService(state, clock)
        self._sockets: list[socket.socket] = []
        self._listener: Listener | None = None
        self._dispatcher: Dispatcher | None = None
        self._policy: EgressPolicy | None = None
        self._tenants: dict[str, Tenant] = {}
        self._outbounds: dict[int, Outbound] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._ready = False

    async def open(self, *, host: str, port: int) -> None:
        """Bind, start the engine. Requests are answered from `listen` on."""
        self._sockets = bind(host, port)
        self.port = self._sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        everywhere = host in ("0.0.0.0", "::")  # noqa: S104  a comparison, not a bind
        if everywhere or host == "localhost":
            shown = "127.0.0.1"
        self.origin = f"http://{shown}:{self.port}"
        platform_hosts = LOOPBACK_NAMES | {shown}
        if everywhere:
            platform_hosts |= own_addresses()
        hosts = Hosts(suffix=SUFFIX, cdn_suffix=CDN_SUFFIX, platform=platform_hosts)
        self._policy = EgressPolicy(
            OwnAddresses(port=self.port, api_hosts=platform_hosts),
            resolver=SystemResolver(),
            allow=self._egress_allow,
        )
        self._dispatcher = Dispatcher(
            hosts=hosts,
            projects=self.projects,
            journal=self.journal,
            clock=self._clock,
            platform=Platform(ready=lambda: self._ready),
            cdn=self._serve_object,
        )
        await self._engine.open()

    async def listen(self) -> None:
        """Answer requests from here on."""
        assert self._dispatcher is not None
        app: App = self._dispatcher
        if self._token is not None:
            app = Gate(app, self._token)
        self._listener = Listener(app, self._sockets)
        await self._listener.open()
        self._ready = True

    def add(self, tenant: Tenant) -> Project:
        """Make a project reachable."""
        identities = Identities(
            tenant.id, session_key=tenant.session_key, clock=self._clock, persona=tenant.persona
        )
        for pat, developer_id in tenant.pats:
            identities.add_pat(pat, developer_id)
        keyring = Keyring((tenant.signing_secret.encode(),))
        project = Project(tenant.id, tenant.slug, keyring, identities)
        self._tenants[tenant.id] = tenant
        self.projects.add(project)
        return project

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
    ) -> Slot:
        """Start a version without letting it serve yet.

        Raises:
            StartFailed: its top level throws.
        """
        assert self._dispatcher is not None
        assert self._policy is not None
        tenant = self._tenants[project.id]
        env = platform_env(
            api_url=self.origin,
            project_id=tenant.id,
            internal_token=tenant.internal_token,
            signing_secret=tenant.signing_secret,
            cdn_host=f"{tenant.slug}.{CDN_SUFFIX}:{self.port}",
        )
        manifest = Manifest(
            project.id, name, version, (*env, *secrets), storage, compatibility_date
        )
        outbound = Outbound(self._policy, self._dispatcher, OutboundClient(self._roots))
        slot = Slot(
            self._engine,
            manifest,
            bundle,
            limits_=limits,
            egress=outbound,
            storage=self._storage.bucket(project.id) if storage else None,
            late=self.journal.late,
            clock=self._clock,
        )
        self._outbounds[id(slot)] = outbound
        try:
            await slot.start()
        except BaseException:
            await self._release(slot)
            raise
        return slot

    def activate(self, route: Route, slot: Slot) -> None:
        """Let a started version serve; the one before drains and ends by itself."""
        old, route.slot = route.slot, slot
        route.broken = None
        if old is not None:
            self.retire(old)

    def retire(self, slot: Slot) -> None:
        """Drain and end a version in the background."""
        task = asyncio.create_task(self._retire(slot))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

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
            self._storage,
            project.id,
            key.decode("latin-1"),
            scope,
            send,
            request_id=request_id,
        )

    async def close(self, *, grace_s: float = 0.3) -> None:
        """End everything. Idempotent.

        Args:
            grace_s: requests under way have so long.
        """
        self._ready = False
        if self._listener is not None:
            await self._listener.close(grace_s=grace_s)
        for listener in self._sockets:
            listener.close()
        self.journal.flush()
        for task in list(self._retiring):
            task.cancel()
        slots = [
            route.slot
            for project in self.projects.all()
            for route in project.routes.values()
            if route.slot is not None
        ]
        await asyncio.gather(*[slot.retire(drain_s=0) for slot in slots])
        await asyncio.gather(*self._retiring, return_exceptions=True)
        with contextlib.suppress(Exception):
            await asyncio.gather(*[o.close() for o in self._outbounds.values()])
        await self._engine.close()
        await self._storage.close()

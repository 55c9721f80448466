"""The dev server: a deploy with a file watcher. Same build, same judgement, same switch.

A change rebuilds, starts the new version, switches, drains the old one: no request fails
because of a reload, and what does not build leaves the old version serving.
Source: architecture.md section 4; issue "Serve a function" item 6.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

from amba_bundler.esbuild import Esbuild
from amba_router.identity import Identity
from amba_router.pages import Pages
from amba_router.platform import Platform
from amba_router.routes import Project
from amba_run import dev_state
from amba_run.addresses import SUFFIX
from amba_run.dev_api import DevApi
from amba_run.dev_changes import Changes
from amba_run.dev_functions import Folder
from amba_run.dev_state import DEVELOPER_ID, Claim, Running
from amba_run.dev_triggers import DevTriggers
from amba_run.node import Node
from amba_run.report import Reporter
from amba_run.tenant import Tenant
from amba_run.triggering import Triggers
from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.engine.base import Engine
from amba_runtime.turnstile import Turnstile


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What `amba-run dev` was asked for; `state` is a directory that exists."""

    path: Path
    state: Path
    host: str = "127.0.0.1"
    port: int = 8787
    project: str | None = None
    persona: Identity = field(default_factory=Identity)
    allow_egress: tuple[str, ...] = ()
    watch: bool = True
    token: str | None = None
    """What callers from beyond loopback have to know; needed to listen there."""
    allow_origin: tuple[str, ...] = ()
    """Web pages that may call besides those of this machine."""


class DevServer:
    """One folder being served. `run` until `stop` is set."""

    def __init__(
        self, options: DevOptions, *, engine: Engine, esbuild: Esbuild, clock: Clock, say: Reporter
    ) -> None:
        self._options = options
        self._engine = engine
        self._esbuild = esbuild
        self._clock = clock
        self._say = say
        self._folder = Folder(options.path)
        self._claim = Claim(options.state)
        self._claim.take()
        try:
            self._credentials = dev_state.load_credentials(options.state)
        except BaseException:
            self._claim.drop()
            raise
        self.ready = False
        allow = [f"{host}:{port}" for host, port in self._folder.config.egress_allow]
        self._slug = options.project or self._folder.config.project_slug or "local"
        self._api = DevApi(options.state, self._slug, self._credentials, clock)
        self.node = Node(
            engine=engine,
            clock=clock,
            state=self._api.states,
            egress_allow=(*allow, *options.allow_egress),
            token=options.token,
            pages=Pages(options.allow_origin),
            turnstile=Turnstile(clock, most=limits.DEV_CONCURRENCY.value),
        )
        self.triggers = Triggers(self.node.projects, self.node.journal, self._api.states, clock)
        self._declared = DevTriggers(
            self.triggers,
            self._api.ask,
            kept=lambda: self.triggers.kept,
            clock=clock,
            say=say,
        )
        self.triggers.buried = self._declared.changed
        self._changes = Changes(
            self._folder,
            self.node,
            esbuild=esbuild,
            clock=clock,
            say=say,
            configured=lambda project: self._declared.apply(project, self._folder.config),
        )
        self.node.journal.listen(say.requests, say.late, say.limit, pieces=True)
        self.node.journal.listen(self._declared.heard, self._declared.late)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until told to stop; everything has ended on return.

        Raises:
            UserError: the folder, its configuration or the port cannot be used.
        """
        try:
            await self._open()
            await stop.wait()
        finally:
            self._changes.stop()
            if self.ready:
                self._say.stopping()
            await self._close()

    async def _open(self) -> None:
        options = self._options
        folder = self._folder
        found = folder.discover()
        slug = self._slug
        self._api.open(
            self.node.storage,
            self.triggers,
            lambda: self.node.reach,
            ai_fixtures=folder.ai_fixtures,
            answered=self._declared.asked,
        )
        await self.node.open(
            host=options.host,
            port=options.port,
            platform=lambda ready: Platform(ready=ready, api=self._api),
        )
        credentials = self._credentials
        project = self.node.add(
            Tenant(
                id=credentials.project,
                slug=slug,
                internal_token=credentials.internal_token,
                signing_secret=credentials.signing_secret,
                session_key=bytes.fromhex(credentials.session_key),
                persona=options.persona,
                pats=((credentials.pat, DEVELOPER_ID),),
            )
        )
        problems = [*await self._seed(), *folder.missing()]
        folder.apply(self.node, project, found)
        await self._changes.begin()
        await self.node.listen()
        await self._declared.begin(project, folder.config)
        dev_state.announce(
            options.state,
            Running(
                state=options.state,
                origin=self.node.origin,
                pat=credentials.pat,
                project_id=project.id,
                slug=slug,
                suffix=SUFFIX,
                folder=folder.real,
                pid=os.getpid(),
                persona=options.persona.text,
            ),
        )
        self._say.ready(self._facts(project))
        self.ready = True
        self.triggers.open()
        self._changes.reloads.release()
        self._declared.told(project, folder.config)
        for message in (*found.warnings, *folder.secrets.warnings, *problems):
            self._say.warn(message)
        self._warn_of_walls()
        if not folder.functions:
            self._say.warn(
                f"{options.path} holds no functions yet: save one as hello.js, such as\n  "
                "export default { async fetch(req, env, ctx) { return new Response('hello') } }"
            )
        if options.watch:
            self._changes.watch(project)

    async def _seed(self) -> list[str]:
        """Load `[seed]` into what is empty; what could not be loaded, in sentences."""
        config = self._folder.config
        if config.seed is None:
            return []
        done = await self._api.seeder().run(config.folder / config.seed)
        return [f"seed: {problem}" for problem in done.problems]

    async def _close(self) -> None:
        dev_state.withdraw(self._options.state)
        await self._changes.close()
        await self._declared.close()
        await self.triggers.close(grace_s=0.0)
        await asyncio.gather(self.node.close(), self._esbuild.close())
        await self._api.close()
        self._claim.drop()

    def _facts(self, project: Project) -> dict[str, object]:
        origin = f"http://{project.slug}.{SUFFIX}:{self.node.port}"
        c = self._credentials
        return {
            "origin": self.node.origin,
            "state": str(self._options.state),
            "engine": self._engine.name,
            "sandbox": self._engine.sandbox.tier,
            "project": {"id": project.id, "slug": project.slug},
            "functions": [
                {"name": name, "url": f"{origin}/{name}", "version": f.version}
                for name, f in sorted(self._folder.functions.items())
                if f.route.slot is not None
            ],
            "keys": {"pat": c.pat, "client": c.client_key, "server": c.server_key},
        }

    def _warn_of_walls(self) -> None:
        """Where there are none, though they were asked for: allowed, and told (tiers, 4.2)."""
        walls = self._engine.sandbox
        if walls.notes and walls.tier < 2:
            self._say.warn(
                f"no walls around functions here (tier {walls.tier}: {'; '.join(walls.notes)}): "
                "run only code that you trust; amba-run doctor says more"
            )

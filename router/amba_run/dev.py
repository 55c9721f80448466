"""The dev server: a deploy with a file watcher. Same build, same judgement, same switch.

A change rebuilds, starts the new version, switches, drains the old one: no request fails
because of a reload, and what does not build leaves the old version serving.
Source: architecture.md section 4; issue "Serve a function" item 6.
"""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import Coroutine, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from amba_bundler.build import BuildOptions, build
from amba_bundler.esbuild import Esbuild
from amba_bundler.messages import BuildFailed, render_errors
from amba_router.identity import Identity
from amba_router.routes import Project, Route
from amba_run import dev_state
from amba_run.config import ProjectConfig, load_config
from amba_run.dev_state import Credentials
from amba_run.discovery import Discovery, FunctionSource, SourceKind, discover, folder_of
from amba_run.node import SUFFIX, Node, Tenant
from amba_run.report import Reporter
from amba_run.secrets_files import load_secrets
from amba_run.watcher import Watcher
from amba_runtime import limits
from amba_runtime.admission import Violation, judge, judge_start
from amba_runtime.clock import Clock
from amba_runtime.engine.base import Engine, StartFailed
from amba_runtime.errors import AmbaRunError, UserError
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import FunctionName

DEVELOPER_ID = "d_local"
CONFIG_FILES = ("amba.toml", "pyproject.toml")
SECRETS_FILES = (".dev.vars", ".env")


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


@dataclass(slots=True)
class _Function:
    """One function of the folder. `inputs` is what a change of rebuilds it."""

    source: FunctionSource
    route: Route
    inputs: frozenset[Path] = frozenset()
    version: int = 0
    serving: tuple[str, object] | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


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
        self._folder = folder_of(options.path)
        self._config: ProjectConfig = load_config(self._folder)
        self._secrets = load_secrets(self._folder)
        self._credentials = dev_state.load_credentials(options.state)
        self._functions: dict[FunctionName, _Function] = {}
        self._builds = asyncio.Semaphore(limits.REBUILDS_AT_ONCE.value)
        self._tasks: set[asyncio.Task[None]] = set()
        self._watcher: Watcher | None = None
        self._stopping = False
        allow = [f"{host}:{port}" for host, port in self._config.egress_allow]
        self.node = Node(
            engine=engine,
            clock=clock,
            state=options.state,
            egress_allow=(*allow, *options.allow_egress),
        )
        self.node.journal.listen(say.requests, say.late)

    @property
    def credentials(self) -> Credentials:
        """The keys of this state directory."""
        return self._credentials

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until told to stop; everything has ended on return.

        Raises:
            UserError: the folder, its configuration or the port cannot be used.
        """
        try:
            await self._open()
            await stop.wait()
        finally:
            self._stopping = True
            self._say.stopping()
            await self._close()

    async def _open(self) -> None:
        options = self._options
        found = discover(options.path, self._config)
        slug = options.project or self._config.project_slug or "local"
        await self.node.open(host=options.host, port=options.port)
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
        self._apply(project, found)
        await asyncio.gather(*[self._update(f) for f in self._functions.values()])
        await self.node.listen()
        dev_state.announce(
            options.state,
            origin=self.node.origin,
            credentials=credentials,
            slug=slug,
            folder=self._folder,
        )
        self._say.ready(self._facts(project))
        self._warn(found.warnings)
        self._warn(self._secrets.warnings)
        if not self._functions:
            self._say.warn(
                f"{options.path} holds no functions yet: save one as hello.js, such as\n  "
                "export default { async fetch(req, env, ctx) { return new Response('hello') } }"
            )
        if options.watch:
            self._watcher = Watcher(lambda paths: self._changed(project, paths))
            self._rewatch()

    async def _close(self) -> None:
        dev_state.withdraw(self._options.state)
        if self._watcher is not None:
            await self._watcher.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(self.node.close(), self._esbuild.close())

    def _facts(self, project: Project) -> dict[str, object]:
        origin = f"http://{project.slug}.{SUFFIX}:{self.node.port}"
        c = self._credentials
        return {
            "origin": self.node.origin,
            "state": str(self._options.state),
            "engine": self._engine.name,
            "project": {"id": project.id, "slug": project.slug},
            "functions": [
                {"name": name, "url": f"{origin}/{name}", "version": f.version}
                for name, f in sorted(self._functions.items())
            ],
            "keys": {"pat": c.pat, "client": c.client_key, "server": c.server_key},
        }

    def _warn(self, messages: Iterable[str]) -> None:
        for message in messages:
            self._say.warn(message)

    # what is served

    def _apply(self, project: Project, found: Discovery) -> list[_Function]:
        """Take in what the folder holds now; returns the functions that are new or moved."""
        fresh: list[_Function] = []
        sources = {s.name: s for s in found.functions}
        for name in [n for n in self._functions if n not in sources]:
            gone = self._functions.pop(name)
            del project.routes[name.encode()]
            if gone.route.slot is not None:
                self.node.retire(gone.route.slot)
        for name, source in sources.items():
            known = self._functions.get(name)
            if known is None or known.source != source:
                route = self.node.route(project, name)
                made = _Function(source, route, version=known.version if known else 0)
                self._functions[name] = made
                fresh.append(made)
        return fresh

    async def _update(self, function: _Function, *, reload: bool = False) -> None:
        """Build, start, judge, switch. Whatever fails leaves the old version serving."""
        async with function.turn, self._builds:
            if self._stopping:
                return
            began = time.perf_counter()
            try:
                await self._deploy(function)
            except BuildFailed as failure:
                function.inputs = frozenset(failure.inputs)
                text = render_errors(failure.errors)
                self._break(function, f"the newest source does not build: {failure.message}", text)
                self._say.build_failed(
                    function.source.name, [asdict(e) for e in failure.errors], text
                )
                return
            except _Refused as refusal:
                text = "\n".join(f"{v.code}: {v.message}\n{v.stack}" for v in refusal.violations)
                message = refusal.violations[0].message
                self._break(function, f"the newest source was refused: {message}", text)
                self._say.rejected(function.source.name, refusal.violations)
                return
            except AmbaRunError as error:
                self._break(function, str(error), str(error))
                hint = f"\n  {error.hint}" if isinstance(error, UserError) and error.hint else ""
                self._say.warn(f"{function.source.name}: {error}{hint}")
                return
            finally:
                self._rewatch()
            if reload:
                ms = (time.perf_counter() - began) * 1000
                self._say.reload(function.source.name, function.version, ms)

    async def _deploy(self, function: _Function) -> None:
        source = function.source
        if source.kind is SourceKind.PYTHON:
            raise _Refused(_PYTHON)
        built = await build(source.entry, BuildOptions(root=self._folder), esbuild=self._esbuild)
        function.inputs = frozenset(built.inputs)
        config = self._config
        settings = (
            self._secrets.env(),
            config.limits_for(source.name, FunctionLimits.dev()),
            config.storage,
            config.compatibility_date,
        )
        serving = (built.bundle.sha256, settings)
        if serving == function.serving and function.route.slot is not None:
            function.route.broken = None
            return
        project = self.node.projects.all()[0]
        secrets, function_limits, storage, date = settings
        try:
            slot = await self.node.start(
                project,
                source.name,
                built.bundle,
                version=function.version + 1,
                secrets=secrets,
                limits=function_limits,
                storage=storage,
                compatibility_date=date,
            )
        except StartFailed as failure:
            raise _Refused((judge_start(failure),)) from failure
        assert slot.description is not None
        violations = judge(slot.description)
        if violations:
            await self.node.discard(slot)
            raise _Refused(violations)
        function.version += 1
        function.serving = serving
        self.node.activate(function.route, slot)

    def _break(self, function: _Function, message: str, text: str) -> None:
        function.route.broken = (message, _page(function.source.name, message, text))

    # changes

    def _changed(self, project: Project, paths: frozenset[Path]) -> None:
        """Files changed: update what they concern. Runs on the event loop."""
        if self._stopping:
            return
        settings = {self._folder / name for name in (*CONFIG_FILES, *SECRETS_FILES)}
        if paths & settings:
            self._spawn(self._reconfigure(project))
            return
        touched = [f for f in self._functions.values() if f.inputs & paths]
        for function in touched:
            self._spawn(self._update(function, reload=True))
        if any(self._may_be_entry(path) for path in paths):
            self._spawn(self._rediscover(project))

    def _may_be_entry(self, path: Path) -> bool:
        inside = path.parent == self._folder or path.parent.parent == self._folder
        return inside and not any(path in f.inputs for f in self._functions.values())

    async def _rediscover(self, project: Project) -> None:
        try:
            found = discover(self._options.path, self._config)
        except UserError as error:
            self._say.warn(f"{error.message} {error.hint}")
            return
        fresh = self._apply(project, found)
        self._rewatch()
        await asyncio.gather(*[self._update(f, reload=True) for f in fresh])

    async def _reconfigure(self, project: Project) -> None:
        """Settings or secrets changed: read them, and restart what they concern."""
        try:
            config, secrets = load_config(self._folder), load_secrets(self._folder)
        except UserError as error:
            self._say.warn(f"the old settings stay: {error.message} {error.hint}")
            return
        self._config = config
        self._secrets = secrets
        self._warn(secrets.warnings)
        await self._rediscover(project)
        await asyncio.gather(*[self._update(f, reload=True) for f in self._functions.values()])

    def _rewatch(self) -> None:
        """Watch the folders of every input, the folder itself, and its direct subfolders."""
        if self._watcher is None or self._stopping:
            return
        folders = {path.parent for f in self._functions.values() for path in f.inputs}
        folders.add(self._folder)
        if self._options.path.is_dir():
            folders.update(
                child
                for child in self._folder.iterdir()
                if child.is_dir() and child.name[0] not in "._" and child.name != "node_modules"
            )
        self._watcher.watch(folders)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Refused(Exception):
    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__(violations[0].message)
        self.violations = violations


_PYTHON = (
    Violation(
        "NOT_EMULATED",
        "functions written in Python are not emulated yet",
        "write it in JavaScript or TypeScript",
    ),
)


def _page(name: str, message: str, text: str) -> bytes:
    """What a browser is shown for a function whose newest source does not serve."""
    return (
        "<!doctype html><meta charset=utf-8>"
        f"<title>{html.escape(name)}: {html.escape(message[:80])}</title>"
        "<style>body{font:16px/1.5 system-ui;margin:3rem auto;max-width:60rem;padding:0 1rem}"
        "h1{font-size:1.2rem;color:#b00020}pre{background:#f6f6f6;padding:1rem;overflow:auto}"
        "@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}"
        "pre{background:#222}h1{color:#ff6b81}}</style>"
        f"<h1>{html.escape(name)}: {html.escape(message)}</h1><pre>{html.escape(text)}</pre>"
        "<p>amba-run dev: save the file again when it is mended.</p>"
    ).encode()

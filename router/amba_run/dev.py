"""The dev server: a deploy with a file watcher. Same build, same judgement, same switch.

A change rebuilds, starts the new version, switches, drains the old one: no request fails
because of a reload, and what does not build leaves the old version serving.
Source: architecture.md section 4; issue "Serve a function" item 6.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import os
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from amba_bundler.build import BuildOptions, build
from amba_bundler.esbuild import Esbuild
from amba_bundler.messages import BuildFailed, render_errors
from amba_bundler.scan import EsbuildScan
from amba_router.identity import Identity
from amba_router.pages import Pages
from amba_router.routes import Project, Route
from amba_run import dev_state
from amba_run.config import CONFIG_FILES, ProjectConfig, load_config
from amba_run.config_reader import ENTRY_SUFFIXES
from amba_run.dev_state import DEVELOPER_ID, Claim, Running
from amba_run.discovery import Discovery, FunctionSource, SourceKind, discover, folder_of
from amba_run.node import SUFFIX, Node, Tenant
from amba_run.report import Reporter
from amba_run.secrets_files import SECRETS_FILES, load_secrets
from amba_run.watcher import Watcher
from amba_runtime import limits
from amba_runtime.admission import admit
from amba_runtime.clock import Clock
from amba_runtime.egress_rules import NO_RULES
from amba_runtime.engine.base import Engine
from amba_runtime.errors import AmbaRunError, UserCode, UserError
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import FunctionName
from amba_runtime.pool import Slot
from amba_runtime.turnstile import Turnstile
from amba_runtime.violations import NO_PYTHON, Rejected, Violation


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


@dataclass(slots=True)
class _Function:
    """One function of the folder. `inputs` are the files whose change rebuilds it."""

    source: FunctionSource
    route: Route
    inputs: frozenset[Path] = frozenset()
    version: int = 0
    serving: tuple[str, object] | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    queued: bool = False
    """An update waits for its turn: it will see whatever is saved until then."""
    gone: bool = False
    """Its source was removed or moved: what is being started for it will not serve."""
    built_s: float = 0.0
    """When its newest build began, by the wall clock."""
    looks: int = 0
    """Builds in a row that failed on files saved just before: perhaps only half of a save."""


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
        self._given = folder_of(options.path)
        # what is watched and compared with the bundler's inputs; messages show what was given
        self._folder = Path(os.path.realpath(self._given))
        self._config: ProjectConfig = load_config(self._given)
        self._secrets = load_secrets(self._given)
        self._claim = Claim(options.state)
        self._claim.take()
        try:
            self._credentials = dev_state.load_credentials(options.state)
        except BaseException:
            self._claim.drop()
            raise
        self._functions: dict[FunctionName, _Function] = {}
        self._versions: dict[FunctionName, int] = {}
        self._discovering = asyncio.Lock()
        self._discovery_queued = False
        self._held: list[Callable[[], None]] | None = []
        self._builds = asyncio.Semaphore(limits.REBUILDS_AT_ONCE.value)
        self._tasks: set[asyncio.Task[None]] = set()
        self._watcher: Watcher | None = None
        self._stopping = False
        self.ready = False
        allow = [f"{host}:{port}" for host, port in self._config.egress_allow]
        self.node = Node(
            engine=engine,
            clock=clock,
            state=options.state,
            egress_allow=(*allow, *options.allow_egress),
            token=options.token,
            pages=Pages(options.allow_origin),
            turnstile=Turnstile(clock, most=limits.DEV_CONCURRENCY.value),
        )
        self.node.journal.listen(say.requests, say.late, say.limit)

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
            if self.ready:
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
            Running(
                state=options.state,
                origin=self.node.origin,
                pat=credentials.pat,
                project_id=project.id,
                slug=slug,
                suffix=SUFFIX,
                folder=self._folder,
                pid=os.getpid(),
                persona=options.persona.text,
            ),
        )
        self._say.ready(self._facts(project))
        self.ready = True
        held, self._held = self._held or [], None
        for say in held:
            say()
        self._warn(found.warnings)
        self._warn(self._secrets.warnings)
        self._warn_of_walls()
        if not self._functions:
            self._say.warn(
                f"{options.path} holds no functions yet: save one as hello.js, such as\n  "
                "export default { async fetch(req, env, ctx) { return new Response('hello') } }"
            )
        if options.watch:
            self._watcher = Watcher(lambda paths: self._changed(project, paths))
            self._spawn(self._rewatch())

    async def _close(self) -> None:
        dev_state.withdraw(self._options.state)
        if self._watcher is not None:
            await self._watcher.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(self.node.close(), self._esbuild.close())
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
                for name, f in sorted(self._functions.items())
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
            gone.gone = True
            del project.routes[name.encode()]
            if gone.route.slot is not None:
                self.node.retire(gone.route.slot)
        for name, source in sources.items():
            known = self._functions.get(name)
            if known is None or known.source != source:
                if known is not None:
                    known.gone = True
                made = _Function(
                    source, self.node.route(project, name), version=self._versions.get(name, 0)
                )
                self._functions[name] = made
                fresh.append(made)
        return fresh

    async def _update(self, function: _Function, *, reload: bool = False) -> None:
        """Build, start, judge, switch. Whatever fails leaves the old version serving."""
        if function.queued:
            return
        function.queued = True
        async with function.turn, self._builds:
            function.queued = False
            if self._stopping or function.gone:
                return
            began_s = self._clock.monotonic_s()
            function.built_s = self._clock.time_s()
            before = function.inputs
            healed = function.route.broken is not None
            try:
                switched = await self._deploy(function)
            except AmbaRunError as error:
                self._failed(function, error)
            except Rejected as refusal:
                self._refused(function, refusal.violations)
            else:
                function.looks = 0
                if reload and (switched or healed):
                    ms = (self._clock.monotonic_s() - began_s) * 1000
                    self._say.reload(function.source.name, function.version, ms)
        if function.inputs != before:
            await self._rewatch()

    def _failed(self, function: _Function, error: AmbaRunError) -> None:
        """The newest source gave no bundle, or the engine could not start it."""
        name = function.source.name
        if isinstance(error, BuildFailed):
            function.inputs = frozenset(error.inputs)
            if self._watcher is not None and error.code is UserCode.ENTRY_NOT_FOUND:
                return  # removed, or being replaced: the next change tells
            since_s = function.built_s - limits.WATCH_SLACK_S.value
            if (
                self._watcher is not None
                and function.looks < limits.WATCH_LOOKS.value
                and _saved_since(function.inputs, since_s)
            ):
                function.looks += 1
                self._spawn(self._look_again(function))
                return
            function.looks = 0
            text = render_errors(error.errors)
            said = function.route.broken
            self._break(function, f"the newest source does not build: {error.message}", text)
            if function.route.broken == said:
                return  # one save can be several changes
            errors = [asdict(e) for e in error.errors]
            self._tell(lambda: self._say.build_failed(name, errors, text))
            return
        self._break(function, str(error), str(error))
        self._say.warn(f"{name}: {_worded(error)}")

    async def _look_again(self, function: _Function) -> None:
        await self._clock.sleep(limits.WATCH_SLACK_S.value)
        await self._update(function, reload=True)

    def _refused(self, function: _Function, violations: tuple[Violation, ...]) -> None:
        entry = function.source.entry
        name = entry.relative_to(self._folder) if entry.is_relative_to(self._folder) else entry
        # what is wrong with the bundle as a whole is told of its entry file
        violations = tuple(v if v.file else replace(v, file=name.as_posix()) for v in violations)
        text = "\n\n".join(v.as_text() for v in violations)
        self._break(function, f"the newest source was refused: {violations[0].message}", text)
        self._tell(lambda: self._say.rejected(function.source.name, violations))

    def _tell(self, say: Callable[[], None]) -> None:
        """Say it now; before the ready line, which comes first, right after that."""
        if self._held is None:
            say()
        else:
            self._held.append(say)

    async def _deploy(self, function: _Function) -> bool:
        """Returns False where the newest source is what serves already.

        Raises:
            AmbaRunError: BuildFailed, or the engine cannot be had.
            Rejected: the bundle may not serve.
        """
        source = function.source
        if source.kind is SourceKind.PYTHON:
            raise Rejected((NO_PYTHON,))
        built = await build(source.entry, BuildOptions(root=self._folder), esbuild=self._esbuild)
        function.inputs = frozenset(built.inputs)
        config = self._config
        own = config.functions.get(source.name)
        settings = (
            self._secrets.env(),
            config.limits_for(source.name, FunctionLimits.dev()),
            config.storage,
            config.compatibility_date,
            own.egress if own is not None and own.egress is not None else NO_RULES,
        )
        serving = (built.bundle.sha256, settings)
        if serving == function.serving and function.route.slot is not None:
            function.route.slot.bundle = built.bundle  # the same code; its map may have moved
            function.route.broken = None
            return False
        project = self.node.projects.all()[0]
        secrets, function_limits, storage, date, egress = settings

        async def start() -> Slot:
            return await self.node.start(
                project,
                source.name,
                built.bundle,
                version=function.version + 1,
                secrets=secrets,
                limits=function_limits,
                storage=storage,
                compatibility_date=date,
                egress=egress,
            )

        slot = await admit(
            built.bundle,
            scan=EsbuildScan(self._esbuild),
            start=start,
            description_of=lambda slot: slot.description,
            discard=self.node.discard,
            name=f"{source.name}.js",
        )
        if function.gone:
            await self.node.discard(slot)
            return False
        function.version += 1
        self._versions[source.name] = function.version
        function.serving = serving
        self.node.activate(function.route, slot)
        return True

    def _break(self, function: _Function, message: str, text: str) -> None:
        function.route.broken = (message, _page(function.source.name, message, text))

    # changes

    def _changed(self, project: Project, paths: frozenset[Path]) -> None:
        """Files changed: update what they concern. Runs on the event loop."""
        if self._stopping:
            return
        replaced = self._watcher.touched(paths) if self._watcher is not None else frozenset[Path]()
        if replaced:
            self._spawn(self._rewatch(replaced))
        settings = {self._folder / name for name in (*CONFIG_FILES, *SECRETS_FILES)}
        if paths & settings:
            self._spawn(self._reconfigure(project))
            return
        for function in self._functions.values():
            if function.inputs & paths and not function.queued:
                self._spawn(self._update(function, reload=True))
        if any(self._concerns_discovery(path) for path in paths):
            self._spawn(self._rediscover(project))

    def _concerns_discovery(self, path: Path) -> bool:
        """A file or folder that may have become an entrypoint, or one that is no more."""
        inside = path.relative_to(self._folder).parts if path.is_relative_to(self._folder) else ()
        if not 1 <= len(inside) <= 2 or any(part[0] in "._" for part in inside):
            return False
        if path.suffix not in ("", *ENTRY_SUFFIXES):
            return False
        known = any(path == f.source.entry for f in self._functions.values())
        return not (known and path.exists())

    async def _rediscover(self, project: Project) -> None:
        """Look at the folder again: serve what is new, drop what is gone."""
        if self._discovery_queued:
            return
        self._discovery_queued = True
        async with self._discovering:
            self._discovery_queued = False
            try:
                found = discover(self._options.path, self._config)
                if self._functions.keys() - {s.name for s in found.functions}:
                    # an editor that replaces a file may leave a moment without one
                    await self._clock.sleep(limits.WATCH_GONE_S.value)
                    found = discover(self._options.path, self._config)
            except UserError as error:
                self._say.warn(_worded(error))
                return
            fresh = self._apply(project, found)
        await asyncio.gather(
            self._rewatch(), *[self._update(function, reload=True) for function in fresh]
        )

    async def _reconfigure(self, project: Project) -> None:
        """Settings or secrets changed: read them, and restart what they concern."""
        try:
            config, secrets = load_config(self._given), load_secrets(self._given)
        except UserError as error:
            self._say.warn(f"the old settings stay: {_worded(error)}")
            return
        before, self._config = self._config, config
        self._secrets = secrets
        self._warn(secrets.warnings)
        if (before.project_slug, before.egress_allow) != (config.project_slug, config.egress_allow):
            self._say.warn("the project's slug and [egress] allow take effect at the next start")
        await self._rediscover(project)
        await asyncio.gather(*[self._update(f, reload=True) for f in self._functions.values()])

    async def _rewatch(self, replaced: frozenset[Path] = frozenset()) -> None:
        """Watch the folders of every input, the folder itself, and its direct subfolders.

        What was saved after it was read and before the watch stood is looked at again, and all
        that lies in folders that were replaced: their files may be of any age.
        """
        if self._watcher is None or self._stopping:
            return
        folders = {path.parent for f in self._functions.values() for path in f.inputs}
        folders.add(self._folder)
        if self._options.path.is_dir():
            with contextlib.suppress(OSError):  # gone in that moment: its coming back is told
                folders.update(
                    child
                    for child in self._folder.iterdir()
                    if child.name[0] not in "._" and child.name != "node_modules" and child.is_dir()
                )
        try:
            stands_anew = await self._watcher.watch(folders)
        except (OSError, TimeoutError) as error:
            self._say.warn(f"changes cannot be watched ({error}); amba-run doctor says more")
            return
        if replaced and not self._folder.is_dir():
            await self._clock.sleep(limits.WATCH_GONE_S.value)
        if stands_anew or replaced:
            project = self.node.projects.all()[0]
            self._spawn(self._rediscover(project))
            for function in self._functions.values():
                if not replaced.isdisjoint(path.parent for path in function.inputs) or _saved_since(
                    function.inputs, function.built_s - limits.WATCH_SLACK_S.value
                ):
                    self._spawn(self._update(function, reload=True))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _worded(error: AmbaRunError) -> str:
    return f"{error}\n  {error.hint}" if isinstance(error, UserError) and error.hint else f"{error}"


def _saved_since(inputs: Iterable[Path], at_s: float) -> bool:
    for path in inputs:
        with contextlib.suppress(OSError):
            if path.stat().st_mtime >= at_s:
                return True
    return False


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

"""One function of a dev server made anew: build, start, judge, switch.

Whatever fails leaves the old version serving, and is told in the terminal and in the browser.
Source: architecture.md section 4; issue "Serve a function" item 6.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable
from dataclasses import asdict, replace

from amba_bundler.build import BuildOptions, build
from amba_bundler.esbuild import Esbuild
from amba_bundler.messages import BuildFailed, render_errors
from amba_bundler.scan import EsbuildScan
from amba_run.dev_functions import DevFunction, Folder
from amba_run.discovery import SourceKind
from amba_run.node import Node
from amba_run.report import Reporter
from amba_runtime import limits
from amba_runtime.admission import admit
from amba_runtime.clock import Clock
from amba_runtime.egress_rules import NO_RULES
from amba_runtime.errors import AmbaRunError, UserCode, UserError
from amba_runtime.limits import FunctionLimits
from amba_runtime.slot import Slot
from amba_runtime.violations import NO_PYTHON, Rejected, Violation


class Reloads:
    """Makes functions anew, a few at once. What it says before `release` waits for that.

    Args:
        look_again: asks for another update a moment later.

    Attributes:
        watching: a change of a file leads to an update; False takes each failure as final.
        stopping: nothing is updated any more.
    """

    def __init__(
        self,
        folder: Folder,
        node: Node,
        *,
        esbuild: Esbuild,
        clock: Clock,
        say: Reporter,
        look_again: Callable[[DevFunction], None],
    ) -> None:
        self.watching = False
        self.stopping = False
        self._folder = folder
        self._node = node
        self._esbuild = esbuild
        self._clock = clock
        self._say = say
        self._look_again = look_again
        self._builds = asyncio.Semaphore(limits.REBUILDS_AT_ONCE.value)
        self._held: list[Callable[[], None]] | None = []

    def release(self) -> None:
        """Say what was held back: the ready line, which comes first, is out."""
        held, self._held = self._held or [], None
        for say in held:
            say()

    async def update(self, function: DevFunction, *, reload: bool) -> bool:
        """Build, start, judge, switch.

        Args:
            reload: tell when it serves.

        Returns:
            True where other files than before are what a change of rebuilds it.
        """
        if function.queued:
            return False
        function.queued = True
        async with function.turn, self._builds:
            function.queued = False
            if self.stopping or function.gone:
                return False
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
        return function.inputs != before

    async def _deploy(self, function: DevFunction) -> bool:
        """Returns False where the newest source is what serves already.

        Raises:
            AmbaRunError: BuildFailed, or the engine cannot be had.
            Rejected: the bundle may not serve.
        """
        source, folder = function.source, self._folder
        if source.kind is SourceKind.PYTHON:
            raise Rejected((NO_PYTHON,))
        built = await build(source.entry, BuildOptions(root=folder.real), esbuild=self._esbuild)
        function.inputs = frozenset(built.inputs)
        config = folder.config
        own = config.functions.get(source.name)
        settings = (
            folder.secrets.env(),
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
        project = self._node.projects.all()[0]
        secrets, function_limits, storage, date, egress = settings

        async def start() -> Slot:
            return await self._node.start(
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
            discard=self._node.discard,
            name=f"{source.name}.js",
        )
        if function.gone:
            await self._node.discard(slot)
            return False
        folder.served(function)
        function.serving = serving
        self._node.activate(function.route, slot)
        return True

    # what is told when it fails

    def _failed(self, function: DevFunction, error: AmbaRunError) -> None:
        """The newest source gave no bundle, or the engine could not start it."""
        name = function.source.name
        if isinstance(error, BuildFailed):
            function.inputs = frozenset(error.inputs)
            if self.watching and error.code is UserCode.ENTRY_NOT_FOUND:
                return  # removed, or being replaced: the next change tells
            if self.watching and function.looks < limits.WATCH_LOOKS.value and function.is_stale():
                function.looks += 1
                self._look_again(function)
                return
            function.looks = 0
            text = render_errors(error.errors)
            said = function.route.broken
            _break(function, f"the newest source does not build: {error.message}", text)
            if function.route.broken == said:
                return  # one save can be several changes
            errors = [asdict(e) for e in error.errors]
            self._tell(lambda: self._say.build_failed(name, errors, text))
            return
        _break(function, str(error), str(error))
        self._say.warn(f"{name}: {worded(error)}")

    def _refused(self, function: DevFunction, violations: tuple[Violation, ...]) -> None:
        entry, root = function.source.entry, self._folder.real
        name = entry.relative_to(root) if entry.is_relative_to(root) else entry
        # what is wrong with the bundle as a whole is told of its entry file
        violations = tuple(v if v.file else replace(v, file=name.as_posix()) for v in violations)
        text = "\n\n".join(v.as_text() for v in violations)
        _break(function, f"the newest source was refused: {violations[0].message}", text)
        self._tell(lambda: self._say.rejected(function.source.name, violations))

    def _tell(self, say: Callable[[], None]) -> None:
        if self._held is None:
            say()
        else:
            self._held.append(say)


def worded(error: AmbaRunError) -> str:
    """Its message, and what to do on a line of its own."""
    return f"{error}\n  {error.hint}" if isinstance(error, UserError) and error.hint else f"{error}"


def _break(function: DevFunction, message: str, text: str) -> None:
    function.route.broken = (message, _page(function.source.name, message, text))


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

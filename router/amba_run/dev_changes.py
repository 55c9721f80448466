"""What a change of a file means to a dev server: which functions it concerns, what is watched.

Source: architecture.md section 4; issue "Serve a function" item 6.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from amba_bundler.esbuild import Esbuild
from amba_router.routes import Project
from amba_run.config import CONFIG_FILES
from amba_run.config_reader import ENTRY_SUFFIXES
from amba_run.dev_functions import DevFunction, Folder
from amba_run.dev_reload import Reloads, worded
from amba_run.node import Node
from amba_run.report import Reporter
from amba_run.secrets_files import SECRETS_FILES
from amba_run.watcher import Watcher
from amba_runtime import limits
from amba_runtime.background import Background
from amba_runtime.clock import Clock
from amba_runtime.errors import UserError


class Changes:
    """Keeps a folder's functions what their files are. `begin` once, `watch` if asked, `close`.

    Args:
        configured: told when other settings are in force, and its functions are what they say.
    """

    def __init__(
        self,
        folder: Folder,
        node: Node,
        *,
        esbuild: Esbuild,
        clock: Clock,
        say: Reporter,
        configured: Callable[[Project], None],
    ) -> None:
        self._configured = configured
        self._folder = folder
        self._node = node
        self._clock = clock
        self._say = say
        self.reloads = Reloads(
            folder, node, esbuild=esbuild, clock=clock, say=say, look_again=self._look_again
        )
        self._background = Background()
        self._watcher: Watcher | None = None
        self._discovering = asyncio.Lock()
        self._discovery_queued = False

    async def begin(self) -> None:
        """Make every function that the folder holds, for the first time."""
        functions = self._folder.functions.values()
        await asyncio.gather(*[self._update(f, reload=False) for f in functions])

    def watch(self, project: Project) -> None:
        """Look for changes from here on."""
        self._watcher = Watcher(lambda paths: self._changed(project, paths))
        self.reloads.watching = True
        self._background.spawn(self._rewatch())

    def stop(self) -> None:
        """Begin nothing more."""
        self.reloads.stopping = True

    async def close(self) -> None:
        """End all that is under way. Idempotent."""
        self.stop()
        if self._watcher is not None:
            await self._watcher.close()
        await self._background.close()

    async def _update(self, function: DevFunction, *, reload: bool = True) -> None:
        if await self.reloads.update(function, reload=reload):
            await self._rewatch()

    def _look_again(self, function: DevFunction) -> None:
        async def look() -> None:
            await self._clock.sleep(limits.WATCH_SLACK_S.value)
            await self._update(function)

        self._background.spawn(look())

    def _warn(self, messages: Iterable[str]) -> None:
        for message in messages:
            self._say.warn(message)

    # what a change concerns

    def _changed(self, project: Project, paths: frozenset[Path]) -> None:
        """Files changed: update what they concern. Runs on the event loop."""
        if self.reloads.stopping:
            return
        folder, spawn = self._folder, self._background.spawn
        replaced = self._watcher.touched(paths) if self._watcher is not None else frozenset[Path]()
        if replaced:
            spawn(self._rewatch(replaced))
        settings = {folder.real / name for name in (*CONFIG_FILES, *SECRETS_FILES)}
        if paths & settings:
            spawn(self._reconfigure(project))
            return
        for function in folder.functions.values():
            if function.inputs & paths and not function.queued:
                spawn(self._update(function))
        if any(self._concerns_discovery(path) for path in paths):
            spawn(self._rediscover(project))

    def _concerns_discovery(self, path: Path) -> bool:
        """A file or folder that may have become an entrypoint, or one that is no more."""
        root = self._folder.real
        inside = path.relative_to(root).parts if path.is_relative_to(root) else ()
        if not 1 <= len(inside) <= 2 or any(part[0] in "._" for part in inside):
            return False
        if path.suffix not in ("", *ENTRY_SUFFIXES):
            return False
        known = any(path == f.source.entry for f in self._folder.functions.values())
        return not (known and path.exists())

    async def _rediscover(self, project: Project) -> None:
        """Look at the folder again: serve what is new, drop what is gone."""
        if self._discovery_queued:
            return
        self._discovery_queued = True
        folder = self._folder
        async with self._discovering:
            self._discovery_queued = False
            try:
                found = folder.discover()
                if folder.functions.keys() - {s.name for s in found.functions}:
                    # an editor that replaces a file may leave a moment without one
                    await self._clock.sleep(limits.WATCH_GONE_S.value)
                    found = folder.discover()
            except UserError as error:
                self._say.warn(worded(error))
                return
            fresh = folder.apply(self._node, project, found)
        await asyncio.gather(self._rewatch(), *[self._update(function) for function in fresh])

    async def _reconfigure(self, project: Project) -> None:
        """Settings or secrets changed: read them, and restart what they concern."""
        folder = self._folder
        try:
            before = folder.reload()
        except UserError as error:
            self._say.warn(f"the old settings stay: {worded(error)}")
            return
        self._warn(folder.secrets.warnings)
        now = folder.config
        if (before.project_slug, before.egress_allow) != (now.project_slug, now.egress_allow):
            self._say.warn("the project's slug and [egress] allow take effect at the next start")
        if (before.seed, before.ai_fixtures) != (now.seed, now.ai_fixtures):
            self._say.warn("[seed] and [ai] fixtures take effect at the next start")
        await self._rediscover(project)
        await asyncio.gather(*[self._update(f) for f in folder.functions.values()])
        self._configured(project)

    async def _rewatch(self, replaced: frozenset[Path] = frozenset()) -> None:
        """Watch the folders of every input, the folder itself, and its direct subfolders.

        What was saved after it was read and before the watch stood is looked at again, and all
        that lies in folders that were replaced: their files may be of any age.
        """
        if self._watcher is None or self.reloads.stopping:
            return
        root, functions = self._folder.real, self._folder.functions
        folders = {path.parent for f in functions.values() for path in f.inputs}
        folders.add(root)
        if self._folder.path.is_dir():
            with contextlib.suppress(OSError):  # gone in that moment: its coming back is told
                folders.update(
                    child
                    for child in root.iterdir()
                    if child.name[0] not in "._" and child.name != "node_modules" and child.is_dir()
                )
        try:
            stands_anew = await self._watcher.watch(folders)
        except (OSError, TimeoutError) as error:
            self._say.warn(f"changes cannot be watched ({error}); amba-run doctor says more")
            return
        if replaced and not root.is_dir():
            await self._clock.sleep(limits.WATCH_GONE_S.value)
        if stands_anew or replaced:
            project = self._node.projects.all()[0]
            self._background.spawn(self._rediscover(project))
            for function in functions.values():
                moved = not replaced.isdisjoint(path.parent for path in function.inputs)
                if moved or function.is_stale():
                    self._background.spawn(self._update(function))

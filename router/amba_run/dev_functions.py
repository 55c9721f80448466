"""What `amba-run dev` serves: one folder, its settings, and its functions with what they are at."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from amba_router.routes import Project, Route
from amba_run.config import ProjectConfig, load_config
from amba_run.discovery import Discovery, FunctionSource, discover, folder_of
from amba_run.node import Node
from amba_run.secrets_files import Secrets, load_secrets
from amba_runtime import limits
from amba_runtime.manifest import FunctionName


@dataclass(slots=True)
class DevFunction:
    """One function of the folder. `inputs` are the files whose change rebuilds it."""

    source: FunctionSource
    route: Route
    inputs: frozenset[Path] = frozenset()
    version: int = 0
    serving: tuple[str, object] | None = None
    """SHA-256 and settings of what serves."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    queued: bool = False
    """An update waits for its turn: it will see whatever is saved until then."""
    gone: bool = False
    """Its source was removed or moved: what is being started for it will not serve."""
    built_s: float = 0.0
    """When its newest build began, by the wall clock."""
    looks: int = 0
    """Builds in a row that failed on files saved just before: perhaps only half of a save."""

    def is_stale(self) -> bool:
        """Whether one of its inputs was saved after its newest build began, or just before."""
        return _saved_since(self.inputs, self.built_s - limits.WATCH_SLACK_S.value)


class Folder:
    """The folder that is served. Its settings are read anew by `reload`.

    Attributes:
        given: as the user named it: what messages show.
        real: what is watched, and compared with the bundler's inputs.
        functions: what it holds by name; changed by `apply` alone.

    Raises:
        UserError: its configuration or secrets cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.given = folder_of(path)
        self.real = Path(os.path.realpath(self.given))
        self.config: ProjectConfig = load_config(self.given)
        self.secrets: Secrets = load_secrets(self.given)
        self.functions: dict[FunctionName, DevFunction] = {}
        self._versions: dict[FunctionName, int] = {}

    @property
    def ai_fixtures(self) -> Path | None:
        """The folder with recorded replies of AI prompts, if one is named."""
        named = self.config.ai_fixtures
        return None if named is None else self.config.folder / named

    def missing(self) -> list[str]:
        """What the settings name and is not there, in sentences."""
        replies = self.ai_fixtures
        if replies is None or replies.is_dir():
            return []
        return [f"[ai] fixtures: {replies} is no folder: no recorded reply is given"]

    def reload(self) -> ProjectConfig:
        """Read the settings and secrets; returns the settings before.

        Raises:
            UserError: the old ones stay.
        """
        config, secrets = load_config(self.given), load_secrets(self.given)
        before, self.config, self.secrets = self.config, config, secrets
        return before

    def discover(self) -> Discovery:
        """What the folder holds by now. Raises UserError."""
        return discover(self.path, self.config)

    def apply(self, node: Node, project: Project, found: Discovery) -> list[DevFunction]:
        """Take in what was found; returns the functions that are new or moved."""
        fresh: list[DevFunction] = []
        sources = {s.name: s for s in found.functions}
        for name in [n for n in self.functions if n not in sources]:
            gone = self.functions.pop(name)
            gone.gone = True
            del project.routes[name.encode()]
            if gone.route.slot is not None:
                node.retire(gone.route.slot)
        for name, source in sources.items():
            known = self.functions.get(name)
            if known is None or known.source != source:
                if known is not None:
                    known.gone = True
                made = DevFunction(
                    source, node.route(project, name), version=self._versions.get(name, 0)
                )
                self.functions[name] = made
                fresh.append(made)
        return fresh

    def served(self, function: DevFunction) -> None:
        """Count a version: a function that comes back goes on from there."""
        function.version += 1
        self._versions[function.source.name] = function.version


def _saved_since(inputs: Iterable[Path], at_s: float) -> bool:
    for path in inputs:
        with contextlib.suppress(OSError):
            if path.stat().st_mtime >= at_s:
                return True
    return False

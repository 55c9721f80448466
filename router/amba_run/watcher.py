"""Watching exactly the folders that matter, and telling which files in them changed.

Folders are watched, not files: editors replace files, and a watch on the old one would go
blind. Nothing recursive: a big tree beside the function costs nothing. A folder that is replaced
takes its watch along: `touched` tells, and the next `watch` starts anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from amba_runtime import limits

if TYPE_CHECKING:
    from watchfiles._rust_notify import RustNotify

_DELETED = 3
"""A kind of change in `watchfiles`."""


class Watcher:
    """Calls `changed(paths)` on the event loop. `watch` as often as needed, `close` at the end."""

    def __init__(self, changed: Callable[[frozenset[Path]], None]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._asked: frozenset[Path] = frozenset()
        # folders with a watch, and what tells each from another at the same path; emptied when
        # one of them is removed: a new folder may even have the number of the old one
        self._folders: frozenset[tuple[Path, int, int]] = frozenset()
        self._removals = 0
        self._stop: threading.Event | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    async def watch(self, folders: Iterable[Path]) -> bool:
        """Watch these folders, and no others, from here on.

        Instead of one that is not there, the nearest above it is watched, for its coming.

        Returns:
            True once a new watch stands; False where the folders are those watched already.
            Between two watches nothing is missed: the new one starts first.

        Raises:
            OSError: the system gives no watch (too many, or no permission); the old one stays.
        """
        async with self._turn:
            self._asked = asked = frozenset(folders)
            removals = self._removals
            wanted = frozenset(map(_identified, asked))
            if wanted == self._folders or self._closed:
                return False
            stop = threading.Event()
            stands: asyncio.Future[None] = self._loop.create_future()
            threading.Thread(
                target=self._run,
                args=(sorted({path for path, _, _ in wanted}), stop, stands),
                name="amba-watch",
                daemon=True,
            ).start()
            try:
                await asyncio.wait_for(stands, limits.WATCH_OPEN_S.value)
            except BaseException:
                stop.set()
                raise
            old, self._stop = self._stop, stop
            self._folders = wanted if self._removals == removals else frozenset()
            if old is not None:
                old.set()
            if self._closed:
                stop.set()
            return True

    def touched(self, paths: frozenset[Path]) -> frozenset[Path]:
        """Those of the folders asked for that were removed, replaced or made, if these changed."""
        return frozenset(f for f in self._asked if not paths.isdisjoint((f, *f.parents)))

    def _told(self, changes: set[tuple[int, str]]) -> None:
        if self.touched(frozenset(Path(path) for kind, path in changes if kind == _DELETED)):
            self._folders = frozenset()
            self._removals += 1
        self._changed(frozenset(Path(path) for _, path in changes))

    def _run(
        self, folders: list[Path], stop: threading.Event, stands: asyncio.Future[None]
    ) -> None:
        try:
            notify = _notify(folders)
        except (OSError, RuntimeError) as error:  # RuntimeError: no more watchers for this user
            self._call(_settle, stands, OSError(str(error)))
            return
        self._call(_settle, stands, None)
        debounce_ms, step_ms = limits.WATCH_DEBOUNCE_MS.value, limits.WATCH_STEP_MS.value
        with notify:
            while not stop.is_set():
                changes = notify.watch(debounce_ms, step_ms, 1000, stop)
                if isinstance(changes, set):
                    self._call(self._told, changes)

    def _call(self, what: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and so shall we
            self._loop.call_soon_threadsafe(what, *args)

    async def close(self) -> None:
        """Stop watching. Threads end by themselves; they are not waited for."""
        self._closed = True
        if self._stop is not None:
            self._stop.set()
            self._stop = None
        self._folders = frozenset()


def _identified(folder: Path) -> tuple[Path, int, int]:
    """The folder, or the nearest above it that is one."""
    while True:
        with contextlib.suppress(OSError):
            facts = folder.stat()
            if stat.S_ISDIR(facts.st_mode):
                return folder, facts.st_dev, facts.st_ino
        folder = folder.parent


def _notify(folders: list[Path]) -> RustNotify:
    # imported in the watching thread: it takes a while, and the first requests come now
    from watchfiles._rust_notify import RustNotify

    # debug, polling, its delay, recursive, and whether to overlook folders we may not read
    return RustNotify([str(folder) for folder in folders], False, False, 300, False, True)


def _settle(stands: asyncio.Future[None], error: OSError | None) -> None:
    if not stands.done():
        if error is None:
            stands.set_result(None)
        else:
            stands.set_exception(error)

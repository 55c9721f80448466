"""Watching exactly the files that matter, and telling which changed.

Folders are watched, not files: editors replace files, and a watch on the old one would go
blind. Nothing recursive: a big tree beside the function costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from amba_runtime import limits


class Watcher:
    """Calls `changed(paths)` on the event loop. `watch` as often as needed, `close` at the end."""

    def __init__(self, changed: Callable[[frozenset[Path]], None]) -> None:
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._folders: frozenset[Path] = frozenset()
        self._stop: threading.Event | None = None
        self._threads: set[threading.Thread] = set()

    def watch(self, folders: Iterable[Path]) -> None:
        """Watch these folders, and no others, from here on."""
        wanted = frozenset(f for f in folders if f.is_dir())
        if wanted == self._folders:
            return
        self._folders = wanted
        old, self._stop = self._stop, threading.Event()
        thread = threading.Thread(
            target=self._run, args=(sorted(wanted), self._stop), name="amba-watch", daemon=True
        )
        self._threads = {t for t in self._threads if t.is_alive()} | {thread}
        thread.start()
        if old is not None:
            old.set()  # the new watch starts first: between the two nothing is missed

    def _run(self, folders: list[Path], stop: threading.Event) -> None:
        import watchfiles

        for changes in watchfiles.watch(
            *folders,
            watch_filter=None,
            debounce=int(limits.WATCH_DEBOUNCE_MS.value),
            step=int(limits.WATCH_STEP_MS.value),
            rust_timeout=1000,
            yield_on_timeout=False,
            stop_event=stop,
            raise_interrupt=False,
            recursive=False,
        ):
            paths = frozenset(Path(path) for _, path in changes)
            with contextlib.suppress(RuntimeError):  # the loop has ended, and so shall we
                self._loop.call_soon_threadsafe(self._changed, paths)

    async def close(self) -> None:
        """Stop watching. Threads end by themselves; they are not waited for."""
        if self._stop is not None:
            self._stop.set()
            self._stop = None
        self._folders = frozenset()

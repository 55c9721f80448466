"""Folders are watched and changes told on the loop; a new watch misses nothing of the old."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from amba_run import watcher as watching
from amba_run.watcher import Watcher


class Changes:
    """Collects what is told."""

    def __init__(self) -> None:
        self.paths: set[Path] = set()
        self.news = asyncio.Event()

    def __call__(self, paths: frozenset[Path]) -> None:
        self.paths |= paths
        self.news.set()

    async def until(self, path: Path) -> None:
        """Wait for a change of this file."""
        async with asyncio.timeout(5):
            while path not in self.paths:
                self.news.clear()
                await self.news.wait()


def watched(work: Callable[[Watcher, Changes], Awaitable[None]]) -> None:
    """Run with a watcher that is closed at the end."""

    async def run() -> None:
        changes = Changes()
        watcher = Watcher(changes)
        try:
            await work(watcher, changes)
        finally:
            await watcher.close()

    asyncio.run(run())


def test_a_save_is_told_at_once_after_watch_returns(tmp_path: Path) -> None:
    """`watch` returns when the watch stands: the next save is seen."""

    async def work(watcher: Watcher, changes: Changes) -> None:
        assert await watcher.watch([tmp_path])
        (tmp_path / "a").write_text("1")
        await changes.until(tmp_path / "a")

    watched(work)


def test_the_same_folders_are_not_watched_twice(tmp_path: Path) -> None:
    """A repeated call does nothing, nor does a folder that is not there yet."""

    async def work(watcher: Watcher, _: Changes) -> None:
        assert await watcher.watch([tmp_path, tmp_path])
        assert not await watcher.watch([tmp_path, tmp_path / "nowhere"])

    watched(work)


def test_moving_the_watch(tmp_path: Path) -> None:
    """New folders are told of, old ones no more; nothing is recursive."""
    for name in ("one", "two", "two/deep"):
        (tmp_path / name).mkdir()

    async def work(watcher: Watcher, changes: Changes) -> None:
        assert await watcher.watch([tmp_path / "one"])
        assert await watcher.watch([tmp_path / "two"])
        (tmp_path / "one" / "a").write_text("1")
        (tmp_path / "two" / "deep" / "b").write_text("1")
        (tmp_path / "two" / "c").write_text("1")
        await changes.until(tmp_path / "two" / "c")
        assert not {tmp_path / "two" / "deep" / "b"} & changes.paths

    watched(work)


def test_a_closed_watcher_stays_closed(tmp_path: Path) -> None:
    """`close` is idempotent, and `watch` after it does nothing."""

    async def work(watcher: Watcher, changes: Changes) -> None:
        await watcher.watch([tmp_path])
        await watcher.close()
        assert not await watcher.watch([tmp_path])
        assert changes.paths == set()

    watched(work)


def test_a_refused_watch_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the system gives no more watches, that is told, and the old folders are still seen."""
    (tmp_path / "more").mkdir()

    async def work(watcher: Watcher, changes: Changes) -> None:
        await watcher.watch([tmp_path])

        def refuse(_: list[Path]) -> None:
            raise RuntimeError("OS file watch limit reached")

        with monkeypatch.context() as patch:
            patch.setattr("amba_run.watcher._notify", refuse)
            with pytest.raises(OSError, match="watch limit reached"):
                await watcher.watch([tmp_path, tmp_path / "more"])
        (tmp_path / "a").write_text("1")
        await changes.until(tmp_path / "a")

    watched(work)


def replaced_by_removal(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def replaced_by_rename(folder: Path) -> None:
    fresh = folder.with_name("fresh")
    fresh.mkdir()
    folder.rename(folder.with_name("aside"))
    fresh.rename(folder)


@pytest.mark.parametrize("replace", [replaced_by_removal, replaced_by_rename])
def test_a_replaced_folder_is_watched_anew(tmp_path: Path, replace: Callable[[Path], None]) -> None:
    """Its watch went with it: that is told, and the next `watch` sees the new folder."""
    folder = tmp_path / "lib"
    folder.mkdir()

    async def work(watcher: Watcher, changes: Changes) -> None:
        await watcher.watch([folder])
        replace(folder)
        await changes.until(folder)
        assert watcher.touched(frozenset([folder])) == {folder}
        assert await watcher.watch([folder])
        (folder / "a").write_text("1")
        await changes.until(folder / "a")

    watched(work)


def test_a_folder_removed_while_a_watch_is_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the new watch stands on, the next call starts another."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "more").mkdir()

    async def work(watcher: Watcher, changes: Changes) -> None:
        await watcher.watch([tmp_path / "lib"])
        setting_up, go_on = threading.Event(), threading.Event()

        notify = watching._notify  # pyright: ignore[reportPrivateUsage]

        def slow(folders: list[Path]) -> Any:
            made = notify(folders)
            setting_up.set()
            assert go_on.wait(5)
            return made

        with monkeypatch.context() as patch:
            patch.setattr("amba_run.watcher._notify", slow)
            both = [tmp_path / "lib", tmp_path / "more"]
            second = asyncio.create_task(watcher.watch(both))
            await asyncio.to_thread(setting_up.wait, 5)
            replaced_by_removal(tmp_path / "lib")
            await changes.until(tmp_path / "lib")
            go_on.set()
            assert await second
        assert await watcher.watch(both)
        (tmp_path / "lib" / "a").write_text("1")
        await changes.until(tmp_path / "lib" / "a")

    watched(work)


def test_a_folder_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    """The nearest folder above it tells of its coming, step by step."""
    deep = tmp_path / "one" / "two"

    async def work(watcher: Watcher, changes: Changes) -> None:
        assert await watcher.watch([deep])
        deep.parent.mkdir()
        await changes.until(deep.parent)
        assert watcher.touched(frozenset([deep.parent])) == {deep}
        assert await watcher.watch([deep])
        deep.mkdir()
        await changes.until(deep)
        assert await watcher.watch([deep])
        (deep / "a").write_text("1")
        await changes.until(deep / "a")
        assert watcher.touched(frozenset([deep / "a", tmp_path / "other"])) == frozenset()

    watched(work)

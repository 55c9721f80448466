"""The daily purge: at 03:00 UTC, by the clock (contract E.7)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import World
from tests.router.services.media.lab import PNG, Lab, run

from amba_router.api.callers import Directory
from amba_router.services.media.purge import last_ms, wait_s
from amba_router.store import media_rows
from amba_router.store.project_store import ProjectStore
from amba_run.media import Media
from amba_runtime import limits
from amba_runtime.background import Background

HOUR_S = 3600
DAY_S = 24 * HOUR_S


async def rows(lab: Lab) -> int:
    """How many assets there are, whatever their state."""
    return await ProjectStore(lab.world.states).read(lab.id, media_rows.count)


async def left(lab: Lab, count: int) -> None:
    """Wait until a purge has left so many: it works beside the clock, in the store's threads."""
    for _ in range(2000):
        if await rows(lab) == count:
            return
    raise AssertionError(f"{await rows(lab)} assets are left, not {count}")


@pytest.mark.parametrize(
    ("now", "last", "wait"),
    [
        ("2026-01-01T00:00:00", "2025-12-31T03:00:00", 3 * HOUR_S),
        ("2026-01-01T02:59:59", "2025-12-31T03:00:00", 1),
        ("2026-01-01T03:00:00", "2026-01-01T03:00:00", DAY_S),
        ("2026-01-01T23:00:00", "2026-01-01T03:00:00", 4 * HOUR_S),
    ],
)
def test_when_it_is_due(now: str, last: str, wait: float) -> None:
    """At 03:00 UTC; the clock is looked at in between, as it may jump (E.7)."""

    def ms(text: str) -> int:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)

    assert last_ms(ms(now)) == ms(last)
    assert wait_s(ms(now)) == min(wait, limits.MEDIA_LOOK_S.value)


def test_retention_is_acted_on(tmp_path: Path) -> None:
    """An asset of one day is there for a day, and gone after the 03:00 that follows (E.7)."""

    async def work(lab: Lab) -> None:
        kept, short = await lab.upload(), await lab.upload(retention_days=1)
        long = await lab.upload(retention_days=3)
        await lab.world.clock.advance(DAY_S + 3 * HOUR_S - 1)
        assert (await lab.cdn(short["url"]))[2] == PNG
        assert await rows(lab) == 3
        await lab.world.clock.advance(1)
        await left(lab, 2)
        assert (await lab.cdn(short["url"]))[0] == 404
        assert (await lab.client("GET", f"media/{short['id']}")).said == (404, "NOT_FOUND")
        await lab.world.clock.advance(2 * DAY_S)
        await left(lab, 1)
        assert (await lab.cdn(long["url"]))[0] == 404
        assert (await lab.cdn(kept["url"]))[2] == PNG

    run(tmp_path, work)


def test_uploads_that_were_never_done_go(tmp_path: Path) -> None:
    """A day after their URL's end: what was put and not committed, and what never came (E.7)."""

    async def work(lab: Lab) -> None:
        await lab.presign()
        put = await lab.presign()
        await lab.put(put["upload_url"])
        await lab.client("POST", "media/upload", {})
        await lab.world.clock.advance(DAY_S + 600)
        assert await rows(lab) == 3
        assert len(await lab.keys()) == 1
        await lab.world.clock.advance(3 * HOUR_S)
        await left(lab, 0)
        assert await lab.keys() == []
        assert (await lab.commit(put)).said == (404, "UPLOAD_NOT_FOUND")

    run(tmp_path, work)


def test_a_deletion_that_broke_off_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object that could not be deleted goes with the next purge; its asset is gone at once."""

    async def work(lab: Lab) -> None:
        asset = await lab.upload()

        async def fails(*_: Any) -> None:
            raise OSError("the disk is away")

        with monkeypatch.context() as patched:
            patched.setattr(lab.world.storage, "delete", fails)
            got = await lab.client("DELETE", f"media/{asset['id']}")
            assert got.status == 500
        assert (await lab.client("GET", f"media/{asset['id']}")).said == (404, "NOT_FOUND")
        assert len(await lab.keys()) == 1
        await lab.world.clock.advance(3 * HOUR_S)
        await left(lab, 0)
        assert await lab.keys() == []

    run(tmp_path, work)


def test_a_purge_that_fails_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Other projects are purged all the same, and it itself the next day."""

    async def work(lab: Lab) -> None:
        other = Lab(lab.world, await lab.world.project("Other"))
        for one in (lab, other):
            await one.upload(retention_days=1)
        delete = lab.world.storage.delete

        async def fails(project_id: Any, keys: Any) -> None:
            if project_id == lab.id:
                raise OSError("the disk is away")
            await delete(project_id, keys)

        with monkeypatch.context() as patched:
            patched.setattr(lab.world.storage, "delete", fails)
            await lab.world.clock.advance(DAY_S + 3 * HOUR_S)
            await left(other, 0)
        assert "media.purge_failed" in caplog.text
        assert await rows(lab) == 1
        await lab.world.clock.advance(DAY_S)
        await left(lab, 0)

    run(tmp_path, work)


def test_many_go_in_bounded_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MEDIA_PURGE assets at a time, until none is due."""

    async def work(lab: Lab) -> None:
        monkeypatch.setattr(limits, "MEDIA_PURGE", limits.Limit(2, "assets", "", ""))
        for _ in range(5):
            await lab.upload(retention_days=1)
        await lab.world.clock.advance(DAY_S + 3 * HOUR_S)
        await left(lab, 0)

    run(tmp_path, work)


def test_what_was_missed_is_made_up_for(tmp_path: Path) -> None:
    """A server that was away at 03:00 purges with its first request."""

    async def main() -> None:
        async with World(tmp_path) as world:
            lab = Lab(world, await world.project())
            await lab.upload(retention_days=1)
            await world.emulation.close()
            await world.clock.advance(2 * DAY_S)
            assert await rows(lab) == 1
            await world.restart()
            assert (await lab.client("GET", "media")).status == 200
            await left(lab, 0)

    asyncio.run(main())


def test_nothing_begins_after_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ends may still make its operations; no purge is left behind (ours)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            spawned: list[str] = []
            spawn = Background.spawn

            def told(self: Background, work: Coroutine[Any, Any, None]) -> None:
                spawned.append(str(getattr(work, "__qualname__", work)))
                spawn(self, work)

            monkeypatch.setattr(Background, "spawn", told)
            directory = Directory(await world.store.snapshot(), world.clock)
            media = Media(world.states, world.storage, directory, world.clock, reach=None)
            assert list(media.operations())
            assert spawned == ["Media._daily", "Media._purge"]
            await media.close()
            assert list(media.operations())
            assert spawned == ["Media._daily", "Media._purge"]

    asyncio.run(main())

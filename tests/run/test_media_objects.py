"""STORAGE as the media service wants it (contract E.7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from amba_router.services.media.objects import Held, Taken
from amba_router.services.storage.rules import Fault, R2Error
from amba_router.services.storage.service import StorageService
from amba_run.media_objects import StorageObjects
from amba_runtime.clock import ManualClock

MD5 = "9dd4e461268c8034f5c8564e155c67a6"  # of x


async def body(data: bytes) -> AsyncIterator[bytes]:
    yield data


def test_objects(tmp_path: Path) -> None:
    """Put, put anew, told when taken, read, deleted; what is not there is None."""

    async def main() -> None:
        storage = StorageService(tmp_path, ManualClock())
        objects = StorageObjects(storage)
        try:
            held = Held(1, MD5, "a/b")
            put = await objects.put("p", "b/k", body(b"x"), content_type="a/b", fresh=True)
            assert put == held == await objects.head("p", "b/k")
            with pytest.raises(Taken) as taken:
                await objects.put("p", "b/k", body(b"y"), content_type="a/b", fresh=True)
            assert taken.value.etag == MD5
            assert await objects.head("q", "b/k") is None
            found = await objects.open("p", "b/k")
            assert found is not None
            assert found[0] == held
            assert [piece async for piece in found[1]] == [b"x"]
            await objects.put("p", "b/k", body(b"yy"), content_type="c/d", fresh=False)
            assert (await objects.head("p", "b/k") or held).content_type == "c/d"
            await objects.delete("p", ["b/k", "b/none"])
            assert await objects.open("p", "b/k") is None
        finally:
            await storage.close()

    asyncio.run(main())


def test_other_refusals_pass_through(tmp_path: Path) -> None:
    """A key that STORAGE does not take is nobody's absence."""

    async def main() -> None:
        storage = StorageService(tmp_path, ManualClock())
        objects = StorageObjects(storage)
        try:
            for attempt in (
                objects.put("p", "", body(b""), content_type="a/b", fresh=True),
                objects.head("p", "k" * 1025),
                objects.open("p", ""),
            ):
                with pytest.raises(R2Error) as refusal:
                    await attempt
                assert refusal.value.fault is Fault.INVALID_OBJECT_NAME
        finally:
            await storage.close()

    asyncio.run(main())

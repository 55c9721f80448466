"""StorageService: lazy, durable, whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from amba_router.services.storage.cursor import decode_cursor, encode_cursor
from amba_router.services.storage.rules import Fault, R2Error
from amba_router.services.storage.service import ObjectRead, StorageService
from amba_router.store.blobs import Blobs
from amba_router.store.records import Metadata
from amba_router.store.state import State
from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.errors import InternalCode, InternalError, UserCode, UserError
from amba_runtime.manifest import ProjectId

P = ProjectId("p-1")
Q = ProjectId("p-2")


async def body(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def text(read: ObjectRead) -> bytes:
    return await read.body.read()


@contextlib.asynccontextmanager
async def opened(state: Path, clock: ManualClock | None = None) -> AsyncGenerator[StorageService]:
    service = StorageService(state, clock or ManualClock())
    try:
        yield service
    finally:
        await service.close()
        await service.close()


def blob_files(state: Path) -> list[Path]:
    return list((state / "blobs").glob("??/*"))


@pytest.mark.slow
def test_importing_the_service_does_not_import_sqlalchemy() -> None:
    """A dev server that never touches STORAGE never pays for the store."""
    code = (
        "import sys, amba_router.services.storage.service, amba_router.services.storage.routes,"
        " amba_router.services.storage.r2_wire; sys.exit('sqlalchemy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_is_made_before_the_first_use(tmp_path: Path) -> None:
    """Lazy: making and closing a service touches no file."""

    async def main() -> None:
        async with opened(tmp_path / "state"):
            pass
        assert not (tmp_path / "state").exists()

    asyncio.run(main())


def test_objects_survive_a_restart(tmp_path: Path) -> None:
    """What was acknowledged is there after close and open (architecture.md 7)."""

    async def main() -> None:
        async with opened(tmp_path) as service:
            new = await service.put(
                P, "k", body(b"va", b"lue"), metadata=Metadata({}, (("a", "b"),))
            )
        async with opened(tmp_path) as service:
            read = await service.get(P, "k")
            assert read.found == new
            assert await text(read) == b"value"

    asyncio.run(main())


def test_projects_do_not_meet(tmp_path: Path) -> None:
    """Keys, lists, uploads and cursors belong to one project (T16)."""

    async def main() -> None:
        async with opened(tmp_path) as service:
            await service.put(P, "k", body(b"p"))
            await service.put(Q, "k", body(b"q"))
            upload_id = await service.create_upload(P, "k")
            with pytest.raises(R2Error):
                await service.upload_part(Q, "k", upload_id, 1, body(b"x"))
            await service.delete(Q, ["k"])
            assert await text(await service.get(P, "k")) == b"p"
            assert (await service.list(Q)).entries == ()
            last = (await service.list(P)).entries[-1]
            cursor = encode_cursor(P, last)
            assert decode_cursor(P, cursor) == b"k\0"
            with pytest.raises(R2Error) as caught:
                await service.list(Q, cursor=cursor)
            assert caught.value.fault is Fault.INVALID_ARGUMENT
            for odd in ("A", "?", "é", cursor[:-4]):
                with pytest.raises(R2Error, match="cursor"):
                    await service.list(P, cursor=odd)

    asyncio.run(main())


@pytest.mark.parametrize("sent", [0, 1, 300_000, 2_000_000])
def test_a_body_that_breaks_off_stores_nothing(tmp_path: Path, sent: int) -> None:
    """An aborted put leaves no object and no file, at any size (H7)."""

    async def broken() -> AsyncIterator[bytes]:
        left = sent
        while left > 0:
            yield b"x" * min(left, 65_536)
            left -= 65_536
        raise ConnectionError("the peer left")

    async def main() -> None:
        async with opened(tmp_path) as service:
            await service.put(P, "k", body(b"old"))
            with pytest.raises(ConnectionError):
                await service.put(P, "k", broken())
            upload_id = await service.create_upload(P, "m")
            with pytest.raises(ConnectionError):
                await service.upload_part(P, "m", upload_id, 1, broken())
            assert await text(await service.get(P, "k")) == b"old"
            assert list((tmp_path / "blobs" / "incoming").iterdir()) == []
            assert len(blob_files(tmp_path)) == 1

    asyncio.run(main())


def test_a_cancelled_put_stores_nothing(tmp_path: Path) -> None:
    """The same when the request is cancelled half-way (H7)."""

    async def main() -> None:
        async with opened(tmp_path) as service:
            started = asyncio.Event()

            async def endless() -> AsyncIterator[bytes]:
                yield b"x" * 400_000
                started.set()
                await asyncio.Event().wait()

            task = asyncio.create_task(service.put(P, "k", endless()))
            await started.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(R2Error):
                await service.head(P, "k")
            assert list((tmp_path / "blobs" / "incoming").iterdir()) == []

    asyncio.run(main())


def test_a_value_past_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest value of R2, with a smaller number in its place."""
    monkeypatch.setattr(limits, "STORAGE_VALUE", limits.Limit(10, "bytes", "one put", "test"))

    async def main() -> None:
        async with opened(tmp_path) as service:
            assert (await service.put(P, "k", body(b"1234567890"))).size == 10
            with pytest.raises(R2Error) as caught:
                await service.put(P, "k", body(b"12345678901"))
            assert caught.value.fault is Fault.ENTITY_TOO_LARGE

    asyncio.run(main())


def test_blobs_go_with_their_last_object(tmp_path: Path) -> None:
    """Equal bytes are kept once, and go when nobody refers to them."""

    async def main() -> None:
        async with opened(tmp_path) as service:
            for key in ("a", "b", "c"):
                await service.put(P, key, body(b"same"))
            assert len(blob_files(tmp_path)) == 1
            await service.delete(P, ["a"])
            await service.put(P, "b", body(b"other"))
            assert len(blob_files(tmp_path)) == 2
            await service.delete(P, ["b", "c"])
            assert blob_files(tmp_path) == []

    asyncio.run(main())


def test_a_reader_keeps_the_old_bytes(tmp_path: Path) -> None:
    """Overwritten and deleted while read: the old object, whole; its blob goes later (H7)."""
    value = bytes(range(256)) * 4096  # 1 MiB: four chunks

    async def main() -> None:
        async with opened(tmp_path) as service:
            await service.put(P, "k", body(value))
            read = await service.get(P, "k")
            await service.put(P, "k", body(b"new"))
            await service.delete(P, ["k"])
            assert await text(read) == value
            await service.delete(P, ["none"])  # the next write takes away what was waiting
            assert blob_files(tmp_path) == []

    asyncio.run(main())


def test_puts_gets_and_deletes_at_once_never_mix(tmp_path: Path) -> None:
    """Races on one key: every reader sees one whole value or none (H7)."""
    values = [bytes([65 + n]) * 300_000 for n in range(4)]

    async def main() -> None:
        async with opened(tmp_path) as service:

            async def write(value: bytes) -> None:
                for _ in range(3):
                    await service.put(P, "k", body(value))
                    await service.list(P)
                    await service.delete(P, ["k"])

            async def look() -> None:
                for _ in range(12):
                    seen = values[0]
                    with contextlib.suppress(R2Error):  # it is not there at the moment
                        seen = await text(await service.get(P, "k"))
                    assert seen in values

            await asyncio.gather(*(write(v) for v in values), look(), look())

    asyncio.run(main())


def test_damaged_bytes_are_told_before_anything_is_sent(tmp_path: Path) -> None:
    """A flipped bit, a lost file: an error, never wrong bytes (I8)."""

    async def main() -> None:
        async with opened(tmp_path) as service:
            await service.put(P, "k", body(b"value"))
            (file,) = blob_files(tmp_path)
            file.write_bytes(b"Value")
            with pytest.raises(InternalError) as caught:
                await service.get(P, "k")
            assert caught.value.code is InternalCode.BLOB_DAMAGED
            file.unlink()
            with pytest.raises(InternalError, match="no file"):
                await service.get(P, "k")
            assert (await service.put(P, "k", body(b"value"))).size == 5
            assert await text(await service.get(P, "k")) == b"value"

    asyncio.run(main())


def test_a_failed_transaction_takes_its_blob_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No space for the row: nothing is stored, nothing left over, the next put works (I2)."""

    async def main() -> None:
        async with opened(tmp_path) as service:
            await service.open()
            from amba_router.store import objects

            def no_space(*_: object) -> set[str]:
                raise OSError(28, "No space left on device")

            with monkeypatch.context() as patch:
                patch.setattr(objects, "replace", no_space)
                with pytest.raises(UserError, match="no space left") as caught:
                    await service.put(P, "k", body(b"value"))
                assert caught.value.code is UserCode.DISK_FULL
            assert blob_files(tmp_path) == []
            assert (await service.put(P, "k", body(b"value"))).size == 5

    asyncio.run(main())


def test_uploads_past_their_time_go_at_open(tmp_path: Path) -> None:
    """Unfinished uploads are kept for seven days, as R2 does by default."""

    async def main() -> None:
        clock = ManualClock()
        async with opened(tmp_path, clock) as service:
            upload_id = await service.create_upload(P, "k")
            await service.upload_part(P, "k", upload_id, 1, body(b"part"))
        clock.jump(limits.STORAGE_UPLOAD_S.value)
        async with opened(tmp_path, clock) as service:
            await service.open()
            assert len(blob_files(tmp_path)) == 1
        clock.jump(1)
        async with opened(tmp_path, clock) as service:
            with pytest.raises(R2Error) as caught:
                await service.upload_part(P, "k", upload_id, 1, body(b"part"))
            assert caught.value.fault is Fault.NO_SUCH_UPLOAD
            assert blob_files(tmp_path) == []

    asyncio.run(main())


def test_part_numbers_are_checked(tmp_path: Path) -> None:
    """1 to 10,000; outside is refused."""

    async def main() -> None:
        async with opened(tmp_path) as service:
            upload_id = await service.create_upload(P, "k")
            for number in (0, limits.STORAGE_PARTS.value + 1):
                with pytest.raises(R2Error, match="1 to 10000"):
                    await service.upload_part(P, "k", upload_id, number, body(b"x"))

    asyncio.run(main())


def test_a_folder_in_use_is_waited_for_then_refused(tmp_path: Path) -> None:
    """A start waits up to 5 s for the previous owner (architecture.md 7), then names the folder."""

    async def main() -> None:
        owner = Blobs(tmp_path / "blobs")
        assert owner.try_open()
        clock = ManualClock()
        async with opened(tmp_path, clock) as service:
            opening = asyncio.create_task(service.open())
            while not opening.done():
                await asyncio.sleep(0)
                await clock.advance(0.1)
            with pytest.raises(UserError) as caught:
                await opening
            assert caught.value.code is UserCode.STATE_IN_USE
            assert str(tmp_path) in caught.value.message
            assert clock.monotonic_s() >= limits.STORE_LOCK_S.value
            owner.close()
            await service.open()  # the next use tries again

    asyncio.run(main())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file where the state folder should be: say so, and what to do."""
    (tmp_path / "state").write_text("a file")

    async def main() -> None:
        async with opened(tmp_path / "state") as service:
            with pytest.raises(UserError, match="cannot be used as a state folder") as caught:
                await service.open()
            assert caught.value.code is UserCode.STATE_DAMAGED

    asyncio.run(main())


def test_a_database_of_a_newer_program_is_refused_and_let_go(tmp_path: Path) -> None:
    """The folder's lock is not kept after a refusal."""
    (tmp_path / "amba.db").write_bytes(b"no database" * 1000)

    async def main() -> None:
        async with opened(tmp_path) as service:
            with pytest.raises(UserError):
                await service.head(P, "k")
            other = Blobs(tmp_path / "blobs")
            assert other.try_open()
            other.close()

    asyncio.run(main())


def test_a_shared_state_is_used_and_left_open(tmp_path: Path) -> None:
    """A node opens the state once for STORAGE and the control plane; who opens closes."""

    async def main() -> None:
        state = await State.open(tmp_path, ManualClock())
        service = StorageService(state, ManualClock())
        await service.open()
        await service.put(P, "k", body(b"value"))
        await service.close()
        with pytest.raises(InternalError):
            await service.head(P, "k")
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(state.close)
            again = StorageService(state, ManualClock())
            assert await text(await again.get(P, "k")) == b"value"
            await again.close()

    asyncio.run(main())


def test_use_after_close_is_an_error_of_ours(tmp_path: Path) -> None:
    """Nothing opens again behind a close."""

    async def main() -> None:
        service = StorageService(tmp_path, ManualClock())
        await service.put(P, "k", body(b"x"))
        await service.close()
        with pytest.raises(InternalError):
            await service.head(P, "k")

    asyncio.run(main())


def test_a_put_that_is_closed_upon_leaves_nothing(tmp_path: Path) -> None:
    """Closing while a body arrives: the put fails, the next open clears the folder."""

    async def main() -> None:
        service = StorageService(tmp_path, ManualClock())
        go = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"x" * 300_000
            written.set()  # asked for more: the first chunk is in its file
            await go.wait()
            yield b"y"

        written = asyncio.Event()
        task = asyncio.create_task(service.put(P, "k", slow()))
        await written.wait()
        assert len(list((tmp_path / "blobs" / "incoming").iterdir())) == 1
        await service.close()
        go.set()
        with pytest.raises(RuntimeError):
            await task
        async with opened(tmp_path) as again:
            await again.open()
            assert list((tmp_path / "blobs" / "incoming").iterdir()) == []

    asyncio.run(main())

"""The queries of STORAGE: objects, their segments, uploads and parts, with the blobs they name.

What is allowed is decided by the caller, in functions that run inside the transaction; what is
kept, and in which order it becomes durable, is decided here: bytes, then name, then row.
How blobs go again is `adoption`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import Connection, delete, insert, select

from amba_router.store.adoption import Adoption
from amba_router.store.blobs import Blobs, Hash, Lease, Staged, damaged
from amba_router.store.database import Database
from amba_router.store.queries import (
    end_upload,
    find,
    find_upload,
    list_page,
    metadata_columns,
    parts_of,
    replace,
    segments_of,
)
from amba_router.store.records import Page, Part, Segment, StoredObject, Upload
from amba_router.store.schema import (
    storage_objects,
    storage_parts,
    storage_uploads,
)
from amba_runtime import limits

Completion = Callable[[Upload | None, Sequence[Part]], tuple[StoredObject, Sequence[Segment]]]
"""Decides a multipart completion inside its transaction; raises to refuse it."""


class Objects:
    """Objects of all projects in one database. Owns neither `database` nor `blobs`."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database = database
        self._blobs = blobs
        self._adoption = Adoption(database, blobs)

    # reading

    async def find(self, project_id: str, key: bytes) -> StoredObject | None:
        """The object as it is now, without its bytes."""
        return await self._database.read(lambda c: find(c, project_id, key))

    async def acquire(
        self, project_id: str, key: bytes
    ) -> tuple[StoredObject, tuple[Segment, ...], Lease] | None:
        """The object, its segments, and a lease that keeps them readable.

        Raises:
            InternalError: BLOB_DAMAGED when bytes that were acknowledged are not there.
        """

        def work(c: Connection) -> tuple[StoredObject, tuple[Segment, ...], Lease | None] | None:
            found = find(c, project_id, key)
            if found is None:
                return None
            segments = segments_of(c, found.version)
            lease = self._blobs.pin(segments)
            if self._blobs.missing(segments):  # overwritten since the snapshot, or damaged
                lease.close()
                return found, segments, None
            return found, segments, lease

        gone = ""
        for _ in range(limits.STORE_READ_TRIES.value):
            result = await self._database.read(work)
            if result is None:
                return None
            found, segments, lease = result
            if lease is not None:
                return found, segments, lease
            gone = segments[0].blob
        raise damaged(gone, "it, or another of the same object, has no file")

    async def read(self, blob: str, offset: int, length: int, whole: Hash | None) -> bytes:
        """Bytes of one leased segment; see `Blobs.read`."""
        return await self._database.in_thread(lambda: self._blobs.read(blob, offset, length, whole))

    async def list(
        self, project_id: str, *, prefix: bytes, start: bytes, delimiter: bytes, limit: int
    ) -> Page:
        """One page, in the order of the keys' bytes.

        Args:
            project_id: whose objects.
            prefix: only keys that begin so.
            start: the first key that may appear.
            delimiter: keys that hold it after the prefix are rolled up to it; b"" for none.
            limit: entries at most.
        """
        return await self._database.read(
            lambda c: list_page(c, project_id, prefix, max(start, prefix), delimiter, limit)
        )

    # writing

    def stage(self, algorithms: Iterable[str] = ()) -> Staged:
        """Where the bytes of a put go first."""
        return self._blobs.stage(algorithms)

    async def in_thread(self, work: Callable[[], None]) -> None:
        """Run a blocking step of a staged write."""
        await self._database.in_thread(work)

    async def put(
        self,
        project_id: str,
        new: StoredObject,
        staged: Staged,
        *,
        admit: Callable[[StoredObject | None], None],
    ) -> None:
        """Store an object whole, in place of what had its key.

        Args:
            project_id: whose object.
            new: what it will be.
            staged: its finished bytes; adopted here, or left to the caller when this raises.
            admit: called in the transaction with the object that is there now; raises to refuse.
        """

        def work(c: Connection, adopt: Callable[[], None]) -> tuple[None, set[str]]:
            old = find(c, project_id, new.key)
            admit(old)
            adopt()
            segments = (staged.segment(),) if staged.size else ()
            return None, replace(c, project_id, old, new, segments)

        await self._adoption.run((staged,), work)

    async def delete(self, project_id: str, keys: Sequence[bytes]) -> None:
        """Delete objects, all or none; keys that are not there are passed over."""

        def work(c: Connection) -> set[str]:
            gone: set[str] = set()
            for key in keys:
                found = find(c, project_id, key)
                if found is not None:
                    gone.update(s.blob for s in segments_of(c, found.version))
                    c.execute(
                        delete(storage_objects).where(storage_objects.c.version == found.version)
                    )
            return self._adoption.garbage(c, gone)

        await self._database.write(work, then=self._blobs.remove)

    async def create_upload(self, project_id: str, upload: Upload, created_ms: int) -> None:
        """Begin a multipart upload."""

        def work(c: Connection) -> None:
            c.execute(
                insert(storage_uploads).values(
                    upload_id=upload.upload_id,
                    project_id=project_id,
                    key=upload.key,
                    created_ms=created_ms,
                    open=True,
                    **metadata_columns(upload.metadata),
                )
            )

        await self._database.write(work)

    async def put_part(
        self,
        project_id: str,
        key: bytes,
        upload_id: str,
        part: Part,
        staged: Staged,
        *,
        admit: Callable[[Upload | None], None],
    ) -> None:
        """Store one part, in place of an earlier one of its number. `admit` raises to refuse."""

        def work(c: Connection, adopt: Callable[[], None]) -> tuple[None, set[str]]:
            admit(find_upload(c, project_id, key, upload_id))
            adopt()
            table = storage_parts
            same = (table.c.upload_id == upload_id) & (table.c.number == part.number)
            gone = set(c.scalars(select(table.c.blob).where(same)))
            c.execute(delete(table).where(same))
            c.execute(
                insert(table).values(
                    upload_id=upload_id,
                    number=part.number,
                    etag=part.etag,
                    blob=part.segment.blob,
                    size=part.segment.size,
                )
            )
            return None, gone

        await self._adoption.run((staged,), work)

    async def complete_upload(
        self, project_id: str, key: bytes, upload_id: str, decide: Completion
    ) -> StoredObject:
        """Turn parts into an object, in one transaction."""

        def work(c: Connection) -> tuple[StoredObject, set[str]]:
            upload = find_upload(c, project_id, key, upload_id)
            new, segments = decide(upload, parts_of(c, upload_id))
            gone = end_upload(c, upload_id)
            gone |= replace(c, project_id, find(c, project_id, key), new, segments)
            return new, self._adoption.garbage(c, gone)

        new, _ = await self._database.write(work, then=lambda r: self._blobs.remove(r[1]))
        return new

    async def abort_upload(
        self,
        project_id: str,
        key: bytes,
        upload_id: str,
        *,
        admit: Callable[[Upload | None], None],
    ) -> None:
        """Drop an upload and its parts; one that has ended already is left as it is."""

        def work(c: Connection) -> set[str]:
            admit(find_upload(c, project_id, key, upload_id))
            return self._adoption.garbage(c, end_upload(c, upload_id))

        await self._database.write(work, then=self._blobs.remove)

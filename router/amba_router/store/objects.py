"""The queries of STORAGE: objects, their segments, uploads and parts, with the blobs they name.

What is allowed is decided by the caller, in functions that run inside the transaction; what is
kept, and in which order it becomes durable, is decided here: bytes, then name, then row.
A blob goes only after the transaction that forgot it was committed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, union, update

from amba_router.store.blobs import Blobs, Hash, Lease, Staged, damaged
from amba_router.store.database import Database
from amba_router.store.records import (
    Metadata,
    Page,
    Part,
    Segment,
    StoredObject,
    Upload,
    after_prefix,
)
from amba_router.store.schema import (
    storage_objects,
    storage_parts,
    storage_segments,
    storage_uploads,
)
from amba_runtime import limits

_SQL_VARIABLES = 500  # SQLite allows 999 in a statement on its oldest builds

Completion = Callable[[Upload | None, Sequence[Part]], tuple[StoredObject, Sequence[Segment]]]
"""Decides a multipart completion inside its transaction; raises to refuse it."""


class Objects:
    """Objects of all projects in one database. Owns neither `database` nor `blobs`."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database = database
        self._blobs = blobs

    # reading

    async def find(self, project_id: str, key: bytes) -> StoredObject | None:
        """The object as it is now, without its bytes."""
        return await self._database.read(lambda c: _find(c, project_id, key))

    async def acquire(
        self, project_id: str, key: bytes
    ) -> tuple[StoredObject, tuple[Segment, ...], Lease] | None:
        """The object, its segments, and a lease that keeps them readable.

        Raises:
            InternalError: BLOB_DAMAGED when bytes that were acknowledged are not there.
        """

        def work(c: Connection) -> tuple[StoredObject, tuple[Segment, ...], Lease | None] | None:
            found = _find(c, project_id, key)
            if found is None:
                return None
            segments = _segments(c, found.version)
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
            lambda c: _list(c, project_id, prefix, max(start, prefix), delimiter, limit)
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

        def work(c: Connection, adopt: Callable[[], None]) -> set[str]:
            old = _find(c, project_id, new.key)
            admit(old)
            adopt()
            segments = (staged.segment(),) if staged.size else ()
            return self._garbage(c, _replace(c, project_id, old, new, segments))

        await self._adopting(staged, work)

    async def delete(self, project_id: str, keys: Sequence[bytes]) -> None:
        """Delete objects, all or none; keys that are not there are passed over."""

        def work(c: Connection) -> set[str]:
            gone: set[str] = set()
            for key in keys:
                found = _find(c, project_id, key)
                if found is not None:
                    gone.update(s.blob for s in _segments(c, found.version))
                    c.execute(
                        delete(storage_objects).where(storage_objects.c.version == found.version)
                    )
            return self._garbage(c, gone)

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
                    **_metadata_columns(upload.metadata),
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

        def work(c: Connection, adopt: Callable[[], None]) -> set[str]:
            admit(_upload(c, project_id, key, upload_id))
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
            return self._garbage(c, gone)

        await self._adopting(staged, work)

    async def complete_upload(
        self, project_id: str, key: bytes, upload_id: str, decide: Completion
    ) -> StoredObject:
        """Turn parts into an object, in one transaction."""

        def work(c: Connection) -> tuple[StoredObject, set[str]]:
            upload = _upload(c, project_id, key, upload_id)
            new, segments = decide(upload, _parts(c, upload_id))
            gone = _end_upload(c, upload_id)
            gone |= _replace(c, project_id, _find(c, project_id, key), new, segments)
            return new, self._garbage(c, gone)

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
            admit(_upload(c, project_id, key, upload_id))
            return self._garbage(c, _end_upload(c, upload_id))

        await self._database.write(work, then=self._blobs.remove)

    async def tidy(self, now_ms: int) -> None:
        """At open: forget uploads past their time, then blobs nobody refers to."""
        horizon = now_ms - int(limits.STORAGE_UPLOAD_S.value * 1000)

        def work(c: Connection) -> set[str]:
            c.execute(delete(storage_uploads).where(storage_uploads.c.created_ms < horizon))
            both = union(select(storage_segments.c.blob), select(storage_parts.c.blob))
            return set(c.scalars(both))

        def sweep(referenced: set[str]) -> None:
            self._blobs.sweep(referenced)

        await self._database.write(work, then=sweep)

    # blobs

    async def _adopting(
        self, staged: Staged, work: Callable[[Connection, Callable[[], None]], set[str]]
    ) -> None:
        """Run a transaction that names `staged`; when it fails, the name goes again."""
        named: set[str] = set()

        def adopt() -> None:
            named.add(staged.segment().blob)
            self._blobs.adopt(staged)

        try:
            await self._database.write(lambda c: work(c, adopt), then=self._blobs.remove)
        except Exception:
            if named:
                await self._database.write(
                    lambda c: self._garbage(c, named), then=self._blobs.remove
                )
            raise

    def _garbage(self, c: Connection, candidates: set[str]) -> set[str]:
        """Those of `candidates`, and of the blobs that wait for a reader, nobody refers to."""
        candidates = candidates | self._blobs.doomed()
        used = _referenced(c, list(candidates))
        self._blobs.spare(used)
        return candidates - used


def _referenced(c: Connection, blobs: Sequence[str]) -> set[str]:
    used: set[str] = set()
    for at in range(0, len(blobs), _SQL_VARIABLES):
        some = blobs[at : at + _SQL_VARIABLES]
        for column in (storage_segments.c.blob, storage_parts.c.blob):
            used.update(c.scalars(select(column).where(column.in_(some))))
    return used


def _find(c: Connection, project_id: str, key: bytes) -> StoredObject | None:
    table = storage_objects
    row = c.execute(
        select(table).where(table.c.project_id == project_id, table.c.key == key)
    ).one_or_none()
    return None if row is None else _object(row)


def _object(row: Row[Any]) -> StoredObject:
    return StoredObject(
        key=row.key,
        version=row.version,
        size=row.size,
        etag=row.etag,
        uploaded_ms=row.uploaded_ms,
        checksums=json.loads(row.checksums),
        metadata=_metadata(row),
    )


def _metadata(row: Row[Any]) -> Metadata:
    return Metadata(
        http=json.loads(row.http_metadata),
        custom=tuple((k, v) for k, v in json.loads(row.custom_metadata)),
        storage_class=row.storage_class,
    )


def _metadata_columns(metadata: Metadata) -> dict[str, str]:
    return {
        "http_metadata": json.dumps(dict(metadata.http)),
        "custom_metadata": json.dumps(metadata.custom),
        "storage_class": metadata.storage_class,
    }


def _segments(c: Connection, version: str) -> tuple[Segment, ...]:
    table = storage_segments
    rows = c.execute(
        select(table.c.blob, table.c.size)
        .where(table.c.version == version)
        .order_by(table.c.position)
    )
    return tuple(Segment(blob, size) for blob, size in rows)


def _replace(
    c: Connection,
    project_id: str,
    old: StoredObject | None,
    new: StoredObject,
    segments: Sequence[Segment],
) -> set[str]:
    """Put `new` in the place of `old`; the blobs `old` had."""
    gone: set[str] = set()
    if old is not None:
        gone.update(s.blob for s in _segments(c, old.version))
        c.execute(delete(storage_objects).where(storage_objects.c.version == old.version))
    c.execute(
        insert(storage_objects).values(
            project_id=project_id,
            key=new.key,
            version=new.version,
            size=new.size,
            etag=new.etag,
            uploaded_ms=new.uploaded_ms,
            checksums=json.dumps(dict(new.checksums)),
            **_metadata_columns(new.metadata),
        )
    )
    if segments:
        c.execute(
            insert(storage_segments),
            [
                {"version": new.version, "position": at, "blob": s.blob, "size": s.size}
                for at, s in enumerate(segments)
            ],
        )
    return gone


def _upload(c: Connection, project_id: str, key: bytes, upload_id: str) -> Upload | None:
    table = storage_uploads
    row = c.execute(
        select(table).where(
            table.c.upload_id == upload_id,
            table.c.project_id == project_id,
            table.c.key == key,
        )
    ).one_or_none()
    if row is None:
        return None
    return Upload(row.upload_id, row.key, _metadata(row), row.open)


def _parts(c: Connection, upload_id: str) -> list[Part]:
    table = storage_parts
    rows = c.execute(select(table).where(table.c.upload_id == upload_id).order_by(table.c.number))
    return [Part(r.number, r.etag, Segment(r.blob, r.size)) for r in rows]


def _end_upload(c: Connection, upload_id: str) -> set[str]:
    """Mark it ended and forget its parts; the blobs they had."""
    table = storage_parts
    gone = set(c.scalars(select(table.c.blob).where(table.c.upload_id == upload_id)))
    c.execute(delete(table).where(table.c.upload_id == upload_id))
    c.execute(
        update(storage_uploads).where(storage_uploads.c.upload_id == upload_id).values(open=False)
    )
    return gone


def _list(
    c: Connection, project_id: str, prefix: bytes, start: bytes, delimiter: bytes, limit: int
) -> Page:
    table = storage_objects
    inside = [table.c.project_id == project_id]
    if prefix:
        inside.append(table.c.key < after_prefix(prefix))
    entries: list[StoredObject | bytes] = []
    # One query per page without a delimiter; with one, a new query jumps over each group that
    # is longer than what was fetched. Every query adds an entry, so `limit + 1` bounds them.
    while True:
        rows = c.execute(
            select(table)
            .where(*inside, table.c.key >= start)
            .order_by(table.c.key)
            .limit(limit + 1)
        ).all()
        for row in rows:
            key: bytes = row.key
            if key < start:
                continue  # rolled up into the prefix just added
            if len(entries) == limit:
                return Page(tuple(entries), truncated=True)
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut < 0:
                entries.append(_object(row))
                start = key + b"\0"
            else:
                group = key[: cut + len(delimiter)]
                entries.append(group)
                start = after_prefix(group)
        if len(rows) <= limit:
            return Page(tuple(entries), truncated=False)

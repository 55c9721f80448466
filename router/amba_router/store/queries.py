"""Single statements about objects, uploads and parts, on a connection of someone's transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, union, update

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
    deployments,
    storage_objects,
    storage_parts,
    storage_segments,
    storage_uploads,
)

_SQL_VARIABLES = 500  # SQLite allows 999 in a statement on its oldest builds


_NAMES_A_BLOB = (
    storage_segments.c.blob,
    storage_parts.c.blob,
    deployments.c.bundle_sha,
    deployments.c.map_sha,
)
"""Every column that keeps a blob."""


def all_referenced(c: Connection) -> set[str]:
    """Every blob that some row keeps."""
    return {blob for blob in c.scalars(union(*(select(n) for n in _NAMES_A_BLOB))) if blob}


def referenced(c: Connection, blobs: Sequence[str]) -> set[str]:
    """Those of `blobs` that some row keeps."""
    used: set[str] = set()
    for at in range(0, len(blobs), _SQL_VARIABLES):
        some = blobs[at : at + _SQL_VARIABLES]
        for column in _NAMES_A_BLOB:
            used.update(c.scalars(select(column).where(column.in_(some))))
    return used


def find(c: Connection, project_id: str, key: bytes) -> StoredObject | None:
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


def metadata_columns(metadata: Metadata) -> dict[str, str]:
    return {
        "http_metadata": json.dumps(dict(metadata.http)),
        "custom_metadata": json.dumps(metadata.custom),
        "storage_class": metadata.storage_class,
    }


def segments_of(c: Connection, version: str) -> tuple[Segment, ...]:
    table = storage_segments
    rows = c.execute(
        select(table.c.blob, table.c.size)
        .where(table.c.version == version)
        .order_by(table.c.position)
    )
    return tuple(Segment(blob, size) for blob, size in rows)


def replace(
    c: Connection,
    project_id: str,
    old: StoredObject | None,
    new: StoredObject,
    segments: Sequence[Segment],
) -> set[str]:
    """Put `new` in the place of `old`; the blobs `old` had."""
    gone: set[str] = set()
    if old is not None:
        gone.update(s.blob for s in segments_of(c, old.version))
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
            **metadata_columns(new.metadata),
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


def forget_uploads(c: Connection, before_ms: int) -> None:
    """Uploads begun before that, open or ended, with their parts."""
    c.execute(delete(storage_uploads).where(storage_uploads.c.created_ms < before_ms))


def forget_project(c: Connection, project_id: str) -> set[str]:
    """All objects and uploads of a project; the blobs they had."""
    objects, uploads = storage_objects, storage_uploads
    of_objects = select(objects.c.version).where(objects.c.project_id == project_id)
    of_uploads = select(uploads.c.upload_id).where(uploads.c.project_id == project_id)
    segments, parts = storage_segments, storage_parts
    gone = set(c.scalars(select(segments.c.blob).where(segments.c.version.in_(of_objects))))
    gone |= set(c.scalars(select(parts.c.blob).where(parts.c.upload_id.in_(of_uploads))))
    c.execute(delete(objects).where(objects.c.project_id == project_id))
    c.execute(delete(uploads).where(uploads.c.project_id == project_id))
    return gone


def find_upload(c: Connection, project_id: str, key: bytes, upload_id: str) -> Upload | None:
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


def parts_of(c: Connection, upload_id: str) -> list[Part]:
    table = storage_parts
    rows = c.execute(select(table).where(table.c.upload_id == upload_id).order_by(table.c.number))
    return [Part(r.number, r.etag, Segment(r.blob, r.size)) for r in rows]


def end_upload(c: Connection, upload_id: str) -> set[str]:
    """Mark it ended and forget its parts; the blobs they had."""
    table = storage_parts
    gone = set(c.scalars(select(table.c.blob).where(table.c.upload_id == upload_id)))
    c.execute(delete(table).where(table.c.upload_id == upload_id))
    c.execute(
        update(storage_uploads).where(storage_uploads.c.upload_id == upload_id).values(open=False)
    )
    return gone


def list_page(
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

"""Assets and uploads of one project: their statements. Source: contract E.7."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Row

from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import media_assets


class AssetState(StrEnum):
    """How far an asset is."""

    PRESIGNED = "presigned"
    """A commit makes it an asset."""
    CREATED = "created"
    """The PUT of its object does."""
    COMMITTED = "committed"
    GONE = "gone"
    """Its object is being deleted, then it is."""


@dataclass(frozen=True, slots=True)
class AssetRecord:
    """One asset; `metadata` is JSON.

    Attributes:
        user_id: whose it is; None is the project's.
        size_bytes: as announced, then as stored; None is not known yet.
        expires_ms: when its upload URL ends.
        purge_ms: the daily purge takes it from then on; None is never.
    """

    id: str
    upload_id: str
    user_id: str | None
    folder_id: str | None
    bucket: str
    key: str
    filename: str | None
    mime_type: str
    size_bytes: int | None
    state: str
    retention_days: int | None
    metadata: str
    created_ms: int
    expires_ms: int
    committed_ms: int | None
    purge_ms: int | None

    @property
    def object_key(self) -> str:
        """Its object's, in STORAGE."""
        return _object_key(self.bucket, self.key)


_T = media_assets
_THERE = _T.c.state != AssetState.GONE
_LISTED = _T.c.state.in_([AssetState.CREATED, AssetState.COMMITTED])
_PENDING = _T.c.state.in_([AssetState.PRESIGNED, AssetState.CREATED])


def add(scope: Scoped, record: AssetRecord) -> None:
    """A new one."""
    values = asdict(record)
    del values["key"]
    scope.add(_T, {**values, "object_key": record.object_key})


def find(scope: Scoped, id_: str) -> AssetRecord | None:
    """One that is not gone."""
    return _one(scope, _T.c.id == id_)


def find_upload(scope: Scoped, upload_id: str) -> AssetRecord | None:
    """The one of an upload, that is not gone."""
    return _one(scope, _T.c.upload_id == upload_id)


def at(scope: Scoped, bucket: str, key: str) -> AssetRecord | None:
    """Whose object lies there: the newest that is not gone."""
    return _one(scope, _T.c.object_key == _object_key(bucket, key))


def count(scope: Scoped) -> int:
    """How many there are, those that are going too."""
    return scope.count(_T)


def count_pending(scope: Scoped, user_id: str | None) -> int:
    """Uploads of a user (None: of the project itself) that are not done."""
    return scope.count(_T, _T.c.user_id == user_id, _PENDING)


def change(scope: Scoped, id_: str, **values: Any) -> AssetRecord | None:
    """Other values for one that is not gone; as it is now."""
    if not scope.change(_T, _T.c.id == id_, _THERE, **values):
        return None
    return find(scope, id_)


def page(
    scope: Scoped, user_id: str | None, folder_id: str | None, *, offset: int, limit: int
) -> tuple[list[AssetRecord], int]:
    """Assets, the newest first, and how many there are. Args: user_id: None is everybody's."""
    where: list[ColumnElement[bool]] = [_LISTED]
    if user_id is not None:
        where.append(_T.c.user_id == user_id)
    if folder_id is not None:
        where.append(_T.c.folder_id == folder_id)
    newest = scope.query(_T).where(*where).order_by(_T.c.seq.desc())
    rows = scope.rows(newest.offset(offset).limit(limit))
    return [_asset(row) for row in rows], scope.count(_T, *where)


def mark_gone(scope: Scoped, records: Sequence[AssetRecord]) -> None:
    """Nobody sees them any more; `drop` follows once their objects are gone."""
    ids = [record.id for record in records]
    scope.change(_T, _T.c.id.in_(ids), state=AssetState.GONE, purge_ms=0)


def drop(scope: Scoped, records: Sequence[AssetRecord]) -> None:
    """Those that are gone, for good."""
    ids = [record.id for record in records]
    scope.drop(_T, _T.c.id.in_(ids), _T.c.state == AssetState.GONE)


def due(scope: Scoped, until_ms: int, limit: int) -> list[AssetRecord]:
    """Those whose time has come by then, the first first."""
    first = scope.query(_T).where(_T.c.purge_ms <= until_ms).order_by(_T.c.purge_ms, _T.c.seq)
    return [_asset(row) for row in scope.rows(first.limit(limit))]


def _object_key(bucket: str, key: str) -> str:
    """Source: contract E.7 (`{bucket}/{key}`)."""
    return f"{bucket}/{key}"


def _one(scope: Scoped, *where: ColumnElement[bool]) -> AssetRecord | None:
    row = scope.row(scope.query(_T).where(*where, _THERE).order_by(_T.c.seq.desc()))
    return None if row is None else _asset(row)


def _asset(row: Row[Any]) -> AssetRecord:
    return AssetRecord(
        id=row.id,
        upload_id=row.upload_id,
        user_id=row.user_id,
        folder_id=row.folder_id,
        bucket=row.bucket,
        key=row.object_key[len(row.bucket) + 1 :],
        filename=row.filename,
        mime_type=row.mime_type,
        size_bytes=row.size_bytes,
        state=row.state,
        retention_days=row.retention_days,
        metadata=row.metadata,
        created_ms=row.created_ms,
        expires_ms=row.expires_ms,
        committed_ms=row.committed_ms,
        purge_ms=row.purge_ms,
    )

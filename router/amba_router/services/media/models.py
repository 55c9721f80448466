"""The bodies of the media service, both ways. Source: contract E.7; H-8 (doubled keys)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from amba_router.api.models import Count, Iso
from amba_router.services.media.names import BUCKET, PLAIN, TYPE
from amba_runtime import limits

Bucket = Annotated[str, Meta(pattern=BUCKET, max_length=limits.MEDIA_BUCKET.value)]
Key = Annotated[str, Meta(min_length=1, max_length=limits.STORAGE_KEY.value)]
Type = Annotated[
    str,
    Meta(pattern=TYPE, max_length=limits.MEDIA_TYPE.value, examples=["image/png"]),
]
Filename = Annotated[str, Meta(pattern=PLAIN, min_length=1, max_length=limits.MEDIA_FILENAME.value)]
Bytes = Annotated[int, Meta(ge=0)]
Days = Annotated[int, Meta(ge=1, le=limits.MEDIA_RETENTION.value)]
Folder = Annotated[str, Meta(pattern=PLAIN, min_length=1, max_length=200)]
Id = Annotated[str, Meta(min_length=1, max_length=200)]
Seconds = Annotated[int, Meta(ge=1)]


class PresignUpload(Struct, kw_only=True):
    bucket: Bucket
    filename: Filename
    mime_type: Type
    size_bytes: Bytes
    retention_days: Days | None = None


class PresignedUpload(Struct):
    """`upload_headers` are pairs of name and value, to be sent with the PUT."""

    upload_id: str
    upload_url: str
    upload_headers: list[tuple[str, str]]
    asset_id: str


class PresignedUploadAnswer(Struct):
    data: PresignedUpload


class CommitUpload(Struct):
    upload_id: Id
    asset_id: Id


class Asset(Struct, kw_only=True):
    """`asset_id` is `id`, `storage_url` is `url`: pages of the platform differ.

    `size_bytes` is null until an object whose size was not announced is there.
    """

    id: str
    asset_id: str
    bucket: str
    key: str
    url: str
    storage_url: str
    mime_type: str
    size_bytes: int | None
    filename: str | None
    folder_id: str | None
    metadata: dict[str, Any]
    created_at: Iso
    retention_days: int | UnsetType = UNSET


class AssetAnswer(Struct):
    data: Asset


class CreateUpload(Struct, kw_only=True):
    """`content_type` and `mime_type` are the same."""

    bucket: Bucket = "media"
    content_type: Type | None = None
    mime_type: Type | None = None
    filename: Filename | None = None
    size_bytes: Bytes | None = None
    retention_days: Days | None = None
    folder_id: Folder | None = None
    metadata: dict[str, Any] | None = None
    blurhash: Annotated[str, Meta(max_length=200)] | None = None


class CreatedUploadAnswer(Struct):
    """`upload_url` stands beside `data`."""

    data: Asset
    upload_url: str


class AssetList(Struct):
    data: list[Asset]
    total: Count
    offset: Count
    limit: Count


class DeletedAsset(Struct):
    id: str
    deleted: bool


class DeletedAssetAnswer(Struct):
    data: DeletedAsset


class PresignObject(Struct, kw_only=True):
    """What lasts longer than a day is cut down to it."""

    bucket: Bucket
    key: Key
    method: Literal["GET", "PUT"]
    expires_in_seconds: Seconds | None = None


class PresignedObject(Struct):
    url: str
    expires_at: Iso


class PresignedObjectAnswer(Struct):
    data: PresignedObject


class PresignedTopAnswer(Struct):
    """`data` and the same keys at the top (contract H-8)."""

    data: PresignedObject
    url: str
    expires_at: Iso


class TrackObject(Struct, kw_only=True):
    bucket: Bucket
    key: Key
    content_type: Type | None = None
    retention_days: Days | None = None
    metadata: dict[str, Any] | None = None


class TrackedObject(Struct):
    id: str
    url: str


class TrackedObjectAnswer(Struct):
    """`data` and the same keys at the top (contract H-8)."""

    data: TrackedObject
    id: str
    url: str


class DeleteObject(Struct, kw_only=True):
    """Either `id`, or `bucket` and `key`."""

    id: Id | None = None
    bucket: Bucket | None = None
    key: Key | None = None


class DeletedObject(Struct):
    id: str | None
    deleted: bool


class DeletedObjectAnswer(Struct):
    data: DeletedObject

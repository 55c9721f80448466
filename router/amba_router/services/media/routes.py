"""Uploads and assets over HTTP, for clients. Source: contract E.7; H-10 (paths)."""

from __future__ import annotations

from amba_router.api import faults
from amba_router.api.asked import LIMIT, OFFSET, iso_ms, page, project_of
from amba_router.api.faults import Refused
from amba_router.api.operations import Answer, Asked, Auth, Operation, Plain, Query, Reads
from amba_router.services.media import admin_routes, presigned
from amba_router.services.media.models import (
    AssetAnswer,
    AssetList,
    CommitUpload,
    CreatedUploadAnswer,
    CreateUpload,
    DeletedAsset,
    DeletedAssetAnswer,
    PresignedObject,
    PresignedObjectAnswer,
    PresignedUpload,
    PresignedUploadAnswer,
    PresignObject,
    PresignUpload,
)
from amba_router.services.media.objects import Held
from amba_router.services.media.service import Assets
from amba_router.services.media.shown import Shown
from amba_router.services.media.uploads import NewUpload, Uploads
from amba_runtime import limits

_OBJECT = "/client/storage/objects/{project_id}/{bucket}/{key}"
_FOLDER = Query("folder_id", {"type": "string"}, "of this folder alone")
_GRANT = (faults.INVALID_SIGNATURE, faults.URL_EXPIRED)


def operations(uploads: Uploads, assets: Assets, shown: Shown) -> tuple[Operation, ...]:
    """Their part of the table."""
    media = _Media(uploads, assets, shown)
    return (
        Operation(
            "presignUpload",
            "POST",
            "/client/storage/presign",
            Auth.SESSION,
            "Begin an upload: PUT its object to upload_url with upload_headers, then commit.",
            media.presign_upload,
            {200: PresignedUploadAnswer},
            faults.WRITES,
            reads=Reads.JSON,
            request=PresignUpload,
        ),
        Operation(
            "commitUpload",
            "POST",
            "/client/storage/commit",
            Auth.SESSION,
            "Make an asset of an upload whose object is there.",
            media.commit,
            {200: AssetAnswer},
            (faults.UPLOAD_NOT_FOUND, faults.UPLOAD_INCOMPLETE, *faults.WRITES),
            reads=Reads.JSON,
            request=CommitUpload,
        ),
        Operation(
            "putObject",
            "PUT",
            _OBJECT,
            Auth.NOBODY,
            "Store an object, as its presigned URL allows.",
            media.put,
            {200: None},
            (
                *_GRANT,
                *(faults.UPLOAD_NOT_FOUND, faults.UPLOAD_DONE, faults.SIZE_MISMATCH),
                *(faults.PROJECT_FORBIDDEN, *faults.WRITES),
            ),
            reads=Reads.UPLOAD,
            query=presigned.QUERY,
            bytes_max=limits.MEDIA_OBJECT.value,
            content={"*/*": {"schema": {"type": "string", "format": "binary"}}},
            ours=True,
        ),
        Operation(
            "getObject",
            "GET",
            _OBJECT,
            Auth.NOBODY,
            "Read an object, as its presigned URL allows.",
            media.get_object,
            {200: None},
            (*_GRANT, faults.OBJECT_NOT_FOUND, *faults.READS),
            query=presigned.QUERY,
            ours=True,
        ),
        Operation(
            "createMediaUpload",
            "POST",
            "/client/media/upload",
            Auth.SESSION,
            "Make an asset whose object is then put to upload_url.",
            media.create,
            {201: CreatedUploadAnswer},
            faults.WRITES,
            reads=Reads.JSON,
            request=CreateUpload,
        ),
        Operation(
            "listMedia",
            "GET",
            "/client/media",
            Auth.SESSION,
            "The user's assets, the newest first.",
            media.list,
            {200: AssetList},
            (faults.INVALID_LIMIT,),
            query=(OFFSET, LIMIT, _FOLDER),
        ),
        Operation(
            "getMedia",
            "GET",
            "/client/media/{asset_id}",
            Auth.SESSION,
            "One of the user's assets.",
            media.get,
            {200: AssetAnswer},
            (faults.NOT_FOUND,),
        ),
        Operation(
            "deleteMedia",
            "DELETE",
            "/client/media/{asset_id}",
            Auth.SESSION,
            "Delete one of the user's assets, and its object.",
            media.delete,
            {200: DeletedAssetAnswer},
            (faults.NOT_FOUND, *faults.WRITES),
        ),
        Operation(
            "presignMedia",
            "POST",
            "/client/media/presign",
            Auth.SESSION,
            "A URL to read an object, or to put one where nobody else's lies.",
            media.presign,
            {200: PresignedObjectAnswer},
            (faults.PROJECT_FORBIDDEN,),
            reads=Reads.JSON,
            request=PresignObject,
        ),
        *admin_routes.operations(uploads, assets, shown),
    )


class _Media:
    def __init__(self, uploads: Uploads, assets: Assets, shown: Shown) -> None:
        self._uploads = uploads
        self._assets = assets
        self._shown = shown

    async def presign_upload(self, asked: Asked) -> Answer:
        body: PresignUpload = asked.body
        new = NewUpload(
            bucket=body.bucket,
            filename=body.filename,
            type=body.mime_type,
            size=body.size_bytes,
            commit=True,
            retention_days=body.retention_days,
        )
        record, url = await self._uploads.begin(project_of(asked), asked.user_id, new)
        said = PresignedUpload(record.upload_id, url, [("content-type", body.mime_type)], record.id)
        return Answer(200, PresignedUploadAnswer(said))

    async def commit(self, asked: Asked) -> Answer:
        body: CommitUpload = asked.body
        project = project_of(asked)
        record = await self._uploads.commit(
            project.id, asked.user_id, body.upload_id, body.asset_id
        )
        return Answer(200, AssetAnswer(self._shown.asset(project, record)))

    async def put(self, asked: Asked) -> Answer:
        grant = self._uploads.allowed("PUT", asked.path, asked.query)
        if asked.header(b"content-encoding").lower() not in ("", "identity"):
            # it would be unpacked on its way: the bytes are those that were presigned
            raise faults.UNSUPPORTED_MEDIA_TYPE.refuse("an object is put without Content-Encoding")
        type_ = asked.header(b"content-type")
        if len(type_) > limits.MEDIA_TYPE.value:
            raise faults.UNSUPPORTED_MEDIA_TYPE.refuse(
                f"a content type has {limits.MEDIA_TYPE.value} characters at most"
            )
        length = asked.header(b"content-length")
        assert asked.upload is not None, "reads=UPLOAD"
        held = await self._uploads.put(
            grant,
            asked.upload,
            content_type=type_,
            length=int(length) if length.isascii() and length.isdigit() else 0,
        )
        return Answer(200, None, ((b"etag", _etag(held)),))

    async def get_object(self, asked: Asked) -> Answer:
        grant = self._uploads.allowed("GET", asked.path, asked.query)
        held, body = await self._uploads.open(grant)
        headers = (
            (b"content-length", b"%d" % held.size),
            (b"etag", _etag(held)),
            (b"x-content-type-options", b"nosniff"),
            # what users upload runs no scripts in the API's own origin
            (b"content-security-policy", b"sandbox; default-src 'none'"),
        )
        return Answer(200, Plain(_header(held.content_type), body), headers)

    async def create(self, asked: Asked) -> Answer:
        body: CreateUpload = asked.body
        project = project_of(asked)
        metadata = dict(body.metadata or {})
        if body.blurhash is not None:
            metadata.setdefault("blurhash", body.blurhash)
        new = NewUpload(
            bucket=body.bucket,
            filename=body.filename,
            type=body.content_type or body.mime_type or "",
            size=body.size_bytes,
            commit=False,
            retention_days=body.retention_days,
            folder_id=body.folder_id,
            metadata=metadata,
        )
        record, url = await self._uploads.begin(project, asked.user_id, new)
        return Answer(201, CreatedUploadAnswer(self._shown.asset(project, record), url))

    async def list(self, asked: Asked) -> Answer:
        project = project_of(asked)
        offset, limit = page(asked)
        folder = asked.query.get("folder_id")
        records, total = await self._assets.page(
            project.id, asked.user_id, folder, offset=offset, limit=limit
        )
        rows = [self._shown.asset(project, record) for record in records]
        return Answer(200, AssetList(rows, total, offset, limit))

    async def get(self, asked: Asked) -> Answer:
        project, id_ = project_of(asked), asked.path["asset_id"]
        record = await self._assets.find(project.id, asked.user_id, id_)
        if record is None:
            raise _no_asset(id_)
        return Answer(200, AssetAnswer(self._shown.asset(project, record)))

    async def delete(self, asked: Asked) -> Answer:
        id_ = asked.path["asset_id"]
        if not await self._assets.delete(project_of(asked).id, asked.user_id, id_):
            raise _no_asset(id_)
        return Answer(200, DeletedAssetAnswer(DeletedAsset(id_, True)))

    async def presign(self, asked: Asked) -> Answer:
        body: PresignObject = asked.body
        url, expires_ms = await self._uploads.presign(
            project_of(asked).id,
            asked.user_id,
            body.method,
            body.bucket,
            body.key,
            body.expires_in_seconds,
        )
        return Answer(200, PresignedObjectAnswer(PresignedObject(url, iso_ms(expires_ms))))


def _no_asset(id_: str) -> Refused:
    return faults.NOT_FOUND.refuse("no such asset", {"resource": "media", "id": id_[:64]})


def _etag(held: Held) -> bytes:
    return f'"{held.etag}"'.encode()


def _header(content_type: str) -> bytes:
    """A stored type as a header; one that a function stored and no header can carry is none."""
    plain = content_type.isascii() and content_type.isprintable()
    return content_type.encode() if plain else b"application/octet-stream"

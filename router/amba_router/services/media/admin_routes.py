"""Media for functions and backends: track, delete, presign. Source: contract E.7, H-8."""

from __future__ import annotations

from amba_router.api import faults
from amba_router.api.asked import iso_ms, project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Reads
from amba_router.services.media.models import (
    DeletedObject,
    DeletedObjectAnswer,
    DeleteObject,
    PresignedObject,
    PresignedTopAnswer,
    PresignObject,
    TrackedObject,
    TrackedObjectAnswer,
    TrackObject,
)
from amba_router.services.media.names import wrong
from amba_router.services.media.service import Assets
from amba_router.services.media.shown import Shown
from amba_router.services.media.uploads import Uploads

_BASE = "/admin/projects/{project_id}/media"


def operations(uploads: Uploads, assets: Assets, shown: Shown) -> tuple[Operation, ...]:
    """Their part of the table."""
    media = _Media(uploads, assets, shown)
    return (
        Operation(
            "trackMedia",
            "POST",
            f"{_BASE}/track",
            Auth.PROJECT,
            "Make an asset of an object that is in STORAGE; told again, it is changed.",
            media.track,
            {200: TrackedObjectAnswer},
            (faults.OBJECT_NOT_FOUND, *faults.WRITES),
            reads=Reads.JSON,
            request=TrackObject,
        ),
        Operation(
            "deleteMediaObject",
            "POST",
            f"{_BASE}/delete",
            Auth.PROJECT,
            "Delete an asset by its id, or an object by its place; both go.",
            media.delete,
            {200: DeletedObjectAnswer},
            (faults.ASSET_NOT_FOUND, faults.OBJECT_NOT_FOUND, *faults.WRITES),
            reads=Reads.JSON,
            request=DeleteObject,
        ),
        Operation(
            "presignMediaObject",
            "POST",
            f"{_BASE}/presign",
            Auth.PROJECT,
            "A URL to read or put one object.",
            media.presign,
            {200: PresignedTopAnswer},
            reads=Reads.JSON,
            request=PresignObject,
        ),
    )


class _Media:
    def __init__(self, uploads: Uploads, assets: Assets, shown: Shown) -> None:
        self._uploads = uploads
        self._assets = assets
        self._shown = shown

    async def track(self, asked: Asked) -> Answer:
        body: TrackObject = asked.body
        project = project_of(asked)
        record = await self._assets.track(
            project.id,
            body.bucket,
            body.key,
            content_type=body.content_type,
            retention_days=body.retention_days,
            metadata=body.metadata,
        )
        said = TrackedObject(record.id, self._shown.url(project, record))
        return Answer(200, TrackedObjectAnswer(said, said.id, said.url))

    async def delete(self, asked: Asked) -> Answer:
        body: DeleteObject = asked.body
        project_id = project_of(asked).id
        if body.id is not None and body.bucket is None and body.key is None:
            if not await self._assets.delete(project_id, None, body.id):
                raise faults.ASSET_NOT_FOUND.refuse(
                    "no such asset", {"resource": "media", "id": body.id[:64]}
                )
            return Answer(200, DeletedObjectAnswer(DeletedObject(body.id, True)))
        if body.id is not None or body.bucket is None or body.key is None:
            raise wrong("$.id", "send either id, or bucket and key")
        id_ = await self._assets.delete_object(project_id, body.bucket, body.key)
        return Answer(200, DeletedObjectAnswer(DeletedObject(id_, True)))

    async def presign(self, asked: Asked) -> Answer:
        body: PresignObject = asked.body
        url, expires_ms = await self._uploads.presign(
            project_of(asked).id,
            None,
            body.method,
            body.bucket,
            body.key,
            body.expires_in_seconds,
        )
        said = PresignedObject(url, iso_ms(expires_ms))
        return Answer(200, PresignedTopAnswer(said, said.url, said.expires_at))

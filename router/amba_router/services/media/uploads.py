"""Uploads and presigned access to objects. Source: contract E.7.

Ours: a bucket is there when it is named; an upload's key begins with its asset's id, so that
nobody overwrites it, and its object is put once. A user puts to other keys only where nothing
lies, or its own asset does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from amba_router.api import faults
from amba_router.services.media import names, presigned, rules
from amba_router.services.media.intake import Intake, Upload, check_length
from amba_router.services.media.objects import Held, Objects, Taken
from amba_router.services.media.presigned import Grant
from amba_router.store import media_rows
from amba_router.store.control_records import ProjectRecord
from amba_router.store.media_rows import AssetRecord, AssetState
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_runtime import entropy, limits
from amba_runtime.clock import Clock, time_ms


@dataclass(frozen=True, slots=True)
class NewUpload:
    """What is to be uploaded.

    Attributes:
        type: "" is not announced: the PUT says it.
        size: None is not announced.
        commit: whether a commit has to follow the PUT.
    """

    bucket: str
    filename: str | None
    type: str
    size: int | None
    commit: bool
    retention_days: int | None = None
    folder_id: str | None = None
    metadata: dict[str, Any] | None = None


class Uploads:
    """Of all projects.

    Args:
        keys: the session keys of a project, newest first; none where there is no such project.
        origin: of the API; asked anew each time, as a server learns its port when it opens.
    """

    def __init__(
        self,
        store: ProjectStore,
        objects: Objects,
        clock: Clock,
        *,
        keys: Callable[[str], tuple[bytes, ...]],
        origin: Callable[[], str],
    ) -> None:
        self._store = store
        self._objects = objects
        self._clock = clock
        self._keys = keys
        self._origin = origin

    async def begin(
        self, project: ProjectRecord, user_id: str | None, new: NewUpload
    ) -> tuple[AssetRecord, str]:
        """A new upload and its URL. Args: user_id: None is the project's own.

        Raises:
            Refused: PAYLOAD_TOO_LARGE, INVALID_INPUT; CONFLICT where there are too many.
        """
        names.check_size(new.size)
        metadata = names.check_metadata(new.metadata or {})
        now_ms, id_ = time_ms(self._clock), entropy.uuid4()
        expires_s = now_ms // 1000 + int(limits.MEDIA_PUT_S.value)
        record = AssetRecord(
            id=id_,
            upload_id=entropy.uuid4(),
            user_id=user_id,
            folder_id=new.folder_id,
            bucket=new.bucket,
            key=names.key_of(id_, new.filename),
            filename=new.filename,
            mime_type=new.type or names.ANY_TYPE,
            size_bytes=new.size,
            state=AssetState.PRESIGNED if new.commit else AssetState.CREATED,
            retention_days=new.retention_days,
            metadata=metadata,
            created_ms=now_ms,
            expires_ms=expires_s * 1000,
            committed_ms=None,
            purge_ms=expires_s * 1000 + int(limits.MEDIA_PENDING_S.value * 1000),
        )

        def work(scope: Scoped) -> None:
            most = limits.MEDIA_PENDING.value
            if media_rows.count_pending(scope, user_id) >= most:
                raise faults.CONFLICT.refuse(
                    f"{most} uploads are not done yet; put and commit them, or wait for their end"
                )
            rules.room(scope)
            media_rows.add(scope, record)

        await self._store.write(project.id, work)
        grant = Grant(
            "PUT",
            project.id,
            record.bucket,
            record.key,
            expires_s,
            upload=record.upload_id,
            size=new.size,
            type=new.type,
        )
        return record, self._url_of(grant)

    async def commit(
        self, project_id: str, user_id: str | None, upload_id: str, asset_id: str
    ) -> AssetRecord:
        """The asset of an upload whose object is there; the same again when repeated.

        Raises:
            Refused: UPLOAD_NOT_FOUND, UPLOAD_INCOMPLETE.
        """
        record = await self._store.read(
            project_id, lambda scope: media_rows.find_upload(scope, upload_id)
        )
        if record is None or record.id != asset_id or not rules.theirs(record, user_id):
            raise rules.no_upload(upload_id)
        if record.state == AssetState.COMMITTED:
            return record
        held = await self._objects.head(project_id, record.object_key)
        if held is None:
            raise faults.UPLOAD_INCOMPLETE.refuse(
                "nothing was put to this upload's URL; put the object, then commit"
            )
        return await self._finish(project_id, record, held)

    async def _finish(self, project_id: str, record: AssetRecord, held: Held) -> AssetRecord:
        """An asset from here on. Raises `Refused` UPLOAD_NOT_FOUND when it was deleted."""
        now_ms = time_ms(self._clock)
        values = {
            "state": AssetState.COMMITTED,
            "size_bytes": held.size,
            "mime_type": held.content_type,
            "committed_ms": now_ms,
            "purge_ms": rules.purge_ms(now_ms, record.retention_days),
        }
        done = await self._store.write(
            project_id, lambda scope: media_rows.change(scope, record.id, **values)
        )
        if done is None:
            await self._objects.delete(project_id, [record.object_key])
            raise rules.no_upload(record.upload_id)
        return done

    async def presign(
        self,
        project_id: str,
        user_id: str | None,
        method: str,
        bucket: str,
        key: str,
        expires_in_s: int | None,
    ) -> tuple[str, int]:
        """A URL for one object, and its end in Unix milliseconds.

        Raises:
            Refused: INVALID_INPUT; PROJECT_FORBIDDEN for a PUT to another user's asset.
        """
        names.check_key(bucket, key)
        if method == "PUT" and user_id is not None:
            await self._own(project_id, bucket, key, user_id)
        usual = limits.MEDIA_PUT_S if method == "PUT" else limits.MEDIA_GET_S
        lasts_s = int(usual.value) if expires_in_s is None else expires_in_s
        expires_s = time_ms(self._clock) // 1000 + min(lasts_s, limits.MEDIA_EXPIRY.value)
        grant = Grant(method, project_id, bucket, key, expires_s, user=user_id or "")
        return self._url_of(grant), expires_s * 1000

    async def _own(
        self, project_id: str, bucket: str, key: str, user_id: str
    ) -> AssetRecord | None:
        """The user's asset there, or None for no asset at all. Raises `Refused`."""
        record = await self._at(project_id, bucket, key)
        if record is not None and record.user_id != user_id:
            raise faults.PROJECT_FORBIDDEN.refuse("this object is not this user's to replace")
        return record

    def allowed(self, method: str, path: Mapping[str, str], query: Mapping[str, str]) -> Grant:
        """What a presigned URL allows. Raises `Refused` INVALID_SIGNATURE, URL_EXPIRED."""
        keys = self._keys(path["project_id"])
        return presigned.read(method, path, query, keys, now_s=self._clock.time_s())

    async def put(self, grant: Grant, upload: Upload, *, content_type: str, length: int) -> Held:
        """Store the body of a presigned PUT.

        Args:
            content_type: as sent, "" is none. length: as announced, 0 where it is not.

        Raises:
            Refused: UPLOAD_NOT_FOUND, UPLOAD_DONE, PROJECT_FORBIDDEN, UNSUPPORTED_MEDIA_TYPE,
                PAYLOAD_TOO_LARGE, SIZE_MISMATCH; nothing was stored.
        """
        project_id = grant.project_id
        record, fresh = await self._target(grant)
        if grant.type and not names.same_type(grant.type, content_type):
            raise faults.UNSUPPORTED_MEDIA_TYPE.refuse(
                f"this URL was presigned for {grant.type}; send the upload headers as given",
                {"expected": grant.type},
            )
        check_length(length, grant.size)
        intake = Intake(upload, grant.size)
        try:
            held = await self._objects.put(
                project_id,
                grant.object_key,
                intake.chunks(),
                content_type=content_type or names.ANY_TYPE,
                fresh=fresh,
            )
        except Taken as taken:
            # the same bytes again: whoever put them may not have been told
            there = await self._objects.head(project_id, grant.object_key)
            if not grant.upload or taken.etag != intake.md5 or there is None:
                raise rules.done() from None
            held = there
        if record is None:
            return held
        if record.state == AssetState.CREATED:
            await self._finish(project_id, record, held)
        elif grant.upload:
            await self._still(project_id, record)
        else:
            values = {"size_bytes": held.size, "mime_type": held.content_type}
            await self._store.write(
                project_id, lambda scope: media_rows.change(scope, record.id, **values)
            )
        return held

    async def _target(self, grant: Grant) -> tuple[AssetRecord | None, bool]:
        """The asset that a PUT is for, and whether nothing may lie there yet."""
        project_id = grant.project_id
        if grant.upload:
            record = await self._store.read(
                project_id, lambda scope: media_rows.find_upload(scope, grant.upload)
            )
            if record is None:
                raise rules.no_upload(grant.upload)
            if record.state == AssetState.COMMITTED:
                raise rules.done()
            return record, True
        if grant.user:
            own = await self._own(project_id, grant.bucket, grant.key, grant.user)
            return own, own is None
        return await self._at(project_id, grant.bucket, grant.key), False

    async def _still(self, project_id: str, record: AssetRecord) -> None:
        """An upload that was deleted while its object came leaves none behind."""
        found = await self._store.read(project_id, lambda scope: media_rows.find(scope, record.id))
        if found is None:
            await self._objects.delete(project_id, [record.object_key])
            raise rules.no_upload(record.upload_id)

    async def open(self, grant: Grant) -> tuple[Held, AsyncIterator[bytes]]:
        """The object of a presigned GET. Raises `Refused` object_not_found."""
        found = await self._objects.open(grant.project_id, grant.object_key)
        if found is None:
            raise rules.no_object(grant.object_key)
        return found

    async def _at(self, project_id: str, bucket: str, key: str) -> AssetRecord | None:
        return await self._store.read(project_id, lambda scope: media_rows.at(scope, bucket, key))

    def _url_of(self, grant: Grant) -> str:
        return presigned.url_of(grant, self._origin(), self._keys(grant.project_id))

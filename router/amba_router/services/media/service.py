"""Assets: found, listed, tracked, deleted and purged. Source: contract E.7."""

from __future__ import annotations

from typing import Any

from amba_router.services.media import names, rules
from amba_router.services.media.objects import Objects
from amba_router.store import media_rows
from amba_router.store.media_rows import AssetRecord, AssetState
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_runtime import entropy, limits
from amba_runtime.clock import Clock, time_ms


class Assets:
    """Of all projects."""

    def __init__(self, store: ProjectStore, objects: Objects, clock: Clock) -> None:
        self._store = store
        self._objects = objects
        self._clock = clock

    async def find(self, project_id: str, user_id: str | None, id_: str) -> AssetRecord | None:
        """One of a user's (None: of the project's)."""
        record = await self._store.read(project_id, lambda scope: media_rows.find(scope, id_))
        if (
            record is None
            or record.state == AssetState.PRESIGNED
            or not rules.theirs(record, user_id)
        ):
            return None
        return record

    async def page(
        self,
        project_id: str,
        user_id: str | None,
        folder_id: str | None,
        *,
        offset: int,
        limit: int,
    ) -> tuple[list[AssetRecord], int]:
        """A user's (None: the project's) assets, the newest first, and how many there are."""
        return await self._store.read(
            project_id,
            lambda scope: media_rows.page(scope, user_id, folder_id, offset=offset, limit=limit),
        )

    async def track(
        self,
        project_id: str,
        bucket: str,
        key: str,
        *,
        content_type: str | None,
        retention_days: int | None,
        metadata: dict[str, Any] | None,
    ) -> AssetRecord:
        """The asset of an object that a function has stored; told again, it is changed.

        Raises:
            Refused: INVALID_INPUT, object_not_found; CONFLICT where there are too many.
        """
        names.check_key(bucket, key)
        text = names.check_metadata(metadata or {})
        held = await self._objects.head(project_id, f"{bucket}/{key}")
        if held is None:
            raise rules.no_object(f"{bucket}/{key}")
        now_ms = time_ms(self._clock)
        values: dict[str, Any] = {
            "mime_type": content_type or held.content_type,
            "size_bytes": held.size,
            "state": AssetState.COMMITTED,
            "retention_days": retention_days,
            "metadata": text,
            "committed_ms": now_ms,
            "purge_ms": rules.purge_ms(now_ms, retention_days),
        }

        def work(scope: Scoped) -> AssetRecord:
            had = media_rows.at(scope, bucket, key)
            changed = had and media_rows.change(scope, had.id, **values)
            if changed:
                return changed
            rules.room(scope)
            record = AssetRecord(
                id=entropy.uuid4(),
                upload_id=entropy.uuid4(),
                user_id=None,
                folder_id=None,
                bucket=bucket,
                key=key,
                filename=None,
                created_ms=now_ms,
                expires_ms=now_ms,
                **values,
            )
            media_rows.add(scope, record)
            return record

        return await self._store.write(project_id, work)

    async def delete(self, project_id: str, user_id: str | None, id_: str) -> bool:
        """A user's (None: the project's) asset and its object; False where there is none."""

        def work(scope: Scoped) -> AssetRecord | None:
            record = media_rows.find(scope, id_)
            if record is None or not rules.theirs(record, user_id):
                return None
            media_rows.mark_gone(scope, [record])
            return record

        gone = await self._store.write(project_id, work)
        if gone is None:
            return False
        await self._drop(project_id, [gone])
        return True

    async def delete_object(self, project_id: str, bucket: str, key: str) -> str | None:
        """An object and its asset, whose id is given. Raises `Refused` object_not_found."""
        names.check_key(bucket, key)
        record = await self._at(project_id, bucket, key)
        if record is not None and await self.delete(project_id, None, record.id):
            return record.id
        if await self._objects.head(project_id, f"{bucket}/{key}") is None:
            raise rules.no_object(f"{bucket}/{key}")
        await self._objects.delete(project_id, [f"{bucket}/{key}"])
        return None

    async def purge(self, project_id: str, until_ms: int) -> int:
        """Without what was due by then: a bounded number of assets; how many there were."""
        most = limits.MEDIA_PURGE.value
        if not await self._store.read(project_id, lambda s: media_rows.due(s, until_ms, 1)):
            return 0

        def work(scope: Scoped) -> list[AssetRecord]:
            due = media_rows.due(scope, until_ms, most)
            media_rows.mark_gone(scope, due)
            return due

        gone = await self._store.write(project_id, work)
        await self._drop(project_id, gone)
        return len(gone)

    async def _drop(self, project_id: str, gone: list[AssetRecord]) -> None:
        """First the objects: a crash in between leaves rows, which the next purge takes."""
        await self._objects.delete(project_id, [record.object_key for record in gone])
        await self._store.write(project_id, lambda scope: media_rows.drop(scope, gone))

    async def _at(self, project_id: str, bucket: str, key: str) -> AssetRecord | None:
        return await self._store.read(project_id, lambda scope: media_rows.at(scope, bucket, key))

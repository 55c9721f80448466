"""STORAGE as the media service wants it: services never import one another, so it is wired here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from amba_router.services.media.objects import Held, Taken
from amba_router.services.storage.rules import Condition, ETag, Fault, R2Error, Strength
from amba_router.services.storage.service import ObjectRead, StorageService
from amba_router.store.records import Metadata, StoredObject
from amba_runtime.manifest import ProjectId

_NOTHING_THERE = Condition(etag_differs=(ETag(Strength.WILDCARD),))


class StorageObjects:
    """A `media.objects.Objects`. Owns nothing."""

    def __init__(self, storage: StorageService) -> None:
        self._storage = storage

    async def put(
        self,
        project_id: str,
        key: str,
        body: AsyncIterator[bytes],
        *,
        content_type: str,
        fresh: bool,
    ) -> Held:
        """See `Objects.put`."""
        try:
            stored = await self._storage.put(
                ProjectId(project_id),
                key,
                body,
                metadata=Metadata({"contentType": content_type}),
                condition=_NOTHING_THERE if fresh else None,
            )
        except R2Error as error:
            if error.fault is Fault.PRECONDITION_FAILED and error.found is not None:
                raise Taken(error.found.etag) from None
            raise
        return _held(stored)

    async def head(self, project_id: str, key: str) -> Held | None:
        """See `Objects.head`."""
        try:
            return _held(await self._storage.head(ProjectId(project_id), key))
        except R2Error as error:
            if error.fault is Fault.NO_SUCH_KEY:
                return None
            raise

    async def open(self, project_id: str, key: str) -> tuple[Held, AsyncIterator[bytes]] | None:
        """See `Objects.open`."""
        try:
            read = await self._storage.get(ProjectId(project_id), key)
        except R2Error as error:
            if error.fault is Fault.NO_SUCH_KEY:
                return None
            raise
        return _held(read.found), _bytes(read)

    async def delete(self, project_id: str, keys: list[str]) -> None:
        """See `Objects.delete`."""
        await self._storage.delete(ProjectId(project_id), keys)


async def _bytes(read: ObjectRead) -> AsyncGenerator[bytes]:
    try:
        async for data in read.body:
            yield data
    finally:
        await read.body.aclose()


def _held(found: StoredObject) -> Held:
    type_ = found.metadata.http.get("contentType")
    return Held(
        found.size, found.etag, type_ if isinstance(type_, str) else "application/octet-stream"
    )

"""STORAGE as R2 behaves, for every project of one state folder.

Contract part C (`STORAGE`), E.7, H-30. Wire forms live in `r2_wire` and `routes`.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from amba_router.services.storage import rules
from amba_router.services.storage.body import ObjectBody
from amba_router.services.storage.cursor import decode_cursor
from amba_router.services.storage.intake import receive, staging
from amba_router.services.storage.rules import Condition, Fault, R2Error, Range
from amba_router.store.on_demand import OnDemand
from amba_router.store.records import (
    Metadata,
    Page,
    Part,
    Segment,
    StoredObject,
    Upload,
)
from amba_router.store.state import State
from amba_runtime import entropy, limits, wire
from amba_runtime.clock import Clock, time_ms
from amba_runtime.manifest import ProjectId

if TYPE_CHECKING:
    from amba_router.store.objects import Objects


@dataclass(frozen=True, slots=True)
class ObjectRead:
    """An answered get: the object, and the range that `body` has. The receiver closes `body`."""

    found: StoredObject
    offset: int
    body: ObjectBody


class StorageService:
    """Objects in one state folder. Belongs to one event loop.

    Given a folder, nothing is opened or imported until the first use (`OnDemand`). Given what
    others use as well, that is left open. `close` when done; idempotent.
    """

    def __init__(self, state: Path | State | OnDemand, clock: Clock) -> None:
        """Args: state: the state directory, made when missing, or one that is open already."""
        self._own = None if isinstance(state, OnDemand) else OnDemand(state, clock)
        self._states = state if isinstance(state, OnDemand) else cast(OnDemand, self._own)
        self._clock = clock

    # life

    async def open(self) -> None:
        """Open the store now instead of at the first use. Idempotent.

        Raises:
            UserError: as `State.open`.
        """
        await self._objects()

    async def close(self) -> None:
        """Finish what has begun and let the folder go, unless it is someone else's."""
        if self._own is not None:
            await self._own.close()

    def bucket(self, project_id: ProjectId) -> wire.Handler:
        """What answers a function's `STORAGE` binding, for `wire.Server`."""
        from amba_router.services.storage.r2_wire import bucket_handler  # it imports this module

        return bucket_handler(self, project_id)

    async def _objects(self) -> Objects:
        return (await self._states.state()).objects

    # one object

    async def put(
        self,
        project_id: ProjectId,
        key: str,
        body: AsyncIterator[bytes],
        *,
        metadata: Metadata | None = None,
        condition: Condition | None = None,
        checksums: Mapping[str, str] | None = None,
    ) -> StoredObject:
        """Store an object. When this returns, it survives a power cut.

        Args:
            project_id: whose bucket.
            key: up to 1,024 bytes of UTF-8.
            body: the bytes; an exception of it leaves the bucket as it was.
            metadata: what to keep with it.
            condition: about the object that is there now, checked at the moment of storing.
            checksums: algorithm to lower-case hex; the bytes must have them.

        Raises:
            R2Error: refused; nothing was stored.
        """
        name = rules.check_key(key)
        metadata = metadata or Metadata()
        rules.check_metadata(metadata)
        checksums = checksums or {}
        objects = await self._objects()
        async with staging(objects, checksums) as staged:
            await receive(objects, staged, body)
            computed = {a: staged.digest(a) for a in ("md5", *checksums)}
            rules.check_digests(checksums, computed)
            new = StoredObject(
                key=name,
                version=_new_version(),
                size=staged.size,
                etag=computed["md5"],
                uploaded_ms=time_ms(self._clock),
                checksums=computed,
                metadata=metadata,
            )
            await objects.put(
                project_id, new, staged, admit=lambda old: rules.require(condition, old)
            )
        return new

    async def get(
        self,
        project_id: ProjectId,
        key: str,
        *,
        asked: Range | None = None,
        condition: Condition | None = None,
    ) -> ObjectRead:
        """An object and (a range of) its bytes.

        Raises:
            R2Error: NO_SUCH_KEY; PRECONDITION_FAILED with the object; INVALID_RANGE.
            InternalError: BLOB_DAMAGED.
        """

        def choose(found: StoredObject) -> tuple[int, int]:
            rules.require(condition, found)
            return rules.resolve(asked, found.size)

        return await self.read(project_id, key, choose)

    async def read(
        self,
        project_id: ProjectId,
        key: str,
        choose: Callable[[StoredObject], tuple[int, int]],
    ) -> ObjectRead:
        """An object and the bytes (offset, length) that `choose` wants of it; it may raise.

        Raises:
            R2Error: NO_SUCH_KEY.
            InternalError: BLOB_DAMAGED.
        """
        name = rules.check_key(key)
        objects = await self._objects()
        acquired = await objects.acquire(project_id, name)
        if acquired is None:
            raise R2Error(Fault.NO_SUCH_KEY)
        found, segments, lease = acquired
        try:
            offset, length = choose(found)
            body = ObjectBody(objects, segments, lease, offset=offset, length=length)
            await body.prefetch()
        except BaseException:
            lease.close()
            raise
        return ObjectRead(found, offset, body)

    async def head(self, project_id: ProjectId, key: str) -> StoredObject:
        """An object without its bytes. Raises R2Error NO_SUCH_KEY."""
        name = rules.check_key(key)
        found = await (await self._objects()).find(project_id, name)
        if found is None:
            raise R2Error(Fault.NO_SUCH_KEY)
        return found

    async def delete(self, project_id: ProjectId, keys: Sequence[str]) -> None:
        """Delete up to 1,000 objects, all or none; missing ones are passed over."""
        if len(keys) > limits.STORAGE_DELETE.value:
            raise R2Error(
                Fault.INVALID_ARGUMENT,
                f"At most {limits.STORAGE_DELETE.value} keys can be deleted at once, "
                f"not {len(keys)}.",
            )
        names = [rules.check_key(key) for key in keys]
        await (await self._objects()).delete(project_id, names)

    # many objects

    async def list(
        self,
        project_id: ProjectId,
        *,
        prefix: str = "",
        delimiter: str = "",
        start_after: str = "",
        cursor: str = "",
        limit: int | None = None,
    ) -> Page:
        """One page of the bucket in the order of the keys' UTF-8. Raises R2Error."""
        limit = limits.STORAGE_LIST.value if limit is None else limit
        if not 1 <= limit <= limits.STORAGE_LIST.value:
            raise R2Error(Fault.INVALID_MAX_KEYS)
        start = start_after.encode("utf-8", "replace") + b"\0" if start_after else b""
        if cursor:
            start = max(start, decode_cursor(project_id, cursor))
        return await (await self._objects()).list(
            project_id,
            prefix=prefix.encode("utf-8", "replace"),
            start=start,
            delimiter=delimiter.encode("utf-8", "replace"),
            limit=limit,
        )

    # multipart

    async def create_upload(
        self, project_id: ProjectId, key: str, metadata: Metadata | None = None
    ) -> str:
        """Begin a multipart upload; its id."""
        name = rules.check_key(key)
        metadata = metadata or Metadata()
        rules.check_metadata(metadata)
        upload_id = urlsafe_b64encode(entropy.key_bytes(96)).decode()
        upload = Upload(upload_id, name, metadata, open=True)
        await (await self._objects()).create_upload(project_id, upload, time_ms(self._clock))
        return upload_id

    async def upload_part(
        self,
        project_id: ProjectId,
        key: str,
        upload_id: str,
        number: int,
        body: AsyncIterator[bytes],
    ) -> str:
        """Store a part, durably; its etag."""
        name = rules.check_key(key)
        if not 1 <= number <= limits.STORAGE_PARTS.value:
            raise R2Error(
                Fault.INVALID_ARGUMENT,
                f"Part numbers go from 1 to {limits.STORAGE_PARTS.value}, not {number}.",
            )
        objects = await self._objects()
        async with staging(objects) as staged:
            await receive(objects, staged, body)
            part = Part(number, staged.digest("md5"), staged.segment())
            await objects.put_part(
                project_id, name, upload_id, part, staged, admit=rules.admit_part
            )
        return part.etag

    async def complete_upload(
        self,
        project_id: ProjectId,
        key: str,
        upload_id: str,
        wanted: Sequence[tuple[int, str]],
    ) -> StoredObject:
        """Make one object of the parts, given as (number, etag)."""
        name = rules.check_key(key)

        def decide(
            upload: Upload | None, there: Sequence[Part]
        ) -> tuple[StoredObject, Sequence[Segment]]:
            upload, parts = rules.choose_parts(upload, there, wanted)
            new = StoredObject(
                key=name,
                version=_new_version(),
                size=sum(p.segment.size for p in parts),
                etag=rules.multipart_etag(parts),
                uploaded_ms=time_ms(self._clock),
                checksums={},
                metadata=upload.metadata,
            )
            return new, rules.segments_of(parts)

        return await (await self._objects()).complete_upload(project_id, name, upload_id, decide)

    async def abort_upload(self, project_id: ProjectId, key: str, upload_id: str) -> None:
        """Drop an upload and its parts."""
        name = rules.check_key(key)
        await (await self._objects()).abort_upload(
            project_id, name, upload_id, admit=rules.admit_abort
        )


def _new_version() -> str:
    return entropy.uuid4().replace("-", "")

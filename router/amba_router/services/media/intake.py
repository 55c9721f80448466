"""The bytes of a PUT on their way into STORAGE: counted, hashed, stopped when too many."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Protocol

from amba_router.api import faults
from amba_runtime import limits


class Upload(Protocol):
    """A request's body, unread."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Piece by piece."""
        ...

    def release(self) -> None:
        """What was given is no longer in memory."""
        ...


class Intake:
    """One body, read once. Attributes: md5: hex, of what has been read."""

    def __init__(self, upload: Upload, size: int | None) -> None:
        """Args: size: bytes, exactly; None is as many as a PUT may have."""
        self._upload = upload
        self._size = size
        self._md5 = hashlib.md5(usedforsecurity=False)

    @property
    def md5(self) -> str:
        return self._md5.hexdigest()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Raises `Refused`: PAYLOAD_TOO_LARGE at the first byte too many, SIZE_MISMATCH."""
        count = 0
        async for data in self._upload.chunks():
            count += len(data)
            check_length(count, self._size)
            self._md5.update(data)
            yield data
            self._upload.release()  # it is on disk, or in the one chunk that goes there next
        if self._size is not None and count != self._size:
            raise faults.SIZE_MISMATCH.refuse(
                f"the body has {count} bytes; {self._size} were presigned",
                {"size_bytes": self._size, "received": count},
            )


def check_length(count: int, size: int | None) -> None:
    """Raises `Refused` PAYLOAD_TOO_LARGE."""
    most = limits.MEDIA_OBJECT.value if size is None else size
    if count > most:
        raise faults.PAYLOAD_TOO_LARGE.refuse(
            f"the body passes the {most} bytes that this URL allows", {"bytes_max": most}
        )

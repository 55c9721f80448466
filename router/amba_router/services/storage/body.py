"""The bytes of one object on their way out: one chunk in memory, verified, closed exactly once."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from amba_router.store.blobs import Hash, Lease
from amba_router.store.records import Segment
from amba_runtime import limits

if TYPE_CHECKING:
    from amba_router.store.objects import Objects


@dataclass(slots=True)
class _Piece:
    """What is left to read of one blob; `whole` is set when all of it is read."""

    blob: str
    offset: int
    left: int
    whole: Hash | None = field(default=None)


class ObjectBody:
    """An async iterator over a range of an object. `aclose` when done; idempotent.

    Raises InternalError BLOB_DAMAGED from `__anext__` when stored bytes have changed.
    """

    def __init__(
        self,
        objects: Objects,
        segments: Sequence[Segment],
        lease: Lease,
        *,
        offset: int,
        length: int,
    ) -> None:
        self.length = length
        self._objects = objects
        self._lease = lease
        self._pieces = _pieces(segments, offset, length)
        self._first: bytes | None = None

    async def prefetch(self) -> None:
        """Read the first chunk now, so that damage in it is told before an answer begins."""
        if self._pieces:
            self._first = await self._next()

    async def read(self) -> bytes:
        """All of it, then closed; for bodies of `limits.STORE_CHUNK` at most."""
        try:
            return b"".join([data async for data in self])
        finally:
            await self.aclose()

    def __aiter__(self) -> ObjectBody:
        return self

    async def __anext__(self) -> bytes:
        first, self._first = self._first, None
        if first is not None:
            return first
        if not self._pieces:
            raise StopAsyncIteration
        return await self._next()

    async def aclose(self) -> None:
        """Let the blobs go."""
        self._pieces.clear()
        self._lease.close()

    async def _next(self) -> bytes:
        piece = self._pieces[0]
        size = min(piece.left, limits.STORE_CHUNK.value)
        data = await self._objects.read(piece.blob, piece.offset, size, piece.whole)
        piece.offset += size
        piece.left -= size
        if not piece.left and self._pieces:
            self._pieces.popleft()
        return data


def _pieces(segments: Sequence[Segment], offset: int, length: int) -> deque[_Piece]:
    pieces: deque[_Piece] = deque()
    start = 0
    for segment in segments:
        low = max(offset, start)
        high = min(offset + length, start + segment.size)
        if low < high:
            whole = hashlib.sha256() if high - low == segment.size else None
            pieces.append(_Piece(segment.blob, low - start, high - low, whole))
        start += segment.size
    return pieces

"""The bytes of one value on their way in: to disk as they arrive, gone unless they are adopted."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from amba_router.services.storage.rules import Fault, R2Error
from amba_router.store.blobs import Staged
from amba_runtime import limits

if TYPE_CHECKING:
    from amba_router.store.objects import Objects


@contextlib.asynccontextmanager
async def staging(
    objects: Objects, algorithms: Mapping[str, str] | None = None
) -> AsyncGenerator[Staged]:
    """A staged value that is gone at the end, unless it was adopted."""
    staged = objects.stage(algorithms or ())
    try:
        yield staged
    finally:
        if not staged.adopted:
            with contextlib.suppress(RuntimeError):  # closed meanwhile: the next open clears it
                await objects.in_thread(staged.discard)


async def receive(objects: Objects, staged: Staged, body: AsyncIterator[bytes]) -> None:
    """All of `body` to disk, one chunk in memory at a time."""
    pending: list[bytes] = []
    size = total = 0
    async for data in body:
        total += len(data)
        if total > limits.STORAGE_VALUE.value:
            raise R2Error(Fault.ENTITY_TOO_LARGE)
        pending.append(data)
        size += len(data)
        if size >= limits.STORE_CHUNK.value:
            chunk = b"".join(pending)
            pending.clear()
            size = 0
            await objects.in_thread(partial(staged.write, chunk))
    await objects.in_thread(partial(staged.finish, b"".join(pending)))

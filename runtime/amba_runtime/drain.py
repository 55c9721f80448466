"""When an isolate may end: its requests are over, and the work that outlives them is, too."""

from __future__ import annotations

import asyncio
from typing import Protocol

from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.engine.base import Isolate
from amba_runtime.errors import InternalError
from amba_runtime.wire import WireError


async def pending(isolate: Isolate | None) -> int | None:
    """Promises given to `waitUntil` that have not settled; None when it does not say in time."""
    if isolate is None:
        return 0
    try:
        async with asyncio.timeout(limits.PENDING_S.value):
            return await isolate.pending()
    except TimeoutError:
        return None
    except (WireError, InternalError):
        return 0


class Draining(Protocol):
    """What is waited for: a slot. `inflight` requests are under way there."""

    inflight: int

    @property
    def isolate(self) -> Isolate | None: ...

    @property
    def queued(self) -> bool:
        """Requests will be under way."""
        ...

    async def empty(self) -> None:
        """Wait until no request is under way."""


async def drained(slot: Draining, clock: Clock) -> None:
    """Wait until all is done there; one that says nothing is given up after a few questions."""
    silent = 0
    while silent < limits.PENDING_SILENT.value:
        if slot.inflight:
            await slot.empty()
        left = await pending(slot.isolate)
        if left == 0 and not slot.inflight and not slot.queued:
            return
        # one that holds its thread may never let go: it is not waited for as work is
        silent = silent + 1 if left is None else 0
        await clock.sleep(limits.PENDING_EVERY_S.value)

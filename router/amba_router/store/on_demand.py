"""A state directory that is opened when something in it is needed first.

A dev server whose functions leave STORAGE and the services alone does not pay for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

from amba_router.store.state import State
from amba_runtime.clock import Clock
from amba_runtime.errors import InternalCode, InternalError


class OnDemand:
    """Belongs to one event loop. `close` when done; idempotent.

    Args:
        state: a folder, made when missing; or one that is open already, which is left open.
        prepare: what a folder needs once it is open, before anybody else has it.
    """

    def __init__(
        self,
        state: Path | State,
        clock: Clock,
        *,
        prepare: Callable[[State], Awaitable[None]] | None = None,
    ) -> None:
        self.path = state.path if isinstance(state, State) else state
        self._shared = state if isinstance(state, State) else None
        self._clock = clock
        self._prepare = prepare
        # Set once by `state`; back to None when opening failed: the next use tries again.
        self._opening: asyncio.Task[State] | None = None
        self._closed = False

    async def state(self) -> State:
        """The open directory.

        Raises:
            UserError: as `State.open`.
        """
        if self._closed:
            raise InternalError(InternalCode.INVARIANT, f"{self.path} was used after its close")
        if self._shared is not None:
            return self._shared
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        opening = self._opening
        try:
            return await asyncio.shield(opening)
        except Exception:  # whatever failed: the next request opens it anew
            if self._opening is opening:
                self._opening = None
            raise

    async def close(self) -> None:
        """Finish what has begun and let the folder go, unless it is someone else's."""
        self._closed = True
        opening, self._opening = self._opening, None
        if opening is not None:
            with contextlib.suppress(Exception):
                await (await asyncio.shield(opening)).close()

    def __del__(self) -> None:
        if self._opening is not None and not self._closed:
            message = f"the state in {self.path} was not closed"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    async def _open(self) -> State:
        state = await State.open(self.path, self._clock)
        if self._prepare is not None:
            try:
                await self._prepare(state)
            except BaseException:
                await state.close()
                raise
        return state

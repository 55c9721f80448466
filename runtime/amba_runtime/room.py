"""What a slot asks of the node around it: its content, and a place for its isolate."""

from __future__ import annotations

import contextlib
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

from amba_runtime.manifest import Bundle
from amba_runtime.wire import WireError

if TYPE_CHECKING:
    from amba_runtime.slot import Slot

Env = tuple[tuple[str, str], ...]
"""Text bindings: names and values."""


class Overloaded(Exception):
    """More requests are under way, or more isolates alive, than may be."""


class Resting(WireError):
    """The isolate ended too often; another one starts in `retry_after_s` whole seconds."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            f"the function keeps ending its engine; it starts again in {retry_after_s} s"
        )
        self.retry_after_s = retry_after_s


class Kept(Protocol):
    """Where a deployed version's content lies: read at each start, not held in memory."""

    async def bundle(self) -> Bundle: ...
    async def env(self) -> Env: ...


class Room(Protocol):
    """Who else lives on this machine: see `pool.Pool`."""

    def starting(self) -> AbstractAsyncContextManager[None]: ...
    def joined(self, slot: Slot) -> None: ...
    def left(self, slot: Slot) -> None: ...
    def used(self, slot: Slot) -> None: ...


class AnyRoom:
    """Room for all."""

    def starting(self) -> AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()

    def joined(self, slot: Slot) -> None:
        """Welcome."""

    def left(self, slot: Slot) -> None:
        """Farewell."""

    def used(self, slot: Slot) -> None:
        """Nobody counts."""

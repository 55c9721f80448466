"""Whose turn is next where many want to do something at once: turn by turn over projects.

A project takes one more place only while it holds fewer than are free: however much one has
to do, others find a place (as `turnstile`, reliability.md T20).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from amba_router.triggers.ring import Key, Ring
from amba_runtime.background import Background

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """Runs `work` for each item, so many at once. Belongs to one event loop; `close` at the end.

    What waits is as much as is added: whoever adds keeps that bounded.
    """

    def __init__(
        self, at_once: int, work: Callable[[str, Item], Coroutine[Any, Any, None]]
    ) -> None:
        self._work = work
        self._ring = Ring(at_once)
        self._waiting: dict[Key, Item] = {}
        self._added = 0
        self._background = Background()
        self._closed = False  # set by `stop`, for good

    @property
    def busy(self) -> int:
        """How many are under way."""
        return self._ring.busy

    @property
    def waiting(self) -> int:
        """How many have not begun."""
        return len(self._waiting)

    def add(self, project_id: str, item: Item) -> None:
        """In this project's turn; nothing after `stop`."""
        if self._closed:
            return
        self._added += 1
        key = (project_id, str(self._added))
        self._waiting[key] = item
        self._ring.want(key)
        self._pump()

    def stop(self) -> None:
        """Begin nothing more; what waits is forgotten."""
        self._closed = True
        self._waiting.clear()

    async def close(self) -> None:
        """The same, and end what is under way. Idempotent."""
        self.stop()
        await self._background.close()

    def _pump(self) -> None:
        while not self._closed and (key := self._ring.next()) is not None:
            self._background.spawn(self._run(key, self._waiting.pop(key)))

    async def _run(self, key: Key, item: Item) -> None:
        try:
            await self._work(key[0], item)
        finally:
            self._ring.done(key)
            self._pump()

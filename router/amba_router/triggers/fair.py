"""Whose turn is next where many want to do something at once: turn by turn over projects.

A project takes one more place only while it holds fewer than are free: however much one has
to do, others find a place (as `turnstile`, reliability.md T20).
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from amba_runtime.background import Background

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """Runs `work` for each item, so many at once. Belongs to one event loop; `close` at the end.

    What waits is as much as is added: whoever adds keeps that bounded.
    """

    def __init__(
        self, at_once: int, work: Callable[[str, Item], Coroutine[Any, Any, None]]
    ) -> None:
        self._free = at_once
        self._work = work
        self._waiting: OrderedDict[str, deque[Item]] = OrderedDict()
        self._holds: Counter[str] = Counter()
        self._background = Background()
        self._closed = False  # set by `stop`, for good

    @property
    def busy(self) -> int:
        """How many are under way."""
        return self._holds.total()

    @property
    def waiting(self) -> int:
        """How many have not begun."""
        return sum(len(items) for items in self._waiting.values())

    def add(self, project_id: str, item: Item) -> None:
        """In this project's turn; nothing after `stop`."""
        if self._closed:
            return
        self._waiting.setdefault(project_id, deque()).append(item)
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
        begun = True
        while begun:
            begun = False
            for project_id in list(self._waiting):
                if self._holds[project_id] >= self._free:
                    continue
                items = self._waiting[project_id]
                item = items.popleft()
                if items:
                    self._waiting.move_to_end(project_id)
                else:
                    del self._waiting[project_id]
                self._free -= 1
                self._holds[project_id] += 1
                self._background.spawn(self._run(project_id, item))
                begun = True

    async def _run(self, project_id: str, item: Item) -> None:
        try:
            await self._work(project_id, item)
        finally:
            self._free += 1
            self._holds[project_id] -= 1
            if not self._holds[project_id]:
                del self._holds[project_id]
            self._pump()

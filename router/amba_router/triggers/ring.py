"""Whose delivery is next: queues of all projects share a node's deliveries, turn by turn.

A project takes one more only while it has fewer under way than are free, as with the places of a
node: a thousand queues of one project leave some for who comes later (reliability.md J10).
"""

from __future__ import annotations

from collections import Counter, OrderedDict

Key = tuple[str, str]
"""Project, queue."""


class Ring:
    """Queues that want a delivery, and how many each project has. Belongs to one event loop.

    Args:
        most: deliveries at once, of all.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[str] = Counter()
        self._busy = 0
        # the project that is next comes first, and its queue that is next
        self._waiting: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()

    @property
    def crowded(self) -> bool:
        """Somebody waits for a turn: who has one, and wants another, queues up again."""
        return bool(self._waiting)

    @property
    def busy(self) -> int:
        """Deliveries under way."""
        return self._busy

    def want(self, key: Key) -> None:
        """This queue wants one more delivery, if it does not already."""
        project_id, queue = key
        self._waiting.setdefault(project_id, OrderedDict()).setdefault(queue)

    def next(self) -> Key | None:
        """Whose turn it is, which it has from here on until `done`; None: nobody's now."""
        free = self._most - self._busy
        for project_id, queues in self._waiting.items():
            if self._held[project_id] < free:
                queue, _ = queues.popitem(last=False)
                if queues:
                    self._waiting.move_to_end(project_id)
                else:
                    del self._waiting[project_id]
                self._held[project_id] += 1
                self._busy += 1
                return project_id, queue
        return None

    def done(self, key: Key) -> None:
        """Its delivery is over."""
        self._busy -= 1
        self._held[key[0]] -= 1
        if not self._held[key[0]]:
            del self._held[key[0]]

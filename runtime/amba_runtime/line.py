"""So many at once, the others in turn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable


class Line:
    """So many at once; the others wait in the order they came.

    Args:
        most: how many, asked whenever somebody comes or leaves.
    """

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._open = 0
        self._waiting: dict[asyncio.Future[None], None] = {}

    @property
    def idle(self) -> bool:
        """Nobody is in it or waits."""
        return self._open == 0 and not self._waiting

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for a place and hold it while the block runs."""
        if self._open < self._most() and not self._waiting:
            self._open += 1
        else:
            place = asyncio.get_running_loop().create_future()
            self._waiting[place] = None
            self._admit()  # there may be more places by now than when the last one left
            try:
                await place
            except asyncio.CancelledError:
                self._waiting.pop(place, None)
                if place.done() and not place.cancelled():
                    self._leave()  # it was given a place in the same moment
                raise
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        self._open -= 1
        self._admit()

    def _admit(self) -> None:
        """Let in who waits, first come first, as far as there are places."""
        while self._waiting and self._open < self._most():
            place = next(iter(self._waiting))
            del self._waiting[place]
            if not place.done():
                self._open += 1
                place.set_result(None)

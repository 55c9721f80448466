"""A few at a time: what a function asks of other functions leaves room for everybody's requests.

One request may fan out into a thousand calls in process. Begun all at once, they would hold the
event loop for as long as they all take. Source: row E29.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Pace:
    """Lets at most `most` begin in one pass of the event loop; the others wait in line."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._begun = 0
        self._line: deque[asyncio.Future[None]] = deque()
        self._armed = False

    async def turn(self) -> None:
        """Return when this one may begin."""
        if self._begun >= self._most or self._line:
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._line.append(place)
            self._arm()
            await place
            return
        self._begun += 1
        self._arm()

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._pass)

    def _pass(self) -> None:
        self._armed = False
        self._begun = 0
        while self._line and self._begun < self._most:
            place = self._line.popleft()
            if not place.done():  # whoever waited has left
                place.set_result(None)
                self._begun += 1
        if self._begun or self._line:
            self._arm()

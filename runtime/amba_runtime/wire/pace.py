"""A few at a time: what functions ask of us leaves room for everybody's requests.

One request may fan out into a thousand subrequests. Begun all at once, they would hold the event
loop for as long as they all take; begun in the order in which they came, one project's thousand
would hold up another's one. Source: rows E18, E29; reliability.md T20.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque


class Pace:
    """Lets at most `most` begin in one pass of the event loop; the others wait, each owner in a
    line of its own, and the lines take turns. Each who waits holds a connection (`Intake`), which
    bounds the lines.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._begun = 0
        # only lines in which somebody waits, the next to be served first
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._armed = False

    async def turn(self, owner: str) -> None:
        """Return when this one may begin."""
        if self._begun < self._most and not self._lines:
            self._begun += 1
            self._arm()
            return
        line = self._lines.get(owner)
        if line is None:
            line = self._lines[owner] = deque()
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(place)
        self._arm()
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled() and place in line:
                line.remove(place)  # whoever left does not count as waiting
                if not line and self._lines.get(owner) is line:
                    del self._lines[owner]
            raise

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._pass)

    def _pass(self) -> None:
        self._armed = False
        self._begun = 0
        while self._lines and self._begun < self._most:
            owner, line = next(iter(self._lines.items()))
            place = line.popleft()
            if line:
                self._lines.move_to_end(owner)
            else:
                del self._lines[owner]
            if not place.done():  # whoever waited has left
                place.set_result(None)
                self._begun += 1
        if self._begun or self._lines:
            self._arm()

"""A few at a time: what functions ask of other functions leaves room for everybody's requests.

One request may fan out into a thousand calls in process. Begun all at once, they would hold the
event loop for as long as they all take; begun in the order in which they came, one project's
thousand would hold up another's one. Source: row E29; reliability.md T20.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from amba_runtime import limits


class Crowded(Exception):
    """Too many of one project wait to begin."""


class Pace:
    """Lets at most `most` begin in one pass of the event loop; the others wait, each project in
    a line of its own, and the lines take turns.

    Args:
        waiting: of one project; more are refused.
    """

    def __init__(self, most: int, *, waiting: int = limits.OWN_CALLS_WAITING.value) -> None:
        self._most = most
        self._waiting = waiting
        self._begun = 0
        # only lines in which somebody waits, the next to be served first
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._armed = False

    def lane(self, project_id: str) -> Lane:
        """The way in of one project's functions."""
        return Lane(self, project_id)

    async def turn(self, project_id: str) -> None:
        """Return when this one may begin.

        Raises:
            Crowded: too many of this project wait already.
        """
        if self._begun < self._most and not self._lines:
            self._begun += 1
            self._arm()
            return
        line = self._lines.get(project_id)
        if line is None:
            line = self._lines[project_id] = deque()
        elif len(line) >= self._waiting:
            raise Crowded
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(place)
        self._arm()
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled() and place in line:
                line.remove(place)  # whoever left does not count as waiting
                if not line and self._lines.get(project_id) is line:
                    del self._lines[project_id]
            raise

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._pass)

    def _pass(self) -> None:
        self._armed = False
        self._begun = 0
        while self._lines and self._begun < self._most:
            project_id, line = next(iter(self._lines.items()))
            place = line.popleft()
            if line:
                self._lines.move_to_end(project_id)
            else:
                del self._lines[project_id]
            if not place.done():  # whoever waited has left
                place.set_result(None)
                self._begun += 1
        if self._begun or self._lines:
            self._arm()


class Lane:
    """One project's way in to a `Pace`."""

    __slots__ = ("_pace", "_project_id")

    def __init__(self, pace: Pace, project_id: str) -> None:
        self._pace = pace
        self._project_id = project_id

    async def turn(self) -> None:
        """See `Pace.turn`."""
        await self._pace.turn(self._project_id)

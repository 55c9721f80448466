"""Look-ups of names under way on a server: each project's share, and whose turn is next."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator

from amba_runtime import limits


class Share:
    """What one project has of the look-ups of all; changed by `LookUps` alone.

    Attributes:
        held: look-ups under way.
        line: who waits for one more, the oldest first.
    """

    __slots__ = ("held", "line")

    def __init__(self) -> None:
        self.held = 0
        self.line: deque[asyncio.Future[None]] = deque()


class LookUps:
    """The look-ups of all projects, `limits.RESOLVE_THREADS` at once.

    A project takes one more only while it holds fewer than are free, as with the places of a
    node: those whose names hang leave some for who comes later.
    """

    def __init__(self) -> None:
        self._held = 0
        self._waiting: OrderedDict[int, Share] = OrderedDict()  # by id; served last comes last

    @contextlib.asynccontextmanager
    async def one(self, share: Share) -> AsyncGenerator[None]:
        """One look-up, once there is a place for it."""
        if not share.line and self._may(share):
            self._give(share)
        else:
            await self._turn(share)
        try:
            yield
        finally:
            self._take_back(share)

    def _may(self, share: Share) -> bool:
        free = limits.RESOLVE_THREADS.value - self._held
        return share.held < min(limits.RESOLVE_AT_ONCE.value, free)

    def _give(self, share: Share) -> None:
        share.held += 1
        self._held += 1

    def _take_back(self, share: Share) -> None:
        share.held -= 1
        self._held -= 1
        self._admit()

    async def _turn(self, share: Share) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        share.line.append(turn)
        self._waiting[id(share)] = share
        try:
            await turn
        except asyncio.CancelledError:
            if turn in share.line:
                share.line.remove(turn)
                if not share.line:
                    del self._waiting[id(share)]
            else:  # it had its place already, and has left meanwhile
                self._take_back(share)
            raise

    def _admit(self) -> None:
        """Let in who may be, one of each project in turn."""
        admitted = True
        while admitted:
            admitted = False
            for key, share in list(self._waiting.items()):
                if not self._may(share):
                    continue
                turn = share.line.popleft()
                if share.line:
                    self._waiting.move_to_end(key)
                else:
                    del self._waiting[key]
                self._give(share)
                admitted = True
                if turn.done():  # cancelled, and not yet told: it gives the place back
                    continue
                turn.set_result(None)

"""How many invocations are under way at once, and whose turn is next: early refusals, no pile-up.

Four bounds hold together: one function's, one project's, the node's, and a fair share: a project
takes one more place only while it holds fewer than are free. One hot project so gets half of the
node, two get a third each, and as many again are always free for whoever comes next.
Whoever is over one waits, in a queue that is bounded in number and in time; free places go round
robin over the projects that wait, and over the functions of a project. A request that would wait
in vain is refused at once, and soon where it waits for its own callers. WebSockets last: beside a
place each takes a seat, of which there are fewer, with fair shares as well, and waits for none.
Source: reliability.md 2.3 (concurrency), T20, rows K1 and K2.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakValueDictionary

from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.message_room import Account, MessageRoom
from amba_runtime.outcome import Breach

CONCURRENCY_LIMIT = "concurrency_limit"
OVERLOADED = "overloaded"
SOCKETS = "WebSockets open"


class Busy(Exception):
    """No place, and none soon. The request was not begun.

    Attributes:
        code: `concurrency_limit` (429) where the function or its project is full,
            `overloaded` (503) where the node is.
        status: the HTTP status.
        retry_after_s: whole seconds, for `Retry-After`.
        breach: the function's limit, where that is what is full.
    """

    def __init__(
        self,
        code: str,
        retry_after_s: int,
        breach: Breach | None = None,
        *,
        kind: str = "requests under way",
    ) -> None:
        whose = "the function has" if code == CONCURRENCY_LIMIT else "the server has"
        super().__init__(f"{whose} too many {kind}; try again shortly")
        self.code = code
        self.status = 429 if code == CONCURRENCY_LIMIT else 503
        self.retry_after_s = retry_after_s
        self.breach = breach


_Turn = asyncio.Future[None]


class Turnstile:
    """One per server. `gate` for each version that serves; `close` at the end.

    Args:
        most: invocations at once.
        of_project: invocations of one project at once; None is `most`, for a server of one
            project, which then need not leave places to others.
        seats: WebSockets at once; None is `most`.
        of_project_seats: WebSockets of one project at once; None is `seats`.
        messages: where the messages of all its WebSockets lie.
        waiting: requests that wait, of all projects.
        of_project_waiting: the same, of one project.
        wait_s: a request waits so long.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        most: int = limits.NODE_CONCURRENCY.value,
        of_project: int | None = None,
        seats: int | None = None,
        of_project_seats: int | None = None,
        messages: MessageRoom | None = None,
        waiting: int = limits.NODE_WAITING.value,
        of_project_waiting: int = limits.PROJECT_WAITING.value,
        wait_s: float = limits.TURN_WAIT_S.value,
    ) -> None:
        self.clock = clock
        self.most = most
        self.of_project = most if of_project is None else of_project
        # how many times what is free a project may hold: at `most` times, it may hold all
        self.fairness = most if of_project is None else 1
        self.seats = most if seats is None else seats
        self.of_project_seats = self.seats if of_project_seats is None else of_project_seats
        self.messages = messages or MessageRoom()
        self.waiting_most = waiting
        self.of_project_waiting = of_project_waiting
        self.wait_s = wait_s
        self.inside = 0
        self.seated = 0
        self._projects: WeakValueDictionary[str, _Share] = WeakValueDictionary()
        # everybody who waits, oldest first; changed by `Gate.enter`, `_admit`, `_expire`
        self.turns: OrderedDict[_Turn, Gate] = OrderedDict()
        # projects with a function that could take one more, the next to be served first
        self._ready: OrderedDict[_Share, None] = OrderedDict()
        self._sweeper: asyncio.Task[None] | None = None
        self._closed = False

    def gate(self, project_id: str, most: int) -> Gate:
        """The way into one version of a function.

        Args:
            most: its invocations at once.
        """
        share = self._projects.get(project_id)
        if share is None:
            share = self._projects[project_id] = _Share(self.messages)
        return Gate(self, share, most)

    def close(self) -> None:
        """Refuse whoever waits, and whoever comes. Idempotent."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for turn, gate in list(self.turns.items()):
            gate.forget(turn)
            if not turn.done():
                turn.set_exception(Busy(OVERLOADED, 1))

    # for gates

    @property
    def closed(self) -> bool:
        """Nobody waits here any more."""
        return self._closed

    def settle(self, gate: Gate) -> None:
        """A place became free, or somebody began to wait: whose turn is it?"""
        self.reckon(gate)
        while (share := self._next()) is not None:
            gate = next(iter(share.ready))
            share.ready.move_to_end(gate)
            self._ready.move_to_end(share)
            gate.admit()
            self.reckon(gate)

    def _next(self) -> _Share | None:
        """The project whose turn it is, of those that hold no more than their fair share."""
        fair = self.fairness * (self.most - self.inside)
        if fair > 0:
            for share in self._ready:
                if share.inside < fair:
                    return share
        return None

    def reckon(self, gate: Gate) -> None:
        """Put it and its project where they belong: among those who could take one more, or not."""
        share = gate.share
        if gate.queue and gate.inside < gate.most:
            share.ready.setdefault(gate)
        else:
            share.ready.pop(gate, None)
        if share.ready and share.inside < self.of_project:
            self._ready.setdefault(share)
        else:
            self._ready.pop(share, None)

    def watch(self) -> None:
        """See to it that nobody waits for longer than they may."""
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def _sweep(self) -> None:
        while self.turns:
            turn, gate = next(iter(self.turns.items()))
            left_s = gate.queue[turn].until_s - self.clock.monotonic_s()
            if left_s > 0:
                await self.clock.sleep(left_s)
            else:
                gate.expire(turn)


class _Share:
    """What the functions of one project hold together."""

    __slots__ = ("__weakref__", "inside", "messages", "ready", "seated", "waiting")

    def __init__(self, messages: MessageRoom) -> None:
        self.inside = 0
        self.seated = 0
        self.messages = messages.share()
        self.waiting = 0
        self.ready: OrderedDict[Gate, None] = OrderedDict()


class _Place:
    """Where one request stands in a queue."""

    __slots__ = ("ahead", "since_s", "until_s")

    def __init__(self, ahead: int, since_s: float, until_s: float) -> None:
        self.ahead = ahead
        self.since_s = since_s
        self.until_s = until_s


class Gate:
    """The way into one version. Whoever entered, by either way, calls `leave` once.

    `queue` is changed by `enter`, `admit`, `expire` and `forget`. While somebody waits, one of
    the four bounds is reached, so `try_enter` jumps no queue.
    """

    __slots__ = ("_node", "_pace_s", "_paced_at_s", "_vain", "inside", "most", "queue", "share")

    def __init__(self, node: Turnstile, share: _Share, most: int) -> None:
        self.inside = 0
        self.most = most
        self.share = share
        self.queue: OrderedDict[_Turn, _Place] = OrderedDict()
        self._node = node
        self._vain = 0  # of those that wait: for themselves, it seemed
        # what one place in the queue took lately, and when that was seen
        self._pace_s = 0.0
        self._paced_at_s = -math.inf

    @property
    def waiting(self) -> int:
        """Requests that wait here."""
        return len(self.queue)

    @property
    def free(self) -> bool:
        """Whether `try_enter` would let one in."""
        node = self._node
        return (
            self.inside < self.most
            and self.share.inside < node.of_project
            and self.share.inside < node.fairness * (node.most - node.inside)
        )

    def try_enter(self) -> bool:
        """Take a place if there is one now."""
        node = self._node
        share = self.share
        if (
            self.inside >= self.most
            or share.inside >= node.of_project
            or share.inside >= node.fairness * (node.most - node.inside)
        ):
            return False
        self.inside += 1
        share.inside += 1
        node.inside += 1
        return True

    def leave(self) -> None:
        """Give the place back; it is somebody else's from here on."""
        node = self._node
        self.inside -= 1
        self.share.inside -= 1
        node.inside -= 1
        if node.turns:
            node.settle(self)

    async def enter(self, in_vain: Callable[[], bool] | None = None) -> None:
        """Take a place, waiting for a turn.

        Args:
            in_vain: whether it waits for itself. Where it does, and still does after
                `limits.VAIN_WAIT_S`, it gives up then; at once where some such wait already.

        Raises:
            Busy: too many wait already, or the turn does not come, or surely would not in time.
        """
        if self.try_enter():
            return
        node, share = self._node, self.share
        if (
            node.closed
            or share.waiting >= node.of_project_waiting
            or len(node.turns) >= node.waiting_most
            or self._expected_s() >= node.wait_s
        ):
            raise self.busy()
        vain = in_vain is not None and in_vain()
        if vain and self._vain >= limits.VAIN_WAITING.value:
            raise self.busy()
        now_s = node.clock.monotonic_s()
        turn: _Turn = asyncio.get_running_loop().create_future()
        self.queue[turn] = _Place(len(self.queue), now_s, now_s + node.wait_s)
        node.turns[turn] = self
        share.waiting += 1
        node.settle(self)
        node.watch()
        giving_up = None
        if in_vain is not None and vain:
            self._vain += 1
            giving_up = asyncio.get_running_loop().create_task(self._give_up(turn, in_vain))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()  # its turn had come in the moment in which it was called off
            else:
                self.forget(turn)
            raise
        finally:
            if giving_up is not None:
                self._vain -= 1
                giving_up.cancel()

    async def _give_up(self, turn: _Turn, in_vain: Callable[[], bool]) -> None:
        await self._node.clock.sleep(limits.VAIN_WAIT_S.value)
        if in_vain() and not turn.done():
            busy = self.busy()
            self.forget(turn)
            turn.set_exception(busy)

    def sit(self) -> None:
        """Take a seat for a WebSocket; then `rise`, once.

        Raises:
            Busy: none is left. Sockets last, so nobody waits for one.
        """
        node, share = self._node, self.share
        if node.closed or node.seated >= node.seats:
            raise Busy(OVERLOADED, 1, kind=SOCKETS)
        fair = node.fairness * (node.seats - node.seated)
        if share.seated >= min(node.of_project_seats, fair):
            raise Busy(CONCURRENCY_LIMIT, 1, kind=SOCKETS)
        share.seated += 1
        node.seated += 1

    def rise(self) -> None:
        """Give a seat back."""
        self.share.seated -= 1
        self._node.seated -= 1

    def account(self) -> Account:
        """Where the messages of one of its WebSockets are counted."""
        return self.share.messages.account()

    # for the turnstile

    def admit(self) -> None:
        """Give a place to the one who has waited longest here, unless it left in this moment."""
        turn, place = next(iter(self.queue.items()))
        self.forget(turn)
        if turn.done():  # called off: its task has not run since, to say so itself
            return
        self._learn(place)
        self.inside += 1
        self.share.inside += 1
        self._node.inside += 1
        turn.set_result(None)

    def expire(self, turn: _Turn) -> None:
        """Refuse one whose time is up."""
        if not turn.done():  # else called off, as in `admit`
            self._learn(self.queue[turn])
            turn.set_exception(self.busy())
        self.forget(turn)

    def forget(self, turn: _Turn) -> None:
        """This one waits no more, for whatever reason."""
        if self.queue.pop(turn, None) is not None:
            del self._node.turns[turn]
            self.share.waiting -= 1
            self._node.reckon(self)

    def _learn(self, place: _Place) -> None:
        now_s = self._node.clock.monotonic_s()
        self._pace_s = (now_s - place.since_s) / (place.ahead + 1)
        self._paced_at_s = now_s

    def _expected_s(self) -> float:
        """What a wait that begins now would take, by what the last ones took."""
        if self._node.clock.monotonic_s() - self._paced_at_s >= self._node.wait_s:
            return 0.0
        return self._pace_s * (len(self.queue) + 1)

    def busy(self) -> Busy:
        """What one is told who finds no place now."""
        node = self._node
        soon = math.ceil(min(self._expected_s(), limits.RETRY_AFTER_MAX_S.value))
        if self.inside >= self.most:
            breach = Breach("concurrency", self.inside + len(self.queue), self.most)
            return Busy(CONCURRENCY_LIMIT, max(1, soon), breach)
        # over its share while places are free: its own doing, as much as at its own bound
        full = self.share.inside >= node.of_project or node.inside < node.most
        return Busy(CONCURRENCY_LIMIT if full else OVERLOADED, max(1, soon))

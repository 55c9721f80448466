"""Names to addresses for functions: everything is bounded, and no project stands in another's way.

A system's resolver holds a thread for as long as a name's servers are silent, and nobody can cut
that short. So look-ups have threads of their own, of which a project takes a few at most (see
`LookUps`), and a caller waits no longer than its deadline, whatever becomes of the thread.
What was answered is kept for some seconds, per project: a shared memory would tell one project
what another asks for. An address that was kept is judged like one that is new, and it is what is
connected to: the answer is pinned (reliability.md section 5, 1 and 15).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

from amba_router.look_ups import LookUps, Share
from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.egress import ResolveError, Resolver

LookUp = Callable[[str], Sequence[str]]
"""Blocks until the system has answered. Raises OSError or ValueError."""


def system_addresses(name: str) -> Sequence[str]:
    """What this machine's resolver says, each address once, in its order. Blocks.

    Raises:
        OSError: no answer.
        ValueError: it is no name.
    """
    answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))


class SystemResolver:
    """The machine's resolver (an `egress.Resolver`), a thread per look-up, so many at once.

    It has no deadline, and a caller that leaves gives no thread back: see `Names`.
    Never the event loop's own pool: what hangs here would hang all else that runs there. The
    threads are daemons: one that hangs keeps no process from its end.
    """

    def __init__(self, look_up: LookUp = system_addresses) -> None:
        self._look_up = look_up
        self._places = asyncio.Semaphore(limits.RESOLVE_THREADS.value)

    async def resolve(self, name: str) -> Sequence[str]:
        """Ask once, when a thread is free. Raises ResolveError."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Sequence[str]] = loop.create_future()

        def tell(answers: Sequence[str], error: Exception | None) -> None:
            self._places.release()
            if told.done():  # whoever asked has left
                return
            if error is None:
                told.set_result(answers)
            else:
                told.set_exception(ResolveError(f"{name} does not resolve: {error}"))

        def work() -> None:
            answers: Sequence[str] = ()
            fault: Exception | None = None
            try:
                answers = self._look_up(name)
            except Exception as error:  # whatever it is: unanswered, its place would be lost
                fault = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(tell, answers, fault)

        try:
            threading.Thread(target=work, name="amba-resolve", daemon=True).start()
        except RuntimeError as error:  # the system has no thread left
            tell((), error)
        return await told


class _Asked:
    """One look-up: its task, who waits for it, and whether the world was asked yet."""

    __slots__ = ("begun", "task", "waiting")

    def __init__(self) -> None:
        self.task: asyncio.Task[Sequence[str]] | None = None
        self.waiting = 0
        self.begun = False


class ProjectNames:
    """The resolver (`egress.Resolver`) of one project's functions. Made by `Names.of`.

    `_under_way` holds each name that is asked for once; `_kept` what was answered, oldest first,
    with the second (of the clock) until which it holds.
    """

    def __init__(self, resolver: Resolver, clock: Clock, look_ups: LookUps) -> None:
        self._resolver = resolver
        self._clock = clock
        self._look_ups = look_ups
        self._share = Share()
        self._under_way: dict[str, _Asked] = {}
        self._kept: OrderedDict[str, tuple[float, Sequence[str]]] = OrderedDict()

    async def resolve(self, name: str) -> Sequence[str]:
        """See `egress.Resolver`.

        Raises:
            ResolveError: it does not resolve, or not in time, or too many others are asked for.
        """
        known = self._known(name)
        if known is not None:
            return known
        asked = self._under_way.get(name) or self._begin(name)
        assert asked.task is not None
        most_s = limits.EGRESS_RESOLVE_S.value
        late = asyncio.ensure_future(self._clock.sleep(most_s))
        asked.waiting += 1
        try:
            await asyncio.wait({asked.task, late}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            late.cancel()
            asked.waiting -= 1
            if not asked.waiting and not asked.begun:  # nobody wants to know any more
                asked.task.cancel()
                self._forget(name, asked)
        if not asked.task.done():
            raise ResolveError(f"{name} was not resolved in {most_s:g} s")
        return asked.task.result()

    def _known(self, name: str) -> Sequence[str] | None:
        until_s, answers = self._kept.get(name, (0.0, ()))
        return answers if answers and self._clock.monotonic_s() < until_s else None

    def _begin(self, name: str) -> _Asked:
        if len(self._under_way) >= limits.RESOLVE_WAITING.value:
            raise ResolveError(
                f"{name} was not looked up: {len(self._under_way)} other names of this project are"
            )
        asked = self._under_way[name] = _Asked()
        asked.task = asyncio.get_running_loop().create_task(self._ask(name, asked))
        # nobody may be there any more when it fails: no noise then
        asked.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return asked

    async def _ask(self, name: str, asked: _Asked) -> Sequence[str]:
        try:
            # held until the world has answered: a thread hangs so long
            async with self._look_ups.one(self._share):
                asked.begun = True
                answers = await self._resolver.resolve(name)
        finally:
            self._forget(name, asked)
        self._keep(name, answers)
        return answers

    def _forget(self, name: str, asked: _Asked) -> None:
        if self._under_way.get(name) is asked:
            del self._under_way[name]

    def _keep(self, name: str, answers: Sequence[str]) -> None:
        if not 1 <= len(answers) <= limits.EGRESS_ANSWERS.value:
            return
        self._kept[name] = (self._clock.monotonic_s() + limits.RESOLVE_KEPT_S.value, answers)
        self._kept.move_to_end(name)
        if len(self._kept) > limits.RESOLVE_KEPT.value:
            self._kept.popitem(last=False)


class Names:
    """One resolver for all projects of a server, each with bounds and a memory of its own."""

    def __init__(self, resolver: Resolver, clock: Clock) -> None:
        self._resolver = resolver
        self._clock = clock
        self._look_ups = LookUps()
        # a project's goes with the last function that has it, and look-ups that are under way
        self._projects: WeakValueDictionary[str, ProjectNames] = WeakValueDictionary()

    def of(self, project_id: str) -> ProjectNames:
        """The same for all functions of a project."""
        names = self._projects.get(project_id)
        if names is None:
            names = self._projects[project_id] = ProjectNames(
                self._resolver, self._clock, self._look_ups
            )
        return names

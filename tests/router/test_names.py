"""Names that nobody answers for cost their own project its look-ups, and no other anything."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from amba_router.names import Names, ProjectNames, SystemResolver
from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.egress import ResolveError

HERE = ("93.184.215.14",)


class Slow:
    """A resolver (`egress.Resolver`) whose silent names are answered when a test says so."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.under_way = 0
        self.most = 0
        self.silent: dict[str, asyncio.Future[Sequence[str]]] = {}

    async def resolve(self, name: str) -> Sequence[str]:
        """At once, but of names with "silent" in them. Raises ResolveError for "gone"."""
        self.asked.append(name)
        if "gone" in name:
            raise ResolveError(f"{name} does not resolve")
        if "silent" not in name:
            return HERE
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.silent[name] = asyncio.get_running_loop().create_future()
        try:
            return await self.silent[name]
        finally:
            self.under_way -= 1


def run(body: Callable[[Slow, ManualClock, Names], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        slow, clock = Slow(), ManualClock()
        async with asyncio.timeout(10):
            await body(slow, clock, Names(slow, clock))

    asyncio.run(main())


def silence(names: ProjectNames, count: int) -> list[asyncio.Task[Sequence[str]]]:
    """Ask for so many names whose servers say nothing."""
    return [asyncio.ensure_future(names.resolve(f"silent{n}.test.")) for n in range(count)]


async def refused(asking: asyncio.Task[Sequence[str]]) -> str:
    with pytest.raises(ResolveError) as caught:
        await asking
    return str(caught.value)


def test_a_project_that_asks_for_silent_names_keeps_no_other_waiting() -> None:
    """Of its look-ups a few are under way, whoever has given up on them (threat T11, row G)."""

    async def body(slow: Slow, clock: ManualClock, names: Names) -> None:
        hostile = names.of("hostile")
        most = limits.RESOLVE_AT_ONCE.value
        asking = silence(hostile, 2 * most)
        await clock.advance(limits.EGRESS_RESOLVE_S.value)
        assert {await refused(task) for task in asking} == {
            f"silent{n}.test. was not resolved in 5 s" for n in range(2 * most)
        }
        assert (slow.under_way, slow.most) == (most, most)
        assert await names.of("honest").resolve("example.com.") == HERE
        # its own are where they were: what hangs is counted until it ends
        more = asyncio.ensure_future(hostile.resolve("example.com."))
        await clock.advance(limits.EGRESS_RESOLVE_S.value)
        assert await refused(more) == "example.com. was not resolved in 5 s"
        slow.silent["silent0.test."].set_result(HERE)
        assert await hostile.resolve("example.com.") == HERE
        # those that had not begun when all had left were not asked for at all
        assert len(slow.asked) == most + 2

    run(body)


def test_too_many_names_at_once_are_refused_at_once() -> None:
    """The line of one project is bounded, and says so early (reliability.md 5, 18)."""

    async def body(slow: Slow, clock: ManualClock, names: Names) -> None:
        mine, most = names.of("mine"), limits.RESOLVE_WAITING.value
        asking = silence(mine, most)
        await asyncio.sleep(0)
        with pytest.raises(ResolveError, match=f"not looked up: {most} other names of this proj"):
            await mine.resolve("example.com.")
        assert await names.of("other").resolve("example.com.") == HERE
        # a name that is asked for already is no further one
        again = asyncio.ensure_future(mine.resolve("silent0.test."))
        await asyncio.sleep(0)
        slow.silent["silent0.test."].set_result(HERE)
        assert await again == await asking[0] == HERE
        assert Counter(slow.asked)["silent0.test."] == 1
        assert await names.of("mine").resolve("silent0.test.") == HERE
        for task in asking:
            task.cancel()

    run(body)


def test_the_next_in_line_is_asked_for_when_one_has_ended() -> None:
    """A burst of honest names waits a moment instead of failing (ours)."""

    async def body(slow: Slow, clock: ManualClock, names: Names) -> None:
        mine, most = names.of("mine"), limits.RESOLVE_AT_ONCE.value
        asking = silence(mine, most + 1)
        await clock.advance(0)
        last = f"silent{most}.test."
        assert last not in slow.asked
        slow.silent["silent3.test."].set_result(HERE)
        await clock.advance(0)
        slow.silent[last].set_result(HERE)
        assert await asking[most] == HERE
        for task in asking:
            task.cancel()

    run(body)


def test_a_caller_that_leaves_ends_no_look_up_of_another() -> None:
    """Two wait for one name; who leaves takes nothing with it (ours)."""

    async def body(slow: Slow, clock: ManualClock, names: Names) -> None:
        mine = names.of("mine")
        first, second = (asyncio.ensure_future(mine.resolve("silent.test.")) for _ in range(2))
        await clock.advance(0)
        first.cancel()
        await clock.advance(0)
        slow.silent["silent.test."].set_result(HERE)
        assert await second == HERE
        assert slow.asked == ["silent.test."]

    run(body)


def test_addresses_are_kept_for_a_moment_and_of_so_many_names() -> None:
    """Bounded in time and in number; another project's memory is its own (ours)."""

    async def body(slow: Slow, clock: ManualClock, names: Names) -> None:
        mine, most = names.of("mine"), limits.RESOLVE_KEPT.value

        async def asks(name: str, of: ProjectNames = mine) -> bool:
            before = len(slow.asked)
            assert await of.resolve(name) == HERE
            return len(slow.asked) > before

        assert await asks("a.test.")
        assert not await asks("a.test.")
        assert await asks("a.test.", names.of("other"))
        await clock.advance(limits.RESOLVE_KEPT_S.value - 0.001)
        assert not await asks("a.test.")
        await clock.advance(0.001)
        assert await asks("a.test.")
        for n in range(most - 1):
            assert await asks(f"n{n}.test.")
        assert not await asks("a.test.")
        assert await asks("one-more.test.")
        assert await asks("a.test.")

    run(body)


def test_a_failure_is_not_kept() -> None:
    """Who mends a name need not wait (ours); it is told in the resolver's words."""

    async def body(slow: Slow, clock: ManualClock, names: Names) -> None:
        for count in (1, 2):
            with pytest.raises(ResolveError, match="does not resolve"):
                await names.of("mine").resolve("gone.test.")
            assert len(slow.asked) == count

    run(body)


def test_a_project_without_functions_is_forgotten() -> None:
    """Projects come and go on a node; what is under way is counted all the same (ours)."""

    async def body(slow: Slow, clock: ManualClock, names: Names) -> None:
        assert await names.of("mine").resolve("a.test.") == HERE
        gc.collect()
        assert await names.of("mine").resolve("a.test.") == HERE
        assert slow.asked == ["a.test."] * 2
        asking = silence(names.of("mine"), 1)
        await clock.advance(limits.EGRESS_RESOLVE_S.value)
        await refused(asking.pop())
        del asking
        gc.collect()
        again = asyncio.ensure_future(names.of("mine").resolve("silent0.test."))
        await clock.advance(0)
        slow.silent["silent0.test."].set_result(HERE)
        assert await again == HERE
        assert slow.asked.count("silent0.test.") == 1

    run(body)


# --- what all projects share -------------------------------------------------------------------


def few(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """So many look-ups of all projects at once, four of one."""
    monkeypatch.setattr(limits, "RESOLVE_THREADS", limits.Limit(threads, "look-ups", "", ""))
    monkeypatch.setattr(limits, "RESOLVE_AT_ONCE", limits.Limit(4, "look-ups", "", ""))


def test_projects_whose_names_hang_leave_some_for_who_comes_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many projects as would have all threads do not get them all (threats T11 and T20)."""
    few(monkeypatch, 12)
    answer = threading.Event()
    asked: list[str] = []

    def look_up(name: str) -> Sequence[str]:
        asked.append(name)
        if name.startswith("silent"):
            answer.wait(10)
        return HERE

    async def main() -> None:
        names = Names(SystemResolver(look_up), ManualClock())
        hostile = [names.of(f"hostile{n}") for n in range(3)]
        asking = [task for one in hostile for task in silence(one, 4)]
        try:
            async with asyncio.timeout(5):
                assert await names.of("honest").resolve("example.com.") == HERE
            assert len(asked) == 4 + 4 + 2 + 1
        finally:
            answer.set()
            await asyncio.gather(*asking)

    asyncio.run(main())


def test_a_place_that_is_given_back_goes_to_a_project_that_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Turn by turn over projects, however many names one has waiting (ours)."""
    few(monkeypatch, 4)

    async def body(slow: Slow, clock: ManualClock, names: Names) -> None:
        def ask(project: str, count: int) -> list[asyncio.Task[Sequence[str]]]:
            of = names.of(project)
            return [asyncio.ensure_future(of.resolve(f"silent-{project}{n}")) for n in range(count)]

        asking = [task for project in "abcde" for task in ask(project, 4)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert slow.asked == ["silent-a0", "silent-a1", "silent-b0", "silent-c0"]
        for done, next_ in (("a0", "d0"), ("d0", "e0"), ("a1", "a2"), ("b0", "b1")):
            slow.silent[f"silent-{done}"].set_result(HERE)
            for _ in range(5):
                await asyncio.sleep(0)
            assert slow.asked[-1] == f"silent-{next_}"
        assert (slow.under_way, slow.most) == (4, 4)
        for task in asking:
            task.cancel()

    run(body)


@pytest.mark.parametrize("first", ["leaves", "is given its place"])
def test_a_place_for_a_caller_that_has_left_is_not_lost(
    first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the two happens first in one pass of the loop (ours)."""
    few(monkeypatch, 1)

    async def body(slow: Slow, clock: ManualClock, names: Names) -> None:
        holds = silence(names.of("a"), 1)[0]
        leaves = asyncio.ensure_future(names.of("b").resolve("silent-b"))
        stays = asyncio.ensure_future(names.of("c").resolve("example.com."))
        also_leaves = asyncio.ensure_future(names.of("d").resolve("silent-d"))
        await clock.advance(0)
        also_leaves.cancel()
        await clock.advance(0)
        if first == "leaves":
            leaves.cancel()
            slow.silent["silent0.test."].set_result(HERE)
        else:
            slow.silent["silent0.test."].set_result(HERE)
            leaves.cancel()
        assert await stays == await holds == HERE
        assert slow.asked == ["silent0.test.", "example.com."]
        assert await names.of("d").resolve("example.org.") == HERE

    run(body)


# --- the machine's resolver --------------------------------------------------------------------


def test_the_machines_resolver_gives_each_address_once() -> None:
    """A literal resolves to itself, without a network (egress.Resolver)."""

    async def main() -> None:
        assert list(await SystemResolver().resolve("127.0.0.1")) == ["127.0.0.1"]
        with pytest.raises(ResolveError, match="does not resolve"):
            await SystemResolver().resolve("a" * 64 + ".invalid.")

    asyncio.run(main())


def test_threads_that_hang_are_bounded_and_leave_the_loops_own_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many as there may be, whoever has left; each comes back when its name ends (T20)."""
    monkeypatch.setattr(limits, "RESOLVE_THREADS", limits.Limit(3, "look-ups", "", ""))
    answer = threading.Event()
    asked: list[str] = []

    def look_up(name: str) -> Sequence[str]:
        asked.append(name)
        if name.startswith("silent"):
            answer.wait(10)
        return HERE

    async def main() -> None:
        resolver = SystemResolver(look_up)
        asking = [asyncio.ensure_future(resolver.resolve(f"silent{n}")) for n in range(5)]
        honest = asyncio.ensure_future(resolver.resolve("example.com"))
        while len(asked) < 3:
            await asyncio.to_thread(lambda: None)  # the loop's own threads are free
        for task in asking[:4]:  # whoever leaves frees no thread
            task.cancel()
        await asyncio.wait(asking[:4])
        await asyncio.to_thread(lambda: None)
        assert asked == ["silent0", "silent1", "silent2"]
        answer.set()
        assert await honest == HERE
        assert await asking[4] == HERE
        assert asked[3:] == ["silent4", "example.com"]

    asyncio.run(main())


def test_a_thread_that_hangs_keeps_no_server_from_its_end() -> None:
    """Ctrl-C ends us, whatever the name servers do; a late answer disturbs nobody (T20)."""
    answer, ended = threading.Event(), threading.Event()

    def look_up(_name: str) -> Sequence[str]:
        answer.wait(10)
        ended.set()
        return HERE

    async def main() -> None:
        asking = asyncio.ensure_future(SystemResolver(look_up).resolve("silent"))
        await asyncio.sleep(0)
        asking.cancel()

    asyncio.run(main())
    (left,) = [thread for thread in threading.enumerate() if thread.name == "amba-resolve"]
    assert left.daemon
    answer.set()
    assert ended.wait(10)
    left.join(10)
    assert not left.is_alive()


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name unknown"), ValueError("no name")])
def test_a_look_up_that_fails_gives_its_thread_back(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the failure is, and also where the system has no thread for it (ours)."""
    monkeypatch.setattr(limits, "RESOLVE_THREADS", limits.Limit(1, "look-ups", "", ""))

    def look_up(_name: str) -> Sequence[str]:
        raise error

    async def main() -> None:
        resolver = SystemResolver(look_up)
        for _ in range(2):
            with pytest.raises(ResolveError, match="does not resolve"):
                await resolver.resolve("a.test")
        with monkeypatch.context() as without:
            without.setattr(threading.Thread, "start", _no_thread)
            for _ in range(2):
                with pytest.raises(ResolveError, match="can't start new thread"):
                    await resolver.resolve("a.test")

    asyncio.run(main())


def _no_thread(_self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")

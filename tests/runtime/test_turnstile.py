"""Who gets in, who waits, who is refused: bounded, fair, early."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.entropy import short_id
from amba_runtime.message_room import MessageRoom
from amba_runtime.outcome import Breach
from amba_runtime.turnstile import Busy, Gate, Turnstile

Body = Callable[[ManualClock], Awaitable[None]]


def run(body: Body) -> None:
    """Run one test on a clock of its own."""
    asyncio.run(_bounded(body))


async def _bounded(body: Body) -> None:
    async with asyncio.timeout(10):
        await body(ManualClock())


async def settle() -> None:
    """Let everything that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)


class Line:
    """Requests that wait; `order` holds the names of those let in, in that order."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.busy: dict[str, Busy] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def join(self, gate: Gate, *names: str) -> None:
        """Let these begin to wait, one after the other."""
        for name in names:
            self.tasks.append(asyncio.create_task(self._wait(gate, name)))
            await settle()

    async def _wait(self, gate: Gate, name: str) -> None:
        try:
            await gate.enter()
        except Busy as busy:
            self.busy[name] = busy
        else:
            self.order.append(name)


def fill(gate: Gate, count: int) -> None:
    """Take so many places, all of which must be free."""
    assert [gate.try_enter() for _ in range(count)] == [True] * count


@pytest.mark.parametrize("most", [1, 2, 50])
def test_a_function_takes_as_many_as_its_limit_says(most: int) -> None:
    """At -1 and at the limit it enters, at +1 not (reliability.md 2.3); a place left is free."""

    async def body(clock: ManualClock) -> None:
        gate = Turnstile(clock).gate("p", most)
        fill(gate, most - 1)
        assert gate.free
        assert gate.try_enter()
        assert not gate.free
        assert not gate.try_enter()
        gate.leave()
        assert gate.try_enter()
        assert gate.inside == most

    run(body)


@pytest.mark.parametrize(("most", "of_project"), [(3, None), (9, 3)])
def test_functions_share_what_their_project_and_the_node_have(
    most: int, of_project: int | None
) -> None:
    """The third place is the last, whoever has it; another project has its own (T20)."""

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock, most=most, of_project=of_project)
        a, b = turnstile.gate("p", 2), turnstile.gate("p", 2)
        fill(a, 2)
        fill(b, 1)
        assert not b.try_enter()
        assert turnstile.gate("q", 1).try_enter() is (of_project is not None)

    run(body)


def test_the_next_in_line_gets_the_place_that_is_left() -> None:
    """First come, first served within one function; nobody who comes later gets between."""

    async def body(clock: ManualClock) -> None:
        gate = Turnstile(clock).gate("p", 1)
        fill(gate, 1)
        line = Line()
        await line.join(gate, "a", "b")
        assert gate.waiting == 2
        gate.leave()
        assert not gate.try_enter()  # before "a" even runs, the place is taken
        await settle()
        assert line.order == ["a"]
        gate.leave()
        await settle()
        assert line.order == ["a", "b"]
        gate.leave()
        assert (gate.inside, gate.waiting) == (0, 0)

    run(body)


def test_projects_take_turns_however_many_wait() -> None:
    """A hot project's queue of five gets every second place while another waits (K2)."""

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock, most=1, of_project=9)
        hot, quiet = turnstile.gate("hot", 9), turnstile.gate("quiet", 9)
        fill(hot, 1)
        line = Line()
        await line.join(hot, "h1", "h2", "h3", "h4", "h5")
        await line.join(quiet, "q1", "q2")
        inside = hot
        for _ in range(7):
            inside.leave()
            await settle()
            inside = hot if line.order[-1][0] == "h" else quiet
        assert line.order == ["h1", "q1", "h2", "q2", "h3", "h4", "h5"]

    run(body)


@pytest.mark.parametrize(
    ("mine", "others", "enters"),
    [
        (0, 0, True),
        (4, 0, True),
        (5, 0, False),
        (2, 5, True),
        (3, 4, False),
        (0, 9, True),
        (1, 8, False),
        (0, 10, False),
    ],
)
def test_a_project_enters_while_it_holds_fewer_than_are_free(
    mine: int, others: int, enters: bool
) -> None:
    """Of ten places: the truth table of the fair share (T20)."""

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock, most=10, of_project=10)
        gate = turnstile.gate("p", 99)
        for number in range(others):
            fill(turnstile.gate(f"other-{number}", 1), 1)
        gate.inside = gate.share.inside = mine
        turnstile.inside += mine
        assert gate.free is enters
        assert gate.try_enter() is enters

    run(body)


@pytest.mark.parametrize(("hot", "each"), [(1, 500), (2, 333), (3, 250), (9, 100)])
def test_hot_projects_never_lock_out_another(hot: int, each: int) -> None:
    """However many floods there are, each gets the same, and as many are free for the next who
    comes, at once (T20; limits.NODE_CONCURRENCY).
    """

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock, of_project=500)
        gates = [turnstile.gate(f"hot-{n}", 1_000) for n in range(hot)]
        for _ in range(1_000):
            for gate in gates:
                gate.try_enter()
        assert {gate.inside for gate in gates} <= {each, each + 1}
        free = 1_000 - turnstile.inside
        assert abs(free - each) <= 1
        late = turnstile.gate("late", 1_000)
        line = Line()
        await line.join(late, "l1", "l2")
        assert line.order == ["l1", "l2"]

    run(body)


def test_who_holds_too_much_waits_until_others_leave() -> None:
    """Over its share a project waits though places are free, is told 429 in the end, and goes
    on as soon as it holds fewer than are free (T20).
    """

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock, most=6, of_project=6)
        hot, other = turnstile.gate("hot", 9), turnstile.gate("other", 9)
        fill(hot, 3)
        fill(other, 1)
        line = Line()
        await line.join(hot, "h1", "h2")
        assert line.order == []
        other.leave()
        await settle()
        assert line.order == []  # three and three: no fewer
        hot.leave()
        await settle()
        assert line.order == ["h1"]
        await clock.advance(5)
        await settle()
        busy = line.busy["h2"]
        assert (busy.code, busy.status, busy.breach) == ("concurrency_limit", 429, None)

    run(body)


def test_a_server_of_one_project_is_its_own() -> None:
    """In dev nobody leaves places to others: all may be taken (limits.DEV_CONCURRENCY)."""

    async def body(clock: ManualClock) -> None:
        gate = Turnstile(clock, most=200).gate("p", 1_000)
        fill(gate, 200)
        assert not gate.try_enter()

    run(body)


def test_sockets_have_seats_of_which_there_are_fewer() -> None:
    """At a project's bound 429, at the node's 503, at once; plain requests go on; a seat that
    was left is free (T20).
    """

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock, of_project=9, seats=3, of_project_seats=2)
        p, q = turnstile.gate("p", 9), turnstile.gate("q", 9)
        p.sit()
        turnstile.gate("p", 9).sit()
        with pytest.raises(Busy, match="the function has too many WebSockets open") as full:
            p.sit()
        assert (full.value.code, full.value.status) == ("concurrency_limit", 429)
        q.sit()
        with pytest.raises(Busy, match="the server has too many WebSockets open") as over:
            turnstile.gate("r", 9).sit()
        assert (over.value.code, over.value.status) == ("overloaded", 503)
        fill(p, 4)
        p.rise()
        p.rise()
        p.sit()
        turnstile.close()
        p.rise()
        with pytest.raises(Busy):
            p.sit()

    run(body)


@pytest.mark.parametrize(("hot", "each"), [(1, 250), (2, 167), (4, 100), (9, 50)])
def test_seats_are_shared_as_places_are(hot: int, each: int) -> None:
    """However many projects open all the WebSockets they can, each gets the same, is told 429
    beyond, and as many are free for the next (T20; limits.NODE_WEBSOCKETS).
    """

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock, of_project=500, seats=500, of_project_seats=250)
        gates = [turnstile.gate(f"hot-{n}", 1_000) for n in range(hot)]
        codes: set[str] = set()
        for _ in range(500):
            for gate in gates:
                try:
                    gate.sit()
                except Busy as busy:
                    codes.add(busy.code)
        assert codes == {"concurrency_limit"}
        assert {gate.share.seated for gate in gates} <= {each, each - 1}
        assert turnstile.seats - turnstile.seated >= each - 1
        turnstile.gate("late", 9).sit()

    run(body)


def test_messages_of_one_project_are_counted_together() -> None:
    """All its functions' WebSockets share its room; another project has its own (T20)."""

    async def body(clock: ManualClock) -> None:
        room = MessageRoom(most=100, of_project=50, free=0)
        turnstile = Turnstile(clock, messages=room)
        one, two = turnstile.gate("p", 1), turnstile.gate("p", 1)
        assert one.account().inward.hold(20)
        assert not two.account().inward.hold(20)
        assert turnstile.gate("q", 1).account().inward.hold(20)
        assert room.held == 40

    run(body)


def test_functions_of_one_project_take_turns() -> None:
    """A busy function does not shut out its project's others."""

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock, of_project=1)
        busy, calm = turnstile.gate("p", 9), turnstile.gate("p", 9)
        fill(busy, 1)
        line = Line()
        await line.join(busy, "b1", "b2", "b3")
        await line.join(calm, "c1")
        busy.leave()
        await settle()
        busy.leave()
        await settle()
        assert line.order == ["b1", "c1"]

    run(body)


def test_a_full_function_holds_up_nobody_else() -> None:
    """Whoever waits for a function at its own limit leaves the node's free places to others."""

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock, most=2)
        small, other = turnstile.gate("p", 1), turnstile.gate("q", 9)
        fill(small, 1)
        fill(other, 1)
        line = Line()
        await line.join(small, "s1")
        await line.join(other, "o1")
        other.leave()
        await settle()
        assert line.order == ["o1"]
        small.leave()
        await settle()
        assert line.order == ["o1", "s1"]

    run(body)


def test_a_full_project_comes_back_when_one_of_it_leaves() -> None:
    """Its waiters are passed over while it is full, and not forgotten."""

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock, most=6, of_project=2)
        full, other = turnstile.gate("p", 9), turnstile.gate("q", 1)
        fill(full, 2)
        fill(other, 1)
        line = Line()
        await line.join(full, "p1")
        await line.join(other, "q1")
        other.leave()
        await settle()
        assert line.order == ["q1"]
        full.leave()
        await settle()
        assert line.order == ["q1", "p1"]

    run(body)


@pytest.mark.parametrize("most", [0, 2])
def test_only_so_many_wait(most: int) -> None:
    """The one too many of a project is refused at once, with a time to come back (K1)."""

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock, of_project_waiting=most)
        gate, sibling = turnstile.gate("p", 1), turnstile.gate("p", 1)
        fill(gate, 1)
        fill(sibling, 1)
        line = Line()
        await line.join(gate, *[f"a{i}" for i in range(most)])
        assert line.busy == {}
        await line.join(sibling, "late")
        busy = line.busy["late"]
        assert (busy.code, busy.status, busy.retry_after_s) == ("concurrency_limit", 429, 1)
        assert busy.breach == Breach("concurrency", 1, 1)
        stranger = turnstile.gate("q", 1)
        fill(stranger, 1)
        if most:
            await line.join(stranger, "other")
            assert "other" not in line.busy

    run(body)


def test_a_full_node_says_that_it_is_the_node() -> None:
    """503 `overloaded` where the function has places left; 429 where its project has none."""

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock, most=2, of_project=1, waiting=0)
        p, q, r = (turnstile.gate(name, 9) for name in "pqr")
        fill(p, 1)
        fill(q, 1)
        line = Line()
        await line.join(r, "r")
        await line.join(p, "p")
        told = {name: (b.code, b.status, b.breach) for name, b in line.busy.items()}
        assert told == {"r": ("overloaded", 503, None), "p": ("concurrency_limit", 429, None)}
        assert "the server has" in str(line.busy["r"])

    run(body)


def test_nobody_waits_longer_than_the_deadline() -> None:
    """At 5 s the turn that did not come is a refusal; the next one's time counts from its own
    beginning (reliability.md 2.3).
    """

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock)
        gate = turnstile.gate("p", 1)
        fill(gate, 1)
        line = Line()
        await line.join(gate, "a")
        await clock.advance(2)
        await line.join(gate, "b")
        await clock.advance(2.99)
        assert line.busy == {}
        await clock.advance(0.01)
        await settle()
        assert set(line.busy) == {"a"}
        await clock.advance(2)
        await settle()
        assert set(line.busy) == {"a", "b"}
        assert turnstile.turns == {}

    run(body)


def test_waits_that_would_be_in_vain_are_refused_at_once() -> None:
    """After one waited its time out, the next is told so at once, and for how long; the
    news grow old (K1: refusals within 50 ms).
    """

    async def body(clock: ManualClock) -> None:
        gate = Turnstile(clock).gate("p", 1)
        fill(gate, 1)
        line = Line()
        await line.join(gate, "a")
        await clock.advance(5)
        await settle()
        await line.join(gate, "b")
        assert line.busy["b"].retry_after_s == 5
        assert gate.waiting == 0
        await clock.advance(5)
        await line.join(gate, "c")
        assert gate.waiting == 1
        await clock.advance(1)
        gate.leave()
        await settle()
        await line.join(gate, "d")  # "c" took 1 s, so this one may hope
        assert "d" not in line.busy
        assert line.order == ["c"]

    run(body)


def test_the_retry_after_is_bounded() -> None:
    """A long wait is told as 30 s at most."""

    async def body(clock: ManualClock) -> None:
        gate = Turnstile(clock, wait_s=100).gate("p", 1)
        fill(gate, 1)
        line = Line()
        await line.join(gate, "a")
        await clock.advance(100)
        await settle()
        await line.join(gate, "b")
        assert line.busy["b"].retry_after_s == 30

    run(body)


def test_a_caller_who_leaves_makes_room_in_the_queue() -> None:
    """A waiter that is cancelled is forgotten; the ones behind it move up."""

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock, of_project_waiting=2)
        gate = turnstile.gate("p", 1)
        fill(gate, 1)
        line = Line()
        await line.join(gate, "a", "b")
        line.tasks[0].cancel()
        await settle()
        await line.join(gate, "c")
        gate.leave()
        await settle()
        assert (line.order, line.busy, gate.waiting) == (["b"], {}, 1)

    run(body)


def test_a_place_is_not_lost_on_a_caller_who_leaves_in_that_moment() -> None:
    """Cancelled after its turn came and before it ran: the place goes to the next."""

    async def body(clock: ManualClock) -> None:
        gate = Turnstile(clock).gate("p", 1)
        fill(gate, 1)
        line = Line()
        await line.join(gate, "a", "b")
        gate.leave()
        line.tasks[0].cancel()
        await settle()
        assert line.order == ["b"]
        gate.leave()
        assert gate.inside == 0

    run(body)


@pytest.mark.parametrize("followed", [False, True])
def test_a_turn_is_not_given_to_one_that_was_called_off_in_that_moment(followed: bool) -> None:
    """Cancelled, and not run since, when a place becomes free: nobody's `leave` fails, and the
    place goes to the next, or stays free (T20).
    """

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock)
        gate = turnstile.gate("p", 1)
        fill(gate, 1)
        line = Line()
        await line.join(gate, "a", *(["b"] if followed else []))
        line.tasks[0].cancel()
        gate.leave()
        assert (gate.inside, gate.share.inside, turnstile.inside) == (followed,) * 3
        await settle()
        assert line.order == (["b"] if followed else [])
        assert (gate.inside, gate.waiting, len(turnstile.turns)) == (followed, 0, 0)
        assert gate.share.waiting == 0

    run(body)


def test_one_that_was_called_off_as_its_time_was_up_stops_nobody() -> None:
    """The others are still told when theirs is (reliability.md 2.3)."""

    async def body(clock: ManualClock) -> None:
        gate = Turnstile(clock).gate("p", 1)
        fill(gate, 1)
        line = Line()
        await line.join(gate, "a", "b")
        line.tasks[0].cancel()
        gate.expire(next(iter(gate.queue)))
        await settle()
        assert gate.waiting == 1
        await clock.advance(5)
        await settle()
        assert set(line.busy) == {"b"}

    run(body)


@pytest.mark.parametrize("still", [True, False])
def test_who_waits_for_itself_gives_up_soon(still: bool) -> None:
    """After `limits.VAIN_WAIT_S` where it still does then, else when its time is up (row E29)."""

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock)
        gate = turnstile.gate("p", 1)
        fill(gate, 1)
        vain = [True]
        waiting = asyncio.create_task(gate.enter(lambda: vain[0]))
        await settle()
        await clock.advance(limits.VAIN_WAIT_S.value - 0.01)
        assert not waiting.done()
        vain[0] = still
        await clock.advance(0.01)
        assert waiting.done() is still
        await clock.advance(5)
        with pytest.raises(Busy) as busy:
            await waiting
        assert busy.value.breach is not None
        assert (gate.waiting, len(turnstile.turns), gate.share.waiting) == (0, 0, 0)

    run(body)


def test_only_a_few_wait_for_themselves() -> None:
    """The one too many is told at once, until one of them has given up (row E29)."""

    async def body(clock: ManualClock) -> None:
        gate = Turnstile(clock).gate("p", 1)
        fill(gate, 1)
        most = limits.VAIN_WAITING.value
        for _ in range(2):
            waiting = [asyncio.create_task(gate.enter(lambda: True)) for _ in range(most)]
            await settle()
            assert gate.waiting == most
            with pytest.raises(Busy):
                await gate.enter(lambda: True)
            await clock.advance(limits.VAIN_WAIT_S.value)
            assert [type(task.exception()) for task in waiting] == [Busy] * most

    run(body)


def test_a_place_that_becomes_free_in_time_is_taken_by_one_that_seemed_to_wait_for_itself() -> None:
    """Nothing ends it afterwards, and the next one's turn comes (row E29)."""

    async def body(clock: ManualClock) -> None:
        gate = Turnstile(clock).gate("p", 1)
        fill(gate, 1)
        waiting = asyncio.create_task(gate.enter(lambda: True))
        await settle()
        gate.leave()
        await waiting
        await clock.advance(1)
        assert gate.inside == 1
        gate.leave()
        assert gate.free

    run(body)


def test_a_closed_turnstile_keeps_nobody_waiting() -> None:
    """At the end of a server those who wait are told, and who comes is not let wait."""

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock)
        gate = turnstile.gate("p", 1)
        fill(gate, 1)
        line = Line()
        await line.join(gate, "a", "b")
        line.tasks[1].cancel()
        turnstile.close()
        turnstile.close()
        await settle()
        await line.join(gate, "c")
        assert {n: b.status for n, b in line.busy.items()} == {"a": 503, "c": 429}

    run(body)


def test_projects_that_went_leave_nothing() -> None:
    """What a project holds is forgotten with its last gate: no growth by names."""

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock)
        for _ in range(100):
            gone = turnstile.gate(short_id(), 1)
            fill(gone, 1)
            gone.leave()
        gone = turnstile.gate("p", 1)
        assert list(vars(turnstile)["_projects"]) == ["p"]

    run(body)


def test_whatever_comes_the_sums_hold() -> None:
    """2,000 random steps of 6 functions of 3 projects: no bound is passed, no place is lost,
    and nobody waits while there is a place for them (T20).
    """
    import random

    seed = 20_260_101
    draw = random.Random(seed)

    async def body(clock: ManualClock) -> None:
        turnstile = Turnstile(clock, most=7, of_project=4, waiting=12, of_project_waiting=6)
        gates = [turnstile.gate("pqr"[i % 3], 1 + i % 3) for i in range(6)]
        inside: list[Gate] = []
        waiting: list[asyncio.Task[None]] = []

        async def come(gate: Gate) -> None:
            try:
                await gate.enter()
            except Busy:
                return
            inside.append(gate)

        for _ in range(2_000):
            step = draw.random()
            if step < 0.5:
                waiting.append(asyncio.create_task(come(draw.choice(gates))))
            elif step < 0.85 and inside:
                inside.pop(draw.randrange(len(inside))).leave()
            elif step < 0.95 and waiting:
                waiting.pop(draw.randrange(len(waiting))).cancel()
            else:
                await clock.advance(draw.random())
            await settle()
            assert sum(g.inside for g in gates) == turnstile.inside == len(inside) <= 7
            for gate in gates:
                assert gate.inside <= gate.most
                assert gate.share.inside <= 4
                assert not (gate.queue and gate.free), "somebody waits before an empty place"
            assert sum(g.waiting for g in gates) == len(turnstile.turns) <= 12
        turnstile.close()
        await asyncio.gather(*waiting, return_exceptions=True)

    run(body)

"""Messages of WebSockets in our memory: a share per project, a sum per node (T20)."""

from __future__ import annotations

import pytest

from amba_runtime import limits
from amba_runtime.message_room import MessageRoom
from amba_runtime.outcome import Breach


@pytest.mark.parametrize(
    ("count", "fits", "held"), [(0, True, 0), (10, True, 0), (11, True, 1), (50, True, 40)]
)
def test_the_first_bytes_of_a_direction_do_not_count(count: int, fits: bool, held: int) -> None:
    """At the free allowance nothing is held, at +1 one byte (limits.WEBSOCKET_FREE)."""
    room = MessageRoom(most=80, free=10)
    assert room.share().account().inward.hold(count) is fits
    assert room.held == held


@pytest.mark.parametrize(
    ("others", "mine", "fits", "breach"),
    [
        (0, 20, True, None),
        (0, 21, False, Breach("websocket_project_bytes", 21, 20)),
        (60, 20, True, None),
        (61, 20, False, Breach("websocket_bytes", 20, 19)),
        (74, 13, True, None),
        (75, 13, False, Breach("websocket_bytes", 13, 12)),
    ],
)
def test_a_project_has_its_share_and_the_node_its_sum(
    others: int, mine: int, fits: bool, breach: Breach | None
) -> None:
    """At each bound it fits, at +1 not, and what did not fit is not held (T20)."""
    room = MessageRoom(most=100, of_project=40, free=0)
    for part in (others // 6,) * 5 + (others - 5 * (others // 6),):
        assert room.share().account().inward.hold(part)
    account = room.share().account()
    assert account.outward.hold(mine) is fits
    assert account.breach == breach
    assert room.held == others + (mine if fits else 0)


def test_what_is_let_go_is_there_for_others() -> None:
    """Less is always taken; a closed account holds nothing, and never will again."""
    room = MessageRoom(most=200, of_project=100, free=0)
    share = room.share()
    one, two = share.account(), share.account()
    assert one.inward.hold(50)
    assert not two.outward.hold(26)
    assert one.inward.hold(40)
    assert two.outward.hold(26)
    assert two.outward.hold(20)
    one.close()
    one.close()
    assert one.inward.hold(1_000)  # the end of a socket is not refused
    assert (room.held, share.held) == (20, 20)
    two.close()
    assert (room.held, share.held) == (0, 0)


def test_the_first_breach_is_the_one_that_is_told() -> None:
    """A socket that ends for one reason is told of with it."""
    account = MessageRoom(most=10, free=0).share().account()
    assert not account.inward.hold(11)
    assert not account.outward.hold(12)
    assert account.breach == Breach("websocket_project_bytes", 11, 5)


def test_the_largest_message_fits_both_ways_at_once() -> None:
    """By a node's own numbers: one of 32 MiB and its echo; no project takes all (T20)."""
    room = MessageRoom(of_project=limits.WEBSOCKET_PROJECT_ROOM.value)
    share = room.share()
    account = share.account()
    size = limits.WEBSOCKET_BYTES.value + limits.WEBSOCKET_FRAME_COST.value
    assert account.inward.hold(size)
    assert account.outward.hold(size)
    assert room.share().account().inward.hold(size)


@pytest.mark.parametrize(("greedy", "each"), [(1, 32), (2, 32), (3, 24), (5, 16), (11, 8)])
def test_sockets_that_take_all_they_can_leave_as_much_free(greedy: int, each: int) -> None:
    """However many clients keep a part of a message here for as long as they like: none holds
    more than is free, and half of that is the next one's at once, in MiB (T20).
    """
    share = MessageRoom(of_project=limits.WEBSOCKET_PROJECT_ROOM.value, free=0).share()
    sockets = [share.account().inward for _ in range(greedy)]
    for size in range(1, limits.WEBSOCKET_BYTES.value // limits.MIB + 1):
        for socket in sockets:
            socket.hold(size * limits.MIB)
    assert share.held == greedy * each * limits.MIB
    free = limits.WEBSOCKET_PROJECT_ROOM.value - share.held
    assert free >= each * limits.MIB
    assert share.account().outward.hold(free // 2)
    assert not share.account().outward.hold(free // 4 + 1)


@pytest.mark.parametrize(("greedy", "each"), [(1, 95), (2, 85), (3, 64), (7, 32)])
def test_projects_that_take_all_they_can_leave_as_much_free(greedy: int, each: int) -> None:
    """Many sockets of each: half of what is left is the next project's at once, in MiB (T20)."""
    room = MessageRoom(of_project=limits.WEBSOCKET_PROJECT_ROOM.value, free=0)
    shares = [room.share() for _ in range(greedy)]
    for _ in range(100):
        for share in shares:
            share.account().inward.hold(limits.MIB)
    assert {share.held // limits.MIB for share in shares} <= {each, each + 1}
    late, free = room.share(), room.most - room.held
    assert free >= each * limits.MIB
    accounts = [late.account().inward for _ in range(8)]
    assert [account.hold(free // 16) for account in accounts] == [True] * 8
    assert not late.account().inward.hold(limits.MIB)


def test_a_server_of_one_project_gives_it_all_its_room() -> None:
    """In dev nobody leaves room to other projects (T20)."""
    share = MessageRoom(most=100, free=0).share()
    assert [share.account().inward.hold(1) for _ in range(100)] == [True] * 99 + [False]

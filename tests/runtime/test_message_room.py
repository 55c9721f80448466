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
    room = MessageRoom(most=40, free=10)
    assert room.share().account().inward.hold(count) is fits
    assert room.held == held


@pytest.mark.parametrize(
    ("others", "mine", "fits", "breach"),
    [
        (0, 40, True, None),
        (0, 41, False, Breach("websocket_project_bytes", 41, 40)),
        (60, 40, True, None),
        (61, 40, False, Breach("websocket_bytes", 101, 100)),
        (100, 1, False, Breach("websocket_bytes", 101, 100)),
        (100, 0, True, None),
    ],
)
def test_a_project_has_its_share_and_the_node_its_sum(
    others: int, mine: int, fits: bool, breach: Breach | None
) -> None:
    """At each bound it fits, at +1 not, and what did not fit is not held (T20)."""
    room = MessageRoom(most=100, of_project=40, free=0)
    for part in (others // 3, others // 3, others - 2 * (others // 3)):
        assert room.share().account().inward.hold(part)
    account = room.share().account()
    assert account.outward.hold(mine) is fits
    assert account.breach == breach
    assert room.held == others + (mine if fits else 0)


def test_what_is_let_go_is_there_for_others() -> None:
    """Less is always taken; a closed account holds nothing, and never will again."""
    room = MessageRoom(most=100, of_project=60, free=0)
    share = room.share()
    one, two = share.account(), share.account()
    assert one.inward.hold(50)
    assert not two.outward.hold(20)
    assert one.inward.hold(40)
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
    assert account.breach == Breach("websocket_project_bytes", 11, 10)


def test_the_largest_message_fits_both_ways_at_once() -> None:
    """By a node's own numbers: one of 32 MiB and its echo; no project takes all (T20)."""
    room = MessageRoom(of_project=limits.WEBSOCKET_PROJECT_ROOM.value)
    share = room.share()
    account = share.account()
    size = limits.WEBSOCKET_BYTES.value + limits.WEBSOCKET_FRAME_COST.value
    assert account.inward.hold(size)
    assert account.outward.hold(size)
    assert not share.account().inward.hold(limits.MIB)
    assert room.share().account().inward.hold(size)

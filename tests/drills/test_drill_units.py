"""The drills' own judgement, which must be able to find what it looks for."""

from __future__ import annotations

import pytest
from tests.drills.figures import Figure, at_least, at_most, quantile, table
from tests.drills.switch import Deployed, Seen, stale
from tests.drills.syscalls import called

A, B, C = Deployed("a", 0, 1), Deployed("b", 10, 12), Deployed("c", 20, 22)


@pytest.mark.parametrize(
    ("seen", "wrong"),
    [
        ([Seen(2, 3, "a")], []),
        ([Seen(9.9, 10.1, "b")], []),  # the switch came before the acknowledgement
        ([Seen(8, 9, "b")], ["b"]),  # nobody had asked for it yet
        ([Seen(11, 11.5, "a")], []),  # nobody has seen b yet
        ([Seen(12.1, 12.5, "a")], ["a"]),  # b was acknowledged
        ([Seen(10.5, 10.6, "b"), Seen(10.7, 10.8, "a")], ["a"]),  # b had answered
        ([Seen(10.5, 10.6, "b"), Seen(10.55, 10.8, "a")], []),  # it was under way
        ([Seen(20.5, 20.6, "c"), Seen(20.7, 20.8, "a")], ["a"]),
        ([Seen(3, 4, "x")], ["x"]),
    ],
)
def test_what_no_order_of_events_explains_is_found(seen: list[Seen], wrong: list[str]) -> None:
    """An answer older than one that was read before it was asked for is stale."""
    assert [s.tag for s in stale(seen, [A, B, C])] == wrong


def test_a_rollback_explains_its_old_tag() -> None:
    """`a` again, as a third deployment: `a` before and after, `b` in between only."""
    deployed = [A, B, Deployed("a", 20, 22)]
    good = [Seen(2, 3, "a"), Seen(13, 14, "b"), Seen(21, 21.5, "a"), Seen(30, 31, "a")]
    assert stale(good, deployed) == []
    late = [Seen(13, 14, "a"), Seen(23, 24, "b")]
    assert stale(late, deployed) == late


def test_figures_say_whether_they_are_reached() -> None:
    """Both bounds are inclusive; the table shows what falls short."""
    assert at_most("1", "w", 3, 3).good
    assert not at_most("1", "w", 3.1, 3).good
    assert at_least("1", "w", 0.9, 0.9, "x") == Figure("1", "w", "0.9x", "at least 0.9x", True)
    assert not at_least("1", "w", 0.89, 0.9).good
    shown = table([at_most("7", "cold", 61, 60, " ms"), Figure("7", "deploys", "1 s")])
    assert [line.split("  ")[-1] for line in shown.split("\n")[1:]] == ["FALLS SHORT", "1 s"]


def test_quantiles_are_nearest_ranks() -> None:
    """p50 of 1..100 is 51 by this rank, p99 is 100; one value is all of them."""
    values = [float(n) for n in range(100, 0, -1)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile([4.0], 0.99)) == (51, 100, 4)


def test_system_calls_are_read_from_what_strace_wrote() -> None:
    """One name per line, with and without a pid; resumed calls and signals are none of them."""
    trace = (
        b'12 openat(AT_FDCWD, "/x", O_RDONLY) = 3\nread(3, "", 1) = 0\n'
        b"13 <... futex resumed>) = 0\n12 --- SIGCHLD {si_signo=SIGCHLD} ---\n12 +++ exited +++\n"
    )
    assert called([trace, b"write(1, ...", b""]) == {"openat", "read", "write"}

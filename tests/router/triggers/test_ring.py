"""Whose delivery is next: in turn, and never all for one (reliability.md J10)."""

from __future__ import annotations

from amba_router.triggers.ring import Ring


def test_projects_take_turns_and_so_do_their_queues() -> None:
    """A project with many queues waits its turn behind one with one."""
    ring = Ring(100)
    for queue in ("1", "2", "3"):
        ring.want(("a", queue))
    ring.want(("b", "1"))
    ring.want(("a", "2"))  # wanted already
    assert [ring.next() for _ in range(5)] == [
        ("a", "1"),
        ("b", "1"),
        ("a", "2"),
        ("a", "3"),
        None,
    ]
    assert (ring.busy, ring.crowded) == (4, False)


def test_one_project_leaves_as_many_as_it_has() -> None:
    """It takes one more only while it has fewer than are free; who comes later finds some."""
    ring = Ring(8)
    for queue in range(20):
        ring.want(("a", str(queue)))
    taken = [key for _ in range(20) if (key := ring.next())]
    assert len(taken) == 4
    assert ring.crowded
    ring.want(("b", "1"))
    ring.want(("b", "2"))
    assert ring.next() == ("b", "1")
    assert ring.next() == ("b", "2")
    ring.want(("b", "3"))
    assert ring.next() is None  # two are free, and it has two
    ring.done(taken[0])
    ring.done(taken[1])
    assert ring.next() is not None
    assert ring.busy == 5


def test_what_is_done_makes_room() -> None:
    """All are free again at the end."""
    ring = Ring(2)
    ring.want(("a", "1"))
    ring.want(("a", "2"))
    assert ring.next() == ("a", "1")
    assert ring.next() is None
    ring.done(("a", "1"))
    assert ring.next() == ("a", "2")
    ring.done(("a", "2"))
    assert (ring.busy, ring.crowded) == (0, False)

"""What is due next: a heap whose places go stale without harm."""

from __future__ import annotations

from amba_router.store.schedule_rows import Schedule
from amba_router.triggers.cron import parse
from amba_router.triggers.timetable import Timetable

CRON = parse("* * * * *", "UTC")


def schedule(id_: str) -> Schedule:
    return Schedule(id_, "f", "* * * * *", "UTC", "skip", "api", 0, 0)


def test_the_earliest_comes_first_and_what_is_gone_never() -> None:
    """By time, then in order of coming; a place that was left or moved does not count."""
    table = Timetable()
    for id_, due_ms in (("a", 30), ("b", 10), ("c", 20), ("d", 20)):
        table.put("p", schedule(id_), CRON, due_ms)
    assert table.next_ms() == 10
    assert table.drop("p", "b")
    assert not table.drop("p", "b")
    assert table.pop(19) is None
    first, second = table.pop(25), table.pop(25)
    assert first is not None
    assert second is not None
    assert (first.key, second.key) == (("p", "c"), ("p", "d"))
    assert table.pop(25) is None
    moved = table.get("p", "a")
    assert moved is not None
    table.set_due(moved, 90)
    assert table.pop(89) is None
    table.set_due(moved, None)
    assert (table.next_ms(), len(table)) == (None, 3)


def test_another_content_keeps_what_it_is_at() -> None:
    """A schedule whose settings change while it fires is still busy; projects are apart."""
    table = Timetable()
    entry = table.put("p", schedule("a"), CRON, 10)
    entry.busy = True
    assert table.put("p", schedule("a"), CRON, 20) is entry
    assert entry.busy
    other = table.put("q", schedule("a"), CRON, 20)
    assert (other is entry, other.busy) == (False, False)


def test_stale_places_do_not_pile_up() -> None:
    """A schedule that is moved ten thousand times takes no more room than a few."""
    table = Timetable()
    entry = table.put("p", schedule("a"), CRON, 1)
    for at in range(10_000):
        table.set_due(entry, at)
    assert len(table._heap) < 100  # pyright: ignore[reportPrivateUsage]
    assert table.pop(10_000) is entry
    assert table.pop(10_000) is None

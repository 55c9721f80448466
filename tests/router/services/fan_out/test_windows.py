"""When a window of hours opens for a user's own clock (contract E.13, `delivery_window`)."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from amba_router.services.fan_out.windows import Window


def ms(text: str, zone: str = "UTC") -> int:
    """Unix milliseconds of a wall-clock time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def shown(at_ms: int, zone: str = "UTC") -> str:
    """The wall-clock time."""
    return datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S")


@pytest.mark.parametrize(
    ("first", "end", "hours"),
    [
        (9, 17, range(9, 17)),
        (22, 6, [22, 23, *range(6)]),
        (0, 24, range(24)),
        (20, 24, range(20, 24)),
        (20, 0, range(20, 24)),
        (0, 1, [0]),
        (23, 24, [23]),
    ],
)
def test_which_hours_are_in_it(first: int, end: int, hours: list[int]) -> None:
    """From the first to before the second; over midnight where the second is smaller."""
    assert [hour for hour in range(24) if Window(first, end).has(hour)] == sorted(hours)


@pytest.mark.parametrize(
    ("now", "zone", "window", "due"),
    [
        ("2026-01-10T09:00:00.000", "UTC", Window(9, 17), "2026-01-10 09:00:00"),
        ("2026-01-10T16:59:59.000", "UTC", Window(9, 17), "2026-01-10 16:59:59"),
        ("2026-01-10T17:00:00.000", "UTC", Window(9, 17), "2026-01-11 09:00:00"),
        ("2026-01-10T08:59:59.999", "UTC", Window(9, 17), "2026-01-10 09:00:00"),
        ("2026-12-31T23:30:00.000", "UTC", Window(9, 17), "2027-01-01 09:00:00"),
        ("2026-01-10T12:00:00.000", "UTC", Window(22, 6), "2026-01-10 22:00:00"),
        ("2026-01-10T01:00:00.000", "UTC", Window(22, 6), "2026-01-10 01:00:00"),
        ("2026-01-10T18:10:00.000", "Asia/Kolkata", Window(9, 17), "2026-01-11 09:00:00"),
        ("2026-01-10T18:10:00.000", "America/New_York", Window(9, 17), "2026-01-11 09:00:00"),
        ("2026-01-10T04:00:00.000", "Asia/Kathmandu", Window(9, 10), "2026-01-10 09:00:00"),
    ],
)
def test_now_or_as_it_opens(now: str, zone: str, window: Window, due: str) -> None:
    """By the user's own clock: now where it is open, else the very second it opens."""
    assert shown(window.opens_ms(ms(now, zone), zone), zone) == due


def test_an_hour_that_is_left_out_waits_for_the_next_day() -> None:
    """Vienna has no two o'clock on 29 March 2026."""
    zone = "Europe/Vienna"
    opens = Window(2, 3).opens_ms(ms("2026-03-29T01:30:00", zone), zone)
    assert shown(opens, zone) == "2026-03-30 02:00:00"


def test_a_window_that_begins_in_such_an_hour_opens_after_it() -> None:
    """The clock goes from 1:59 to 3:00, which is in a window from two to five."""
    zone = "Europe/Vienna"
    opens = Window(2, 5).opens_ms(ms("2026-03-29T00:30:00", zone), zone)
    assert shown(opens, zone) == "2026-03-29 03:00:00"


def test_an_hour_that_comes_twice_opens_the_first_time() -> None:
    """Vienna has two o'clock twice on 25 October 2026; the first is at midnight of UTC."""
    opens = Window(2, 3).opens_ms(ms("2026-10-25T00:30:00", "Europe/Vienna"), "Europe/Vienna")
    assert shown(opens) == "2026-10-25 00:00:00"


def test_clocks_that_are_set_by_half_an_hour() -> None:
    """Lord Howe goes from two o'clock back to half past one on 5 April 2026."""
    zone = "Australia/Lord_Howe"
    opens = Window(2, 3).opens_ms(ms("2026-04-05T00:10:00", zone), zone)
    assert shown(opens, zone) == "2026-04-05 02:00:00"
    assert (
        datetime.fromtimestamp(opens / 1000, ZoneInfo(zone)).utcoffset()
        == datetime(2026, 6, 1, tzinfo=ZoneInfo(zone)).utcoffset()
    )


def test_a_day_that_a_zone_left_out() -> None:
    """Samoa had no 30 December 2011: its noon of the 31st is the next one after the 29th."""
    zone = "Pacific/Apia"
    opens = Window(12, 13).opens_ms(ms("2011-12-29T13:00:00", zone), zone)
    assert shown(opens, zone) == "2011-12-31 12:00:00"


@pytest.mark.parametrize("zone", [None, "", "Mars/Olympus", "../etc", "Europe", "\0", "x" * 300])
def test_without_a_zone_it_is_utc(zone: str | None) -> None:
    """So is a zone that this machine does not know: a user is reached, if at another hour."""
    now_ms = int(datetime(2026, 1, 1, 3, 30, tzinfo=UTC).timestamp() * 1000)
    assert shown(Window(9, 17).opens_ms(now_ms, zone)) == "2026-01-01 09:00:00"

"""Cron expressions: what is taken, what is refused in words, and when they fire (contract D.6)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from amba_router.api.faults import Refused
from amba_router.triggers.cron import parse
from amba_runtime import limits


def ms(text: str, zone: str = "UTC", fold: int = 0) -> int:
    """Unix milliseconds of a local time."""
    at = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return round(at.timestamp() * 1000)


def runs(cron: str, zone: str, after: str, count: int) -> list[str]:
    """The next runs after a local time, in UTC."""
    found = parse(cron, zone).upcoming(ms(after, zone), count)
    return [datetime.fromtimestamp(at / 1000, UTC).strftime("%m-%d %H:%M") for at in found]


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("* * * * *", ["01-01 00:01", "01-01 00:02"]),
        ("*/20 * * * *", ["01-01 00:20", "01-01 00:40"]),
        ("5-10/5,50 3 * * *", ["01-01 03:05", "01-01 03:10", "01-01 03:50"]),
        ("0 0 1 jan *", ["01-01 00:00"]),  # of the year after
        ("0 9 * * 1-5", ["01-01 09:00", "01-02 09:00", "01-05 09:00"]),
        ("0 9 * * MON-fri", ["01-01 09:00", "01-02 09:00", "01-05 09:00"]),
        ("0 0 * * 0", ["01-04 00:00"]),
        ("0 0 * * 7", ["01-04 00:00"]),
        ("0 0 * * */7", ["01-04 00:00"]),  # 0 and 7
        ("0 0 13 * 5", ["01-02 00:00", "01-09 00:00", "01-13 00:00"]),  # either
        ("0 0 */2 * 1", ["01-05 00:00", "01-19 00:00"]),  # both: a day begins with *
        ("0 0 29 2 *", ["02-29 00:00"]),
        ("7-7/5 4-4/9 * * *", ["01-01 04:07", "01-02 04:07"]),
        ("59 23 31 12 *", ["12-31 23:59"]),
        ("*/90 * * * *", ["01-01 01:00", "01-01 02:00"]),
    ],
)
def test_expressions_that_cron_takes(cron: str, expected: list[str]) -> None:
    """Lists, ranges, steps, names, and days that match either or both (crontab(5) of Debian)."""
    assert runs(cron, "UTC", "2026-01-01T00:00", len(expected)) == expected


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("", "five fields, and this one has 0"),
        ("* * * *", "five fields, and this one has 4"),
        ("* * * * * *", "seconds and years are not taken"),
        ("0 0 0 * * * *", "seconds and years are not taken"),
        ("@daily", "@daily is not taken"),
        ("@reboot", "@reboot is not taken"),
        ("60 * * * *", "the minute '60' is not right: it takes 0 to 59"),
        ("* 24 * * *", "the hour '24'"),
        ("* * 0 * *", "the day-of-month '0' is not right"),
        ("* * 32 * *", "the day-of-month '32' is not right"),
        ("* * * 13 *", "the month '13'"),
        ("* * * 0 *", "the month '0'"),
        ("* * * * 8", "the day-of-week '8'"),
        ("JAN * * * *", "the minute 'JAN'"),
        ("* * * * JAN", "the day-of-week 'JAN'"),
        ("5/15 * * * *", "write 5-59/15 or 5"),
        ("* * * * MON/2", "write MON-7/2 or MON"),
        ("*/0 * * * *", "the minute '*/0'"),
        ("*/ * * * *", "the minute '*/'"),
        ("/5 * * * *", "the minute '/5'"),
        ("30-10 * * * *", "the minute '30-10'"),
        ("1,,2 * * * *", "the minute '1,,2'"),
        (",1 * * * *", "the minute ',1'"),
        ("1- * * * *", "the minute '1-'"),
        ("-1 * * * *", "the minute '-1'"),
        ("1.5 * * * *", "the minute '1.5'"),
        ("+1 * * * *", "the minute '+1'"),
        ("٣ * * * *", "the minute '٣'"),
        ("* * L * *", "uses L, W, # or ?"),
        ("* * LW * *", "uses L, W, # or ?"),
        ("* * 15W * *", "uses L, W, # or ?"),
        ("* * ? * *", "uses L, W, # or ?"),
        ("* * * * 5L", "uses L, W, # or ?"),
        ("* * * * FRIL", "uses L, W, # or ?"),
        ("* * * * MON#2", "uses L, W, # or ?"),
        ("0 0 31 2 *", "it never fires: no month 2 has a day 31"),
        ("0 0 30,31 2 *", "it never fires"),
        ("0 0 31 4,6,9,11 *", "it never fires"),
        ("0 0 30 FEB */2", "it never fires"),
        ("rm -rf / * *", "the minute 'RM'"),
        ("0\x000 * * * *", "the minute"),
        ("* " * 200, "at most 256 characters"),
        ("9" * 5000, "at most 256 characters"),
    ],
)
def test_expressions_that_are_refused(cron: str, said: str) -> None:
    """400 INVALID_CRON, which names the field and what it takes (H-13)."""
    with pytest.raises(Refused) as caught:
        parse(cron, "UTC")
    assert (caught.value.fault.code, said in str(caught.value)) == ("INVALID_CRON", True), str(
        caught.value
    )


@pytest.mark.parametrize(
    "zone",
    [
        *("", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Europe", "localtime"),
        *("europe/berlin", "UTC ", "GMT+25", "CEST", "Europe/Berlin\n", "posix/UTC", "right/UTC"),
        *("a" * 5000, "\x00", "ÄÖ/Ü", "+01:00"),
    ],
)
def test_zones_that_are_refused(zone: str) -> None:
    """400 INVALID_TIMEZONE: IANA names alone, and no paths (H-13)."""
    with pytest.raises(Refused) as caught:
        parse("* * * * *", zone)
    assert caught.value.fault.code == "INVALID_TIMEZONE"


def test_the_expression_is_kept_as_it_was_given() -> None:
    """`controller.cron` is the string as registered (contract B), but for its blanks."""
    assert parse("  0\t9  * *   mon-FRI\n", "UTC").text == "0 9 * * mon-FRI"
    edge = "00 0 * * " + ",".join(["1"] * 124)
    assert len(edge) == limits.SCHEDULE_CRON.value
    assert parse(edge, "UTC").text == edge


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        # at 2:00 on 29 March it is 3:00 in Berlin (1:00 in UTC)
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["03-29 01:00", "03-30 00:30"]),
        ("0,30 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00", ["03-29 01:00", "03-29 01:30"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["03-30 00:00", "03-30 00:30"]),
        ("30 * * * *", "Europe/Berlin", "2026-03-29T01:00", ["03-29 00:30", "03-29 01:30"]),
        # at 3:00 on 25 October it is 2:00 again
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["10-25 00:30", "10-26 01:30"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-10-24T12:00",
         ["10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30", "10-26 01:00"]),
        ("0 * * * *", "Europe/Berlin", "2026-10-25T01:30",
         ["10-25 00:00", "10-25 01:00", "10-25 02:00"]),
        ("0 2,3 * * *", "Europe/Berlin", "2026-10-24T12:00", ["10-25 00:00", "10-25 02:00"]),
        # half an hour, at 2:00
        ("10 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", ["10-03 15:30", "10-04 15:10"]),
        ("*/15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", ["10-03 15:30", "10-03 15:45"]),
        ("*/15 3 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", ["10-03 16:00", "10-03 16:15"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00", ["04-04 14:45", "04-05 15:15"]),
        ("45 * * * *", "Australia/Lord_Howe", "2026-04-05T01:40",
         ["04-04 14:45", "04-04 15:15", "04-04 16:15"]),
        # at midnight: 0:00 is 1:00, and 24:00 is 23:00
        ("0 0 * * *", "Africa/Cairo", "2026-04-23T12:00", ["04-23 22:00", "04-24 21:00"]),
        ("*/30 0 * * *", "Africa/Cairo", "2026-04-23T12:00", ["04-24 21:00", "04-24 21:30"]),
        ("30 23 * * *", "Africa/Cairo", "2026-10-29T12:00", ["10-29 20:30", "10-30 21:30"]),
        ("30 * 29 10 *", "Africa/Cairo", "2026-10-29T23:00",
         ["10-29 20:30", "10-29 21:30"]),
        # the hour before midnight is left out; and 0:00 to 1:00 comes twice
        ("30 23 * * *", "America/Nuuk", "2026-03-28T12:00", ["03-29 01:00", "03-30 00:30"]),
        ("30 0 * * *", "America/Havana", "2026-10-31T12:00", ["11-01 04:30", "11-02 05:30"]),
        ("*/30 0 * * *", "America/Havana", "2026-10-31T12:00",
         ["11-01 04:00", "11-01 04:30", "11-01 05:00", "11-01 05:30"]),
        # a day that never was: no daylight saving, so nothing is made up for
        ("0 12 * * *", "Pacific/Apia", "2011-12-29T13:00", ["12-30 22:00"]),
        ("0 9 * * *", "Asia/Kolkata", "2026-01-01T09:00", ["01-02 03:30"]),
    ],
)  # fmt: skip
def test_changes_of_clocks(cron: str, zone: str, after: str, expected: list[str]) -> None:
    """By the clock with `*`; else once, right after a time that is left out (cron(8), Debian)."""
    assert runs(cron, zone, after, len(expected)) == expected


def test_a_run_in_the_second_of_two_hours_is_not_given_before_now() -> None:
    """Whoever asks between the two 2:30 of October is told of tomorrow's."""
    now = ms("2026-10-25T02:20", "Europe/Berlin", fold=1)
    assert parse("30 2 * * *", "Europe/Berlin").after(now) == ms("2026-10-26T01:30")
    assert parse("30 * * * *", "Europe/Berlin").after(now) == ms("2026-10-25T01:30")


def test_runs_that_are_years_apart_cost_little() -> None:
    """29 February on a Sunday: found, within the bound (50 years)."""
    cron = parse("0 0 29 2 */7", "UTC")
    assert cron.after(ms("2026-01-01T00:00")) == ms("2032-02-29T00:00")
    assert cron.after(ms("2072-03-01T00:00")) == ms("2088-02-29T00:00")
    # 2100 has no 29 February: from 2088 it is 40 years
    assert cron.after(ms("2089-01-01T00:00")) == ms("2128-02-29T00:00")


def test_the_search_for_a_run_ends() -> None:
    """A date that never comes, had it not been refused: no run in 50 years (SCHEDULE_DAYS)."""
    never = replace(parse("0 0 * 2 *", "UTC"), days=1 << 30)
    assert never.after(ms("2026-01-01T00:00")) is None
    assert never.upcoming(ms("2026-01-01T00:00"), 5) == []
    assert never.last(0, ms("2026-01-01T00:00")) is None


@pytest.mark.parametrize("cron", ["* * * * *", "0 0 1 1 *", "0 0 29 2 *"])
def test_the_calendar_ends(cron: str) -> None:
    """No run after the year 9999, and no error."""
    assert parse(cron, "UTC").after(ms("9999-12-31T23:59")) is None
    assert parse(cron, "Europe/Berlin").after(253_402_300_800_000 * 100) is None


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Caracas"])
@pytest.mark.parametrize("year", [1970, 2038, 2300])
def test_odd_years(zone: str, year: int) -> None:
    """Before and after what 32 bits can say, runs are where the clock shows them (row I10)."""
    cron = parse("15 12 * * *", zone)
    found = cron.upcoming(ms(f"{year}-06-01T00:00", zone), 3)
    assert found == [ms(f"{year}-06-0{day}T12:15", zone) for day in (1, 2, 3)]


@pytest.mark.parametrize(
    ("cron", "since", "until", "expected"),
    [
        ("* * * * *", "2026-01-01T00:00", "2026-12-31T23:59:30", "2026-12-31T23:59"),
        ("0 9 * * *", "2026-01-01T00:00", "2026-12-31T08:59", "2026-12-30T09:00"),
        ("0 9 * * *", "2026-12-30T09:00", "2026-12-31T08:59", None),
        ("0 0 1 1 *", "1970-01-02T00:00", "2026-05-05T00:00", "2026-01-01T00:00"),
        ("* * 1-10 * *", "2026-01-01T00:00", "2026-01-20T00:00", "2026-01-10T23:59"),
        ("0 0 1 1 *", "2026-02-01T00:00", "2026-05-05T00:00", None),
    ],
)
def test_the_last_run_before_now(cron: str, since: str, until: str, expected: str | None) -> None:
    """After a downtime of any length: the newest slot that was missed (issue 6, item 1)."""
    found = parse(cron, "UTC").last(ms(since), ms(until))
    assert found == (None if expected is None else ms(expected))

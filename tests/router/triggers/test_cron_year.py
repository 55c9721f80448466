"""1,000 schedules over a year with both daylight-saving changes, against Debian cron's own way.

The other side of the comparison shares nothing with ours: it goes through every minute of the
year in UTC as the daemon does, looks at the local clock, and keeps the daemon's virtual time over
changes of less than three hours. Source: cron(8) of Debian, "Notes"; issue 6, Must show 3.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from numpy.typing import NDArray

from amba_router.triggers.cron import parse

ZONES = (
    *("UTC", "Europe/Berlin", "Europe/London", "America/New_York", "America/St_Johns"),
    *("Australia/Lord_Howe", "Australia/Adelaide", "Asia/Kolkata", "Asia/Kathmandu"),
    *("Africa/Cairo", "America/Havana", "America/Santiago", "Asia/Beirut", "America/Nuuk"),
    *("Pacific/Chatham", "Atlantic/Azores", "Asia/Tokyo", "Africa/Casablanca"),
)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
MINUTES = 365 * 1440
COUNT = 1000


class Field:
    """One field as a row of booleans, and whether it begins with a star. A parser of its own."""

    def __init__(self, text: str, least: int, most: int, names: str = "") -> None:
        self.star = text.startswith("*")
        self.at = np.zeros(most + 1, dtype=bool)
        known = {name: number + least for number, name in enumerate(names.split())}

        def number(word: str) -> int:
            return known.get(word.lower(), -1) if word.isalpha() else int(word)

        for part in text.split(","):
            span, _, step = part.partition("/")
            low, _, high = span.partition("-")
            first = least if span == "*" else number(low)
            last = most if span == "*" else number(high or low)
            self.at[first : last + 1 : int(step or 1)] = True


class Year:
    """The local clock of one zone at every minute of the year."""

    def __init__(self, zone: str) -> None:
        info = ZoneInfo(zone)
        offsets = np.empty(MINUTES + 1440, dtype=np.int64)
        # offsets change on quarters of an hour at the most; each quarter is asked
        for quarter in range(0, len(offsets), 15):
            at = (BEGIN + timedelta(minutes=quarter)).astimezone(info)
            offset = at.utcoffset()
            assert offset is not None
            offsets[quarter : quarter + 15] = offset.total_seconds() // 60
        self.local = np.arange(len(offsets), dtype=np.int64) + offsets
        """Minutes since the begin of the year in UTC, as the local clock shows them."""
        self.jumps = np.flatnonzero(np.diff(offsets)) + 1
        self.by = offsets[self.jumps] - offsets[self.jumps - 1]
        day = self.local // 1440
        self.minute = self.local % 60
        self.hour = self.local // 60 % 24
        first = BEGIN.date().toordinal()
        days = range(int(day.min()), int(day.max()) + 2)
        dates = [date.fromordinal(first + one) for one in days]
        at = day - day.min()
        self.day = np.array([one.day for one in dates])[at]
        self.month = np.array([one.month for one in dates])[at]
        self.weekday = np.array([one.isoweekday() % 7 for one in dates])[at]
        self._dates = dict(zip(days, dates, strict=True))

    def shows(self, local: int) -> tuple[int, int, int, int, int]:
        """Minute, hour, day, month, weekday of a local minute that no clock showed."""
        at = self._dates[local // 1440]
        return local % 60, local // 60 % 24, at.day, at.month, at.isoweekday() % 7


def daemon(year: Year, cron: str) -> set[int]:
    """The minutes of the year at which Debian's daemon would begin the job."""
    texts = cron.split()
    minute = Field(texts[0], 0, 59)
    hour = Field(texts[1], 0, 23)
    day = Field(texts[2], 1, 31)
    month = Field(texts[3], 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec")
    weekday = Field(texts[4], 0, 7, "sun mon tue wed thu fri sat")
    weekday.at[0] = weekday.at[7] = weekday.at[0] or weekday.at[7]
    either = not (day.star or weekday.star)

    def fits(m: NDArray[np.int64], h: NDArray[np.int64], d: NDArray[np.int64],
             mo: NDArray[np.int64], w: NDArray[np.int64]) -> NDArray[np.bool_]:  # fmt: skip
        days, weekdays = day.at[d], weekday.at[w]
        on = days | weekdays if either else days & weekdays
        result: NDArray[np.bool_] = minute.at[m] & hour.at[h] & month.at[mo] & on
        return result

    runs = fits(year.minute, year.hour, year.day, year.month, year.weekday)
    if not (minute.star or hour.star):
        for jump, by in zip(year.jumps.tolist(), year.by.tolist(), strict=True):
            if 0 < by < 180:
                # the minutes that were left out are gone through at once
                left_out = [year.shows(int(year.local[jump]) - by + one) for one in range(by)]
                if fits(*(np.array(column) for column in zip(*left_out, strict=True))).any():
                    runs[jump] = True
            elif -180 < by < 0:
                # virtual time stands still until the clock has caught up with it
                runs[jump : jump - by] = False
    return set(np.flatnonzero(runs[:MINUTES]).tolist())


def expressions(seed: int, count: int) -> Iterable[tuple[str, str]]:
    """(Expression, zone): of all kinds, many of them at hours when clocks change."""
    draw = random.Random(seed)

    def values(least: int, most: int) -> str:
        picked = sorted(draw.sample(range(least, most + 1), draw.randint(1, 3)))
        kind = draw.random()
        if kind < 0.6:
            return ",".join(map(str, picked))
        low, high = sorted((draw.randint(least, most), draw.randint(least, most)))
        return f"{low}-{high}" + (f"/{draw.randint(2, 9)}" if kind < 0.8 and low < high else "")

    for number in range(count):
        rare = number % 3 != 0
        minute = draw.choice(["0", "30", "15,45", "5", "59", values(0, 59)])
        if not rare:
            minute = draw.choice(["*/15", "*/30", "*/20", "*/7", minute, "0-30/10"])
        near = draw.choice(["0", "1", "2", "3", "0,1,2,3", "23", "22-23", "1-3", "0-3"])
        hour = near if rare else draw.choice(["*", "*/2", "*/6", near, values(0, 23)])
        day, weekday = draw.choice(
            [("*", "*"), ("*", "*"), ("*", "0"), ("*", "sat,sun"), ("*", "*/2"), ("*/2", "*"),
             (values(1, 31), "*"), ("*", values(0, 7)), (values(1, 28), values(0, 6))]
        )  # fmt: skip
        month = draw.choice(["*", "*", "*", "3,4,9-11", "mar", "oct", "*/2", values(1, 12)])
        yield f"{minute} {hour} {day} {month} {weekday}", ZONES[number % len(ZONES)]
    # the busiest one: each minute of the year
    yield "* * * * *", "Australia/Lord_Howe"


def ours(cron: str, zone: str) -> set[int] | None:
    """The minutes at which the ticker would fire it; None where it never does."""
    from amba_router.api.faults import Refused

    try:
        read = parse(cron, zone)
    except Refused as refusal:
        if "never fires" in str(refusal):
            return None
        raise
    begin_ms = round(BEGIN.timestamp() * 1000)
    found: set[int] = set()
    at = read.after(begin_ms - 1)
    while at is not None and at < begin_ms + MINUTES * 60_000:
        assert at % 60_000 == 0
        found.add((at - begin_ms) // 60_000)
        at = read.after(at)
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_year_of_a_thousand_schedules() -> None:
    """Identical firing times, each schedule over the whole year (Must show 3)."""
    years = {zone: Year(zone) for zone in ZONES}
    changing = [zone for zone in ZONES if len(years[zone].jumps) >= 2]
    assert len(changing) >= 12
    assert {60, -60, 30, -30} <= {int(by) for year in years.values() for by in year.by}
    wrong: list[str] = []
    compared = firings = special = 0
    for cron, zone in expressions(2026, COUNT):
        expected, found = daemon(years[zone], cron), ours(cron, zone)
        differing = (found or set()) ^ expected
        if differing:
            wrong.append(f"{cron} in {zone}: {sorted(differing)[:5]}")
        compared += 1
        firings += len(expected)
        special += any(int(jump) in expected for jump in years[zone].jumps)
    assert wrong == []
    assert compared == COUNT + 1
    assert firings > 500_000
    assert special > 100
    print(f"{compared} schedules, {firings} firings, {special} of them at a change of clocks")

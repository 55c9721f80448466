"""When a schedule fires: five fields as Debian cron takes them, in an IANA time zone.

cronsim reads the fields, and refuses dates that never come. The times are reckoned here: cronsim
goes through a day in steps of an hour, and so leaves out runs in zones whose clocks change by half
an hour or at midnight. When clocks change by less than three hours, as Debian cron has it: a job
whose minute or hour begins with `*` goes by the clock, so that what is left out does not run and
what comes twice runs twice; any other job runs once all the same, right after the change where its
time was left out, at the first of two. Source: cron(8) of Debian, "Notes"; crontab(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError

from amba_router.api import faults
from amba_router.zones import zone_of
from amba_runtime import limits
from amba_runtime.clock import DAY_MS

_VALUE = r"(?:[0-9]{1,2}|[A-Z]{3})"
_TERM = rf"(?:(?:\*|{_VALUE}-{_VALUE})(?:/[0-9]{{1,3}})?|{_VALUE})"
_FIELD = re.compile(rf"{_TERM}(?:,{_TERM})*\Z", re.ASCII)
_BARE_STEP = re.compile(rf"(?:^|,)({_VALUE})/([0-9]+)", re.ASCII)
_ONE_WIDE = re.compile(rf"\b({_VALUE})-\1/[0-9]+", re.ASCII)
"""A range of one value with a step: cronsim takes its first value as the begin of an open one."""
_EXTENSION = re.compile(r"[?#]|(?:^|,)LW?(?:,|$)|[0-9]+[LW]|W(?:,|$)|[A-Z]{3}L", re.ASCII)
_FIELDS = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31",
    "month": "1 to 12, or JAN to DEC",
    "day-of-week": "0 to 7, or SUN to SAT",
}
"""As cronsim calls them, and what each takes."""

_SUCH_AS = ', such as "*/5 * * * *" or "0 9 * * 1-5"'

_MINUTE_MS = 60_000
_DAY = 1440
_SMALL_MS = 3 * 3_600_000
"""A change of clocks that is larger is no daylight saving: jobs go by the new time."""
_EPOCH = date(1970, 1, 1).toordinal()
_ZERO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cron:
    """An expression in a zone. Times are Unix milliseconds.

    Attributes:
        text: the expression as its function gets it: as given, with one blank between fields.
        by_clock: its minute or hour begins with `*`.
        either: a day matches by day of month or by day of week, not by both.
    """

    text: str
    timezone: str
    zone: tzinfo
    minutes: int
    hours: int
    days: int
    months: int
    weekdays: int
    by_clock: bool
    either: bool

    def after(self, ms: int) -> int | None:
        """The first run after `ms`; None where none comes within `limits.SCHEDULE_DAYS`."""
        try:
            local = (_ZERO + timedelta(milliseconds=ms)).astimezone(self.zone)
            day = local.toordinal()
            # what a change at midnight has left out of yesterday runs today
            day -= local.hour * 3_600_000 < _SMALL_MS
            for _ in range(limits.SCHEDULE_DAYS.value):
                on = date.fromordinal(day)
                if not self.months >> on.month & 1:
                    day = _next_month(on)
                    continue
                found = self._on(on, ms) if self._matches(on) else None
                if found is not None:
                    return found
                day += 1
        except (OverflowError, ValueError):  # the calendar ends with the year 9999
            return None
        return None

    def last(self, since_ms: int, ms: int) -> int | None:
        """The last run after `since_ms` and not after `ms`; None where there is none."""
        found = self.after(since_ms)
        if found is None or found > ms:
            return None
        while ms - found >= _MINUTE_MS:
            middle = (found + ms) // 2
            later = self.after(middle)
            if later is not None and later <= ms:
                found = later
            else:
                ms = middle
        return found

    def upcoming(self, ms: int, count: int) -> list[int]:
        """The next runs after `ms`."""
        runs: list[int] = []
        at: int | None = ms
        while len(runs) < count and at is not None:
            at = self.after(at)
            if at is not None:
                runs.append(at)
        return runs

    def _matches(self, day: date) -> bool:
        by_month = self.days >> day.day & 1
        by_week = self.weekdays >> day.isoweekday() % 7 & 1
        return bool(by_month or by_week) if self.either else bool(by_month and by_week)

    def _on(self, day: date, ms: int) -> int | None:
        """The first run of a day that matches, after `ms`."""
        midnight = (day.toordinal() - _EPOCH) * DAY_MS
        # where midnight itself is left out or comes twice: before this day's, after the next one's
        before = midnight - _offset(self.zone, day, 0)
        after = midnight - _offset(self.zone, day + timedelta(days=1), 1)
        if before == after:
            at = self._first((ms - before) // _MINUTE_MS + 1, _DAY)
            return None if at is None else before + at * _MINUTE_MS
        turn = self._turn(before, after)
        # the minutes of the day that the clock shows before and after its change
        old, new = (turn - before) // _MINUTE_MS, (turn - after) // _MINUTE_MS
        at = self._first((ms - before) // _MINUTE_MS + 1, min(old, _DAY))
        if at is not None:
            return before + at * _MINUTE_MS
        once = not self.by_clock and abs(before - after) < _SMALL_MS
        if once and turn > ms and self._first(old, min(new, _DAY)) is not None:
            return turn
        begin = max(old, new) if once else new
        at = self._first(max(begin, (ms - after) // _MINUTE_MS + 1), _DAY)
        return None if at is None else after + at * _MINUTE_MS

    def _turn(self, before: int, after: int) -> int:
        """When the clock changes, between the first and the last moment of a day."""
        width = abs(before - after)
        low, high = min(before, after) - width, max(before, after) + DAY_MS + width
        # `midnight - offset`: which one of the two a moment has
        old = _offset_at(self.zone, low)
        while high - low > 1000:
            middle = (low + high) // 2
            if _offset_at(self.zone, middle) == old:
                low = middle
            else:
                high = middle
        return high // 1000 * 1000

    def _first(self, least: int, end: int) -> int | None:
        """The first minute of a day that matches, from `least` on and before `end`."""
        hour, minute = divmod(max(least, 0), 60)
        hours = self.hours >> hour
        if hours & 1:
            minutes = self.minutes >> minute
            if minutes:
                at = hour * 60 + minute + _lowest(minutes)
                return at if at < end else None
            hours ^= 1
        if not hours:
            return None
        at = (hour + _lowest(hours)) * 60 + _lowest(self.minutes)
        return at if at < end else None


def parse(cron: str, timezone: str) -> Cron:
    """Read and check.

    Raises:
        Refused: INVALID_CRON or INVALID_TIMEZONE; the message says what would be right.
    """
    if len(cron) > limits.SCHEDULE_CRON.value:
        raise _wrong(f"a cron expression has at most {limits.SCHEDULE_CRON.value} characters")
    fields = cron.upper().split()
    _check(fields)
    zone = zone_of(timezone)
    if zone is None:
        raise faults.INVALID_TIMEZONE.refuse(
            f"{timezone[:64]!r} is no time zone; name one such as Europe/Berlin, or UTC",
            {"field": "$.timezone"},
        )
    plain = [_ONE_WIDE.sub(r"\1", field) for field in fields]
    try:
        read = CronSim(" ".join(plain), datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise _refusal(str(error), plain) from None
    minute, hour, day, _, weekday = plain
    weekdays = {number % 7 for number in read.weekdays if isinstance(number, int)}
    return Cron(
        " ".join(cron.split()),
        timezone,
        zone,
        _mask(read.minutes),
        _mask(read.hours),
        _mask(read.days),
        _mask(read.months),
        _mask(weekdays),
        by_clock=minute.startswith("*") or hour.startswith("*"),
        either=not (day.startswith("*") or weekday.startswith("*")),
    )


def _check(fields: list[str]) -> None:
    if fields and fields[0].startswith("@"):
        raise _wrong(f"{fields[0][:16].lower()} is not taken; write five fields{_SUCH_AS}")
    if len(fields) != 5:
        also = "; seconds and years are not taken" if len(fields) > 5 else ""
        raise _wrong(f"cron has five fields, and this one has {len(fields)}{also}{_SUCH_AS}")
    for name, field in zip(_FIELDS, fields, strict=True):
        if _FIELD.match(field) is not None:
            continue
        if _EXTENSION.search(field):
            raise _wrong(f"the {name} {field[:32]!r} uses L, W, # or ?, which Debian cron has not")
        step = _BARE_STEP.search(field)
        if step is not None:
            first, width = step.groups()
            last = _FIELDS[name].split(",")[0].rpartition(" ")[2]
            raise _wrong(
                f"the {name} {field[:32]!r} has a step without a range, which cron programs read "
                f"in different ways; write {first}-{last}/{width} or {first}"
            )
        raise _bad(name, field)


def _refusal(said: str, fields: list[str]) -> faults.Refused:
    """Of what cronsim did not take."""
    name = said.removeprefix("Bad ")
    if name not in _FIELDS:
        return _wrong(said)
    if name == "day-of-month":
        try:
            CronSim(" ".join([*fields[:3], "*", fields[4]]), datetime(2000, 1, 1, tzinfo=UTC))
        except CronSimError:
            return _bad(name, fields[2])
        return _wrong(f"it never fires: no month {fields[3][:32]} has a day {fields[2][:32]}")
    return _bad(name, dict(zip(_FIELDS, fields, strict=True))[name])


def _bad(name: str, field: str) -> faults.Refused:
    return _wrong(
        f"the {name} {field[:32]!r} is not right: it takes {_FIELDS[name]}, lists (1,2), "
        "ranges (1-5), * and steps (*/5, 1-5/2)"
    )


def _wrong(message: str) -> faults.Refused:
    return faults.INVALID_CRON.refuse(message, {"field": "$.cron"})


def _mask(values: Iterable[int]) -> int:
    return sum(1 << value for value in set(values))


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _next_month(day: date) -> int:
    year, month = divmod(day.year * 12 + day.month, 12)
    return date(year, month + 1, 1).toordinal()


def _offset(zone: tzinfo, day: date, fold: int) -> int:
    """Of the zone at midnight, in ms east of UTC."""
    at = datetime(day.year, day.month, day.day, tzinfo=zone, fold=fold)
    return _ms(at.utcoffset())


def _offset_at(zone: tzinfo, ms: int) -> int:
    return _ms((_ZERO + timedelta(milliseconds=ms)).astimezone(zone).utcoffset())


def _ms(offset: timedelta | None) -> int:
    return 0 if offset is None else round(offset.total_seconds() * 1000)

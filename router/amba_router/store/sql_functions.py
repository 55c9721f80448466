"""Functions of ours that SQL calls: patterns of text, and what lies inside of JSON.

All are deterministic; null gives null. JSON comes as text that we wrote ourselves. What a query of
a user's may cost is counted here, in steps of SQLite and of these functions.
Source: Postgres' meaning of LIKE, ILIKE and of `@>`, `<@` and `&&` (contract E.5).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import lru_cache

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from amba_router.api import faults
from amba_router.rows.shapes import is_array, is_nested, is_object
from amba_router.store.patterns import Pattern
from amba_runtime import limits

_OPERANDS = 8
"""Right sides kept decoded per connection: a query asks of each row the same few."""

_PATTERNS = 16
"""Kept read per connection, likewise; a hostile one takes a quarter of a MiB."""

_TICK = 10_000
"""Steps of SQLite between two looks at what is left."""

_LOOK = 100_000
"""Steps of ours between two looks at the clock: half a millisecond."""

_INFO = "amba_work"


class TooMuch(Exception):
    """A function has used up what its query may cost."""


class Work:
    """What the query that runs on a connection may still cost; one thread uses it at a time."""

    def __init__(self) -> None:
        self.left: int | None = None  # None: nobody counts
        self.late: Callable[[], bool] | None = None  # None: nobody looks at the clock
        self.ended = False  # by a look at the clock in one of our functions
        self._unlooked = 0  # steps of ours since the last one

    def spend(self, steps: int) -> None:
        """Raises `TooMuch`."""
        if self.left is not None:
            self.left -= steps
            if self.spent:
                raise TooMuch
        if self.late is not None:
            # SQLite asks between its own steps, and does not see ours
            self._unlooked += steps
            if self._unlooked >= _LOOK:
                self._unlooked = 0
                self.ended = self.late()
                if self.ended:
                    raise TooMuch

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return self.left is not None and self.left < 0

    def tick(self) -> int:
        """Called by SQLite as it works; 1 ends the statement."""
        if self.left is not None:
            self.left -= _TICK
        return int(self.spent or (self.late is not None and self.late()))


@contextmanager
def bounded(connection: Connection) -> Generator[None]:
    """Statements in here, all together, end where they have cost too much.

    Raises:
        Refused: INVALID_QUERY, with what to do; a transaction around it can go on or roll back.
    """
    work: Work = connection.info[_INFO]
    work.left = limits.COLLECTION_QUERY_STEPS.value
    try:
        yield
    except OperationalError:
        if work.spent:
            raise faults.INVALID_QUERY.refuse(
                "this looks at too many rows for one call: filter by columns that have an index, "
                "with eq, gt or lt",
                {"field": "$"},
            ) from None
        raise
    finally:
        work.left = None


@contextmanager
def interrupted(connection: Connection, late: Callable[[], bool], *, every: int) -> Generator[None]:
    """Statements in here end where `late` says so; it is asked as they work.

    Args:
        every: steps of SQLite between two questions.

    Raises:
        TimeoutError: one was ended. Where that was a change, its whole transaction is undone.
    """
    work: Work = connection.info[_INFO]
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    work.late, work.ended = late, False
    driver.set_progress_handler(work.tick, every)
    try:
        yield
    except OperationalError as error:
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code != sqlite3.SQLITE_INTERRUPT and not work.ended:
            raise
        raise TimeoutError from error
    finally:
        work.late = None
        driver.set_progress_handler(work.tick, _TICK)


def register(connection: sqlite3.Connection, info: dict[object, object]) -> None:
    """Make them known to a new connection. Args: info: what SQLAlchemy keeps beside it."""
    work = info[_INFO] = Work()
    operand = lru_cache(_OPERANDS)(_decoded)

    def of_json(name: str, test: Callable[[object, object], bool]) -> None:
        def run(stored: str | None, wanted: str) -> int | None:
            if stored is None:
                return None
            work.spend(_CALL + len(stored) // _LETTERS)
            return int(test(_decoded(stored), operand(wanted)))

        connection.create_function(name, 2, run, deterministic=True)

    @lru_cache(_PATTERNS)
    def pattern_of(pattern: str) -> Pattern:
        work.spend(_READ * len(pattern))
        return Pattern.read(pattern)

    def like(text: str | None, pattern: str) -> int | None:
        if text is None:
            return None
        wanted = pattern_of(pattern)
        work.spend(_CALL + len(text) // _LETTERS + wanted.steps(len(text)))
        return int(wanted.fits(text))

    def ilike(text: str | None, pattern: str) -> int | None:
        if text is None:
            return None
        work.spend(len(text) // _LETTERS)
        return like(text.lower(), pattern)

    json = Json(work)
    connection.set_progress_handler(work.tick, _TICK)
    connection.create_function("amba_like", 2, like, deterministic=True)
    connection.create_function("amba_ilike", 2, ilike, deterministic=True)
    of_json("amba_contains", json.contains)
    of_json("amba_contained", lambda stored, wanted: json.contains(wanted, stored))
    of_json("amba_overlaps", json.overlaps)
    of_json("amba_among", json.among)


_CALL = 50
"""Steps of SQLite in the time of one of Python's."""

_LETTERS = 10
"""That are read in the time of a step of SQLite."""

_READ = 40
"""Steps in which a letter of a pattern is read."""


class Json:
    """Compares values of JSON, and counts what it costs. Methods raise `TooMuch`."""

    def __init__(self, work: Work) -> None:
        self._spend = work.spend

    def contains(self, outer: object, inner: object) -> bool:
        """Whether all of `inner` is found in `outer`, at the same place; order and repeats aside.

        An array contains a plain value that is one of its members, at the top alone.
        """
        if is_array(outer) and not is_nested(inner):
            return _key(inner) in self._plain(outer)
        return self._within(outer, inner)

    def overlaps(self, stored: object, wanted: object) -> bool:
        """Whether two arrays have a member in common; what is no array is one of itself."""
        ours, theirs = _listed(stored), _listed(wanted)
        if not self._plain(ours).isdisjoint(self._plain(theirs)):
            return True
        nested = list(filter(is_nested, theirs))
        return any(self.among(member, nested) for member in filter(is_nested, ours))

    def among(self, stored: object, wanted: object) -> bool:
        """Whether a value is one of an array's."""
        return any(self.same(stored, member) for member in _listed(wanted))

    def same(self, one: object, other: object) -> bool:
        """Equal as jsonb: 1 is 1.0, true is not 1."""
        self._spend(_CALL)
        if is_object(one) and is_object(other):
            return one.keys() == other.keys() and all(
                self.same(one[name], other[name]) for name in one
            )
        if is_array(one) and is_array(other):
            return len(one) == len(other) and all(map(self.same, one, other))
        return not is_nested(one) and not is_nested(other) and _key(one) == _key(other)

    def _within(self, outer: object, inner: object) -> bool:
        self._spend(_CALL)
        if is_object(outer) and is_object(inner):
            return all(name in outer and self._within(outer[name], inner[name]) for name in inner)
        if is_array(outer) and is_array(inner):
            plain, nested = self._plain(outer), list(filter(is_nested, outer))
            return all(
                any(self._within(member, wanted) for member in nested)
                if is_nested(wanted)
                else _key(wanted) in plain
                for wanted in inner
            )
        return self.same(outer, inner)

    def _plain(self, members: list[object]) -> set[tuple[str, object]]:
        self._spend(_CALL * len(members))
        return {_key(member) for member in members if not is_nested(member)}


def _key(value: object) -> tuple[str, object]:
    """Equal for equal plain values of JSON, whose types Python mixes up: True is 1."""
    return ("number" if type(value) in (int, float) else type(value).__name__, value)


def _listed(value: object) -> list[object]:
    return value if is_array(value) else [value]


def _decoded(text: str) -> object:
    return msgspec.json.decode(text)

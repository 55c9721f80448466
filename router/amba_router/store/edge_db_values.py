"""Values of a function's SQL as a collection's columns keep them.

Postgres reads what a client sends by the column it meets: the text "5" is a number to an integer
column. So it is here; what a column cannot be made of is refused as the rows' API refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from amba_router.api import faults
from amba_router.api.faults import Refused
from amba_router.rows.columns import Collection, Column, Stored, to_stored
from amba_router.rows.shapes import is_array
from amba_router.rows.statements import Constant, Default, Now, Operator, Param, Value
from amba_runtime import limits

_WHOLE = re.compile(r"\s*([+-]?[0-9]{1,19})\s*\Z", re.ASCII)
_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)\s*\Z", re.A | re.I)
_TRUE = frozenset({"t", "true", "y", "yes", "on", "1"})
_FALSE = frozenset({"f", "false", "n", "no", "off", "0"})
_STATEMENT = "$.sql"
_STEPS_LEAST = 10


def unsupported(message: str, position: int | None = None) -> Refused:
    """UNSUPPORTED_SQL. Args: position: characters of the statement before it."""
    where = f"$.sql, character {position + 1}: " if position is not None else "$.sql: "
    details = {"field": "$.sql"} | ({} if position is None else {"position": position + 1})
    return faults.UNSUPPORTED_SQL.refuse(f"{where}{message}", details)


@dataclass(slots=True)
class Call:
    """One call's parameters, and the time of its statement.

    Attributes:
        now_us: Unix microseconds.
        listed: values of lists so far: they are bounded in all.
        patterned: characters of patterns so far: they are, too. One look at a long text for a
            long pattern that it nearly has takes a twentieth of a second.
    """

    params: Sequence[object]
    now_us: int
    listed: int = 0
    patterned: int = 0

    @property
    def steps(self) -> int:
        """Of SQLite's machine, within which a statement does not work for long."""
        return max(_STEPS_LEAST, limits.EDGE_DB_STEPS.value // max(1, self.patterned))

    def place(self, value: Value | Default) -> str:
        """Where a value was sent."""
        return f"$.params[{value.index}]" if isinstance(value, Param) else _STATEMENT

    def given(self, value: Param | Constant) -> object:
        """As it was sent."""
        return self.params[value.index] if isinstance(value, Param) else value.value

    def stored(self, column: Column, value: Value) -> Stored:
        """As the column keeps it. Raises INVALID_VALUE, UNSUPPORTED_SQL."""
        if isinstance(value, Now):
            if column.type != "timestamptz":
                raise unsupported(f"now() is not for {column.type}, which {column.name} is")
            return self.now_us
        _check_cast(column, value.cast, column.type)
        place = self.place(value)
        return to_stored(column, _as_read(column, self.given(value)), place)

    def array(self, column: Column, value: Param) -> tuple[Stored, ...]:
        """The members of `ANY($n)`. Raises INVALID_VALUE, UNSUPPORTED_SQL."""
        _check_cast(column, value.cast, f"{column.type}[]")
        place, given = self.place(value), self.given(value)
        if given is None:
            return (None,)
        if not is_array(given):
            raise _invalid(place, f"ANY needs an array of {column.type}")
        most = limits.COLLECTION_FILTER_IN.value
        if len(given) > most:
            raise _invalid(place, f"has {len(given)} values; {most} is the most: ask in pieces")
        self.count(len(given))
        return tuple(
            to_stored(column, _as_read(column, member), f"{place}[{at}]")
            for at, member in enumerate(given)
        )

    def count(self, values: int) -> None:
        """So many values more in lists. Raises UNSUPPORTED_SQL."""
        self.listed += values
        most = limits.EDGE_DB_VALUES.value
        if self.listed > most:
            raise unsupported(f"the lists of one statement have {most} values at most")

    def pattern(self, value: Value, operator: Operator) -> str | None:
        """Of LIKE. Raises INVALID_VALUE, UNSUPPORTED_SQL."""
        if isinstance(value, Now) or value.cast not in ("", "text"):
            raise unsupported(f"{operator} needs text")
        given, place = self.given(value), self.place(value)
        if given is None:
            return None
        if not isinstance(given, str) or "\0" in given:
            raise _invalid(place, f"{operator} needs text without NUL")
        most = limits.COLLECTION_PATTERN.value
        self.patterned += len(given)
        if self.patterned > most:
            raise _invalid(place, f"the patterns of a statement have {most} characters at most")
        if (len(given) - len(given.rstrip("\\"))) % 2:
            raise _invalid(place, "a pattern must not end with a single backslash")
        return given

    def number(self, value: Value | None, what: str) -> int | None:
        """Of LIMIT and OFFSET: None is none. Raises INVALID_VALUE, UNSUPPORTED_SQL."""
        if value is None:
            return None
        if isinstance(value, Now) or value.cast not in ("", "integer", "bigint"):
            raise unsupported(f"{what} needs a whole number")
        given, place = self.given(value), self.place(value)
        if isinstance(given, str) and (match := _WHOLE.match(given)):
            given = int(match[1])
        if given is None:
            return None
        if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given < 2**63:
            raise _invalid(place, f"{what} needs a whole number, 0 or more")
        return given


def column_of(collection: Collection, name: str) -> Column:
    """Raises INVALID_COLUMN."""
    column = collection.column(name)
    if column is None:
        known = ", ".join(column.name for column in collection.all_columns)
        raise faults.INVALID_COLUMN.refuse(
            f"$.sql: coll_{collection.name} has no column {name[:64]!r}; it has {known[:500]}",
            {"field": _STATEMENT, "column": name[:64]},
        )
    return column


def _check_cast(column: Column, cast: str, wanted: str) -> None:
    whole = ("integer", "bigint", "numeric")
    if cast in ("", wanted) or (cast in whole and wanted in whole):
        return
    raise unsupported(f"a cast to {cast} is not for {wanted}, which {column.name} wants")


def _as_read(column: Column, given: object) -> object:
    """What Postgres would read it as; what it would not, stays for `to_stored` to refuse."""
    if isinstance(given, str):
        return _text_as(column.type, given)
    if column.type == "text" and isinstance(given, bool | int | float):
        return msgspec.json.encode(given).decode()
    return given


def _text_as(type_: str, text: str) -> object:
    if type_ in ("integer", "bigint"):
        match = _WHOLE.match(text)
        return int(match[1]) if match else text
    if type_ == "numeric":
        match = _WHOLE.match(text) or _NUMBER.match(text)
        if match is None:
            return text
        return int(match[1]) if match.re is _WHOLE else float(match[1])
    if type_ == "boolean":
        word = text.strip().lower()
        return True if word in _TRUE else False if word in _FALSE else text
    if type_ == "vector" and len(text) <= limits.COLLECTION_TEXT_BYTES.value:
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text
    return text


def _invalid(place: str, message: str) -> Refused:
    return faults.INVALID_VALUE.refuse(f"{place}: {message}", {"field": place})

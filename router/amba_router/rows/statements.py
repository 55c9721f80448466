"""What a statement may say, as values: the whole of the SQL that is taken.

Names are spelled as Postgres has them, unquoted ones in lower case; none is known to exist yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class NotTaken(Exception):
    """A text that is none of the statements below, whether or not it is SQL.

    Attributes:
        position: characters before what is wrong.
    """

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


@dataclass(frozen=True, slots=True)
class Param:
    """`$n`. Attributes: index: from 0; cast: a column's type, "" where none was named."""

    index: int
    cast: str = ""


@dataclass(frozen=True, slots=True)
class Constant:
    """A value in the text itself; None is NULL."""

    value: str | int | float | bool | None
    cast: str = ""


@dataclass(frozen=True, slots=True)
class Now:
    """The time of the statement."""


@dataclass(frozen=True, slots=True)
class Default:
    """What a column holds when nothing is said of it."""


Value = Param | Constant | Now


class Operator(StrEnum):
    """Between a column and a value."""

    EQ = "="
    NE = "<>"
    GT = ">"
    GTE = ">="
    LT = "<"
    LTE = "<="
    LIKE = "LIKE"
    ILIKE = "ILIKE"


@dataclass(frozen=True, slots=True)
class Comparison:
    """`column operator value`."""

    column: str
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class InList:
    """`column IN (value, ...)`."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class AnyOfArray:
    """`column = ANY($n)`: the parameter is an array."""

    column: str
    array: Param


@dataclass(frozen=True, slots=True)
class InSelect:
    """`column IN (SELECT ...)`, of one column of the same table."""

    column: str
    select: Select


@dataclass(frozen=True, slots=True)
class IsNull:
    """`column IS NULL`."""

    column: str


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean column that stands for itself."""

    column: str


@dataclass(frozen=True, slots=True)
class Truth:
    """TRUE or FALSE."""

    value: bool


@dataclass(frozen=True, slots=True)
class And:
    """Of one part or more."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Of one part or more."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Unknown stays unknown."""

    part: Condition


Condition = Comparison | InList | AnyOfArray | InSelect | IsNull | Flag | Truth | And | Or | Not


@dataclass(frozen=True, slots=True)
class Output:
    """What an answer's rows have. Attributes: column: "*" is all; name: its key in a row."""

    column: str
    name: str


@dataclass(frozen=True, slots=True)
class Ordering:
    """One column of ORDER BY; Postgres takes nulls for the largest."""

    column: str
    descending: bool
    nulls_first: bool


@dataclass(frozen=True, slots=True)
class Select:
    """Attributes: count_as: the key of `count(*)`; "" where rows are asked for."""

    table: str
    outputs: tuple[Output, ...]
    where: Condition | None = None
    order: tuple[Ordering, ...] = ()
    limit: Value | None = None
    offset: Value | None = None
    count_as: str = ""


@dataclass(frozen=True, slots=True)
class Insert:
    """New rows: each of `rows` has a value for each of `columns`."""

    table: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value | Default, ...], ...]
    returning: tuple[Output, ...] = ()


@dataclass(frozen=True, slots=True)
class Update:
    """Other values for rows."""

    table: str
    sets: tuple[tuple[str, Value | Default], ...]
    where: Condition | None = None
    returning: tuple[Output, ...] = ()


@dataclass(frozen=True, slots=True)
class Delete:
    """Without rows, for good."""

    table: str
    where: Condition | None = None
    returning: tuple[Output, ...] = ()


Statement = Select | Insert | Update | Delete


@dataclass(frozen=True, slots=True)
class Parsed:
    """A statement, and how many parameters it wants."""

    statement: Statement
    parameters: int

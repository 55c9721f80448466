"""What a column may be, and its values on the wire and in the database.

Source: contract E.5 (types, synonyms, server-managed columns). Stored forms are ours: times are
Unix microseconds, arrays and jsonb are JSON text with sorted keys, vectors little-endian float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from amba_router.rows import values

Stored = str | int | float | bytes | None
"""What lies in the database."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A column whose values are those of another collection's column.

    Attributes:
        table: a collection of the same project, or `app_users`, which is not enforced.
        on_delete: `cascade`, `set null` or `restrict`: when the other row is deleted for good.
    """

    table: str
    column: str = "id"
    on_delete: str = "restrict"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a collection.

    Attributes:
        type: a key of `TYPES`; `TYPES[type]` says how it is kept.
        dimension: of a vector; 0 of all others.
    """

    name: str
    type: str
    nullable: bool = True
    dimension: int = 0
    references: Reference | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """An index. Attributes: columns: (name, whether descending), in order."""

    name: str
    columns: tuple[tuple[str, bool], ...]
    unique: bool = False


@dataclass(frozen=True, slots=True)
class Collection:
    """One collection of a project.

    Attributes:
        id: names its table in the database.
        columns: as declared, without the managed ones.
        read_policy: `owner`, or `public`: every session reads, its owner writes.
        search: as it was declared; kept, not acted on.
    """

    id: int
    name: str
    version: int
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]
    read_policy: str
    search: str | None
    created_ms: int
    migrated_ms: int

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """With the managed ones: `id` and `user_id` first, the times last."""
        return (*MANAGED[:2], *self.columns, *MANAGED[2:])

    def column(self, name: str) -> Column | None:
        """The column of this name, managed or not."""
        return next((column for column in self.all_columns if column.name == name), None)


MANAGED: tuple[Column, ...] = (
    Column("id", "uuid", nullable=False),
    Column("user_id", "text"),
    Column("created_at", "timestamptz", nullable=False),
    Column("updated_at", "timestamptz", nullable=False),
    Column("deleted_at", "timestamptz"),
)
"""On every collection; the server writes them."""

MANAGED_NAMES = frozenset(column.name for column in MANAGED)


@dataclass(frozen=True, slots=True)
class Kind:
    """A type. Attributes: sql: its column in SQLite; encode: see `to_stored`; decode: back."""

    sql: str
    encode: Callable[[object], Stored]
    decode: Callable[[object], object]
    wanted: str


def _same(value: object) -> object:
    return value


TYPES: dict[str, Kind] = {
    "uuid": Kind("TEXT", values.uuid_in, _same, "a UUID"),
    "text": Kind("TEXT", values.text_in, _same, "text without NUL, no longer than its limit"),
    "integer": Kind("INTEGER", values.int32_in, _same, "a whole number of 32 bits"),
    "bigint": Kind("INTEGER", values.int64_in, _same, "a whole number of 64 bits"),
    "numeric": Kind("NUMERIC", values.numeric_in, _same, "a finite number"),
    "boolean": Kind("INTEGER", values.boolean_in, bool, "true or false"),
    "timestamptz": Kind("INTEGER", values.time_in, values.time_out, "an ISO 8601 time, as text"),
    "date": Kind("TEXT", values.date_in, _same, "a date, YYYY-MM-DD"),
    "jsonb": Kind("TEXT", values.json_in, values.json_out, "JSON without NUL in its text"),
    "vector": Kind("BLOB", values.vector_in, values.vector_out, "an array of finite numbers"),
    "text[]": Kind("TEXT", values.texts_in, values.json_out, "an array of text"),
    "integer[]": Kind("TEXT", values.integers_in, values.json_out, "an array of whole numbers"),
}

ARRAYS: dict[str, str] = {"text[]": "text", "integer[]": "integer"}
"""Types of arrays, and of their elements."""

SYNONYMS: dict[str, str] = {
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "bool": "boolean",
    "json": "jsonb",
    "string": "text",
    "int[]": "integer[]",
    "string[]": "text[]",
}
"""What the platform's command line takes for a type (contract E.5)."""


def to_stored(column: Column, value: object, place: str) -> Stored:
    """A value of JSON as the database keeps it; null stays None, whatever the column.

    Args:
        place: where it was sent, such as `$.set.title`, for the error.

    Raises:
        Refused: INVALID_VALUE, with the column and the place.
    """
    if value is None:
        return None
    kind = TYPES[column.type]
    try:
        stored = kind.encode(value)
    except ValueError as error:
        raise values.refuse(place, column.name, column.type, str(error) or kind.wanted) from None
    if column.dimension and isinstance(stored, bytes) and len(stored) != 4 * column.dimension:
        wanted = f"{column.dimension} numbers, not {len(stored) // 4}"
        raise values.refuse(place, column.name, column.type, wanted)
    return stored


def to_wire(column: Column, stored: object) -> object:
    """What `to_stored` made, as JSON has it."""
    return None if stored is None else TYPES[column.type].decode(stored)

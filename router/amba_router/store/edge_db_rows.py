"""A function's statement on the rows of one collection, and no part of it longer than its time.

What would scan is a SELECT, which SQLite may interrupt without undoing anything else. Changes are
by id, of rows that were found so, and that are looked at once more in the changing transaction:
as Postgres does it at READ COMMITTED.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, func, select

from amba_router.api import faults
from amba_router.api.faults import Refused
from amba_router.rows.columns import Collection, Column, Stored, to_wire
from amba_router.rows.statements import (
    Default,
    Delete,
    Insert,
    Select,
    Update,
)
from amba_router.store import collection_rows
from amba_router.store.collection_tables import CollectionTables, RowRefused, Rows, weight
from amba_router.store.edge_db_sql import ROWID, Terms
from amba_router.store.edge_db_values import Call, unsupported
from amba_router.store.scoped import Scoped
from amba_router.store.sql_functions import interrupted
from amba_runtime import entropy, limits
from amba_runtime.clock import Clock

PREFIX = "coll_"
_CHUNK = 100
_Outputs = tuple[tuple[Column, str], ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """Attributes: rows: a JSON array; count: of the rows that were given or changed."""

    rows: bytes = b"[]"
    count: int = 0


class EdgeRows:
    """One statement's collection, in one transaction of its project.

    Raises:
        Refused: COLLECTION_NOT_FOUND when it is made; all methods UNSUPPORTED_SQL,
            INVALID_COLUMN, INVALID_VALUE, STATEMENT_TIMEOUT, RESULT_TOO_LARGE; what changes rows
            also ROW_CONFLICT, PAYLOAD_TOO_LARGE.
    """

    def __init__(
        self, scoped: Scoped, table: str, call: Call, tables: CollectionTables, clock: Clock
    ) -> None:
        self._name = table
        self._collection = _found(scoped, table)
        self._rows = Rows(scoped, self._collection, tables)
        self._table = self._rows.table
        self._terms = Terms(self._collection, self._table, call)
        self._connection = scoped.connection
        self._call = call
        self._clock = clock

    # reading

    def select(self, asked: Select) -> Answered:
        """Rows, or how many there are."""
        if asked.count_as:
            return self._count(asked)
        outputs = self._terms.outputs(asked.outputs)
        names = dict.fromkeys(column.name for column, _ in outputs)
        query = self._terms.wanted(select(*(self._table.c[n] for n in names)), asked.where)
        query = self._terms.paged(query, asked, limits.EDGE_DB_ROWS.value + 1)
        with self._within(limits.EDGE_DB_S.value):
            return self._answer(outputs, self._connection.execute(query).mappings())

    def _count(self, asked: Select) -> Answered:
        if asked.order or asked.limit is not None or asked.offset is not None:
            raise unsupported("count(*) is one row: ORDER BY, LIMIT and OFFSET are not taken")
        counting = select(func.count()).select_from(self._table)
        query = self._terms.wanted(counting, asked.where)
        with self._within(limits.EDGE_DB_S.value):
            count = self._connection.scalar(query)
        return Answered(msgspec.json.encode([{asked.count_as: count}]), 1)

    def ids(self, asked: Update | Delete) -> list[str]:
        """Of the rows that a change is about."""
        self._terms.outputs(asked.returning)
        if isinstance(asked, Update):
            self._new_values(asked)
        most = limits.EDGE_DB_ROWS.value
        query = self._terms.wanted(select(self._table.c.id), asked.where)
        query = query.order_by(ROWID).limit(most + 1)
        with self._within(limits.EDGE_DB_S.value):
            found = list(self._connection.scalars(query))
        if len(found) > most:
            raise faults.RESULT_TOO_LARGE.refuse(
                f"$.sql: more than {most} rows would change; ask for fewer with a WHERE",
                {"field": "$.sql", "most": most},
            )
        return found

    # changing

    def insert(self, asked: Insert) -> Answered:
        """New rows: all or none."""
        outputs = self._terms.outputs(asked.returning)
        columns = [self._terms.column(name) for name in asked.columns]
        made: list[dict[str, Stored]] = []
        for at, given in enumerate(asked.rows):
            # a microsecond apart: an order by creation is that of the statement
            row = self._fresh(self._call.now_us + at)
            for column, value in zip(columns, given, strict=True):
                if not isinstance(value, Default):
                    row[column.name] = self._call.stored(column, value)
            self._check_nulls(row)
            self._check_weight(row)
            made.append(row)
        with self._conflicts():
            self._rows.add(made)
        return self._answer(outputs, made)

    def update(self, asked: Update, ids: Sequence[str]) -> Answered:
        """Other values for those of the rows that still fit."""
        outputs = self._terms.outputs(asked.returning)
        values = self._new_values(asked)
        fits = self._terms.condition(asked.where)
        with self._within(limits.EDGE_DB_WRITE_S.value) as deadline:
            ids = self._still(fits, ids)
            for some in _chunks(ids):
                with deadline.change(), self._conflicts():
                    self._rows.change(some, values)
            return self._answer(outputs, map(self._check_weight, self._among(ids)))

    def delete(self, asked: Delete, ids: Sequence[str]) -> Answered:
        """Without those of the rows that still fit."""
        outputs = self._terms.outputs(asked.returning)
        fits = self._terms.condition(asked.where)
        with self._within(limits.EDGE_DB_WRITE_S.value) as deadline:
            ids = self._still(fits, ids)
            answer = self._answer(outputs, self._among(ids)) if outputs else Answered()
            for some in _chunks(ids):
                with deadline.change(), self._conflicts():
                    self._rows.drop(some)
        return Answered(answer.rows, len(ids))

    def _new_values(self, asked: Update) -> dict[str, Stored]:
        fresh = self._fresh(self._call.now_us)
        values: dict[str, Stored] = {}
        for name, value in asked.sets:
            column = self._terms.column(name)
            if name == "id":
                raise unsupported("id is a row's for good: insert another row")
            if isinstance(value, Default):
                values[name] = fresh[name]
            else:
                values[name] = self._call.stored(column, value)
        self._check_nulls(values)
        return values

    def _still(self, fits: ColumnElement[bool], ids: Sequence[str]) -> list[str]:
        still: list[str] = []
        for some in _chunks(ids):
            query = select(self._table.c.id).where(self._table.c.id.in_(some), fits)
            still += self._connection.scalars(query.order_by(ROWID))
        return still

    def _among(self, ids: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        for some in _chunks(ids):
            yield from self._rows.among(some)

    def _fresh(self, now_us: int) -> dict[str, Stored]:
        """A row of which nothing was said."""
        row: dict[str, Stored] = dict.fromkeys(c.name for c in self._collection.all_columns)
        row.update(id=entropy.uuid4(), created_at=now_us, updated_at=now_us)
        return row

    def _check_nulls(self, row: Mapping[str, Stored]) -> None:
        for name, value in row.items():
            if value is None and not self._terms.column(name).nullable:
                raise faults.INVALID_VALUE.refuse(
                    f"$.sql: column {name} must not be null; give it a value",
                    {"field": "$.sql", "column": name},
                )

    def _check_weight(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        size, most = weight(row.values()), limits.COLLECTION_ROW_BYTES.value
        if size > most:
            raise faults.PAYLOAD_TOO_LARGE.refuse(
                f"$.sql: a row of {self._name} would have {size} bytes, {most} are the most",
                {"field": "$.sql"},
            )
        return row

    @contextlib.contextmanager
    def _conflicts(self) -> Generator[None]:
        try:
            yield
        except RowRefused as refusal:
            names = ", ".join(refusal.columns)
            unique = f"another row has this {names}, which is unique"
            why = unique if names else "a reference between rows stands against it"
            raise faults.ROW_CONFLICT.refuse(
                f"$.sql: {self._name}: {why}; nothing was changed",
                {"field": "$.sql", "columns": list(refusal.columns)},
            ) from None

    # answering

    def _answer(self, outputs: _Outputs, rows: Iterable[Mapping[Any, Any]]) -> Answered:
        """All rows, or RESULT_TOO_LARGE."""
        parts: list[bytes] = []
        size = count = 0
        for row in rows:
            count += 1
            if count > limits.EDGE_DB_ROWS.value:
                raise self._too_large(f"{limits.EDGE_DB_ROWS.value} rows")
            if outputs:
                made = {name: to_wire(column, row[column.name]) for column, name in outputs}
                parts.append(msgspec.json.encode(made))
                size += len(parts[-1]) + 1
                if size > limits.EDGE_DB_ANSWER.value:
                    raise self._too_large(f"{limits.EDGE_DB_ANSWER.value} bytes")
        return Answered(b"[%b]" % b",".join(parts), count)

    def _too_large(self, most: str) -> Refused:
        return faults.RESULT_TOO_LARGE.refuse(
            f"$.sql: the answer has more than {most}; give a LIMIT, or ask for fewer columns",
            {"field": "$.sql"},
        )

    @contextlib.contextmanager
    def _within(self, seconds: float) -> Generator[_Deadline]:
        """What reads in here is interrupted when its time is over: STATEMENT_TIMEOUT."""
        deadline = _Deadline(self._clock, seconds)
        try:
            with interrupted(self._connection, deadline.interrupts, every=self._call.steps):
                yield deadline
        except TimeoutError:
            raise deadline.late() from None


class _Deadline:
    """So many seconds from here on."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._until = clock.monotonic_s() + seconds
        self._reading = True

    def interrupts(self) -> bool:
        """Asked by SQLite, every so many steps."""
        return self._reading and self._clock.monotonic_s() > self._until

    @contextlib.contextmanager
    def change(self) -> Generator[None]:
        """Around what must not be interrupted: SQLite would undo the whole transaction with it,
        the changes of other callers too. Begins only where there is time left."""
        if self._clock.monotonic_s() > self._until:
            raise self.late()
        self._reading = False
        try:
            yield
        finally:
            self._reading = True

    def late(self) -> Refused:
        return faults.STATEMENT_TIMEOUT.refuse(
            f"$.sql: it took more than {self._seconds:g} s; ask for less, or of indexed columns",
            {"field": "$.sql"},
        )


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[at : at + _CHUNK] for at in range(0, len(ids), _CHUNK))


def _found(scoped: Scoped, table: str) -> Collection:
    name = table.removeprefix(PREFIX)
    found = collection_rows.find(scoped, name) if table.startswith(PREFIX) else None
    if found is None:
        raise faults.COLLECTION_NOT_FOUND.refuse(
            f"$.sql: there is no table {table[:80]!r}: tables are coll_NAME, of the collections of "
            "this project",
            {"resource": "collection", "id": name[:64]},
        )
    return found

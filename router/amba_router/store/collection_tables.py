"""The rows of collections: each collection has a table of its own, `coll_N`.

These tables have no `project_id`: a `Rows` is made with a transaction of one project and with a
`Collection` that was found in it, and never without (see `collection_rows`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    LargeBinary,
    MetaData,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import TypeEngine, UserDefinedType

from amba_router.rows.columns import TYPES, Collection, Stored
from amba_router.rows.columns import Column as Declared
from amba_router.store.scoped import Scoped
from amba_router.store.sql_functions import bounded
from amba_runtime import limits


class RowRefused(Exception):
    """The database takes no such row. The transaction is to be given up: a part may be done.

    Attributes:
        at: which of the rows that were added; None of a change or a deletion.
        columns: of the unique index that stands against it; () where a reference does.
    """

    def __init__(self, at: int | None, columns: tuple[str, ...]) -> None:
        super().__init__(at, columns)
        self.at = at
        self.columns = columns


class PageTooLarge(Exception):
    """More bytes than one answer may have."""


class _Numeric(UserDefinedType[Any]):
    """Whole numbers stay whole: no driver turns them into floats or decimals."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "NUMERIC"


_SQL_TYPES: Mapping[str, type[TypeEngine[Any]]] = {
    "TEXT": Text,
    "INTEGER": BigInteger,
    "NUMERIC": _Numeric,
    "BLOB": LargeBinary,
}


class CollectionTables:
    """The tables of collections as SQLAlchemy has them, the latest used kept; for all threads."""

    def __init__(self) -> None:
        # by what they are made of: an alteration that is rolled back leaves nothing stale
        self._tables: OrderedDict[tuple[int, tuple[Declared, ...]], Table] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, collection: Collection) -> Table:
        """Its table, for its present columns."""
        key = (collection.id, collection.columns)
        with self._lock:
            table = self._tables.get(key)
            if table is None:
                table = self._tables[key] = _table(collection)
                if len(self._tables) > limits.COLLECTION_TABLES.value:
                    self._tables.popitem(last=False)
            else:
                self._tables.move_to_end(key)
            return table


def _table(collection: Collection) -> Table:
    columns = [
        Column(column.name, _SQL_TYPES[TYPES[column.type].sql], primary_key=column.name == "id")
        for column in collection.all_columns
    ]
    return Table(table_name(collection.id), MetaData(), *columns)


def table_name(id_: int) -> str:
    """In the database."""
    return f"coll_{id_}"


@dataclass(frozen=True, slots=True)
class Reach:
    """Which rows a caller may touch.

    Attributes:
        user_id: whose rows alone; None is everyone's.
        others: rows of others are read, too, unless they are deleted (`read_policy: public`).
        deleted: rows that were deleted softly count.
    """

    user_id: str | None
    others: bool = False
    deleted: bool = False


class Rows:
    """The rows of one collection, in one transaction of its project."""

    def __init__(self, scoped: Scoped, collection: Collection, tables: CollectionTables) -> None:
        self.table = tables.of(collection)
        self._connection = scoped.connection

    def visible(self, reach: Reach) -> ColumnElement[bool]:
        """The condition of a reach: every statement of a caller has it."""
        columns = self.table.c
        alive: ColumnElement[bool] = columns.deleted_at.is_(None)
        if reach.user_id is None:
            return and_(True) if reach.deleted else alive
        mine: ColumnElement[bool] = columns.user_id == reach.user_id
        if not reach.others:
            return mine if reach.deleted else and_(mine, alive)
        return or_(mine, alive) if reach.deleted else alive

    def one(self, reach: Reach, id_: str) -> dict[str, Any] | None:
        """The row of this id."""
        query = select(self.table).where(self.table.c.id == id_, self.visible(reach))
        row = self._connection.execute(query).mappings().first()
        return None if row is None else dict(row)

    def ids(self, reach: Reach, *where: ColumnElement[bool], limit: int) -> list[str]:
        """The ids of the first `limit` rows, the oldest first. Raises as `row_pages.find_rows`."""
        columns = self.table.c
        query = select(columns.id).where(self.visible(reach), *where)
        query = query.order_by(columns.created_at, columns.id).limit(limit)
        with bounded(self._connection):
            return list(self._connection.scalars(query))

    def among(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of these ids, in their order. Raises `PageTooLarge`."""
        found: dict[str, dict[str, Any]] = {}
        size = 0
        for at in range(0, len(ids), _SQL_VARIABLES):
            query = select(self.table).where(self.table.c.id.in_(ids[at : at + _SQL_VARIABLES]))
            for row in self._connection.execute(query).mappings():
                size += weight(row.values())
                if size > limits.COLLECTION_ANSWER_BYTES.value:
                    raise PageTooLarge
                found[row["id"]] = dict(row)
        return [found[id_] for id_ in ids if id_ in found]

    def count(self, reach: Reach, *where: ColumnElement[bool]) -> int:
        """How many rows there are. Raises as `row_pages.find_rows`."""
        query = select(func.count()).select_from(self.table).where(self.visible(reach), *where)
        with bounded(self._connection):
            return int(self._connection.scalar(query) or 0)

    def exceed(self, count: int) -> bool:
        """Whether there are more rows than that, deleted ones too. Takes time with `count`."""
        # by the ids alone: an index has them, and no row is read
        query = select(self.table.c.id).order_by(self.table.c.id).limit(1).offset(count)
        return self._connection.scalar(query) is not None

    def has(self, column: str, value: Stored) -> bool:
        """Whether a row has this value, deleted or not."""
        query = select(self.table.c.id).where(self.table.c[column] == value).limit(1)
        return self._connection.scalar(query) is not None

    def add(self, rows: Sequence[Mapping[str, Stored]]) -> None:
        """New rows, each with every column. Raises `RowRefused`, naming the row."""
        if not rows:
            return
        try:
            self._connection.execute(insert(self.table), list(rows))
        except IntegrityError as error:
            # those before it are there still
            at = self._present([str(row["id"]) for row in rows])
            raise RowRefused(at, _columns_of(error)) from error

    def _present(self, ids: Sequence[str]) -> int:
        count = 0
        for at in range(0, len(ids), _SQL_VARIABLES):
            some = self.table.c.id.in_(ids[at : at + _SQL_VARIABLES])
            query = select(func.count()).select_from(self.table).where(some)
            count += int(self._connection.scalar(query) or 0)
        return count

    def change(self, ids: Sequence[str], values: Mapping[str, Stored]) -> None:
        """The same new values for each of these rows. Raises `RowRefused`."""
        for at in range(0, len(ids), _SQL_VARIABLES):
            some = self.table.c.id.in_(ids[at : at + _SQL_VARIABLES])
            self._run(update(self.table).where(some).values(dict(values)))

    def change_each(self, changed: Sequence[tuple[str, Mapping[str, Stored]]]) -> None:
        """New values for each row; every one names the same columns. Raises `RowRefused`."""
        if not changed:
            return
        # in capitals, as no column is
        names: dict[str, Any] = {name: bindparam(f"NEW_{name}") for name in changed[0][1]}
        statement = update(self.table).where(self.table.c.id == bindparam("ID")).values(names)
        bound = [
            {"ID": id_, **{f"NEW_{name}": value for name, value in values.items()}}
            for id_, values in changed
        ]
        self._run(statement, bound)

    def drop(self, ids: Sequence[str]) -> None:
        """Without these rows, for good. Raises `RowRefused`: rows of others refer to them."""
        for at in range(0, len(ids), _SQL_VARIABLES):
            self._run(delete(self.table).where(self.table.c.id.in_(ids[at : at + _SQL_VARIABLES])))

    def _run(self, statement: Any, parameters: Any = None) -> None:
        try:
            self._connection.execute(statement, parameters)
        except IntegrityError as error:
            raise RowRefused(None, _columns_of(error)) from error


_SQL_VARIABLES = 500  # SQLite allows 999 in a statement on its oldest builds


def weight(values: Any) -> int:
    """About how many bytes these stored values are."""
    return sum(len(value) if isinstance(value, str | bytes) else 8 for value in values)


def _columns_of(error: IntegrityError) -> tuple[str, ...]:
    """Those of a unique index; () for a reference."""
    cause = error.orig
    assert isinstance(cause, sqlite3.IntegrityError)
    if cause.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return ()
    said = str(cause).partition(": ")[2]
    return tuple(name.rpartition(".")[2] for name in said.split(", "))

"""The tables of collections are made, altered and dropped here: names are quoted, never bound.

Every name has passed the rule of names before it comes here (`schema`), and is quoted all the same.
Nulls are refused before a row comes to the database: SQLite cannot add a column that takes none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection

from amba_router.rows.columns import TYPES, Collection, Column, Index
from amba_router.store.collection_tables import table_name
from amba_runtime.errors import InternalCode, InternalError

Targets = Mapping[str, int]
"""Ids of the collections that columns refer to, by name."""


def create(connection: Connection, collection: Collection, targets: Targets) -> None:
    """A collection's table and its indexes."""
    columns = ", ".join(_column(column, targets) for column in collection.all_columns)
    connection.exec_driver_sql(f"CREATE TABLE {_table(collection)} ({columns})")
    # what the client plane asks for: one user's rows, in the order of their making
    name = _quoted(f"{table_name(collection.id)}.user")
    connection.exec_driver_sql(
        f"CREATE INDEX {name} ON {_table(collection)} (user_id, created_at, id)"
    )
    name = _quoted(f"{table_name(collection.id)}.created")
    connection.exec_driver_sql(f"CREATE INDEX {name} ON {_table(collection)} (created_at, id)")
    for column in collection.columns:
        _index_reference(connection, collection, column)
    for index in collection.indexes:
        add_index(connection, collection, index)


def add_column(
    connection: Connection, collection: Collection, column: Column, targets: Targets
) -> None:
    """One more column, null in all rows."""
    connection.exec_driver_sql(
        f"ALTER TABLE {_table(collection)} ADD COLUMN {_column(column, targets)}"
    )
    _index_reference(connection, collection, column)


def add_index(connection: Connection, collection: Collection, index: Index) -> None:
    """Raises `IntegrityError`, of a unique one that the rows break."""
    if not has_table(collection, index):
        return
    parts = ", ".join(
        f"{_quoted(name)} {'DESC' if descending else 'ASC'}" for name, descending in index.columns
    )
    # of rows that are deleted softly there may be any number with the same values
    kind, rows = ("UNIQUE INDEX", " WHERE deleted_at IS NULL") if index.unique else ("INDEX", "")
    connection.exec_driver_sql(
        f"CREATE {kind} {_index(collection, index)} ON {_table(collection)} ({parts}){rows}"
    )


def add_target(connection: Connection, id_: int, column: str) -> None:
    """Let other rows refer to a column of a collection, unless they can already.

    SQLite needs a unique index over all rows for that, deleted ones too: it takes no partial one
    (https://www.sqlite.org/foreignkeys.html#fk_indexes).

    Raises:
        IntegrityError: rows have equal values there.
    """
    connection.exec_driver_sql(
        f"CREATE UNIQUE INDEX IF NOT EXISTS {_target(id_, column)} "
        f"ON {_quoted(table_name(id_))} ({_quoted(column)})"
    )


def drop_target(connection: Connection, id_: int, column: str) -> None:
    """No row can refer to it any more."""
    connection.exec_driver_sql(f"DROP INDEX IF EXISTS {_target(id_, column)}")


def has_table(collection: Collection, index: Index) -> bool:
    """Whether the database keeps it: of a vector it does not, as all rows are compared."""
    columns = (collection.column(name) for name, _ in index.columns)
    return not any(column is not None and column.type == "vector" for column in columns)


def drop_column(
    connection: Connection, collection: Collection, column: Column, indexes: Iterable[Index]
) -> None:
    """Without a column, and without the indexes that have it."""
    for index in indexes:
        connection.exec_driver_sql(f"DROP INDEX IF EXISTS {_index(collection, index)}")
    name = _quoted(_reference_name(collection, column))
    connection.exec_driver_sql(f"DROP INDEX IF EXISTS {name}")
    drop_target(connection, collection.id, column.name)  # of a column that refers to itself
    connection.exec_driver_sql(
        f"ALTER TABLE {_table(collection)} DROP COLUMN {_quoted(column.name)}"
    )


def empty_some(connection: Connection, collection: Collection, count: int) -> None:
    """One step towards an empty table: what so many rows refer to here, an index, or so many rows.

    For a collection that goes, and that no other one may refer to. What is left is a collection
    still: slower without its indexes, of which the unique ones stay.
    """
    table = _table(collection)
    own = [c for c in collection.columns if c.references and c.references.table == collection.name]
    for column in own:
        # or one row would hold another, or take any number of them along
        name = _quoted(column.name)
        some = f"SELECT rowid FROM {table} WHERE {name} IS NOT NULL LIMIT {count:d}"  # noqa: S608  # quoted above
        statement = f"UPDATE {table} SET {name} = NULL WHERE rowid IN ({some})"  # noqa: S608
        if connection.exec_driver_sql(statement).rowcount:
            return
    # each row that goes is looked for in what refers to it
    kept = {_reference_name(collection, column) for column in own}
    indexes = connection.exec_driver_sql(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ?",
        (table_name(collection.id),),
    )
    for index in indexes.all():
        if index.sql and not index.sql.startswith("CREATE UNIQUE") and index.name not in kept:
            connection.exec_driver_sql(f"DROP INDEX {_quoted(index.name)}")
            return
    some = f"SELECT rowid FROM {table} ORDER BY rowid LIMIT {count:d}"  # noqa: S608
    connection.exec_driver_sql(f"DELETE FROM {table} WHERE rowid IN ({some})")  # noqa: S608


def drop_tables(connection: Connection, ids: Iterable[int]) -> None:
    """Without these tables, whichever refers to which; no other table may refer to them.

    A table that nothing refers to goes as it is, whatever it holds: its pages are freed, no row is
    read. Of a circle each row is deleted first.
    """
    left = {table_name(id_): _referred_to(connection, table_name(id_)) for id_ in ids}
    while free := left.keys() - set[str]().union(*left.values()):
        for table in free:
            connection.exec_driver_sql(f"DROP TABLE {_quoted(table)}")
            del left[table]
    if left:
        _drop_circle(connection, [_quoted(table) for table in left])


def _referred_to(connection: Connection, table: str) -> set[str]:
    found = connection.exec_driver_sql(f"PRAGMA foreign_key_list({_quoted(table)})").mappings()
    return {str(row["table"]) for row in found}


def _drop_circle(connection: Connection, tables: list[str]) -> None:
    """Rows of a circle can only go together, so references are not looked at here.

    SQLite forgets what was broken when it looks at them again: the caller has made sure that no
    other table may refer to these.
    (https://www.sqlite.org/pragma.html#pragma_defer_foreign_keys; tried with 3.40).
    """
    connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
    try:
        for table in tables:
            connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608  # quoted above
        for table in tables:
            connection.exec_driver_sql(f"DROP TABLE {table}")
    finally:
        # no savepoint's rollback does: a bad reference of who shares the transaction would come
        # up at the commit, and fail that for all
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=OFF")


def _column(column: Column, targets: Targets) -> str:
    made = f"{_quoted(column.name)} {TYPES[column.type].sql}"
    if column.name == "id":
        made += " PRIMARY KEY NOT NULL"
    reference = column.references
    if reference is not None and reference.table in targets:
        table = _quoted(table_name(targets[reference.table]))
        # RESTRICT would forbid what one statement deletes whole; NO ACTION looks at its end
        action = {"cascade": "CASCADE", "set null": "SET NULL"}.get(
            reference.on_delete, "NO ACTION"
        )
        made += f" REFERENCES {table} ({_quoted(reference.column)}) ON DELETE {action}"
    return made


def _index_reference(connection: Connection, collection: Collection, column: Column) -> None:
    """Without one, each deletion of a row that may be referred to reads all that may refer."""
    if column.references is not None:
        name = _quoted(_reference_name(collection, column))
        connection.exec_driver_sql(
            f"CREATE INDEX {name} ON {_table(collection)} ({_quoted(column.name)})"
        )


def _reference_name(collection: Collection, column: Column) -> str:
    return f"{table_name(collection.id)}.reference.{column.name}"


def _index(collection: Collection, index: Index) -> str:
    return _quoted(f"{table_name(collection.id)}.index.{index.name}")


def _target(id_: int, column: str) -> str:
    return _quoted(f"{table_name(id_)}.target.{column}")


def _table(collection: Collection) -> str:
    return _quoted(table_name(collection.id))


def _quoted(name: str) -> str:
    if '"' in name or "\0" in name:
        raise InternalError(InternalCode.INVARIANT, f"{name!r} came to the database as a name")
    return f'"{name}"'

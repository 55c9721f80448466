"""One page of a collection's rows, in an order that inserts do not disturb.

A page goes on behind the last row of the one before, by value and id: never by counting.
Source: contract E.5 (order, limit, cursor).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Table, select

from amba_router.rows.columns import Column, Stored
from amba_router.rows.filters import Filter
from amba_router.rows.query import Query, next_cursor
from amba_router.store.collection_tables import weight
from amba_router.store.filter_sql import Condition, after, condition, ordering
from amba_router.store.sql_functions import bounded
from amba_runtime import limits


@dataclass(frozen=True, slots=True)
class Page:
    """Rows by names of columns, all of them, in stored forms.

    Attributes:
        next_cursor: None at the end, and where the order has several columns.
    """

    rows: tuple[Mapping[str, Stored], ...]
    next_cursor: str | None
    has_more: bool


def find_rows(connection: Connection, table: Table, query: Query, *scope: Condition) -> Page:
    """The rows that a query asks for, within a scope.

    A page ends early, with a cursor, where its rows are very large.

    Args:
        scope: what the caller may see, besides what it asks.

    Raises:
        Refused: INVALID_QUERY, where the next page could not be named, or all of it costs too much.
    """
    statement = select(table.c.id).where(*scope, condition(table, query.filter))
    if not query.include_deleted:
        statement = statement.where(table.c.deleted_at.is_(None))
    if query.after is not None:
        behind = after(table, query.order[0], query.after.value, query.after.row_id)
        statement = statement.where(behind)
    statement = statement.order_by(*ordering(table, query.order))
    statement = statement.limit(query.limit + 1).offset(query.offset)
    rows: list[Mapping[str, Stored]] = []
    size, has_more = 0, False
    with bounded(connection):
        # SQLite keeps what it sorts: ids and values of the order, not rows of half a MiB
        ids = list(connection.scalars(statement))
        for row in _rows_of(connection, table, ids):
            size += weight(row.values())
            # one row at least, or the next page would be the same
            full = len(rows) == query.limit or size > limits.COLLECTION_PAGE_BYTES.value
            if rows and full:
                has_more = True
                break
            rows.append(row)
    cursor = next_cursor(query, rows[-1]) if has_more else None
    return Page(tuple(rows), cursor, has_more)


def _rows_of(
    connection: Connection, table: Table, ids: Sequence[str]
) -> Iterator[Mapping[str, Stored]]:
    for at in range(0, len(ids), _AT_ONCE):
        some = ids[at : at + _AT_ONCE]
        result = connection.execute(table.select().where(table.c.id.in_(some))).mappings()
        found = {row["id"]: {**row} for row in result}
        yield from (found[id_] for id_ in some)


def vector_chunks(
    connection: Connection, table: Table, column: Column, wanted: Filter, *scope: Condition
) -> Generator[Sequence[tuple[str, bytes]]]:
    """Ids and vectors of the rows that a filter finds within a scope and that have one.

    In no order, a few hundred at once: they are never all in memory.
    Close it. Raises as `find_rows`.
    """
    vectors = table.c[column.name]
    statement = table.select().with_only_columns(table.c.id, vectors)
    statement = statement.where(*scope, condition(table, wanted), vectors.is_not(None))
    chunk = limits.COLLECTION_NEAREST_CHUNK.value
    asked = statement.execution_options(yield_per=chunk)
    with bounded(connection), connection.execute(asked) as result:
        for rows in result.partitions():
            yield [(str(row[0]), row[1]) for row in rows]


_AT_ONCE = 50
"""Rows fetched at once: a page of large ones is not in memory whole before it is cut."""

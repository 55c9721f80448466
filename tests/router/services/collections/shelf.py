"""A collection of every type, in a database of its own in memory: no server, no disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Self

from sqlalchemy import create_engine, event
from tests.router.services.collections.naive import TYPES

from amba_router.rows.columns import (
    MANAGED_NAMES,
    Collection,
    Column,
    to_stored,
    to_wire,
)
from amba_router.rows.query import parse_query
from amba_router.store import sql_functions
from amba_router.store.collection_tables import CollectionTables, Rows
from amba_router.store.row_pages import find_rows
from amba_router.store.scoped import Scoped

_DECLARED = tuple(Column(name, type_) for name, type_ in TYPES.items() if name not in MANAGED_NAMES)
BOOKS = Collection(
    1, "books", 1, (*_DECLARED, Column("place", "vector", dimension=3)), (), "owner", None, 0, 0
)
"""A column of each type; those of `naive.TYPES`, and a vector."""


class Shelf:
    """Rows of `BOOKS`, as JSON has them; leaving it takes all away."""

    def __init__(self) -> None:
        engine = create_engine("sqlite://")

        def on_connect(connection: sqlite3.Connection, record: Any) -> None:
            sql_functions.register(connection, record.info)

        event.listen(engine, "connect", on_connect)
        self._engine = engine
        self.connection = engine.connect()
        self.rows = Rows(Scoped(self.connection, "p"), BOOKS, CollectionTables())
        self.rows.table.create(self.connection)
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self._engine.dispose()

    def put(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A new row; what it does not name is null, its id counts up. Returns it as JSON has it."""
        self._count += 1
        given = {
            "id": f"00000000-0000-4000-8000-{self._count:012}",
            "created_at": "2024-01-01T00:00:00Z",
            "updated_at": "2024-01-01T00:00:00Z",
            **row,
        }
        stored = {c.name: to_stored(c, given.get(c.name), "$") for c in BOOKS.all_columns}
        self.rows.add([stored])
        return {c.name: to_wire(c, stored[c.name]) for c in BOOKS.all_columns}

    def find(
        self, options: Mapping[str, Any], scope: str = ""
    ) -> tuple[list[dict[str, Any]], str | None, bool]:
        """(rows, next cursor, whether there are more) of a query of everyone's rows."""
        query = parse_query(BOOKS, options, scope=scope)
        page = find_rows(self.connection, self.rows.table, query)
        found = [{c.name: to_wire(c, row[c.name]) for c in BOOKS.all_columns} for row in page.rows]
        return found, page.next_cursor, page.has_more

    def ids(self, **options: Any) -> list[str]:
        """The ids of what `find` finds, at most 1,000."""
        return [row["id"] for row in self.find({"limit": 1000, **options})[0]]

"""What one project sees of the database: no statement of a service is without its id.

Service stores build statements here and nowhere else (`tests/test_house.py`): `query`, `change`
and `drop` begin with the project's own rows, `add` puts the id in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Delete,
    Row,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert

At = Collection[int] | Select[Any]
"""Rows by their `seq`."""

_PROJECT = "of_project"


def prepared(table: Table) -> Select[Any]:
    """A query of whichever project asks, for `Scoped.found`: made once, with `bindparam`s.

    To make a statement costs more than what SQLite does for a small one.
    """
    return select(table).where(table.c.project_id == bindparam(_PROJECT))


def prepared_change(table: Table, **values: Any) -> Update:
    """The same for `Scoped.changed`, of rows that are looked up by their `seq`."""
    return update(table).where(_at(table)).values(values)


def prepared_drop(table: Table) -> Delete:
    """The same, without these rows."""
    return delete(table).where(_at(table))


def _at(table: Table) -> ColumnElement[bool]:
    mine = func.coalesce(table.c.project_id, "") == bindparam(_PROJECT)  # see `Scoped.query`
    return and_(table.c.seq.in_(bindparam("seqs", expanding=True)), mine)


class Scoped:
    """A transaction, for one project.

    Attributes:
        connection: for `collection_tables`, whose tables belong to one project alone.
    """

    def __init__(self, connection: Connection, project_id: str) -> None:
        self.connection = connection
        self.project_id = project_id

    def query(
        self, table: Table, *columns: ColumnElement[Any], at: At | None = None
    ) -> Select[Any]:
        """This project's rows; add conditions, order and limits, then `rows`, `row` or `value`.

        Args:
            columns: what to give; all of the table without.
            at: these rows of the project alone, each looked up by its `seq`. Conditions that
                name `seq` beside the project have SQLite go through all that the project has.
        """
        chosen: Select[Any] = select(*columns).select_from(table) if columns else select(table)
        return chosen.where(self._mine(table, at))

    def rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        """All that a `query` finds."""
        return self.connection.execute(query).all()

    def found(self, query: Select[Any], **given: Any) -> Sequence[Row[Any]]:
        """All that a `prepared` query finds for these values."""
        return self.connection.execute(query, {_PROJECT: self.project_id, **given}).all()

    def changed(self, statement: Update | Delete, seqs: Sequence[int], **given: Any) -> int:
        """How many rows a `prepared_change` or `prepared_drop` changed for these values."""
        values = {_PROJECT: self.project_id, "seqs": seqs, **given}
        result: CursorResult[Any] = self.connection.execute(statement, values)
        return result.rowcount

    def row(self, query: Select[Any]) -> Row[Any] | None:
        """The first that a `query` finds."""
        return self.connection.execute(query.limit(1)).first()

    def value(self, query: Select[Any]) -> Any:
        """The first column of the first row; None where there is none."""
        return self.connection.scalar(query.limit(1))

    def count(self, table: Table, *where: ColumnElement[bool]) -> int:
        """How many of this project's rows there are."""
        return int(self.value(self.query(table, func.count()).where(*where)))

    def add(self, table: Table, values: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """New rows of this project."""
        many = [values] if isinstance(values, Mapping) else values
        if many:
            rows = [{**row, "project_id": self.project_id} for row in many]
            self.connection.execute(insert(table), rows)

    def add_missing(self, table: Table, values: Mapping[str, Any]) -> bool:
        """A new row unless one with the same key is there; whether it was added."""
        row = {**values, "project_id": self.project_id}
        return self._ran(insert(table).values(row).on_conflict_do_nothing()) == 1

    def put(self, table: Table, key: Sequence[str], values: Mapping[str, Any]) -> None:
        """A new row, or other values for the one with the same key.

        Args:
            key: columns of a unique constraint, without `project_id`.
        """
        row = {**values, "project_id": self.project_id}
        changed = {name: value for name, value in values.items() if name not in key}
        statement = insert(table).values(row)
        self._ran(
            statement.on_conflict_do_update(index_elements=["project_id", *key], set_=changed)
        )

    def change(self, table: Table, *where: ColumnElement[bool], **values: Any) -> int:
        """Other values for this project's rows; how many there were."""
        return self._ran(update(table).where(self._mine(table), *where).values(values))

    def change_at(self, table: Table, at: At, *where: ColumnElement[bool], **values: Any) -> int:
        """The same, of rows that are looked up by their `seq`: see `query`."""
        return self._ran(update(table).where(self._mine(table, at), *where).values(values))

    def drop(self, table: Table, *where: ColumnElement[bool], at: At | None = None) -> int:
        """Without these rows of this project; how many there were. Args: at: see `query`."""
        return self._ran(delete(table).where(self._mine(table, at), *where))

    def _mine(self, table: Table, at: At | None = None) -> ColumnElement[bool]:
        mine: ColumnElement[bool] = table.c.project_id == self.project_id
        if at is None:
            return mine
        # SQLite knows no sizes: it takes an index that begins with the project, and goes through
        # all of its rows, sooner than four look-ups by `seq`. An expression has no index.
        return and_(table.c.seq.in_(at), func.coalesce(table.c.project_id, "") == self.project_id)

    def _ran(self, statement: Update | Delete | Any) -> int:
        result: CursorResult[Any] = self.connection.execute(statement)
        return result.rowcount

"""A function's conditions, orders and outputs as SQL over one collection's table.

Every name is a column that is known, every value is bound: nothing of the text is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, false, literal_column, not_, or_, select, true
from sqlalchemy import Select as Query

from amba_router.rows.columns import Collection, Column, Stored
from amba_router.rows.filters import Leaf, Op
from amba_router.rows.statements import (
    And,
    AnyOfArray,
    Comparison,
    Condition,
    Flag,
    InList,
    InSelect,
    IsNull,
    Not,
    Operator,
    Or,
    Output,
    Select,
    Truth,
    Value,
)
from amba_router.store.edge_db_values import Call, column_of, unsupported
from amba_router.store.filter_sql import condition as leaf_sql
from amba_runtime import limits

ROWID: ColumnElement[int] = literal_column("_rowid_")
"""The order of making. No column can have this name: names begin with a letter."""
_COMPARED = {
    Operator.EQ: Op.EQ,
    Operator.NE: Op.NE,
    Operator.GT: Op.GT,
    Operator.GTE: Op.GTE,
    Operator.LT: Op.LT,
    Operator.LTE: Op.LTE,
    Operator.LIKE: Op.LIKE,
    Operator.ILIKE: Op.ILIKE,
}
_ORDERED = frozenset(
    {"uuid", "text", "integer", "bigint", "numeric", "boolean", "timestamptz", "date"}
)
_SAME = (Op.EQ, Op.NE, Op.IN)


class Terms:
    """What a statement says of one collection.

    Raises:
        Refused: INVALID_COLUMN, INVALID_VALUE, UNSUPPORTED_SQL: all of its methods.
    """

    def __init__(self, collection: Collection, table: Table, call: Call) -> None:
        self._collection = collection
        self._table = table
        self._call = call

    def column(self, name: str) -> Column:
        """A column that is there."""
        return column_of(self._collection, name)

    def outputs(self, outputs: Sequence[Output]) -> tuple[tuple[Column, str], ...]:
        """Columns, and what each is called in a row."""
        found: list[tuple[Column, str]] = []
        for output in outputs:
            if output.column == "*":
                found += [(c, c.name) for c in self._collection.all_columns]
            else:
                found.append((self.column(output.column), output.name))
        return tuple(found)

    def wanted(self, query: Query[Any], where: Condition | None) -> Query[Any]:
        """A query of the rows that a condition is true of."""
        return query.where(self.condition(where))

    def paged(self, query: Query[Any], asked: Select, most: int) -> Query[Any]:
        """With an order, a limit and an offset. Args: most: rows, where no lower limit is given."""
        columns = self._table.c
        by: list[ColumnElement[Any]] = []
        for one in asked.order:
            column = self.column(one.column)
            if column.type not in _ORDERED:
                raise unsupported(f"{column.type}, which {column.name} is, has no order here")
            term = columns[one.column].desc() if one.descending else columns[one.column].asc()
            by.append(term.nulls_first() if one.nulls_first else term.nulls_last())
        limit = self._call.number(asked.limit, "LIMIT")
        offset = self._call.number(asked.offset, "OFFSET") or 0
        # without an order Postgres gives rows mostly as they were made; here always
        limited = query.order_by(*by, ROWID).limit(most if limit is None else min(most, limit))
        return limited.offset(offset)

    def condition(self, where: Condition | None) -> ColumnElement[bool]:
        """Three-valued, as SQL is."""
        call = self._call
        match where:
            case None:
                return true()
            case And(parts):
                return and_(*(self.condition(part) for part in parts))
            case Or(parts):
                return or_(*(self.condition(part) for part in parts))
            case Not(part):
                return not_(self.condition(part))
            case Truth(value):
                return true() if value else false()
            case IsNull(name):
                return leaf_sql(self._table, Leaf(self.column(name), Op.IS_NULL))
            case Flag(name):
                column = self.column(name)
                if column.type != "boolean":
                    raise unsupported(f"{name} is {column.type}, and a condition is needed")
                return leaf_sql(self._table, Leaf(column, Op.EQ, 1))
            case InSelect(name, inner):
                return self._inside(name, inner)
            case AnyOfArray(name, array):
                column = self._knowing(name, Op.IN)
                return leaf_sql(self._table, Leaf(column, Op.IN, call.array(column, array)))
            case InList(name, values):
                column = self._knowing(name, Op.IN)
                call.count(len(values))
                stored = tuple(call.stored(column, value) for value in values)
                return leaf_sql(self._table, Leaf(column, Op.IN, stored))
            case Comparison(name, operator, value):
                return self._compared(name, operator, value)

    def _compared(self, name: str, operator: Operator, value: Value) -> ColumnElement[bool]:
        op = _COMPARED[operator]
        column = self._knowing(name, op)
        given: Stored
        if op in (Op.LIKE, Op.ILIKE):
            given = self._call.pattern(value, operator)
        else:
            given = self._call.stored(column, value)
        if given is None:  # unknown, whatever the column holds
            return leaf_sql(self._table, Leaf(column, Op.IN, (None,)))
        return leaf_sql(self._table, Leaf(column, op, given))

    def _knowing(self, name: str, op: Op) -> Column:
        column = self.column(name)
        known = (
            column.type == "text"
            if op in (Op.LIKE, Op.ILIKE)
            else column.type != "vector" and (column.type in _ORDERED or op in _SAME)
        )
        if not known:
            raise unsupported(f"{op.upper()} is not for {column.type}, which {name} is")
        return column

    def _inside(self, name: str, inner: Select) -> ColumnElement[bool]:
        """Of the same table alone: another one's rows are asked for by themselves."""
        own = f"coll_{self._collection.name}"
        if inner.table != own:
            raise unsupported(f"an inner query is of {own} as well, or not taken")
        if inner.count_as or len(inner.outputs) != 1 or inner.outputs[0].column != name:
            raise unsupported(f"an inner query gives one column, {name}")
        column = self._knowing(name, Op.IN)
        query = self.wanted(select(self._table.c[column.name]), inner.where)
        query = self.paged(query, inner, limits.EDGE_DB_ROWS.value)
        return self._table.c[column.name].in_(query.correlate(None))

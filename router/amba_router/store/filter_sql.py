"""Filters, orders and cursors of collections as SQL: every value is a bound parameter.

What is unknown because a column is null stays unknown, as in Postgres: `ne`, `not_in` and NOT pass
over nulls. Nulls are last in ascending order, first in descending. Source: contract E.5.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Table,
    and_,
    bindparam,
    false,
    func,
    not_,
    null,
    or_,
    true,
    type_coerce,
)
from sqlalchemy.types import NullType

from amba_router.rows.columns import Column, Stored
from amba_router.rows.filters import All, AnyOf, Filter, Leaf, Not, Op
from amba_router.rows.query import Order

Condition = ColumnElement[bool]

_COMPARED: dict[Op, Callable[[Any, Any], Any]] = {
    Op.EQ: operator.eq,
    Op.NE: operator.ne,
    Op.GT: operator.gt,
    Op.GTE: operator.ge,
    Op.LT: operator.lt,
    Op.LTE: operator.le,
}


def condition(table: Table, node: Filter) -> Condition:
    """What a filter asks of the rows of a collection's table."""
    match node:
        case All(parts):
            return and_(true(), *(condition(table, part) for part in parts))
        case AnyOf(parts):
            return or_(false(), *(condition(table, part) for part in parts))
        case Not(part):
            return not_(condition(table, part))
        case Leaf():
            return _leaf(_of(table, node.column), node)


def ordering(table: Table, order: Sequence[Order]) -> list[ColumnElement[Any]]:
    """For ORDER BY; the id comes last, in the first column's direction, so that no two rows tie."""
    by: list[ColumnElement[Any]] = []
    for one in order:
        column = _of(table, one.column)
        if not one.column.nullable:
            by.append(column.desc() if one.descending else column.asc())
        elif one.descending:
            by.append(column.desc().nulls_first())
        else:
            by.append(column.asc().nulls_last())
    if not any(one.column.name == "id" for one in order):
        by.append(table.c.id.desc() if order[0].descending else table.c.id.asc())
    return by


def after(table: Table, order: Order, value: Stored, row_id: str) -> Condition:
    """The rows behind one in the order of `ordering`, whether or not it is still there."""
    column, id_ = _of(table, order.column), table.c.id
    further_id = id_ < _bound(row_id) if order.descending else id_ > _bound(row_id)
    if value is None:
        tied = and_(column.is_(None), further_id)
        return or_(tied, column.is_not(None)) if order.descending else tied
    further = column < _bound(value) if order.descending else column > _bound(value)
    behind = or_(further, and_(column == _bound(value), further_id))
    if order.column.nullable and not order.descending:
        return or_(behind, column.is_(None))
    return behind


def _leaf(column: ColumnElement[Any], leaf: Leaf) -> Condition:
    op, value = leaf.op, leaf.value
    if op is Op.IS_NULL:
        return column.is_(None)
    if op is Op.IS_NOT_NULL:
        return column.is_not(None)
    if isinstance(value, tuple):
        found = _among(column, leaf.column, value)
        return found if op is Op.IN else not_(found)
    if leaf.column.type == "jsonb" and op in (Op.EQ, Op.NE):
        found = _among(column, leaf.column, (value,))
        return found if op is Op.EQ else not_(found)
    if op in _COMPARED:
        compared: Condition = _COMPARED[op](column, _bound(value))
        return compared
    assert isinstance(value, str)
    match op:
        case Op.LIKE:
            return func.amba_like(column, _bound(value)) == _bound(1)
        case Op.ILIKE:
            return func.amba_ilike(column, _bound(value.lower())) == _bound(1)
        case Op.CONTAINS:
            return func.amba_contains(column, _bound(value)) == _bound(1)
        case Op.CONTAINED_BY:
            return func.amba_contained(column, _bound(value)) == _bound(1)
        case _:
            assert op is Op.OVERLAPS
            return func.amba_overlaps(column, _bound(value)) == _bound(1)


def _among(column: ColumnElement[Any], of: Column, values: tuple[Stored, ...]) -> Condition:
    """`= ANY`: unknown, not false, where only a null among the values could have matched."""
    if not values:
        return false()
    given = [value for value in values if value is not None]
    if of.type == "jsonb":
        text = f"[{','.join(str(value) for value in given)}]"
        found: Condition = func.amba_among(column, _bound(text)) == _bound(1)
    else:
        found = column.in_(given)
    # a null column is unknown already, but for an empty list
    return found if len(given) == len(values) else or_(found, type_coerce(null(), Boolean()))


def _of(table: Table, column: Column) -> ColumnElement[Any]:
    # without a type of its own: stored forms pass as they are
    return type_coerce(table.c[column.name], NullType())


def _bound(value: Stored) -> ColumnElement[Any]:
    return bindparam(None, value, type_=NullType(), unique=True)

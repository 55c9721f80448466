"""Generated filters and orders give the rows that plain Python gives (E.5; issue 5, line 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.router.services.collections import generated, naive
from tests.router.services.collections.shelf import Shelf

pytestmark = pytest.mark.slow

Rows = list[Mapping[str, Any]]


@settings(max_examples=400, deadline=None)
@given(generated.rows(), generated.where())
def test_where_finds_what_plain_python_does(rows: Rows, where: dict[str, Any]) -> None:
    """Filters of 0.1.x: every operator, mixed and nested."""
    with Shelf() as shelf:
        kept = [shelf.put(row) for row in rows]
        wanted = [row["id"] for row in kept if naive.where(row, where)]
        assert sorted(shelf.ids(where=where)) == wanted


@settings(max_examples=400, deadline=None)
@given(generated.rows(), generated.tree())
def test_filter_finds_what_plain_python_does(rows: Rows, tree: dict[str, Any]) -> None:
    """Filters of 4.x: every operator, nested, both spellings."""
    with Shelf() as shelf:
        kept = [shelf.put(row) for row in rows]
        wanted = [row["id"] for row in kept if naive.tree(row, tree)]
        assert sorted(shelf.ids(filter=tree)) == wanted


@settings(max_examples=200, deadline=None)
@given(generated.rows(), generated.order(), st.integers(0, 5), st.integers(1, 5))
def test_an_order_is_that_of_plain_python(
    rows: Rows, order: list[tuple[str, bool]], offset: int, limit: int
) -> None:
    """By several columns, nulls last ascending and first descending, cut by offset and limit."""
    with Shelf() as shelf:
        kept = naive.sort([shelf.put(row) for row in rows], order)
        spelled = [f"{name} {'DESC' if descending else 'asc'}" for name, descending in order]
        found, _, more = shelf.find({"order": spelled, "offset": offset, "limit": limit})
        assert found == kept[offset : offset + limit]
        assert more is (len(kept) > offset + limit)


@settings(max_examples=200, deadline=None)
@given(generated.rows(), generated.rows(), generated.where(), generated.order(), st.integers(1, 4))
def test_pages_have_each_row_once_whatever_is_added(
    rows: Rows,
    later: Rows,
    where: dict[str, Any],
    order: list[tuple[str, bool]],
    limit: int,
) -> None:
    """Following cursors while rows are added: all old ones, in order, none twice."""
    name, descending = order[0]
    asked: dict[str, Any] = {
        "where": where,
        "order": {"column": name, "direction": "desc" if descending else "ASC"},
    }
    with Shelf() as shelf:
        kept = [shelf.put(row) for row in rows]
        old = naive.sort([row for row in kept if naive.where(row, where)], order[:1])
        seen, cursor, more = shelf.find(asked | {"limit": limit})
        while more:
            assert cursor is not None
            if later:
                shelf.put(later.pop())
            found, cursor, more = shelf.find(asked | {"limit": limit, "cursor": cursor})
            seen += found
        ids = [row["id"] for row in seen]
        assert len(set(ids)) == len(ids)
        known = {row["id"] for row in old}
        assert [row for row in seen if row["id"] in known] == old

"""The bodies of collections, both ways. Imported when the first API request comes.

A row is an object of its columns, so most answers have plain ones. Source: contract E.5.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from amba_router.api.models import Count, Iso

Row = dict[str, Any]
"""Columns by name."""


# --- schema, asked ---


class ReferenceSpec(Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What a column refers to; `onDelete` in any case, with blanks or underscores."""

    table: str
    column: str = "id"
    on_delete: str = "NO ACTION"


class ColumnSpec(Struct, kw_only=True, forbid_unknown_fields=True):
    """A column; it takes no nulls unless it says so, as the platform's command line has it."""

    name: str
    type: str
    nullable: bool = False
    references: ReferenceSpec | None = None
    dimension: int | None = None


class IndexSpec(Struct, kw_only=True, forbid_unknown_fields=True):
    """An index over columns, each `"name"`, `"name asc"` or `"name desc"`."""

    columns: list[str]
    name: str | None = None
    unique: bool = False


class CreateCollection(Struct, kw_only=True, forbid_unknown_fields=True):
    name: str
    columns: list[ColumnSpec]
    indexes: list[IndexSpec] = []
    read_policy: str = "owner"
    search: str | None = None


class AlterCollection(Struct, kw_only=True, forbid_unknown_fields=True):
    """Exactly one of the three."""

    add_column: ColumnSpec | UnsetType = UNSET
    add_index: IndexSpec | UnsetType = UNSET
    drop_column: str | UnsetType = UNSET


# --- schema, answered ---


class Applied(Struct, kw_only=True):
    name: str
    version: int
    workflow_id: str
    run_id: str
    status: str


class AppliedAnswer(Struct):
    data: Applied


class CollectionSummary(Struct, kw_only=True):
    name: str
    created_at: Iso


class CollectionList(Struct):
    data: list[CollectionSummary]
    total: Count
    offset: Count
    limit: Count


class DescribedReference(Struct, kw_only=True, rename="camel"):
    table: str
    column: str
    on_delete: str


class DescribedColumn(Struct, kw_only=True, omit_defaults=True):
    """In both spellings: that of the platform's API and that of its code generator."""

    name: str
    type: str
    nullable: bool
    managed: bool
    column_name: str
    data_type: str
    is_nullable: str
    column_default: str | None
    dimension: int | UnsetType = UNSET
    references: DescribedReference | UnsetType = UNSET


class DescribedIndex(Struct, kw_only=True):
    name: str
    columns: list[str]
    unique: bool


class Migration(Struct, kw_only=True):
    version: int
    applied_at: Iso


class DescribedCollection(Struct, kw_only=True):
    name: str
    version: int
    columns: list[DescribedColumn]
    indexes: list[DescribedIndex]
    read_policy: str
    search: str | None
    created_at: Iso
    latest_migration: Migration | None


class DescribedAnswer(Struct):
    data: DescribedCollection


class DroppedCollection(Struct, kw_only=True):
    name: str
    deleted: bool
    version: int


class DroppedAnswer(Struct):
    data: DroppedCollection


# --- rows, asked ---


class Batch(Struct, kw_only=True, forbid_unknown_fields=True):
    rows: list[Any]


class BulkUpdate(Struct, kw_only=True, forbid_unknown_fields=True):
    """`where` or `filter` must be there; an empty one means every row."""

    set: dict[str, Any]
    where: Any = None
    filter: Any = None
    limit: int | None = None


class BulkDelete(Struct, kw_only=True, forbid_unknown_fields=True):
    where: Any = None
    filter: Any = None
    limit: int | None = None


Options = Annotated[
    dict[str, Any],
    Meta(description="filter or where, order, limit, offset, cursor, select, include_deleted"),
]
"""Of a find, as a body; read by `query`."""


# --- rows, answered ---


class RowAnswer(Struct):
    data: Row


class RowsAnswer(Struct):
    """A page. `next_cursor` is null at its end, and where an order has several columns."""

    data: list[Row]
    next_cursor: str | None
    has_more: bool


class CountedRows(Struct):
    data: list[Row]
    total: Count
    next_cursor: str | None


class BatchAnswer(Struct):
    data: list[Row]
    count: Count


class CountData(Struct):
    count: Count


class CountAnswer(Struct):
    data: CountData


class DeletedRow(Struct):
    id: str
    deleted: bool


class DeletedRowAnswer(Struct):
    data: DeletedRow

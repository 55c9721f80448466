"""Which collections a project has: their schemas as rows, and with each its table.

Source: contract E.5 (schema).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, Row
from sqlalchemy.exc import IntegrityError

from amba_router.rows.columns import Collection, Column, Index, Reference
from amba_router.store import collection_ddl
from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import collections


class NotUnique(Exception):
    """A unique index that rows which are there would break."""


class NoTarget(Exception):
    """A column that cannot be referred to: rows that were deleted softly have equal values there.

    Attributes:
        reference: to it.
    """

    def __init__(self, reference: Reference) -> None:
        super().__init__(reference)
        self.reference = reference


def find(scoped: Scoped, name: str) -> Collection | None:
    """The collection of this name in this project."""
    row = scoped.row(scoped.query(collections).where(collections.c.name == name))
    return None if row is None else _collection(row)


def page(scoped: Scoped, *, offset: int, limit: int) -> tuple[list[Collection], int]:
    """Some of them by name, and how many there are."""
    query = scoped.query(collections).order_by(collections.c.name).offset(offset).limit(limit)
    return [_collection(row) for row in scoped.rows(query)], scoped.count(collections)


def count(scoped: Scoped) -> int:
    """How many there are."""
    return scoped.count(collections)


def all_of(scoped: Scoped) -> list[Collection]:
    """All of them, in the order of their making."""
    return [
        _collection(row)
        for row in scoped.rows(scoped.query(collections).order_by(collections.c.seq))
    ]


def create(scoped: Scoped, declared: Collection) -> Collection:
    """A new one with its table. Raises `NoTarget`. Args: declared: its `id` is not known yet."""
    scoped.add(collections, {"name": declared.name, **_values(declared)})
    made = find(scoped, declared.name)
    assert made is not None
    targets = _targets(scoped, made.columns)
    collection_ddl.create(scoped.connection, made, targets)
    for column in made.columns:
        _refer(scoped, column, targets)
    return made


def add_column(scoped: Scoped, collection: Collection, column: Column, now_ms: int) -> Collection:
    """One more column. Raises `NoTarget`."""
    changed = _next(collection, now_ms, columns=(*collection.columns, column))
    targets = _targets(scoped, (column,))
    collection_ddl.add_column(scoped.connection, collection, column, targets)
    _refer(scoped, column, targets)
    return _save(scoped, changed)


def add_index(scoped: Scoped, collection: Collection, index: Index, now_ms: int) -> Collection:
    """One more index. Raises `NotUnique`."""
    changed = _next(collection, now_ms, indexes=(*collection.indexes, index))
    try:
        collection_ddl.add_index(scoped.connection, changed, index)
    except IntegrityError as error:
        raise NotUnique from error
    return _save(scoped, changed)


def drop_column(scoped: Scoped, collection: Collection, column: Column, now_ms: int) -> Collection:
    """Without a column, and without the indexes that have it."""
    gone = [index for index in collection.indexes if column.name in dict(index.columns)]
    collection_ddl.drop_column(scoped.connection, collection, column, gone)
    changed = _next(
        collection,
        now_ms,
        columns=tuple(one for one in collection.columns if one != column),
        indexes=tuple(index for index in collection.indexes if index not in gone),
    )
    _save(scoped, changed)
    _release(scoped, (column,))
    return changed


def empty_some(scoped: Scoped, collection: Collection, count: int) -> None:
    """Some steps on the way to a `drop`: see `collection_ddl`."""
    collection_ddl.empty_some(scoped.connection, collection, count)


def drop(scoped: Scoped, collection: Collection) -> None:
    """Without the collection, its rows and its table; no other one may refer to it."""
    collection_ddl.drop_tables(scoped.connection, (collection.id,))
    scoped.drop(collections, collections.c.seq == collection.id)
    _release(scoped, collection.columns)


def drop_all(connection: Connection, project_id: str) -> None:
    """Without all collections of a project that is being deleted."""
    scoped = Scoped(connection, project_id)
    collection_ddl.drop_tables(connection, [one.id for one in all_of(scoped)])
    scoped.drop(collections)


def _next(collection: Collection, now_ms: int, **changes: Any) -> Collection:
    return replace(collection, version=collection.version + 1, migrated_ms=now_ms, **changes)


def _save(scoped: Scoped, collection: Collection) -> Collection:
    values = _values(collection)
    scoped.change(collections, collections.c.seq == collection.id, **values)
    return collection


def _refer(scoped: Scoped, column: Column, targets: Mapping[str, int]) -> None:
    """Let the rows of a new column refer to what it says."""
    reference = column.references
    if reference is None or reference.column == "id" or reference.table not in targets:
        return
    try:
        collection_ddl.add_target(scoped.connection, targets[reference.table], reference.column)
    except IntegrityError as error:
        raise NoTarget(reference) from error


def _release(scoped: Scoped, gone: Iterable[Column]) -> None:
    """What columns referred to that are gone need not count deleted rows any more."""
    left = {(one.references.table, one.references.column) for one in gone if one.references}
    if not left:
        return
    there = all_of(scoped)
    for other in there:
        left -= {(c.references.table, c.references.column) for c in other.columns if c.references}
    for collection in there:
        for table, column in left:
            if table == collection.name:
                collection_ddl.drop_target(scoped.connection, collection.id, column)


def _targets(scoped: Scoped, columns: Iterable[Column]) -> dict[str, int]:
    names = {column.references.table for column in columns if column.references is not None}
    query = scoped.query(collections, collections.c.name, collections.c.seq)
    found = scoped.rows(query.where(collections.c.name.in_(sorted(names))))
    return {row.name: row.seq for row in found}


def _values(collection: Collection) -> dict[str, Any]:
    options = {"read_policy": collection.read_policy, "search": collection.search}
    return {
        "version": collection.version,
        "columns": json.dumps([asdict(column) for column in collection.columns]),
        "indexes": json.dumps([asdict(index) for index in collection.indexes]),
        "options": json.dumps(options),
        "created_ms": collection.created_ms,
        "migrated_ms": collection.migrated_ms,
    }


def _collection(row: Row[Any]) -> Collection:
    options = json.loads(row.options)
    return Collection(
        id=row.seq,
        name=row.name,
        version=row.version,
        columns=tuple(_column(column) for column in json.loads(row.columns)),
        indexes=tuple(
            Index(
                index["name"],
                tuple((name, descending) for name, descending in index["columns"]),
                index["unique"],
            )
            for index in json.loads(row.indexes)
        ),
        read_policy=options["read_policy"],
        search=options["search"],
        created_ms=row.created_ms,
        migrated_ms=row.migrated_ms,
    )


def _column(kept: dict[str, Any]) -> Column:
    reference = kept.pop("references")
    return Column(**kept, references=None if reference is None else Reference(**reference))

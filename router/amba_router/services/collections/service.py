"""Schemas of collections: made, altered, listed, described, dropped. Source: contract E.5."""

from __future__ import annotations

from msgspec import UNSET

from amba_router.api import faults
from amba_router.rows.columns import Collection, Column
from amba_router.services.collections import schema
from amba_router.services.collections.models import (
    AlterCollection,
    ColumnSpec,
    CreateCollection,
    IndexSpec,
)
from amba_router.services.collections.schema import check_reference, column_of, index_of
from amba_router.store import collection_rows
from amba_router.store.collection_rows import NoTarget, NotUnique
from amba_router.store.collection_tables import CollectionTables, Rows
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_runtime import limits
from amba_runtime.clock import Clock, time_ms


class Collections:
    """The collections of all projects. Each method is one transaction."""

    def __init__(self, store: ProjectStore, tables: CollectionTables, clock: Clock) -> None:
        self._store = store
        self._tables = tables
        self._clock = clock

    async def create(self, project_id: str, body: CreateCollection) -> Collection:
        """A new collection.

        Raises:
            Refused: INVALID_NAME, RESERVED_NAME, INVALID_SCHEMA, COLLECTION_EXISTS; CONFLICT when
                the project has as many as it may.
        """
        wanted = schema.declared(body, time_ms(self._clock))

        def work(scoped: Scoped) -> Collection:
            if collection_rows.find(scoped, wanted.name) is not None:
                raise faults.COLLECTION_EXISTS.refuse(
                    f"there is a collection {wanted.name} already; alter it, or drop it first",
                    {"field": "$.name"},
                )
            had = collection_rows.count(scoped)
            if had >= limits.COLLECTIONS.value:
                raise faults.CONFLICT.refuse(f"the project has {had} collections; drop one first")
            for at, column in enumerate(wanted.columns):
                _check_reference(scoped, wanted, column, f"$.columns[{at}]")
            try:
                return collection_rows.create(scoped, wanted)
            except NoTarget as error:
                raise _no_target(error) from None

        return await self._store.write(project_id, work)

    async def page(self, project_id: str, offset: int, limit: int) -> tuple[list[Collection], int]:
        """Some by name, and how many there are."""
        return await self._store.read(
            project_id, lambda scoped: collection_rows.page(scoped, offset=offset, limit=limit)
        )

    async def describe(self, project_id: str, name: str) -> Collection:
        """Raises `Refused` COLLECTION_NOT_FOUND."""
        return await self._store.read(project_id, lambda scoped: found(scoped, name))

    async def alter(
        self, project_id: str, name: str, body: AlterCollection, confirm: str | None
    ) -> Collection:
        """One change. Args: confirm: repeats the name of a column that is dropped.

        Raises:
            Refused: COLLECTION_NOT_FOUND, INVALID_SCHEMA, CONFIRM_REQUIRED; CONFLICT where rows or
                other collections stand against it.
        """
        changes = (body.add_column, body.add_index, body.drop_column)
        if sum(change is not UNSET for change in changes) != 1:
            raise schema.refuse("$", "send exactly one of add_column, add_index, drop_column")

        def work(scoped: Scoped) -> Collection:
            collection = found(scoped, name)
            if body.add_column is not UNSET:
                return self._add_column(scoped, collection, body.add_column)
            if body.add_index is not UNSET:
                return self._add_index(scoped, collection, body.add_index)
            assert body.drop_column is not UNSET
            return self._drop_column(scoped, collection, body.drop_column, confirm)

        return await self._store.write(project_id, work)

    async def drop(self, project_id: str, name: str) -> Collection:
        """Without a collection and its rows; what it was.

        A large one is emptied first, some rows at a time, as others wait for their writes: where
        that is cut off, some rows are left.

        Raises:
            Refused: COLLECTION_NOT_FOUND; CONFLICT where another collection refers to it, or more
                rows come than go.
        """
        most, some = limits.COLLECTION_DROP_ROWS.value, limits.COLLECTION_DROP_BATCH.value

        def work(scoped: Scoped) -> Collection | None:
            collection = found(scoped, name)
            for other in collection_rows.all_of(scoped):
                if other.id != collection.id:
                    _check_unreferenced(other, collection, None)
            if Rows(scoped, collection, self._tables).exceed(most):
                collection_rows.empty_some(scoped, collection, some)
                return None
            collection_rows.drop(scoped, collection)
            return collection

        for _ in range(limits.COLLECTION_DROP_TURNS.value):
            gone = await self._store.write(project_id, work)
            if gone is not None:
                return gone
        raise faults.CONFLICT.refuse(
            f"{name[:64]} gets more rows than can be deleted; end what inserts them, drop it again"
        )

    def _add_column(self, scoped: Scoped, collection: Collection, spec: ColumnSpec) -> Collection:
        column = column_of(spec, collection.columns, "$.add_column")
        if len(collection.columns) >= limits.COLLECTION_COLUMNS.value:
            raise faults.CONFLICT.refuse(
                f"{collection.name} has {len(collection.columns)} columns; drop one first"
            )
        _check_reference(scoped, collection, column, "$.add_column")
        rows = Rows(scoped, collection, self._tables)
        if not column.nullable and rows.exceed(0):
            raise faults.CONFLICT.refuse(
                f"{collection.name} has rows, which would be null in {column.name}; send "
                "nullable: true",
                {"field": "$.add_column.nullable"},
            )
        try:
            return collection_rows.add_column(scoped, collection, column, time_ms(self._clock))
        except NoTarget as error:
            raise _no_target(error) from None

    def _add_index(self, scoped: Scoped, collection: Collection, spec: IndexSpec) -> Collection:
        index = index_of(spec, collection, collection.indexes, "$.add_index")
        self._check_small(scoped, collection, "$.add_index")
        try:
            return collection_rows.add_index(scoped, collection, index, time_ms(self._clock))
        except NotUnique:
            names = ", ".join(name for name, _ in index.columns)
            raise faults.CONFLICT.refuse(
                f"{collection.name} has rows with equal {names}; an index over them cannot be "
                "unique",
                {"field": "$.add_index.unique"},
            ) from None

    def _check_small(self, scoped: Scoped, collection: Collection, place: str) -> None:
        """Raises `Refused` CONFLICT: all rows are read or written anew, and every write waits."""
        most = limits.COLLECTION_ALTER_ROWS.value
        if Rows(scoped, collection, self._tables).exceed(most):
            raise faults.CONFLICT.refuse(
                f"{collection.name} has more than {most} rows, deleted ones too: make another "
                "collection as you want it, and insert the rows there",
                {"field": place, "rows_max": most},
            )

    def _drop_column(
        self, scoped: Scoped, collection: Collection, name: str, confirm: str | None
    ) -> Collection:
        column = next((column for column in collection.columns if column.name == name), None)
        if column is None:
            raise schema.refuse("$.drop_column", f"there is no column {name[:64]} to drop")
        if confirm != name:
            raise faults.CONFIRM_REQUIRED.refuse(
                f"add ?confirm={name} to say that you mean it: its values are lost"
            )
        for other in collection_rows.all_of(scoped):
            _check_unreferenced(other, collection, name)
        self._check_small(scoped, collection, "$.drop_column")
        return collection_rows.drop_column(scoped, collection, column, time_ms(self._clock))


def found(scoped: Scoped, name: str) -> Collection:
    """The collection of this name in this project. Raises `Refused` COLLECTION_NOT_FOUND."""
    collection = collection_rows.find(scoped, name)
    if collection is None:
        raise faults.COLLECTION_NOT_FOUND.refuse(
            f"this project has no collection {name[:64]!r}",
            {"resource": "collection", "id": name[:64]},
        )
    return collection


def _check_reference(scoped: Scoped, collection: Collection, column: Column, place: str) -> None:
    if column.references is None:
        return
    table = column.references.table
    same = table == collection.name
    check_reference(column, collection if same else collection_rows.find(scoped, table), place)


def _no_target(error: NoTarget) -> faults.Refused:
    table, column = error.reference.table, error.reference.column
    return faults.CONFLICT.refuse(
        f"deleted rows of {table} have equal {column}, and a column that is referred to counts "
        "them; delete them for good with ?hard=true",
        {"resource": "row"},
    )


def _check_unreferenced(other: Collection, collection: Collection, name: str | None) -> None:
    """Raises `Refused` CONFLICT where a column refers to a collection, or to one column of it."""
    for column in other.columns:
        reference = column.references
        if reference is None or reference.table != collection.name:
            continue
        if name is None or (reference.column == name and column.name != name):
            raise faults.CONFLICT.refuse(
                f"{other.name}.{column.name} refers to it; drop that column first"
            )

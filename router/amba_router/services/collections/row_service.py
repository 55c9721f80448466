"""Rows: found, inserted, changed, deleted, in one scope. Source: contract E.5, H-9, H-15."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amba_router.api import faults
from amba_router.api.faults import Refused
from amba_router.rows.columns import Collection
from amba_router.rows.filters import Filter, filter_of
from amba_router.rows.query import parse_count, parse_query, refuse, whole
from amba_router.services.collections.building import (
    Scope,
    change_of,
    changed,
    new_row,
    wire_rows,
)
from amba_router.services.collections.service import found
from amba_router.store.collection_rows import find as find_collection
from amba_router.store.collection_tables import (
    CollectionTables,
    PageTooLarge,
    RowRefused,
    Rows,
)
from amba_router.store.filter_sql import condition
from amba_router.store.project_store import ProjectStore
from amba_router.store.row_pages import find_rows
from amba_router.store.scoped import Scoped
from amba_runtime import limits
from amba_runtime.clock import Clock

WireRow = dict[str, Any]

_TIES_US = 1_000_000
"""So far behind the last row a clock stands still; further, and it was set back."""


@dataclass(frozen=True, slots=True)
class FoundRows:
    """A page. Attributes: total: of all pages, where it was asked for; else 0."""

    rows: list[WireRow]
    next_cursor: str | None
    has_more: bool
    total: int = 0


class RowService:
    """The rows of all collections. Each method is one transaction; all of it is done, or nothing.

    Every method raises `Refused` COLLECTION_NOT_FOUND; what else, its own words say.
    """

    def __init__(self, store: ProjectStore, tables: CollectionTables, clock: Clock) -> None:
        self._store = store
        self._tables = tables
        self._clock = clock
        # the last time that a row was made at; changed by the one thread that writes
        self._last_us = 0

    async def find(
        self,
        project_id: str,
        name: str,
        scope: Scope,
        options: Mapping[str, object],
        *,
        total: bool = False,
    ) -> FoundRows:
        """The page that is asked for. Raises INVALID_FILTER, INVALID_QUERY, INVALID_CURSOR."""

        def work(scoped: Scoped) -> FoundRows:
            collection, rows = self._rows(scoped, name)
            query = parse_query(collection, options, scope=scope.user_id or "")
            reach = scope.reading(collection, deleted=query.include_deleted)
            page = find_rows(scoped.connection, rows.table, query, rows.visible(reach))
            all_ = rows.count(reach, condition(rows.table, query.filter)) if total else 0
            made = wire_rows(collection, page.rows, query.select)
            return FoundRows(made, page.next_cursor, page.has_more, all_)

        return await self._store.read(project_id, work)

    async def count(
        self, project_id: str, name: str, scope: Scope, options: Mapping[str, object]
    ) -> int:
        """How many rows there are. Raises INVALID_FILTER, INVALID_QUERY."""

        def work(scoped: Scoped) -> int:
            collection, rows = self._rows(scoped, name)
            wanted, deleted = parse_count(collection, options)
            reach = scope.reading(collection, deleted=deleted)
            return rows.count(reach, condition(rows.table, wanted))

        return await self._store.read(project_id, work)

    async def get(
        self, project_id: str, name: str, scope: Scope, id_: str, *, deleted: bool = False
    ) -> WireRow:
        """One row. Raises ROW_NOT_FOUND, for another one's row as well."""

        def work(scoped: Scoped) -> WireRow:
            collection, rows = self._rows(scoped, name)
            row = rows.one(scope.reading(collection, deleted=deleted), id_.lower())
            if row is None:
                raise _no_row(collection, id_)
            return wire_rows(collection, (row,))[0]

        return await self._store.read(project_id, work)

    async def insert(self, project_id: str, name: str, scope: Scope, given: object) -> WireRow:
        """One new row.

        Raises:
            Refused: as `building.new_row`; ROW_CONFLICT.
        """

        def work(scoped: Scoped) -> WireRow:
            collection, rows = self._rows(scoped, name)
            row = new_row(collection, given, scope, self._now_us())
            try:
                rows.add([row])
            except RowRefused as refusal:
                raise self._conflict(scoped, collection, row, refusal, "$") from None
            return wire_rows(collection, (row,))[0]

        return await self._store.write(project_id, work)

    async def insert_all(
        self, project_id: str, name: str, scope: Scope, given: Sequence[object], place: str
    ) -> list[WireRow]:
        """New rows, all or none, in their order.

        Raises:
            Refused: as `insert`, with the row's number in `details.row`; BATCH_TOO_LARGE.
        """
        most = limits.COLLECTION_BATCH.value
        if len(given) > most:
            raise faults.BATCH_TOO_LARGE.refuse(
                f"{place}: a batch takes {most} rows, not {len(given)}; nothing was written: send "
                "several",
                {"field": place, "rows": len(given), "most": most},
            )

        def work(scoped: Scoped) -> list[WireRow]:
            collection, rows = self._rows(scoped, name)
            now_us = self._now_us(max(1, len(given)))
            made: list[dict[str, Any]] = []
            for at, row in enumerate(given):
                try:
                    # a microsecond apart: lists by creation keep the order of the batch
                    made.append(new_row(collection, row, scope, now_us + at, f"{place}[{at}]"))
                except Refused as refused:
                    raise _numbered(refused, at) from None
            try:
                rows.add(made)
            except RowRefused as refusal:
                at = refusal.at or 0
                conflict = self._conflict(scoped, collection, made[at], refusal, f"{place}[{at}]")
                raise _numbered(conflict, at) from None
            return wire_rows(collection, made)

        return await self._store.write(project_id, work)

    async def update(
        self, project_id: str, name: str, scope: Scope, id_: str, given: object, place: str = "$"
    ) -> WireRow:
        """One row with other values. Args: place: where they were sent.

        Raises:
            Refused: ROW_NOT_FOUND; as `building.change_of`; ROW_CONFLICT.
        """

        def work(scoped: Scoped) -> WireRow:
            collection, rows = self._rows(scoped, name)
            change = change_of(collection, given, scope, self._now_us(), place)
            row = rows.one(scope.writing(), id_.lower())
            if row is None:
                raise _no_row(collection, id_)
            made = changed(change, row)
            try:
                rows.change((row["id"],), made)
            except RowRefused as refusal:
                raise self._conflict(scoped, collection, made, refusal, place) from None
            return wire_rows(collection, ({**row, **made},))[0]

        return await self._store.write(project_id, work)

    async def update_all(
        self, project_id: str, name: str, scope: Scope, given: object, options: Mapping[str, Any]
    ) -> list[WireRow]:
        """Other values for the rows that a filter finds, the oldest first.

        Args:
            options: `where` or `filter`, and `limit`.

        Raises:
            Refused: INVALID_FILTER, INVALID_QUERY; as `update`; PAYLOAD_TOO_LARGE when the rows
                are more than an answer may have.
        """

        def work(scoped: Scoped) -> list[WireRow]:
            collection, rows = self._rows(scoped, name)
            wanted, limit = _bulk(collection, options)
            change = change_of(collection, given, scope, self._now_us(), "$.set")
            ids = rows.ids(scope.writing(), condition(rows.table, wanted), limit=limit)
            try:
                had = rows.among(ids)
                made = [changed(change, row) for row in had]
                if change.patches:
                    rows.change_each([(r["id"], m) for r, m in zip(had, made, strict=True)])
                else:
                    rows.change(ids, change.values)
            except RowRefused as refusal:
                raise self._conflict(scoped, collection, change.values, refusal, "$.set") from None
            except PageTooLarge:
                raise faults.PAYLOAD_TOO_LARGE.refuse(
                    "the rows are more than one answer holds; send a smaller limit",
                    {"field": "$.limit"},
                ) from None
            after = ({**row, **values} for row, values in zip(had, made, strict=True))
            return wire_rows(collection, after)

        return await self._store.write(project_id, work)

    async def delete(
        self, project_id: str, name: str, scope: Scope, id_: str, *, hard: bool = False
    ) -> str:
        """Without a row: marked, or for good; its id.

        Raises:
            Refused: ROW_NOT_FOUND; ROW_CONFLICT where another row refers to one that goes for good.
        """

        def work(scoped: Scoped) -> str:
            collection, rows = self._rows(scoped, name)
            row = rows.one(scope.writing(deleted=hard), id_.lower())
            if row is None:
                raise _no_row(collection, id_)
            found_id: str = row["id"]
            self._gone(collection, rows, [found_id], hard=hard)
            return found_id

        return await self._store.write(project_id, work)

    async def delete_all(
        self,
        project_id: str,
        name: str,
        scope: Scope,
        options: Mapping[str, Any],
        *,
        hard: bool = False,
    ) -> int:
        """Without the rows that a filter finds, the oldest first; how many.

        Raises:
            Refused: INVALID_FILTER, INVALID_QUERY; as `delete`.
        """

        def work(scoped: Scoped) -> int:
            collection, rows = self._rows(scoped, name)
            wanted, limit = _bulk(collection, options)
            reach = scope.writing(deleted=hard)
            ids = rows.ids(reach, condition(rows.table, wanted), limit=limit)
            self._gone(collection, rows, ids, hard=hard)
            return len(ids)

        return await self._store.write(project_id, work)

    def _rows(self, scoped: Scoped, name: str) -> tuple[Collection, Rows]:
        collection = found(scoped, name)
        return collection, Rows(scoped, collection, self._tables)

    def _gone(self, collection: Collection, rows: Rows, ids: list[str], *, hard: bool) -> None:
        if not hard:
            now_us = self._now_us()
            rows.change(ids, {"deleted_at": now_us, "updated_at": now_us})
            return
        try:
            rows.drop(ids)
        except RowRefused:
            raise faults.ROW_CONFLICT.refuse(
                f"rows of another collection refer to what would go from {collection.name}; "
                "delete them first",
                {"resource": "row"},
            ) from None

    def _now_us(self, count: int = 1) -> int:
        """The first of so many microseconds that no other write has: rows keep their order."""
        now_us = int(self._clock.time_s() * 1_000_000)
        if now_us <= self._last_us < now_us + _TIES_US:
            now_us = self._last_us + 1
        self._last_us = now_us + count - 1
        return now_us

    def _conflict(
        self,
        scoped: Scoped,
        collection: Collection,
        row: Mapping[str, Any],
        refusal: RowRefused,
        place: str,
    ) -> Refused:
        """What stands against a row, in words."""
        if refusal.columns:
            names = ", ".join(refusal.columns)
            return faults.ROW_CONFLICT.refuse(
                f"{place}: another row of {collection.name} has this {names}, which is unique",
                {"field": place, "columns": list(refusal.columns)},
            )
        for column in collection.columns:
            reference = column.references
            value = row.get(column.name)
            if reference is None or value is None:
                continue
            target = find_collection(scoped, reference.table)
            if target and not Rows(scoped, target, self._tables).has(reference.column, value):
                return faults.ROW_CONFLICT.refuse(
                    f"{place}.{column.name}: {reference.table} has no row of this "
                    f"{reference.column}",
                    {"field": f"{place}.{column.name}", "column": column.name},
                )
        return faults.ROW_CONFLICT.refuse(
            f"{place}: rows refer to what would change in {collection.name}", {"field": place}
        )


def _bulk(collection: Collection, options: Mapping[str, Any]) -> tuple[Filter, int]:
    """Which rows a bulk call means, and how many at most."""
    if options.get("where") is None and options.get("filter") is None:
        raise faults.INVALID_FILTER.refuse(
            "$.where: say which rows are meant; {} is all of them", {"field": "$.where"}
        )
    limit = whole(options, "limit", limits.COLLECTION_BULK_USUAL.value, least=1, place="$")
    most = limits.COLLECTION_BULK.value
    if limit > most:
        raise refuse("$.limit", f"{most} is the most; call several times")
    return filter_of(collection, options), limit


def _numbered(refused: Refused, at: int) -> Refused:
    """With the row's number in a batch; of this very refusal, which nobody else has."""
    refused.problem.details["row"] = at
    return refused


def _no_row(collection: Collection, id_: str) -> Refused:
    return faults.ROW_NOT_FOUND.refuse(
        f"{collection.name} has no row {id_[:64]!r} that this caller may touch",
        {"resource": "row", "id": id_[:64]},
    )

"""Schemas of collections over the wire, and all operations of the service. Source: contract E.5."""

from __future__ import annotations

from amba_router.api import faults
from amba_router.api.asked import LIMIT, OFFSET, confirmed, iso_ms, page, project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Query, Reads
from amba_router.rows.columns import MANAGED_NAMES, Collection, Column
from amba_router.services.collections import row_routes
from amba_router.services.collections.models import (
    AlterCollection,
    Applied,
    AppliedAnswer,
    CollectionList,
    CollectionSummary,
    CreateCollection,
    DescribedAnswer,
    DescribedCollection,
    DescribedColumn,
    DescribedIndex,
    DescribedReference,
    DroppedAnswer,
    DroppedCollection,
    Migration,
)
from amba_router.services.collections.row_service import RowService
from amba_router.services.collections.service import Collections
from amba_runtime import entropy

_BASE = "/admin/projects/{project_id}/collections"
_CONFIRM = Query("confirm", {"type": "string"}, "repeats the name of what is dropped")

_DATA_TYPES = {
    "timestamptz": "timestamp with time zone",
    "vector": "USER-DEFINED",
    "text[]": "ARRAY",
    "integer[]": "ARRAY",
}
"""As Postgres' information schema spells types, where it does not spell them as we do."""

_DEFAULTS = {"id": "gen_random_uuid()", "created_at": "now()", "updated_at": "now()"}


def operations(collections: Collections, rows: RowService) -> tuple[Operation, ...]:
    """The service's part of the table."""
    schemas = _Schemas(collections)
    return (
        Operation(
            "createCollection",
            "POST",
            _BASE,
            Auth.PROJECT,
            "Make a collection: a table of typed columns, besides those the server manages.",
            schemas.create,
            {201: AppliedAnswer},
            (
                *(faults.INVALID_NAME, faults.RESERVED_NAME, faults.INVALID_SCHEMA),
                *(faults.COLLECTION_EXISTS, *faults.WRITES),
            ),
            reads=Reads.JSON,
            request=CreateCollection,
        ),
        Operation(
            "listCollections",
            "GET",
            _BASE,
            Auth.PROJECT,
            "The project's collections by name.",
            schemas.list,
            {200: CollectionList},
            (faults.INVALID_LIMIT,),
            query=(OFFSET, LIMIT),
        ),
        Operation(
            "describeCollection",
            "GET",
            f"{_BASE}/{{name}}",
            Auth.PROJECT,
            "Columns, in both spellings; indexes; the latest change.",
            schemas.describe,
            {200: DescribedAnswer},
            (faults.COLLECTION_NOT_FOUND,),
        ),
        Operation(
            "alterCollection",
            "PATCH",
            f"{_BASE}/{{name}}",
            Auth.PROJECT,
            "One change: add a column, add an index, or drop a column.",
            schemas.alter,
            {200: AppliedAnswer},
            (
                *(faults.COLLECTION_NOT_FOUND, faults.INVALID_SCHEMA, faults.CONFIRM_REQUIRED),
                *faults.WRITES,
            ),
            reads=Reads.JSON,
            request=AlterCollection,
            query=(_CONFIRM,),
        ),
        Operation(
            "dropCollection",
            "DELETE",
            f"{_BASE}/{{name}}",
            Auth.PROJECT,
            "Without a collection and all its rows, for good.",
            schemas.drop,
            {200: DroppedAnswer},
            (faults.COLLECTION_NOT_FOUND, faults.CONFIRM_REQUIRED, *faults.WRITES),
            query=(_CONFIRM,),
        ),
        *row_routes.operations(rows),
    )


class _Schemas:
    def __init__(self, collections: Collections) -> None:
        self._collections = collections

    async def create(self, asked: Asked) -> Answer:
        made = await self._collections.create(project_of(asked).id, asked.body)
        return Answer(201, _applied(made))

    async def list(self, asked: Asked) -> Answer:
        offset, limit = page(asked)
        some, total = await self._collections.page(project_of(asked).id, offset, limit)
        summaries = [
            CollectionSummary(name=one.name, created_at=iso_ms(one.created_ms)) for one in some
        ]
        return Answer(200, CollectionList(summaries, total, offset, limit))

    async def describe(self, asked: Asked) -> Answer:
        found = await self._collections.describe(project_of(asked).id, asked.path["name"])
        return Answer(200, DescribedAnswer(_described(found)))

    async def alter(self, asked: Asked) -> Answer:
        changed = await self._collections.alter(
            project_of(asked).id, asked.path["name"], asked.body, asked.query.get("confirm")
        )
        return Answer(200, _applied(changed))

    async def drop(self, asked: Asked) -> Answer:
        name = asked.path["name"]
        await self._collections.describe(project_of(asked).id, name)
        confirmed(asked, name)
        gone = await self._collections.drop(project_of(asked).id, name)
        dropped = DroppedCollection(name=gone.name, deleted=True, version=gone.version + 1)
        return Answer(200, DroppedAnswer(dropped))


def _applied(collection: Collection) -> AppliedAnswer:
    """Changes are applied when they are answered: the workflow has run, in one transaction."""
    return AppliedAnswer(
        Applied(
            name=collection.name,
            version=collection.version,
            workflow_id=f"collection-{collection.name}-{collection.version}",
            run_id=entropy.uuid4(),
            status="applied",
        )
    )


def _described(collection: Collection) -> DescribedCollection:
    return DescribedCollection(
        name=collection.name,
        version=collection.version,
        columns=[_column(column) for column in collection.all_columns],
        indexes=[
            DescribedIndex(
                name=index.name,
                columns=[f"{name} desc" if down else name for name, down in index.columns],
                unique=index.unique,
            )
            for index in collection.indexes
        ],
        read_policy=collection.read_policy,
        search=collection.search,
        created_at=iso_ms(collection.created_ms),
        latest_migration=Migration(
            version=collection.version, applied_at=iso_ms(collection.migrated_ms)
        ),
    )


def _column(column: Column) -> DescribedColumn:
    described = DescribedColumn(
        name=column.name,
        type=column.type,
        nullable=column.nullable,
        managed=column.name in MANAGED_NAMES,
        column_name=column.name,
        data_type=_DATA_TYPES.get(column.type, column.type),
        is_nullable="YES" if column.nullable else "NO",
        column_default=_DEFAULTS.get(column.name) if column.name in MANAGED_NAMES else None,
    )
    if column.dimension:
        described.dimension = column.dimension
    reference = column.references
    if reference is not None:
        described.references = DescribedReference(
            table=reference.table, column=reference.column, on_delete=reference.on_delete.upper()
        )
    return described

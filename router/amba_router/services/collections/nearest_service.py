"""Find-nearest: filter first, then rank all that is left. Source: contract E.5."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from amba_router.api import faults
from amba_router.rows.query import write_cursor
from amba_router.services.collections.building import Scope, wire_rows
from amba_router.services.collections.nearest import (
    DISTANCE,
    Embedder,
    Nearest,
    Ranking,
    embedded,
    parse_nearest,
)
from amba_router.services.collections.service import found
from amba_router.store.collection_tables import CollectionTables, Rows
from amba_router.store.project_store import ProjectStore
from amba_router.store.row_pages import vector_chunks
from amba_router.store.scoped import Scoped

NearRows = tuple[list[dict[str, Any]], str | None]
"""(rows with their distance, nearest first; the next page's cursor)."""


class NearestService:
    """Args: embed: makes vectors of texts; without it, `to_text` is not emulated."""

    def __init__(
        self, store: ProjectStore, tables: CollectionTables, embed: Embedder | None = None
    ) -> None:
        self._store = store
        self._tables = tables
        self._embed = embed

    async def find(
        self, project_id: str, name: str, scope: Scope, options: Mapping[str, object]
    ) -> NearRows:
        """The nearest of the rows that the caller may read.

        Raises:
            Refused: COLLECTION_NOT_FOUND, INVALID_FILTER, INVALID_QUERY, INVALID_CURSOR; what the
                AI gateway says of a text.
        """
        user_id = scope.user_id or ""

        def asked(scoped: Scoped) -> Nearest:
            return parse_nearest(found(scoped, name), options, scope=user_id)

        vector = b""
        if options.get("to_text") is not None:
            vector = await self._embedded(project_id, await self._store.read(project_id, asked))

        def work(scoped: Scoped) -> NearRows:
            # read again: the collection may be another one since the text was embedded
            collection = found(scoped, name)
            wanted = parse_nearest(collection, options, scope=user_id)
            target = vector or wanted.vector
            if len(target) != 4 * wanted.column.dimension:
                raise faults.CONFLICT.refuse(
                    f"{name} was altered meanwhile; ask again", {"resource": "collection"}
                )
            rows = Rows(scoped, collection, self._tables)
            reach = scope.reading(collection, deleted=wanted.include_deleted)
            ranking = Ranking(wanted, target)
            chunks = vector_chunks(
                scoped.connection, rows.table, wanted.column, wanted.filter, rows.visible(reach)
            )
            with closing(chunks):
                for chunk in chunks:
                    ranking.add(chunk)
            best, more = ranking.nearest()
            made = wire_rows(collection, rows.among([id_ for _, id_ in best]))
            for row, (distance, _) in zip(made, best, strict=True):
                row[DISTANCE] = distance
            cursor = write_cursor(DISTANCE, *best[-1], wanted.fingerprint) if more else None
            return made, cursor

        return await self._store.read(project_id, work)

    async def _embedded(self, project_id: str, wanted: Nearest) -> bytes:
        if self._embed is None:
            raise faults.NOT_EMULATED.refuse(
                "to_text needs the AI gateway, which this server does not have; send to_vector"
            )
        assert wanted.text is not None
        made = await self._embed(
            project_id,
            wanted.text,
            provider=wanted.provider,
            model=wanted.model,
            dimension=wanted.column.dimension,
        )
        return embedded(wanted, made)

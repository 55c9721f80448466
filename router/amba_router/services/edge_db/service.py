"""A function's SQL, run: read once, given its turn, looked for, then changed. Contract B.1."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator

from amba_router.rows.statements import Insert, NotTaken, Parsed, Select, Update
from amba_router.services.edge_db.parser import parse
from amba_router.store.collection_tables import CollectionTables
from amba_router.store.edge_db_rows import Answered, EdgeRows
from amba_router.store.edge_db_values import Call, unsupported
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.line import Line


class EdgeDbService:
    """The statements of all projects. Belongs to one event loop."""

    def __init__(self, store: ProjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._tables = CollectionTables()
        # by their text; whose they are does not matter, as no name in them is resolved yet
        self._kept: OrderedDict[str, Parsed] = OrderedDict()
        self._node = Line(lambda: limits.EDGE_DB_NODE.value)
        self._projects: dict[str, Line] = {}

    async def run(self, project_id: str, sql: str, params: list[object]) -> Answered:
        """Run one statement for a project: all of it, or nothing.

        Args:
            params: values of JSON for `$1` and its like; as many as the statement has.

        Raises:
            Refused: as `EdgeRows`; UNSUPPORTED_SQL for what is no statement of ours.
            UserError: DISK_FULL, STATE_READ_ONLY.
        """
        now_us = round(self._clock.time_s() * 1_000_000)
        parsed = await self._parsed(project_id, sql)
        if len(params) != parsed.parameters:
            raise unsupported(
                f"it has {parsed.parameters} parameters, and $.params {len(params)} values"
            )
        statement = parsed.statement

        def rows(scoped: Scoped) -> EdgeRows:
            call = Call(params, now_us)
            return EdgeRows(scoped, statement.table, call, self._tables, self._clock)

        if isinstance(statement, Insert):
            return await self._store.write(project_id, lambda s: rows(s).insert(statement))
        if isinstance(statement, Select):
            async with self._turn(project_id):
                return await self._store.read(project_id, lambda s: rows(s).select(statement))
        async with self._turn(project_id):
            ids = await self._store.read(project_id, lambda s: rows(s).ids(statement))
        if not ids:
            return Answered()
        if isinstance(statement, Update):
            return await self._store.write(project_id, lambda s: rows(s).update(statement, ids))
        return await self._store.write(project_id, lambda s: rows(s).delete(statement, ids))

    async def _parsed(self, project_id: str, sql: str) -> Parsed:
        """In a thread, but for what was read before."""
        kept = self._kept.get(sql)
        if kept is not None:
            self._kept.move_to_end(sql)
            return kept
        most = limits.EDGE_DB_SQL.value
        if len(sql) > most:
            raise unsupported(f"it has {len(sql)} characters, {most} are the most")
        try:
            async with self._turn(project_id):
                parsed = await self._store.read(project_id, lambda _: parse(sql))
        except NotTaken as error:
            raise unsupported(error.message, error.position) from None
        if len(sql) <= limits.EDGE_DB_KEPT_SQL.value:
            self._kept[sql] = parsed
            if len(self._kept) > limits.EDGE_DB_KEPT.value:
                self._kept.popitem(last=False)
        return parsed

    @contextlib.asynccontextmanager
    async def _turn(self, project_id: str) -> AsyncGenerator[None]:
        """A place among those that look for rows: of its project, then of the node."""
        line = self._projects.setdefault(project_id, Line(lambda: limits.EDGE_DB_PROJECT.value))
        try:
            async with line.turn(), self._node.turn():
                yield
        finally:
            if line.idle:
                self._projects.pop(project_id, None)

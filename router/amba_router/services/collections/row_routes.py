"""Rows over the wire, on both planes. Source: contract E.5, H-9, H-10, H-15.

The planes differ in the scope of a caller alone: everyone's rows, or one user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amba_router.api import faults
from amba_router.api.asked import number, project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Query, Reads
from amba_router.rows.query import read_query, refuse
from amba_router.services.collections.building import EVERYONE, Scope
from amba_router.services.collections.models import (
    Batch,
    BatchAnswer,
    BulkDelete,
    BulkUpdate,
    CountAnswer,
    CountData,
    CountedRows,
    DeletedRow,
    DeletedRowAnswer,
    Options,
    Row,
    RowAnswer,
    RowsAnswer,
)
from amba_router.services.collections.row_service import RowService
from amba_runtime import limits

_ADMIN = "/admin/projects/{project_id}/collections/{name}/rows"
_CLIENT = "/client/collections/{name}"
_ID = "/{id}"

_QUERY = Query("query", {"type": "string"}, "the options of the call, as JSON")
_LIMIT = Query(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": limits.COLLECTION_PAGE.value},
    "rows to give, where `query` does not say it",
)
_OFFSET = Query("offset", {"type": "integer", "minimum": 0}, "rows to skip, as `limit`")
_CURSOR = Query("cursor", {"type": "string"}, "where to go on, as `limit`")
_DELETED = Query("include_deleted", {"type": "boolean"}, "true finds a deleted row, too")
_HARD = Query("hard", {"type": "boolean"}, "ours: true deletes for good")

_COUNT = (faults.INVALID_FILTER, faults.INVALID_QUERY, faults.NOT_EMULATED)
_FIND = (*_COUNT, faults.INVALID_CURSOR)
_ROW = (
    *(faults.INVALID_COLUMN, faults.INVALID_VALUE, faults.INVALID_INPUT),
    *(faults.AS_USER_MISMATCH, faults.ROW_CONFLICT, faults.PAYLOAD_TOO_LARGE, *faults.WRITES),
)
_GONE = (faults.ROW_NOT_FOUND, faults.ROW_CONFLICT, *faults.WRITES)


def operations(rows: RowService) -> tuple[Operation, ...]:
    """Those of the admin plane, then those of the client plane."""
    handlers = _Rows(rows)
    admin = _Plane("Row", _ADMIN, Auth.PROJECT, "any user's row", handlers)
    client = _Plane("OwnRow", _CLIENT, Auth.SESSION, "one of the user's rows", handlers)
    return (
        admin.find("list", "GET", "", "A page of rows, whoever's, and how many there are."),
        *_shared(admin),
        Operation(
            "insertRowBatch",
            "POST",
            f"{_ADMIN}:batch",
            Auth.PROJECT,
            "Insert up to 500 rows: all, or none.",
            handlers.batch,
            {201: BatchAnswer},
            (faults.COLLECTION_NOT_FOUND, faults.BATCH_TOO_LARGE, *_ROW),
            reads=Reads.JSON,
            request=Batch | list[Any],
            bytes_max=limits.COLLECTION_BATCH_BYTES.value,
        ),
        client.find("list", "GET", "", "A page of the user's rows."),
        *_shared(client),
    )


@dataclass(frozen=True, slots=True)
class _Plane:
    """One of the planes. Attributes: noun: of its operations' ids; whose: in what they mean."""

    noun: str
    base: str
    auth: Auth
    whose: str
    handlers: _Rows

    def operation(
        self,
        verb: str,
        method: str,
        path: str,
        means: str,
        handler: Any,
        answers: Mapping[int, Any],
        refusals: tuple[faults.Fault, ...],
        **more: Any,
    ) -> Operation:
        return Operation(
            f"{verb}{self.noun}{'s' if _ID not in path and verb != 'insert' else ''}",
            method,
            f"{self.base}{path}",
            self.auth,
            means,
            handler,
            answers,
            (faults.COLLECTION_NOT_FOUND, *refusals),
            **more,
        )

    def find(self, verb: str, method: str, path: str, means: str) -> Operation:
        """A find whose options are in the query."""
        counted = self.auth is Auth.PROJECT
        return self.operation(
            verb,
            method,
            path,
            means,
            self.handlers.list if counted else self.handlers.find_query,
            {200: CountedRows if counted else RowsAnswer},
            (*_FIND, faults.INVALID_LIMIT),
            query=(_QUERY, _LIMIT, _OFFSET, _CURSOR),
        )


def _shared(plane: _Plane) -> tuple[Operation, ...]:
    """What both planes have."""
    rows, whose = plane.handlers, plane.whose
    only_admin = plane.auth is Auth.PROJECT
    return (
        plane.operation(
            "find",
            "POST",
            "/find",
            f"The same page, its options in the body: {whose}.",
            rows.find,
            {200: RowsAnswer},
            _FIND,
            reads=Reads.MAYBE_JSON,
            request=Options,
            ours=True,
        ),
        plane.operation(
            "count",
            "GET",
            "/count",
            f"How many rows a filter finds: {whose}.",
            rows.count,
            {200: CountAnswer},
            _COUNT,
            query=(_QUERY,),
            ours=only_admin,
        ),
        plane.operation(
            "insert",
            "POST",
            "",
            f"Insert {whose}.",
            rows.insert,
            {201: RowAnswer},
            _ROW,
            reads=Reads.JSON,
            request=Row,
        ),
        plane.operation(
            "updateAll",
            "PATCH",
            "",
            f"Other values for all that a filter finds: {whose}.",
            rows.update_all,
            {200: BatchAnswer},
            (*_COUNT, *_ROW),
            reads=Reads.JSON,
            request=BulkUpdate,
            ours=only_admin,
        ),
        plane.operation(
            "deleteAll",
            "DELETE",
            "",
            f"Delete all that a filter finds: {whose}.",
            rows.delete_all,
            {200: CountAnswer},
            (*_COUNT, faults.INVALID_INPUT, faults.ROW_CONFLICT, *faults.WRITES),
            reads=Reads.JSON,
            request=BulkDelete,
            query=(_HARD,) if only_admin else (),
            ours=only_admin,
        ),
        plane.operation(
            "get",
            "GET",
            _ID,
            f"Read {whose}.",
            rows.get,
            {200: RowAnswer},
            (faults.ROW_NOT_FOUND, faults.INVALID_INPUT),
            query=(_DELETED,) if only_admin else (),
        ),
        plane.operation(
            "update",
            "PATCH",
            _ID,
            f"Other values for {whose}; objects in jsonb are merged.",
            rows.update,
            {200: RowAnswer},
            (faults.ROW_NOT_FOUND, *_ROW),
            reads=Reads.JSON,
            request=Row,
        ),
        plane.operation(
            "delete",
            "DELETE",
            _ID,
            f"Delete {whose}: it is marked, and found no more.",
            rows.delete,
            {200: DeletedRowAnswer},
            (*_GONE, faults.INVALID_INPUT),
            query=(_HARD,) if only_admin else (),
        ),
    )


class _Rows:
    def __init__(self, rows: RowService) -> None:
        self._rows = rows

    async def list(self, asked: Asked) -> Answer:
        found = await self._rows.find(*place_of(asked), _options(asked), total=True)
        return Answer(200, CountedRows(found.rows, found.total, found.next_cursor))

    async def find_query(self, asked: Asked) -> Answer:
        found = await self._rows.find(*place_of(asked), _options(asked))
        return Answer(200, RowsAnswer(found.rows, found.next_cursor, found.has_more))

    async def find(self, asked: Asked) -> Answer:
        found = await self._rows.find(*place_of(asked), asked.body)
        return Answer(200, RowsAnswer(found.rows, found.next_cursor, found.has_more))

    async def count(self, asked: Asked) -> Answer:
        options = read_query(asked.query.get("query"))
        return Answer(
            200, CountAnswer(CountData(await self._rows.count(*place_of(asked), options)))
        )

    async def insert(self, asked: Asked) -> Answer:
        return Answer(201, RowAnswer(await self._rows.insert(*place_of(asked), asked.body)))

    async def batch(self, asked: Asked) -> Answer:
        bare = not isinstance(asked.body, Batch)
        given = asked.body if bare else asked.body.rows
        made = await self._rows.insert_all(*place_of(asked), given, "$" if bare else "$.rows")
        return Answer(201, BatchAnswer(made, len(made)))

    async def get(self, asked: Asked) -> Answer:
        deleted = _flag(asked, "include_deleted")
        row = await self._rows.get(*place_of(asked), asked.path["id"], deleted=deleted)
        return Answer(200, RowAnswer(row))

    async def update(self, asked: Asked) -> Answer:
        given, place = _set(asked.body)
        row = await self._rows.update(*place_of(asked), asked.path["id"], given, place)
        return Answer(200, RowAnswer(row))

    async def update_all(self, asked: Asked) -> Answer:
        body: BulkUpdate = asked.body
        rows = await self._rows.update_all(*place_of(asked), body.set, _bulk(body))
        return Answer(200, BatchAnswer(rows, len(rows)))

    async def delete(self, asked: Asked) -> Answer:
        hard = _flag(asked, "hard")
        id_ = await self._rows.delete(*place_of(asked), asked.path["id"], hard=hard)
        return Answer(200, DeletedRowAnswer(DeletedRow(id_, True)))

    async def delete_all(self, asked: Asked) -> Answer:
        hard = _flag(asked, "hard")
        count = await self._rows.delete_all(*place_of(asked), _bulk(asked.body), hard=hard)
        return Answer(200, CountAnswer(CountData(count)))


def place_of(asked: Asked) -> tuple[str, str, Scope]:
    """Project, collection, scope: on the client plane that of the user who asks."""
    on_client = "project_id" not in asked.path
    scope = Scope(asked.user_id, asked.as_user) if on_client else EVERYONE
    return project_of(asked).id, asked.path["name"], scope


def _options(asked: Asked) -> dict[str, object]:
    """Those in `?query=`, and those beside it."""
    options = read_query(asked.query.get("query"))
    beside: dict[str, object] = {}
    if "limit" in asked.query:
        most = limits.COLLECTION_PAGE.value
        beside["limit"] = number(asked, "limit", 1, least=1, most=most)
    if "offset" in asked.query:
        beside["offset"] = number(asked, "offset", 0, least=0, most=2**53)
    if "cursor" in asked.query:
        beside["cursor"] = asked.query["cursor"]
    for name in beside:
        if name in options:
            raise refuse(f"$.{name}", f"{name} stands in the query and beside it; say it once")
    return {**options, **beside}


def _set(body: Row) -> tuple[object, str]:
    """The columns of an update, bare or under `set`, and where they stand."""
    if "set" not in body:
        return body, "$"
    if len(body) > 1:
        raise faults.INVALID_INPUT.refuse(
            "$.set: send the columns under set, or without it, not both", {"field": "$.set"}
        )
    return body["set"], "$.set"


def _bulk(body: BulkUpdate | BulkDelete) -> dict[str, Any]:
    return {"where": body.where, "filter": body.filter, "limit": body.limit}


def _flag(asked: Asked, name: str) -> bool:
    text = asked.query.get(name, "false")
    if text not in ("true", "false"):
        raise faults.INVALID_INPUT.refuse(f"{name} must be true or false", {"parameter": name})
    return text == "true"

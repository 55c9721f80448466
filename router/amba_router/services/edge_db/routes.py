"""The wire of `EDGE_DB_PROXY`: `POST /query` with `{sql, params}`, answered `{rows, rowCount}`.

Whose socket it is decides whose rows they are: what a function says of itself is not even read.
Source: contract B.1 (FN 0.1.1, which reads `rows` and the status); `rowCount` and errors are ours.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from amba_router.api import faults
from amba_router.api.decoding import decode_json
from amba_router.api.faults import Refused, refusal_of
from amba_router.services.edge_db.service import EdgeDbService
from amba_runtime import limits
from amba_runtime.errors import AmbaRunError
from amba_runtime.wire import Request, Response, WireError

logger = logging.getLogger("amba.edge_db")

_JSON = (b"content-type", b"application/json")
_PATH = b"/query"


class Query(msgspec.Struct):
    """A statement, and the values of `$1` and its like."""

    sql: str
    params: list[Any] = []


class EdgeDbRoutes:
    """From bytes to bytes. Never raises for a guest's mistake."""

    def __init__(self, service: EdgeDbService) -> None:
        self._service = service

    async def answer(self, project_id: str, request: Request) -> Response:
        """One call of a function of this project."""
        try:
            body = await _body(request)
            _check_target(request)
            asked = decode_json(body, Query)
            answered = await self._service.run(project_id, asked.sql, asked.params)
        except Refused as refused:
            return _refusal(refused)
        except AmbaRunError as error:
            logger.error("database of project %s failed: %s", project_id, error)
            return _refusal(refusal_of(error))
        except WireError:
            raise
        except Exception:  # whatever it was: a guest is told that we failed, and the log how
            logger.exception("database of project %s failed", project_id)
            return _refusal(faults.INTERNAL.refuse("amba-run failed; its log says why"))
        rows = b'{"rows":%b,"rowCount":%d}' % (answered.rows, answered.count)
        return Response(200, [_JSON, (b"content-length", b"%d" % len(rows))], rows)


async def _body(request: Request) -> bytes:
    """To its end, so that the connection can be used again; what is too much is not kept."""
    parts: list[bytes] = []
    size = 0
    async for data in request.chunks():
        size += len(data)
        if size <= limits.EDGE_DB_BODY.value:
            parts.append(data)
    if size > limits.EDGE_DB_BODY.value:
        raise faults.PAYLOAD_TOO_LARGE.refuse(
            f"the body has {size} bytes, {limits.EDGE_DB_BODY.value} are the most"
        )
    return b"".join(parts)


def _check_target(request: Request) -> None:
    if request.target.partition(b"?")[0] != _PATH:
        raise faults.NOT_FOUND.refuse("this binding answers POST /query alone")
    if request.method != "POST":
        raise faults.METHOD_NOT_ALLOWED.refuse("send POST, with {sql, params} as JSON")


def _refusal(refused: Refused) -> Response:
    body = refused.problem.body(None)
    return Response(refused.problem.status, refused.problem.headers(len(body)), body)

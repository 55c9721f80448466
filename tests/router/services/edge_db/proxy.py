"""The database binding of one project, asked as a function asks it, beside the platform's API."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tests.router.services.collections.desk import Desk, at_desk

from amba_router.services.edge_db.binding import EdgeDb
from amba_runtime.manifest import ProjectId
from amba_runtime.wire import Handler, Request
from amba_runtime.wire.common import Inbox


@dataclass(frozen=True)
class Said:
    """An answer. `rows` and `code` are for whoever expects one or the other."""

    status: int
    body: Any

    @property
    def rows(self) -> list[Any]:
        assert self.status == 200, self.body
        rows: list[Any] = self.body["rows"]
        return rows

    @property
    def code(self) -> tuple[int, str]:
        assert set(self.body) == {"error"}, self.body
        return self.status, self.body["error"]["code"]

    @property
    def message(self) -> str:
        return str(self.body["error"]["message"])


class _Pieces:
    """A body that arrives in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


async def ask(
    handler: Handler, body: bytes, *more: bytes, method: str = "POST", target: bytes = b"/query"
) -> Said:
    """One call, byte for byte."""
    inbox = cast(Inbox, _Pieces(body, *more))
    answer = await handler(Request(lambda: None, method, target, [], inbox))
    assert isinstance(answer.body, bytes)
    assert dict(answer.headers)[b"content-length"] == b"%d" % len(answer.body)
    return Said(answer.status, json.loads(answer.body))


class Proxy:
    """`EDGE_DB_PROXY` of a desk's project; `desk` is the same project over the API."""

    def __init__(self, desk: Desk, database: EdgeDb | None = None) -> None:
        self.desk = desk
        self.database = database or EdgeDb(desk.world.states, desk.world.clock)
        self.handler = self.database.handler(ProjectId(desk.project["id"]))

    async def query(self, sql: str, *params: object) -> Said:
        """As the SDK sends it."""
        return await ask(self.handler, json.dumps({"sql": sql, "params": params}).encode())

    async def rows(self, sql: str, *params: object) -> list[Any]:
        """Of a statement that is taken."""
        return (await self.query(sql, *params)).rows

    async def values(self, sql: str, *params: object) -> list[Any]:
        """The only column of a statement's rows."""
        return [value for row in await self.rows(sql, *params) for value in row.values()]


def at_proxy(
    tmp_path: Path, work: Callable[[Proxy], Awaitable[None]], *, letters: Sequence[Any] = ()
) -> None:
    """Run `work` on a new project, with a collection `letters` of these columns."""

    async def main(desk: Desk) -> None:
        if letters:
            await desk.make("letters", *letters)
        await work(Proxy(desk))

    at_desk(tmp_path, main)

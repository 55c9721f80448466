"""Seeds into a dev server, over its own API in process, each kind only where nothing is yet.

What a person could send with curl, with the same refusals: a seed that is refused is told by file
and row, and the others are loaded. Source: issue 5 item 8; contract E.4, E.5, E.8, E.9.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from amba_router.asgi import App
from amba_run import seed_files
from amba_run.in_process import Headers, Told, ask
from amba_run.seed_files import Row, Seed, SeedError
from amba_runtime import limits


@dataclass(slots=True)
class Seeded:
    """What was done. Attributes: loaded: rows by kind or collection; problems: sentences."""

    loaded: dict[str, int] = field(default_factory=lambda: dict[str, int]())
    problems: list[str] = field(default_factory=lambda: list[str]())


class Seeder:
    """Loads one folder. Use once.

    Args:
        api: the platform API.
        session: a session token for a user id, who is made at its first use.
    """

    def __init__(
        self,
        api: App,
        *,
        project_id: str,
        pat: str,
        client_key: str,
        session: Callable[[str], str],
    ) -> None:
        self._api = api
        self._base = f"/v1/admin/projects/{project_id}"
        self._pat = pat
        self._client_key = client_key
        self._session = session
        self._done = Seeded()

    async def run(self, folder: Path) -> Seeded:
        """Load all that is there; never raises for what a file says."""
        if not await asyncio.to_thread(folder.is_dir):
            self._done.problems.append(f"{folder} is no folder: nothing was loaded")
            return self._done
        kinds: dict[str, Callable[[Seed], Awaitable[None]]] = {
            "currencies": self._each("currencies"),
            "users": self._users,
            "balances": self._balances,
            "config": self._each("config"),
        }
        for kind in seed_files.KINDS:
            try:
                seed = await asyncio.to_thread(seed_files.kind_of, folder, kind)
            except SeedError as error:
                self._done.problems.append(str(error))
                continue
            empty = seed is not None and (kind == "balances" or await self._is_empty(seed, kind))
            if seed is not None and empty:
                await kinds[kind](seed)
        for found in await asyncio.to_thread(lambda: list(seed_files.collections(folder))):
            if isinstance(found, SeedError):
                self._done.problems.append(str(found))
            else:
                await self._collection(found)
        return self._done

    async def _is_empty(self, seed: Seed, path: str) -> bool:
        told = await self._admin("GET", f"{path}?limit=1")
        if not told.done:
            self._problem(seed, told)
            return False
        return not told.body["data"]

    def _each(self, path: str) -> Callable[[Seed], Awaitable[None]]:
        async def load(seed: Seed) -> None:
            for number, row in enumerate(seed.rows, 1):
                self._count(seed, await self._admin("POST", path, row), number)

        return load

    async def _balances(self, seed: Seed) -> None:
        """Grants, for currencies that were loaded just now: a second start grants nothing."""
        if self._done.loaded.get("currencies"):
            await self._each("currencies/grant")(seed)

    async def _users(self, seed: Seed) -> None:
        for number, row in enumerate(seed.rows, 1):
            self._count(seed, await self._user(row), number)

    async def _user(self, row: Row) -> Told:
        """Signed up with email and password, or made with an id of one's own."""
        row = dict(row)
        id_, email, password = (row.pop(name, None) for name in ("id", "email", "password"))
        if isinstance(email, str) and id_ is None:
            target = "/v1/client/auth/email/signup"
            told = await self._ask("POST", target, {"email": email, "password": password})
            if not told.done:
                return told
            session = str(told.body["data"]["session_token"])
        elif isinstance(id_, str) and id_ and email is None:
            session = self._session(id_)
        else:
            why = "a user has an email and a password, or an id"
            return Told(400, {"error": {"code": "INVALID_INPUT", "message": why}})
        if not row:
            return await self._ask("GET", "/v1/client/users/me", session=session)
        return await self._ask("PATCH", "/v1/client/users/me", row, session=session)

    async def _collection(self, seed: Seed) -> None:
        path = f"collections/{quote(seed.name, safe='')}"
        told = await self._admin("GET", path)
        if told.status == 404:
            told = await self._admin(
                "POST", "collections", {"name": seed.name, **(seed.schema or {})}
            )
            if not told.done:
                self._problem(seed, told)
                return
            self._done.loaded[seed.name] = 0
        elif not told.done:
            self._problem(seed, told)
            return
        elif not await self._is_empty(seed, f"{path}/rows"):
            return
        first = 1
        for batch in _batches(seed.rows):
            told = await self._admin("POST", f"{path}/rows:batch", {"rows": batch})
            last = first + len(batch) - 1
            if told.done:
                self._loaded(seed, len(batch))
            else:
                self._done.problems.append(f"{seed.file}: rows {first} to {last}: {told.why}")
            first = last + 1

    def _loaded(self, seed: Seed, count: int) -> None:
        self._done.loaded[seed.name] = self._done.loaded.get(seed.name, 0) + count

    def _count(self, seed: Seed, told: Told, number: int) -> None:
        if told.done:
            self._loaded(seed, 1)
        elif len(self._done.problems) < limits.PROBLEMS_SHOWN.value:
            self._done.problems.append(f"{seed.file}: row {number}: {told.why}")

    def _problem(self, seed: Seed, told: Told) -> None:
        self._done.problems.append(f"{seed.file}: {told.why}")

    # --- the API ---

    async def _admin(self, method: str, path: str, body: Row | None = None) -> Told:
        bearer = (b"authorization", f"Bearer {self._pat}".encode())
        return await ask(self._api, method, f"{self._base}/{path}", body, [bearer])

    async def _ask(
        self, method: str, path: str, body: Row | None = None, *, session: str = ""
    ) -> Told:
        fields: Headers = [(b"x-api-key", self._client_key.encode())]
        if session:
            fields.append((b"authorization", f"Bearer {session}".encode()))
        return await ask(self._api, method, path, body, fields)


def _batches(rows: tuple[Row, ...]) -> Iterator[list[Row]]:
    """As many rows as one call takes, by count and by bytes."""
    batch: list[Row] = []
    room = limits.SEED_BATCH_BYTES.value
    for row in rows:
        size = len(json.dumps(row))
        if batch and (size > room or len(batch) == limits.SEED_BATCH_ROWS.value):
            yield batch
            batch, room = [], limits.SEED_BATCH_BYTES.value
        batch.append(row)
        room -= size
    if batch:
        yield batch

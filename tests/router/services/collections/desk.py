"""One project's collections over the wire, asked on either plane."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.router.control.world import Got, World


@dataclass(frozen=True)
class Desk:
    """Asks for one project. `path` begins behind `/collections`."""

    world: World
    project: Any

    async def admin(self, method: str, path: str = "", body: object = None) -> Got:
        """As the developer."""
        target = f"/v1/admin/projects/{self.project['id']}/collections{path}"
        return await self.world.ask(method, target, _bytes(body))

    async def client(self, method: str, path: str, body: object = None, user: str = "u1") -> Got:
        """As a signed-in user."""
        target = f"/v1/client/collections{path}"
        return await self.world.as_client(method, target, body, project=self.project, user=user)

    async def as_user(self, method: str, path: str, body: object = None, user: str = "u1") -> Got:
        """With the server key, as a user that is there."""
        target = f"/v1/client/collections{path}"
        return await self.world.as_user(method, target, body, project=self.project, user=user)

    async def trusted(self, method: str, path: str, body: object = None) -> Got:
        """With the server key, as nobody."""
        key = self.project["api_keys"]["server"]["key"]
        target = f"/v1/client/collections{path}"
        headers = [("x-api-key", key)]
        return await self.world.ask(method, target, _bytes(body), token=None, headers=headers)

    async def make(self, name: str, *columns: Mapping[str, Any], **more: Any) -> None:
        """A collection; its columns take nulls unless they say otherwise."""
        nullable = [{"nullable": True, **column} for column in columns]
        got = await self.admin("POST", "", {"name": name, "columns": nullable, **more})
        assert got.status == 201, got.raw

    async def insert(self, name: str, **row: Any) -> Any:
        """A row, inserted on the admin plane."""
        return (await self.admin("POST", f"/{name}/rows", row)).data

    async def all(self, name: str, **options: Any) -> list[Any]:
        """Every row that the admin plane finds, deleted ones with `include_deleted`."""
        got = await self.admin("GET", f"/{name}/rows{asked(**options)}")
        rows: list[Any] = got.data
        return rows


def column(name: str, type_: str = "text", **more: Any) -> dict[str, Any]:
    """One of a schema."""
    return {"name": name, "type": type_, **more}


def asked(**options: Any) -> str:
    """`?query=`, encoded."""
    return f"?query={quote(json.dumps(options))}"


def at_desk(tmp_path: Path, work: Callable[[Desk], Awaitable[None]]) -> None:
    """Run `work` on a new project of a new world."""

    async def main() -> None:
        async with World(tmp_path) as world:
            await work(Desk(world, await world.project()))

    asyncio.run(main())


def _bytes(body: object) -> bytes:
    if isinstance(body, bytes):
        return body
    return b"" if body is None else json.dumps(body).encode()

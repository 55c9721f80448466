"""A world with a project, and what an SDK does with media in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.router.control.world import Got, World

from amba_router.asgi import Message, Scope
from amba_router.services.storage.routes import serve_object
from amba_router.store.records import StoredObject
from amba_runtime.manifest import ProjectId

ORIGIN = "http://127.0.0.1:8787"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)
ASKED = {
    "bucket": "avatars",
    "filename": "me.png",
    "mime_type": "image/png",
    "size_bytes": len(PNG),
}


@dataclass
class Lab:
    """One project of one world; `user` is whose session asks."""

    world: World
    project: Any
    user: str = "u_1"

    @property
    def id(self) -> str:
        return str(self.project["id"])

    @property
    def admin(self) -> str:
        return f"/v1/admin/projects/{self.id}/media"

    async def internal(self) -> str:
        """The project's internal token: it speaks for no user."""
        path = f"/v1/admin/projects/{self.id}/internal-credentials"
        return str((await self.world.get(path)).data["internal_token"])

    async def client(self, method: str, target: str, body: object = None, user: str = "") -> Got:
        """As a user's session."""
        return await self.world.as_client(
            method, f"/v1/client/{target}", body, project=self.project, user=user or self.user
        )

    async def presign(self, user: str = "", **changed: Any) -> Any:
        """The data of a presign."""
        return (await self.client("POST", "storage/presign", {**ASKED, **changed}, user)).data

    async def put(
        self,
        url: str,
        body: bytes | Sequence[Message] = PNG,
        type_: str | None = "image/png",
        headers: Sequence[tuple[str, str]] = (),
        method: str = "PUT",
    ) -> Got:
        """To a presigned URL, without any credential."""
        assert url.startswith(f"{ORIGIN}/client/storage/objects/{self.id}/")
        target = url.removeprefix(ORIGIN)
        return await self.world.ask(method, target, body, token=None, type_=type_, headers=headers)

    async def commit(self, presigned: Any, user: str = "") -> Got:
        """Of what `presign` gave."""
        body = {name: presigned[name] for name in ("upload_id", "asset_id")}
        return await self.client("POST", "storage/commit", body, user)

    async def upload(self, user: str = "", **changed: Any) -> Any:
        """A committed asset."""
        presigned = await self.presign(user, **changed)
        assert (await self.put(presigned["upload_url"])).status == 200
        return (await self.commit(presigned, user)).data

    async def cdn(self, url: str) -> tuple[int, dict[str, str], bytes]:
        """GET of an asset's `url` on the CDN host."""
        host = f"http://{self.project['slug']}.cdn.localhost:8787/"
        assert url.startswith(host)
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope: Scope = {"type": "http", "method": "GET", "headers": []}
        key = url.removeprefix(host)
        await serve_object(self.world.storage, ProjectId(self.id), key, scope, send)
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], headers, b"".join(m["body"] for m in sent[1:])

    async def keys(self) -> list[str]:
        """All objects of the project."""
        page = await self.world.storage.list(ProjectId(self.id))
        return [e.key.decode() for e in page.entries if isinstance(e, StoredObject)]


def run(tmp_path: Path, work: Callable[[Lab], Awaitable[None]]) -> None:
    """In a world of its own."""

    async def main() -> None:
        async with World(tmp_path) as world:
            await work(Lab(world, await world.project()))

    asyncio.run(main())

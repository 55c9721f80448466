"""End users as their own service would have stored them."""

from __future__ import annotations

from typing import Any

from tests.router.control.world import World

from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import app_users


async def add_user(world: World, project: Any, id_: str, email: str | None = None) -> str:
    """A user of a project, last seen at the clock's start."""
    now_ms = int(world.clock.time_s() * 1000)
    row = {
        "id": id_,
        "email": email,
        "auth_providers": "[]",
        "properties": "{}",
        "first_seen_ms": now_ms,
        "last_seen_ms": now_ms,
    }

    def work(scope: Scoped) -> None:
        if not scope.count(app_users, app_users.c.id == id_):
            scope.add(app_users, row)
        scope.change(app_users, app_users.c.id == id_, email=email)

    await ProjectStore(world.states).write(project["id"], work)
    return id_


async def last_seen_ms(world: World, project: Any, id_: str) -> int:
    """When a user was there last."""

    def work(scope: Scoped) -> int:
        seen = app_users.c.last_seen_ms
        return int(scope.value(scope.query(app_users, seen).where(app_users.c.id == id_)))

    return await ProjectStore(world.states).read(project["id"], work)

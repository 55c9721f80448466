"""Who is a user: made once by a session, looked for by a server key (contract A.6, H-9)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.router.control.world import World

from amba_router.services.users.register import Register
from amba_router.store import user_rows
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import app_users
from amba_runtime import limits


def test_a_session_makes_its_user_once(tmp_path: Path) -> None:
    """Sixteen first requests at once make one row (A.6)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            store = ProjectStore(world.states)
            register = Register(store, world.clock)
            assert not await register.admit(id_, "u_1", make=False)
            admitted = await asyncio.gather(
                *(register.admit(id_, "u_1", make=True) for _ in range(16))
            )
            assert all(admitted)
            assert await register.admit(id_, "u_1", make=False)
            assert await store.read(id_, user_rows.count) == 1

    asyncio.run(main())


def test_users_of_two_projects_are_two(tmp_path: Path) -> None:
    """The same id in another project is somebody else (A.6)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            one, other = (await world.project("One"))["id"], (await world.project("Two"))["id"]
            register = Register(ProjectStore(world.states), world.clock)
            assert await register.admit(one, "u_1", make=True)
            assert not await register.admit(other, "u_1", make=False)

    asyncio.run(main())


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is a hint only: once forgotten, the store is asked again."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            store = ProjectStore(world.states)
            register = Register(store, world.clock)
            monkeypatch.setattr(limits, "USERS_KNOWN", replace(limits.USERS_KNOWN, value=2))

            def gone(scoped: Scoped) -> None:
                scoped.drop(app_users)

            for user in ("u_1", "u_2"):
                await register.admit(id_, user, make=True)
            await store.write(id_, gone)
            assert await register.admit(id_, "u_1", make=False)  # remembered
            await register.admit(id_, "u_3", make=True)  # one too many: all are forgotten
            assert not await register.admit(id_, "u_1", make=False)
            register.forget()
            await store.write(id_, gone)
            assert not await register.admit(id_, "u_3", make=False)

    asyncio.run(main())

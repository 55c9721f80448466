"""The one read at a node's start: whole, fast, and not stopped by one damaged value."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert
from tests.router.store.world import deploy, opened, opened_state, project

from amba_router.store.control import ControlStore
from amba_router.store.control_records import CredentialKind, KeyType
from amba_router.store.credential_rows import mint_credential, mint_key
from amba_router.store.schema import deployments, projects
from amba_router.store.state import DATABASE, State
from amba_runtime.clock import ManualClock


def test_an_empty_directory(tmp_path: Path) -> None:
    """Nothing, and nothing to say."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            snapshot = await store.snapshot()
            assert (snapshot.projects, snapshot.pats, snapshot.problems) == ((), (), ())

    asyncio.run(main())


def test_each_project_has_its_own(tmp_path: Path) -> None:
    """Oldest first, with its active deployments in the order they were made."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            made = [await project(store, f"P{n}") for n in range(3)]
            for turn in range(2):
                for one in made[:2]:
                    for name in ("f", "g"):
                        await deploy(store, one.record.id, name, b"%d" % turn)
            snapshot = await store.snapshot()
            assert [one.record for one in snapshot.projects] == [one.record for one in made]
            assert [one.credentials for one in snapshot.projects] == [m.credentials for m in made]
            active = [[(d.name, d.version) for d in one.active] for one in snapshot.projects]
            assert active == [[("f", 2), ("g", 2)], [("f", 2), ("g", 2)], []]
            assert {d.project_id for d in snapshot.projects[1].active} == {made[1].record.id}

    asyncio.run(main())


def fill(state: State, how_many: int, of: int) -> None:
    """`how_many` projects of `of` functions, written in one transaction."""

    def work(c: Connection) -> None:
        for n in range(how_many):
            c.execute(
                insert(projects).values(
                    id=f"p{n}",
                    slug=f"p{n}",
                    name=f"P {n}",
                    platform="all",
                    environment="development",
                    developer_id="d",
                    storage=True,
                    created_ms=1,
                )
            )
            for kind in CredentialKind:
                mint_credential(c, state.sealer, f"p{n}", kind, 1)
            for key_type in KeyType:
                mint_key(c, state.sealer, f"p{n}", key_type, "development", 1)
            c.execute(
                insert(deployments),
                [
                    {
                        "id": f"d{n}-{m}",
                        "project_id": f"p{n}",
                        "name": f"f{m}",
                        "version": 1,
                        "bundle_sha": "0" * 64,
                        "bytes": 0,
                        "bytes_gzip": 20,
                        "handlers": '["fetch"]',
                        "status": "active",
                        "created_ms": 1,
                        "rate_limit": '{"window": "60s", "max": 5, "key": "ip"}',
                        "limits": "{}",
                        "engine": "workerd",
                        "note": "",
                    }
                    for m in range(of)
                ],
            )

    state.database.write_here(work)


@pytest.mark.slow
@pytest.mark.parametrize(("how_many", "of"), [(1, 1000), (1000, 1)])
def test_a_thousand_functions_are_read_at_once(tmp_path: Path, how_many: int, of: int) -> None:
    """Of one project or of a thousand: opening and reading take under 0.5 s of CPU (row 9)."""

    async def main() -> None:
        async with opened_state(tmp_path) as state:
            fill(state, how_many, of)
        started = time.process_time()
        async with opened_state(tmp_path) as state:
            snapshot = await ControlStore(state, ManualClock()).snapshot()
            took_s = time.process_time() - started
        assert sum(len(one.active) for one in snapshot.projects) == 1000
        assert took_s < 0.5

    asyncio.run(main())


def test_a_damaged_credential_is_made_anew(tmp_path: Path) -> None:
    """One flipped value stops no start and no other project (I8); it is told; once it is mended."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            one, two = await project(store, "One"), await project(store, "Two")
            made = await deploy(store, one.record.id)
        with sqlite3.connect(tmp_path / DATABASE) as plain:
            plain.execute(
                "UPDATE credentials SET sealed = x'00' WHERE project_id = ? AND kind = ?",
                (one.record.id, "session_key"),
            )
            plain.execute(
                "UPDATE api_keys SET sealed = x'00' WHERE id = ?", (one.client_key[0].id,)
            )
        plain.close()
        async with opened(tmp_path) as store:
            snapshot = await store.snapshot()
            assert len(snapshot.problems) == 2
            assert "a project without a session_key gets a new one" in snapshot.problems[0]
            assert f"the key {one.client_key[0].prefix}... is not accepted" in snapshot.problems[1]
            mended, other = snapshot.projects
            assert other.credentials == two.credentials
            assert mended.credentials.internal == one.credentials.internal
            (session,) = mended.credentials.session
            assert session.value != one.credentials.session[0].value
            assert [key.id for key, _ in mended.api_keys] == [one.server_key[0].id]
            assert mended.active == (made,)
        async with opened(tmp_path) as store:
            again = await store.snapshot()
            assert again.projects == snapshot.projects

    asyncio.run(main())


def test_a_rate_limit_that_cannot_be_read_limits_nothing(tmp_path: Path) -> None:
    """It falls open (contract D.8)."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner = (await project(store)).record.id
            await deploy(store, owner)
        with sqlite3.connect(tmp_path / DATABASE) as plain:
            plain.execute("UPDATE deployments SET rate_limit = '{\"window\": 1}'")
        plain.close()
        async with opened(tmp_path) as store:
            (active,) = (await store.snapshot()).projects[0].active
            assert active.rate_limit is None

    asyncio.run(main())

"""The triggers of one server: nothing is opened before there is something to fire."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tests.router.control.world import World

from amba_router.journal import Journal
from amba_router.routes import Projects
from amba_router.store.on_demand import OnDemand
from amba_run.triggering import Triggers
from amba_runtime.clock import ManualClock


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def test_an_empty_state_directory_stays_empty(tmp_path: Path) -> None:
    """A dev server without schedules opens no database; one with a database reads it."""

    async def main() -> None:
        clock = ManualClock()
        states = OnDemand(tmp_path, clock)
        triggers = Triggers(Projects(), Journal(clock), states, clock)
        triggers.open()
        await triggers.declare("p", schedules={"f": []})
        await clock.advance(120)
        assert _files(tmp_path) == []
        assert not triggers.schedules.loaded
        triggers.stop()
        for _ in range(2):
            await triggers.close()
        await states.close()
        async with World(tmp_path) as world:
            world.triggers.schedules.open()
            while not world.triggers.schedules.loaded:
                await world.state.database.in_thread(lambda: None)

    asyncio.run(main())


def test_what_a_file_declares_replaces_what_it_declared(tmp_path: Path) -> None:
    """All of the project's, whatever functions they are of; the API's own stay (interface 4)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            path = f"/v1/admin/projects/{id_}/functions/schedules"

            async def crons() -> list[tuple[str, str]]:
                return [(r["function_name"], r["cron"]) for r in (await world.get(path)).data]

            filed = world.triggers.declared.filed
            one, two = ("1 * * * *", "UTC", "skip"), ("2 * * * *", "UTC", "run_once")
            await filed(id_, {"a": [one, two], "b": [one]})
            await world.triggers.declared.deployed(id_, "a", [("3 * * * *", "UTC", "skip")])
            assert len(await crons()) == 4
            await filed(id_, {"a": [two], "c": []})
            assert await crons() == [("a", "2 * * * *"), ("a", "3 * * * *")]
            assert world.triggers.schedules.known == 2
            await filed(id_, {})
            assert await crons() == [("a", "3 * * * *")]

    asyncio.run(main())


@pytest.mark.slow
def test_a_start_loads_no_database() -> None:
    """SQLAlchemy comes with the first schedule, as with the first use of STORAGE (house rule)."""
    code = (
        "import sys, amba_run.dev, amba_run.node_server\n"
        "print(*{'sqlalchemy', 'msgspec', 'numpy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

"""Schedules that come with an upload: they replace those of the deploy before (interface 4)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import FakeHost, FakeTrial, World

from amba_router.routes import Route
from amba_runtime import limits
from amba_runtime.manifest import FunctionName


class _Host(FakeHost):
    """Its functions have a `scheduled` handler, unless their name begins with `plain`."""

    async def trial(self, *args: Any, **more: Any) -> FakeTrial:
        trial = await super().trial(*args, **more)
        trial.handlers = ("fetch",) if trial.name.startswith("plain") else ("scheduled",)
        return trial


async def _world(path: Path) -> World:
    world = World(path)
    world.host = _Host()
    return world


async def _listed(world: World, id_: str) -> list[tuple[str, str, str, str, str]]:
    rows = (await world.get(f"/v1/admin/projects/{id_}/functions/schedules")).data
    keys = ("function_name", "cron", "timezone", "missed", "source")
    return [tuple(row[key] for key in keys) for row in rows]


def test_a_deploy_replaces_what_a_deploy_declared(tmp_path: Path) -> None:
    """Absent: left alone; a list: those and no others; empty: none. The API's own stay."""

    async def main() -> None:
        async with await _world(tmp_path) as world:
            id_ = (await world.project())["id"]
            both = ["*/5 * * * *", {"cron": "0  9 * * *", "timezone": "Asia/Tokyo"}]
            got = await world.deploy(id_, schedules=both)
            assert (got.status, got.body["warnings"]) == (201, [])
            five = ("hello", "*/5 * * * *", "UTC", "skip", "deploy")
            nine = ("hello", "0 9 * * *", "Asia/Tokyo", "skip", "deploy")
            assert await _listed(world, id_) == [five, nine]
            path = f"/v1/admin/projects/{id_}/functions/schedules"
            ids = [row["id"] for row in (await world.get(path)).data]

            from tests.router.triggers.schedule_lab import serve

            project = serve(world.projects, id_, "shop", world.clock)
            project.routes[b"hello"] = Route(FunctionName("hello"), None, handlers=("scheduled",))
            assert (await world.post(path, {"name": "hello", "cron": "1 1 * * *"})).status == 201
            own = ("hello", "1 1 * * *", "UTC", "skip", "api")

            await world.deploy(id_)
            assert await _listed(world, id_) == [five, nine, own]
            await world.deploy(id_, schedules=None)
            assert await _listed(world, id_) == [five, nine, own]
            run_once = {"cron": "*/5 * * * *", "missed": "run_once"}
            await world.deploy(id_, schedules=[run_once])
            assert await _listed(world, id_) == [(*five[:3], "run_once", "deploy"), own]
            assert (await world.get(path)).data[0]["id"] == ids[0]
            # of another function: none of its business
            await world.deploy(id_, "second", schedules=["2 2 * * *"])
            await world.deploy(id_, schedules=[])
            second = ("second", "2 2 * * *", "UTC", "skip", "deploy")
            assert await _listed(world, id_) == [own, second]
            # a rollback leaves them: they are the function's
            await world.post(f"/v1/admin/projects/{id_}/functions/hello/rollback", {"version": 1})
            assert len(await _listed(world, id_)) == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("schedules", "said"),
    [
        (["* * * *"], "schedules[0].cron: cron has five fields"),
        (["* * * * *", {"cron": "0 0 31 2 *"}], "schedules[1].cron: it never fires"),
        ([{"cron": "* * * * *", "timezone": "Mars/X"}], "schedules[0].timezone: 'Mars/X'"),
        ([{"cron": "* * * * *", "timezone": 1}], "schedules[0].timezone must be"),
        ([{"cron": "* * * * *", "missed": "all"}], "schedules[0].missed must be"),
        ([{"cron": 1}], "schedules[0].cron must be"),
        ([1], "schedules[0].cron must be"),
        ({"cron": "* * * * *"}, "schedules must be a list"),
        (["* * * * *"] * (limits.SCHEDULES_OF_FUNCTION.value + 1), "at most 100"),
    ],
)
def test_what_may_not_be_declared(tmp_path: Path, schedules: Any, said: str) -> None:
    """400 INVALID_METADATA with the place; nothing is deployed."""

    async def main() -> None:
        async with await _world(tmp_path) as world:
            id_ = (await world.project())["id"]
            got = await world.deploy(id_, schedules=schedules)
            assert got.said == (400, "INVALID_METADATA")
            assert said in got.body["error"]["message"]
            assert world.host.trials == []

    asyncio.run(main())


def test_without_the_handler_nothing_is_declared(tmp_path: Path) -> None:
    """Refused before it serves; an empty list asks for no handler."""

    async def main() -> None:
        async with await _world(tmp_path) as world:
            id_ = (await world.project())["id"]
            got = await world.deploy(id_, "plain", schedules=["* * * * *"])
            assert got.said == (400, "INVALID_METADATA")
            assert got.details == {"field": "schedules", "handlers": ["fetch"]}
            assert world.host.serving == {}
            assert len(world.host.discarded) == 1
            assert (await world.deploy(id_, "plain", schedules=[])).status == 201

    asyncio.run(main())


def test_a_deleted_function_takes_its_schedules_along(tmp_path: Path) -> None:
    """Whoever made them; the answer counts them beside the platform's own figures (D.4)."""

    async def main() -> None:
        async with await _world(tmp_path) as world:
            id_ = (await world.project())["id"]
            await world.deploy(id_, schedules=["1 * * * *", "2 * * * *"])
            await world.deploy(id_, "second", schedules=["3 * * * *"])
            path = f"/v1/admin/projects/{id_}/functions/hello?confirm=hello"
            for count in (2, 0):
                cascade = (await world.delete(path)).data["cascade"]
                assert cascade["schedules_deleted"] == count
            assert [row[0] for row in await _listed(world, id_)] == ["second"]

    asyncio.run(main())


def test_a_deploy_serves_even_if_its_schedules_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, or too many for the project: 201 with a warning; the old ones stay."""

    async def main() -> None:
        from dataclasses import replace

        async with await _world(tmp_path) as world:
            id_ = (await world.project())["id"]
            await world.deploy(id_, schedules=["1 * * * *"])
            small = replace(limits.SCHEDULES_OF_PROJECT, value=1)
            with monkeypatch.context() as patch:
                patch.setattr(limits, "SCHEDULES_OF_PROJECT", small)
                got = await world.deploy(id_, schedules=["1 * * * *", "2 * * * *"])
            assert got.body["warnings"] == [
                "its schedules are what they were: the project would have more than 1 schedules"
            ]

            async def full(*_: Any, **__: Any) -> None:
                raise OSError("no space in /secret/place")

            with monkeypatch.context() as patch:
                patch.setattr(world.triggers.declared, "deployed", full)
                got = await world.deploy(id_, schedules=["2 * * * *"])
            assert got.status == 201
            assert got.body["warnings"] == [
                "its schedules are what they were: see the log of the server"
            ]
            assert [row[1] for row in await _listed(world, id_)] == ["1 * * * *"]

    asyncio.run(main())

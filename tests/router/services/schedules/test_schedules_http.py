"""Schedules over HTTP: made, listed, deleted, fired by hand (contract D.6, H-13)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import World
from tests.router.triggers.schedule_lab import FINE, Engine, serve, slot_of

from amba_router.journal import Journal
from amba_router.routes import Route
from amba_router.store import database
from amba_runtime import limits
from amba_runtime.manifest import FunctionName
from amba_runtime.outcome import Event, GuestException, LogLine, Outcome, Tell
from amba_runtime.turnstile import Turnstile

_SQLALCHEMY = database.__name__


class Desk:
    """A world with a project whose function `report` has a `scheduled` handler, `plain` none."""

    def __init__(self, world: World, project: Any) -> None:
        self.world = world
        self.id = project["id"]
        self.base = f"/v1/admin/projects/{self.id}/functions"
        self.engine = Engine()
        self.turnstile = Turnstile(world.clock)
        serve(world.projects, self.id, project["slug"], world.clock)
        self.slot = self.function("report", ("scheduled",))
        self.function("plain", ("fetch",))

    def function(self, name: str, handlers: tuple[str, ...] | None) -> Any:
        """A function that is deployed."""
        world = self.world
        journal = Journal(world.clock)
        slot = slot_of(self.engine, self.id, name, journal, world.clock, self.turnstile, most=1)
        project = world.projects.by_id(self.id)
        assert project is not None
        project.routes[name.encode()] = Route(FunctionName(name), slot, handlers=handlers)
        return slot

    async def add(self, **body: Any) -> Any:
        """POST a schedule of `report`."""
        whole = {"name": "report", "cron": "0 9 * * *", "timezone": "UTC", **body}
        return await self.world.post(f"{self.base}/schedules", whole)

    async def list(self, query: str = "") -> Any:
        """The whole answer."""
        got = await self.world.get(f"{self.base}/schedules{query}")
        assert got.status == 200, got.raw
        return got.body


@asynccontextmanager
async def _desk(path: Path) -> AsyncGenerator[Desk]:
    async with World(path) as world:
        desk = Desk(world, await world.project())
        try:
            yield desk
        finally:
            desk.turnstile.close()
            await world.triggers.close()
            await desk.slot.retire(drain_s=0)


def at_desk(path: Path, body: Callable[[Desk], Awaitable[None]]) -> None:
    """Run `body` with a desk."""

    async def main() -> None:
        async with _desk(path) as desk:
            await body(desk)

    asyncio.run(main())


def test_made_once_and_listed(tmp_path: Path) -> None:
    """The same function, expression and zone again is the same schedule (H-13: upsert)."""

    async def body(desk: Desk) -> None:
        got = await desk.add()
        assert got.status == 201
        assert got.body == {"data": {"schedule_id": got.data["schedule_id"]}}
        assert (await desk.add()).data == got.data
        assert (await desk.add(cron=" 0  9 * *\t* ")).data == got.data
        other = [await desk.add(timezone="Europe/Berlin"), await desk.add(cron="0 10 * * *")]
        listed = await desk.list()
        assert (listed["total"], listed["offset"], listed["limit"]) == (3, 0, 1000)
        assert [row["id"] for row in listed["data"]] == [
            one.data["schedule_id"] for one in (got, *other)
        ]
        assert listed["data"][1] == {
            "id": other[0].data["schedule_id"],
            "function_name": "report",
            "cron": "0 9 * * *",
            "timezone": "Europe/Berlin",
            "missed": "skip",
            "source": "api",
            "created_at": "2026-01-01T00:00:00.000Z",
            "updated_at": "2026-01-01T00:00:00.000Z",
            "next_runs": [f"2026-01-0{day}T08:00:00.000Z" for day in range(1, 6)],
            "last_runs": [],
        }
        page = await desk.list("?offset=1&limit=1")
        assert [row["id"] for row in page["data"]] == [other[0].data["schedule_id"]]
        assert (await desk.list("?name=plain"))["total"] == 0
        assert (await desk.list("?name=report"))["total"] == 3

    at_desk(tmp_path, body)


def test_without_a_zone_it_is_utc_and_missed_is_kept(tmp_path: Path) -> None:
    """The platform's command line never says `missed`: it changes nothing of it."""

    async def body(desk: Desk) -> None:
        body = {"name": "report", "cron": "0 9 * * *"}
        path = f"{desk.base}/schedules"
        assert (await desk.world.post(path, body)).status == 201
        for given, kept in (({"missed": "run_once"}, "run_once"), ({}, "run_once"),
                            ({"missed": "skip"}, "skip")):  # fmt: skip
            assert (await desk.world.post(path, {**body, **given})).status == 201
            (row,) = (await desk.list())["data"]
            assert (row["timezone"], row["missed"]) == ("UTC", kept)

    at_desk(tmp_path, body)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cron": "* * * * * *"}, (400, "INVALID_CRON")),
        ({"cron": ""}, (400, "INVALID_CRON")),
        ({"cron": "0 0 31 2 *"}, (400, "INVALID_CRON")),
        ({"cron": "'; DROP TABLE schedules; --"}, (400, "INVALID_CRON")),
        ({"cron": "9" * 100_000}, (400, "INVALID_CRON")),
        ({"cron": 5}, (400, "INVALID_INPUT")),
        ({"cron": None}, (400, "INVALID_INPUT")),
        ({"timezone": "Mars/Olympus"}, (400, "INVALID_TIMEZONE")),
        ({"timezone": "../../etc/passwd"}, (400, "INVALID_TIMEZONE")),
        ({"timezone": ""}, (400, "INVALID_TIMEZONE")),
        ({"timezone": None}, (400, "INVALID_INPUT")),
        ({"missed": "catch_up"}, (400, "INVALID_INPUT")),
        ({"name": "never"}, (404, "FUNCTION_NOT_FOUND")),
        ({"name": ""}, (404, "FUNCTION_NOT_FOUND")),
        ({"name": "../report"}, (404, "FUNCTION_NOT_FOUND")),
        ({"name": "\ud800"}, (400, "INVALID_JSON")),
        ({"name": "'; DROP TABLE schedules; --"}, (404, "FUNCTION_NOT_FOUND")),
        ({"name": ["report"]}, (400, "INVALID_INPUT")),
        ({"name": "plain"}, (400, "HANDLER_MISSING")),
    ],
)
def test_what_is_refused(tmp_path: Path, change: dict[str, Any], said: tuple[int, str]) -> None:
    """Each with its code, and nothing is made (issue 6, bad input)."""

    async def body(desk: Desk) -> None:
        got = await desk.add(**change)
        assert got.said == said
        assert (await desk.list())["total"] == 0

    at_desk(tmp_path, body)


def test_a_function_that_does_not_build_yet_may_have_schedules(tmp_path: Path) -> None:
    """A dev server has not been told its handlers."""

    async def body(desk: Desk) -> None:
        desk.function("broken", None)
        assert (await desk.add(name="broken")).status == 201

    at_desk(tmp_path, body)


def test_there_are_so_many_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a function and of a project: 409 CONFLICT; what is there can still be changed."""

    async def body(desk: Desk) -> None:
        from dataclasses import replace

        monkeypatch.setattr(
            limits, "SCHEDULES_OF_FUNCTION", replace(limits.SCHEDULES_OF_FUNCTION, value=3)
        )
        monkeypatch.setattr(
            limits, "SCHEDULES_OF_PROJECT", replace(limits.SCHEDULES_OF_PROJECT, value=4)
        )
        desk.function("second", ("scheduled",))
        for minute in range(3):
            assert (await desk.add(cron=f"{minute} * * * *")).status == 201
        got = await desk.add(cron="3 * * * *")
        assert got.said == (409, "CONFLICT")
        assert "'report' would have more than 3 schedules" in got.body["error"]["message"]
        assert (await desk.add(cron="0 * * * *", missed="run_once")).status == 201
        assert (await desk.add(name="second")).status == 201
        got = await desk.add(name="second", cron="1 * * * *")
        assert "the project would have more than 4" in got.body["error"]["message"]
        assert (await desk.list())["total"] == 4

    at_desk(tmp_path, body)


def test_deleted(tmp_path: Path) -> None:
    """Gone, with its history; once more is 404, as is one of another project."""

    async def body(desk: Desk) -> None:
        world = desk.world
        id_ = (await desk.add()).data["schedule_id"]
        other = Desk(world, await world.project("Other"))
        assert (await world.delete(f"{other.base}/schedules/{id_}")).said == (
            404,
            "SCHEDULE_NOT_FOUND",
        )
        assert (await other.list())["total"] == 0
        path = f"{desk.base}/schedules/{id_}"
        assert (await world.delete(path)).body == {"data": {"id": id_, "deleted": True}}
        assert (await world.delete(path)).said == (404, "SCHEDULE_NOT_FOUND")
        assert (await desk.list())["total"] == 0
        await other.slot.retire(drain_s=0)

    at_desk(tmp_path, body)


def test_it_fires_and_the_list_says_how(tmp_path: Path) -> None:
    """A schedule that was added over HTTP fires; its last run has outcome and error (item 1)."""

    async def body(desk: Desk) -> None:
        world, ticker = desk.world, desk.world.triggers.schedules

        async def settle() -> None:
            while not (ticker.loaded and ticker.idle):
                await world.state.database.in_thread(lambda: None)

        await desk.add(cron="*/2 * * * *")
        await settle()
        await world.clock.advance(120)
        await settle()

        async def fails(function: str, cron: str, at: int) -> Event:
            tell = Tell(exceptions=[GuestException("Error", "no paper", "", 0)], threw=True)
            return Event(Outcome.EXCEPTION, tell, {})

        desk.engine.act = fails
        await world.clock.advance(120)
        await settle()
        (row,) = (await desk.list())["data"]
        newest, oldest = row["last_runs"]
        assert oldest == {
            "scheduled_at": "2026-01-01T00:02:00.000Z",
            "began_at": "2026-01-01T00:02:00.000Z",
            "ended_at": "2026-01-01T00:02:00.000Z",
            "outcome": "ok",
            "error": None,
            "request_id": oldest["request_id"],
        }
        assert (newest["outcome"], newest["error"]) == ("exception", "no paper")
        assert row["next_runs"][0] == "2026-01-01T00:06:00.000Z"
        for _ in range(10):
            await world.clock.advance(120)
            await settle()
        (row,) = (await desk.list())["data"]
        assert len(row["last_runs"]) == limits.SCHEDULE_LAST_RUNS.value
        assert row["last_runs"][0]["scheduled_at"] == "2026-01-01T00:24:00.000Z"

    at_desk(tmp_path, body)


def test_a_zone_that_this_machine_has_no_more(tmp_path: Path) -> None:
    """The list says that nothing comes; the schedule can be deleted."""

    async def body(desk: Desk) -> None:
        lines = [("0 9 * * *", "Mars/Olympus", "skip")]
        await desk.world.triggers.declared.deployed(desk.id, "report", lines)
        (row,) = (await desk.list())["data"]
        assert (row["timezone"], row["next_runs"]) == ("Mars/Olympus", [])
        assert (await desk.world.delete(f"{desk.base}/schedules/{row['id']}")).status == 200

    at_desk(tmp_path, body)


def test_fired_by_hand(tmp_path: Path) -> None:
    """Now, whatever the schedules say; what the handler said comes back."""

    async def body(desk: Desk) -> None:
        async def tells(function: str, cron: str, at: int) -> Event:
            tell = Tell(logs=[LogLine("log", ["hello", {"a": 1}], 7)])
            return Event(Outcome.OK, tell, {"outcome": "ok", "noRetry": True})

        desk.engine.act = tells
        path = f"{desk.base}/report/scheduled"
        got = await desk.world.ask("POST", path)
        assert got.data == {
            "request_id": got.data["request_id"],
            "outcome": "ok",
            "error": None,
            "ms": got.data["ms"],
            "no_retry": True,
            "logs": [{"level": "log", "message": ["hello", {"a": 1}], "timestamp_ms": 7}],
        }
        at = "2030-01-01T00:00:00Z"
        for asked in ({"cron": "0 9 * * *", "scheduled_time": at},
                      {"scheduled_time": 1_767_225_600_001}):  # fmt: skip
            assert (await desk.world.post(path, asked)).status == 200
        now_ms = 1_767_225_600_000
        assert desk.engine.heard == [
            ("report", "* * * * *", now_ms),
            ("report", "0 9 * * *", 1_893_456_000_000),
            ("report", "* * * * *", 1_767_225_600_001),
        ]

        async def fails(function: str, cron: str, at: int) -> Event:
            return Event(Outcome.EXCEEDED_CPU, Tell(), {"noRetry": "yes"})

        desk.engine.act = fails
        data = (await desk.world.post(path, {})).data
        assert (data["outcome"], data["error"], data["no_retry"]) == (
            *("exceededCpu", "the function used up its CPU time"),
            False,
        )

    at_desk(tmp_path, body)


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("never", {}, (404, "FUNCTION_NOT_FOUND")),
        ("plain", {}, (400, "HANDLER_MISSING")),
        ("report", {"cron": "daily"}, (400, "INVALID_CRON")),
        ("report", {"cron": 1}, (400, "INVALID_INPUT")),
        ("report", {"scheduled_time": "soon"}, (400, "INVALID_INPUT")),
        ("report", {"scheduled_time": -1}, (400, "INVALID_INPUT")),
        ("report", {"scheduled_time": 10**18}, (400, "INVALID_INPUT")),
        ("report", {"scheduled_time": 9_223_372_036_855}, (400, "INVALID_INPUT")),
        ("report", {"scheduled_time": "9999-12-31T23:59:59Z"}, (400, "INVALID_INPUT")),
        ("report", {"scheduled_time": 1.5}, (400, "INVALID_INPUT")),
        ("report", {"scheduled_time": True}, (400, "INVALID_INPUT")),
        ("report", [], (400, "INVALID_INPUT")),
    ],
)
def test_what_cannot_be_fired(tmp_path: Path, name: str, body: Any, said: tuple[int, str]) -> None:
    """Each with its code, and nothing is delivered (issue 6, bad input)."""

    async def main(desk: Desk) -> None:
        got = await desk.world.post(f"{desk.base}/{name}/scheduled", body)
        assert got.said == said
        assert desk.engine.heard == []

    at_desk(tmp_path, main)


def test_a_full_function_is_not_fired(tmp_path: Path) -> None:
    """503 OVERLOADED with Retry-After; nothing was delivered."""

    async def body(desk: Desk) -> None:
        assert desk.slot.gate.try_enter()
        asking = asyncio.ensure_future(desk.world.post(f"{desk.base}/report/scheduled", {}))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(desk.turnstile.turns) == 1
        await desk.world.clock.advance(limits.TURN_WAIT_S.value)
        got = await asking
        assert got.said == (503, "OVERLOADED")
        assert int(got.headers["retry-after"]) >= 1
        assert desk.engine.heard == []
        desk.slot.gate.leave()

    at_desk(tmp_path, body)


def test_only_the_projects_own_may(tmp_path: Path) -> None:
    """A token of another project, a client key, nobody: refused, and nothing is seen (E.0)."""

    async def body(desk: Desk) -> None:
        world = desk.world
        await desk.add()
        other = await world.project("Other")
        internal = f"/v1/admin/projects/{other['id']}/internal-credentials"
        token = (await world.get(internal)).data["internal_token"]
        for method, path in (
            ("POST", "/schedules"),
            ("GET", "/schedules"),
            ("DELETE", "/schedules/x"),
            ("POST", "/report/scheduled"),
        ):
            target = desk.base + path
            assert (await world.ask(method, target, b"{}", token=token)).said == (
                403,
                "WRONG_PROJECT",
            )
            assert (await world.ask(method, target, b"{}", token=None)).status == 401
        assert desk.engine.heard == []
        assert FINE["outcome"] == "ok"

    at_desk(tmp_path, body)

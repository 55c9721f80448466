"""A project's users as its developer sees them (contract E.4)."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import World

from amba_router.store import user_rows
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import events
from amba_router.store.user_rows import NewUser
from amba_runtime import limits


async def add_users(world: World, project_id: str, *new: NewUser) -> None:
    """Rows, as a seed would have them."""

    def work(scoped: Scoped) -> None:
        for user in new:
            assert user_rows.add(scoped, user)

    await ProjectStore(world.states).write(project_id, work)


def event_id(at: int) -> str:
    """A UUID whose last digits say its place."""
    return f"00000000-0000-4000-8000-{at:012}"


async def add_events(world: World, project_id: str, user_id: str, *times_ms: int) -> None:
    """An event each, whose id says its place."""
    rows: list[Mapping[str, Any]] = [
        {
            "id": event_id(at),
            "user_id": user_id,
            "name": "opened",
            "properties": json.dumps({"at": at}),
            "occurred_ms": time_ms,
            "received_ms": time_ms,
        }
        for at, time_ms in enumerate(times_ms)
    ]
    await ProjectStore(world.states).write(project_id, lambda s: s.add(events, rows))


def listed(tmp_path: Path, users: list[NewUser], query: str) -> tuple[list[str], int]:
    """The ids that a list has, and its total."""

    async def main() -> tuple[list[str], int]:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            await add_users(world, id_, *users)
            body = (await world.get(f"/v1/admin/projects/{id_}/users{query}")).body
            return [row["id"] for row in body["data"]], body["total"]

    return asyncio.run(main())


PEOPLE = [
    NewUser("u_1", 5_000, display_name="Ada", email="ada@example.com", email_key="ada@example.com"),
    NewUser("u_2", 9_000, display_name="50%_off\\", external_id="ext-ADA-2"),
    NewUser("u_3", 7_000, display_name="Émile"),
    NewUser("u_4", 7_000),
]


NONE: tuple[list[str], int] = ([], 0)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (["u_2", "u_4", "u_3", "u_1"], 4)),  # newest active first; of two, the newer one
        ("?limit=2", (["u_2", "u_4"], 4)),
        ("?limit=2&offset=3", (["u_1"], 4)),
        ("?search=ada", (["u_2", "u_1"], 2)),
        ("?search=ADA@", (["u_1"], 1)),
        ("?search=ada&limit=1&offset=1", (["u_1"], 2)),
        ("?search=%25", (["u_2"], 1)),
        ("?search=_", (["u_2"], 1)),
        ("?search=%5C", (["u_2"], 1)),
        ("?search=%25_off", (["u_2"], 1)),
        ("?search=%C3%89mi", (["u_3"], 1)),
        ("?search=%27%20OR%201%3D1%20--", NONE),
        ("?search=", (["u_2", "u_4", "u_3", "u_1"], 4)),
        ("?search=u_1", NONE),  # not an id
        ("?segment_id=all&search=ada", (["u_2", "u_1"], 2)),
        ("?segment_id=premium", NONE),
    ],
)
def test_list(tmp_path: Path, query: str, expected: tuple[list[str], int]) -> None:
    """Newest active first, with total; a search knows no wildcards (E.4)."""
    assert listed(tmp_path, PEOPLE, query) == expected


def test_the_envelope_and_the_default_limit(tmp_path: Path) -> None:
    """`{data,total,offset,limit}`, 50 without a limit (E.4); rows never have a password."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            users = [NewUser(f"u_{at}", at, password="$2b$04$x") for at in range(51)]
            await add_users(world, id_, *users)
            body = (await world.get(f"/admin/projects/{id_}/users")).body
            assert set(body) == {"data", "total", "offset", "limit"}
            assert (len(body["data"]), body["total"], body["offset"], body["limit"]) == (
                *(50, 51),
                *(0, 50),
            )
            beyond = (await world.get(f"/admin/projects/{id_}/users?offset=99")).body
            assert (beyond["data"], beyond["total"]) == ([], 51)
            assert not any("password" in key for key in body["data"][0])
            assert "$2b$" not in repr(users[0])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("?limit=0", "INVALID_LIMIT"),
        ("?limit=1001", "INVALID_LIMIT"),
        ("?limit=ten", "INVALID_LIMIT"),
        ("?offset=-1", "INVALID_LIMIT"),
        ("?limit=1&limit=2", "INVALID_INPUT"),
        ("?search=%00", "INVALID_INPUT"),
        ("?search=" + "x" * 201, "INVALID_INPUT"),
    ],
)
def test_what_no_list_is(tmp_path: Path, query: str, code: str) -> None:
    """400 that names the parameter."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            got = await world.get(f"/v1/admin/projects/{id_}/users{query}")
            assert got.said == (400, code)
            assert got.details["parameter"] in query

    asyncio.run(main())


def test_one_user(tmp_path: Path) -> None:
    """With empty streaks and entitlements; another project's is 404 (E.4)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_, other = (await world.project("One"))["id"], (await world.project("Two"))["id"]
            await add_users(world, id_, PEOPLE[0])
            got = await world.get(f"/v1/admin/projects/{id_}/users/u_1")
            assert got.data["email"] == "ada@example.com"
            assert (got.data["streaks"], got.data["entitlements"]) == ([], [])
            for target in (
                f"{id_}/users/u_9",
                f"{other}/users/u_1",
                f"{other}/users/u_1/events",
                f"{id_}/users/%27%20OR%20%271%27=%271",
                f"{id_}/users/%00",
            ):
                assert (await world.get(f"/v1/admin/projects/{target}")).said == (
                    404,
                    "USER_NOT_FOUND",
                )
            assert (await world.get(f"/v1/admin/projects/{other}/users")).body["total"] == 0

    asyncio.run(main())


def test_who_may_see_users(tmp_path: Path) -> None:
    """The project's own credentials; a client key and another project's are refused (E.0)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project, other = await world.project("One"), await world.project("Two")
            target = f"/v1/admin/projects/{project['id']}/users"
            keys = project["api_keys"]
            assert (await world.get(target, token=keys["server"]["key"])).status == 200
            assert (await world.get(target, token=keys["client"]["key"])).said == (
                401,
                "INVALID_TOKEN",
            )
            foreign = other["api_keys"]["server"]["key"]
            for path in (target, f"{target}/u_1", f"{target}/u_1/events"):
                assert (await world.get(path, token=foreign)).said == (403, "WRONG_PROJECT")
                assert (await world.get(path, token=None)).said == (401, "UNAUTHORIZED")

    asyncio.run(main())


def test_events_of_a_user(tmp_path: Path) -> None:
    """Newest first, in pages that a newer event does not disturb (E.4, E.6)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            await add_users(world, id_, *PEOPLE[:2])
            await add_events(world, id_, "u_1", 1000, 3000, 3000, 2000, 4000)
            base = f"/v1/admin/projects/{id_}/users/u_1/events"
            first = (await world.get(f"{base}?limit=2")).body
            assert first["data"][0] == {
                "id": event_id(4),
                "app_user_id": "u_1",
                "event_name": "opened",
                "properties": {"at": 4},
                "occurred_at": "1970-01-01T00:00:04.000Z",
            }
            newer = {"id": event_id(9), "user_id": "u_1", "name": "opened", "properties": "{}"}
            await ProjectStore(world.states).write(
                id_, lambda s: s.add(events, {**newer, "occurred_ms": 9000, "received_ms": 9000})
            )
            second = (await world.get(f"{base}?limit=2&cursor={first['next_cursor']}")).body
            third = (await world.get(f"{base}?limit=2&cursor={second['next_cursor']}")).body
            pages = [[row["id"] for row in page["data"]] for page in (first, second, third)]
            assert pages == [[event_id(at) for at in page] for page in ((4, 2), (1, 3), (0,))]
            assert third["next_cursor"] is None
            since = (await world.get(f"{base}?since=1970-01-01T00:00:03Z")).body
            assert [row["id"] for row in since["data"]] == [event_id(at) for at in (9, 4, 2, 1)]
            exact = (await world.get(f"{base}?limit=6")).body
            assert (len(exact["data"]), exact["next_cursor"]) == (6, None)
            other = await world.get(f"/v1/admin/projects/{id_}/users/u_2/events")
            assert other.body == {"data": [], "next_cursor": None}

    asyncio.run(main())


def test_large_events_of_a_user_end_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EVENTS_PAGE bounds it as it does the project's list, whose cursors go on here (E.6)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            await add_users(world, id_, PEOPLE[0])
            await add_events(world, id_, "u_1", 1000, 2000, 3000)
            base = f"/v1/admin/projects/{id_}"
            most = len('{"at": 0}') * 2 - 1
            monkeypatch.setattr(limits, "EVENTS_PAGE", limits.Limit(most, "bytes", "", ""))
            seen: list[str] = []
            target = f"{base}/users/u_1/events?limit=1000"
            body: Any = None
            for _ in range(3):
                body = (await world.get(target)).body
                assert len(body["data"]) == 1
                seen.append(body["data"][0]["id"])
                target = f"{base}/users/u_1/events?cursor={body['next_cursor']}"
            assert (seen, body["next_cursor"]) == ([event_id(at) for at in (2, 1, 0)], None)
            project = (await world.get(f"{base}/events?since=0&limit=1")).body
            own = (await world.get(f"{base}/users/u_1/events?limit=1")).body
            assert project["next_cursor"] == own["next_cursor"] is not None

    asyncio.run(main())


def _cursor(value: object) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("since=yesterday", "INVALID_SINCE"),
        ("limit=1001", "INVALID_LIMIT"),
        ("cursor=", "INVALID_CURSOR"),
        ("cursor=%E2%98%83", "INVALID_CURSOR"),
        ("cursor=abc", "INVALID_CURSOR"),
        ("cursor=" + "A" * 1025, "INVALID_CURSOR"),
        ("cursor=" + _cursor([1]), "INVALID_CURSOR"),
        ("cursor=" + _cursor({"ts": 1}), "INVALID_CURSOR"),
        ("cursor=" + _cursor({"ts": "1", "id": "e"}), "INVALID_CURSOR"),
        ("cursor=" + _cursor({"ts": True, "id": "e"}), "INVALID_CURSOR"),
        ("cursor=" + _cursor({"ts": 2**64, "id": "e"}), "INVALID_CURSOR"),
        ("cursor=" + _cursor({"ts": 1, "id": "e", "x": 1}), "INVALID_CURSOR"),
    ],
)
def test_what_no_page_of_events_is(tmp_path: Path, query: str, code: str) -> None:
    """400 that names the parameter (E.6)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            await add_users(world, id_, PEOPLE[0])
            got = await world.get(f"/v1/admin/projects/{id_}/users/u_1/events?{query}")
            assert got.said == (400, code)
            assert got.details["parameter"] == query.partition("=")[0]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "bulk-update"), ("POST", "exports"), ("POST", "u_1/entitlements")],
)
def test_what_is_not_emulated(tmp_path: Path, method: str, path: str) -> None:
    """501 by name (E.4, scope 3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            got = await world.ask(method, f"/v1/admin/projects/{id_}/users/{path}", b"{}")
            assert got.said == (501, "NOT_EMULATED")

    asyncio.run(main())


def test_users_outlive_a_restart_and_end_with_their_project(tmp_path: Path) -> None:
    """They are in the store; a project that is deleted takes them along (E.1)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            await world.as_client("GET", "/client/users/me", project=project, user="u_1")
            await world.restart()
            target = f"/v1/admin/projects/{project['id']}"
            assert (await world.get(f"{target}/users")).body["total"] == 1
            assert (await world.delete(target)).status == 200
            assert (await world.get(f"{target}/users")).said == (404, "PROJECT_NOT_FOUND")
            count = await ProjectStore(world.states).read(project["id"], user_rows.count)
            assert count == 0

    asyncio.run(main())

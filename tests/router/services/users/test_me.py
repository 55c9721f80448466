"""`users/me` and devices: what a session's user asks and says (contract E.3, E.14, H-9)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import Got, World

from amba_router.store import push_rows
from amba_router.store.project_store import ProjectStore
from amba_router.store.push_rows import PushToken
from amba_router.store.service_schema import app_users
from amba_runtime import limits

ME = "/v1/client/users/me"
PUSH = f"{ME}/push-token"


async def with_zone(world: World, project: Any, user: str, *headers: tuple[str, str]) -> Any:
    """GET users/me with these headers; the time zone that is told."""
    key = project["api_keys"]["client"]["key"]
    got = await world.ask(
        "GET",
        ME,
        token=world.session(project["id"], user),
        type_=None,
        headers=[("x-api-key", key), *headers],
    )
    return got.data["timezone"]


async def devices(world: World, project: Any, user: str) -> list[PushToken]:
    """What is kept of a user's devices."""
    return await ProjectStore(world.states).read(
        project["id"], lambda s: push_rows.of_user(s, user)
    )


def test_me(tmp_path: Path) -> None:
    """Every member of E.3; a session of ours makes its user at the first call (A.6)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            got = await world.as_client("GET", ME, project=project, user="u_42")
            assert got.data == {
                "id": "u_42",
                "email": None,
                "display_name": got.data["display_name"],
                "avatar_url": None,
                "external_id": None,
                "anonymous_id": None,
                "auth_providers": [],
                "properties": {},
                "timezone": None,
                "first_seen_at": "2026-01-01T00:00:00.000Z",
                "last_seen_at": "2026-01-01T00:00:00.000Z",
            }
            assert " " in got.data["display_name"]
            assert (await world.as_client("GET", ME, project=project, user="u_42")).raw == got.raw

    asyncio.run(main())


@pytest.mark.parametrize(("method", "target"), [("GET", ME), ("PATCH", ME), ("POST", PUSH)])
def test_nobody_has_no_me(tmp_path: Path, method: str, target: str) -> None:
    """A key alone is 401, a server key too (E.0, part F); for whom there is not, 404 (H-9)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            body = {"token": "t", "platform": "ios"} if target == PUSH else {}
            got = await world.as_client(method, target, body, project=project)
            assert got.said == (401, "UNAUTHORIZED")
            assert got.body["error"]["message"] == "session token missing or expired"
            server = [("x-api-key", project["api_keys"]["server"]["key"])]
            got = await world.ask(
                method, target, json.dumps(body).encode(), token=None, headers=server
            )
            assert got.said == (401, "UNAUTHORIZED")
            got = await world.as_user(method, target, body, project=project, user="u_none")
            assert got.said == (404, "USER_NOT_FOUND")
            listed = await world.get(f"/v1/admin/projects/{project['id']}/users")
            assert listed.body["total"] == 0

    asyncio.run(main())


def test_a_user_that_is_gone(tmp_path: Path) -> None:
    """404 NOT_FOUND, where the store was changed beneath a session (E.3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            assert (await world.as_client("GET", ME, project=project, user="u_1")).status == 200
            await ProjectStore(world.states).write(project["id"], lambda s: s.drop(app_users))
            for method, body in (("GET", None), ("PATCH", {}), ("PATCH", {"properties": {"a": 1}})):
                got = await world.as_client(method, ME, body, project=project, user="u_1")
                assert got.said == (404, "NOT_FOUND")

    asyncio.run(main())


def test_the_time_zone_comes_from_the_headers(tmp_path: Path) -> None:
    """The platform's own header first, once; what is no zone is left alone (E.3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            ours, usual = ("x-amba-timezone", "Asia/Tokyo"), ("time-zone", "Europe/Vienna")
            assert await with_zone(world, project, "u_1", ours, usual) == "Asia/Tokyo"
            assert await with_zone(world, project, "u_1", usual) == "Asia/Tokyo"
            assert await with_zone(world, project, "u_2", usual) == "Europe/Vienna"
            assert await with_zone(world, project, "u_3", ("time-zone", "../UTC")) is None
            assert await with_zone(world, project, "u_3", ("time-zone", "UTC")) == "UTC"

    asyncio.run(main())


def test_update(tmp_path: Path) -> None:
    """What is given changes, null empties, properties are replaced whole (E.3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()

            async def update(body: object) -> Any:
                return (await world.as_client("PATCH", ME, body, project=project, user="u_1")).data

            whole = {
                "display_name": "Ada ☃",
                "avatar_url": "https://example.com/a.png",
                "properties": {"plan": "pro", "deep": {"list": [1, 2.5, None, True]}},
                "timezone": "Europe/Vienna",
            }
            assert (await update(whole)).items() >= whole.items()
            assert (await update({})).items() >= whole.items()
            changed = await update({"properties": {"a": 1}, "display_name": None})
            assert changed["properties"] == {"a": 1}
            assert changed["display_name"] is None
            assert changed["timezone"] == "Europe/Vienna"
            gone = await update({"avatar_url": None, "timezone": None})
            assert (gone["avatar_url"], gone["timezone"]) == (None, None)
            got = await world.as_client("GET", ME, project=project, user="u_1")
            assert got.data == gone

    asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"email": "eve@example.com"}, "INVALID_INPUT", "$"),
        ({"id": "u_2"}, "INVALID_INPUT", "$"),
        ({"first_seen_at": 0}, "INVALID_INPUT", "$"),
        ({"display_name": ""}, "INVALID_INPUT", "$.display_name"),
        ({"display_name": "x" * 201}, "INVALID_INPUT", "$.display_name"),
        ({"display_name": "\x1b[2J"}, "INVALID_INPUT", "$.display_name"),
        ({"display_name": 1}, "INVALID_INPUT", "$.display_name"),
        ({"avatar_url": "x" * 2049}, "INVALID_INPUT", "$.avatar_url"),
        ({"properties": []}, "INVALID_INPUT", "$.properties"),
        ({"properties": None}, "INVALID_INPUT", "$.properties"),
        ({"properties": {"x": "y" * 16384}}, "INVALID_INPUT", "$.properties"),
        ({"timezone": "Europe/Nowhere"}, "INVALID_TIMEZONE", "$.timezone"),
        ({"timezone": ""}, "INVALID_TIMEZONE", "$.timezone"),
        ({"timezone": "/etc/passwd"}, "INVALID_TIMEZONE", "$.timezone"),
        ({"timezone": 1}, "INVALID_INPUT", "$.timezone"),
        ({"display_name": "New", "properties": 1}, "INVALID_INPUT", "$.properties"),
        ({"display_name": "New", "timezone": "x"}, "INVALID_TIMEZONE", "$.timezone"),
        ([], "INVALID_INPUT", "$"),
    ],
)
def test_what_an_update_may_not_be(tmp_path: Path, body: object, code: str, field: str) -> None:
    """400 with the place, and nothing of it is done (E.3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            before = await world.as_client("GET", ME, project=project, user="u_1")
            got = await world.as_client("PATCH", ME, body, project=project, user="u_1")
            assert got.said == (400, code)
            assert got.details["field"] == field
            after = await world.as_client("GET", ME, project=project, user="u_1")
            assert after.raw == before.raw

    asyncio.run(main())


def test_the_largest_properties(tmp_path: Path) -> None:
    """16 KiB of JSON go in, and come out."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            most = {"x": "y" * (limits.USER_PROPERTIES_BYTES.value - len('{"x":""}'))}
            got = await world.as_client(
                "PATCH", ME, {"properties": most}, project=project, user="u_1"
            )
            assert got.data["properties"] == most

    asyncio.run(main())


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b'{"properties": {"x": NaN}}', "INVALID_JSON"),
        (b"{", "INVALID_JSON"),
        (b"", "INVALID_JSON"),
        (b"\xff", "INVALID_JSON"),
        (b'{"properties": {"x": 1e999}}', "INVALID_INPUT"),
        (b'{"properties": {"x": ' + b"[" * 64 + b"]" * 64 + b"}}", "INVALID_JSON"),
    ],
)
def test_what_is_no_json(tmp_path: Path, raw: bytes, code: str) -> None:
    """400, and a number beyond all numbers, too."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            got = await world.ask(
                "PATCH",
                ME,
                raw,
                token=world.session(project["id"], "u_1"),
                headers=[("x-api-key", project["api_keys"]["client"]["key"])],
            )
            assert got.said == (400, code)

    asyncio.run(main())


def test_a_server_key_changes_the_user_it_names(tmp_path: Path) -> None:
    """And no other; a user of another project is none (H-9)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project, other = await world.project("One"), await world.project("Other")
            for user in ("u_1", "u_2"):
                await world.as_client("GET", ME, project=project, user=user)
            body = {"display_name": "Named"}
            got = await world.as_user("PATCH", ME, body, project=project, user="u_1")
            assert got.data["display_name"] == "Named"
            second = await world.as_client("GET", ME, project=project, user="u_2")
            assert second.data["display_name"] != "Named"
            got = await world.as_user("PATCH", ME, body, project=other, user="u_1")
            assert got.said == (404, "USER_NOT_FOUND")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"platform": "ios"}, ("ios", "apns", None)),
        ({"platform": "android"}, ("android", "fcm", None)),
        ({"platform": "apns", "bundle_id": "com.example"}, ("ios", "apns", "com.example")),
        ({"platform": "fcm", "bundleId": "com.example"}, ("android", "fcm", "com.example")),
        ({"provider": "fcm"}, ("android", "fcm", None)),
        ({"platform": "ios", "provider": "apns"}, ("ios", "apns", None)),
    ],
)
def test_both_spellings_of_a_device(
    tmp_path: Path, body: dict[str, Any], expected: tuple[str, str, str | None]
) -> None:
    """Of the API pages and of the 4.x clients (E.14)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            got = await world.as_client(
                "POST", PUSH, {"token": "t_1", **body}, project=project, user="u_1"
            )
            assert got.status == 201
            said = got.data
            assert (said["platform"], said["provider"], said["bundle_id"]) == expected
            assert set(said) == {
                *("id", "token", "platform", "provider"),
                "bundle_id",
                "created_at",
            }
            assert said["token"] == "t_1"
            assert said["created_at"] == "2026-01-01T00:00:00.000Z"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"token": "t"}, "$.platform"),
        ({"token": "t", "platform": "windows"}, "$.platform"),
        ({"token": "t", "platform": "ios", "provider": "fcm"}, "$.provider"),
        ({"token": "t", "platform": "fcm", "provider": "apns"}, "$.provider"),
        ({"token": "", "platform": "ios"}, "$.token"),
        ({"token": "t" * 4097, "platform": "ios"}, "$.token"),
        ({"token": "t\0", "platform": "ios"}, "$.token"),
        ({"platform": "ios"}, "$"),
        ({"token": "t", "platform": "ios", "bundle_id": "b" * 256}, "$.bundle_id"),
    ],
)
def test_what_no_device_is(tmp_path: Path, body: object, field: str) -> None:
    """400 INVALID_INPUT with the place, and nothing is kept (E.14)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            got = await world.as_client("POST", PUSH, body, project=project, user="u_1")
            assert got.said == (400, "INVALID_INPUT")
            assert got.details["field"] == field
            assert await devices(world, project, "u_1") == []

    asyncio.run(main())


def test_a_device_changes_hands(tmp_path: Path) -> None:
    """Upsert by token: it keeps id and age, and belongs to who said so last (E.14)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project, other = await world.project("One"), await world.project("Other")
            body = {"token": "t_1", "platform": "ios"}
            first = await world.as_client("POST", PUSH, body, project=project, user="u_1")
            await world.clock.advance(60)
            again = {**body, "bundle_id": "b"}
            second = await world.as_client("POST", PUSH, again, project=project, user="u_2")
            assert (first.status, second.status) == (201, 200)
            assert second.data == {**first.data, "bundle_id": "b"}
            assert await devices(world, project, "u_1") == []
            third = await world.as_client("POST", PUSH, body, project=other, user="u_1")
            assert third.status == 201
            assert len(await devices(world, project, "u_2")) == 1

    asyncio.run(main())


def test_forgetting_a_device(tmp_path: Path) -> None:
    """One's own alone; a second time there is nothing to forget (E.14)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project, other = await world.project("One"), await world.project("Other")
            body = {"token": "t_1", "platform": "ios"}
            await world.as_client("POST", PUSH, body, project=project, user="u_1")

            async def forget(at: Any, user: str) -> Any:
                gone = {"token": "t_1"}
                return (await world.as_client("DELETE", PUSH, gone, project=at, user=user)).data

            assert await forget(project, "u_2") == {"deleted": False}
            assert await forget(other, "u_1") == {"deleted": False}
            assert len(await devices(world, project, "u_1")) == 1
            assert await forget(project, "u_1") == {"deleted": True}
            assert await forget(project, "u_1") == {"deleted": False}

    asyncio.run(main())


def test_devices_of_one_user_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that registered longest ago gives way; others' stay."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            monkeypatch.setattr(limits, "PUSH_TOKENS", replace(limits.PUSH_TOKENS, value=2))

            async def register(token: str, user: str = "u_1") -> Got:
                await world.clock.advance(1)
                body = {"token": token, "platform": "ios"}
                return await world.as_client("POST", PUSH, body, project=project, user=user)

            await register("t_0", "u_2")
            for token in ("t_1", "t_2", "t_1", "t_3"):
                await register(token)
            kept = [device.token for device in await devices(world, project, "u_1")]
            assert kept == ["t_1", "t_3"]
            await register("t_0")
            kept = [device.token for device in await devices(world, project, "u_1")]
            assert kept == ["t_0", "t_3"]

    asyncio.run(main())

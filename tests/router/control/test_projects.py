"""Projects, keys, internal credentials and what they look like (contract C.1, E.1)."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import World

from amba_runtime import limits


def test_a_creation_has_both_shapes(tmp_path: Path) -> None:
    """Nested and flat, with both keys, told once (H-19)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            got = await world.post(
                "/v1/admin/projects", {"name": "My Shop", "bundle_id": "a.b", "platform": "ios"}
            )
            assert got.status == 201
            data = got.data
            flat = {
                "id": data["id"],
                "name": "My Shop",
                "slug": "my-shop",
                "platform": "ios",
                "environment": "production",
                "bundle_id": "a.b",
                "developer_id": "dev_1",
                "status": "active",
                "provisioning_status": "active",
                "created_at": "2026-01-01T00:00:00.000Z",
            }
            assert {key: data[key] for key in flat} == flat
            nested = ("id", "name", "developer_id", "platform", "created_at")
            assert data["project"] == {key: flat[key] for key in nested}
            for kind, prefix in (("client", "amb_live_ck_"), ("server", "amb_live_sk_")):
                key = data["api_keys"][kind]
                assert re.fullmatch(prefix + "[A-Za-z0-9_-]{32}", key["key"])
                assert key["key"].startswith(key["prefix"])
                assert key["type"] == kind
            shown = await world.get(f"/v1/admin/projects/{data['id']}")
            assert shown.data == flat
            assert b"amb_live" not in shown.raw
            # reachable at once, for the data plane too
            assert world.host.projects[data["id"]].record.slug == "my-shop"

    asyncio.run(main())


def test_the_list_is_the_callers_own_newest_first(tmp_path: Path) -> None:
    """`{data, total, offset, limit}` (E.0, E.1)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            other = await world.store.add_pat("dev_2")
            await world.restart()
            names = [(await world.project(f"P{n}"))["name"] for n in range(3)]
            got = await world.get("/v1/admin/projects")
            assert [row["name"] for row in got.data] == names[::-1]
            assert {k: got.body[k] for k in ("total", "offset", "limit")} == {
                "total": 3,
                "offset": 0,
                "limit": 1000,
            }
            assert [
                row["name"] for row in (await world.get("/admin/projects?offset=1&limit=1")).data
            ] == ["P1"]
            assert (await world.get("/v1/admin/projects", token=other)).data == []
            await world.restart()
            assert (await world.get("/v1/admin/projects")).body == got.body
            for query in ("limit=0", "limit=1001", "limit=x", "limit=-1", "offset=-1", "limit=1.5"):
                assert (await world.get(f"/admin/projects?{query}")).said == (400, "INVALID_LIMIT")
            assert (await world.get("/admin/projects?limit=1&limit=2")).said == (
                400,
                "INVALID_INPUT",
            )

    asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, (400, "INVALID_INPUT")),
        ({"name": ""}, (400, "INVALID_INPUT")),
        ({"name": "x" * 201}, (400, "INVALID_INPUT")),
        ({"name": "a\nb"}, (400, "INVALID_INPUT")),
        ({"name": 7}, (400, "INVALID_INPUT")),
        ({"name": "A", "platform": "windows"}, (400, "INVALID_INPUT")),
        ({"name": "A", "environment": "staging"}, (400, "INVALID_INPUT")),
        ({"name": "A", "slug": "No"}, (400, "INVALID_INPUT")),
        ({"name": "A", "slug": "shop"}, (409, "NAME_TAKEN")),
        (["name"], (400, "INVALID_INPUT")),
    ],
)
def test_a_creation_that_may_not_be(tmp_path: Path, body: object, said: tuple[int, str]) -> None:
    """Wrong types name their place; a taken slug is 409 (E.1)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            await world.project("Shop", slug="shop")
            got = await world.post("/v1/admin/projects", body)
            assert got.said == said
            if body == {"name": 7}:
                assert got.details["field"] == "$.name"
            assert len((await world.get("/v1/admin/projects")).data) == 1

    asyncio.run(main())


def test_change_and_delete(tmp_path: Path) -> None:
    """PATCH changes what is given; DELETE ends reachability (E.1)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            path = f"/v1/admin/projects/{id_}"
            changed = await world.ask("PATCH", path, b'{"name": "New", "environment": null}')
            assert (changed.data["name"], changed.data["environment"]) == ("New", "production")
            assert (await world.get(path)).data == changed.data
            assert (await world.ask("PATCH", path, b'{"platform": 1}')).said == (
                400,
                "INVALID_INPUT",
            )
            assert (await world.delete(path)).data == {"id": id_, "deleted": True}
            assert world.host.projects == {}
            assert (await world.delete(path)).said == (404, "PROJECT_NOT_FOUND")
            assert (await world.get("/v1/admin/projects")).data == []

    asyncio.run(main())


def test_a_project_that_goes_meanwhile(tmp_path: Path, monkeypatch: Any) -> None:
    """409 where the store finds no project any more (E.0)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            await world.store.delete_project(id_)
            path = f"/v1/admin/projects/{id_}"
            for method, target, body in (
                ("PATCH", path, b"{}"),
                ("DELETE", path, b""),
                ("POST", f"{path}/api-keys", b'{"key_type": "client"}'),
                ("POST", f"{path}/internal-credentials/rotate", b'{"which": "internal_token"}'),
                ("POST", f"{path}/secrets", b'{"name": "A", "value": "v"}'),
            ):
                assert (await world.ask(method, target, body)).said == (409, "CONFLICT"), target
            assert (await world.deploy(id_)).said == (409, "CONFLICT")
            assert world.host.discarded == world.host.trials

    asyncio.run(main())


def test_provisioning_is_over_at_once(tmp_path: Path) -> None:
    """`active` from the start; asking for it again changes nothing (E.1)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            path = f"/v1/admin/projects/{id_}"
            expected = {"projectId": id_, "status": "active"}
            assert (await world.get(f"{path}/provisioning-status")).data == expected
            assert (await world.post(f"{path}/reprovision")).data == expected
            namespace = await world.get(f"{path}/functions/namespace")
            assert namespace.data == {
                "dispatch_namespace": "amba_tenant_functions",
                "project_slug": "shop",
                "r2_bucket_name": id_,
                "cf_hyperdrive_config_id": None,
            }

    asyncio.run(main())


@pytest.mark.parametrize(("environment", "stage"), [("development", "dev"), ("production", "live")])
def test_keys_follow_the_project(tmp_path: Path, environment: str, stage: str) -> None:
    """Its first keys and later ones say its environment; those it had before hold (E.0, H-20)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project(environment=environment)
            path = f"/v1/admin/projects/{project['id']}"
            first = project["api_keys"]["client"]["key"]
            assert first.startswith(f"amb_{stage}_ck_")
            later = (await world.post(f"{path}/api-keys", {"key_type": "server"})).data
            assert later["key"].startswith(f"amb_{stage}_sk_")
            assert later["environment"] == environment
            other = {"development": "production", "production": "development"}[environment]
            body = {"key_type": "client", "environment": other}
            asked = (await world.post(f"{path}/api-keys", body)).data
            assert (asked["environment"], asked["key"][:8]) == (
                other,
                {"production": "amb_live", "development": "amb_dev_"}[other],
            )
            changed = json.dumps({"environment": other}).encode()
            assert (await world.ask("PATCH", path, changed)).status == 200
            newest = (await world.post(f"{path}/api-keys", {"key_type": "client"})).data
            assert newest["environment"] == other
            told = await world.post("/v1/auth/validate", {"api_key": first}, token=None)
            assert (told.data["valid"], told.data["environment"]) == (True, environment)

    asyncio.run(main())


def test_keys(tmp_path: Path) -> None:
    """The full key only in the answer to its making; `validate` knows it until it is revoked."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            path = f"/v1/admin/projects/{id_}/api-keys"
            made = await world.post(path, {"key_type": "client", "environment": "development"})
            assert made.status == 201
            key = made.data
            assert re.fullmatch("amb_dev_ck_[A-Za-z0-9_-]{32}", key["key"])
            assert key["key"].startswith(key["key_prefix"])
            assert (key["key_type"], key["environment"]) == ("client", "development")

            async def valid(value: str) -> Any:
                return (await world.post("/v1/auth/validate", {"api_key": value}, token=None)).data

            assert await valid(key["key"]) == {
                "valid": True,
                "project_id": id_,
                "environment": "development",
            }
            unknown = {"valid": False, "project_id": None, "environment": None}
            assert await valid("amb_dev_ck_nope") == unknown
            assert await valid(world.pat) == unknown
            other = (await world.project("B"))["id"]
            foreign = f"/v1/admin/projects/{other}/api-keys/{key['id']}"
            assert (await world.delete(foreign)).said == (404, "API_KEY_NOT_FOUND")
            assert (await world.delete(f"{path}/{key['id']}")).status == 200
            assert await valid(key["key"]) == unknown
            assert (await world.delete(f"{path}/{key['id']}")).said == (404, "API_KEY_NOT_FOUND")
            assert (await world.post(path, {"key_type": "admin"})).said == (400, "INVALID_INPUT")

    asyncio.run(main())


def test_internal_credentials(tmp_path: Path) -> None:
    """Handed out with fingerprints; a rotation gives new ones, the last cannot be revoked (C.1)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            path = f"/v1/admin/projects/{id_}/internal-credentials"
            first = (await world.get(path)).data
            token, secret = first["internal_token"], first["header_signing_secret"]
            assert token.startswith("amb_int_")
            assert first["internal_token_fingerprint"] == token[8:12]
            assert secret.startswith("whsec_")
            assert first["header_signing_secret_fingerprint"] == secret[6:10]
            kinds = {row["kind"]: row["id"] for row in first["credentials"]}
            assert len(kinds) == 3
            for row in first["credentials"]:
                assert set(row) == {"id", "kind", "fingerprint", "created_at"}
            for which in kinds:
                assert (await world.delete(f"{path}/{kinds[which]}")).said == (409, "CONFLICT")
                got = await world.post(f"{path}/rotate", {"which": which})
                assert got.status == 201
                told = world.host.credentials[id_]
                assert len(told.internal) + len(told.signing) + len(told.session) == 4
                revoked = await world.delete(f"{path}/{kinds[which]}")
                assert revoked.data == {"id": kinds[which], "revoked": True}
                told = world.host.credentials[id_]
                assert len(told.internal) + len(told.signing) + len(told.session) == 3
            last = (await world.get(path)).data
            assert last["internal_token"] not in (token, "")
            assert last["header_signing_secret"] not in (secret, "")
            assert (await world.delete(f"{path}/nope")).said == (404, "CREDENTIAL_NOT_FOUND")
            assert (await world.post(f"{path}/rotate", {"which": "pat"})).said == (
                400,
                "INVALID_INPUT",
            )
            await world.restart()
            assert (await world.get(path)).data == last

    asyncio.run(main())


def test_there_are_only_so_many(tmp_path: Path, monkeypatch: Any) -> None:
    """Keys, tokens, credentials and secrets are bounded: 409 says what to do (limits)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            base = f"/v1/admin/projects/{id_}"
            asks = (
                ("API_KEYS", f"{base}/api-keys", {"key_type": "client"}, 2),
                ("PATS", "/v1/auth/developer/pats", None, 1),
                (
                    "CREDENTIALS_VALID",
                    f"{base}/internal-credentials/rotate",
                    {"which": "session_key"},
                    1,
                ),
                ("SECRETS", f"{base}/secrets", {"name": "A", "value": "v"}, 0),
            )
            for name, path, body, there in asks:
                limit = limits.Limit(there + 1, "", "", "")
                monkeypatch.setattr(limits, name, limit)
                assert (await world.post(path, body)).status == 201, name
                if name == "SECRETS":
                    assert (await world.post(path, body)).status == 201
                    body = {"name": "B", "value": "v"}
                assert (await world.post(path, body)).said == (409, "CONFLICT"), name

    asyncio.run(main())

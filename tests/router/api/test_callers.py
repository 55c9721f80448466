"""Who may do what: the truth table of caller, route and project."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import World

from amba_router.identity import Identities

OK, NEW = (200, ""), (201, "")
UNAUTHORIZED = (401, "UNAUTHORIZED")
INVALID = (401, "INVALID_TOKEN")
INTERNAL = (401, "INVALID_INTERNAL_TOKEN")
WRONG = (403, "WRONG_PROJECT")
FORBIDDEN = (403, "PROJECT_FORBIDDEN")
NO_PROJECT = (404, "PROJECT_NOT_FOUND")
LATER = (501, "NOT_EMULATED")

ROUTES = (
    ("GET", "/v1/admin/projects", "global"),
    ("GET", "/v1/auth/developer/pats", "global"),
    ("GET", "/v1/auth/developer/me", "global"),
    ("GET", "/v1/admin/projects/{p}", "project"),
    ("GET", "/admin/projects/{p}/functions/deployments", "project"),
    ("GET", "/v1/admin/projects/{p}/secrets", "project"),
    ("GET", "/v1/admin/projects/{p}/internal-credentials", "project"),
    ("PUT", "/v1/admin/projects/{p}/analytics", "later"),
    ("GET", "/admin/projects/{p}/functions/schedules", "project"),
    ("POST", "/v1/admin/projects/{p}/xp", "later"),
)

TABLE: dict[tuple[str, str], tuple[tuple[int, str], ...]] = {
    # (caller, kind of route): own project, another's, one that never was
    ("owner", "global"): (OK,) * 3,
    ("owner", "project"): (OK, FORBIDDEN, NO_PROJECT),
    ("owner", "later"): (LATER, FORBIDDEN, NO_PROJECT),
    ("internal", "global"): (INTERNAL,) * 3,
    ("internal", "project"): (OK, WRONG, WRONG),
    ("internal", "later"): (LATER, WRONG, WRONG),
    ("server", "global"): (FORBIDDEN,) * 3,
    ("server", "project"): (OK, WRONG, WRONG),
    ("server", "later"): (LATER, WRONG, WRONG),
    ("client", "global"): (INVALID,) * 3,
    ("client", "project"): (INVALID,) * 3,
    ("client", "later"): (INVALID,) * 3,
    ("nobody", "global"): (UNAUTHORIZED,) * 3,
    ("nobody", "project"): (UNAUTHORIZED,) * 3,
    ("nobody", "later"): (UNAUTHORIZED,) * 3,
    ("unknown PAT", "global"): (INVALID,) * 3,
    ("unknown PAT", "project"): (INVALID,) * 3,
    ("unknown PAT", "later"): (INVALID,) * 3,
    ("unknown internal", "global"): (INTERNAL,) * 3,
    ("unknown internal", "project"): (INTERNAL,) * 3,
    ("unknown internal", "later"): (INTERNAL,) * 3,
}


async def credentials(world: World) -> tuple[dict[str, str | None], str, str]:
    """Callers' tokens, the id of their project, and the id of another developer's."""
    own = await world.project("Own")
    theirs = await world.store.add_pat("dev_2")
    await world.restart()
    other = (await world.post("/v1/admin/projects", {"name": "Other"}, token=theirs)).data
    internal = await world.get(f"/v1/admin/projects/{own['id']}/internal-credentials")
    tokens: dict[str, str | None] = {
        "owner": world.pat,
        "internal": internal.data["internal_token"],
        "server": own["api_keys"]["server"]["key"],
        "client": own["api_keys"]["client"]["key"],
        "nobody": None,
        "unknown PAT": "amb_dpat_" + "x" * 32,
        "unknown internal": "amb_int_" + "x" * 43,
    }
    return tokens, own["id"], other["id"]


def test_the_truth_table(tmp_path: Path) -> None:
    """Every kind of caller on every kind of route, own, foreign and unknown project (C.1, E.0).

    A project's own credential is told 403 for any other id, whether it exists or not: no oracle.
    """

    async def main() -> None:
        async with World(tmp_path) as world:
            tokens, own, other = await credentials(world)
            wrong: list[Any] = []
            for (caller, kind), expected in TABLE.items():
                for method, path, route in ROUTES:
                    if route != kind:
                        continue
                    for project, answer in zip((own, other, "no-such"), expected, strict=True):
                        got = await world.ask(
                            method, path.replace("{p}", project), b"{}", token=tokens[caller]
                        )
                        said = (got.status, got.code if got.status >= 400 else "")
                        if said != answer:
                            wrong.append((caller, method, path, project, said, answer))
            assert wrong == []

    asyncio.run(main())


@pytest.mark.parametrize("caller", ["internal", "server"])
def test_a_projects_own_credential_is_a_full_admin(tmp_path: Path, caller: str) -> None:
    """An internal token and a server key deploy, set secrets and make keys (C.1, E.0)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            tokens, own, _ = await credentials(world)
            base = f"/v1/admin/projects/{own}"
            token = tokens[caller]
            secret = await world.post(f"{base}/secrets", {"name": "A", "value": "1"}, token=token)
            assert secret.status == 201
            key = await world.post(f"{base}/api-keys", {"key_type": "client"}, token=token)
            assert key.status == 201

    asyncio.run(main())


def test_a_server_key_may_come_as_an_api_key(tmp_path: Path) -> None:
    """`X-Api-Key` carries it too; `Authorization` decides when both are there (H-9)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            tokens, own, _ = await credentials(world)
            path = f"/v1/admin/projects/{own}"
            header = [("X-Api-Key", str(tokens["server"]))]
            assert (await world.get(path, token=None, headers=header)).status == 200
            assert (await world.get(path, token="nonsense", headers=header)).said == INVALID

    asyncio.run(main())


@pytest.mark.parametrize(
    "value",
    [
        *("Basic abc", "Bearer", "Bearer ", "bearer", ""),
        *("Token amb_dpat_x", "amb_dpat_" + "x" * 32),
    ],
)
def test_what_is_no_bearer_token_is_no_credential(tmp_path: Path, value: str) -> None:
    """401 UNAUTHORIZED, and the header says which scheme there is (E.0, RFC 9110 11.6.1)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            got = await world.get(
                "/v1/admin/projects", token=None, headers=[("Authorization", value)]
            )
            assert got.said == UNAUTHORIZED
            assert got.headers["www-authenticate"] == "Bearer"

    asyncio.run(main())


def off(pat: str) -> dict[str, str]:
    """What is almost a token, or nothing like one."""
    return {
        "truncated": pat[:-1],
        "padded": pat + "=",
        "longer": pat + "A",
        "case-flipped": pat.swapcase(),
        "another prefix": pat.replace("amb_dpat_", "amb_dsvc_"),
        "NUL": pat + "\0",
        "long": "x" * 60_000,
        "SQL": "' OR 1=1 --",
        "pattern": ".*",
        "not ASCII": "é" * 41,
        "JWT": "a.b.c",
    }


@pytest.mark.parametrize("what", off(""))
def test_a_token_that_is_not_quite_one(tmp_path: Path, what: str) -> None:
    """Truncated, padded, case-flipped, huge or hostile: 401, never more (reliability H5)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            got = await world.get("/v1/admin/projects", token=off(world.pat)[what])
            assert got.said == INVALID

    asyncio.run(main())


def test_a_credential_that_is_sent_twice(tmp_path: Path) -> None:
    """Two Authorization headers are never one of them (reliability 3.B)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            twice = [("authorization", f"Bearer {world.pat}")]
            got = await world.get("/v1/admin/projects", headers=twice)
            assert got.said == INVALID

    asyncio.run(main())


def test_a_revoked_credential_is_refused_at_once(tmp_path: Path) -> None:
    """Once the revocation is answered nothing passes any more (E.0, reliability H3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            tokens, own, _ = await credentials(world)
            base = f"/v1/admin/projects/{own}"
            key = (await world.post(f"{base}/api-keys", {"key_type": "server"})).data
            assert (await world.get(base, token=key["key"])).status == 200
            assert (await world.delete(f"{base}/api-keys/{key['id']}")).status == 200
            assert (await world.get(base, token=key["key"])).said == INVALID
            old = tokens["internal"]
            shown = (await world.get(f"{base}/internal-credentials")).data["credentials"]
            id_ = next(row["id"] for row in shown if row["kind"] == "internal_token")
            rotated = await world.post(
                f"{base}/internal-credentials/rotate", {"which": "internal_token"}
            )
            new = rotated.data["internal_token"]
            assert new != old
            assert (await world.get(base, token=old)).status == 200
            assert (await world.delete(f"{base}/internal-credentials/{id_}")).status == 200
            assert (await world.get(base, token=old)).said == INTERNAL
            assert (await world.get(base, token=new)).status == 200

    asyncio.run(main())


def test_credentials_survive_a_restart_and_so_do_revocations(tmp_path: Path) -> None:
    """What the store has is what the next process knows (architecture 7)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            tokens, own, _ = await credentials(world)
            key = (
                await world.post(f"/v1/admin/projects/{own}/api-keys", {"key_type": "server"})
            ).data
            await world.delete(f"/v1/admin/projects/{own}/api-keys/{key['id']}")
            await world.restart()
            path = f"/v1/admin/projects/{own}"
            for caller in ("owner", "internal", "server"):
                assert (await world.get(path, token=tokens[caller])).status == 200
            assert (await world.get(path, token=key["key"])).said == INVALID

    asyncio.run(main())


def test_a_deleted_projects_credentials_are_nobodys(tmp_path: Path) -> None:
    """Its keys and tokens go with it (E.1)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            tokens, own, _ = await credentials(world)
            assert (await world.delete(f"/v1/admin/projects/{own}")).status == 200
            path = f"/v1/admin/projects/{own}"
            assert (await world.get(path, token=tokens["internal"])).said == INTERNAL
            assert (await world.get(path, token=tokens["server"])).said == INVALID
            assert (await world.get(path)).said == NO_PROJECT

    asyncio.run(main())


def test_the_client_plane(tmp_path: Path) -> None:
    """An API key always, and a session; then an honest 501 (E.0)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            tokens, own, _ = await credentials(world)
            client, server = str(tokens["client"]), str(tokens["server"])
            state = world.host.projects[own]
            key = bytes.fromhex(state.credentials.session[0].value.reveal())
            session = Identities(own, session_key=key, clock=world.clock).mint_session("u_1")
            other = Identities("p2", session_key=key, clock=world.clock).mint_session("u_1")

            async def said(path: str, api_key: str | None, token: str | None) -> tuple[int, str]:
                headers = [("x-api-key", api_key)] if api_key else []
                return (await world.post(path, {}, token=token, headers=headers)).said

            events = "/v1/client/leagues"
            assert await said(events, None, None) == UNAUTHORIZED
            assert await said(events, "amb_dev_ck_nope", session) == INVALID
            assert await said(events, client, None) == UNAUTHORIZED
            assert await said(events, client, "rubbish") == UNAUTHORIZED
            assert await said(events, client, other) == UNAUTHORIZED
            assert await said(events, client, session) == LATER
            assert await said(events, server, None) == UNAUTHORIZED
            # a function's token alone tells events (E.6), and nothing else
            assert await said(events, None, tokens["internal"]) == UNAUTHORIZED
            assert await said(events, None, "amb_int_unknown") == INTERNAL
            assert await said("/client/leagues", client, session) == LATER
            world.clock.jump(31 * 86400)
            assert await said(events, client, session) == UNAUTHORIZED
            got = await world.post(events, {}, token=None, headers=[("x-api-key", client)])
            assert got.body["error"]["message"] == "session token missing or expired"

    asyncio.run(main())


def test_a_token_may_be_listed_made_and_revoked(tmp_path: Path) -> None:
    """PATs (ours): made once, shown by hash, revoked at once, the last one stays."""

    async def main() -> None:
        async with World(tmp_path) as world:
            made = (await world.post("/v1/auth/developer/pats")).data
            assert made["id"] == hashlib.sha256(made["token"].encode()).hexdigest()
            assert sorted(world.host.pats) == sorted(
                (hashlib.sha256(t.encode()).digest(), "dev_1") for t in (world.pat, made["token"])
            )
            rows = (await world.get("/v1/auth/developer/pats", token=made["token"])).data
            assert [row["current"] for row in rows] == [False, True]
            assert made["token"] not in str(rows)
            path = f"/v1/auth/developer/pats/{made['id']}"
            assert (await world.delete(path)).data == {"id": made["id"], "revoked": True}
            assert (await world.get("/v1/auth/developer/me", token=made["token"])).said == INVALID
            assert (await world.delete(path)).said == (404, "PAT_NOT_FOUND")
            own = hashlib.sha256(world.pat.encode()).hexdigest()
            last = await world.delete(f"/v1/auth/developer/pats/{own}")
            assert last.said == (409, "CONFLICT")
            assert (await world.get("/v1/auth/developer/me")).data == {"id": "dev_1"}

    asyncio.run(main())

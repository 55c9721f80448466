"""Sign-up, login, refresh and logout on the client plane (contract E.3, A.6, H-27)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
from base64 import urlsafe_b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import Got, World

from amba_router.api.callers import Directory
from amba_router.api.faults import Refused
from amba_router.services.users.rules import ADJECTIVES, NOUNS
from amba_router.services.users.sign_in import SignIn
from amba_router.store.project_store import ProjectStore
from amba_router.store.refresh_rows import RefreshToken, add
from amba_router.store.service_schema import app_users, refresh_tokens
from amba_runtime import limits

EMAIL = {"email": "ada@example.com", "password": "correct horse"}
DAY_S = 86400


async def sign_in(world: World, project: Any, how: str, body: object = None) -> Got:
    """POST /client/auth/{how}."""
    return await world.as_client("POST", f"/v1/client/auth/{how}", body, project=project)


async def refresh(world: World, project: Any, token: str) -> Got:
    """POST /client/auth/refresh."""
    return await sign_in(world, project, "refresh", {"refresh_token": token})


async def me(world: World, project: Any, token: str) -> Got:
    """Whose session this is."""
    key = project["api_keys"]["client"]["key"]
    return await world.ask(
        "GET", "/client/users/me", token=token, type_=None, headers=[("x-api-key", key)]
    )


def claims(token: str) -> Any:
    """What a JWT says."""
    part = token.split(".")[1]
    return json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_anonymous(tmp_path: Path) -> None:
    """201 with the envelope of E.3, two words for a name, and a session that is theirs."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            got = await sign_in(world, project, "anonymous")
            assert got.status == 201
            assert set(got.data) == {"session_token", "refresh_token", "user", "anonymous_id"}
            user = got.data["user"]
            assert set(user) == {
                *("id", "email", "display_name", "anonymous_id", "auth_providers"),
                *("properties", "first_seen_at", "last_seen_at"),
            }
            assert user["auth_providers"] == ["anonymous"]
            assert user["anonymous_id"] == got.data["anonymous_id"] != user["id"]
            first, second = user["display_name"].lower().split(" ")
            assert first in ADJECTIVES
            assert second in NOUNS
            assert len(set(ADJECTIVES)) == len(set(NOUNS)) == 32
            assert (await me(world, project, got.data["session_token"])).data["id"] == user["id"]
            again = await sign_in(world, project, "anonymous", {"device": "x"})
            assert again.data["user"]["id"] != user["id"]

    asyncio.run(main())


def test_claims(tmp_path: Path) -> None:
    """`sub`, `pid`, `anon`; a refresh token adds `sid` (A.6); 30 and 90 days (H-27, E.3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            data = (await sign_in(world, project, "anonymous")).data
            now = int(world.clock.time_s())
            said = {
                "sub": data["user"]["id"],
                "pid": project["id"],
                "anon": data["anonymous_id"],
                "iat": now,
            }
            assert claims(data["session_token"]) == {**said, "exp": now + 30 * DAY_S}
            long = claims(data["refresh_token"])
            assert {k: v for k, v in long.items() if k not in ("sid", "jti")} == {
                **said,
                "exp": now + 90 * DAY_S,
            }
            assert long["sid"]

    asyncio.run(main())


def test_a_refresh_token_is_no_session(tmp_path: Path) -> None:
    """Stolen from where it is kept, it opens nothing by itself (A.6)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            data = (await sign_in(world, project, "anonymous")).data
            assert (await me(world, project, data["refresh_token"])).said == (401, "UNAUTHORIZED")
            assert (await refresh(world, project, data["session_token"])).said == (
                401,
                "INVALID_TOKEN",
            )

    asyncio.run(main())


def test_email(tmp_path: Path) -> None:
    """Sign-up, then login in any case of the address; the wrong password is 401 (E.3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            got = await sign_in(
                world, project, "email/signup", {**EMAIL, "email": " Ada@Example.COM "}
            )
            user = got.data["user"]
            assert got.status == 201
            assert (user["email"], user["auth_providers"]) == ("Ada@Example.COM", ["email"])
            assert got.data["anonymous_id"] is None
            await world.clock.advance(60)
            later = await sign_in(world, project, "email/login", EMAIL)
            assert later.status == 200
            assert later.data["user"]["id"] == user["id"]
            assert later.data["user"]["first_seen_at"] == "2026-01-01T00:00:00.000Z"
            assert later.data["user"]["last_seen_at"] == "2026-01-01T00:01:00.000Z"
            mine = await me(world, project, later.data["session_token"])
            assert mine.data["id"] == user["id"]
            for wrong in ({"password": "correct hors"}, {"email": "eve@example.com"}):
                refused = await sign_in(world, project, "email/login", {**EMAIL, **wrong})
                assert refused.said == (401, "INVALID_CREDENTIALS")
                assert refused.body["error"]["message"] == "the address or the password is wrong"
            taken = await sign_in(world, project, "email/signup", EMAIL)
            assert taken.said == (409, "USER_EXISTS")

    asyncio.run(main())


def test_long_passwords_differ_to_the_last_letter(tmp_path: Path) -> None:
    """Bcrypt reads 72 bytes and stops at NUL; what is hashed is the whole password."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            for at, (good, wrong) in enumerate(
                [("p" * 1023 + "q", "p" * 1024), ("é\0" * 8 + "a", "é\0" * 8 + "b")]
            ):
                email = f"u{at}@example.com"
                body = {"email": email, "password": good}
                assert (await sign_in(world, project, "email/signup", body)).status == 201
                assert (await sign_in(world, project, "email/login", body)).status == 200
                body["password"] = wrong
                refused = await sign_in(world, project, "email/login", body)
                assert refused.said == (401, "INVALID_CREDENTIALS")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("changed", "expected", "field"),
    [
        ({"email": "ada"}, "INVALID_EMAIL", "$.email"),
        ({"email": ""}, "INVALID_EMAIL", "$.email"),
        ({"email": "a@b@example.com"}, "INVALID_EMAIL", "$.email"),
        ({"email": "ada@example.com\nBcc: eve@example.com"}, "INVALID_EMAIL", "$.email"),
        ({"email": "' OR 1=1 --@example.com"}, "INVALID_EMAIL", "$.email"),
        ({"email": "a@" + "b" * 251 + ".de"}, "INVALID_EMAIL", "$.email"),
        ({"email": "a" * 1025}, "INVALID_INPUT", "$.email"),
        ({"email": 3}, "INVALID_INPUT", "$.email"),
        ({"email": None}, "INVALID_INPUT", "$.email"),
        ({"password": "1234567"}, "WEAK_PASSWORD", "$.password"),
        ({"password": ""}, "WEAK_PASSWORD", "$.password"),
        ({"password": "x" * 1025}, "INVALID_INPUT", "$.password"),
        ({"password": ["12345678"]}, "INVALID_INPUT", "$.password"),
    ],
)
def test_what_a_sign_up_may_not_be(
    tmp_path: Path, changed: dict[str, Any], expected: str, field: str
) -> None:
    """400 with the place, and no user is made (E.3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            got = await sign_in(world, project, "email/signup", {**EMAIL, **changed})
            assert got.said == (400, expected)
            assert got.details["field"] == field
            listed = await world.get(f"/v1/admin/projects/{project['id']}/users")
            assert listed.body["total"] == 0

    asyncio.run(main())


def test_half_a_character_is_no_password(tmp_path: Path) -> None:
    """A lone surrogate is refused, not a failure of ours."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            got = await world.ask(
                "POST",
                "/client/auth/email/signup",
                b'{"email": "ada@example.com", "password": "\\ud800\\ud800\\ud800..."}',
                token=None,
                headers=[("x-api-key", project["api_keys"]["client"]["key"])],
            )
            assert got.status == 400

    asyncio.run(main())


def test_who_goes_during_a_login(tmp_path: Path) -> None:
    """Their rows went while the password was worked on: 401, and no token is kept."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            await sign_in(world, project, "email/signup", EMAIL)
            store = ProjectStore(world.states)

            class Meddled(ProjectStore):
                """Before its write the users are gone."""

                async def write(self, project_id: str, work: Any) -> Any:
                    await store.write(project_id, lambda s: s.drop(app_users))
                    await store.write(project_id, lambda s: s.drop(refresh_tokens))
                    return await super().write(project_id, work)

            service = SignIn(Meddled(world.states), world.app.directory, world.clock)
            with pytest.raises(Refused) as refused:
                await service.log_in(project["id"], EMAIL["email"], EMAIL["password"], lambda: None)
            await service.close()
            assert refused.value.problem.code == "INVALID_CREDENTIALS"
            kept = await store.read(project["id"], lambda s: s.count(refresh_tokens))
            assert kept == 0

    asyncio.run(main())


def test_who_goes_during_a_refresh(tmp_path: Path) -> None:
    """The sign-in ended while its new tokens were signed: 401, and none of them is kept."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            data = (await sign_in(world, project, "anonymous")).data
            store = ProjectStore(world.states)

            class Meddled(ProjectStore):
                """Before its write the token is good for nothing."""

                async def write(self, project_id: str, work: Any) -> Any:
                    await store.write(project_id, lambda s: s.change(refresh_tokens, revoked=True))
                    return await super().write(project_id, work)

            service = SignIn(Meddled(world.states), world.app.directory, world.clock)
            with pytest.raises(Refused) as refused:
                await service.refresh(project["id"], data["refresh_token"])
            await service.close()
            assert refused.value.problem.code == "INVALID_TOKEN"
            kept = await store.read(project["id"], lambda s: s.count(refresh_tokens))
            assert kept == 1

    asyncio.run(main())


def test_nothing_is_signed_in_a_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that write wait for the one thread that does: it does nothing else meanwhile."""
    threads: list[str] = []
    mint = Directory.mint_refresh

    def noted(*args: Any, **more: Any) -> str:
        threads.append(threading.current_thread().name)
        return mint(*args, **more)

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            data = (await sign_in(world, project, "email/signup", EMAIL)).data
            assert (await sign_in(world, project, "email/login", EMAIL)).status == 200
            assert (await refresh(world, project, data["refresh_token"])).status == 200

    monkeypatch.setattr(Directory, "mint_refresh", noted)
    asyncio.run(main())
    assert threads == [threading.current_thread().name] * 3


def test_two_sign_ups_at_once_make_one_user(tmp_path: Path) -> None:
    """Of eight with one address one is 201, the others 409 (E.3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            many = await asyncio.gather(
                *(sign_in(world, project, "email/signup", EMAIL) for _ in range(8))
            )
            assert sorted(got.status for got in many) == [201, *[409] * 7]
            rows = await ProjectStore(world.states).read(
                project["id"], lambda s: s.count(refresh_tokens)
            )
            assert rows == 1

    asyncio.run(main())


def test_no_password_and_no_token_is_kept(tmp_path: Path) -> None:
    """A bcrypt hash, and digests (E.3); nothing of either in the database file."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            data = (await sign_in(world, project, "email/signup", EMAIL)).data
            store = ProjectStore(world.states)
            kept = await store.read(
                project["id"], lambda s: s.value(s.query(app_users, app_users.c.password))
            )
            assert re.fullmatch(r"\$2b\$04\$[./A-Za-z0-9]{53}", kept)
            digest = await store.read(
                project["id"], lambda s: s.value(s.query(refresh_tokens, refresh_tokens.c.digest))
            )
            assert digest == hashlib.sha256(data["refresh_token"].encode()).digest()
            for path in (tmp_path / "state").glob("amba.db*"):
                raw = path.read_bytes()
                assert EMAIL["password"].encode() not in raw
                assert data["refresh_token"].encode() not in raw

    asyncio.run(main())


def test_refresh_rotates(tmp_path: Path) -> None:
    """Both tokens anew, of the same sign-in and user; `last_seen_at` moves (E.3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            first = (await sign_in(world, project, "anonymous")).data
            await world.clock.advance(DAY_S)
            second = await refresh(world, project, first["refresh_token"])
            assert second.status == 200
            assert set(second.data) == {"session_token", "refresh_token"}
            third = await refresh(world, project, second.data["refresh_token"])
            mine = await me(world, project, third.data["session_token"])
            assert mine.data["id"] == first["user"]["id"]
            assert mine.data["last_seen_at"] == "2026-01-02T00:00:00.000Z"
            sids = {claims(t["refresh_token"])["sid"] for t in (first, second.data, third.data)}
            assert len(sids) == 1
            assert claims(third.data["session_token"])["anon"] == first["anonymous_id"]

    asyncio.run(main())


def test_a_replay_ends_the_whole_sign_in(tmp_path: Path) -> None:
    """A used token revokes its successors, of this sign-in alone (E.3: replay detected)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            await sign_in(world, project, "email/signup", EMAIL)
            one = (await sign_in(world, project, "email/login", EMAIL)).data["refresh_token"]
            other = (await sign_in(world, project, "email/login", EMAIL)).data["refresh_token"]
            newer = (await refresh(world, project, one)).data["refresh_token"]
            replay = await refresh(world, project, one)
            assert replay.said == (401, "INVALID_TOKEN")
            assert "used before" in replay.body["error"]["message"]
            assert (await refresh(world, project, newer)).said == (401, "INVALID_TOKEN")
            assert (await refresh(world, project, other)).status == 200

    asyncio.run(main())


def test_of_refreshes_at_once_one_wins(tmp_path: Path) -> None:
    """Sixteen clients with one token: one gets new ones, which the replays then end."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            token = (await sign_in(world, project, "anonymous")).data["refresh_token"]
            many = await asyncio.gather(*(refresh(world, project, token) for _ in range(16)))
            good = [got for got in many if got.status == 200]
            assert len(good) == 1
            ended = await refresh(world, project, good[0].data["refresh_token"])
            assert ended.said == (401, "INVALID_TOKEN")

    asyncio.run(main())


def test_refresh_tokens_end(tmp_path: Path) -> None:
    """After 90 days, each counted from its own beginning (E.3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            token = (await sign_in(world, project, "anonymous")).data["refresh_token"]
            await world.clock.advance(90 * DAY_S - 1)
            token = (await refresh(world, project, token)).data["refresh_token"]
            await world.clock.advance(90 * DAY_S)
            assert (await refresh(world, project, token)).said == (401, "INVALID_TOKEN")

    asyncio.run(main())


def test_sessions_end(tmp_path: Path) -> None:
    """After 30 days (H-27)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            token = (await sign_in(world, project, "anonymous")).data["session_token"]
            await world.clock.advance(30 * DAY_S - 1)
            assert (await me(world, project, token)).status == 200
            await world.clock.advance(1)
            assert (await me(world, project, token)).said == (401, "UNAUTHORIZED")

    asyncio.run(main())


def test_a_rotated_session_key_ends_sessions_not_sign_ins(tmp_path: Path) -> None:
    """What a refresh token is good for the store says, not its signature (C.1, E.3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            admin = f"/v1/admin/projects/{project['id']}/internal-credentials"
            data = (await sign_in(world, project, "anonymous")).data
            old = [
                row["id"]
                for row in (await world.get(admin)).data["credentials"]
                if row["kind"] == "session_key"
            ]
            await world.post(f"{admin}/rotate", {"which": "session_key"})
            assert (await me(world, project, data["session_token"])).status == 200
            assert (await world.delete(f"{admin}/{old[0]}")).status == 200
            assert (await me(world, project, data["session_token"])).said == (401, "UNAUTHORIZED")
            new = await refresh(world, project, data["refresh_token"])
            mine = await me(world, project, new.data["session_token"])
            assert mine.data["id"] == data["user"]["id"]

    asyncio.run(main())


def test_logout(tmp_path: Path) -> None:
    """Ends the sign-in, and is the same again or with a token that is none (E.3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            first = (await sign_in(world, project, "anonymous")).data["refresh_token"]
            newer = (await refresh(world, project, first)).data["refresh_token"]
            for token in (newer, newer, first, "no token", "x" * 4096):
                got = await sign_in(world, project, "logout", {"refresh_token": token})
                assert (got.status, got.data) == (200, {"logged_out": True})
            assert (await refresh(world, project, newer)).said == (401, "INVALID_TOKEN")

    asyncio.run(main())


@pytest.mark.parametrize("how", ["refresh", "logout"])
@pytest.mark.parametrize(
    "body", [{}, {"refresh_token": ""}, {"refresh_token": 1}, {"refresh_token": "x" * 4097}, []]
)
def test_what_no_refresh_token_is(tmp_path: Path, how: str, body: object) -> None:
    """400 with the place."""

    async def main() -> None:
        async with World(tmp_path) as world:
            got = await sign_in(world, await world.project(), how, body)
            assert got.said == (400, "INVALID_INPUT")
            assert got.details["field"].startswith("$")

    asyncio.run(main())


@pytest.mark.parametrize("token", ["a.b.c", "' OR '1'='1", "\u2603", "null"])
def test_unknown_refresh_tokens(tmp_path: Path, token: str) -> None:
    """401 INVALID_TOKEN, whatever they look like (E.3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            got = await refresh(world, await world.project(), token)
            assert got.said == (401, "INVALID_TOKEN")

    asyncio.run(main())


def test_another_project_knows_nobody_of_this_one(tmp_path: Path) -> None:
    """Sessions, refresh tokens and addresses belong to one project (A.6, H-4)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            one, other = await world.project("One"), await world.project("Other")
            data = (await sign_in(world, one, "email/signup", EMAIL)).data
            assert (await me(world, other, data["session_token"])).said == (401, "UNAUTHORIZED")
            refused = await refresh(world, other, data["refresh_token"])
            assert refused.said == (401, "INVALID_TOKEN")
            await sign_in(world, other, "logout", {"refresh_token": data["refresh_token"]})
            refused = await sign_in(world, other, "email/login", EMAIL)
            assert refused.said == (401, "INVALID_CREDENTIALS")
            assert (await refresh(world, one, data["refresh_token"])).status == 200
            assert (await sign_in(world, other, "email/signup", EMAIL)).status == 201

    asyncio.run(main())


@pytest.mark.parametrize(
    "how", ["anonymous", "email/signup", "email/login", "refresh", "logout", "social"]
)
def test_signing_in_wants_an_api_key(tmp_path: Path, how: str) -> None:
    """No session, but a key (E.0)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            got = await world.post(f"/v1/client/auth/{how}", EMAIL, token=None)
            assert got.said == (401, "UNAUTHORIZED")

    asyncio.run(main())


@pytest.mark.parametrize(
    "how",
    [
        *("social", "link", "magic-link/request", "magic-link/verify"),
        *("otp/request", "sms/verify", "email/otp/request"),
    ],
)
def test_what_is_not_emulated(tmp_path: Path, how: str) -> None:
    """501 by name, never an invented success (E.3)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            got = await sign_in(world, await world.project(), how, {})
            assert got.said == (501, "NOT_EMULATED")
            assert got.details["feature"] == f"/client/auth/{how}"

    asyncio.run(main())


def test_a_full_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One user over the limit is 429 MAU_CAP_REACHED, in each way of becoming one (E.1)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            monkeypatch.setattr(limits, "APP_USERS", replace(limits.APP_USERS, value=2))
            for _ in range(2):
                assert (await sign_in(world, project, "anonymous")).status == 201
            full = (429, "MAU_CAP_REACHED")
            assert (await sign_in(world, project, "anonymous")).said == full
            assert (await sign_in(world, project, "email/signup", EMAIL)).said == full
            got = await world.as_client("GET", "/client/users/me", project=project, user="u_new")
            assert got.said == full

    asyncio.run(main())


def test_refresh_tokens_of_one_user_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expired ones go first, then used ones, then the oldest; others' stay."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            monkeypatch.setattr(limits, "REFRESH_TOKENS", replace(limits.REFRESH_TOKENS, value=3))
            stranger = (await sign_in(world, project, "anonymous")).data["refresh_token"]
            idle = (await sign_in(world, project, "email/signup", EMAIL)).data["refresh_token"]
            await world.clock.advance(1)
            busy = (await sign_in(world, project, "email/login", EMAIL)).data["refresh_token"]
            for _ in range(4):
                await world.clock.advance(1)
                busy = (await refresh(world, project, busy)).data["refresh_token"]
            idle = (await refresh(world, project, idle)).data["refresh_token"]
            assert (await refresh(world, project, stranger)).status == 200
            for _ in range(3):
                await world.clock.advance(1)
                await sign_in(world, project, "email/login", EMAIL)
            for forgotten in (idle, busy):
                assert (await refresh(world, project, forgotten)).said == (401, "INVALID_TOKEN")

            def own(scoped: Any) -> int:
                expired = RefreshToken(b"x", "u_1", "f", 0, 10)
                add(scoped, expired)
                add(scoped, replace(expired, digest=b"y", created_ms=10, expires_ms=20))
                return int(scoped.count(refresh_tokens, refresh_tokens.c.user_id == "u_1"))

            assert await ProjectStore(world.states).write(project["id"], own) == 1

    asyncio.run(main())


def test_ping(tmp_path: Path) -> None:
    """The diagnostics of E.0: whose key it is, and its fingerprint."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project(environment="development")
            key = project["api_keys"]["client"]["key"]
            got = await world.as_client("GET", "/v1/client/ping", project=project)
            assert got.data == {
                "ok": True,
                "server_project_id": project["id"],
                "environment": "development",
                "key_fingerprint": hashlib.sha256(key.encode()).hexdigest()[-4:],
                "latency_ms": 0,
                "error": None,
            }
            bad = await world.get("/client/ping", token=None, headers=[("x-api-key", "amb_x")])
            assert bad.said == (401, "INVALID_TOKEN")

    asyncio.run(main())

"""Every endpoint of contract part E with priority 1 or 2: a good call and a bad one; and nobody
reaches another project through any of them (issue 5, lines 1 and 2)."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.contract.platform_rows import (
    ADMIN,
    CLIENT,
    INTERNAL,
    VISITOR,
    Call,
    Row,
    rows,
)
from tests.router.control.world import Got, World

pytestmark = pytest.mark.slow

ROWS = rows()
PASSWORD = "correct horse"
LETTERS = {
    "name": "letters",
    "columns": [{"name": "title", "type": "text"}, {"name": "score", "type": "integer"}],
}
BOOKS_ROW = {"title": "Walden", "pages": 352, "embedding": [1, 0, 0]}


@dataclass
class Tenant:
    """One project with something of everything in it; `made` fills the braces of the rows."""

    project: Any
    made: dict[str, str] = field(default_factory=lambda: dict[str, str]())


async def furnish(world: World, name: str) -> Tenant:
    """A project as a row's calls expect it."""
    project = await world.project(name)
    tenant = Tenant(project)
    id_ = project["id"]
    base = f"/v1/admin/projects/{id_}"
    made = tenant.made
    made["project"] = id_
    made["client_key"] = project["api_keys"]["client"]["key"]
    made["internal"] = (await world.get(f"{base}/internal-credentials")).data["internal_token"]
    made["doomed"] = (await world.project(f"{name} doomed"))["id"]
    key = {"key_type": "client", "environment": "development"}
    made["spare_key"] = (await world.post(f"{base}/api-keys", key)).data["id"]
    signed_in = (
        await world.as_client("POST", "/v1/client/auth/anonymous", {}, project=project)
    ).data
    made["user"] = signed_in["user"]["id"]
    made["session"] = signed_in["session_token"]
    made["refresh"] = signed_in["refresh_token"]
    assert (await world.post(f"{base}/collections", LETTERS)).status == 201
    gems = {"code": "gems", "name": "Gems", "initial_balance": 0}
    made["currency"] = (await world.post(f"{base}/currencies", gems)).data["id"]
    rules = {"operator": "AND", "conditions": [{"field": "email", "op": "exists"}]}
    segment = {"name": "Known", "rules": rules}
    made["segment"] = (await world.post(f"{base}/segments", segment)).data["id"]
    prompt = {
        "name": "sum-up",
        "provider": "anthropic",
        "model": "claude-sonnet-4-5",
        "template": "Sum up {{title}}",
        "client_invokable": True,
    }
    assert (await world.post(f"{base}/ai/prompts", prompt)).status == 201
    world.host.handlers = ("fetch", "queue")
    assert (await world.deploy(id_, "worker")).status == 201
    made["queue"] = "orders"
    # each says whose it is: an answer to another project that has the name is a leak
    give = {"app_user_id": made["user"], "currency_code": "gems", "amount": 5}
    mail = {"to": {"email": "ann@example.com"}, "subject": f"{name} mail", "text": name}
    for path, body in (
        ("/collections/letters/rows", {"title": f"{name} letter", "score": 1}),
        ("/config", {"key": "motto", "value": f"{name} motto"}),
        ("/events", {"event": "x", "user_id": made["user"], "properties": {"of": name}}),
        ("/currencies/grant", {**give, "reason": f"{name} grant"}),
        ("/email/send", mail),
    ):
        assert (await world.post(base + path, body)).status in (200, 201), path
    await _upload(world, tenant)
    assert (await world.deploy(id_, "digest")).status == 201
    serving = world.host.serving
    serving[id_, "digest"] = replace(serving[id_, "digest"], handlers=("queue",))
    return tenant


async def _upload(world: World, tenant: Tenant) -> None:
    """An asset of the user's: presigned, put, not yet committed."""
    body = {"bucket": "pictures", "filename": "a.png", "mime_type": "image/png", "size_bytes": 5}
    told = (await say(world, tenant, CLIENT, "POST", "/client/storage/presign", body)).data
    tenant.made["upload"], tenant.made["asset"] = told["upload_id"], told["asset_id"]
    path = "/" + told["upload_url"].split("/", 3)[3]
    headers = [(name, value) for name, value in told["upload_headers"]]
    got = await world.ask("PUT", path, b"12345", token=None, type_=None, headers=headers)
    assert got.status in (200, 201, 204), got.raw
    seen = {"bucket": "pictures", "key": "seen.png", "method": "PUT"}
    sign = f"/v1/admin/projects/{tenant.project['id']}/media/presign"
    url = (await say(world, tenant, INTERNAL, "POST", sign, seen)).data["url"]
    got = await world.ask(
        "PUT", "/" + url.split("/", 3)[3], b"12345", token=None, type_="image/png"
    )
    assert got.status in (200, 201, 204), got.raw


async def say(
    world: World,
    tenant: Tenant,
    who: str,
    method: str,
    target: str,
    body: Any = None,
    *,
    headers: dict[str, str] | None = None,
    without: bool = False,
) -> Got:
    """One request with the credentials of such a caller of this tenant."""
    token: str | None = {ADMIN: world.pat, CLIENT: tenant.made["session"],
                         INTERNAL: tenant.made["internal"]}.get(who)  # fmt: skip
    fields = {"x-api-key": tenant.made["client_key"]} if who in (CLIENT, VISITOR) else {}
    fields |= headers or {}
    if without:
        token, fields = None, {}
    if "authorization" in fields:
        token = None
    raw = b"" if body is None else json.dumps(body).encode()
    return await world.ask(method, target, raw, token=token, headers=list(fields.items()))


def filled(value: Any, made: dict[str, str]) -> Any:
    """With `{names}` replaced by what was made; other braces stay."""
    if isinstance(value, str):
        return re.sub(r"\{([a-z_]+)\}", lambda m: made.get(m[1], m[0]), value)
    if isinstance(value, dict):
        return {k: filled(v, made) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [filled(v, made) for v in value]  # pyright: ignore[reportUnknownVariableType]
    return value


async def call(world: World, tenant: Tenant, row: Row, it: Call) -> Got:
    """The request of one call of a row."""
    made = tenant.made | {k: filled(v, tenant.made) for k, v in it.path.items()}
    target = f"/v1{filled(row.path, made)}" + (f"?{it.query}" if it.query else "")
    assert "{" not in target, target
    return await say(
        world,
        tenant,
        row.who,
        row.method,
        target,
        filled(it.body, made),
        headers=filled(it.headers, made),
        without=it.without,
    )


def _note(tenant: Tenant, row: Row, got: Got) -> None:
    """Ids that later rows speak of."""
    if row.method != "POST" or got.status >= 300 or not got.raw:
        return
    data = got.body.get("data")
    if row.path.endswith("/books/rows"):
        tenant.made["row"] = data["id"]
    elif row.path == "/client/collections/books":
        tenant.made["own_row"] = data["id"]


def test_the_table_has_every_row_once() -> None:
    """A path that is written twice would hide a third that is missing."""
    ids = [row.id for row in ROWS]
    assert sorted(set(ids)) == sorted(ids)
    assert len(ids) >= 90


def test_every_row_is_answered_as_it_says(tmp_path: Path) -> None:
    """The bad call first, which changes nothing that the good one needs (Must show 1)."""

    async def main() -> list[str]:
        wrong: list[str] = []
        async with World(tmp_path) as world:
            tenant = await furnish(world, "Shop")
            for row in ROWS:
                bad = await call(world, tenant, row, row.bad)
                if bad.status != row.bad.status or (row.bad.code and bad.code != row.bad.code):
                    wrong.append(f"{row.id}: bad: {bad.status} {bad.raw[:160]!r}")
                good = await call(world, tenant, row, row.good)
                if good.status != row.good.status:
                    wrong.append(f"{row.id}: good: {good.status} {good.raw[:160]!r}")
                _note(tenant, row, good)
        return wrong

    assert asyncio.run(main()) == []


def test_every_operation_of_the_services_is_in_the_table(tmp_path: Path) -> None:
    """What is implemented is exercised: the API's own table against this one."""

    async def main() -> set[str]:
        async with World(tmp_path) as world:
            await world.get("/v1/openapi.json", token=None)
            table = world.app._table()[0]  # pyright: ignore[reportPrivateUsage]
            return {
                re.sub(r"\{[a-z_]+\}", "{}", f"{operation.method} {operation.path}")
                for operation in table.operations
                if not operation.ours or operation.path == "/client/collections/{name}/find"
            }

    there = asyncio.run(main())
    listed = {re.sub(r"\{[a-z_]+\}|(?<=collections/)books", "{}", row.id) for row in ROWS}
    tested_elsewhere = {
        one for one in there if re.search(r"/(functions|secrets)(/|$)|/auth/developer", one)
    }
    assert sorted(there - listed - tested_elsewhere) == []
    assert sorted(listed - there) == []


def test_no_operation_reaches_another_project(tmp_path: Path) -> None:
    """Each operation of the OpenAPI document with the credentials of project A and the ids of
    project B in every position: 0 leaks, 0 writes (Must show 2)."""

    async def main() -> tuple[list[str], int]:
        async with World(tmp_path) as world:
            mine, theirs = await furnish(world, "Mine"), await furnish(world, "Theirs")
            before = await _contents(world, theirs)
            document = (await world.get("/v1/openapi.json", token=None)).body
            leaks: list[str] = []
            count = 0
            for path, methods in document["paths"].items():
                for method, operation in methods.items():
                    if operation["security"] == []:
                        continue
                    for target in _targets(path, mine, theirs):
                        for body in _bodies(theirs):
                            got = await _as_mine(world, mine, method, path, target, body)
                            count += 1
                            if _tells(got, theirs):
                                leaks.append(f"{method} {target}: {got.status} {got.raw[:200]!r}")
            assert await _contents(world, theirs) == before
            return leaks, count

    leaks, count = asyncio.run(main())
    print(f"{count} requests with another project's ids")
    assert leaks == []
    assert count > 500


def _targets(path: str, mine: Tenant, theirs: Tenant) -> list[str]:
    """The path with each mixture: their project; my project and their other ids."""
    ids = {
        **{
            name: theirs.made.get(name, theirs.made["user"])
            for name in re.findall(r"\{(\w+)\}", path)
        },
        "project_id": theirs.made["project"],
    }
    of_theirs = filled(path, ids)
    of_mine = filled(path, {**ids, "project_id": mine.made["project"]})
    others = [
        filled(path, dict.fromkeys(re.findall(r"\{(\w+)\}", path), value)
               | {"project_id": mine.made["project"]})
        for value in (theirs.made["segment"], theirs.made["currency"], theirs.made["asset"])
    ]  # fmt: skip
    return list(dict.fromkeys([of_theirs, of_mine, *others]))


def _bodies(theirs: Tenant) -> list[Any]:
    made = theirs.made
    return [
        None,
        {
            "app_user_id": made["user"],
            "user_id": made["user"],
            "currency_code": "gems",
            "amount": 1,
            "event": "x",
            "event_name": "x",
            "upload_id": made["upload"],
            "asset_id": made["asset"],
            "id": made["asset"],
            "segment_id": made["segment"],
            "project_id": made["project"],
            "to": {"user_id": made["user"]},
            "subject": "x",
            "text": "x",
            "name": "x-1",
            "refresh_token": made["refresh"],
            "invoke": {"function": "digest"},
            "secret_name": "THEIRS",
            "expected_version": 1,
        },
    ]


async def _as_mine(
    world: World, mine: Tenant, method: str, path: str, target: str, body: Any
) -> Got:
    """With the credentials that this plane takes; never the developer's, who owns both."""
    who = CLIENT if path.startswith("/v1/client") else INTERNAL
    return await say(world, mine, who, method.upper(), target, body)


def _tells(got: Got, theirs: Tenant) -> bool:
    """Whether an answer has anything of theirs that the question did not bring."""
    made = theirs.made
    secret = [made["client_key"], made["internal"], made["session"], "Theirs"]
    return any(one.encode() in got.raw for one in secret)


async def _contents(world: World, tenant: Tenant) -> dict[str, Any]:
    """All that this project has, as its own developer reads it."""
    base = f"/v1/admin/projects/{tenant.made['project']}"
    told: dict[str, Any] = {}
    for path in (
        *("", "/users", f"/users/{tenant.made['user']}", "/collections", "/config", "/currencies"),
        *(f"/currencies/transactions/{tenant.made['user']}", "/segments", "/events", "/secrets"),
        *("/ai/prompts", "/ai/providers", "/collections/letters/rows", "/functions/deployments"),
        *("/email/outbox",),
    ):
        got = await world.get(base + path)
        assert got.status == 200, (path, got.raw)
        told[path] = got.body
    media = await say(world, tenant, CLIENT, "GET", "/client/media")
    told["media"] = media.body
    return told

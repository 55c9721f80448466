"""What is asked of the API for a folder of seeds, and what is told of its refusals (issue 5)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amba_router.asgi import Receive, Scope, Send
from amba_run.seeding import Seeded, Seeder
from amba_runtime import limits


@dataclass
class FakeApi:
    """Answers by method and path; a list has what was posted to its path."""

    refuse: dict[str, tuple[int, Any]] = field(default_factory=lambda: dict[str, tuple[int, Any]]())
    lists: dict[str, list[Any]] = field(default_factory=lambda: dict[str, list[Any]]())
    asked: list[tuple[str, Any, dict[bytes, bytes]]] = field(
        default_factory=lambda: list[tuple[str, Any, dict[bytes, bytes]]]()
    )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = (await receive())["body"]
        body = json.loads(raw) if raw else None
        path = scope["path"].removeprefix("/v1/admin/projects/p-1/")
        name = f"{scope['method']} {path}"
        self.asked.append((name, body, dict(scope["headers"])))
        status, said = self._answer(name, scope["method"], path, body)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(said).encode()})

    def _answer(self, name: str, method: str, path: str, body: Any) -> tuple[int, Any]:
        if name in self.refuse:
            return self.refuse[name]
        if method == "GET" and path.count("/") == 1 and path.startswith("collections/"):
            known = path.removeprefix("collections/") in [c["name"] for c in self.of("collections")]
            return (200, {"data": {}}) if known else (404, {"error": {"code": "NOT_FOUND"}})
        if method == "GET":
            return 200, {"data": self.of(path)[:1]}
        if path.endswith("rows:batch"):
            self.of(path.removesuffix(":batch")).extend(body["rows"])
        else:
            self.of(path).append(body)
        return 201, {"data": {"session_token": "session-of-email"}}

    def of(self, path: str) -> list[Any]:
        return self.lists.setdefault(path, [])

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.asked]


def run(api: FakeApi, folder: Path) -> Seeded:
    seeder = Seeder(
        api,
        project_id="p-1",
        pat="amb_dpat_x",
        client_key="amb_dev_ck_x",
        session=lambda user_id: f"session-of-{user_id}",
    )
    return asyncio.run(seeder.run(folder))


def write(folder: Path, **files: Any) -> Path:
    """JSON files by name; `collections__` goes before those of collections."""
    for name, value in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    return folder


def test_no_folder(tmp_path: Path) -> None:
    """Is told, and nothing is asked."""
    api = FakeApi()
    assert run(api, tmp_path / "no").problems == [
        f"{tmp_path / 'no'} is no folder: nothing was loaded"
    ]
    assert run(api, tmp_path) == Seeded()
    assert api.asked == []


def test_each_kind_in_its_order(tmp_path: Path) -> None:
    """Currencies, users, their balances, config, then collections (contract E.4 to E.9)."""
    folder = write(
        tmp_path / "seed",
        config={"a": 1},
        currencies=[{"code": "gold"}],
        balances=[{"app_user_id": "u-1"}],
        users=[{"id": "u-1"}],
        collections__things=[{"n": 1}],
    )
    api = FakeApi()
    done = run(api, folder)
    assert done.problems == []
    assert done.loaded == {"currencies": 1, "users": 1, "balances": 1, "config": 1, "things": 1}
    assert [name for name in api.names if not name.startswith("GET")] == [
        "POST currencies",
        "POST currencies/grant",
        "POST config",
        "POST collections",
        "POST collections/things/rows:batch",
    ]
    assert "GET /v1/client/users/me" in api.names
    tokens = {h.get(b"authorization") for name, _, h in api.asked if "client" not in name}
    assert tokens == {b"Bearer amb_dpat_x"}


def test_only_into_what_is_empty(tmp_path: Path) -> None:
    """A second start changes nothing, and grants nothing again."""
    folder = write(
        tmp_path / "seed",
        config={"a": 1},
        currencies=[{"code": "gold"}],
        balances=[{"app_user_id": "u-1"}],
        users=[{"email": "a@b.c", "password": "x"}],
        collections__things=[{"n": 1}],
        collections__empty=[],
    )
    api = FakeApi()
    run(api, folder)
    api.lists["users"] = [{}]
    before = len(api.asked)
    assert run(api, folder) == Seeded()
    assert all(name.startswith("GET") for name in api.names[before:])
    api.lists["collections/things/rows"] = []
    assert run(api, folder).loaded == {"things": 1}


def test_users(tmp_path: Path) -> None:
    """By email and password, or by an id; the rest goes to their own profile (E.3)."""
    folder = write(
        tmp_path / "seed",
        users=[
            {"email": "a@b.c", "password": "x", "timezone": "UTC"},
            {"id": "u-2", "display_name": "Ada"},
            {"id": "u-3", "email": "a@b.c"},
            {"display_name": "Nobody"},
            {"id": 7},
        ],
    )
    api = FakeApi()
    done = run(api, folder)
    assert done.loaded == {"users": 2}
    assert [problem.split(":")[1] for problem in done.problems] == [" row 3", " row 4", " row 5"]
    client = [one for one in api.asked if "/client/" in one[0]]
    assert [(name, body) for name, body, _ in client] == [
        ("POST /v1/client/auth/email/signup", {"email": "a@b.c", "password": "x"}),
        ("PATCH /v1/client/users/me", {"timezone": "UTC"}),
        ("PATCH /v1/client/users/me", {"display_name": "Ada"}),
    ]
    assert {h[b"x-api-key"] for _, _, h in client} == {b"amb_dev_ck_x"}
    tokens = [h.get(b"authorization") for _, _, h in client]
    assert tokens == [None, b"Bearer session-of-email", b"Bearer session-of-u-2"]


def test_rows_go_in_batches(tmp_path: Path) -> None:
    """By count and by bytes; one row may be larger than a batch (E.5: 500)."""
    most, size = limits.SEED_BATCH_ROWS.value, limits.SEED_BATCH_BYTES.value
    rows: list[dict[str, Any]] = [{"n": n} for n in range(most * 2)]
    rows += [{"t": "x" * size}, {"t": "y" * (size // 2)}, {"t": "z" * (size // 2)}, {"n": 0}]
    folder = write(tmp_path / "seed", collections__things=rows)
    api = FakeApi()
    assert run(api, folder).loaded == {"things": len(rows)}
    batches = [body["rows"] for name, body, _ in api.asked if name.endswith("rows:batch")]
    assert [len(batch) for batch in batches] == [most, most, 1, 1, 2]
    assert [row for batch in batches for row in batch] == rows


def test_refusals_are_told(tmp_path: Path) -> None:
    """With file, row, the API's code, its words and the place; the others are loaded."""
    where = {"code": "INVALID_INPUT", "message": "no", "details": {"field": "$.x"}}
    wrong = (400, {"error": where})
    folder = write(
        tmp_path / "seed",
        config={"a": 1},
        currencies=[{"code": "gold"}, {"code": "gem"}],
        users=[{"email": "a@b.c", "password": "x", "timezone": "UTC"}],
        collections__a=[{"n": 1}],
        collections__b=[{"n": 1}],
        collections__c=[{"n": 1}],
        collections__d=[{"n": 1}],
    )
    (folder / "balances.json").write_text("{")
    (folder / "collections" / "e.json").write_text("{")
    api = FakeApi(
        {
            "GET config": (501, {"error": {"code": "NOT_EMULATED", "message": "not yet"}}),
            "POST currencies": wrong,
            "POST /v1/client/auth/email/signup": wrong,
            "GET collections/a": wrong,
            "POST collections/b/rows:batch": wrong,
            "GET collections/c/rows": wrong,
            "GET collections/c": (200, {}),
        }
    )
    done = run(api, folder)
    assert done.loaded == {"b": 0, "d": 1}
    said = "400 INVALID_INPUT: no (at $.x)"
    balances, *others = sorted(done.problems)
    assert balances.startswith("seed/balances.json is not JSON")
    assert others[-3:] == [
        f"seed/currencies.json: row 1: {said}",
        f"seed/currencies.json: row 2: {said}",
        f"seed/users.json: row 1: {said}",
    ]
    assert others[:-3] == [
        f"seed/collections/a.json: {said}",
        f"seed/collections/b.json: rows 1 to 1: {said}",
        f"seed/collections/c.json: {said}",
        *[problem for problem in others if "e.json is not JSON" in problem],
        "seed/config.json: 501 NOT_EMULATED: not yet",
    ]
    api = FakeApi({"POST collections": wrong})
    assert f"seed/collections/a.json: {said}" in run(api, folder).problems


def test_problems_are_bounded(tmp_path: Path) -> None:
    """So many rows are told, and no more (house rule: bounded)."""
    folder = write(tmp_path / "seed", currencies=[{}] * 100)
    api = FakeApi({"POST currencies": (400, {"error": {}})})
    assert len(run(api, folder).problems) == limits.PROBLEMS_SHOWN.value

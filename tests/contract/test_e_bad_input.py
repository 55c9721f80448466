"""Bad input to every endpoint of contract part E (issue 5, its list): SQL and other hostile text in
every string, bodies that are no JSON, and bodies of 10 MiB."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.contract.platform_rows import CLIENT, Row, rows
from tests.contract.test_e_endpoints import Tenant, filled, furnish, say
from tests.router.control.world import World

from amba_router.api.operations import Reads

pytestmark = pytest.mark.slow

HOSTILE = (
    "'; DROP TABLE app_users; --",
    "%' OR 1=1 UNION SELECT sealed FROM secrets --",
    '" OR ""="',
    "$1 ? :x \\",
    "a\0b",
    "\u202e\U0001f989\u2028",
    "../../../etc/passwd",
    "x" * 70_000,
)


def variants(value: Any, text: str) -> Iterator[Any]:
    """The value with one of its texts replaced, for each."""
    if isinstance(value, str):
        yield text
        return
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    elif isinstance(value, list):
        items = list(enumerate(value[:2]))  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
    for key, member in items:
        for variant in variants(member, text):
            made: Any = copy.copy(value)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
            made[key] = variant
            yield made


def requests(row: Row, made: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """(target, body): each text of body, path and query hostile, one at a time."""
    values = made | {name: filled(value, made) for name, value in row.good.path.items()}
    target = f"/v1{filled(row.path, values)}"
    query = f"?{row.good.query}" if row.good.query else ""
    body = filled(row.good.body, values)
    for text in HOSTILE:
        for variant in variants(body, text):
            yield f"{target}{query}", variant
        encoded = quote(text[:2_000], safe="")
        for name in ("project", *values):
            if f"{{{name}}}" in row.path and name != "project":
                yield f"/v1{filled(row.path, values | {name: encoded})}{query}", body
        for pair in row.good.query.split("&") if row.good.query else ():
            name = pair.partition("=")[0]
            yield f"{target}?{name}={encoded}", body


def test_no_text_is_taken_for_anything_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is kept, not found, or refused with a 4xx: never a failure of ours, and every table is
    there afterwards, with what it had."""

    async def main() -> tuple[list[str], int]:
        wrong: list[str] = []
        count = 0
        async with World(tmp_path) as world:
            mine, bystander = await furnish(world, "Shop"), await furnish(world, "Bystander")
            before = await _kept(world, bystander)
            for row in rows():
                if row.method == "DELETE" and row.path.endswith("{doomed}"):
                    continue
                for target, body in requests(row, mine.made):
                    got = await say(world, mine, row.who, row.method, target, body)
                    count += 1
                    if got.status >= 500:
                        wrong.append(f"{row.id}: {got.status} {target[:120]} {str(body)[:200]}")
            assert await _kept(world, bystander) == before
        return wrong, count

    with caplog.at_level(logging.ERROR, "amba"):
        wrong, count = asyncio.run(main())
    print(f"{count} requests with hostile text")
    assert wrong == []
    assert [record.getMessage() for record in caplog.records] == []
    assert count > 1_000


async def _kept(world: World, tenant: Tenant) -> list[bytes]:
    """What another project has."""
    base = f"/v1/admin/projects/{tenant.made['project']}"
    paths = ("/users", "/collections", "/currencies", "/segments", "/events", "/ai/prompts")
    return [(await world.get(base + path)).raw for path in paths]


NO_JSON = {
    "not a number": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "half a pair": b'{"a": "\\ud800"}',
    "no UTF-8": b'{"a": "\xff"}',
    "another encoding": '{"a": 1}'.encode("utf-16"),
    "two values": b"{} {}",
    "a comment": b'{"a": 1 /* b */}',
    "cut off": b'{"a": ',
    "too deep": b'{"a":' + b"[" * 70 + b"]" * 70 + b"}",
}


def test_what_is_no_json_is_nobodys(tmp_path: Path) -> None:
    """400 of every operation that reads JSON, before anything is done."""

    async def main() -> list[str]:
        wrong: list[str] = []
        async with World(tmp_path) as world:
            tenant = await furnish(world, "Shop")
            for method, target, who in await _readers(world, tenant):
                for name, raw in NO_JSON.items():
                    got = await _raw(world, tenant, who, method, target, raw)
                    if got[0] != 400:
                        wrong.append(f"{method} {target} took {name}: {got}")
        return wrong

    assert asyncio.run(main()) == []


def test_ten_mebibytes_are_too_many(tmp_path: Path) -> None:
    """413 of every operation that reads JSON, but for a batch of rows, which may be as large."""
    body = b'{"a": "' + b"x" * (10 * 1024 * 1024) + b'"}'

    async def main() -> dict[str, tuple[int, str]]:
        answers: dict[str, tuple[int, str]] = {}
        async with World(tmp_path) as world:
            tenant = await furnish(world, "Shop")
            for method, target, who in await _readers(world, tenant):
                got = await _raw(world, tenant, who, method, target, body)
                if got != (413, "PAYLOAD_TOO_LARGE"):
                    answers[f"{method} {target.partition('/collections')[2] or target}"] = got
        return answers

    assert asyncio.run(main()) == {"POST /letters/rows:batch": (400, "INVALID_INPUT")}


async def _readers(world: World, tenant: Tenant) -> list[tuple[str, str, str]]:
    """(method, target, who) of every operation that reads JSON."""
    await world.get("/v1/openapi.json", token=None)
    table = world.app._table()[0]  # pyright: ignore[reportPrivateUsage]
    ids = {**tenant.made, "project_id": tenant.made["project"], "name": "letters"}
    found: list[tuple[str, str, str]] = []
    for operation in table.operations:
        if operation.reads not in (Reads.JSON, Reads.MAYBE_JSON):
            continue
        segments = [
            ids.get(part[1:-1], tenant.made["user"]) if part.startswith("{") else part
            for part in operation.path.split("/")
        ]
        client = operation.path.startswith("/client")
        found.append((operation.method, "/v1" + "/".join(segments), CLIENT if client else "admin"))
    assert len(found) > 50
    return found


async def _raw(
    world: World, tenant: Tenant, who: str, method: str, target: str, raw: bytes
) -> tuple[int, str]:
    made = tenant.made
    token = made["session"] if who == CLIENT else world.pat
    if target.startswith("/v1/ai/") or "/internal/" in target:
        token = made["internal"]
    headers = [("x-api-key", made["client_key"])] if who == CLIENT else []
    got = await world.ask(method, target, raw, token=token, headers=headers)
    return got.status, json.loads(got.raw)["error"]["code"] if got.status >= 400 else ""

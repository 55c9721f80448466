"""A folder of seeds on the services themselves: rows, users, balances, config (issue 5)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import World

from amba_run.seeding import Seeded, Seeder

for _service in ("collections", "users", "config", "currencies"):
    pytest.importorskip(f"amba_router.services.{_service}.routes")


def write(folder: Path, **files: str) -> Path:
    """Files by name, `__` for a folder and the last `_` for the dot."""
    for name, text in files.items():
        path = folder / ".".join(name.replace("__", "/").rsplit("_", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def seeder(world: World, project: Any) -> Seeder:
    return Seeder(
        world.app,
        project_id=project["id"],
        pat=world.pat,
        client_key=project["api_keys"]["client"]["key"],
        session=lambda user_id: world.session(project["id"], user_id),
    )


COLUMNS = [
    {"name": "title", "type": "text"},
    {"name": "price", "type": "numeric", "nullable": True},
    {"name": "tags", "type": "jsonb", "nullable": True},
    {"name": "sold", "type": "boolean", "nullable": True},
]


def test_all_kinds(tmp_path: Path) -> None:
    """Each is there as the API gives it, and a second run adds nothing."""
    folder = write(
        tmp_path / "seed",
        currencies_csv="code,name,is_premium,initial_balance\ngold,Gold,false,5\ngem,Gem,true,\n",
        users_json=json.dumps(
            [
                {"id": "u-1", "display_name": "Ada"},
                {"id": "u-2"},
                {"email": "bob@example.com", "password": "correct horse", "timezone": "UTC"},
            ]
        ),
        balances_jsonl='{"app_user_id": "u-1", "currency_code": "gold", "amount": 70}\n',
        config_json=json.dumps({"theme": "dark", "limit": 3, "on": True, "list": [1, "x"]}),
        collections__orders_json=json.dumps([{"n": 1, "note": None}, {"n": 2, "note": "x"}]),
        collections__products_csv='title,price,tags,sold\nA,1.5,"[1]",true\nB,,,\n',
    )
    (folder / "collections" / "products.schema.json").write_text(json.dumps({"columns": COLUMNS}))

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            done = await seeder(world, project).run(folder)
            assert done == Seeded(
                {
                    "currencies": 2,
                    "users": 3,
                    "balances": 1,
                    "config": 4,
                    "orders": 2,
                    "products": 2,
                }
            )
            assert await seeder(world, project).run(folder) == Seeded()
            base = f"/v1/admin/projects/{project['id']}"
            rows = (await world.get(f"{base}/collections/products/rows")).data
            said = sorted((r["title"], r["price"], r["tags"], r["sold"]) for r in rows)
            assert said == [("A", 1.5, [1], True), ("B", None, None, None)]
            columns = (await world.get(f"{base}/collections/orders")).data["columns"]
            types = {c["name"]: c["type"] for c in columns if not c["managed"]}
            assert types == {"n": "integer", "note": "text"}
            users = (await world.get(f"{base}/users")).data
            assert {(u["display_name"], u["email"]) for u in users} >= {("Ada", None)}
            assert {u["id"] for u in users} >= {"u-1", "u-2"}
            got = await world.as_client("GET", "/client/config", project=project)
            assert got.data == {"theme": "dark", "limit": 3, "on": True, "list": [1, "x"]}
            got = await world.as_client("GET", "/client/currencies", project=project, user="u-1")
            balance = {row["currency_code"]: row["balance"] for row in got.data}
            assert balance["gold"] >= 70

    asyncio.run(main())


def test_a_row_that_is_refused(tmp_path: Path) -> None:
    """Is told with its file and row, and the rest is loaded."""
    folder = write(
        tmp_path / "seed",
        currencies_json=json.dumps([{"code": "gold", "name": "Gold"}, {"code": "x"}]),
        users_json=json.dumps([{"id": "u-1", "email": "a@b.c"}, {"id": "u-2", "timezone": "Mars"}]),
        collections__Bad_json="[]",
        collections__rows_json=json.dumps([{"n": 1}, {"n": 2, "created_by": {"deep": 1}}]),
    )
    (folder / "collections" / "rows.schema.json").write_text(
        json.dumps({"columns": [{"name": "n", "type": "integer"}]})
    )

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            done = await seeder(world, project).run(folder)
            assert done.loaded["currencies"] == 1
            told = [problem.split(": ")[:2] for problem in done.problems]
            assert told[0] == ["seed/currencies.json", "row 2"]
            assert told[1:3] == [["seed/users.json", "row 1"], ["seed/users.json", "row 2"]]
            assert told[3][0] == "seed/collections/Bad.json"
            assert told[4] == ["seed/collections/rows.json", "rows 1 to 2"]

    asyncio.run(main())

"""Contract J, check 10: remote config, from the developer's writes to what a client is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.router.control.world import Got, World

RULES = {"operator": "AND", "conditions": [{"field": "timezone", "op": "exists"}]}


async def ask(world: World, project: Any, user: str = "", tag: str = "") -> Got:
    """`GET /client/config` of an API key, a session beside it if there is a user."""
    headers = [("x-api-key", project["api_keys"]["client"]["key"])]
    if tag:
        headers.append(("if-none-match", tag))
    token = world.session(project["id"], user) if user else None
    return await world.get("/v1/client/config", token=token, headers=headers)


def test_contract_J_10_remote_config(tmp_path: Path) -> None:
    """The first condition that holds wins; tags, 304 and caching; versions; the PUT alias."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            base = f"/v1/admin/projects/{project['id']}"
            segment = (await world.post(f"{base}/segments", {"name": "T", "rules": RULES})).data
            config = {
                "key": "theme",
                "value": "plain",
                "conditions": [
                    {"segment_id": segment["id"], "value": "travel"},
                    {"percentage": 100, "value": "everybody"},
                ],
            }
            made = (await world.post(f"{base}/config", config)).data
            assert (made["version"], made["default_value"]) == (1, "plain")
            await world.as_client("GET", "/v1/client/users/me", project=project, user="at-home")
            away = {"timezone": "Europe/Paris"}
            await world.as_client(
                "PATCH", "/v1/client/users/me", away, project=project, user="away"
            )
            await world.post(f"{base}/segments/{segment['id']}/evaluate")

            nobody = await ask(world, project)
            assert nobody.data == {"theme": "plain"}  # anonymous callers get defaults
            assert nobody.headers["cache-control"] == "private, max-age=300"
            at_home, travelling = (
                await ask(world, project, "at-home"),
                await ask(world, project, "away"),
            )
            assert (at_home.data, travelling.data) == ({"theme": "everybody"}, {"theme": "travel"})
            assert at_home.headers["cache-control"] == "private, max-age=60"
            assert "Authorization" in at_home.headers["vary"]
            tag = nobody.headers["etag"]
            assert at_home.headers["etag"].startswith(f"{tag[:-1]}:at-home:")

            same = await ask(world, project, tag=tag)
            assert (same.status, same.raw) == (304, b"")
            described = await world.ask(
                "PATCH", f"{base}/config/theme", b'{"description": "of pages"}'
            )
            assert described.data["version"] == 1
            changed = await ask(world, project, tag=tag)
            assert (changed.status, changed.data) == (200, {"theme": "plain"})
            assert changed.headers["etag"] != tag

            # what the real command line's `config set` sends
            put = await world.ask(
                "PUT",
                f"{base}/config/theme",
                b'{"key": "theme", "value": "dark", "value_type": "string"}',
            )
            assert put.data["version"] == 2
            assert (await ask(world, project)).data == {"theme": "dark"}

    asyncio.run(main())

"""What a search by text costs, and whose budget bounds it (contract E.5, E.10; ours)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import Got
from tests.router.services.ai.ai_world import AiWorld, FakeUpstream
from tests.router.services.ai.test_gateway import with_key

BOOKS = {
    "name": "books",
    "columns": [{"name": "embedding", "type": "vector", "dimension": 2, "nullable": True}],
}
VECTOR = json.dumps(
    {"data": [{"embedding": [0.5, 0.5]}], "usage": {"prompt_tokens": 1_000_000}}
).encode()
PAYER = {"name": "find-nearest", "template": "-", "system": None}


async def library(world: AiWorld, *, key: bool) -> Any:
    """A project with a collection of vectors. Args: key: a real provider makes them."""
    project = await world.project()
    if key:
        await with_key(world, "openai", project)
    base = f"/v1/admin/projects/{project['id']}/collections"
    assert (await world.post(base, BOOKS)).status == 201
    return project


async def search(world: AiWorld, project: Any, text: str = "rivers") -> Got:
    """As a signed-in user."""
    body = {"to_text": text, "k": 1}
    target = "/v1/client/collections/books/find-nearest"
    return await world.as_client("POST", target, body, project=project, user="u_1")


async def spent(world: AiWorld, project: Any) -> float:
    """By the prompt that pays."""
    target = f"/v1/admin/projects/{project['id']}/ai/prompts/find-nearest/spend"
    return float((await world.get(target)).data["spent_usd"])


@pytest.mark.parametrize("key", [False, True], ids=["canned", "real"])
def test_a_search_is_paid_for(tmp_path: Path, key: bool) -> None:
    """By the prompt `find-nearest`, until its budget is spent: then 402, and nobody is asked."""

    async def main() -> None:
        upstream = FakeUpstream(pieces=(VECTOR,))
        async with AiWorld(tmp_path, upstream) as world:
            project = await library(world, key=key)
            await world.prompt(project, **PAYER, budget_usd=0.000_001)
            assert (await search(world, project)).status == 200
            once = await spent(world, project)
            assert once == pytest.approx(3.0) if key else 0 < once < 0.001
            got = await search(world, project)
            assert got.said == (402, "AI_BUDGET_EXCEEDED")
            assert got.details["spent_usd"] == once
            assert len(upstream.asked) == (1 if key else 0)
            assert await spent(world, project) == once
            # one with a vector of its own asks no model
            body = {"to_vector": [1, 0]}
            target = "/v1/client/collections/books/find-nearest"
            got = await world.as_client("POST", target, body, project=project, user="u_1")
            assert got.status == 200
            budget = {"budget_usd": 100, "reset": True}
            await world.ask(
                "PUT",
                f"/v1/admin/projects/{project['id']}/ai/prompts/find-nearest/budget",
                json.dumps(budget).encode(),
            )
            assert (await search(world, project)).status == 200

    asyncio.run(main())


def test_many_at_once_pass_a_canned_budget_once(tmp_path: Path) -> None:
    """Of those who began while something was left one is answered, as with prompts (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await library(world, key=False)
            await world.prompt(project, **PAYER, budget_usd=0.000_001)
            got = await asyncio.gather(*[search(world, project) for _ in range(8)])
            assert sorted(one.status for one in got) == [200, *[402] * 7]

    asyncio.run(main())


def test_without_that_prompt_nobody_pays(tmp_path: Path) -> None:
    """And searches are not bounded."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await library(world, key=False)
            for _ in range(3):
                assert (await search(world, project)).status == 200

    asyncio.run(main())


@pytest.mark.parametrize(
    ("upstream", "why"),
    [
        (FakeUpstream(status=429), "it answered 429"),
        (FakeUpstream(error="no route"), "no route"),
        (FakeUpstream(pieces=(b'{"data": []}',)), "its reply has no vector"),
        (FakeUpstream(pieces=(b"nonsense",)), "the reply is not JSON"),
    ],
)
def test_a_provider_that_fails(tmp_path: Path, upstream: FakeUpstream, why: str) -> None:
    """502 with its reason, and nothing is paid (contract E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path, upstream) as world:
            project = await library(world, key=True)
            await world.prompt(project, **PAYER, budget_usd=5)
            got = await search(world, project)
            assert got.said == (502, "AI_PROVIDER_FAILED")
            assert why in got.body["error"]["message"]
            assert await spent(world, project) == 0

    asyncio.run(main())

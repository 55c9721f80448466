"""Prompts, their budgets, providers' keys; calls of prompts by clients and admins (E.10)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.router.services.ai.ai_world import (
    EMBED,
    MESSAGES,
    PROMPT,
    VARIABLES,
    AiWorld,
    FakeUpstream,
    events_of,
)
from tests.router.services.ai.test_gateway import with_key

from amba_router.store import ai_rows
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_runtime import limits

CLIENT = "/client/ai/anthropic/messages"
FILLED = "Sum up the news for children."


def base(project: Any) -> str:
    return f"/v1/admin/projects/{project['id']}/ai"


def test_large_prompts_end_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AI_PROMPTS_PAGE bytes; one is always given, offset + limit is the next page's (ours)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            target = f"{base(project)}/prompts"
            for name, length in (("a", 1), ("b", 1), ("c", 900), ("d", 1)):
                await world.prompt(project, name=name, system=None, template="ä" * length)
            monkeypatch.setattr(limits, "AI_PROMPTS_PAGE", replace(limits.AI_PROMPTS, value=1000))
            pages: list[str] = []
            offset = 0
            while True:
                got = await world.get(f"{target}?offset={offset}")
                pages.append("".join(row["name"] for row in got.data))
                offset = got.body["offset"] + got.body["limit"]
                if offset >= got.body["total"]:
                    break
            assert pages == ["ab", "c", "d"]

    asyncio.run(main())


def test_prompts_are_kept(tmp_path: Path) -> None:
    """Created, read, listed by name, changed in part, deleted (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            target = f"{base(project)}/prompts"
            made = await world.prompt(project)
            assert made["id"]
            assert {
                k: v for k, v in made.items() if k not in ("id", "created_at", "updated_at")
            } == {
                **PROMPT,
                "provider": "anthropic",
                "options": {"max_tokens": 1024, "temperature": None, "stop": []},
                "variables": ["tone", "text", "reader"],
                "client_invokable": False,
                "budget_usd": None,
                "spent_usd": 0.0,
            }
            await world.prompt(project, name="a-first", system=None, budget_usd=2)
            got = await world.get(f"{target}?limit=1")
            assert [row["name"] for row in got.data] == ["a-first"]
            assert (got.body["total"], got.body["offset"], got.body["limit"]) == (2, 0, 1)
            await world.clock.advance(60)
            change = {
                "template": "{{x}}",
                "client_invokable": True,
                "system": None,
                "options": None,
            }
            got = await world.ask("PATCH", f"{target}/summary", json.dumps(change).encode())
            changed = {
                **made,
                **change,
                "options": made["options"],
                "variables": ["x"],
                "updated_at": "2026-01-01T00:01:00.000Z",
            }
            assert got.data == changed
            await world.restart()
            assert (await world.get(f"{target}/summary")).data == changed
            assert (await world.delete(f"{target}/summary")).data == {
                "name": "summary",
                "deleted": True,
            }
            assert (await world.get(f"{target}/summary")).said == (404, "PROMPT_NOT_FOUND")
            assert (await world.delete(f"{target}/summary")).said == (404, "PROMPT_NOT_FOUND")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"name": "Summary"}, "$.name"),
        ({"name": "../x"}, "$.name"),
        ({"name": "a" * 65}, "$.name"),
        ({"provider": "gemini"}, "$.provider"),
        ({"model": ""}, "$.model"),
        ({"template": ""}, "$.template"),
        ({"template": "x" * (limits.AI_TEMPLATE_CHARS.value + 1)}, "$.template"),
        ({"options": {"max_tokens": 0}}, "$.options.max_tokens"),
        ({"options": {"top_k": 0}}, "$.options"),
        ({"budget_usd": -1}, "$.budget_usd"),
        ({"budget_usd": "much"}, "$.budget_usd"),
        ({"colour": 1}, "$"),
    ],
)
def test_a_bad_prompt(tmp_path: Path, more: Any, field: str) -> None:
    """Each wrong member is named, and nothing is kept (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            target = f"{base(project)}/prompts"
            got = await world.post(target, {**PROMPT, **more})
            assert (got.said, got.details["field"]) == ((400, "INVALID_INPUT"), field)
            assert (await world.get(target)).body["total"] == 0

    asyncio.run(main())


def test_a_name_is_taken_once_and_prompts_are_counted(tmp_path: Path) -> None:
    """409 for a second one of the name; so many and no more (house rule: a limit is reached)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            target = f"{base(project)}/prompts"
            await world.prompt(project, template="x" * limits.AI_TEMPLATE_CHARS.value)
            assert (await world.post(target, PROMPT)).said == (409, "PROMPT_EXISTS")

            def fill(scoped: Scoped) -> None:
                first = ai_rows.prompt(scoped, "summary")
                assert first is not None
                for at in range(2, limits.AI_PROMPTS.value):
                    assert ai_rows.add_prompt(scoped, replace(first, name=f"p{at}"))

            await ProjectStore(world.states).write(project["id"], fill)
            await world.prompt(project, name="last")
            assert (await world.post(target, {**PROMPT, "name": "more"})).said == (409, "CONFLICT")
            assert (await world.prompt(await world.project("B")))["name"] == "summary"

    asyncio.run(main())


# --- calls ---


def test_a_client_calls_a_prompt(tmp_path: Path) -> None:
    """By its slug with variables; Anthropic's shape with `cost_usd` (E.10, S0)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            await world.prompt(project, client_invokable=True)
            asked = {"prompt_slug": "summary", "variables": VARIABLES, "max_tokens": 50}
            got = await world.as_client("POST", CLIENT, asked, project=project, user="u1")
            assert got.status == 200
            body = got.body
            assert body["content"][0]["text"].endswith(f"You said: {FILLED}")
            assert body["model"] == PROMPT["model"]
            assert set(body["usage"]) == {
                *("input_tokens", "output_tokens"),
                *("cache_creation_input_tokens", "cache_read_input_tokens"),
            }
            used = body["usage"]
            cost = (used["input_tokens"] * 3 + used["output_tokens"] * 15) / 1e6
            assert body["cost_usd"] == pytest.approx(cost)
            spend = await world.get(f"{base(project)}/prompts/summary/spend")
            assert spend.data["spent_usd"] == pytest.approx(cost)
            asked["stream"] = True
            got = await world.as_client("POST", CLIENT, asked, project=project, user="u1")
            assert events_of(got.raw)[-1] == ("", "[DONE]")

    asyncio.run(main())


def test_who_calls_a_prompt(tmp_path: Path) -> None:
    """A session; a prompt that is not for clients takes a server key (E.10, H-9)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            await world.prompt(project)
            asked = {"prompt_slug": "summary", "variables": VARIABLES}
            invoke = "/client/ai/prompts/summary/invoke"
            calls = ((CLIENT, asked), (invoke, {"context": VARIABLES}))
            for target, body in calls:
                got = await world.as_client("POST", target, body, project=project)
                assert got.said == (401, "UNAUTHORIZED")
                got = await world.as_client("POST", target, body, project=project, user="u1")
                assert got.said == (403, "not_client_invokable")
                got = await world.as_user("POST", target, body, project=project, user="u1")
                assert got.status == 200
            other = await world.project("B")
            for target, body in calls:
                got = await world.as_client("POST", target, body, project=other, user="u1")
                assert got.said == (404, "PROMPT_NOT_FOUND")

    asyncio.run(main())


def test_invoke_gives_the_providers_reply_as_it_is(tmp_path: Path) -> None:
    """With further messages and fewer tokens; for a prompt of OpenAI's its shape (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            await world.prompt(project, client_invokable=True, provider="openai")
            target = "/client/ai/prompts/summary/invoke"
            more = [
                {"role": "assistant", "content": "Yes?"},
                {"role": "user", "content": "Shorter"},
            ]
            asked = {"context": VARIABLES, "messages": more, "max_tokens": 500}
            got = await world.as_client("POST", target, asked, project=project, user="u1")
            body = got.body
            assert body["object"] == "chat.completion"
            assert body["choices"][0]["message"]["content"].endswith("You said: Shorter")
            assert "cost_usd" not in body
            asked["messages"] = [{"role": "robot", "content": ""}]
            got = await world.as_client("POST", target, asked, project=project, user="u1")
            assert (got.said, got.details["field"]) == (
                (400, "INVALID_INPUT"),
                "$.messages[2].role",
            )
            got = await world.as_client(
                "POST", CLIENT, {"prompt_slug": "summary"}, project=project, user="u1"
            )
            assert (got.said, got.details["field"]) == ((400, "INVALID_INPUT"), "$.prompt_slug")

    asyncio.run(main())


def test_what_a_provider_is_sent_for_a_prompt(tmp_path: Path) -> None:
    """Texts filled in, the caller's numbers before the prompt's, the cache mark (E.10)."""
    upstream = FakeUpstream(pieces=(b'{"usage":{"input_tokens":1,"output_tokens":2}}',))

    async def main() -> None:
        async with AiWorld(tmp_path, upstream) as world:
            project = await with_key(world)
            await with_key(world, "openai", project)
            options = {"max_tokens": 7, "temperature": 0.5, "stop": ["END"]}
            await world.prompt(project, client_invokable=True, options=options)
            await world.prompt(project, name="chat", provider="openai", options=options)
            asked: dict[str, Any] = {"prompt_slug": "summary", "variables": VARIABLES}
            for more in ({}, {"max_tokens": 9, "temperature": 0, "enable_prompt_cache": True}):
                await world.as_client("POST", CLIENT, {**asked, **more}, project=project, user="u1")
            await world.post(f"{base(project)}/messages", {**asked, "prompt_slug": "chat"})
            bodies = [json.loads(call["body"]) for call in upstream.asked]
            said = {"role": "user", "content": FILLED}
            assert bodies[0] == {
                "model": PROMPT["model"],
                "max_tokens": 7,
                "temperature": 0.5,
                "stop_sequences": ["END"],
                "system": "You are brief.",
                "messages": [said],
            }
            assert (bodies[1]["max_tokens"], bodies[1]["temperature"]) == (9, 0)
            assert bodies[1]["system"] == [
                {
                    "type": "text",
                    "text": "You are brief.",
                    "cache_control": {"type": "ephemeral"},
                }
            ]
            assert bodies[2] == {
                "model": PROMPT["model"],
                "max_completion_tokens": 7,
                "temperature": 0.5,
                "stop": ["END"],
                "messages": [{"role": "system", "content": "You are brief."}, said],
            }

    asyncio.run(main())


def test_variables(tmp_path: Path) -> None:
    """Missing ones are named; values are not templates; what is no text is JSON (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            await world.prompt(
                project, client_invokable=True, template="{{a}} {{ b }} {{a}} {{c d}}"
            )
            asked: dict[str, Any] = {"prompt_slug": "summary", "variables": {"a": "x"}}
            got = await world.as_client("POST", CLIENT, asked, project=project, user="u1")
            assert got.said == (400, "MISSING_VARIABLES")
            assert got.details == {"field": "$.variables", "missing": ["tone", "b"]}
            assert "tone, b" in got.body["error"]["message"]
            asked["variables"] = {"a": "{{b}}", "b": {"n": [1, None]}, "tone": 7, "unused": 1}
            got = await world.as_client("POST", CLIENT, asked, project=project, user="u1")
            said = got.body["content"][0]["text"]
            assert said.endswith('You said: {{b}} {"n": [1, null]} {{b}} {{c d}}')

    asyncio.run(main())


def test_a_prompt_that_grows(tmp_path: Path) -> None:
    """Filled in it has so many bytes at most, counted before it is made (house rule: bounded)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            await world.prompt(project, template="{{a}}" * 64, system=None)
            room = limits.AI_RENDERED_BYTES.value - 64 * len("{{a}}")
            target = f"{base(project)}/messages"
            for size, status in ((room // 64, 200), (room // 64 + 1, 413)):
                asked = {"prompt_slug": "summary", "variables": {"a": "x" * size}}
                assert (await world.post(target, asked)).status == status
            asked = {"prompt_slug": "summary", "variables": {f"v{n}": 1 for n in range(257)}}
            got = await world.post(target, asked)
            assert (got.said, got.details["field"]) == ((400, "INVALID_INPUT"), "$.variables")

    asyncio.run(main())


def test_an_admin_calls(tmp_path: Path) -> None:
    """By prompt or with messages, in `{data}`; embeddings, too (E.0, E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            await world.prompt(project)
            target = f"{base(project)}/messages"
            got = await world.post(target, {"prompt_slug": "summary", "variables": VARIABLES})
            assert got.data["content"][0]["text"].endswith(FILLED)
            assert got.data["cost_usd"] > 0
            asked = {**MESSAGES, "system": "Be brief"}
            assert (await world.post(target, asked)).data["type"] == "message"
            got = await world.post(target, {**asked, "provider": "openai"})
            assert got.data["object"] == "chat.completion"
            for missing in ("model", "messages"):
                asked = {k: v for k, v in MESSAGES.items() if k != missing}
                got = await world.post(target, asked)
                assert (got.said, got.details["field"]) == (
                    (400, "INVALID_INPUT"),
                    f"$.{missing}",
                )
            got = await world.post(f"{base(project)}/embeddings", EMBED)
            assert len(got.data["embeddings"][0]) == 1536
            got = await world.post(
                f"{base(project)}/embeddings", {**EMBED, "provider": "anthropic"}
            )
            assert got.said == (400, "INVALID_INPUT")

    asyncio.run(main())


def test_recorded_replies(tmp_path: Path) -> None:
    """A file by the prompt's name answers its calls, before a real provider would (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await with_key(world)
            await with_key(world, "openai", project)
            await world.prompt(project, client_invokable=True)
            await world.prompt(project, name="chat", provider="openai", client_invokable=True)
            asked: dict[str, Any] = {"prompt_slug": "summary", "variables": VARIABLES}

            async def call() -> Any:
                return await world.as_client("POST", CLIENT, asked, project=project, user="u1")

            async def invoke() -> Any:
                target = "/client/ai/prompts/chat/invoke"
                body = {"context": VARIABLES}
                return await world.as_client("POST", target, body, project=project, user="u1")

            world.record("summary", {"text": "Snow in June"})
            assert (await call()).body["content"][0]["text"] == "Snow in June"
            whole = {
                "content": [{"type": "text", "text": "As it was"}, {"type": "tool_use"}],
                "x": 1,
            }
            world.record("summary", {"response": whole})
            body = (await call()).body
            assert body.pop("cost_usd") > 0
            assert body == whole
            asked["stream"] = True
            deltas = [
                d["delta"]["text"]
                for n, d in events_of((await call()).raw)
                if "delta" in n and n != "message_delta"
            ]
            assert "".join(deltas) == "As it was"
            world.record(
                "summary", {"status": 429, "retry_after": 7, "response": {"type": "error"}}
            )
            got = await call()
            assert (got.status, got.body, got.headers["retry-after"]) == (
                429,
                {"type": "error"},
                "7",
            )
            recorded = {"choices": [{"message": {"content": "Hi"}}]}
            world.record("chat", {"response": recorded})
            assert (await invoke()).body == recorded
            world.record("chat", {"text": "Words"})
            assert (await invoke()).body["choices"][0]["message"]["content"] == "Words"
            world.record("chat", {"status": 500, "response": {"e": 1}})
            got = await invoke()
            assert (got.status, got.body) == (500, {"e": 1})
            assert world.upstream.asked == []

    asyncio.run(main())


@pytest.mark.parametrize(
    "fixture",
    [
        b"not json",
        {},
        {"text": "a", "response": {}},
        {"text": "a", "status": 429},
        {"text": 7},
        {"txt": "a"},
        {"response": {}, "status": 99},
        b" " * (limits.AI_FIXTURE_BYTES.value + 1),
        None,
    ],
    ids=range(9),
)
def test_a_bad_recorded_reply(tmp_path: Path, fixture: Any) -> None:
    """500 with the file's name and what is wrong; no folder of ours is named (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            await world.prompt(project)
            if fixture is None:
                (world.fixtures / "summary.json").mkdir()
            else:
                world.record("summary", fixture)
            asked = {"prompt_slug": "summary", "variables": VARIABLES}
            got = await world.post(f"{base(project)}/messages", asked)
            assert got.said == (500, "AI_FIXTURE_INVALID")
            assert got.body["error"]["message"].startswith("summary.json")
            assert str(tmp_path) not in got.raw.decode()

    asyncio.run(main())


def test_a_recorded_reply_of_other_forms(tmp_path: Path) -> None:
    """A reply without words streams none, and is given whole as it is (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            await world.prompt(project, client_invokable=True)
            for whole in ({"content": None}, {"content": [7]}, {"other": 1}):
                world.record("summary", {"response": whole})
                asked = {"prompt_slug": "summary", "variables": VARIABLES, "stream": True}
                got = await world.as_client("POST", CLIENT, asked, project=project, user="u1")
                assert "content_block_delta" not in [name for name, _ in events_of(got.raw)]
            await world.prompt(project, name="chat", provider="openai")
            world.record("chat", {"response": {"choices": []}})
            got = await world.post(
                f"{base(project)}/messages", {"prompt_slug": "chat", "variables": VARIABLES}
            )
            assert got.data["choices"] == []

    asyncio.run(main())


# --- budgets ---


def test_a_budget_ends(tmp_path: Path) -> None:
    """402 once it is spent; another one, or a reset, opens it again (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            await world.prompt(project, budget_usd=0.000001)
            target = f"{base(project)}/messages"
            budget = f"{base(project)}/prompts/summary/budget"
            asked = {"prompt_slug": "summary", "variables": VARIABLES}
            first = (await world.post(target, asked)).data["cost_usd"]
            got = await world.post(target, asked)
            assert got.said == (402, "AI_BUDGET_EXCEEDED")
            assert got.details == {"budget_usd": 1e-06, "spent_usd": pytest.approx(first)}
            assert (await world.get(budget)).data == {
                "name": "summary",
                "budget_usd": 1e-06,
                "spent_usd": pytest.approx(first),
                "remaining_usd": 0.0,
            }
            put = json.dumps({"budget_usd": 1e-06, "reset": True}).encode()
            assert (await world.ask("PUT", budget, put)).data["spent_usd"] == 0.0
            assert (await world.post(target, asked)).status == 200
            got = await world.ask("PUT", budget, b'{"budget_usd": null}')
            assert got.data["remaining_usd"] is None
            assert (await world.post(target, asked)).status == 200
            got = await world.ask("PUT", budget, b'{"budget_usd": 1}')
            assert got.data["remaining_usd"] == pytest.approx(1 - 2 * first)
            got = await world.ask("PUT", budget, b'{"budget_usd": -1}')
            assert (got.said, got.details["field"]) == ((400, "INVALID_INPUT"), "$.budget_usd")

    asyncio.run(main())


def test_a_budget_holds_for_calls_at_once(tmp_path: Path) -> None:
    """Of many canned calls at once one goes over the edge, and each reply is paid for (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            await world.prompt(project, budget_usd=1)
            target = f"{base(project)}/messages"
            asked = {"prompt_slug": "summary", "variables": VARIABLES}
            cost = (await world.post(target, asked)).data["cost_usd"]
            budget = f"{base(project)}/prompts/summary/budget"
            body = {"budget_usd": cost * 4.5, "reset": True}
            await world.ask("PUT", budget, json.dumps(body).encode())
            got = await asyncio.gather(*(world.post(target, asked) for _ in range(16)))
            assert sorted(one.status for one in got) == [200] * 5 + [402] * 11
            spent = (await world.get(budget)).data["spent_usd"]
            assert spent == pytest.approx(cost * 5)

    asyncio.run(main())


def test_a_real_calls_cost_is_what_it_used(tmp_path: Path) -> None:
    """Read from the reply, whole or as it streams, also when that breaks off (E.10)."""
    upstream = FakeUpstream(
        pieces=(b'{"usage":{"input_tokens":1000,"output_', b'tokens":100}}'),
    )

    async def main() -> None:
        async with AiWorld(tmp_path, upstream) as world:
            project = await with_key(world)
            await world.prompt(project, client_invokable=True)
            spend = f"{base(project)}/prompts/summary/spend"
            asked: dict[str, Any] = {"prompt_slug": "summary", "variables": VARIABLES}

            async def call() -> Any:
                return await world.as_client("POST", CLIENT, asked, project=project, user="u1")

            assert (await call()).body["cost_usd"] == pytest.approx(0.0045)
            assert (await world.get(spend)).data["spent_usd"] == pytest.approx(0.0045)
            upstream.content_type = b"text/event-stream; charset=utf-8"
            upstream.pieces = (
                b'event: message_start\ndata: {"message":{"usage":{"input_tokens":1000,"out',
                b'put_tokens":1}}}\n\nevent: message_delta\ndata: {"usage":{"output_tokens"',
                b":100}}\n\n",
            )
            asked["stream"] = True
            assert (await call()).raw == b"".join(upstream.pieces)
            assert (await world.get(spend)).data["spent_usd"] == pytest.approx(0.009)
            upstream.breaks = "its reply broke off"
            with pytest.raises(Exception, match="broke off"):
                await call()
            assert (await world.get(spend)).data["spent_usd"] == pytest.approx(0.0135)

    asyncio.run(main())


def test_a_real_reply_that_is_none(tmp_path: Path) -> None:
    """502 for one that breaks off, is too large or no object; a refusal passes and is free."""
    upstream = FakeUpstream()

    async def main() -> None:
        async with AiWorld(tmp_path, upstream) as world:
            project = await with_key(world)
            await world.prompt(project, client_invokable=True)
            asked = {"prompt_slug": "summary", "variables": VARIABLES}
            piece = b" " * limits.MIB
            for pieces, breaks in (
                ((b"[]",), ""),
                ((b"<",), ""),
                ((b"{}",), "its reply broke off"),
                ([piece] * (limits.AI_REPLY_BYTES.value // limits.MIB) + [b"{}"], ""),
            ):
                upstream.pieces, upstream.breaks = pieces, breaks
                got = await world.as_client("POST", CLIENT, asked, project=project, user="u1")
                assert got.said == (502, "AI_PROVIDER_FAILED")
            upstream.status, upstream.pieces, upstream.breaks = 529, (b'{"type":"error"}',), ""
            got = await world.as_client("POST", CLIENT, asked, project=project, user="u1")
            assert (got.status, got.raw) == (529, b'{"type":"error"}')
            got = await world.post(f"{base(project)}/messages", asked)
            assert (got.status, got.raw) == (529, b'{"type":"error"}')
            upstream.status, upstream.pieces = 400, (b"{}",)
            got = await world.post(f"{base(project)}/messages", MESSAGES)
            assert (got.status, got.raw) == (400, b"{}")
            await with_key(world, "openai", project)
            got = await world.post(f"{base(project)}/embeddings", EMBED)
            assert (got.status, got.raw) == (400, b"{}")
            spend = await world.get(f"{base(project)}/prompts/summary/spend")
            assert spend.data["spent_usd"] == 0.0

    asyncio.run(main())


# --- providers ---


def test_providers_keys(tmp_path: Path) -> None:
    """Set, replaced, listed masked, deleted; the key itself is in no answer and no file (E.10)."""
    first, second = "sk-ant-first-0123456789", "sk-ant-second-987654321"

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            target = f"{base(project)}/providers"
            got = await world.post(target, {"name": "anthropic", "api_key": first})
            assert got.status == 201
            assert got.data["api_key_preview"] == "****6789"
            assert first.encode() not in got.raw
            await world.clock.advance(5)
            got = await world.post(target, {"name": "anthropic", "api_key": second})
            await world.post(target, {"name": "mistral", "api_key": "0123456789"})
            got = await world.get(target)
            assert got.body["total"] == 2
            assert got.data[0] == {
                "name": "anthropic",
                "api_key_preview": "****4321",
                "created_at": "2026-01-01T00:00:00.000Z",
                "updated_at": "2026-01-01T00:00:05.000Z",
            }
            assert (await world.get(f"{target}?limit=1&offset=1")).data[0]["name"] == "mistral"
            assert (await world.delete(f"{target}/anthropic")).data["deleted"] is True
            got = await world.delete(f"{target}/anthropic")
            assert got.said == (404, "PROVIDER_NOT_FOUND")
        for file in (tmp_path / "state").rglob("*"):
            if file.is_file():
                assert b"sk-ant-" not in file.read_bytes()

    asyncio.run(main())


def test_a_bad_key(tmp_path: Path) -> None:
    """At least ten characters that a header can carry, of a provider that is known (E.10)."""
    most = limits.AI_KEY_CHARS.value

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            target = f"{base(project)}/providers"
            for name, key, field in (
                ("skynet", "0123456789", "$.name"),
                ("openai", "012345678", "$.api_key"),
                ("openai", "x" * (most + 1), "$.api_key"),
                ("openai", "0123456789\r\nx: y", "$.api_key"),
                ("openai", "0123456789é", "$.api_key"),
            ):
                got = await world.post(target, {"name": name, "api_key": key})
                assert (got.said, got.details["field"]) == ((400, "INVALID_INPUT"), field)
            got = await world.post(target, {"name": "openai", "api_key": "x" * most})
            assert got.status == 201

    asyncio.run(main())


def test_a_provider_with_prompts_stays(tmp_path: Path) -> None:
    """409 with the names of the prompts, and its key is there still (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await with_key(world)
            for at in range(12):
                await world.prompt(project, name=f"p{at:02}")
            await world.prompt(project, name="chat", provider="openai")
            target = f"{base(project)}/providers"
            got = await world.delete(f"{target}/anthropic")
            assert got.said == (409, "PROVIDER_HAS_PROMPTS")
            assert got.details == {"prompts": [f"p{at:02}" for at in range(10)], "count": 12}
            assert (await world.get(target)).body["total"] == 1

    asyncio.run(main())


def test_another_projects_prompts_and_keys(tmp_path: Path) -> None:
    """Are not there, in any position, and nothing of them changes (isolation)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            mine, other = await world.project(), await with_key(world)
            await world.prompt(other)
            token = await world.internal(mine["id"])
            target = f"{base(mine)}/prompts/summary"
            change = b'{"budget_usd": 7}'
            for method, path, body in (
                ("GET", target, b""),
                ("PATCH", target, change),
                ("DELETE", target, b""),
                ("GET", f"{target}/budget", b""),
                ("PUT", f"{target}/budget", change),
                ("GET", f"{target}/spend", b""),
            ):
                got = await world.ask(method, path, body, token=token)
                assert got.said == (404, "PROMPT_NOT_FOUND")
                got = await world.ask(
                    method, path.replace(mine["id"], other["id"]), body, token=token
                )
                assert got.said == (403, "WRONG_PROJECT")
            got = await world.delete(f"{base(mine)}/providers/anthropic")
            assert got.said == (404, "PROVIDER_NOT_FOUND")
            asked = {"prompt_slug": "summary", "variables": VARIABLES}
            got = await world.post(f"{base(mine)}/messages", asked)
            assert got.said == (404, "PROMPT_NOT_FOUND")
            assert (await world.get(f"{base(mine)}/prompts")).data == []
            assert (await world.get(f"{base(mine)}/providers")).data == []
            kept = (await world.get(f"{base(other)}/prompts/summary")).data
            assert (kept["budget_usd"], kept["spent_usd"]) == (None, 0.0)

    asyncio.run(main())


def test_a_sealed_key_keeps_the_key_file(tmp_path: Path) -> None:
    """What is sealed there needs the file `key`: without it nothing starts (STATE_KEY)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            await with_key(world)

    asyncio.run(main())
    from amba_router.store.database import Database
    from amba_router.store.repair import load_sealer
    from amba_router.store.schema import api_keys, credentials
    from amba_runtime.errors import UserCode, UserError

    (tmp_path / "state" / "key").unlink()
    database = Database(tmp_path / "state" / "amba.db")
    try:

        def forget(c: Any) -> None:
            c.execute(api_keys.delete())
            c.execute(credentials.delete())

        database.write_here(forget)
        with pytest.raises(UserError) as raised:
            load_sealer(tmp_path / "state", database)
        assert raised.value.code is UserCode.STATE_KEY
    finally:
        database.close()

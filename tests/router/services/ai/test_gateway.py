"""`/ai/...` as functions call it: canned replies, streams, errors, real providers (E.10, H-29)."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tests.router.services.ai.ai_world import (
    CHAT,
    EMBED,
    MESSAGES,
    VARIABLES,
    AiWorld,
    FakeUpstream,
    events_of,
)

from amba_router.api.faults import Refused
from amba_router.services.ai.canned import embed
from amba_runtime import limits

SAID = "Canned reply of amba-run: no AI provider was asked. You said: Name three rivers"


def test_a_message_of_anthropics(tmp_path: Path) -> None:
    """The provider's own shape with usage and stop reason; the same call, the same bytes (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            got = await world.gateway("anthropic/messages", MESSAGES, project=project)
            assert got.status == 200
            assert got.headers["content-type"] == "application/json"
            body = got.body
            assert body.pop("id").startswith("msg_")
            used = body.pop("usage")
            assert body == {
                "type": "message",
                "role": "assistant",
                "model": "claude-sonnet-4-5",
                "content": [{"type": "text", "text": SAID}],
                "stop_reason": "end_turn",
                "stop_sequence": None,
            }
            assert used["input_tokens"] > 10
            assert 10 < used["output_tokens"] <= 200
            again = await world.gateway("anthropic/messages", MESSAGES, project=project)
            assert again.raw == got.raw
            assert world.upstream.asked == []

    asyncio.run(main())


def test_a_completion_of_openais(tmp_path: Path) -> None:
    """The provider's own shape with usage and finish reason (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            body = (await world.gateway("openai/chat/completions", CHAT, project=project)).body
            assert body["object"] == "chat.completion"
            assert body["id"].startswith("chatcmpl-")
            choice = body["choices"][0]
            assert choice["message"] == {"role": "assistant", "content": SAID, "refusal": None}
            assert choice["finish_reason"] == "stop"
            used = body["usage"]
            assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("more", "text", "reason", "stop"),
    [
        ({"max_tokens": 2}, "Canned reply", "max_tokens", None),
        ({"stop_sequences": ["of", "reply"]}, "Canned ", "stop_sequence", "reply"),
        ({"stop_sequences": ["nowhere"]}, SAID, "end_turn", None),
    ],
)
def test_why_a_message_ends(tmp_path: Path, more: Any, text: str, reason: str, stop: str) -> None:
    """`max_tokens` and `stop_sequences` end a reply, and it says which did (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            asked = {**MESSAGES, **more}
            body = (await world.gateway("anthropic/messages", asked, project=project)).body
            said = body["content"][0]["text"]
            assert (said, body["stop_reason"], body["stop_sequence"]) == (text, reason, stop)
            streamed = await world.gateway(
                "anthropic/messages", {**asked, "stream": True}, project=project
            )
            ending = [data for name, data in events_of(streamed.raw) if name == "message_delta"]
            assert ending[0]["delta"] == {"stop_reason": reason, "stop_sequence": stop}

    asyncio.run(main())


def test_openais_other_limits(tmp_path: Path) -> None:
    """`max_completion_tokens` wins, `stop` is one text or several (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            for more, content, reason in (
                ({"max_tokens": 90, "max_completion_tokens": 2}, "Canned reply", "length"),
                ({"max_tokens": 1}, "Canned", "length"),
                ({"stop": " of"}, "Canned reply", "stop"),
                ({"stop": [" of", ""]}, "Canned reply", "stop"),
            ):
                asked = {**CHAT, **more}
                got = await world.gateway("openai/chat/completions", asked, project=project)
                choice = got.body["choices"][0]
                assert (choice["message"]["content"], choice["finish_reason"]) == (content, reason)

    asyncio.run(main())


def test_a_stream_of_anthropics(tmp_path: Path) -> None:
    """Its event sequence; the words and the usage are those of the whole reply; `[DONE]` (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            asked = {**MESSAGES, "stream": True}
            got = await world.gateway("anthropic/messages", asked, project=project)
            assert got.headers["content-type"] == "text/event-stream; charset=utf-8"
            events = events_of(got.raw)
            names = [name for name, _ in events]
            deltas = names.count("content_block_delta")
            assert deltas > 5
            assert names == [
                *("message_start", "content_block_start", "ping"),
                *["content_block_delta"] * deltas,
                *("content_block_stop", "message_delta", "message_stop", ""),
            ]
            assert all(data["type"] == name for name, data in events[:-1])
            assert events[-1] == ("", "[DONE]")
            text = "".join(d["delta"]["text"] for n, d in events if n == "content_block_delta")
            assert text == SAID
            assert events[-3][1]["usage"] == {"output_tokens": deltas}
            whole = (await world.gateway("anthropic/messages", MESSAGES, project=project)).body
            assert whole["usage"]["output_tokens"] == deltas

    asyncio.run(main())


@pytest.mark.parametrize("tell", [True, False])
def test_a_stream_of_openais(tmp_path: Path, tell: bool) -> None:
    """Its chunks; usage only where it was asked for; `[DONE]` (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            asked = {**CHAT, "stream": True, "stream_options": {"include_usage": tell}}
            got = await world.gateway("openai/chat/completions", asked, project=project)
            *events, last = events_of(got.raw)
            assert last == ("", "[DONE]")
            chunks = [data for _, data in events]
            assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
            assert [chunk["usage"] for chunk in chunks if "usage" in chunk] == (
                [chunks[-1]["usage"]] if tell else []
            )
            choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
            assert choices[0]["delta"]["role"] == "assistant"
            assert "".join(c["delta"].get("content", "") for c in choices) == SAID
            reasons = [c["finish_reason"] for c in choices]
            assert reasons == [None] * (len(choices) - 1) + ["stop"]

    asyncio.run(main())


def test_contents_in_parts(tmp_path: Path) -> None:
    """Texts among parts are read, images and tool results are let through (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            image: Any = {"type": "image", "source": {"data": "x"}}
            parts = [image, {"type": "text", "text": "River?"}]
            asked: Any = {
                **MESSAGES,
                "system": [{"type": "text", "text": "Be brief", "citations": None}],
                "messages": [
                    {"role": "user", "content": "first"},
                    {"role": "assistant", "content": "answer"},
                    {"role": "user", "content": parts},
                ],
                "tools": [{"name": "look"}],
            }
            body = (await world.gateway("anthropic/messages", asked, project=project)).body
            assert body["content"][0]["text"].endswith("You said: River?")
            chat = {**CHAT, "messages": [{"role": "system"}, {"role": "user", "content": parts}]}
            body = (await world.gateway("openai/chat/completions", chat, project=project)).body
            assert body["choices"][0]["message"]["content"].endswith("You said: River?")

    asyncio.run(main())


def test_a_long_question_is_repeated_in_part(tmp_path: Path) -> None:
    """A reply repeats so many characters and no more (house rule: bounded)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            most = limits.AI_ECHO_CHARS.value
            content = "a" * most + "b"
            asked = {
                **MESSAGES,
                "max_tokens": 10**6,
                "messages": [{"role": "user", "content": content}],
            }
            body = (await world.gateway("anthropic/messages", asked, project=project)).body
            assert body["content"][0]["text"].endswith("You said: " + "a" * most)

    asyncio.run(main())


BAD_MESSAGES: list[tuple[object, str]] = [
    ({}, "$"),
    ([], "$"),
    ({**MESSAGES, "model": 7}, "$.model"),
    ({**MESSAGES, "model": ""}, "$.model"),
    ({**MESSAGES, "max_tokens": 0}, "$.max_tokens"),
    ({**MESSAGES, "max_tokens": "many"}, "$.max_tokens"),
    ({**MESSAGES, "messages": []}, "$.messages"),
    ({**MESSAGES, "messages": [{"role": "system", "content": ""}]}, "$.messages[0].role"),
    ({**MESSAGES, "messages": [{"role": "user"}]}, "$.messages[0]"),
    ({**MESSAGES, "messages": [{"role": "user", "content": 7}]}, "$.messages[0].content"),
    (
        {**MESSAGES, "messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "$.messages[0].content[0].text",
    ),
    ({**MESSAGES, "system": [{"type": "text", "text": 1}]}, "$.system[0].text"),
    ({**MESSAGES, "stream": "yes"}, "$.stream"),
    ({**MESSAGES, "temperature": 1.5}, "$.temperature"),
    ({**MESSAGES, "stop_sequences": ["x"] * (limits.AI_STOPS.value + 1)}, "$.stop_sequences"),
]


@pytest.mark.parametrize(("body", "field"), BAD_MESSAGES)
def test_a_bad_message_is_told_in_both_shapes(tmp_path: Path, body: Any, field: str) -> None:
    """400 that Anthropic's clients and the platform's both read, with its place (A.7, E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            got = await world.gateway("anthropic/messages", body, project=project)
            assert got.said == (400, "INVALID_INPUT")
            assert (got.body["type"], got.body["request_id"]) == ("error", "req-1")
            error = got.body["error"]
            assert error["type"] == "invalid_request_error"
            assert error["details"]["field"] == field
            assert (error["kind"], error["status"]) == ("invalid_request", 400)
            assert error["request_id"] == "req-1"
            assert error["message"]

    asyncio.run(main())


def test_a_bad_completion_is_told_in_both_shapes(tmp_path: Path) -> None:
    """400 with `param`, as OpenAI's clients read it (A.7, E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            for more, param in (
                ({"messages": [{"role": "robot"}]}, "messages[0].role"),
                (
                    {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
                    "messages[0].content[0].text",
                ),
                ({"n": 2}, "n"),
                ({"temperature": 3}, "temperature"),
            ):
                asked = {**CHAT, **more}
                got = await world.gateway("openai/chat/completions", asked, project=project)
                assert got.said == (400, "INVALID_INPUT")
                assert got.body["error"]["type"] == "invalid_request_error"
                assert got.body["error"]["param"] == param
                assert "type" not in got.body

    asyncio.run(main())


@pytest.mark.parametrize("path", ["anthropic/messages", "openai/chat/completions", "embeddings"])
def test_what_is_no_json(tmp_path: Path, path: str) -> None:
    """Not JSON, NaN, too deep: 400; too large, as sent or unpacked: 413; a cut body: 400 (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            for raw in (b"", b"nonsense", b'{"model": NaN}', b"[" * 65 + b"]" * 65, b"\xff"):
                got = await world.gateway(path, raw, project=project)
                assert got.said == (400, "INVALID_JSON")
                assert got.body["error"]["type"] == "invalid_request_error"
            most = limits.AI_BODY_BYTES.value
            got = await world.gateway(path, b"x" * (most + 1), project=project)
            assert got.said == (413, "PAYLOAD_TOO_LARGE")
            bomb = gzip.compress(b" " * (most + 1))
            packed = [("content-encoding", "gzip")]
            got = await world.gateway(path, bomb, project=project, headers=packed)
            assert got.said == (413, "PAYLOAD_TOO_LARGE")
            assert got.details == {"bytes_max": most}
            got = await world.ask(
                "POST",
                f"/ai/{path}",
                [
                    {"type": "http.request", "body": b"{", "more_body": True},
                    {"type": "http.disconnect"},
                ],
                token=await world.internal(project["id"]),
            )
            assert got.said == (400, "BODY_INCOMPLETE")

    asyncio.run(main())


def test_a_body_of_its_largest_size(tmp_path: Path) -> None:
    """Exactly so many bytes are taken (house rule: a limit is reached)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            raw = json.dumps(MESSAGES).encode()
            raw += b" " * (limits.AI_BODY_BYTES.value - len(raw))
            assert (await world.gateway("anthropic/messages", raw, project=project)).status == 200

    asyncio.run(main())


def test_who_may_ask(tmp_path: Path) -> None:
    """A project's token, key or owner; told in the platform's envelope alone (C.1, E.0)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project, other = await world.project(), await world.project("B")
            raw = json.dumps(MESSAGES).encode()
            target = "/v1/ai/anthropic/messages"
            for token in (
                await world.internal(project["id"]),
                project["api_keys"]["server"]["key"],
            ):
                assert (await world.ask("POST", target, raw, token=token)).status == 200
            named = [("x-amba-project-id", project["id"])]
            assert (await world.ask("POST", target, raw, headers=named)).status == 200
            assert (await world.ask("POST", target, raw)).said == (404, "PROJECT_NOT_FOUND")
            assert (await world.ask("POST", target, raw, token=None)).said == (401, "UNAUTHORIZED")
            got = await world.ask("POST", target, raw, token="amb_int_no")
            assert got.said == (401, "INVALID_INTERNAL_TOKEN")
            got = await world.ask(
                "POST", target, raw, token=await world.internal(other["id"]), headers=named
            )
            assert got.said == (403, "WRONG_PROJECT")
            client = project["api_keys"]["client"]["key"]
            assert (await world.ask("POST", target, raw, token=client)).said[0] == 401

    asyncio.run(main())


# --- a real provider ---


async def with_key(world: AiWorld, name: str = "anthropic", project: Any = None) -> Any:
    """A project that has a provider's key."""
    project = project or await world.project()
    target = f"/v1/admin/projects/{project['id']}/ai/providers"
    got = await world.post(target, {"name": name, "api_key": f"sk-{name}-0123456789"})
    assert got.status == 201
    return project


def test_a_real_provider_gets_the_body_byte_for_byte(tmp_path: Path) -> None:
    """And its reply comes back so, of that project alone (E.10)."""
    reply = (b'{"id":  "msg_1",', b' "content": []}')
    upstream = FakeUpstream(pieces=reply, headers=((b"request-id", b"req_up"),))

    async def main() -> None:
        async with AiWorld(tmp_path, upstream) as world:
            project, other = await with_key(world), await world.project("B")
            raw = b'{ "anything" :  [1.0, "\xc3\xa9"]}'
            got = await world.gateway(
                "anthropic/messages", raw, project=project, headers=[("anthropic-beta", "x")]
            )
            assert (got.status, got.raw) == (200, b"".join(reply))
            assert got.headers["request-id"] == "req_up"
            asked = upstream.asked[0]
            assert asked["body"] == raw
            assert asked["key"] == "sk-anthropic-0123456789"
            assert (asked["provider"], asked["wire"]) == ("anthropic", "messages")
            assert asked["headers"][b"anthropic-beta"] == b"x"
            await world.gateway("openai/chat/completions", CHAT, project=project)
            await world.gateway("anthropic/messages", MESSAGES, project=other)
            assert len(upstream.asked) == 1
            await world.restart()
            await world.gateway("anthropic/messages", MESSAGES, project=project)
            assert len(upstream.asked) == 2

    asyncio.run(main())


def test_a_real_providers_refusal_is_passed_on(tmp_path: Path) -> None:
    """429 with its `retry-after` and its own body (E.10)."""
    said = b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}'
    upstream = FakeUpstream(429, pieces=(said,), headers=((b"retry-after", b"17"),))

    async def main() -> None:
        async with AiWorld(tmp_path, upstream) as world:
            project = await with_key(world)
            got = await world.gateway("anthropic/messages", MESSAGES, project=project)
            assert (got.status, got.raw) == (429, said)
            assert got.headers["retry-after"] == "17"

    asyncio.run(main())


def test_a_stream_is_taken_as_fast_as_it_is_sent(tmp_path: Path) -> None:
    """The next piece of a provider is asked for once the last has left (back-pressure, E.10)."""
    pieces = [b"data: {}\n\n"] * 5
    upstream = FakeUpstream(content_type=b"text/event-stream", pieces=pieces)

    async def main() -> None:
        async with AiWorld(tmp_path, upstream) as world:
            project = await with_key(world)
            token = await world.internal(project["id"])
            seen: list[int] = []

            async def send(message: Any) -> None:
                if message["type"] == "http.response.body":
                    seen.append(upstream.given)

            async def receive() -> Any:
                body = json.dumps({**MESSAGES, "stream": True}).encode()
                return {"type": "http.request", "body": body, "more_body": False}

            scope = {
                "type": "http",
                "method": "POST",
                "path": "/ai/anthropic/messages",
                "headers": [(b"authorization", f"Bearer {token}".encode())],
            }
            await world.app(scope, receive, send)
            assert seen == [1, 2, 3, 4, 5, 5]
            assert upstream.closed == 1

    asyncio.run(main())


def test_a_caller_that_leaves_ends_its_stream(tmp_path: Path) -> None:
    """The provider's answer is closed at once, and what came of it is paid for (E.10)."""
    piece = b'data: {"usage":{"input_tokens":1000,"output_tokens":1}}\n\n'
    upstream = FakeUpstream(content_type=b"text/event-stream", pieces=[piece] * 1000)

    async def main() -> None:
        async with AiWorld(tmp_path, upstream) as world:
            project = await with_key(world)
            await world.prompt(project, client_invokable=True)
            user = world.session(project["id"], "u1")
            body = {"prompt_slug": "summary", "variables": VARIABLES, "stream": True}

            async def receive() -> Any:
                raw = json.dumps(body).encode()
                return {"type": "http.request", "body": raw, "more_body": False}

            async def send(message: Any) -> None:
                if upstream.given == 3:
                    raise asyncio.CancelledError

            scope = {
                "type": "http",
                "method": "POST",
                "path": "/client/ai/anthropic/messages",
                "headers": [
                    (b"x-api-key", project["api_keys"]["client"]["key"].encode()),
                    (b"authorization", f"Bearer {user}".encode()),
                ],
            }
            with pytest.raises(asyncio.CancelledError):
                await world.app(scope, receive, send)
            assert (upstream.given, upstream.closed) == (3, 1)
            target = f"/v1/admin/projects/{project['id']}/ai/prompts/summary/spend"
            assert (await world.get(target)).data["spent_usd"] == pytest.approx(0.003015)

    asyncio.run(main())


def test_a_provider_that_does_not_answer(tmp_path: Path) -> None:
    """502 in both shapes, with the reason and without the key (E.10)."""
    upstream = FakeUpstream(error="it cannot be reached: no route")

    async def main() -> None:
        async with AiWorld(tmp_path, upstream) as world:
            project = await with_key(world)
            got = await world.gateway("anthropic/messages", MESSAGES, project=project)
            assert got.said == (502, "AI_PROVIDER_FAILED")
            assert got.body["error"]["type"] == "api_error"
            assert "no route" in got.body["error"]["message"]
            assert b"sk-" not in got.raw

    asyncio.run(main())


# --- embeddings ---


def test_embeddings(tmp_path: Path) -> None:
    """`{embeddings, usage}`: one unit vector a text, as long as its model's are (E.10)."""

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            got = await world.gateway("embeddings", EMBED, project=project)
            assert set(got.body) == {"embeddings", "usage"}
            assert [len(row) for row in got.body["embeddings"]] == [1536]
            asked = {**EMBED, "model": "mistral-embed", "input": ["three rivers", "lakes"]}
            body = (await world.gateway("embeddings", asked, project=project)).body
            assert [len(row) for row in body["embeddings"]] == [1024, 1024]
            assert body["usage"] == {"input_tokens": 5}
            for row in body["embeddings"]:
                assert sum(x * x for x in row) == pytest.approx(1, abs=1e-6)
            asked = {**EMBED, "dimensions": 3}
            body = (await world.gateway("embeddings", asked, project=project)).body
            assert len(body["embeddings"][0]) == 3

    asyncio.run(main())


def test_bad_embeddings(tmp_path: Path) -> None:
    """Wrong providers, shapes and sizes are named, in both shapes (E.10)."""
    most = limits.AI_EMBED_TEXTS.value

    async def main() -> None:
        async with AiWorld(tmp_path) as world:
            project = await world.project()
            wrong: list[tuple[dict[str, Any], str]] = [
                ({"provider": "skynet"}, "$.provider"),
                ({"provider": "anthropic"}, "$.provider"),
                ({"input": ""}, "$.input"),
                ({"input": []}, "$.input"),
                ({"input": ["x", 7]}, "$.input[1]"),
                ({"input": ["x"] * (most + 1)}, "$.input"),
                ({"dimensions": 0}, "$.dimensions"),
                ({"dimensions": limits.AI_DIMENSIONS.value + 1}, "$.dimensions"),
            ]
            for more, field in wrong:
                got = await world.gateway("embeddings", {**EMBED, **more}, project=project)
                assert (got.said, got.details["field"]) == ((400, "INVALID_INPUT"), field)
                assert got.body["error"]["param"] == field[2:]
            size = limits.AI_EMBED_BYTES.value
            asked = {**EMBED, "input": "ä" * (size // 2) + "x", "dimensions": 4}
            got = await world.gateway("embeddings", asked, project=project)
            assert got.said == (413, "PAYLOAD_TOO_LARGE")
            asked = {**EMBED, "input": ["x"] * most, "dimensions": 4}
            body = (await world.gateway("embeddings", asked, project=project)).body
            assert len(body["embeddings"]) == most
            asked = {**EMBED, "input": "x" * size, "dimensions": limits.AI_DIMENSIONS.value}
            body = (await world.gateway("embeddings", asked, project=project)).body
            assert len(body["embeddings"][0]) == limits.AI_DIMENSIONS.value

    asyncio.run(main())


def test_real_embeddings(tmp_path: Path) -> None:
    """A provider's vectors in the gateway's shape, in order; its refusal as it is (E.10)."""
    rows = b'{"data":[{"index":1,"embedding":[2.0]},{"index":0,"embedding":[1.0]}],'
    upstream = FakeUpstream(pieces=(rows, b'"usage":{"prompt_tokens":9}}'))

    async def main() -> None:
        async with AiWorld(tmp_path, upstream) as world:
            project = await with_key(world, "openai")
            asked = {**EMBED, "input": ["a", "b"], "dimensions": 1}
            got = await world.gateway("embeddings", asked, project=project)
            assert got.body == {"embeddings": [[1.0], [2.0]], "usage": {"input_tokens": 9}}
            sent = json.loads(upstream.asked[0]["body"])
            assert sent == {"model": EMBED["model"], "input": ["a", "b"], "dimensions": 1}
            upstream.pieces = (b"<html>",)
            got = await world.gateway("embeddings", EMBED, project=project)
            assert got.said == (502, "AI_PROVIDER_FAILED")
            upstream.pieces, upstream.breaks = (b"{",), "its reply broke off"
            got = await world.gateway("embeddings", EMBED, project=project)
            assert got.said == (502, "AI_PROVIDER_FAILED")
            upstream.status, upstream.pieces, upstream.breaks = 401, (b'{"error":1}',), ""
            got = await world.gateway("embeddings", EMBED, project=project)
            assert (got.status, got.raw) == (401, b'{"error":1}')
            await with_key(world, "gemini", project)
            got = await world.gateway(
                "embeddings", {**EMBED, "provider": "gemini"}, project=project
            )
            assert got.said == (501, "NOT_EMULATED")

    asyncio.run(main())


def test_a_vector_for_a_search(tmp_path: Path) -> None:
    """As long as it is wanted; of a real model as long as it makes them (E.5, E.10)."""
    upstream = FakeUpstream(pieces=(b'{"data":[{"embedding":[1.0, 0.0]}]}',))

    async def main() -> None:
        async with AiWorld(tmp_path, upstream) as world:
            project = await world.project()
            service = world.emulation._ai_calls()  # pyright: ignore[reportPrivateUsage]

            async def vector(
                provider: str = "openai", model: str = "text-embedding-3-small"
            ) -> Any:
                return await service.vector(
                    project["id"], "three rivers", provider=provider, model=model, dimension=5
                )

            assert await vector() == [round(x, 8) for x in embed("three rivers", 5)]
            assert len(await vector("mistral", "mistral-embed")) == 5
            with pytest.raises(Refused, match="is no provider of embeddings"):
                await vector("skynet")
            with pytest.raises(Refused, match="anthropic has no embeddings"):
                await vector("anthropic")
            await with_key(world, "openai", project)
            await with_key(world, "mistral", project)
            assert await vector() == [1.0, 0.0]
            assert await vector("mistral", "mistral-embed") == [1.0, 0.0]
            sent = [json.loads(call["body"]) for call in upstream.asked]
            assert [body.get("dimensions") for body in sent] == [5, None]
            upstream.pieces = (b'{"data":[]}',)
            with pytest.raises(Refused, match="no vector"):
                await vector()
            upstream.status = 401
            with pytest.raises(Refused, match="answered 401"):
                await vector()

    asyncio.run(main())

"""`/ai/...`: what functions call as `AMBA_AI_GATEWAY_URL`; bodies both ways byte for byte.

Who may ask is told in the platform's envelope alone. What is wrong with a body is told so that a
provider's own client reads it, too: the members of both error shapes in one object.
Source: contract E.10, A.7, H-29.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from amba_router.api import faults
from amba_router.api.asked import project_of
from amba_router.api.decoding import decode_json, encode_json
from amba_router.api.faults import Refused
from amba_router.api.operations import Answer, Asked, Auth, Operation, Plain, Reads
from amba_router.problem import Problem
from amba_router.services.ai.embeddings import AiEmbed, AiEmbeddings
from amba_router.services.ai.service import AiService
from amba_router.services.ai.upstream import JSON, STATUSES, Provider, Reply
from amba_runtime import limits

REFUSALS = (
    *(faults.AI_PROVIDER_FAILED, faults.AI_FIXTURE_INVALID, faults.NOT_EMULATED),
    *(faults.INVALID_JSON, faults.INVALID_INPUT, faults.PAYLOAD_TOO_LARGE, *faults.READS),
    *faults.WRITES,
)
"""Of whatever calls a provider."""

ANSWERS: Mapping[int, type[Struct] | None] = MappingProxyType(
    dict.fromkeys((*STATUSES, 415, 501, 507))
)
"""Statuses with a body that is not ours to describe."""

_ANTHROPIC = {
    400: "invalid_request_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def operations(service: AiService) -> tuple[Operation, ...]:
    """Their part of the table."""
    gateway = _Gateway(service)
    rows = (
        ("aiAnthropicMessages", "anthropic/messages", gateway.anthropic, "A call of Anthropic's"),
        ("aiOpenaiChat", "openai/chat/completions", gateway.openai, "A call of OpenAI's"),
        ("aiEmbeddings", "embeddings", gateway.embeddings, "Vectors of texts, of any provider's"),
    )
    return tuple(
        Operation(
            id_,
            "POST",
            f"/ai/{path}",
            Auth.FUNCTION,
            f"{means} API: canned without a key of that provider, else passed on.",
            handler,
            ANSWERS,
            REFUSALS,
            reads=Reads.UPLOAD,
            bytes_max=limits.AI_BODY_BYTES.value,
            content={"application/json": {"schema": {"type": "object"}}},
        )
        for id_, path, handler, means in rows
    )


class _Gateway:
    def __init__(self, service: AiService) -> None:
        self._service = service

    async def anthropic(self, asked: Asked) -> Answer:
        return await self._call(asked, Provider.ANTHROPIC)

    async def openai(self, asked: Asked) -> Answer:
        return await self._call(asked, Provider.OPENAI)

    async def embeddings(self, asked: Asked) -> Answer:
        try:
            body = decode_json(await _body(asked), AiEmbed)
            made = await self._service.embed(project_of(asked).id, body)
        except Refused as refusal:
            return in_shape(refusal.problem, Provider.OPENAI, asked.request_id)
        if isinstance(made, AiEmbeddings):
            return Answer(200, Plain(JSON, encode_json(made)))
        return answer_of(made)

    async def _call(self, asked: Asked, provider: Provider) -> Answer:
        try:
            raw = await _body(asked)
            reply = await self._service.call(project_of(asked).id, provider, raw, asked.fields)
        except Refused as refusal:
            return in_shape(refusal.problem, provider, asked.request_id)
        return answer_of(reply)


async def _body(asked: Asked) -> bytes:
    assert asked.upload is not None
    try:
        return await asked.upload.whole()
    except Refused as refusal:
        if refusal.fault is faults.DEPLOY_REJECTED:  # what a gzip bomb is called elsewhere
            most = limits.AI_BODY_BYTES.value
            raise faults.PAYLOAD_TOO_LARGE.refuse(
                f"unpacked, the body passes {most} bytes", {"bytes_max": most}
            ) from None
        raise


def answer_of(reply: Reply) -> Answer:
    """A reply as it is."""
    return Answer(reply.status, Plain(reply.content_type, reply.content), reply.headers)


def in_shape(problem: Problem, provider: Provider, request_id: str | None) -> Answer:
    """A refusal in both shapes: ours, and what the provider's own clients read."""
    error: dict[str, Any] = json.loads(problem.body(request_id))["error"]
    if provider is Provider.ANTHROPIC:
        shape = {"type": "error", "request_id": request_id}
        error["type"] = _ANTHROPIC.get(problem.status, "api_error")
    else:
        shape = {}
        error["type"] = "invalid_request_error" if problem.status < 500 else "server_error"
        field = problem.details.get("field")
        error["param"] = field.removeprefix("$.") if isinstance(field, str) else None
    body = json.dumps({**shape, "error": error}, ensure_ascii=False).encode("utf-8", "replace")
    again = replace(problem, bare=True).headers(len(body))
    extra = tuple(f for f in again if f[0] not in (b"content-length", b"cache-control"))
    return Answer(problem.status, Plain(JSON, body), extra)

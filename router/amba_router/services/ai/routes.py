"""Calls over the admin and client planes. Source: contract E.10."""

from __future__ import annotations

import json
from typing import Any

from amba_router.api import faults
from amba_router.api.asked import project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Plain, Reads
from amba_router.services.ai import gateway, registry
from amba_router.services.ai.completions import failed
from amba_router.services.ai.embeddings import AiEmbed, AiEmbeddings
from amba_router.services.ai.gateway import ANSWERS, REFUSALS, answer_of
from amba_router.services.ai.models import (
    AiAdminMessages,
    AiClientMessages,
    AiEmbeddingsAnswer,
    AiInvoke,
    AiReply,
)
from amba_router.services.ai.service import AiService, Wanted, cost_usd
from amba_router.services.ai.upstream import JSON, Meter, Provider, Reply, UpstreamError

_BASE = "/admin/projects/{project_id}/ai"
_INVOKES = (
    *(faults.PROMPT_NOT_FOUND, faults.NOT_CLIENT_INVOKABLE, faults.MISSING_VARIABLES),
    *(faults.AI_BUDGET_EXCEEDED, *REFUSALS),
)


def operations(service: AiService) -> tuple[Operation, ...]:
    """Their part of the table."""
    calls = _calls(_Calls(service))
    return (*gateway.operations(service), *calls, *registry.operations(service))


def _calls(calls: _Calls) -> tuple[Operation, ...]:
    return (
        Operation(
            "clientAiMessages",
            "POST",
            "/client/ai/anthropic/messages",
            Auth.SESSION,
            "Call a prompt by its name; the reply in Anthropic's shape, with `cost_usd`.",
            calls.client,
            ANSWERS,
            _INVOKES,
            reads=Reads.JSON,
            request=AiClientMessages,
        ),
        Operation(
            "clientAiInvoke",
            "POST",
            "/client/ai/prompts/{name}/invoke",
            Auth.SESSION,
            "Call a prompt that is for clients; the provider's reply as it is.",
            calls.invoke,
            ANSWERS,
            _INVOKES,
            reads=Reads.MAYBE_JSON,
            request=AiInvoke,
        ),
        Operation(
            "adminAiMessages",
            "POST",
            f"{_BASE}/messages",
            Auth.PROJECT,
            "Call a provider, by a prompt's name or with messages.",
            calls.admin,
            {**ANSWERS, 200: AiReply},
            _INVOKES,
            reads=Reads.JSON,
            request=AiAdminMessages,
        ),
        Operation(
            "adminAiEmbeddings",
            "POST",
            f"{_BASE}/embeddings",
            Auth.PROJECT,
            "Vectors of texts.",
            calls.embeddings,
            {**ANSWERS, 200: AiEmbeddingsAnswer},
            REFUSALS,
            reads=Reads.JSON,
            request=AiEmbed,
        ),
    )


class _Calls:
    def __init__(self, service: AiService) -> None:
        self._service = service

    async def client(self, asked: Asked) -> Answer:
        body: AiClientMessages = asked.body
        wanted = Wanted(
            body.variables,
            max_tokens=body.max_tokens,
            temperature=body.temperature,
            cache=body.enable_prompt_cache,
            stream=body.stream,
            trusted=asked.as_user,
        )
        reply = await self._service.invoke(
            project_of(asked).id, body.prompt_slug, wanted, only=Provider.ANTHROPIC
        )
        if reply.status != 200 or body.stream:
            return answer_of(reply)
        said = await _said(reply)
        return Answer(200, Plain(JSON, json.dumps(said, ensure_ascii=False).encode()))

    async def invoke(self, asked: Asked) -> Answer:
        body: AiInvoke = asked.body
        wanted = Wanted(
            body.context,
            messages=tuple(body.messages),
            max_tokens=body.max_tokens,
            trusted=asked.as_user,
        )
        name = asked.path["name"]
        return answer_of(await self._service.invoke(project_of(asked).id, name, wanted))

    async def admin(self, asked: Asked) -> Answer:
        body: AiAdminMessages = asked.body
        project_id = project_of(asked).id
        wanted = Wanted(
            body.variables,
            messages=tuple(body.messages),
            max_tokens=body.max_tokens,
            temperature=body.temperature,
            trusted=True,
        )
        if body.prompt_slug is not None:
            reply = await self._service.invoke(project_id, body.prompt_slug, wanted)
        else:
            for name, given in (("model", body.model), ("messages", body.messages)):
                if not given:
                    raise faults.INVALID_INPUT.refuse(
                        f"the body has neither prompt_slug nor {name}", {"field": f"$.{name}"}
                    )
            reply = await self._service.chat(
                project_id, Provider(body.provider), body.model or "", body.system or "", wanted
            )
        if reply.status != 200:
            return answer_of(reply)
        return Answer(200, AiReply(await _said(reply)))

    async def embeddings(self, asked: Asked) -> Answer:
        made = await self._service.embed(project_of(asked).id, asked.body)
        if isinstance(made, AiEmbeddings):
            return Answer(200, AiEmbeddingsAnswer(made))
        return answer_of(made)


async def _said(reply: Reply) -> dict[str, Any]:
    """A provider's whole reply, with what it is taken to cost."""
    try:
        raw = await reply.whole()
        said: Any = json.loads(raw)
    except (UpstreamError, ValueError) as error:
        raise failed("the provider", str(error)[:200]) from None
    if not isinstance(said, dict):
        raise failed("the provider", "its reply is no JSON object")
    meter = Meter()
    meter.see(raw)
    return {**said, "cost_usd": round(cost_usd(reply.usage or meter.usage), 9)}

"""Embeddings over the gateway: canned vectors, or a real provider's. Source: contract E.10."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from amba_router.api import faults
from amba_router.api.decoding import decode_json
from amba_router.services.ai.canned import embed, tokens_of
from amba_router.services.ai.completions import ask_upstream, failed
from amba_router.services.ai.upstream import (
    JSON,
    Provider,
    Reply,
    Upstream,
    UpstreamError,
    Wire,
)
from amba_runtime import limits
from amba_runtime.secret import SecretText

_DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
    "mistral-embed": 1024,
    "gemini-embedding-001": 3072,
    "text-embedding-004": 768,
}
"""Of models as their providers document them; others get `_DIMENSIONS_ELSE`."""
_DIMENSIONS_ELSE = 1536
_DIGITS = 8

SHORTENED = "text-embedding-3"
"""How the names of real models begin that take `dimensions`. Source: OpenAI's reference."""

Text = Annotated[str, Meta(min_length=1)]
Texts = Annotated[list[Text], Meta(min_length=1, max_length=limits.AI_EMBED_TEXTS.value)]


class AiEmbed(Struct, kw_only=True):
    """`dimensions` is ours: fewer numbers, as some models offer."""

    provider: Provider
    model: Annotated[str, Meta(min_length=1, max_length=200)]
    input: Text | Texts
    dimensions: Annotated[int, Meta(ge=1, le=limits.AI_DIMENSIONS.value)] | None = None


class AiEmbeddingUsage(Struct):
    input_tokens: int


class AiEmbeddings(Struct):
    embeddings: list[list[float]]
    usage: AiEmbeddingUsage


class _Row(Struct):
    embedding: list[float]
    index: int = 0


class _Used(Struct):
    prompt_tokens: int = 0


class _OpenAiAnswer(Struct):
    data: list[_Row]
    usage: _Used = msgspec.field(default_factory=_Used)


def check(body: AiEmbed) -> None:
    """Raises `Refused` INVALID_INPUT, PAYLOAD_TOO_LARGE."""
    if body.provider is Provider.ANTHROPIC:
        raise faults.INVALID_INPUT.refuse(
            "anthropic has no embeddings; use openai, mistral or gemini", {"field": "$.provider"}
        )
    size = sum(len(text.encode()) for text in _texts(body))
    if size > limits.AI_EMBED_BYTES.value:
        raise faults.PAYLOAD_TOO_LARGE.refuse(
            f"input has {size} bytes of text; embed {limits.AI_EMBED_BYTES.value} at most in one "
            "call",
            {"field": "$.input", "bytes_max": limits.AI_EMBED_BYTES.value},
        )


async def canned_embeddings(body: AiEmbed) -> AiEmbeddings:
    """The same vectors for the same texts, of the model's own length."""
    texts = _texts(body)
    dimensions = body.dimensions or _DIMENSIONS.get(body.model, _DIMENSIONS_ELSE)

    def work() -> list[list[float]]:
        return [[round(x, _DIGITS) for x in embed(text, dimensions)] for text in texts]

    rows = await asyncio.to_thread(work)
    used = sum(tokens_of(len(text.encode())) for text in texts)
    return AiEmbeddings(rows, AiEmbeddingUsage(used))


async def real_embeddings(
    body: AiEmbed, key: SecretText, upstream: Upstream | None
) -> AiEmbeddings | Reply:
    """A provider's vectors in the gateway's shape; what it refuses comes back as it is.

    Raises:
        Refused: AI_PROVIDER_FAILED, NOT_EMULATED (gemini speaks another language).
    """
    if body.provider is Provider.GEMINI:
        raise faults.NOT_EMULATED.refuse(
            "real embeddings of gemini are not emulated; delete its key to get canned ones",
            {"feature": "ai/gemini"},
        )
    asked: dict[str, object] = {"model": body.model, "input": _texts(body)}
    if body.dimensions is not None:
        asked["dimensions"] = body.dimensions
    raw = msgspec.json.encode(asked)
    fields = ((b"content-type", JSON),)
    reply = await ask_upstream(upstream, body.provider, Wire.EMBEDDINGS, key, fields, raw)
    if reply.status != 200:
        return reply
    try:
        said = await reply.whole()
    except UpstreamError as error:
        raise failed(body.provider, str(error)) from None
    wrong = faults.AI_PROVIDER_FAILED
    answer = decode_json(said, _OpenAiAnswer, what="the reply", not_json=wrong, wrong=wrong)
    rows = sorted(answer.data, key=lambda row: row.index)
    return AiEmbeddings(
        [row.embedding for row in rows], AiEmbeddingUsage(answer.usage.prompt_tokens)
    )


def _texts(body: AiEmbed) -> list[str]:
    return [body.input] if isinstance(body.input, str) else body.input

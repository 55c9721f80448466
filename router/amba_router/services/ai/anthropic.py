"""Anthropic's Messages API, as a canned reply takes and gives it.

Source: Anthropic's public documentation of POST /v1/messages and of its stream; contract E.10.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from amba_router.api import faults
from amba_router.api.decoding import decode_json
from amba_router.services.ai.canned import Ask, Text
from amba_router.services.ai.upstream import Made, digest_of, sse
from amba_runtime import limits

Model = Annotated[str, Meta(min_length=1, max_length=200)]
Messages = limits.AI_MESSAGES.value


class AnthropicBlock(Struct):
    """One part of a content; of other types than `text` only the type is looked at."""

    type: Annotated[str, Meta(min_length=1)]
    text: Any = None


class AnthropicMessage(Struct):
    role: Literal["user", "assistant"]
    content: str | list[AnthropicBlock]


class AnthropicRequest(Struct):
    """What is looked at; the rest is taken as it is."""

    model: Model
    max_tokens: Annotated[int, Meta(ge=1)]
    messages: Annotated[list[AnthropicMessage], Meta(min_length=1, max_length=Messages)]
    system: str | list[AnthropicBlock] = ""
    stream: bool = False
    stop_sequences: Annotated[list[str], Meta(max_length=limits.AI_STOPS.value)] = []
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None


def ask_of(raw: bytes) -> Ask:
    """Read a body. Raises `Refused` INVALID_JSON, INVALID_INPUT with `details.field`."""
    body = decode_json(raw, AnthropicRequest)
    last = ""
    for at, message in enumerate(body.messages):
        text = _text_of(message.content, f"$.messages[{at}].content")
        if message.role == "user":
            last = text
    _text_of(body.system, "$.system")
    return Ask(
        body.model,
        last,
        body.max_tokens,
        tuple(body.stop_sequences),
        body.stream,
        digest_of(raw),
        len(raw),
    )


def _text_of(content: str | list[AnthropicBlock], where: str) -> str:
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for at, block in enumerate(content):
        if block.type != "text":
            continue
        if not isinstance(block.text, str):
            field = f"{where}[{at}].text"
            raise faults.INVALID_INPUT.refuse(
                f"the body is not right at {field}: a text block has a text", {"field": field}
            )
        texts.append(block.text)
    return "\n".join(texts)


def message(ask: Ask, text: Text) -> dict[str, Any]:
    """The whole reply."""
    return {
        **_head(ask, text),
        "content": [{"type": "text", "text": text.whole}],
        "stop_reason": _reason(text),
        "stop_sequence": text.stop,
        "usage": {**_usage(text), "output_tokens": text.usage.output_tokens},
    }


async def events(ask: Ask, text: Text) -> Made:
    """The same as a stream of the provider's events, and `[DONE]` at the end (contract E.10)."""
    empty: dict[str, Any] = {
        **_head(ask, text),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**_usage(text), "output_tokens": 1},
    }
    yield _event("message_start", message=empty)
    yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield _event("ping")
    for piece in text.pieces:
        delta = {"type": "text_delta", "text": piece}
        yield _event("content_block_delta", index=0, delta=delta)
    yield _event("content_block_stop", index=0)
    ending = {"stop_reason": _reason(text), "stop_sequence": text.stop}
    usage = {"output_tokens": text.usage.output_tokens}
    yield _event("message_delta", delta=ending, usage=usage)
    yield _event("message_stop")
    yield sse("[DONE]")


def text_of(reply: dict[str, Any]) -> str:
    """The words of a recorded reply."""
    try:
        texts: list[Any] = [part.get("text") for part in reply["content"]]
    except (KeyError, TypeError, AttributeError):
        texts = []
    return "".join(text for text in texts if isinstance(text, str))


def _head(ask: Ask, text: Text) -> dict[str, Any]:
    return {
        "id": f"msg_{ask.digest[:24]}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
    }


def _usage(text: Text) -> dict[str, int]:
    return {
        "input_tokens": text.usage.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }


def _reason(text: Text) -> str:
    if text.cut:
        return "max_tokens"
    return "end_turn" if text.stop is None else "stop_sequence"


def _event(type_: str, **members: Any) -> bytes:
    return sse(json.dumps({"type": type_, **members}, ensure_ascii=False), event=type_)

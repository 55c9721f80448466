"""OpenAI's chat completions, as a canned reply takes and gives them.

Source: OpenAI's public reference of POST /v1/chat/completions and of its chunks; contract E.10.
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

CREATED_S = 1_767_225_600
"""Of every canned reply, so that the same question has the same answer: 1 January 2026."""

Tokens = Annotated[int, Meta(ge=1)] | None
Messages = limits.AI_MESSAGES.value
_FINGERPRINT = "fp_canned"


class OpenAiPart(Struct):
    """One part of a content; of other types than `text` only the type is looked at."""

    type: Annotated[str, Meta(min_length=1)]
    text: Any = None


class OpenAiMessage(Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[OpenAiPart] | None = None


class OpenAiStreamOptions(Struct):
    include_usage: bool = False


class OpenAiRequest(Struct):
    """What is looked at; the rest is taken as it is."""

    model: Annotated[str, Meta(min_length=1, max_length=200)]
    messages: Annotated[list[OpenAiMessage], Meta(min_length=1, max_length=Messages)]
    max_tokens: Tokens = None
    max_completion_tokens: Tokens = None
    stop: str | Annotated[list[str], Meta(max_length=limits.AI_STOPS.value)] | None = None
    stream: bool | None = None
    stream_options: OpenAiStreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None


def ask_of(raw: bytes) -> tuple[Ask, bool]:
    """Read a body; and whether its stream ends with what it used.

    Raises:
        Refused: INVALID_JSON, INVALID_INPUT with `details.field`.
    """
    body = decode_json(raw, OpenAiRequest)
    last = ""
    for at, message in enumerate(body.messages):
        text = _text_of(message.content, f"$.messages[{at}].content")
        if message.role == "user":
            last = text
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    ask = Ask(
        body.model,
        last,
        body.max_completion_tokens or body.max_tokens,
        stops,
        body.stream is True,
        digest_of(raw),
        len(raw),
    )
    return ask, body.stream_options is not None and body.stream_options.include_usage


def _text_of(content: str | list[OpenAiPart] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts: list[str] = []
    for at, part in enumerate(content):
        if part.type != "text":
            continue
        if not isinstance(part.text, str):
            field = f"{where}[{at}].text"
            raise faults.INVALID_INPUT.refuse(
                f"the body is not right at {field}: a text part has a text", {"field": field}
            )
        texts.append(part.text)
    return "\n".join(texts)


def completion(ask: Ask, text: Text) -> dict[str, Any]:
    """The whole reply."""
    said = {"role": "assistant", "content": text.whole, "refusal": None}
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": _reason(text)}
    return {**_head(ask, "chat.completion"), "choices": [choice], "usage": _usage(text)}


async def chunks(ask: Ask, text: Text, *, tell_usage: bool) -> Made:
    """The same as a stream of chunks, ending with `[DONE]`."""
    head = _head(ask, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return sse(json.dumps({**head, "choices": [choice]}, ensure_ascii=False))

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    for piece in text.pieces:
        yield chunk({"content": piece})
    yield chunk({}, _reason(text))
    if tell_usage:
        yield sse(json.dumps({**head, "choices": [], "usage": _usage(text)}))
    yield sse("[DONE]")


def text_of(reply: dict[str, Any]) -> str:
    """The words of a recorded reply."""
    try:
        said: Any = reply["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        said = ""
    return said if isinstance(said, str) else ""


def _head(ask: Ask, object_: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{ask.digest[:29]}",
        "object": object_,
        "created": CREATED_S,
        "model": ask.model,
        "system_fingerprint": _FINGERPRINT,
    }


def _usage(text: Text) -> dict[str, int]:
    used = text.usage
    return {
        "prompt_tokens": used.input_tokens,
        "completion_tokens": used.output_tokens,
        "total_tokens": used.input_tokens + used.output_tokens,
    }


def _reason(text: Text) -> str:
    return "length" if text.cut else "stop"

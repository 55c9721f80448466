"""Where a call goes: to a recorded reply, to the real provider, or to the canned one.

Source: contract E.10; the order is ours.
"""

from __future__ import annotations

import json
from typing import Any

from amba_router.api import faults
from amba_router.api.operations import Fields
from amba_router.services.ai import anthropic, canned, openai
from amba_router.services.ai.canned import Usage
from amba_router.services.ai.fixtures import AiFixture
from amba_router.services.ai.upstream import (
    JSON,
    STREAM,
    Provider,
    Reply,
    Upstream,
    UpstreamError,
    Wire,
)
from amba_runtime.secret import SecretText

WIRES = {Provider.ANTHROPIC: Wire.MESSAGES, Provider.OPENAI: Wire.CHAT}
"""The providers whose chat is emulated, and how each calls it."""


async def complete(
    provider: Provider,
    raw: bytes,
    *,
    fixture: AiFixture | None,
    key: SecretText | None,
    upstream: Upstream | None,
    headers: Fields = (),
) -> Reply:
    """Answer one call.

    Args:
        raw: the provider's own body; a real provider gets it byte for byte.
        key: of the provider; None is the canned one.
        headers: of the caller.

    Raises:
        Refused: INVALID_JSON, INVALID_INPUT of what no provider would take; AI_PROVIDER_FAILED.
    """
    if fixture is None and key is not None:
        return await ask_upstream(upstream, provider, WIRES[provider], key, headers, raw)
    if provider is Provider.ANTHROPIC:
        return _anthropic(raw, fixture)
    return _openai(raw, fixture)


async def ask_upstream(
    upstream: Upstream | None,
    provider: Provider,
    wire: Wire,
    key: SecretText,
    headers: Fields,
    raw: bytes,
) -> Reply:
    """A real provider's answer. Raises `Refused` AI_PROVIDER_FAILED, NOT_EMULATED."""
    if upstream is None:
        raise faults.NOT_EMULATED.refuse(
            f"{provider} has a key, and this server asks no real provider: "
            "delete the key to get canned replies",
            {"feature": f"ai/{provider}"},
        )
    try:
        return await upstream.send(provider, wire, key, headers, raw)
    except UpstreamError as error:
        raise failed(provider, str(error)) from None


def failed(provider: str, why: str) -> faults.Refused:
    """What a caller is told of a provider that gave no answer."""
    return faults.AI_PROVIDER_FAILED.refuse(f"{provider}: {why}", {"provider": str(provider)})


def _anthropic(raw: bytes, fixture: AiFixture | None) -> Reply:
    ask = anthropic.ask_of(raw)
    if fixture is not None and fixture.status != 200:
        return _recorded_failure(fixture)
    recorded = fixture.response if fixture is not None else None
    words = anthropic.text_of(recorded) if recorded is not None else _text(fixture)
    text = canned.reply(ask, words)
    if ask.stream:
        return Reply(200, STREAM, anthropic.events(ask, text), usage=text.usage)
    return _whole(recorded or anthropic.message(ask, text), text.usage)


def _openai(raw: bytes, fixture: AiFixture | None) -> Reply:
    ask, tell_usage = openai.ask_of(raw)
    if fixture is not None and fixture.status != 200:
        return _recorded_failure(fixture)
    recorded = fixture.response if fixture is not None else None
    words = openai.text_of(recorded) if recorded is not None else _text(fixture)
    text = canned.reply(ask, words)
    if ask.stream:
        pieces = openai.chunks(ask, text, tell_usage=tell_usage)
        return Reply(200, STREAM, pieces, usage=text.usage)
    return _whole(recorded or openai.completion(ask, text), text.usage)


def _text(fixture: AiFixture | None) -> str | None:
    return None if fixture is None else fixture.text


def _whole(body: dict[str, Any], usage: Usage) -> Reply:
    return Reply(200, JSON, _encoded(body), usage=usage)


def _recorded_failure(fixture: AiFixture) -> Reply:
    wait = fixture.retry_after
    headers = () if wait is None else ((b"retry-after", b"%d" % wait),)
    return Reply(fixture.status, JSON, _encoded(fixture.response or {}), headers, Usage())


def _encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()

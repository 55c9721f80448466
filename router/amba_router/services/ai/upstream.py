"""What a call of the gateway is answered with, who else may answer it, and what it used.

Source: contract E.10.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from amba_router.api.operations import Fields
from amba_router.services.ai.canned import Usage
from amba_runtime import limits
from amba_runtime.secret import SecretText

Made = AsyncGenerator[bytes, None]
"""Pieces of a body that is made as it is sent: nothing is lost where it is never begun."""

JSON = b"application/json"
STREAM = b"text/event-stream; charset=utf-8"

PASSED_ON = (
    *(b"retry-after", b"request-id", b"x-request-id", b"openai-processing-ms"),
    *(b"anthropic-ratelimit-", b"x-ratelimit-"),
)
"""How the names of a provider's header fields begin that callers get, besides the content type."""

STATUSES = (200, 400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529)
"""Of a provider, that are passed on; another one is 502. 529 is Anthropic's "overloaded"."""

_USED = re.compile(rb'"(input|prompt|output|completion)_tokens"\s*:\s*([0-9]{1,12})(?=[^0-9])')
_USED_BYTES = 64


class Provider(StrEnum):
    """Whose API a call speaks. Source: contract E.10."""

    ANTHROPIC = "anthropic"
    OPENAI = "openai"
    MISTRAL = "mistral"
    GEMINI = "gemini"


class Wire(StrEnum):
    """Which of a provider's endpoints."""

    MESSAGES = "messages"
    CHAT = "chat/completions"
    EMBEDDINGS = "embeddings"


class Pieces(Protocol):
    """A body as it comes. `aclose` ends it, begun or not; idempotent."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def __anext__(self) -> Awaitable[bytes]: ...
    def aclose(self) -> Awaitable[None]: ...


class UpstreamError(Exception):
    """A provider gave no answer; the message says why, in words for whoever called."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer on its way to a caller.

    Attributes:
        content: bytes, or pieces as they come; whoever has it closes it.
        usage: what it used, where that is known before it is sent.
        emulated: no provider was asked.
    """

    status: int
    content_type: bytes
    content: bytes | Pieces
    headers: Fields = ()
    usage: Usage | None = None
    emulated: bool = True

    async def whole(self) -> bytes:
        """All of the content. Raises `UpstreamError` past `AI_REPLY_BYTES`."""
        if isinstance(self.content, bytes):
            return self.content
        parts: list[bytes] = []
        size = 0
        async with aclosing(self.content) as pieces:
            async for piece in pieces:
                size += len(piece)
                if size > limits.AI_REPLY_BYTES.value:
                    raise UpstreamError("the provider's reply is too large")
                parts.append(piece)
        return b"".join(parts)


class Upstream(Protocol):
    """Asks real providers."""

    async def send(
        self, provider: Provider, wire: Wire, key: SecretText, headers: Fields, body: bytes
    ) -> Reply:
        """One call; the body goes out byte for byte, and the reply comes back so.

        Args:
            headers: of the caller; what is the provider's business among them is sent.

        Raises:
            UpstreamError: there was no answer.
        """
        ...

    def close(self) -> None:
        """End kept connections. Idempotent."""
        ...


class Meter:
    """Reads what a reply used from its bytes as they pass: JSON or a stream, of any provider."""

    def __init__(self) -> None:
        self._tail = b""
        self._input = 0
        self._output = 0

    def see(self, piece: bytes) -> None:
        """The next bytes."""
        text = self._tail + piece
        for name, number in _USED.findall(text):
            if name in (b"input", b"prompt"):
                self._input = max(self._input, int(number))
            else:
                self._output = max(self._output, int(number))
        self._tail = text[-_USED_BYTES:]

    @property
    def usage(self) -> Usage:
        """So far."""
        return Usage(self._input, self._output)


class Metered:
    """Pieces whose usage is read as they pass, and told once, whole or broken off."""

    def __init__(self, pieces: Pieces, told: Callable[[Usage], Awaitable[object]]) -> None:
        self._pieces = pieces
        self._told = told
        self._meter = Meter()
        self._closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await anext(aiter(self._pieces))
        self._meter.see(piece)
        return piece

    async def aclose(self) -> None:
        """See `Pieces`."""
        if not self._closed:
            self._closed = True
            try:
                await self._pieces.aclose()
            finally:
                await self._told(self._meter.usage)


def sse(data: str, *, event: str = "") -> bytes:
    """One event of a stream."""
    named = f"event: {event}\n" if event else ""
    return f"{named}data: {data}\n\n".encode()


def digest_of(raw: bytes) -> str:
    """SHA-256 in hex: what ids of canned replies are made of."""
    return hashlib.sha256(raw).hexdigest()

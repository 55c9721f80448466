"""Real providers over a socket: what they are sent, and how their replies come back (E.10)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from amba_router.services.ai.providers import Providers
from amba_router.services.ai.upstream import Provider, Reply, UpstreamError, Wire
from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.secret import SecretText

KEY = SecretText("sk-0123456789")
BODY = b'{"x": 1}'


async def asked(
    answer: bytes,
    then: Callable[[Providers], Awaitable[None]],
    *,
    provider: Provider = Provider.ANTHROPIC,
) -> list[bytes]:
    """Run `then` against a server that gives one answer; what it was sent, per request."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line[16:]) for line in lines if line.startswith(b"content-length: "))
        seen.append(head + await reader.readexactly(length))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    providers = Providers(ManualClock(), origins={provider: origin})
    try:
        await then(providers)
    finally:
        providers.close()
        server.close()
        await server.wait_closed()
    return seen


def send(
    providers: Providers, provider: Provider = Provider.ANTHROPIC, body: bytes = BODY
) -> Awaitable[Reply]:
    fields = (
        (b"content-type", b"application/json"),
        (b"authorization", b"Bearer amb_int_mine"),
        (b"x-amba-user-id", b"u1"),
        (b"cookie", b"c"),
        (b"anthropic-beta", b"tools"),
    )
    return providers.send(provider, Wire.MESSAGES, KEY, fields, body)


def test_what_anthropic_is_sent() -> None:
    """Its key, its version, what concerns it of the caller's; no token of ours (E.10, H9)."""
    answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: r1\r\n"
        b"anthropic-ratelimit-requests-limit: 5\r\nset-cookie: no\r\n"
        b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )

    async def then(providers: Providers) -> None:
        reply = await send(providers)
        assert (reply.status, reply.content_type, reply.emulated) == (
            *(200, b"text/event-stream"),
            False,
        )
        assert dict(reply.headers) == {
            b"request-id": b"r1",
            b"anthropic-ratelimit-requests-limit": b"5",
        }
        assert await reply.whole() == b"abcde"

    (seen,) = asyncio.run(asked(answer, then))
    head, _, body = seen.partition(b"\r\n\r\n")
    assert body == BODY
    assert head.startswith(b"POST /v1/messages HTTP/1.1\r\n")
    assert b"x-api-key: sk-0123456789" in head
    assert b"anthropic-version: 2023-06-01" in head
    assert b"anthropic-beta: tools" in head
    for word in (b"amb_int_", b"x-amba", b"cookie", b"authorization"):
        assert word not in head


def test_what_openai_is_sent() -> None:
    """Its key as a bearer, and a large body whole (E.10)."""
    large = b"x" * (limits.WIRE_BUFFER.value * 2 + 7)

    async def then(providers: Providers) -> None:
        reply = await send(providers, Provider.OPENAI, large)
        assert (reply.status, await reply.whole()) == (429, b"no")
        assert dict(reply.headers) == {b"retry-after": b"9"}

    answer = b"HTTP/1.1 429 Slow\r\nretry-after: 9\r\ncontent-length: 2\r\n\r\nno"
    (seen,) = asyncio.run(asked(answer, then, provider=Provider.OPENAI))
    head, _, body = seen.partition(b"\r\n\r\n")
    assert body == large
    assert b"authorization: Bearer sk-0123456789" in head
    assert b"x-api-key" not in head


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 302 Found\r\ncontent-length: 2\r\n\r\nno", "it answered 302"),
        (b"nonsense\r\n\r\n", "it cannot be reached"),
        (b"", "it cannot be reached"),
    ],
)
def test_an_answer_that_is_none(answer: bytes, why: str) -> None:
    """A redirect, what is no HTTP, nothing at all: an error that says so (E.10)."""

    async def then(providers: Providers) -> None:
        with pytest.raises(UpstreamError, match=why):
            await send(providers)

    asyncio.run(asked(answer, then))


def test_a_reply_that_breaks_off() -> None:
    """What came is given, then an error (E.10)."""

    async def then(providers: Providers) -> None:
        reply = await send(providers)
        with pytest.raises(UpstreamError, match="broke off"):
            await reply.whole()

    asyncio.run(asked(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", then))


def test_a_reply_that_nobody_reads() -> None:
    """Its connection is closed, though it was never begun (nothing leaks)."""

    async def then(providers: Providers) -> None:
        reply = await send(providers)
        assert not isinstance(reply.content, bytes)
        await reply.content.aclose()
        await reply.content.aclose()
        with pytest.raises(UpstreamError, match="broke off"):
            await reply.whole()

    asyncio.run(asked(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", then))


def test_where_nobody_is() -> None:
    """A provider without an address, a name that does not resolve, a closed port (E.10)."""

    class Nobody:
        async def resolve(self, name: str) -> list[str]:
            from amba_runtime.egress import ResolveError

            raise ResolveError(f"{name} does not resolve")

    async def main() -> None:
        origins = {
            Provider.ANTHROPIC: "https://api.anthropic.test",
            Provider.OPENAI: "http://127.0.0.1:1",
        }
        providers = Providers(ManualClock(), origins=origins, resolver=Nobody)
        for provider, why in (
            (Provider.GEMINI, "does not know where it is"),
            (Provider.ANTHROPIC, "does not resolve"),
            (Provider.OPENAI, "cannot be reached"),
        ):
            with pytest.raises(UpstreamError, match=why):
                await send(providers, provider)
        providers.close()

    asyncio.run(main())

"""Real providers, asked over the network: where they are, and what they want to see.

Their names are ours, never a caller's: this goes around no rule of egress. A project's key is
sent to its own provider alone, over https.
Source: the providers' public references; contract E.10.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType

from amba_router.api.operations import Fields
from amba_router.names import Names, SystemResolver
from amba_router.outbound_client import OutboundClient, Timeouts, TrustedRoots
from amba_router.services.ai.upstream import (
    JSON,
    PASSED_ON,
    STATUSES,
    Made,
    Provider,
    Reply,
    UpstreamError,
    Wire,
)
from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.egress import External, ResolveError, Resolver
from amba_runtime.secret import SecretText
from amba_runtime.targets import parse_target
from amba_runtime.wire import Request, WireError
from amba_runtime.wire.common import Inbox

ORIGINS: Mapping[Provider, str] = MappingProxyType(
    {
        Provider.ANTHROPIC: "https://api.anthropic.com",
        Provider.OPENAI: "https://api.openai.com",
        Provider.MISTRAL: "https://api.mistral.ai",
    }
)

_FORWARDED = (b"content-type", b"accept", b"anthropic-", b"openai-")
"""How the names of a caller's header fields begin that are a provider's business."""
_VERSION = (b"anthropic-version", b"2023-06-01")


class Providers:
    """An `upstream.Upstream` over the network. `close` when done.

    Args:
        origins: where each provider is; one that is missing is not asked.
        resolver: of their names; None is this machine's.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        origins: Mapping[Provider, str] = ORIGINS,
        resolver: Callable[[], Resolver] = SystemResolver,
    ) -> None:
        self._names = Names(resolver(), clock).of("")
        self._origins = origins
        timeouts = Timeouts(
            first_byte_s=limits.AI_FIRST_BYTE_S.value, idle_s=limits.AI_IDLE_S.value
        )
        self._client = OutboundClient(TrustedRoots(), timeouts=timeouts)

    async def send(
        self, provider: Provider, wire: Wire, key: SecretText, headers: Fields, body: bytes
    ) -> Reply:
        """See `Upstream`."""
        origin = self._origins.get(provider)
        if origin is None:
            raise UpstreamError("amba-run does not know where it is; delete its key")
        target = parse_target(f"{origin}/v1/{wire}".encode())
        fields = [*_fields(provider, headers, key), (b"content-length", b"%d" % len(body))]
        try:
            address = target.address
            found = [str(address)] if address else await self._names.resolve(target.host)
            request = _Call(fields, body)
            answer = await self._client.send(request, External(target, tuple(found)))
        except TimeoutError:
            raise UpstreamError("it did not answer in time") from None
        except (ResolveError, WireError, OSError) as error:
            raise UpstreamError(f"it cannot be reached: {error}") from None
        assert not isinstance(answer.body, bytes), "the network's answers come in pieces"
        if answer.status not in STATUSES:
            await _close(answer.body)
            raise UpstreamError(f"it answered {answer.status}")
        type_ = next((v for n, v in answer.headers if n == b"content-type"), JSON)
        passed = tuple((n, v) for n, v in answer.headers if n.startswith(PASSED_ON))
        return Reply(answer.status, type_, _Remote(answer.body), passed, emulated=False)

    def close(self) -> None:
        """See `Upstream`."""
        self._client.close()


class _Call(Request):
    """A request whose body is here already."""

    def __init__(self, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        super().__init__(_nothing, "POST", b"", headers, Inbox(asyncio.Transport()))
        self._body = body

    async def chunks(self) -> Made:
        """The body, so that a slow provider holds it back."""
        size = limits.WIRE_BUFFER.value
        for at in range(0, len(self._body), size):
            yield self._body[at : at + size]


def _nothing() -> None:
    """Nobody waits for a go-ahead."""


def _fields(provider: Provider, headers: Fields, key: SecretText) -> list[tuple[bytes, bytes]]:
    fields = [field for field in headers if field[0].startswith(_FORWARDED)]
    secret = key.reveal().encode()
    if provider is not Provider.ANTHROPIC:
        return [*fields, (b"authorization", b"Bearer " + secret)]
    if not any(name == _VERSION[0] for name, _ in fields):
        fields.append(_VERSION)
    return [*fields, (b"x-api-key", secret)]


class _Remote:
    """An answer's body (`Pieces`)."""

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._body)
        except (WireError, OSError) as error:
            raise UpstreamError(f"its reply broke off: {error}") from None

    async def aclose(self) -> None:
        """Also of one that was never begun: its connection would stay."""
        if not self._closed:
            self._closed = True
            await _close(self._body)


async def _close(body: AsyncIterator[bytes]) -> None:
    closing = getattr(body, "aclose", None)
    if closing is not None:
        await closing()

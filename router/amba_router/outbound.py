"""Where a function's requests go once egress has decided: our own app, the network, nowhere.

`Outbound` answers the egress socket of one function process: identity is which socket, never a
header. What fails before an answer begins breaks the connection, denied or not: the guest sees
`Error: Network connection lost.` for both (measured on workerd), so a denial is no oracle.
Source: reliability.md section 5 and B6; engines.md section 3.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence

from amba_router.outbound_app import ASGIApp, call_app, scope_of
from amba_router.outbound_client import OutboundClient
from amba_runtime import limits
from amba_runtime.egress import (
    Denied,
    DeniedReason,
    EgressPolicy,
    External,
    Own,
    ResolveError,
    printable,
)
from amba_runtime.wire import Headers, Request, Response, WireError

OnDenied = Callable[[str, Denied], None]
"""Told the method and the refusal: one line for the person, one event for the node."""

logger = logging.getLogger("amba.egress")

_NO_OWN_WEBSOCKETS = b"""WebSockets from a function to this server are not emulated: use fetch().
"""
_NO_UPGRADES = b"Upgrading a connection to anything but a WebSocket is not emulated.\n"
_NO_CONNECT = b"TCP sockets (connect) are not emulated: use fetch().\n"


def log_denied(method: str, denied: Denied) -> None:
    """The default `OnDenied`: one line on the log `amba.egress`."""
    hint = f"; {denied.hint}" if denied.hint else ""
    logger.warning("egress %s %s: %s%s", method, denied.origin, denied.message, hint)


class Outbound:
    """The handler (`wire.Handler`) of one function process's egress socket.

    Args:
        policy: shared by all functions of a server.
        app: the server's own ASGI app, called in process.
        client: this function's alone: kept connections are never shared between tenants.
        shut: nothing gets out until `unlock`: the version is on trial.
        on_denied: called for every request that got no answer from where it wanted to go.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        app: ASGIApp,
        client: OutboundClient,
        *,
        on_denied: OnDenied = log_denied,
        shut: bool = False,
    ) -> None:
        self._policy = policy
        self._app = app
        self._client = client
        self._on_denied = on_denied
        self._shut = shut
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, request: Request) -> Response:
        """Answer one request of the engine."""
        # The gates of the limits issue stand here, before any decision: trace hops (508 at
        # trace_depth), subrequests in all and at once, bytes per day, a function's own allowlist.
        if self._shut:
            self._on_denied(request.method, _on_trial(request))
            return Response(502, _NoHeaders())
        if request.method == "CONNECT":
            return self._not_emulated(request, _NO_CONNECT)
        if request.upgrade and not _asks_websocket(request):
            return self._not_emulated(request, _NO_UPGRADES)
        decision = await self._policy.decide(request.target)
        if isinstance(decision, Own):
            if request.upgrade:
                return self._not_emulated(request, _NO_OWN_WEBSOCKETS)
            scope = scope_of(request, decision)
            return await call_app(self._app, request, scope, running=self._running)
        if isinstance(decision, External):
            try:
                return await self._client.send(request, decision)
            except (WireError, OSError) as error:
                origin = decision.target.origin
                decision = Denied(origin, DeniedReason.UNREACHABLE, _in_words(error))
        self._on_denied(request.method, decision)
        return Response(502, _NoHeaders())

    def unlock(self) -> None:
        """The version serves from here on."""
        self._shut = False

    async def close(self) -> None:
        """End kept connections and calls of our app that are still at work. Idempotent."""
        self._client.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _not_emulated(self, request: Request, body: bytes) -> Response:
        message = body.decode().strip()
        denied = Denied(printable(request.target), DeniedReason.NOT_EMULATED, message)
        self._on_denied(request.method, denied)
        return Response(501, [(b"content-type", b"text/plain; charset=utf-8")], body)


def _on_trial(request: Request) -> Denied:
    return Denied(
        printable(request.target),
        DeniedReason.NOT_ACTIVE,
        "a version that does not serve yet reaches nothing",
    )


class _NoHeaders(Headers):
    """Breaks the connection: `wire` aborts when an answer fails before its first byte."""

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        raise WireError("no answer")


class SystemResolver:
    """The machine's resolver (an `egress.Resolver`)."""

    async def resolve(self, name: str) -> Sequence[str]:
        """Ask once; each address once, in the system's order. Raises ResolveError."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limits.EGRESS_RESOLVE_S.value):
                answers = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise ResolveError(f"{name} was not resolved in time") from error
        except (OSError, UnicodeError) as error:
            raise ResolveError(f"{name} does not resolve: {error}") from error
        return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def _asks_websocket(request: Request) -> bool:
    return request.method == "GET" and (request.header(b"upgrade") or b"").lower() == b"websocket"


def _in_words(error: WireError | OSError) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, WireError):
        return str(error)
    return f"it cannot be reached: {error.strerror or error}"

"""Where a function's requests go once egress has decided: our own app, the network, nowhere.

`Outbound` answers the egress socket of one function process: identity is which socket, never a
header. What fails before an answer begins breaks the connection, denied or not: the guest sees
`Error: Network connection lost.` for both (measured on workerd), so a denial is no oracle.
Source: reliability.md section 5 and B6; engines.md section 3.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterator

from amba_router.denials import OnDenied, log_denied
from amba_router.outbound_app import ASGIApp, call_app, scope_of
from amba_router.outbound_client import OutboundClient
from amba_router.outbound_secrets import ask_plain, concealed
from amba_runtime.egress import (
    Denied,
    DeniedReason,
    EgressPolicy,
    External,
    Own,
    printable,
)
from amba_runtime.egress_rules import NO_RULES, EgressRules
from amba_runtime.outcome import Breach
from amba_runtime.placeholders import Placeholders, UnfitSecretError
from amba_runtime.tally import Tally, TooManySubrequestsError
from amba_runtime.trace import Hop
from amba_runtime.underway import EVENT, GUESS
from amba_runtime.wire import Headers, Request, Response, WireError

HopOf = Callable[[str | None], Hop]
"""Where an invocation stands in its trace, by its request id (see `Hops.of`)."""
OnBreach = Callable[[str, Breach], None]
"""Told a request id ("" where not known) and the limit that its invocation passed."""

_BREACH = re.compile(rb"(subrequests|log_kib) ([0-9]{1,12}) ([0-9]{1,12})\Z")
_ID_BYTES = 64  # longer than any request id

_NO_OWN_WEBSOCKETS = b"""WebSockets from a function to this server are not emulated: use fetch().
"""
_NO_UPGRADES = b"Upgrading a connection to anything but a WebSocket is not emulated.\n"
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_NO_CONNECT = b"TCP sockets (connect) are not emulated: use fetch().\n"


class Outbound:
    """The handler (`wire.Handler`) of one function process's egress socket.

    Args:
        policy: shared by all functions of a server.
        app: the server's own ASGI app, called in process.
        client: this function's alone: kept connections are never shared between tenants.
        shut: nothing gets out until `unlock`: the version is on trial.
        on_denied: called for every request that got no answer from where it wanted to go.
        rules: this function's own.

    Attributes:
        placeholders: stand in its env for the secrets that only egress may use.
    """

    def __init__(
        self,
        policy: EgressPolicy,
        app: ASGIApp,
        client: OutboundClient,
        *,
        on_denied: OnDenied = log_denied,
        shut: bool = False,
        rules: EgressRules = NO_RULES,
    ) -> None:
        self.placeholders = Placeholders(rules)
        self._rules = rules
        self._mark = b""
        self._hop_of: HopOf = _no_trace
        self._on_breach: OnBreach | None = None
        self._tally: Tally | None = None
        self._policy = policy
        self._app = app
        self._client = client
        self._on_denied = on_denied
        self._shut = shut
        self._running: set[asyncio.Task[None]] = set()

    def attach(
        self,
        mark: bytes,
        hop_of: HopOf,
        on_breach: OnBreach | None = None,
        tally: Tally | None = None,
    ) -> None:
        """Hear from the isolates whose requests come here which invocation makes each.

        Args:
            mark: how our headers begin (`Surroundings.tell_header`); no other function knows it.
            tally: counts what they send, and knows which names to believe; None lets all through.
        """
        self._mark = mark
        self._hop_of = hop_of
        self._on_breach = on_breach
        self._tally = tally

    async def __call__(self, request: Request) -> Response:
        """Answer one request of the engine."""
        caller, breach = self._take_ours(request)
        if self._tally is not None:
            caller = self._tally.believed(caller)
        if breach is not None:
            self._tell(caller or "", breach)
            return Response(204)
        if self._shut:
            self._on_denied(request.method, _on_trial(request))
            return Response(502, _NoHeaders())
        if self._tally is None:
            return await self._answer(request, caller)
        try:
            self._tally.charge(caller)
        except TooManySubrequestsError as error:
            if error.breach is not None:
                self._tell(error.request_id, error.breach)
            return Response(502, _NoHeaders())
        async with self._tally.turn(caller):
            return await self._answer(request, caller)

    def _tell(self, request_id: str, breach: Breach) -> None:
        if self._on_breach is not None:
            named = "" if request_id.startswith(EVENT) else request_id.removeprefix(GUESS)
            self._on_breach(named, breach)

    async def _answer(self, request: Request, caller: str | None) -> Response:
        """Decide where a request goes, and have it answered there."""
        if request.method == "CONNECT":
            return self._not_emulated(request, _NO_CONNECT)
        if request.upgrade and not _asks_websocket(request):
            return self._not_emulated(request, _NO_UPGRADES)
        decision = await self._policy.decide(request.target, self._rules)
        if isinstance(decision, Own):
            if request.upgrade:
                return self._not_emulated(request, _NO_OWN_WEBSOCKETS)
            scope = scope_of(request, decision)
            if decision.function:  # a header would be the guest's to forge or to leave out
                scope["amba.hop"] = self._hop_of(caller).next()
            return await call_app(self._app, request, scope, running=self._running)
        if isinstance(decision, External):
            answer = await self._send(request, decision)
            if isinstance(answer, Response):
                return answer
            decision = answer
        self._on_denied(request.method, decision)
        return Response(502, _NoHeaders())

    async def _send(self, request: Request, external: External) -> Response | Denied:
        """Ask a host on the network, with the secrets that it is given."""
        origin = external.target.origin
        try:
            used = self.placeholders.fill(request.headers, external)
            if used:
                ask_plain(request)
                return concealed(request, await self._client.send(request, external), used)
            return await self._client.send(request, external)
        except UnfitSecretError as error:
            return Denied(origin, DeniedReason.UNFIT_SECRET, str(error))
        except (WireError, OSError) as error:
            return Denied(origin, DeniedReason.UNREACHABLE, _in_words(error))

    def _take_ours(self, request: Request) -> tuple[str | None, Breach | None]:
        """What the shim says of a request, taken off it: whose it is, or a limit passed."""
        mark = self._mark
        if not mark or not any(name.startswith(mark) for name, _ in request.headers):
            return None, None
        caller: str | None = None
        breach: Breach | None = None
        for name, value in request.headers:
            if name == mark + b"-caller":
                caller = value[:_ID_BYTES].decode("latin-1")
            elif name == mark + b"-breach" and (told := _BREACH.match(value)) is not None:
                # the shim counts these two and no other: what a guest made up is not told
                breach = Breach(told[1].decode(), int(told[2]), int(told[3]))
        request.headers = [field for field in request.headers if not field[0].startswith(mark)]
        return caller, breach

    @property
    def kept_connections(self) -> int:
        """To external hosts, idle."""
        return self._client.kept

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
        return Response(501, [_TEXT], body)


def _no_trace(_: str | None) -> Hop:
    return Hop()


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

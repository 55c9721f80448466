"""The doors of a laptop: which callers a dev server lets in, before anything is routed.

`Gate` asks callers from beyond loopback for the token. `PageGuard` turns away the pages of other
sites that the developer's own browser has open. `HostGuard` answers for some hosts alone.
Neither is the platform's identity, which a function sees.
Source: interface.md section 2 (`--host`); reliability.md T10, rows C1 to C5.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
from collections.abc import Callable

from amba_router.asgi import App, Receive, Scope, Send
from amba_router.hosts import Hosts, Plane
from amba_router.pages import TELLING, Pages
from amba_router.problem import BAD_HOST, MISDIRECTED, Problem, over_websocket
from amba_router.relay import Whole
from amba_runtime import limits

logger = logging.getLogger("amba.web")

HEADER = b"amba-run-token"

_CLOSED = Problem(
    401,
    "TOKEN_REQUIRED",
    "unauthorized",
    "this dev server listens beyond loopback: send its --token as the header Amba-Run-Token",
)
ORIGIN_REFUSED = Problem(403, "ORIGIN_REFUSED", "forbidden", "", bare=True)


class Gate:
    """An ASGI app in front of another. The header that opens it goes no further."""

    def __init__(self, app: App, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer 401."""
        given = b""
        kept: list[tuple[bytes, bytes]] = []
        for name, value in scope["headers"]:
            if name == HEADER:
                given = value
            else:
                kept.append((name, value))
        scope["headers"] = kept
        if _from_loopback(scope) or hmac.compare_digest(given, self._token):
            await self._app(scope, receive, send)
        else:
            await _refuse(_CLOSED, scope, send)


def _from_loopback(scope: Scope) -> bool:
    client = scope.get("client")
    if not client:
        return False
    try:
        address = ipaddress.ip_address(client[0].partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


class PageGuard:
    """An ASGI app in front of another: pages of other sites get 403 and nothing else.

    Args:
        pages: whose pages may call.
    """

    def __init__(self, app: App, pages: Pages) -> None:
        self._app = app
        self._pages = pages
        self._offer: Callable[..., bool] | None = getattr(app, "offer", None)
        self._told: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer 403."""
        origin = self._refuses(scope)
        if not origin:
            await self._app(scope, receive, send)
            return
        self._tell(origin)
        await _refuse(ORIGIN_REFUSED, scope, send)

    def offer(self, scope: Scope, whole: Whole, promote: Callable[[App], None]) -> bool:
        """The short way of the app behind: see `Dispatcher.offer`."""
        for name, _ in scope["headers"]:
            if name in TELLING:
                if self._pages.refuses(scope["headers"], method=scope["method"], kind="http"):
                    return False
                break
        return self._offer is not None and self._offer(scope, whole, promote)

    def _refuses(self, scope: Scope) -> str:
        return self._pages.refuses(
            scope["headers"], method=scope.get("method", "GET"), kind=scope["type"]
        )

    def _tell(self, origin: str) -> None:
        """Say it once per page: whoever wonders why their page is refused looks here."""
        if origin in self._told or len(self._told) >= limits.REFUSED_PAGES_TOLD.value:
            return
        self._told.add(origin)
        hint = f"; if it is yours: --allow-origin {origin}" if origin[-4:] != "page" else ""
        logger.warning("a web page (%s) tried to call this server and was refused%s", origin, hint)


class HostGuard:
    """An ASGI app in front of another that answers for the bare hosts of `hosts` alone.

    For a listener that the dispatcher does not stand behind: no name that a page's author can
    point at this machine reaches it.
    """

    def __init__(self, app: App, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer 400 or 421."""
        named = [value for name, value in scope["headers"] if name == b"host"]
        plane = self._hosts.parse(named[0]).plane if len(named) == 1 else Plane.MALFORMED
        if plane is Plane.PLATFORM:
            await self._app(scope, receive, send)
            return
        await _refuse(BAD_HOST if plane is Plane.MALFORMED else MISDIRECTED, scope, send)


async def _refuse(problem: Problem, scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        send = over_websocket(scope, send)
    await problem.answer(send, None, head=scope.get("method") == "HEAD")

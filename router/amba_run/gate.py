"""Who may call a dev server that listens beyond loopback: whoever knows its token.

Not the platform's own identity, which a function sees: a lock on the door of a laptop.
Source: interface.md section 2 (`--host`).
"""

from __future__ import annotations

import hmac
import ipaddress

from amba_router.asgi import App, Receive, Scope, Send
from amba_router.problem import Problem

HEADER = b"amba-run-token"

_CLOSED = Problem(
    401,
    "TOKEN_REQUIRED",
    "unauthorized",
    "this dev server listens beyond loopback: send its --token as the header Amba-Run-Token",
)


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
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _CLOSED.answer(send, None, head=scope.get("method") == "HEAD")


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

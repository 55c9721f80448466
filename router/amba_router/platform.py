"""What answers on the bare host: health, and an honest 501 for the planes still to come."""

from __future__ import annotations

import json
from collections.abc import Callable

from amba_router.asgi import App, Receive, Scope, Send
from amba_router.problem import Problem

PLANES = frozenset({"v1", "admin", "client", "auth", "ai", "webhooks"})
"""First path segments of the platform API. Source: contract E.0; interface.md section 1."""

API_PLANES = frozenset({"v1", "admin", "client", "auth", "ai", "openapi.json"})
"""Those that the API answers for."""


class Platform:
    """An ASGI app.

    Args:
        ready: tells whether requests can be served.
        api: answers for those planes; None says 501 for all of it.
    """

    def __init__(self, *, ready: Callable[[], bool], api: App | None = None) -> None:
        self._ready = ready
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        request_id: str | None = scope.get("amba.request_id")
        head = scope.get("method") == "HEAD"
        if path in ("/healthz", "/health"):
            await _json(send, 200, {"status": "ok"}, head=head)
            return
        if path == "/readyz":
            ready = self._ready()
            await _json(send, 200 if ready else 503, {"ready": ready}, head=head)
            return
        first = path.lstrip("/").partition("/")[0]
        if self._api is not None and first in API_PLANES:
            await self._api(scope, receive, send)
            return
        if first in PLANES:
            problem = Problem(
                501,
                "NOT_EMULATED",
                "not_emulated",
                f"{scope.get('method', 'GET')} {path[:200]} is not emulated yet",
                {"feature": path[:200]},
            )
        else:
            problem = Problem(
                404, "NOT_FOUND", "not_found", f"nothing answers at {path[:200]!r} on this host"
            )
        await problem.answer(send, request_id, head=head)


async def _json(send: Send, status: int, value: object, *, head: bool) -> None:
    body = json.dumps(value).encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                (b"cache-control", b"no-store"),
            ],
        }
    )
    await send({"type": "http.response.body", "body": b"" if head else body})

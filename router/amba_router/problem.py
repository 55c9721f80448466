"""The one error envelope on the wire, and answering with it.

Carries what both readings of the platform's errors want: `code`, `message`, `details`, `kind`,
`status`, `request_id`. Source: contract A.7.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from amba_router.asgi import Message, Scope, Send


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer that says what is wrong; `retry_after_s` becomes `Retry-After`.

    `extra` are header fields besides. A `bare` one has no body: whoever it is for may be a page
    that has no business here, and learns nothing (reliability.md row C1).
    """

    status: int
    code: str
    kind: str
    message: str
    details: dict[str, Any] = field(default_factory=lambda: dict[str, Any]())
    retry_after_s: int | None = None
    allow: str | None = None
    extra: tuple[tuple[bytes, bytes], ...] = ()
    bare: bool = False

    def body(self, request_id: str | None) -> bytes:
        """The envelope as JSON."""
        if self.bare:
            return b""
        error: dict[str, Any] = {
            "kind": self.kind,
            "code": self.code,
            "status": self.status,
            "message": self.message,
            "request_id": request_id,
        }
        if self.details:
            error["details"] = self.details
        # a guest's message may hold half a surrogate pair, which UTF-8 cannot say
        return json.dumps({"error": error}, ensure_ascii=False).encode("utf-8", "replace")

    def headers(self, length: int) -> list[tuple[bytes, bytes]]:
        """Of the answer."""
        fields = [(b"content-type", b"application/json")] if not self.bare else []
        fields += [(b"content-length", b"%d" % length), (b"cache-control", b"no-store")]
        if self.retry_after_s is not None:
            fields.append((b"retry-after", b"%d" % self.retry_after_s))
        if self.allow is not None:
            fields.append((b"allow", self.allow.encode()))
        fields += self.extra
        return fields

    async def answer(self, send: Send, request_id: str | None, *, head: bool = False) -> None:
        """Send it as a whole HTTP response."""
        body = self.body(request_id)
        await send(
            {
                "type": "http.response.start",
                "status": self.status,
                "headers": self.headers(len(body)),
            }
        )
        await send({"type": "http.response.body", "body": b"" if head else body})


def over_websocket(scope: Scope, send: Send) -> Send:
    """HTTP answers to a WebSocket request, where the server can send them; else a plain close."""
    extensions: dict[str, Any] = scope.get("extensions") or {}

    async def refusal(message: Message) -> None:
        kind = str(message["type"])
        if not kind.startswith("http."):
            await send(message)
        elif "websocket.http.response" in extensions:
            await send({**message, "type": f"websocket.{kind}"})
        elif kind == "http.response.start":
            await send({"type": "websocket.close", "code": 1000})

    return refusal


def not_found(resource: str, id_: str, message: str) -> Problem:
    """404 in the platform's shape; `resource` is `function`, `project`, ... in lower case."""
    return Problem(
        404,
        f"{resource.upper()}_NOT_FOUND",
        "not_found",
        message,
        {"resource": resource, "id": id_},
    )


BAD_HOST = Problem(
    400, "BAD_HOST", "invalid_request", "the Host header is missing, repeated or malformed"
)
MISDIRECTED = Problem(
    421,
    "MISDIRECTED",
    "invalid_request",
    "this server does not answer for that host",
    bare=True,
)
BAD_REQUEST = Problem(400, "BAD_REQUEST", "invalid_request", "the request is not valid HTTP/1.1")
INTERNAL = Problem(500, "INTERNAL", "internal", "amba-run failed; its log says why")
PAYLOAD_TOO_LARGE = Problem(
    413, "PAYLOAD_TOO_LARGE", "invalid_request", "the request body passes the function's limit"
)

"""One call of a server's own API, in process: what curl could send, without a socket."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from amba_router.asgi import App, Message

Row = dict[str, Any]
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Told:
    """An answer of the API."""

    status: int
    body: Any

    @property
    def done(self) -> bool:
        return self.status < 300

    @property
    def why(self) -> str:
        """A refusal in words, with its place."""
        error: Row = self.body["error"]
        where = error.get("details", {}).get("field")
        at = f" (at {where})" if where else ""
        return f"{self.status} {error.get('code', '')}: {error.get('message', '')}{at}"


async def ask(api: App, method: str, target: str, body: Row | None, fields: Headers) -> Told:
    """Send one request, and read all of its answer."""
    raw = b"" if body is None else json.dumps(body).encode()
    waiting: list[Message] = [{"type": "http.request", "body": raw, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"content-type", b"application/json"), *fields],
    }
    await api(scope, receive, send)
    said = b"".join(message.get("body", b"") for message in sent[1:])
    return Told(int(sent[0]["status"]), json.loads(said) if said else {})

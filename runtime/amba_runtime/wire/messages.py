"""What the serving end hands to a handler, and what the handler answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from amba_runtime.wire.common import Headers, Inbox, Tunnel, WireError


class Request:
    """One request from an engine. Lives until its handler returns."""

    __slots__ = ("_expects", "_inbox", "_send_continue", "headers", "method", "target", "upgrade")

    def __init__(
        self,
        send_continue: Callable[[], None],
        method: str,
        target: bytes,
        headers: Headers,
        inbox: Inbox,
    ) -> None:
        self._send_continue = send_continue
        self._inbox = inbox
        self.method = method
        self.target = target
        """As on the request line: origin-form, absolute-form (egress) or authority (CONNECT)."""
        self.headers = headers
        self.upgrade = False
        """The peer asks for another protocol (WebSocket): answer with `Response.tunnel`."""
        self._expects = any(
            n == b"expect" and v.lower() == b"100-continue" for n, v in self.headers
        )

    def header(self, name: bytes) -> bytes | None:
        """The first value of a lower-case name, or None."""
        return next((v for n, v in self.headers if n == name), None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, with back-pressure. Raises WireError when it breaks off."""
        if self._expects:
            self._expects = False
            self._send_continue()
        while data := await self._inbox.read():
            yield data

    async def read(self, bytes_max: int) -> bytes:
        """The whole body. Raises WireError when it breaks off or passes `bytes_max`."""
        parts: list[bytes] = []
        size = 0
        async for data in self.chunks():
            size += len(data)
            if size > bytes_max:
                raise WireError(f"the body is larger than {bytes_max} bytes")
            parts.append(data)
        return b"".join(parts)


@dataclass(slots=True)
class Response:
    """What a handler answers.

    `body` is bytes, or an async iterator that is closed when the peer leaves.
    Without a content-length among `headers` an iterator is sent chunked.
    With `tunnel` (status 101) the connection is handed over after the head was written; where
    that never comes to pass, the peer having left, `drop` is called in its place.
    """

    status: int
    headers: Headers = field(default_factory=lambda: Headers())
    body: bytes | AsyncIterator[bytes] = b""
    tunnel: Callable[[Tunnel], Awaitable[None]] | None = None
    drop: Callable[[], None] | None = None


Handler = Callable[[Request], Awaitable[Response]]

"""Secrets on their way out and back: what a host answers shows the function no value.

Done only for answers to requests that carried one. A host that is trusted with a secret and sends
it back in another form (compressed, encoded, in pieces of several answers) gives it away: name
hosts, not proxies. Source: reliability.md row G14.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from amba_runtime.placeholders import Concealing, Used, conceal
from amba_runtime.wire import Headers, Request, Response


def ask_plain(request: Request) -> None:
    """Ask for an answer that can be looked through."""
    fields = [field for field in request.headers if field[0] != b"accept-encoding"]
    request.headers = [*fields, (b"accept-encoding", b"identity")]


def concealed(request: Request, response: Response, used: Used) -> Response:
    """The answer with placeholders in the place of values, in its headers and its body."""
    fields: Headers = [(name, conceal(value, used)) for name, value in response.headers]
    body = response.body
    if response.tunnel is not None or isinstance(body, bytes):
        return Response(response.status, fields, body, response.tunnel, response.drop)
    if request.method != "HEAD":  # the length may change; without one it is sent in chunks
        fields = [field for field in fields if field[0] != b"content-length"]
    return Response(response.status, fields, _Body(body, used))


class _Body(AsyncIterator[bytes]):
    """An answer's body, looked through as it arrives; held back is at most a secret's length."""

    def __init__(self, body: AsyncIterator[bytes], used: Used) -> None:
        self._body = body
        self._concealing = Concealing(used)
        self._ended = False

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        async for data in self._body:
            if text := self._concealing.feed(data):
                return text
        self._ended = True
        rest = self._concealing.end()
        if not rest:
            raise StopAsyncIteration
        return rest

    async def aclose(self) -> None:
        """Closed with what it reads from."""
        close = getattr(self._body, "aclose", None)
        if close is not None:
            await close()

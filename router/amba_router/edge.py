"""The strict front of the house: uvicorn's httptools protocol with its laxities taken out.

Refuses what two readers could understand differently, counts and sizes what a head may hold,
and drops trailers, which the parent would merge into the headers of a running request.
Source: reliability.md 0 (findings 3 and 3b), 2.3, 3.A and B1.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from amba_router.problem import BAD_HOST, BAD_REQUEST, Problem
from amba_runtime import limits

_HEAD_TOO_LARGE = Problem(
    431,
    "HEADERS_TOO_LARGE",
    "invalid_request",
    f"the request head is larger than {limits.EDGE_HEAD.value // 1024} KiB "
    f"or has more than {limits.EDGE_HEADERS.value} headers",
)
_TARGET_TOO_LONG = Problem(
    414,
    "URI_TOO_LONG",
    "invalid_request",
    f"the request target is longer than {limits.EDGE_TARGET.value // 1024} KiB",
)
_VERSION = Problem(505, "HTTP_VERSION", "invalid_request", "speak HTTP/1.1 (or 1.0)")
_TRANSFER_ENCODING = Problem(
    501, "TRANSFER_ENCODING", "invalid_request", "the only transfer coding taken is chunked"
)


class _Refused(Exception):
    """Stops the parser; the problem is in `EdgeProtocol._refusal`."""


class EdgeProtocol(HttpToolsProtocol):
    """One client connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._in_head = True
        self._head_bytes = 0
        self._unparsed_bytes = 0
        self._refusal: Problem | None = None
        self._closed_to_input = False

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a head that never ends is refused by its size."""
        if self._closed_to_input:
            return
        super().data_received(data)
        if self._in_head and not self._closed_to_input:
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > limits.EDGE_HEAD.value + limits.EDGE_TARGET.value:
                self._refusal = _HEAD_TOO_LARGE
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """A new request starts."""
        self._in_head = True
        self._head_bytes = 0
        self._unparsed_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        super().on_url(url)
        if len(self.url) > limits.EDGE_TARGET.value:
            self._refuse(_TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; a trailer is none."""
        if not self._in_head:
            return
        self._head_bytes += len(name) + len(value) + 4
        if (
            self._head_bytes > limits.EDGE_HEAD.value
            or len(self.headers) >= limits.EDGE_HEADERS.value
        ):
            self._refuse(_HEAD_TOO_LARGE)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is here: judge it whole, then start the request."""
        self._in_head = False
        problem = _judge(self.parser.get_http_version(), self.url, self.headers)
        if problem is not None:
            self._refuse(problem)
        super().on_headers_complete()

    def _refuse(self, problem: Problem) -> None:
        self._refusal = problem
        raise _Refused(problem.message)

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong in the platform's envelope, then close.

        A request that is being answered on this connection is not disturbed when the fault
        lies behind it; it is cut off when the fault lies in its own body.
        """
        self._closed_to_input = True
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False
                return
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        problem = self._refusal or BAD_REQUEST
        body = problem.body(None)
        lines = [STATUS_LINE[problem.status]]
        lines += [b"%b: %b\r\n" % field for field in problem.headers(len(body))]
        lines += [b"connection: close\r\n\r\n", body]
        self.transport.write(b"".join(lines))
        self.transport.close()


def _judge(version: str, url: bytes, headers: list[tuple[bytes, bytes]]) -> Problem | None:
    """What is wrong with a request head, or None."""
    if version not in ("1.1", "1.0"):
        return _VERSION
    host: bytes | None = None
    lengths = codings = 0
    for name, value in headers:
        if name == b"host":
            if host is not None:
                return BAD_HOST
            host = value
        elif name == b"content-length":
            lengths += 1
        elif name == b"transfer-encoding":
            codings += 1
            if value.lower() != b"chunked":
                return _TRANSFER_ENCODING
    if host is None:
        return BAD_HOST
    if lengths + codings > 1 or (codings and version == "1.0"):
        return BAD_REQUEST
    if url[:1] != b"/":
        # absolute-form: allowed, but it must name the same host (RFC 9112 section 3.2.2)
        scheme, _, rest = url.partition(b"://")
        authority = rest.partition(b"/")[0].partition(b"?")[0]
        if scheme.lower() not in (b"http", b"https") or authority.lower() != host.lower():
            return BAD_REQUEST
    if b"#" in url:
        return BAD_REQUEST
    return None

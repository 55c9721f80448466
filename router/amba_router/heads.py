"""Judging a request's head: what two readers could understand differently is refused.

Source: reliability.md 2.3 and 3.A; RFC 9112.
"""

from __future__ import annotations

import re

from amba_router.problem import BAD_HOST, BAD_REQUEST, Problem
from amba_runtime import limits
from amba_runtime.wire import Headers

HEAD_TOO_LARGE = Problem(
    431,
    "HEADERS_TOO_LARGE",
    "invalid_request",
    f"the request head is larger than {limits.EDGE_HEAD.value // 1024} KiB "
    f"or has more than {limits.EDGE_HEADERS.value} headers",
)
TARGET_TOO_LONG = Problem(
    414,
    "URI_TOO_LONG",
    "invalid_request",
    f"the request target is longer than {limits.EDGE_TARGET.value // 1024} KiB",
)
_VERSION = Problem(505, "HTTP_VERSION", "invalid_request", "speak HTTP/1.1 (or 1.0)")
_TRANSFER_ENCODING = Problem(
    501, "TRANSFER_ENCODING", "invalid_request", "the only transfer coding taken is chunked"
)

NO_SUCH_METHOD = Problem(
    501, "METHOD_NOT_IMPLEMENTED", "invalid_request", "no function can be called with that method"
)
METHODS = frozenset(
    (
        *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE", "QUERY"),
        *("COPY", "LOCK", "MKCOL", "MOVE", "PROPFIND", "PROPPATCH", "SEARCH", "UNLOCK", "ACL"),
        *("REPORT", "MKACTIVITY", "CHECKOUT", "MERGE", "NOTIFY"),
        *("SUBSCRIBE", "UNSUBSCRIBE"),
    )
)
"""What the engine knows. Our parser knows more, RTSP's for example, and the engine would answer
those itself, in its own words."""

_NO_SOCKET = Problem(
    400,
    "BAD_REQUEST",
    "invalid_request",
    "a WebSocket begins with a GET that has no body, in version 13 of the protocol",
    extra=((b"sec-websocket-version", b"13"),),
)

_NEVER_IN_A_TARGET = b'#<>"'
"""RFC 3986 allows none of these, browsers escape them, and workerd answers such a target itself,
in its own words. It does the same for a backtick in a path, but takes one in a query."""


_HOST = re.compile(
    rb"(?:[A-Za-z0-9][A-Za-z0-9-]*(?:\.[A-Za-z0-9][A-Za-z0-9-]*)*\.?|\[[0-9A-Fa-f:.]+\])"
    rb"(?::[1-9][0-9]{0,4})?\Z"
)
"""The shape of a Host. Whose it is, and whether a name has a good length, is `hosts` to say."""


def judge(
    version: str,
    url: bytes,
    headers: list[tuple[bytes, bytes]],
    good_host: bytes = b"",
    *,
    read: int = limits.EDGE_HEAD.value,
) -> Problem | bytes:
    """What is wrong with a request head; its Host where nothing is.

    Args:
        good_host: one that was judged before: mostly it is the same again.
        read: bytes that the head lies within: where they are few its size need not be reckoned.
    """
    if version not in ("1.1", "1.0"):
        return _VERSION
    if len(headers) > limits.EDGE_HEADERS.value:
        return HEAD_TOO_LARGE
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
    # a field is counted with ": " and CRLF: one byte more than it may have come with
    most = limits.EDGE_HEAD.value
    if read > most // 2 and sum(len(n) + len(v) + 4 for n, v in headers) > most:
        return HEAD_TOO_LARGE
    if not host or (host != good_host and _HOST.match(host) is None):
        return BAD_HOST
    if lengths + codings > 1 or (codings and version == "1.0"):
        return BAD_REQUEST
    if url[:1] != b"/":
        # absolute-form: allowed, but it must name the same host (RFC 9112 section 3.2.2)
        scheme, _, rest = url.partition(b"://")
        authority = rest.partition(b"/")[0].partition(b"?")[0]
        if scheme.lower() not in (b"http", b"https") or authority.lower() != host.lower():
            return BAD_REQUEST
    if len(url.translate(None, _NEVER_IN_A_TARGET)) != len(url):
        return BAD_REQUEST
    if b"`" in url and b"`" in url.partition(b"?")[0]:
        return BAD_REQUEST
    return host


def judge_socket(method: str, headers: list[tuple[bytes, bytes]]) -> Problem | None:
    """What is wrong with a WebSocket request that `judge` has passed, or None.

    A key is looked for by the WebSocket protocol itself. Source: RFC 6455 section 4.2.1.
    """
    version = b""
    for name, value in headers:
        if name == b"sec-websocket-version":
            version = value
        elif name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            return _NO_SOCKET
    return None if method == "GET" and version == b"13" else _NO_SOCKET


def origin_form(url: bytes) -> bytes:
    """The path and query of a request target that `judge` has passed."""
    if url[:1] == b"/":
        return url
    authority_and_path = url.partition(b"://")[2]
    for at, byte in enumerate(authority_and_path):
        if byte in b"/?":
            rest = authority_and_path[at:]
            return rest if rest[:1] == b"/" else b"/" + rest
    return b"/"


def without_upgrade(method: str, headers: Headers) -> bytes:
    """A head with the same framing as a request's that asks for an upgrade."""
    framing = (b"content-length", b"transfer-encoding")
    lines = [b"%b: %b" % field for field in headers if field[0] in framing]
    return b"\r\n".join([b"%b / HTTP/1.1" % method.encode(), *lines, b"", b""])

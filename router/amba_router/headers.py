"""The names of the platform's headers, and stripping them: the one home of `x-amba-*`.

Source: contract A.3 (nine names: seven meanings, two of them under two spellings).
"""

from __future__ import annotations

from amba_runtime.wire import Headers

PROJECT_ID = b"x-amba-project-id"
USER_ID = b"x-amba-user-id"
DEVELOPER_ID = b"x-amba-developer-id"
FUNCTION_NAME = b"x-amba-function-name"
REQUEST_ID = b"x-amba-request-id"
TIMESTAMP = b"x-amba-timestamp"
SIGNATURE = b"x-amba-signature"
EDGE_TIMESTAMP = b"x-amba-edge-timestamp"
EDGE_SIGNATURE = b"x-amba-edge-signature"
AS_USER = b"x-amba-as-user"
"""On the platform API: for which of a project's users a server key asks (contract H-9, ours)."""
TIMEZONE = b"x-amba-timezone"
"""On the client plane: the caller's IANA zone. Source: contract E.3."""

CONNECTING_IP = b"cf-connecting-ip"
"""Set from the peer, never taken from the caller. Source: contract H-3, D.8."""

CLIENT_ALLOWED = (
    b"X-Api-Key, Authorization, Content-Type, If-None-Match, X-Amba-Timezone, Time-Zone"
)
"""What a browser may send to the client plane. Source: contract A.8."""

STAMPED = (
    PROJECT_ID,
    USER_ID,
    DEVELOPER_ID,
    FUNCTION_NAME,
    REQUEST_ID,
    TIMESTAMP,
    SIGNATURE,
    EDGE_TIMESTAMP,
    EDGE_SIGNATURE,
)
"""Exactly these reach a worker, each once; nothing else called `x-amba*` does."""

_STAMP = b"".join(b"%b: %%b\r\n" % name for name in (b"host", CONNECTING_IP, *STAMPED))

RESERVED_PREFIX = b"x-amba"

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Meant for one connection only. Source: RFC 9110 section 7.6.1."""

_OURS = HOP_BY_HOP | {
    *(b"host", b"content-length", b"expect"),
    # every spelling that a CGI-like reader folds into the one
    *(b"cf%bconnecting%bip" % (one, other) for one in (b"-", b"_") for other in (b"-", b"_")),
}
"""Dropped from what a caller sent: rebuilt by the dispatcher, or none of the worker's business."""


def is_reserved(name: bytes) -> bool:
    """True for every spelling of a platform header: any case, `_` for `-`, odd padding."""
    return name.strip().lower().replace(b"_", b"-").startswith(RESERVED_PREFIX)


def strip(fields: Headers | tuple[tuple[bytes, bytes], ...]) -> Headers:
    """What of a caller's headers a worker may see, in their order.

    Goes unconditionally: every reserved name, hop-by-hop fields and those that `connection`
    nominates, and what the dispatcher sets itself (host, framing, the peer's address).

    Args:
        fields: names in any case; duplicates stay duplicates.

    Source: architecture.md section 3, step 3; contract A.3; RFC 9110 section 7.6.1.
    """
    kept: Headers = []
    nominated: set[bytes] | None = None
    for name, value in fields:
        name = name.lower()
        if name[:1] == b"x" or name[:1] <= b" ":
            if is_reserved(name):
                continue
        elif name in _OURS:
            if name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
                nominated = nominated or set()
                nominated.update(token.strip().lower() for token in value.split(b","))
            continue
        kept.append((name, value))
    if nominated:
        kept = [field for field in kept if field[0] not in nominated]
    return kept


def stamp_lines(
    *,
    authority: bytes,
    peer: bytes,
    project_id: bytes,
    user_id: bytes,
    developer_id: bytes,
    function_name: bytes,
    request_id: bytes,
    timestamp: bytes,
    signature: bytes,
) -> bytes:
    """What we say to a worker, as header lines: its host, its caller's address, the nine.

    Args: already free of CR and LF: ids have passed `signing.check_id`, the rest is ours.
    """
    return _STAMP % (
        authority,
        peer,
        project_id,
        user_id,
        developer_id,
        function_name,
        request_id,
        timestamp,
        signature,
        timestamp,
        signature,
    )

"""What both of egress's ends, our app and the network, know of a request's body and headers."""

from __future__ import annotations

import asyncio
import contextlib

from amba_runtime import limits
from amba_runtime.wire import Headers, Request, WireError

CLOSE: tuple[tuple[bytes, bytes], ...] = ((b"connection", b"close"),)
"""Said to the engine with an answer that comes before the end of its upload: the next request
must not follow the upload on the same connection while that is still being discarded."""


async def discard(request: Request) -> None:
    """Take what is left of a request's body after its answer, within bounds.

    An engine whose upload is cut short tells the function that the connection was lost, even
    when the whole answer is there already (measured on workerd).
    """
    size = 0
    with contextlib.suppress(WireError, TimeoutError):
        async with asyncio.timeout(limits.EGRESS_DISCARD_S.value):
            async for data in request.chunks():
                size += len(data)
                if size > limits.EGRESS_DISCARD_BYTES.value:
                    return


def body_length(request: Request) -> int | None:
    """Bytes of a request's body as announced; 0 for none, None for chunked."""
    if request.upgrade:
        return 0
    if request.header(b"transfer-encoding") is not None:
        return None
    return int(request.header(b"content-length") or 0)


def nominated(fields: Headers) -> frozenset[bytes]:
    """Names that `connection` makes hop-by-hop. Source: RFC 9110 section 7.6.1."""
    return frozenset(
        token.strip().lower() for n, v in fields if n == b"connection" for token in v.split(b",")
    )

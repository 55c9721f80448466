"""The far ends of a guest's services, as far as they are the engine's business."""

from __future__ import annotations

from amba_runtime import wire
from amba_runtime.line import Line


def in_line(line: Line, handler: wire.Handler) -> wire.Handler:
    """The same, so many at once until their answers begin; the others in turn (row E17)."""

    async def handle(request: wire.Request) -> wire.Response:
        async with line.turn():
            return await handler(request)

    return handle


_CACHE_ANSWERS = {"GET": 504, "PUT": 204, "PURGE": 404}


async def empty_cache(request: wire.Request) -> wire.Response:
    """The Cache API's other end: an empty cache that keeps nothing.

    Source: workerd api/cache.c++ (`match` is a GET that a cache without the object answers
    with 504, RFC 9111 section 5.2.1.7; `put` is a PUT, `delete` a PURGE).
    """
    async for _ in request.chunks():
        pass
    return wire.Response(_CACHE_ANSWERS.get(request.method, 405))

"""WebSockets between a caller and a guest, message by message, with back-pressure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from amba_router.asgi import Receive, Send
from amba_runtime.engine.base import Isolate, Refused, Socket
from amba_runtime.outcome import Outcome
from amba_runtime.wire import Headers, WireError


async def relay_socket(
    isolate: Isolate,
    target: bytes,
    headers: Headers,
    subprotocols: Sequence[str],
    receive: Receive,
    send: Send,
    *,
    not_passed_on: frozenset[bytes],
) -> tuple[int, Outcome]:
    """Open a socket to the guest and pass messages until either side closes.

    Returns:
        The HTTP status (101 for an accepted socket) and the outcome.

    Raises:
        WireError: the engine is gone before it answered.
    """
    await receive()  # websocket.connect
    try:
        guest = await isolate.socket(target, headers, subprotocols)
    except Refused as refusal:
        fields = [f for f in refusal.headers if f[0] not in not_passed_on]
        await send({"type": "http.response.start", "status": refusal.status, "headers": fields})
        await send({"type": "http.response.body", "body": refusal.body})
        crashed = any(n == b"amba-run-outcome" for n, _ in refusal.headers)
        return refusal.status, Outcome.EXCEPTION if crashed else Outcome.OK
    fields = [
        f
        for f in guest.headers
        if f[0] not in not_passed_on and not f[0].startswith(b"sec-websocket-")
    ]
    await send({"type": "websocket.accept", "subprotocol": guest.subprotocol, "headers": fields})
    outward = asyncio.create_task(_outward(guest, send))
    inward = asyncio.create_task(_inward(guest, receive))
    try:
        await asyncio.wait({outward, inward}, return_when=asyncio.FIRST_COMPLETED)
        broke = inward.done() and inward.result() is False
        if outward.done():
            outward.result()
        return 101, Outcome.CANCELED if broke else Outcome.OK
    finally:
        for task in (outward, inward):
            task.cancel()
        await asyncio.gather(outward, inward, return_exceptions=True)
        await guest.close(1001, "")


async def _outward(guest: Socket, send: Send) -> None:
    """Guest to caller, then the guest's close code."""
    while (message := await guest.receive()) is not None:
        if isinstance(message, str):
            await send({"type": "websocket.send", "text": message})
        else:
            await send({"type": "websocket.send", "bytes": message})
    code = guest.close_code
    # 1005 and 1006 say "none given" and "broke off": neither may be sent
    sendable = 1000 if code in (None, 1005) else 1011 if code == 1006 else code
    await send({"type": "websocket.close", "code": sendable, "reason": guest.close_reason})


async def _inward(guest: Socket, receive: Receive) -> bool:
    """Caller to guest. False when the caller broke off without a close."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            code = int(message.get("code") or 1005)
            sendable = code if code not in (1005, 1006, 1015) else 1000
            await guest.close(sendable, str(message.get("reason") or ""))
            return code != 1006
        text = message.get("text")
        try:
            await guest.send(text if text is not None else message["bytes"])
        except WireError:
            return True  # the guest has closed: `_outward` tells the caller

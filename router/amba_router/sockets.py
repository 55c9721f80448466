"""WebSockets between a caller and a guest, message by message, with back-pressure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from amba_router.asgi import Message, Receive, Send
from amba_runtime.engine.base import Isolate, Socket
from amba_runtime.outcome import Outcome
from amba_runtime.wire import Headers, WireError

_NO_CODE, _BROKE_OFF = 1005, 1006  # what stands for no code at all: neither may be sent


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
        The HTTP status (always 101) and the outcome: `canceled` when the caller broke off.

    Raises:
        Refused: the guest answered with an ordinary response; nothing was sent to the caller.
        WireError: the engine is gone before it answered.
    """
    await receive()  # websocket.connect
    guest = await isolate.socket(target, headers, subprotocols)
    fields = [
        f
        for f in guest.headers
        if f[0] not in not_passed_on and not f[0].startswith(b"sec-websocket-")
    ]
    accept: Message = {
        "type": "websocket.accept",
        "subprotocol": guest.subprotocol,
        "headers": fields,
    }
    outward = asyncio.create_task(_outward(guest, send, accept))
    inward = asyncio.create_task(_inward(guest, receive))
    code, reason = 1001, ""
    try:
        await asyncio.wait({outward, inward}, return_when=asyncio.FIRST_COMPLETED)
        if inward.done():
            code, reason = inward.result()
        elif outward.exception() is not None:
            code = _BROKE_OFF  # the caller could not be told
        return 101, Outcome.CANCELED if code == _BROKE_OFF else Outcome.OK
    finally:
        for task in (outward, inward):
            task.cancel()
        await asyncio.gather(outward, inward, return_exceptions=True)
        await guest.close(code, reason)


async def _outward(guest: Socket, send: Send, accept: Message) -> None:
    """Guest to caller, then the guest's close code."""
    await send(accept)
    while (message := await guest.receive()) is not None:
        if isinstance(message, str):
            await send({"type": "websocket.send", "text": message})
        else:
            await send({"type": "websocket.send", "bytes": message})
    code = guest.close_code
    if code in (None, _NO_CODE):
        code = 1000
    elif code == _BROKE_OFF:
        code = 1011
    await send({"type": "websocket.close", "code": code, "reason": guest.close_reason})


async def _inward(guest: Socket, receive: Receive) -> tuple[int, str]:
    """Caller to guest, until the caller closes: its code and reason, 1006 when it broke off."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            code = int(message.get("code") or _NO_CODE)
            if code not in (_NO_CODE, _BROKE_OFF, 1015):
                return code, str(message.get("reason") or "")
            # a close frame without a code comes with a reason, a lost connection with none
            return (1000, "") if message.get("reason") is not None else (_BROKE_OFF, "")
        text = message.get("text")
        try:
            await guest.send(text if text is not None else message["bytes"])
        except WireError:
            # the guest has closed and `_outward` tells the caller, who may leave meanwhile
            continue

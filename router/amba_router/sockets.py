"""WebSockets between a caller and a guest, message by message, with back-pressure.

What of them lies in our memory is held to an account, each way: `accept` tells the edge of it,
and `hold_to` the guest's end. One over which nothing comes for long ends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from amba_router.asgi import Message, Receive, Send
from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.engine.base import Isolate, Socket
from amba_runtime.message_room import Account
from amba_runtime.outcome import Outcome
from amba_runtime.wire import Headers, WireError

_NO_CODE, _BROKE_OFF = 1005, 1006  # what stands for no code at all: neither may be sent
_GOING_AWAY = 1001


class _Quiet:
    """When something last came, either way."""

    __slots__ = ("_clock", "_since_s")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_s = clock.monotonic_s()

    def ends(self) -> None:
        self._since_s = self._clock.monotonic_s()

    async def too_long(self) -> None:
        """Return once nothing came for as long as that may be."""
        most_s = limits.WEBSOCKET_IDLE_S.value
        while (left_s := self._since_s + most_s - self._clock.monotonic_s()) > 0:
            await self._clock.sleep(left_s)


async def relay_socket(
    isolate: Isolate,
    target: bytes,
    headers: Headers,
    subprotocols: Sequence[str],
    receive: Receive,
    send: Send,
    *,
    not_passed_on: frozenset[bytes],
    clock: Clock,
    account: Account | None = None,
) -> tuple[int, Outcome]:
    """Open a socket to the guest and pass messages until either side closes, or both fall silent.

    Args:
        account: what its messages are held to; the caller closes it.

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
    if account is not None:
        guest.hold_to(account.outward)
        accept["amba.account"] = account.inward
    quiet = _Quiet(clock)
    outward = asyncio.create_task(_outward(guest, send, accept, quiet))
    inward = asyncio.create_task(_inward(guest, receive, quiet))
    idle = asyncio.create_task(quiet.too_long())
    code, reason = _GOING_AWAY, ""
    try:
        await asyncio.wait({outward, inward, idle}, return_when=asyncio.FIRST_COMPLETED)
        if inward.done():
            code, reason = inward.result()
        elif outward.done():
            if outward.exception() is not None:
                code = _BROKE_OFF  # the caller could not be told
        else:
            reason = f"nothing came for {limits.WEBSOCKET_IDLE_S.value:g} s"
            outward.cancel()
            await asyncio.wait({outward})
            with contextlib.suppress(OSError):
                await send({"type": "websocket.close", "code": code, "reason": reason})
        return 101, Outcome.CANCELED if code == _BROKE_OFF else Outcome.OK
    finally:
        for task in (outward, inward, idle):
            task.cancel()
        await asyncio.gather(outward, inward, idle, return_exceptions=True)
        await guest.close(code, reason)


async def _outward(guest: Socket, send: Send, accept: Message, quiet: _Quiet) -> None:
    """Guest to caller, then the guest's close code."""
    await send(accept)
    while (message := await guest.receive()) is not None:
        quiet.ends()
        if isinstance(message, str):
            await send({"type": "websocket.send", "text": message})
        else:
            await send({"type": "websocket.send", "bytes": message})
        del message  # up to 32 MiB, which count no more: not kept while the next is awaited
    code = guest.close_code
    if code in (None, _NO_CODE):
        code = 1000
    elif code == _BROKE_OFF:
        code = 1011
    await send({"type": "websocket.close", "code": code, "reason": guest.close_reason})


async def _inward(guest: Socket, receive: Receive, quiet: _Quiet) -> tuple[int, str]:
    """Caller to guest, until the caller closes: its code and reason, 1006 when it broke off."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            code = int(message.get("code") or _NO_CODE)
            if code not in (_NO_CODE, _BROKE_OFF, 1015):
                return code, str(message.get("reason") or "")
            # a close frame without a code comes with a reason, a lost connection with none
            return (1000, "") if message.get("reason") is not None else (_BROKE_OFF, "")
        quiet.ends()
        text = message.get("text")
        # up to 32 MiB, which count no more once they are sent: not kept while the next is awaited
        data: str | bytes = text if text is not None else message["bytes"]
        del message, text
        # the guest may have closed: `_outward` tells the caller, who may leave meanwhile
        with contextlib.suppress(WireError):
            await guest.send(data)
        del data


class SocketTask:
    """What moves a WebSocket: the task that relays it."""

    begun = True

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self.ended = False
        self._task = task

    def end(self) -> None:
        """Break off."""
        if self._task is not None and self._task.cancel():
            self.ended = True
            self._task.uncancel()

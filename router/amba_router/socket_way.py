"""The way of a WebSocket: a seat and a place, the same trust path, messages, its end."""

from __future__ import annotations

import asyncio
import contextlib

from amba_router.asgi import Receive, Send
from amba_router.long_way import LongWay
from amba_router.sockets import SocketTask, relay_socket
from amba_router.verdicts import NOT_PASSED_ON, head_breach, head_too_large, read_head
from amba_runtime.engine.base import Refused
from amba_runtime.outcome import Outcome
from amba_runtime.slot import Overloaded
from amba_runtime.turnstile import Busy
from amba_runtime.wire import WireError, parse_lines


async def serve_socket(call: LongWay, receive: Receive, send: Send) -> None:
    """Serve a WebSocket from its request to its end."""
    gate = call.slot.gate
    try:
        if gate is not None:
            gate.sit()
    except Busy as busy:
        await call.crowded(send, busy)
        return
    try:
        entered = await call.enter(receive, send)
        if entered is not None:
            try:
                await _pass(call, entered, send)
            finally:
                call.slot.leave(call)
    finally:
        if gate is not None:
            gate.rise()


async def _pass(call: LongWay, receive: Receive, send: Send) -> None:
    slot = call.slot
    call.relay = task = SocketTask(asyncio.current_task())
    account = None if slot.gate is None else slot.gate.account()
    try:
        isolate = await slot.ready()
        fields = [f for f in parse_lines(call.stamped()) if not f[0].startswith(b"sec-websocket-")]
        status, outcome = await relay_socket(
            isolate,
            call.target,
            fields,
            call.scope["subprotocols"],
            receive,
            send,
            not_passed_on=NOT_PASSED_ON,
            clock=call.clock,
            account=account,
        )
        note = ""
        if outcome is Outcome.OK and not isolate.alive:
            ended = await slot.cause(isolate)
            if ended is not None:
                outcome, note = ended.outcome, ended.reason
        if account is not None and account.breach is not None:
            call.breached(account.breach, "cut")
        call.tell(status, outcome, None, note=note)
    except Refused as refusal:
        await _refused(call, send, refusal)
    except Overloaded:
        await call.refuse(send, Outcome.LOAD_SHED, None)
    except WireError as error:
        await call.unreachable(send, error)
    except asyncio.CancelledError:
        if call.ended is None or not task.ended:
            raise
        # ours alone, and taken back
        with contextlib.suppress(OSError):
            await send({"type": "websocket.close", "code": 1011, "reason": "a limit"})
        call.tell(101, call.ended.outcome, None)
    finally:
        if account is not None:
            account.close()


async def _refused(call: LongWay, send: Send, refusal: Refused) -> None:
    """The guest answered a WebSocket request with an ordinary response, or threw."""
    outcome, tell, fields, size = read_head(refusal.headers, call.slot.tell_header)
    if outcome is not Outcome.OK:
        await call.refuse(send, outcome, None, tell=tell)
        return
    breach = head_breach(len(fields), size, call.slot.limits.response_header_bytes)
    if breach is not None:
        call.breached(breach, "refused")
        await call.refuse(send, Outcome.INTERNAL_ERROR, head_too_large(breach), tell=tell)
        return
    start = {"type": "http.response.start", "status": refusal.status, "headers": fields}
    await send(start)
    await send({"type": "http.response.body", "body": refusal.body})
    call.tell(refusal.status, outcome, tell)

"""One invocation by HTTP: acquire, invoke, answer, tell.

The whole trust decision is `_stamped`. Steps 3 to 12 of architecture.md section 3.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from amba_router.asgi import Receive, Scope, Send
from amba_router.headers import stamp_lines, strip
from amba_router.hosts import Site
from amba_router.journal import Invocation, Journal
from amba_router.problem import BAD_REQUEST, PAYLOAD_TOO_LARGE, Problem
from amba_router.relay import Relay, RelayFailed, Whole
from amba_router.routes import Project
from amba_router.signing import Stamp
from amba_router.sockets import relay_socket
from amba_runtime.clock import Clock
from amba_runtime.engine.base import Exchange, Refused
from amba_runtime.outcome import ANSWERS, Outcome, Tell
from amba_runtime.pool import Overloaded, Resting, Slot
from amba_runtime.wire import Headers, NothingSentError, WireError, parse_lines, render

logger = logging.getLogger("amba.dispatch")

Fields = tuple[tuple[bytes, bytes], ...]


def _stamped(
    fields: Fields,
    project: Project,
    slot: Slot,
    site: Site,
    peer: str,
    request_id: str,
    now_s: float,
) -> bytes:
    """Strip, resolve, stamp: what the worker sees of the caller's headers, and what we say.

    Every value below comes from routing, credentials and the clock, never from a header.
    Source: contract A.3, A.4.
    """
    kept = strip(fields)
    who = project.identities.of(kept)
    name = slot.manifest.name
    stamp = Stamp(project.id, who.user_id, who.developer_id, request_id, name, int(now_s))
    return render(kept) + stamp_lines(
        authority=site.authority,
        peer=peer.encode(),
        project_id=project.id_bytes,
        user_id=who.user_id.encode(),
        developer_id=who.developer_id.encode(),
        function_name=slot.name_bytes,
        request_id=request_id.encode(),
        timestamp=b"%d" % stamp.timestamp_s,
        signature=project.keyring.sign(stamp).encode(),
    )


class Call:
    """One invocation by HTTP: acquire, invoke, answer, tell."""

    __slots__ = (
        "clock",
        "fields",
        "journal",
        "now_s",
        "project",
        "request_id",
        "scope",
        "site",
        "slot",
        "started_s",
        "target",
    )

    def __init__(
        self,
        project: Project,
        slot: Slot,
        site: Site,
        scope: Scope,
        fields: Fields,
        target: bytes,
        request_id: str,
        now_s: float,
        *,
        clock: Clock,
        journal: Journal,
    ) -> None:
        self.clock = clock
        self.journal = journal
        self.project = project
        self.slot = slot
        self.site = site
        self.scope = scope
        self.fields = fields
        self.target = target
        self.request_id = request_id
        self.now_s = now_s
        self.started_s = clock.monotonic_s()

    def stamped(self) -> bytes:
        return _stamped(
            self.fields,
            self.project,
            self.slot,
            self.site,
            peer_of(self.scope),
            self.request_id,
            self.now_s,
        )

    async def fetch(self, receive: Receive, send: Send) -> None:
        length = _body_length(self.fields)
        if length == -1:
            await BAD_REQUEST.answer(send, self.request_id)
            return
        most = self.slot.limits.request_body_bytes
        if length is not None and length > most:
            await self.refuse(send, Outcome.CANCELED, _too_large(most))
            return
        slot = self.slot
        try:
            slot.enter()
        except Overloaded:
            await self.refuse(send, Outcome.LOAD_SHED, None)
            return
        try:
            exchange = await self._begin(length)
        except (Overloaded, TimeoutError) as error:
            slot.leave()
            outcome = (
                Outcome.LOAD_SHED if isinstance(error, Overloaded) else Outcome.EXCEEDED_WALL_TIME
            )
            await self.refuse(send, outcome, None)
            return
        except WireError as error:
            slot.leave()
            await self._unreachable(send, error)
            return
        except BaseException:
            slot.leave()
            raise
        relay = Relay(exchange, receive, send, limits=slot.limits, whole=self._whole())
        await self.follow(relay, length)

    async def follow(self, relay: Relay, length: int | None) -> None:
        """See a request through whose head was sent: body, answer, retry, end."""
        slot = self.slot
        try:
            if length != 0:
                await relay.send_body(length)
            try:
                await relay.wait_head()
            except NothingSentError:
                if length != 0 or relay.gone or relay.timed_out:
                    raise
                # the engine had closed this connection before it took the request
                relay.stop()
                relay = relay.again(await slot.exchange(fresh=True))
                self._send_head(relay.exchange, length)
                await relay.wait_head()
            await self._answer(relay)
        except RelayFailed as failure:
            await self.refuse(relay.send, failure.outcome, failure.problem)
        except Resting as error:
            await self._unreachable(relay.send, error)
        except Overloaded:
            await self.refuse(relay.send, Outcome.LOAD_SHED, None)
        except WireError as error:
            await self._broken(relay, relay.send, error)
        finally:
            slot.leave()
            relay.stop()

    def _whole(self) -> Whole | None:
        extensions: dict[str, Any] | None = self.scope.get("extensions")
        return extensions.get("amba.whole") if extensions else None

    def express(self, done: Callable[[Call], None]) -> Exchange | None:
        """Send a request that has no body over a connection at hand, without waiting.

        Args:
            done: called once, when the answer has begun or failed.

        Returns:
            None, and nothing was done, where this needs to wait or to be refused.
        """
        slot = self.slot
        if _body_length(self.fields) != 0 or slot.full:
            return None
        exchange = slot.idle()
        if exchange is None:
            return None
        slot.enter()
        try:
            self._send_head(exchange, 0)
        except Exception:
            slot.leave()
            exchange.abort()
            return None  # the long way meets the same fault, and has the words for it
        exchange.notify(lambda: done(self))
        return exchange

    def finish(self, exchange: Exchange, whole: Whole) -> bool:
        """Pass on an answer that is here whole.

        Returns:
            False, and nothing was done, for any other: `follow` takes it from here.

        Raises:
            Exception: `whole` failed; the event is told, and the connection given back.
        """
        if not exchange.complete:
            return False
        try:
            outcome, tell, out = _read_head(exchange.headers, self.slot.tell_header)
        except Exception:
            return False  # `follow` meets the same fault, where it can be answered
        if outcome is not Outcome.OK:
            return False
        status = exchange.status
        body = exchange.take()
        exchange.release()
        self.slot.leave()
        try:
            if not whole(status, out, body):
                status, outcome = 0, Outcome.CANCELED
        except Exception:
            self.tell(0, Outcome.INTERNAL_ERROR, tell)
            raise
        self.tell(status, outcome, tell)
        return True

    def _send_head(self, exchange: Exchange, length: int | None) -> None:
        method: str = self.scope["method"]
        exchange.begin(method.encode(), self.target, self.stamped(), length)

    async def _begin(self, length: int | None) -> Exchange:
        exchange = self.slot.idle() or await self._exchange()
        try:
            self._send_head(exchange, length)
        except BaseException:
            exchange.abort()
            raise
        return exchange

    async def _exchange(self) -> Exchange:
        """A way to send the request, perhaps of an isolate that starts for it.

        Raises:
            TimeoutError: the function's first byte would come too late.
        """
        first_byte_ms = self.slot.limits.first_byte_ms
        async with asyncio.timeout(first_byte_ms / 1000 if first_byte_ms else None):
            return await self.slot.exchange()

    async def _answer(self, relay: Relay) -> None:
        """The guest's answer, or the one its outcome has; then the event."""
        exchange = relay.exchange
        outcome, tell, out = _read_head(exchange.headers, self.slot.tell_header)
        if relay.gone:
            self.tell(0, Outcome.CANCELED, tell)
            return
        if outcome is not Outcome.OK:
            relay.discard()
            await self.refuse(relay.send, outcome, None, tell=tell)
            return
        status = exchange.status
        try:
            await relay.answer(status, out)
        except WireError as error:
            if relay.timed_out:
                outcome = Outcome.EXCEEDED_WALL_TIME
            elif not relay.gone:
                outcome = Outcome.RESPONSE_STREAM_DISCONNECTED
                logger.warning("%s: the answer broke off: %s", self.slot.manifest.name, error)
        if relay.gone:
            outcome = Outcome.CANCELED
        self.tell(status, outcome, tell)

    async def _broken(self, relay: Relay, send: Send, error: WireError) -> None:
        if relay.gone:
            self.tell(0, Outcome.CANCELED, None)
        elif relay.timed_out:
            await self.refuse(send, Outcome.EXCEEDED_WALL_TIME, None)
        else:
            note = await self.slot.cause() or str(error)
            logger.warning("%s: %s", self.slot.manifest.name, note)
            await self.refuse(send, Outcome.INTERNAL_ERROR, None, note=note)

    async def refuse(
        self,
        send: Send,
        outcome: Outcome,
        problem: Problem | None,
        *,
        tell: Tell | None = None,
        note: str = "",
    ) -> None:
        """Answer for the guest: by its outcome's row, or with a problem of our own."""
        if problem is None:
            answer = ANSWERS[outcome]
            problem = Problem(
                answer.status,
                answer.code,
                answer.kind,
                _first_message(tell) or answer.message,
                retry_after_s=1 if outcome is Outcome.LOAD_SHED else None,
            )
        await problem.answer(send, self.request_id, head=self.scope.get("method") == "HEAD")
        self.tell(problem.status, outcome, tell, note=note)

    def tell(self, status: int, outcome: Outcome, tell: Tell | None, *, note: str = "") -> None:
        slot = self.slot
        self.journal.add(
            Invocation(
                self.request_id,
                slot.manifest.name,
                slot.manifest.version,
                self.scope.get("method", "GET"),
                self.target.decode("latin-1"),
                status,
                outcome,
                self.now_s,
                (self.clock.monotonic_s() - self.started_s) * 1000,
                slot,
                tell,
                note=note,
            )
        )

    async def socket(self, receive: Receive, send: Send) -> None:
        """A WebSocket: the same trust path, then messages both ways."""
        slot = self.slot
        try:
            slot.enter()
        except Overloaded:
            await self.refuse(send, Outcome.LOAD_SHED, None)
            return
        try:
            isolate = await slot.ready()
            fields = [
                f for f in parse_lines(self.stamped()) if not f[0].startswith(b"sec-websocket-")
            ]
            status, outcome = await relay_socket(
                isolate,
                self.target,
                fields,
                self.scope["subprotocols"],
                receive,
                send,
                not_passed_on=_NOT_PASSED_ON,
            )
            self.tell(status, outcome, None)
        except Refused as refusal:
            await self._refused(send, refusal)
        except Overloaded:
            await self.refuse(send, Outcome.LOAD_SHED, None)
        except WireError as error:
            await self._unreachable(send, error)
        finally:
            slot.leave()

    async def _refused(self, send: Send, refusal: Refused) -> None:
        """The guest answered a WebSocket request with an ordinary response, or threw."""
        outcome, tell, fields = _read_head(refusal.headers, self.slot.tell_header)
        if outcome is not Outcome.OK:
            await self.refuse(send, outcome, None, tell=tell)
            return
        start = {"type": "http.response.start", "status": refusal.status, "headers": fields}
        await send(start)
        await send({"type": "http.response.body", "body": refusal.body})
        self.tell(refusal.status, outcome, tell)

    async def _unreachable(self, send: Send, error: WireError) -> None:
        """No isolate took the request: the engine is gone, or rests after too many ends."""
        logger.warning("%s: %s", self.slot.manifest.name, error)
        if isinstance(error, Resting):
            problem = Problem(
                503, "overloaded", "internal", str(error), retry_after_s=error.retry_after_s
            )
            await self.refuse(send, Outcome.LOAD_SHED, problem)
            return
        await self.refuse(send, Outcome.INTERNAL_ERROR, None)


def peer_of(scope: Scope) -> str:
    """The caller's address, as the worker is told it. Source: contract H-3, D.8."""
    client = scope.get("client")
    return client[0] if client else "127.0.0.1"


def _read_head(headers: Headers, tell_header: bytes) -> tuple[Outcome, Tell | None, Headers]:
    """The outcome and lines that the shim says, and the fields that the caller may see."""
    tell: Tell | None = None
    outcome = Outcome.OK
    out: Headers = []
    for field in headers:
        name = field[0]
        if name == tell_header:
            tell = Tell.parse(field[1])
            if tell.threw:
                outcome = Outcome.EXCEPTION
            continue
        if name in _NOT_PASSED_ON:
            continue
        out.append(field)
    return outcome, tell, out


_NOT_PASSED_ON = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


def _body_length(fields: Fields) -> int | None:
    """Bytes of the body; None when it comes in chunks; -1 when the framing is contradictory.

    Source: RFC 9112 section 6.3.
    """
    length: int | None = 0
    framed = False
    for name, value in fields:
        if name == b"content-length":
            if framed or not value.isdigit():
                return -1
            length, framed = int(value), True
        elif name == b"transfer-encoding":
            if framed or value.lower() != b"chunked":
                return -1
            length, framed = None, True
    return length


def _too_large(most: int) -> Problem:
    return Problem(
        PAYLOAD_TOO_LARGE.status,
        PAYLOAD_TOO_LARGE.code,
        PAYLOAD_TOO_LARGE.kind,
        f"the request body is larger than {most // 1024**2} MiB",
        {"limit": "request_body_mib", "bytes_max": most},
    )


def _first_message(tell: Tell | None) -> str:
    """The error's own message: what the platform's SDK answers (contract A.5)."""
    return tell.exceptions[0].message if tell is not None and tell.exceptions else ""

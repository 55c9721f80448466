"""One invocation by HTTP: acquire, invoke, answer, tell.

The whole trust decision is `_stamped`. Steps 3 to 12 of architecture.md section 3.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from amba_router.asgi import Receive, Scope, Send
from amba_router.headers import stamp_lines, strip
from amba_router.hosts import Site
from amba_router.long_way import LongWay
from amba_router.relay import Whole
from amba_router.routes import Project
from amba_router.signing import Stamp
from amba_router.socket_way import serve_socket
from amba_router.verdicts import (
    FRAMING,
    Fields,
    read_head,
)
from amba_runtime import limits
from amba_runtime.engine.base import Exchange
from amba_runtime.outcome import Outcome
from amba_runtime.pool import Slot
from amba_runtime.wire import render

logger = logging.getLogger("amba.dispatch")


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


class Call(LongWay):
    """One invocation by HTTP: acquire, invoke, answer, tell. An `Underway` of its slot."""

    __slots__ = ()

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

    # the short way

    def express(self, done: Callable[[Call], None]) -> Exchange | None:
        """Send a request that has no body over a connection at hand, without waiting.

        Args:
            done: called once, when the answer has begun or failed.

        Returns:
            None, and nothing was done, where this needs to wait or to be refused.
        """
        slot = self.slot
        for name, _ in self.fields:
            if name in FRAMING:
                return None
        if not slot.try_enter(self):
            return None
        exchange = slot.idle()
        if exchange is None:
            slot.leave(self)
            return None
        try:
            self._send_head(exchange, 0)
        except Exception:
            slot.leave(self)
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
        slot = self.slot
        try:
            outcome, tell, out, size = read_head(exchange.headers, slot.tell_header)
        except Exception:
            return False  # `follow` meets the same fault, where it can be answered
        if outcome is not Outcome.OK or size > slot.limits.response_header_bytes:
            return False
        if len(out) > limits.RESPONSE_HEADERS.value:
            return False
        status = exchange.status
        body = exchange.take()
        exchange.release()
        slot.answers += 1
        slot.leave(self)
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

    async def socket(self, receive: Receive, send: Send) -> None:
        """A WebSocket: the same trust path, then messages both ways."""
        await serve_socket(self, receive, send)


def peer_of(scope: Scope) -> str:
    """The caller's address, as the worker is told it. Source: contract H-3, D.8."""
    client = scope.get("client")
    return client[0] if client else "127.0.0.1"

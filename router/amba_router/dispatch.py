"""The data plane: a bare ASGI callable that turns a caller's request into a dispatched one.

The first steps of architecture.md section 3: name, read the host, find. `call` does the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from amba_router.asgi import App, Receive, Scope, Send
from amba_router.call import Call, peer_of
from amba_router.headers import strip
from amba_router.hosts import Hosts, Plane, Site
from amba_router.journal import Journal
from amba_router.problem import BAD_HOST, MISDIRECTED, Problem, not_found, over_websocket
from amba_router.rate_limit import RateCounter
from amba_router.relay import Relay, Whole
from amba_router.routes import Project, Projects, Route
from amba_router.verdicts import Fields
from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.engine.base import Exchange
from amba_runtime.entropy import RequestIds
from amba_runtime.pool import Slot

CdnApp = Callable[[Project, bytes, Scope, Send, str], Awaitable[None]]


class Dispatcher:
    """Answers for every host of one server.

    Args:
        platform: what answers on the bare host beside `/fn/` and `/cdn/`; it finds the request
            id in `scope["amba.request_id"]`.
        cdn: serves one object of a project: (project, raw key, scope, send, request id).
    """

    def __init__(
        self,
        *,
        hosts: Hosts,
        projects: Projects,
        journal: Journal,
        clock: Clock,
        platform: App,
        cdn: CdnApp,
    ) -> None:
        self._hosts = hosts
        self._projects = projects
        self._journal = journal
        self._clock = clock
        self._platform = platform
        self._cdn = cdn
        self._ids = RequestIds()
        # requests on the short way, oldest first; changed by `offer`, `_settled`, `_promote_slow`
        self._waiting: dict[Call, _Offer] = {}
        self._sweep: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP request or WebSocket."""
        # copied before anything is awaited: a server may append trailers to the list later
        fields: Fields = tuple(scope["headers"])
        now_s = self._clock.time_s()
        request_id = scope["amba.request_id"] = self._ids.new(now_s)
        if scope["type"] == "websocket":
            send = over_websocket(scope, send)
        problem = BAD_HOST
        host: bytes | None = None
        for name, value in fields:
            if name == b"host":
                if host is not None:
                    await problem.answer(send, request_id)
                    return
                host = value
        site = self._hosts.parse(host)
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        plane = site.plane
        slug = site.slug
        path = raw_path
        if plane is Plane.PLATFORM:
            if raw_path.startswith(b"/fn/"):
                label, _, rest = raw_path[4:].partition(b"/")
                plane, slug, path = Plane.FUNCTIONS, label.decode("latin-1"), b"/" + rest
            elif raw_path.startswith(b"/cdn/"):
                label, _, rest = raw_path[5:].partition(b"/")
                plane, slug, path = Plane.CDN, label.decode("latin-1"), b"/" + rest
            else:
                await self._platform(scope, receive, send)
                return
        if plane is Plane.MALFORMED or plane is Plane.FOREIGN:
            problem = BAD_HOST if plane is Plane.MALFORMED else MISDIRECTED
            await problem.answer(send, request_id, head=scope.get("method") == "HEAD")
            return
        head = scope.get("method") == "HEAD"
        project = self._projects.get(slug)
        if project is None:
            problem = not_found("project", slug, f"no project has the slug {slug[:63]!r}")
            await problem.answer(send, request_id, head=head)
            return
        if plane is Plane.CDN:
            if scope["type"] == "websocket":
                problem = Problem(
                    400, "BAD_REQUEST", "invalid_request", "a stored file opens no WebSocket"
                )
                await problem.answer(send, request_id)
                return
            await self._cdn(project, path[1:], scope, send, request_id)
            return
        segment, _, rest = path[1:].partition(b"/")
        route = project.routes.get(segment)
        slot = None if route is None else route.slot
        if route is None or slot is None or route.broken is not None:
            if (
                route is not None
                and route.broken is not None
                and await _show_broken(route, fields, slot is None, send, request_id, head=head)
            ):
                return
            if slot is None:
                name_text = segment.decode("latin-1")[:64]
                problem = not_found("function", name_text, f"no function is called {name_text!r}")
                await problem.answer(send, request_id, head=head)
                return
        assert slot is not None
        assert route is not None
        if route.counter is not None:
            refusal = route.counter.count(_caller(route.counter, project, scope, fields))
            if refusal is not None:
                await refusal.problem().answer(send, request_id, head=head)
                return
        call = self._call(project, slot, site, scope, fields, rest, request_id, now_s)
        if scope["type"] == "websocket":
            await call.socket(receive, send)
        else:
            await call.fetch(receive, send)

    def _call(
        self,
        project: Project,
        slot: Slot,
        site: Site,
        scope: Scope,
        fields: Fields,
        rest: bytes,
        request_id: str,
        now_s: float,
    ) -> Call:
        query: bytes = scope["query_string"]
        target = b"/" + rest
        if query or "amba.bare_query" in scope:
            target = b"%b?%b" % (target, query)
        return Call(
            project,
            slot,
            site,
            scope,
            fields,
            target,
            request_id,
            now_s,
            clock=self._clock,
            journal=self._journal,
            hop=scope.get("amba.hop"),
        )

    # the short way

    def offer(self, scope: Scope, whole: Whole, promote: Callable[[App], None]) -> bool:
        """Take a request without a task of its own: most are answered whole, and at once.

        Takes only what needs no waiting and no refusal: no body, a function that serves, a
        connection at hand. Whatever then turns out otherwise (a stream, an exception, silence
        for `limits.DISCONNECT_WATCH_S`) is promoted to the long way, where it stands.

        Args:
            whole: sends a complete answer.
            promote: runs an ASGI app for this request after all.

        Returns:
            False, and nothing was done: call the app.
        """
        fields: Fields = tuple(scope["headers"])
        host: bytes | None = None
        for name, value in fields:
            if name == b"host":
                if host is not None:
                    return False
                host = value
        site = self._hosts.parse(host)
        path: bytes = scope["raw_path"]
        slug = site.slug
        if site.plane is Plane.PLATFORM and path.startswith(b"/fn/"):
            label, _, path = path[4:].partition(b"/")
            slug = label.decode("latin-1")
        elif site.plane is Plane.FUNCTIONS:
            path = path[1:]
        else:
            return False
        project = self._projects.get(slug)
        if project is None:
            return False
        segment, _, rest = path.partition(b"/")
        route = project.routes.get(segment)
        if (
            route is None
            or route.slot is None
            or route.broken is not None
            or route.counter is not None
        ):
            return False
        now_s = self._clock.time_s()
        request_id = scope["amba.request_id"] = self._ids.new(now_s)
        call = self._call(project, route.slot, site, scope, fields, rest, request_id, now_s)
        exchange = call.express(self._settled)
        if exchange is None:
            return False
        loop = asyncio.get_running_loop()
        self._waiting[call] = _Offer(exchange, whole, promote, loop.time())
        if self._sweep is None:
            self._sweep = loop.call_later(limits.DISCONNECT_WATCH_S.value, self._promote_slow)
        return True

    def _settled(self, call: Call) -> None:
        offer = self._waiting.pop(call, None)
        if offer is None:
            return
        try:
            if not call.finish(offer.exchange, offer.whole):
                self._promote(call, offer)
        except Exception as fault:
            # we are in the engine connection's callback: the client's own task must tell it
            offer.promote(_failing(fault))

    def _promote_slow(self) -> None:
        """Let those that have waited take the long way; look again while any wait."""
        self._sweep = None
        loop = asyncio.get_running_loop()
        horizon = loop.time() - limits.DISCONNECT_WATCH_S.value
        for call, offer in list(self._waiting.items()):
            if offer.since_s > horizon:
                break  # in order of their beginning
            del self._waiting[call]
            self._promote(call, offer)
        if self._waiting:
            self._sweep = loop.call_later(limits.DISCONNECT_WATCH_S.value, self._promote_slow)

    def _promote(self, call: Call, offer: _Offer) -> None:
        offer.exchange.notify(None)

        async def go_on(scope: Scope, receive: Receive, send: Send) -> None:
            limits_ = call.slot.limits
            relay = Relay(
                offer.exchange,
                receive,
                send,
                limits=limits_,
                whole=offer.whole,
                since_s=offer.since_s,
            )
            await call.follow(relay, 0)

        offer.promote(go_on)


@dataclass(slots=True, eq=False)
class _Offer:
    """A request on the short way: what it waits for, and the two ways on. Never changed."""

    exchange: Exchange
    whole: Whole
    promote: Callable[[App], None]
    since_s: float
    """On the loop's own clock."""


def _failing(fault: Exception) -> App:
    """An app that fails with `fault`, which the server logs and answers or cuts off."""

    async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise fault

    return fail


def _caller(counter: RateCounter, project: Project, scope: Scope, fields: Fields) -> str:
    """Whom a request counts for: what the worker will be told of its caller. Source: D.8."""
    if counter.limit.key == "user_id":
        return project.identities.of(strip(fields)).user_id
    return peer_of(scope)


async def _show_broken(
    route: Route, fields: Fields, nothing_serves: bool, send: Send, request_id: str, *, head: bool
) -> bool:
    """Tell a browser (and, when nothing serves, everybody) why the newest source does not.

    Returns:
        True when the request was answered.
    """
    assert route.broken is not None
    message, page = route.broken
    if any(n == b"accept" and b"text/html" in v for n, v in fields):
        await send(
            {
                "type": "http.response.start",
                "status": 500,
                "headers": [
                    (b"content-type", b"text/html; charset=utf-8"),
                    (b"content-length", b"%d" % len(page)),
                    (b"cache-control", b"no-store"),
                ],
            }
        )
        await send({"type": "http.response.body", "body": b"" if head else page})
        return True
    if nothing_serves:
        await Problem(500, "FUNCTION_BROKEN", "internal", message).answer(
            send, request_id, head=head
        )
        return True
    return False

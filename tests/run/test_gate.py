"""The doors of a laptop: who may call from beyond loopback, and which web pages: truth tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from amba_router.asgi import App, Message, Receive, Scope, Send
from amba_router.hosts import Plane
from amba_router.pages import Pages
from amba_router.relay import Whole
from amba_run.addresses import listener_hosts
from amba_run.gate import HEADER, Gate, HostGuard, PageGuard
from amba_runtime import limits


def through(client: object, headers: list[tuple[bytes, bytes]], kind: str = "http") -> list[Any]:
    """What was sent to the caller; the app behind answers with the headers it saw."""
    sent: list[Any] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        sent.append(scope["headers"])

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": kind, "method": "GET", "client": client, "headers": headers}
    asyncio.run(Gate(app, "s3cret")(scope, receive, send))
    return sent


@pytest.mark.parametrize(
    ("client", "token", "passes"),
    [
        (("127.0.0.1", 1), None, True),
        (("127.9.9.9", 1), b"wrong", True),
        (("::1", 1), None, True),
        (("::ffff:127.0.0.1", 1), None, True),
        (("192.0.2.1", 1), None, False),
        (("192.0.2.1", 1), b"wrong", False),
        (("192.0.2.1", 1), b"", False),
        (("192.0.2.1", 1), b"s3cret ", False),
        (("192.0.2.1", 1), b"s3cret", True),
        (("fe80::1%eth0", 1), None, False),
        (("fe80::1%eth0", 1), b"s3cret", True),
        (("not an address", 1), None, False),
        (None, None, False),
    ],
)
def test_who_passes(client: object, token: bytes | None, passes: bool) -> None:
    """Loopback, or the token; the token's header goes no further."""
    headers = [(b"host", b"x")] + ([] if token is None else [(HEADER, token)])
    sent = through(client, headers)
    if passes:
        assert sent == [[(b"host", b"x")]]
    else:
        assert sent[0]["status"] == 401
        assert b"TOKEN_REQUIRED" in sent[1]["body"]


def test_a_websocket_is_closed() -> None:
    """It is refused before it is accepted."""
    assert through(("192.0.2.1", 1), [], "websocket") == [CLOSE]


# web pages

CLOSE = {"type": "websocket.close", "code": 1000}


class Door:
    """An app behind a guard: what came through it, and what was sent to the caller."""

    def __init__(self) -> None:
        self.came: list[Scope] = []
        self.offered: list[Scope] = []
        self.sent: list[Any] = []

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        self.came.append(scope)

    def offer(self, scope: Scope, _whole: object, _promote: object) -> bool:
        self.offered.append(scope)
        return True

    def knock(
        self, guard: App, kind: str = "http", method: str = "GET", **fields: str
    ) -> list[Any]:
        """One request; `_` in names of headers stands for `-`.

        Args:
            kind: `http`, `websocket`, or `websocket+` to a server that can refuse it in HTTP.
        """
        headers = [(n.replace("_", "-").encode(), v.encode()) for n, v in fields.items()]
        scope: Scope = {"type": kind.rstrip("+"), "headers": headers, "path": "/"}
        if kind == "websocket+":
            scope["extensions"] = {"websocket.http.response": {}}
        if kind == "http":
            scope["method"] = method

        async def receive() -> Message:
            return {}

        async def send(message: Message) -> None:
            self.sent.append(message)

        self.sent.clear()

        async def ask() -> None:
            await guard(scope, receive, send)

        asyncio.run(ask())
        return self.sent


def test_foreign_pages_are_turned_away(caplog: pytest.LogCaptureFixture) -> None:
    """403 before routing, no body, no CORS header; told once per page (C3, C4)."""
    door = Door()
    guard = PageGuard(door, Pages())
    for _ in range(2):
        start, body = door.knock(
            guard, method="POST", origin="https://evil.example", sec_fetch_site="cross-site"
        )
        assert (start["status"], body["body"]) == (403, b"")
        assert {name for name, _ in start["headers"]} == {b"content-length", b"cache-control"}
    door.knock(guard, sec_fetch_site="cross-site")
    assert door.came == []
    assert caplog.messages == [
        "a web page (https://evil.example) tried to call this server and was refused; "
        "if it is yours: --allow-origin https://evil.example",
        "a web page (an unknown page) tried to call this server and was refused",
    ]


def test_everybody_else_passes() -> None:
    """Programs, this machine's pages and those that were allowed."""
    door = Door()
    guard = PageGuard(door, Pages(["https://app.example"]))
    assert door.knock(guard) == []
    assert door.knock(guard, origin="http://localhost:3000", sec_fetch_site="cross-site") == []
    assert door.knock(guard, origin="https://app.example", sec_fetch_site="cross-site") == []
    assert door.knock(guard, "websocket", origin="https://app.example") == []
    assert len(door.came) == 4


@pytest.mark.parametrize(
    "origin", ["null", "https://evil.example", "http://localhost.evil.example"]
)
def test_foreign_pages_open_no_websocket(origin: str) -> None:
    """403 where the server can say so, else closed before it is accepted (C5)."""
    door = Door()
    guard = PageGuard(door, Pages())
    assert door.knock(guard, "websocket", origin=origin) == [CLOSE]
    start, body = door.knock(guard, "websocket+", origin=origin)
    assert start["type"] == "websocket.http.response.start"
    assert (start["status"], body["body"]) == (403, b"")
    assert door.came == []


def test_the_short_way_is_guarded_too() -> None:
    """What the app behind would take without a task is judged first."""
    door = Door()
    guard = PageGuard(door, Pages())
    mine: Scope = {"type": "http", "method": "GET", "headers": []}
    foreign: Scope = {**mine, "headers": [(b"sec-fetch-site", b"cross-site")]}
    whole, promote = cast(Whole, None), cast(Callable[[App], None], None)
    assert guard.offer(mine, whole, promote)
    assert not guard.offer(foreign, whole, promote)
    assert door.offered == [mine]
    assert not PageGuard(door.__call__, Pages()).offer(mine, whole, promote)


def test_a_flood_of_pages_does_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever makes up origins fills neither memory nor terminal."""
    door = Door()
    guard = PageGuard(door, Pages())
    for i in range(limits.REFUSED_PAGES_TOLD.value + 50):
        door.knock(guard, origin=f"https://e{i}.example", sec_fetch_site="cross-site")
    assert len(caplog.messages) == limits.REFUSED_PAGES_TOLD.value


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9100", 0),
        ("localhost", 0),
        ("[::1]:9100", 0),
        ("evil.example:9100", 421),
        ("local.fn.localhost", 421),
        ("localhost.evil.example", 421),
        ("0.0.0.0", 421),
        ("[::ffff:7f00:1]", 421),
        ("", 400),
        ("a b", 400),
    ],
)
def test_a_bare_listener_answers_for_its_hosts(host: str, status: int) -> None:
    """The metrics listener too: no name of another site's reaches it (C1)."""
    door = Door()
    guard = HostGuard(door, listener_hosts("127.0.0.1"))
    sent = door.knock(guard, host=host)
    assert bool(door.came) is (status == 0)
    if status:
        assert sent[0]["status"] == status
    else:
        assert sent == []
    if status == 421:
        assert sent[1]["body"] == b""


def test_a_bare_listener_wants_one_host_and_no_websocket() -> None:
    """Without a Host it is malformed; a WebSocket is closed."""
    door = Door()
    guard = HostGuard(door, listener_hosts("127.0.0.1"))
    assert door.knock(guard)[0]["status"] == 400
    assert door.knock(guard, "websocket") == [CLOSE]
    assert door.came == []


def test_a_listener_beyond_loopback_has_this_machines_names() -> None:
    """Its own address is a name of it; with 0.0.0.0 all of this machine's are."""
    assert listener_hosts("192.0.2.7").parse(b"192.0.2.7:9100").plane is Plane.PLATFORM
    assert listener_hosts("192.0.2.7").parse(b"192.0.2.8:9100").plane is Plane.FOREIGN
    assert listener_hosts("0.0.0.0").parse(b"127.0.0.1").plane is Plane.PLATFORM
    assert listener_hosts("::").parse(b"0.0.0.0").plane is Plane.FOREIGN

"""Whose word on a caller's address counts: a truth table (interface.md 1; contract H-3, D.8)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from amba_router.asgi import App, Receive, Scope, Send
from amba_router.forwarded import BehindProxies, Proxies
from amba_runtime.errors import UserCode, UserError

PROXIES = Proxies(["10.0.0.0/8", "192.0.2.7", "fd00::/8"])


def said(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"X-Forwarded-For", value.encode()) for value in values]


@pytest.mark.parametrize(
    ("peer", "values", "caller"),
    [
        # a stranger's word counts for nothing
        ("203.0.113.9", ["1.2.3.4"], "203.0.113.9"),
        ("192.0.2.8", ["1.2.3.4"], "192.0.2.8"),
        ("not an address", ["1.2.3.4"], "not an address"),
        # a proxy's does
        ("10.1.2.3", ["1.2.3.4"], "1.2.3.4"),
        ("192.0.2.7", ["2001:db8::1"], "2001:db8::1"),
        ("fd00::1", ["1.2.3.4"], "1.2.3.4"),
        ("::ffff:10.1.2.3", ["1.2.3.4"], "1.2.3.4"),
        ("10.1.2.3", ["::ffff:1.2.3.4"], "1.2.3.4"),
        # as proxies write them
        ("10.1.2.3", [" 1.2.3.4:5678 "], "1.2.3.4"),
        ("10.1.2.3", ["[2001:db8::1]:443"], "2001:db8::1"),
        # the last that is no proxy's; what stands before it anybody could have written
        ("10.1.2.3", ["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        ("10.1.2.3", ["6.6.6.6, 1.2.3.4, 10.9.9.9"], "1.2.3.4"),
        ("10.1.2.3", ["6.6.6.6", "1.2.3.4", "10.9.9.9"], "1.2.3.4"),
        # nobody but proxies: the farthest
        ("10.1.2.3", ["10.9.9.9, 10.8.8.8"], "10.9.9.9"),
        # nothing, or nonsense, is as far as it goes
        ("10.1.2.3", [], "10.1.2.3"),
        ("10.1.2.3", [""], "10.1.2.3"),
        ("10.1.2.3", ["unknown"], "10.1.2.3"),
        ("10.1.2.3", ["1.2.3.4, _hidden"], "10.1.2.3"),
        ("10.1.2.3", ["1.2.3.4, unknown, 10.9.9.9"], "10.9.9.9"),
        ("10.1.2.3", ["1.2.3.4\r\nx: y"], "10.1.2.3"),
        ("10.1.2.3", ["1.2.3.4,"], "10.1.2.3"),
    ],
)
def test_the_caller_is_who_the_trusted_say(peer: str, values: list[str], caller: str) -> None:
    """Read from its end, and only as far as those who wrote it are trusted."""
    assert PROXIES.caller(peer, said(*values)) == caller


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "proxy.example.com", "10.0.0/8"])
def test_a_network_that_is_none_is_refused(text: str) -> None:
    """By name, with an example."""
    with pytest.raises(UserError, match="--trust-proxy") as caught:
        Proxies([text])
    assert caught.value.code is UserCode.INVALID_CONFIG


def _scope(peer: tuple[str, int] | None, *values: str) -> Scope:
    return {"type": "http", "client": peer, "headers": said(*values)}


class _App:
    """Notes who was said to call; has a short way."""

    def __init__(self) -> None:
        self.callers: list[Any] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.callers.append(scope["client"])

    def offer(self, scope: Scope, whole: Any, promote: Any) -> bool:
        self.callers.append(("offered", scope["client"]))
        return False


def _whole(status: int, headers: Any, body: bytes) -> bool:
    raise AssertionError("nothing is answered")


def _promote(app: App) -> None:
    raise AssertionError("nothing is promoted")


async def _receive() -> Any:
    raise AssertionError("nothing is read")


async def _send(message: Any) -> None:
    raise AssertionError("nothing is said")


def test_the_app_behind_sees_the_caller() -> None:
    """On both ways, and once: what was computed is not computed again from itself."""

    async def run() -> None:
        app = _App()
        front = BehindProxies(app, PROXIES)
        scope = _scope(("10.1.2.3", 80), "10.9.9.9, 1.2.3.4")
        assert not front.offer(scope, _whole, _promote)
        await front(scope, _receive, _send)
        await front(_scope(None), _receive, _send)
        assert app.callers == [("offered", ("1.2.3.4", 80)), ("1.2.3.4", 80), None]

    asyncio.run(run())


def test_an_app_without_a_short_way_has_none_behind_a_proxy() -> None:
    """The server then takes the long one."""

    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("not asked")

    app: App = plain
    scope = _scope(("10.1.2.3", 80), "1.2.3.4")
    assert not BehindProxies(app, PROXIES).offer(scope, _whole, _promote)

"""The lock on a dev server that listens beyond loopback: a truth table."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from amba_router.asgi import Message, Receive, Scope, Send
from amba_run.gate import HEADER, Gate


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
    assert through(("192.0.2.1", 1), [], "websocket") == [{"type": "websocket.close", "code": 1008}]

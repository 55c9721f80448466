"""WebSocket requests, by raw bytes on a real socket: opened, or refused in the envelope."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from amba_router.asgi import Receive, Scope, Send
from amba_run.serve import Listener, bind
from amba_runtime import limits

HOST = b"Host: a.fn.localhost"
UPGRADE = b"Upgrade: websocket"
CONNECTION = b"Connection: Upgrade"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = b"Sec-WebSocket-Version: 13"
HANDSHAKE = (UPGRADE, CONNECTION, KEY, VERSION)
HELLO = b"\x81\x85\0\0\0\0hello"  # a text frame under a mask of zeros
ECHOED = b"\x81\x05hello\x88\x02\x03\xe8"
BYE = b"\x88\x82\0\0\0\0\x03\xe8"

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


class Front:
    """The server under test; its app answers as `says` does, and keeps what it was asked."""

    port = 0

    def __init__(self, says: Callable[[Receive, Send], Awaitable[None]]) -> None:
        self.says = says
        self.scopes: list[Scope] = []

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await self.says(receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"plain"})

    async def talk(
        self, *lines: bytes, then: bytes = b"", hello: bytes = b"", until: bytes = b""
    ) -> bytes:
        """Send a request and what comes behind it; read to the end of the connection.

        Args:
            hello: sent once the server has answered the head.
            until: after this the client closes the WebSocket.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"\r\n".join((*lines, b"", b"")) + then)
        try:
            heard = await reader.readuntil(b"\r\n\r\n") if hello else b""
            writer.write(hello)
            heard += await reader.readuntil(until) if until else b""
            writer.write(BYE if until else b"")
            return heard + await reader.read()
        finally:
            writer.close()


def run(
    says: Callable[[Receive, Send], Awaitable[None]], body: Callable[[Front], Awaitable[None]]
) -> None:
    async def main() -> None:
        front = Front(says)
        sockets = bind("127.0.0.1", 0)
        front.port = sockets[0].getsockname()[1]
        listener = Listener(front.app, sockets)
        await listener.open()
        try:
            async with asyncio.timeout(5):
                await body(front)
        finally:
            await listener.close(grace_s=0.1)

    asyncio.run(main())


def parsed(raw: bytes) -> Answer:
    head, mark, body = raw.partition(b"\r\n\r\n")
    assert mark, raw
    first, *lines = head.split(b"\r\n")
    fields = [(n.lower(), v) for n, _, v in (line.partition(b": ") for line in lines)]
    return int(first.split(b" ")[1]), fields, body


def refused(raw: bytes) -> tuple[int, str, str]:
    """Status, code and message of an answer in the envelope, on a connection that has ended."""
    status, fields, body = parsed(raw)
    named = dict(fields)
    assert named[b"content-type"] == b"application/json"
    assert named[b"connection"] == b"close"
    assert int(named[b"content-length"]) == len(body)
    error = json.loads(body)["error"]
    assert error["status"] == status
    return status, error["code"], error["message"]


async def echo(receive: Receive, send: Send) -> None:
    """Accepts, gives one message back, and closes."""
    await receive()
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    message = await receive()
    await send({"type": "websocket.send", "text": message["text"]})
    await send({"type": "websocket.close", "code": 1000})


async def never(receive: Receive, send: Send) -> None:
    raise AssertionError("the app was asked")


def answers(status: int, *headers: tuple[bytes, bytes], body: bytes = b"") -> Any:
    """An app that answers a WebSocket request with an ordinary response."""

    async def says(receive: Receive, send: Send) -> None:
        kind = "websocket.http.response"
        await send({"type": f"{kind}.start", "status": status, "headers": list(headers)})
        await send({"type": f"{kind}.body", "body": body[:1], "more_body": True})
        await send({"type": f"{kind}.body", "body": body[1:]})

    return says


LONG = limits.EDGE_TARGET.value - len("/ws/")


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (b"/ws", ()),
        (b"/ws", (b"Content-Length: 0",)),
        (b"/ws", (b"X: " + b"a" * 9000,)),
        (b"/ws", (b"X: " + b"a" * 60000,)),
        (b"/ws", tuple(b"X-%d: y" % i for i in range(195))),
        (b"/ws/" + b"a" * LONG, ()),
        (b"/ws", (b"X: caf\xe9",)),
    ],
    ids=["plain", "no body", "9 kB header", "60 kB header", "200 headers", "16 KiB URL", "Latin-1"],
)
def test_a_large_handshake_is_served(target: bytes, headers: tuple[bytes, ...]) -> None:
    """All that the edge allows other requests opens a WebSocket too (reliability 2.3)."""

    async def body(front: Front) -> None:
        line = b"GET %b HTTP/1.1" % target
        raw = await front.talk(line, HOST, *HANDSHAKE, *headers, hello=HELLO, until=ECHOED)
        status, fields, frames = parsed(raw)
        assert status == 101
        assert [n for n, _ in fields].count(b"date") == 1
        assert frames == ECHOED
        (scope,) = front.scopes
        assert scope["raw_path"] == target
        assert len(scope["headers"]) == 5 + len(headers)
        if headers:
            name, _, value = headers[-1].partition(b": ")
            assert scope["headers"][-1] == (name.lower(), value)

    run(echo, body)


def test_a_client_that_does_not_wait_is_heard() -> None:
    """A first message in the packet of the handshake is not lost."""

    async def body(front: Front) -> None:
        raw = await front.talk(GET, HOST, *HANDSHAKE, then=HELLO, until=ECHOED)
        status, _, frames = parsed(raw)
        assert (status, frames) == (101, ECHOED)

    run(echo, body)


def test_an_absolute_target_is_one_path() -> None:
    """`GET http://host/path` names the function at that path (RFC 9112 section 3.2.2)."""

    async def body(front: Front) -> None:
        line = b"GET http://a.fn.localhost/ws?x=1 HTTP/1.1"
        raw = await front.talk(line, HOST, *HANDSHAKE, hello=HELLO, until=ECHOED)
        assert parsed(raw)[0] == 101
        (scope,) = front.scopes
        assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/ws", b"/ws", b"x=1")

    run(echo, body)


GET = b"GET /ws HTTP/1.1"
NO_SOCKET = "a WebSocket begins with a GET that has no body, in version 13 of the protocol"
REFUSED: dict[str, tuple[tuple[bytes, ...], bytes, tuple[int, str, str]]] = {
    "POST": ((b"POST /ws HTTP/1.1", *HANDSHAKE), b"", (400, "BAD_REQUEST", NO_SOCKET)),
    "POST with a body": (
        (b"POST /ws HTTP/1.1", *HANDSHAKE, b"Content-Length: 2"),
        b"hi",
        (400, "BAD_REQUEST", NO_SOCKET),
    ),
    "a body": ((GET, *HANDSHAKE, b"Content-Length: 2"), b"hi", (400, "BAD_REQUEST", NO_SOCKET)),
    "chunks": (
        (GET, *HANDSHAKE, b"Transfer-Encoding: chunked"),
        b"2\r\nhi\r\n0\r\n\r\n",
        (400, "BAD_REQUEST", NO_SOCKET),
    ),
    "no version": ((GET, UPGRADE, CONNECTION, KEY), b"", (400, "BAD_REQUEST", NO_SOCKET)),
    "version 12": (
        (GET, UPGRADE, CONNECTION, KEY, b"Sec-WebSocket-Version: 12"),
        b"",
        (400, "BAD_REQUEST", NO_SOCKET),
    ),
    "no key": (
        (GET, UPGRADE, CONNECTION, VERSION),
        b"",
        (
            400,
            "BAD_REQUEST",
            "Failed to open a WebSocket connection: missing Sec-WebSocket-Key header",
        ),
    ),
    "201 headers": (
        (GET, *HANDSHAKE, *(b"X-%d: y" % i for i in range(196))),
        b"",
        (
            431,
            "HEADERS_TOO_LARGE",
            "the request head is larger than 64 KiB or has more than 200 headers",
        ),
    ),
    "a URL past 16 KiB": (
        (b"GET /ws/%b HTTP/1.1" % (b"a" * (LONG + 1)), *HANDSHAKE),
        b"",
        (414, "URI_TOO_LONG", "the request target is longer than 16 KiB"),
    ),
    "a target that is no ASCII": (
        (b"GET /ws/\xff HTTP/1.1", *HANDSHAKE),
        b"",
        (400, "BAD_REQUEST", "the request is not valid HTTP/1.1"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_handshake_is_answered(case: str) -> None:
    """Never silence: the envelope, and then the end of the connection (A.7, RFC 6455 4.2.1)."""
    lines, behind, expected = REFUSED[case]

    async def body(front: Front) -> None:
        raw = await front.talk(lines[0], HOST, *lines[1:], then=behind)
        assert refused(raw) == expected
        if expected[2] == NO_SOCKET:
            assert dict(parsed(raw)[1])[b"sec-websocket-version"] == b"13"
        assert front.scopes == []

    run(never, body)


def test_http_1_0_has_no_upgrade() -> None:
    """Such a header is ignored there: an ordinary request (RFC 9110 section 7.8)."""

    async def body(front: Front) -> None:
        raw = await front.talk(b"GET /ws HTTP/1.0", HOST, *HANDSHAKE)
        status, _, text = parsed(raw)
        assert (status, text) == (200, b"plain")
        assert [scope["type"] for scope in front.scopes] == ["http"]

    run(never, body)


@pytest.mark.parametrize(
    ("status", "headers", "body", "length"),
    [
        (204, (), b"", None),
        (204, ((b"content-length", b"0"),), b"", None),
        (304, (), b"", None),
        (304, ((b"content-length", b"7"),), b"", b"7"),
        (200, (), b"", b"0"),
        (403, ((b"content-length", b"2"), (b"x-a", b"b")), b"no", b"2"),
        (599, (), b"odd", b"3"),
    ],
)
def test_a_guests_own_answer(
    status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes, length: bytes | None
) -> None:
    """It leaves as the guest gave it, and says no length where none may stand (RFC 9110 8.6)."""

    async def check(front: Front) -> None:
        seen, fields, text = parsed(await front.talk(GET, HOST, *HANDSHAKE))
        assert (seen, text) == (status, body)
        names = [name for name, _ in fields]
        assert len(names) == len(set(names))
        assert dict(fields).get(b"content-length") == length
        assert b"date" in names
        assert b"content-type" not in names  # none was given, and none is made up
        assert {f for f in headers if f[0] != b"content-length"} <= set(fields)

    run(answers(status, *headers, body=body), check)


@pytest.mark.parametrize("opened", [True, False])
def test_a_guests_date_is_the_only_one(opened: bool) -> None:
    """Ours stands only where the guest sent none (RFC 9110 section 6.6.1)."""
    theirs = (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")

    async def accepts(receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept", "headers": [theirs]})

    async def body(front: Front) -> None:
        status, fields, _ = parsed(await front.talk(GET, HOST, *HANDSHAKE))
        assert status == (101 if opened else 200)
        assert [f for f in fields if f[0] == b"date"] == [theirs]

    run(accepts if opened else answers(200, theirs), body)


def test_an_app_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Logged with its path, and answered in the envelope with the request's id."""

    fronts: list[Front] = []

    async def fails(receive: Receive, send: Send) -> None:
        fronts[0].scopes[-1]["amba.request_id"] = "r-1"
        raise RuntimeError("a fault of ours")

    async def body(front: Front) -> None:
        fronts.append(front)
        raw = await front.talk(GET, HOST, *HANDSHAKE)
        assert refused(raw)[:2] == (500, "INTERNAL")
        assert json.loads(parsed(raw)[2])["error"]["request_id"] == "r-1"

    with caplog.at_level(logging.ERROR, "amba.edge"):
        run(fails, body)
    (record,) = caplog.records
    assert "/ws" in record.getMessage()
    assert "a fault of ours" in str(record.exc_info)


@pytest.mark.parametrize("half", [True, False])
def test_an_app_that_says_nothing(half: bool) -> None:
    """No answer is a fault of ours; half of one ends with the connection."""

    async def silent(receive: Receive, send: Send) -> None:
        if half:
            await send({"type": "websocket.http.response.start", "status": 200, "headers": []})

    async def body(front: Front) -> None:
        raw = await front.talk(GET, HOST, *HANDSHAKE)
        if half:
            assert raw == b""
        else:
            assert refused(raw)[:2] == (500, "INTERNAL")

    run(silent, body)


def test_a_socket_outlives_the_idle_clock_of_its_connection() -> None:
    """A request before it on the same connection leaves no timer that would close it."""

    async def body(front: Front) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        try:
            writer.write(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n\r\n")
            await reader.readuntil(b"plain\r\n0\r\n\r\n")
            before = _timers()
            writer.write(b"\r\n".join((GET, HOST, *HANDSHAKE, b"", b"")))
            await reader.readuntil(b"\r\n\r\n")
            assert _timers() - before == -1
            writer.write(HELLO)
            await reader.readuntil(ECHOED)
            writer.write(BYE)
            assert await reader.read() == b""
        finally:
            writer.close()

    def _timers() -> int:
        """Waits of the edge on this loop."""
        loop: Any = asyncio.get_running_loop()
        return sum(
            "PatientProtocol._look" in repr(timer)
            for timer in loop._scheduled
            if not timer.cancelled()
        )

    run(echo, body)

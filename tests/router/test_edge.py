"""The strict front, by raw bytes on a real socket: refused and closed, or exactly one call.

The oracle of reliability.md 3.A. One server on loopback serves the whole module.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from tests.waiting import pause, until

from amba_router.asgi import Receive, Scope, Send
from amba_run.serve import Listener, bind
from amba_runtime import limits

HOST = b"Host: a.fn.localhost\r\n"
HEAD_MAX = limits.EDGE_HEAD.value
COUNT_MAX = limits.EDGE_HEADERS.value
TARGET_MAX = limits.EDGE_TARGET.value
LARGE = b"x" * 2**20


@dataclass(frozen=True, slots=True)
class Call:
    """One request as the app saw it; `broken` when the body ended before its end."""

    method: str
    version: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    broken: bool = False


@dataclass(slots=True)
class Heard:
    """What came back on one connection."""

    data: bytes
    closed: bool

    def answers(self, *methods: str) -> list[tuple[int, dict[bytes, bytes], bytes]]:
        """Parse the answers, strictly; every byte belongs to one."""
        rest, out = self.data, list[tuple[int, dict[bytes, bytes], bytes]]()
        while rest:
            head, mark, rest = rest.partition(b"\r\n\r\n")
            assert mark, "a head without its end"
            first, *lines = head.split(b"\r\n")
            version, status, _ = first.split(b" ", 2)
            assert version == b"HTTP/1.1"
            fields = dict(line.split(b": ", 1) for line in lines)
            assert len(fields) == len(lines), "a header came twice"
            method = methods[len(out)] if len(out) < len(methods) else "GET"
            body = b""
            if int(status) < 200:
                continue
            if method == "HEAD" or int(status) in (204, 304):
                assert b"transfer-encoding" not in fields
            elif b"content-length" in fields:
                size = int(fields[b"content-length"])
                body, rest = rest[:size], rest[size:]
                assert len(body) == size, "a body without its end"
            elif fields.get(b"transfer-encoding") == b"chunked":
                while True:
                    line, mark, rest = rest.partition(b"\r\n")
                    assert mark, "a chunked body without its end"
                    size = int(line, 16)
                    body, rest = body + rest[:size], rest[size:]
                    assert rest[:2] == b"\r\n"
                    rest = rest[2:]
                    if size == 0:
                        break
            else:
                assert self.closed
                body, rest = rest, b""
            out.append((int(status), fields, body))
        return out

    def refused(self) -> tuple[int, str]:
        """Status and code of the one refusal, after which the connection ended."""
        assert self.closed
        ((status, fields, body),) = self.answers()
        assert fields[b"content-type"] == b"application/json"
        assert fields[b"connection"] == b"close"
        error = json.loads(body)["error"]
        assert error["status"] == status
        assert set(error) >= {"kind", "code", "message", "request_id"}
        return status, error["code"]


@dataclass(slots=True)
class Edge:
    """The server under test, and what its app saw."""

    port: int
    calls: list[Call] = field(default_factory=lambda: list[Call]())
    news: threading.Condition = field(default_factory=threading.Condition)
    entered: int = 0

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port))
        client.settimeout(5)
        return client

    def talk(self, *pieces: bytes, until: bytes = b"", eof: bool = False) -> Heard:
        """Send pieces, each in a segment of its own, and read to the end (or `until`)."""
        with self.connect() as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                client.sendall(piece)
            if eof:
                client.shutdown(socket.SHUT_WR)
            return hear(client, until)

    def wait(self, calls: int) -> list[Call]:
        """The calls, once there are as many."""
        with self.news:
            assert self.news.wait_for(lambda: len(self.calls) >= calls, 5), self.calls
        return self.calls

    def note(self, call: Call, calls: list[Call]) -> None:
        with self.news:
            calls.append(call)
            self.news.notify_all()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads the body, notes the call, answers as the path asks."""
        assert scope["type"] == "http"
        calls = self.calls  # of this test: one that ends late does not count in the next
        before = tuple(scope["headers"])
        target: bytes = scope["raw_path"]
        if scope["query_string"] or "amba.bare_query" in scope:
            target += b"?" + scope["query_string"]
        self.entered += 1
        body, broken = b"", False
        wants_body = not target.startswith(b"/early")
        while wants_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                broken = True
                break
            body += message["body"]
            if not message["more_body"]:
                break
        assert tuple(scope["headers"]) == before
        call = Call(scope["method"], scope["http_version"], target, before, body, broken)
        self.note(call, calls)
        if not broken:
            await self.answer(scope, receive, send, calls)

    async def answer(self, scope: Scope, receive: Receive, send: Send, calls: list[Call]) -> None:
        path: str = scope["path"]
        start: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
        if path.startswith("/status/"):
            start["status"] = int(path[8:])
        elif path.startswith("/length/"):
            start["headers"] = [(b"content-length", path[8:].encode())]
        elif path == "/dated":
            start["headers"] = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]
        elif path == "/inject":
            start["headers"] = [(b"x-a", b"b\r\nset-cookie: evil=1")]
        elif path == "/nul":
            start["headers"] = [(b"x-a", b"b\0c")]
        elif path == "/raise":
            raise RuntimeError("a fault of ours")
        elif path == "/silent":
            return
        elif path == "/body-first":
            await send({"type": "http.response.body", "body": b"x"})
        elif path == "/twice":
            await send(start)
        elif path == "/whole":
            scope["extensions"]["amba.whole"](203, [(b"x-a", b"b")], b"at once")
            return
        elif path == "/whole/short":
            there = scope["extensions"]["amba.whole"](200, [(b"content-length", b"3")], b"ab")
            self.note(Call("THERE" if there else "CUT", "", b"", (), b""), calls)
            return
        elif path == "/large":
            await send(start)
            await send({"type": "http.response.body", "body": LARGE})
            return
        elif path == "/never":
            while (await receive())["type"] != "http.disconnect":
                pass
            self.note(Call("LEFT", "", b"", (), b""), calls)
            return
        await send(start)
        if path == "/raise-later":
            raise RuntimeError("a fault of ours, later")
        if path in ("/stream", "/cut", "/wait", "/early/wait"):
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            for part in (b"one", b"", b"two"):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            if path == "/cut":
                return
            if path.endswith("/wait"):
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.note(Call("LEFT", "", b"", (), b""), calls)
                return
        await send({"type": "http.response.body", "body": b"ok"})


def hear(client: socket.socket, until: bytes = b"") -> Heard:
    data = b""
    while not (until and data.endswith(until)):
        more = client.recv(65536)
        if not more:
            return Heard(data, True)
        data += more
    return Heard(data, False)


@pytest.fixture(scope="module")
def server() -> Iterator[Edge]:
    edge = Edge(0)
    running = threading.Event()
    stop: list[Any] = []

    async def serve() -> None:
        sockets = bind("127.0.0.1", 0)
        edge.port = sockets[0].getsockname()[1]
        listener = Listener(edge.app, sockets)
        await listener.open()
        ended = asyncio.Event()
        stop.extend((asyncio.get_running_loop(), ended))
        running.set()
        await ended.wait()
        await listener.close(grace_s=0.1)

    thread = threading.Thread(target=uvloop.run, args=(serve(),))
    thread.start()
    assert running.wait(10)
    yield edge
    loop, ended = stop
    loop.call_soon_threadsafe(ended.set)
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def edge(server: Edge) -> Edge:
    server.calls = []
    server.entered = 0
    return server


def get(target: bytes = b"/", *headers: bytes) -> bytes:
    lines = (b"GET %b HTTP/1.1" % target, HOST[:-2], *headers, b"", b"")
    return b"\r\n".join(lines)


def post(*headers: bytes, body: bytes = b"", target: bytes = b"/") -> bytes:
    lines = (b"POST %b HTTP/1.1" % target, HOST[:-2], *headers, b"", b"")
    return b"\r\n".join(lines) + body


TE = b"Transfer-Encoding: chunked"
END = b"0\r\n\r\n"

REFUSED: dict[str, tuple[bytes, int, str]] = {
    # framing that two readers could understand differently
    "CL and TE": (post(b"Content-Length: 5", TE, body=END), 400, "BAD_REQUEST"),
    "TE and CL": (post(TE, b"Content-Length: 5", body=END), 400, "BAD_REQUEST"),
    "CL and TE, odd case": (post(b"cOnTent-LeNgth: 5", TE.upper(), body=END), 400, "BAD_REQUEST"),
    "CL twice, equal": (
        post(b"Content-Length: 2", b"Content-Length: 2", body=b"hi"),
        400,
        "BAD_REQUEST",
    ),
    "CL twice, different": (
        post(b"Content-Length: 2", b"Content-Length: 3", body=b"hi!"),
        400,
        "BAD_REQUEST",
    ),
    "TE twice": (post(TE, TE, body=END), 400, "BAD_REQUEST"),
    "TE on HTTP/1.0": (
        b"POST / HTTP/1.0\r\n" + HOST + TE + b"\r\n\r\n" + END,
        400,
        "BAD_REQUEST",
    ),
    # the head's shape
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400, "BAD_HOST"),
    "no Host, HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", 400, "BAD_HOST"),
    "two Hosts": (get(b"/", HOST[:-2]), 400, "BAD_HOST"),
    "two different Hosts": (get(b"/", b"host: b.fn.localhost"), 400, "BAD_HOST"),
    "obs-fold": (get(b"/", b"A: b\r\n c"), 400, "BAD_REQUEST"),
    "obs-fold with a tab": (get(b"/", b"A: b\r\n\tc"), 400, "BAD_REQUEST"),
    "obs-fold hides a header": (get(b"/", b"A: b\r\n X-Amba-User-Id: evil"), 400, "BAD_REQUEST"),
    "folded TE": (post(b"Transfer-Encoding:\r\n chunked", body=END), 400, "BAD_REQUEST"),
    "blank before the first header": (
        b"GET / HTTP/1.1\r\n A: b\r\n" + HOST + b"\r\n",
        400,
        "BAD_REQUEST",
    ),
    "blank before the colon": (get(b"/", b"X-Amba-User-Id : evil"), 400, "BAD_REQUEST"),
    "tab before the colon": (get(b"/", b"X-Amba-User-Id\t: evil"), 400, "BAD_REQUEST"),
    "no colon": (get(b"/", b"X-Amba-User-Id evil"), 400, "BAD_REQUEST"),
    "no name": (get(b"/", b": evil"), 400, "BAD_REQUEST"),
    "bare LF ends the line": (get(b"/", b"A: b\nX-Amba-User-Id: evil"), 400, "BAD_REQUEST"),
    "bare CR ends the line": (get(b"/", b"A: b\rX-Amba-User-Id: evil"), 400, "BAD_REQUEST"),
    "only bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400, "BAD_REQUEST"),
    "bare LF ends the head": (b"GET / HTTP/1.1\r\n" + HOST + b"\n", 400, "BAD_REQUEST"),
    "NUL in a value": (get(b"/", b"A: b\0c"), 400, "BAD_REQUEST"),
    "NUL in a name": (get(b"/", b"X-Amba-User-Id\0: evil"), 400, "BAD_REQUEST"),
    "control byte in a value": (get(b"/", b"A: b\x01c"), 400, "BAD_REQUEST"),
    "DEL in a value": (get(b"/", b"A: b\x7fc"), 400, "BAD_REQUEST"),
    "ESC in a name": (get(b"/", b"A\x1b: c"), 400, "BAD_REQUEST"),
    "high byte in a name": (get(b"/", b"X-\xc3\xa9: c"), 400, "BAD_REQUEST"),
    # the request line
    "HTTP/0.9": (b"GET /\r\n\r\n", 505, "HTTP_VERSION"),
    "text HTTP/0.9": (b"GET / HTTP/0.9\r\n" + HOST + b"\r\n", 505, "HTTP_VERSION"),
    "text HTTP/2.0": (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505, "HTTP_VERSION"),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 400, "BAD_REQUEST"),
    "HTTP/11": (b"GET / HTTP/11\r\n" + HOST + b"\r\n", 400, "BAD_REQUEST"),
    "http in lower case": (b"GET / http/1.1\r\n" + HOST + b"\r\n", 400, "BAD_REQUEST"),
    "method in lower case": (b"get / HTTP/1.1\r\n" + HOST + b"\r\n", 400, "BAD_REQUEST"),
    "no such method": (b"FETCH / HTTP/1.1\r\n" + HOST + b"\r\n", 400, "BAD_REQUEST"),
    "the HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "BAD_REQUEST"),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "BAD_REQUEST"),
    "an SSH banner": (b"SSH-2.0-OpenSSH_9.6\r\n", 400, "BAD_REQUEST"),
    "SMTP": (b"EHLO localhost\r\n", 400, "BAD_REQUEST"),
    "a PROXY line": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" + get(), 400, "BAD_REQUEST"),
    "CONNECT": (b"CONNECT a.fn.localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400, "BAD_REQUEST"),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 400, "BAD_REQUEST"),
    "authority-form": (get(b"a.fn.localhost"), 400, "BAD_REQUEST"),
    "no slash": (get(b"x/y"), 400, "BAD_REQUEST"),
    "fragment": (get(b"/a#b"), 400, "BAD_REQUEST"),
    "fragment behind a query": (get(b"/a?b#c"), 400, "BAD_REQUEST"),
    "quote in the path": (get(b'/a"b'), 400, "BAD_REQUEST"),
    "quote in the query": (get(b'/a?b"c'), 400, "BAD_REQUEST"),
    "angle bracket": (get(b"/a<b"), 400, "BAD_REQUEST"),
    "angle bracket in the query": (get(b"/a?b>c"), 400, "BAD_REQUEST"),
    "backtick in the path": (get(b"/a`b?c"), 400, "BAD_REQUEST"),
    "raw UTF-8 in the path": (get("/é".encode()), 400, "BAD_REQUEST"),
    "raw UTF-8 in the query": (get("/?é".encode()), 400, "BAD_REQUEST"),
    "NUL in the target": (get(b"/a\0b"), 400, "BAD_REQUEST"),
    "tab in the target": (get(b"/a\tb"), 400, "BAD_REQUEST"),
    "form feed in the target": (get(b"/a\x0cb"), 400, "BAD_REQUEST"),
    "DEL in the target": (get(b"/a\x7fb"), 400, "BAD_REQUEST"),
    "blank in the target": (get(b"/a b"), 400, "BAD_REQUEST"),
    "absolute-form, other host": (get(b"http://b.fn.localhost/x"), 400, "BAD_REQUEST"),
    "absolute-form, other port": (get(b"http://a.fn.localhost:80/x"), 400, "BAD_REQUEST"),
    "absolute-form, userinfo": (get(b"http://u@a.fn.localhost/x"), 400, "BAD_REQUEST"),
    "absolute-form, host behind @": (get(b"http://a.fn.localhost@evil/x"), 400, "BAD_REQUEST"),
    "absolute-form, backslash": (get(b"http://a.fn.localhost\\x"), 400, "BAD_REQUEST"),
    "absolute-form, no host": (get(b"http:///x"), 400, "BAD_REQUEST"),
    "absolute-form, ftp": (get(b"ftp://a.fn.localhost/x"), 400, "BAD_REQUEST"),
    "absolute-form, javascript": (get(b"javascript:alert(1)"), 400, "BAD_REQUEST"),
    # sizes, one past the limit
    "target 16 KiB + 1": (get(b"/" + b"a" * TARGET_MAX), 414, "URI_TOO_LONG"),
    "target 1 MiB": (get(b"/" + b"a" * 2**20), 414, "URI_TOO_LONG"),
    "one header too many": (get(b"/", *[b"A: b"] * COUNT_MAX), 431, "HEADERS_TOO_LARGE"),
    "10,000 headers": (
        get(b"/", *[b"A%d: b" % n for n in range(10_000)]),
        431,
        "HEADERS_TOO_LARGE",
    ),
    "a header of 64 KiB": (get(b"/", b"A: " + b"b" * HEAD_MAX), 431, "HEADERS_TOO_LARGE"),
    "a header of 1 MiB": (get(b"/", b"A: " + b"b" * 2**20), 431, "HEADERS_TOO_LARGE"),
    "a name of 1 MiB": (get(b"/", b"A" * 2**20 + b": b"), 431, "HEADERS_TOO_LARGE"),
    "a head of many": (
        get(b"/", *[b"A: " + b"b" * 1000] * 100),
        431,
        "HEADERS_TOO_LARGE",
    ),
}
for _value in (
    *(
        b"",
        b"a b",
        b"a,b",
        b"a@evil/..",
        b"a/b",
        b"a:0",
        b"a:80a",
        b"a:",
        b"a..b",
        b".a",
        b"a\xc3\xa9",
    ),
    *(b"[::1", b"[g]", b"a%00", b"a\tb", b"http://a", b"a?b", b"a#b", b"-a", b"a_b"),
):
    _raw = b"GET / HTTP/1.1\r\nHost: " + _value + b"\r\n\r\n"
    REFUSED[f"Host {_value!r}"] = (_raw, 400, "BAD_HOST")
for _value in (b"SOURCE", b"LINK", b"UNBIND", b"MKCALENDAR"):
    _raw = _value + b" / HTTP/1.1\r\n" + HOST + b"\r\n"
    REFUSED[f"method {_value!r}"] = (_raw, 501, "METHOD_NOT_IMPLEMENTED")
REFUSED["RTSP"] = (
    b"DESCRIBE / RTSP/1.0\r\n" + HOST + b"\r\n",
    501,
    "METHOD_NOT_IMPLEMENTED",
)
for _value in (b"+2", b"-2", b"0x2", b"2,2", b"2, 2", b"2 2", b"", b"2.0", b"1e1", b"2;", b"two"):
    REFUSED[f"CL {_value!r}"] = (
        post(b"Content-Length: " + _value, body=b"hi"),
        400,
        "BAD_REQUEST",
    )
REFUSED["CL 2^64 + 1"] = (post(b"Content-Length: 18446744073709551617"), 400, "BAD_REQUEST")
REFUSED["CL in Arabic digits"] = (
    post("Content-Length: ٢".encode(), body=b"hi"),
    400,
    "BAD_REQUEST",
)
for _value in (
    *(b",chunked", b"gzip, chunked", b"chunked ", b"chunked\t", b"identity", b"xchunked"),
    *(b"chunked;q=1", b'"chunked"', b"chunked\xa0", b"chunk ed", b"gzip", b"x"),
):
    _raw = post(b"Transfer-Encoding: " + _value, body=END)
    REFUSED[f"TE {_value!r}"] = (_raw, 501, "TRANSFER_ENCODING")
for _value in (b"chunked,", b"chunked, gzip", b"chunked, chunked", b""):
    _raw = post(b"Transfer-Encoding: " + _value, body=END)
    REFUSED[f"TE {_value!r}"] = (_raw, 400, "BAD_REQUEST")
for _byte in (0, 1, 4, 8, 0x0B, 0x0C, 0x0D, 0x1F, 0x7F):
    _odd = bytes([_byte])
    for _name, _line in (
        ("before", b"Transfer-Encoding: " + _odd + b"chunked"),
        ("behind", b"Transfer-Encoding: chunked" + _odd),
        ("in the name", b"Transfer" + _odd + b"Encoding: chunked"),
        ("behind the name", b"Transfer-Encoding" + _odd + b": chunked"),
    ):
        REFUSED[f"TE byte {_byte:02x} {_name}"] = (post(_line, body=END), 400, "BAD_REQUEST")


@pytest.mark.parametrize(("raw", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(edge: Edge, raw: bytes, status: int, code: str) -> None:
    """Refused in the envelope, the connection ended, what follows not read (A1, A2, A8, A10)."""
    heard = edge.talk(raw + get(b"/smuggled"))
    assert heard.refused() == (status, code)
    assert edge.entered == 0


def test_there_are_enough_refusals() -> None:
    """At least the 66 vectors that row A1 asks for."""
    assert len(REFUSED) + len(BAD_CHUNKS) >= 66


BAD_CHUNKS = [
    *(b"0x2\r\nhi\r\n", b"+2\r\nhi\r\n", b"-2\r\nhi\r\n", b"2 \r\nhi\r\n", b" 2\r\nhi\r\n"),
    *(b"g\r\nhi\r\n", b"\r\nhi\r\n", b"2_0\r\nhi\r\n", b"2\nhi\r\n", b"2\rhi\r\n", b"2;\nhi\r\n"),
    *(b"10000000000000000\r\nhi\r\n", b"2\r\nhiX\r\n", b"2\r\nhi\n", b"2\r\nhi", b"2\r\nh\r\n"),
    *(b"2,2\r\nhi\r\n", b"\0\r\nhi\r\n", b"0\r\nA: b\nC: d\r\n\r\n", b"0\r\nA : b\r\n\r\n"),
]


@pytest.mark.parametrize("body", BAD_CHUNKS, ids=repr)
def test_bad_chunks(edge: Edge, body: bytes) -> None:
    """A body that is not exactly chunked breaks off: it never looks whole (A1, A9)."""
    heard = edge.talk(post(TE, body=body + END) + get(b"/smuggled"))
    assert heard.refused() == (400, "BAD_REQUEST")
    (call,) = edge.wait(1)
    assert call.broken
    assert call.target == b"/"


ACCEPTED: dict[str, tuple[bytes, bytes, bytes]] = {
    # raw, target as seen, body as seen
    "plain": (get(b"/x?y=1"), b"/x?y=1", b""),
    "POST": (post(b"Content-Length: 2", body=b"hi"), b"/", b"hi"),
    "POST without a body": (post(), b"/", b""),
    "chunked": (post(TE, body=b"2\r\nhi\r\n0A\r\n0123456789\r\n" + END), b"/", b"hi0123456789"),
    "chunked in capitals": (post(TE.upper(), body=END), b"/", b""),
    "chunk extension": (post(TE, body=b'2;a=b;c="d"\r\nhi\r\n' + END), b"/", b"hi"),
    "GET with a body": (get(b"/", b"Content-Length: 2") + b"hi", b"/", b"hi"),
    "CL with leading zeros": (post(b"Content-Length: 002", body=b"hi"), b"/", b"hi"),
    "blanks around values": (
        post(b"Content-Length: \t 2 \t", b"A:b\t ", body=b"hi"),
        b"/",
        b"hi",
    ),
    "empty lines first": (b"\r\n\r\n" + get(b"/x"), b"/x", b""),
    "absolute-form": (get(b"http://a.fn.localhost/x?y"), b"/x?y", b""),
    "absolute-form in capitals": (get(b"HTTP://A.FN.localhost/x"), b"/x", b""),
    "absolute-form without a path": (get(b"http://a.fn.localhost"), b"/", b""),
    "absolute-form, query only": (get(b"http://a.fn.localhost?y=1/2"), b"/?y=1/2", b""),
    "double slashes": (get(b"//x//y//"), b"//x//y//", b""),
    "escapes": (get(b"/%2F%2f%00%5c%zz%c0%ae%0d%0a"), b"/%2F%2f%00%5c%zz%c0%ae%0d%0a", b""),
    "dot segments": (get(b"/a/../../b/./%2e%2e/"), b"/a/../../b/./%2e%2e/", b""),
    "odd but visible": (get(b"/;{}|\\^'@:[]?`{}|\\^'"), b"/;{}|\\^'@:[]?`{}|\\^'", b""),
    "query of question marks": (get(b"/???"), b"/???", b""),
    "empty query": (get(b"/x?"), b"/x?", b""),
    "target of 16 KiB": (
        get(b"/" + b"a" * (TARGET_MAX - 1)),
        b"/" + b"a" * (TARGET_MAX - 1),
        b"",
    ),
    "200 headers": (get(b"/", *[b"A: b"] * (COUNT_MAX - 1)), b"/", b""),
    "trailers": (
        post(TE, body=b"2\r\nhi\r\n0\r\nX-Amba-User-Id: evil\r\nHost: evil\r\n\r\n"),
        b"/",
        b"hi",
    ),
}


@pytest.mark.parametrize(("raw", "target", "body"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(edge: Edge, raw: bytes, target: bytes, body: bytes) -> None:
    """Exactly one call with these bytes, and the connection serves the next request (A, B12)."""
    heard = edge.talk(raw, get(b"/last", b"Connection: close"))
    assert [status for status, _, _ in heard.answers()] == [200, 200]
    first, last = edge.wait(2)
    assert (first.target, first.body, first.broken) == (target, body, False)
    assert [n for n, _ in first.headers].count(b"host") == 1
    assert all(value == value.strip(b" \t") for _, value in first.headers)
    assert not any(b"evil" in value for _, value in first.headers)
    assert (last.target, last.body) == (b"/last", b"")


def test_a_head_at_the_limit_and_a_byte_past_it(edge: Edge) -> None:
    """The head may hold 64 KiB of fields, exactly (A8)."""
    room = HEAD_MAX - len(b"host") - len(b"a.fn.localhost") - 4
    field_ = b"A: " + b"b" * (room - 5)
    assert edge.talk(get(b"/", field_, b""), until=b"ok\r\n" + END).answers()[0][0] == 200
    assert edge.talk(get(b"/", field_ + b"b")).refused() == (431, "HEADERS_TOO_LARGE")


GET_ITSELF = get()


@pytest.mark.parametrize(
    "endless",
    [
        b"GET / HTTP/1.1\r\nA: ",
        b"GET / HTTP/1.1\r\nA",
        b"\r\n" * 30_000,
        get() + b"\r\n" * 30_000,
        post(TE, body=b"2\r\nhi\r\n0\r\nA: "),
        post(TE, body=b"2;a="),
    ],
    ids=["value", "name", "empty lines", "empty lines behind", "trailer", "chunk extension"],
)
def test_what_never_ends_is_cut_off(edge: Edge, endless: bytes) -> None:
    """A head, a trailer or an extension without an end costs bounded memory (finding 3, A8)."""
    with edge.connect() as client:
        client.sendall(endless)
        sent = 0
        try:
            while sent < 4 * HEAD_MAX:
                client.sendall(b"b" * 4096 if not endless.endswith(b"\n") else b"\r\n" * 2048)
                sent += 4096
        except OSError:
            pass
        heard = hear(client)
    assert heard.closed
    told = b"HEADERS_TOO_LARGE" in heard.data or b"BAD_REQUEST" in heard.data
    # nothing is put behind an answer that was still under way then: it says that it is the last
    assert told or (endless.startswith(GET_ITSELF) and b"connection: close" in heard.data)
    if endless.startswith((b"POST", GET_ITSELF)):
        edge.wait(1)  # it was called with the head: not in the next test


def cut_off(client: socket.socket, piece: bytes, most: int, *, pause_s: float = 0) -> bool:
    """Whether the server ends the connection while so many pieces are sent."""
    for _ in range(most):
        try:
            client.sendall(piece)
        except OSError:
            return True
        pause(pause_s, "it drips")
    return False


@pytest.mark.slow
def test_a_refused_client_that_does_not_stop_is_cut_off(edge: Edge) -> None:
    """The answer to a refusal can be read; sending on and on is not listened to for long."""
    with edge.connect() as client:
        began = time.monotonic()
        client.sendall(get(b"/a#b"))
        assert hear(client).refused() == (400, "BAD_REQUEST")
        assert cut_off(client, b"x" * 65536, 2 * limits.EDGE_LINGER_BYTES.value // 65536 + 10)
        assert time.monotonic() - began < limits.EDGE_LINGER_S.value + 2
    with edge.connect() as client:
        client.sendall(get(b"/a#b"))
        assert hear(client).refused() == (400, "BAD_REQUEST")
        assert cut_off(client, b"x", int(limits.EDGE_LINGER_S.value / 0.05) + 40, pause_s=0.05)


SEEDS = [
    get(b"/x?y=1", b"A: b", b"Cookie: c=d; e=f"),
    post(b"Content-Length: 11", body=b"hello world"),
    post(TE, body=b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: r\r\n\r\n"),
    b"\r\n" + get(b"http://a.fn.localhost/p?q"),
    get(b"/early") + get(b"/x?", b"Expect: 100-continue"),
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS, ids=["get", "length", "chunked", "absolute", "two"])
def test_every_split_point(edge: Edge, seed: bytes) -> None:
    """Cut at every byte into two writes, a request is the same request (A4)."""
    last = get(b"/last", b"Connection: close")
    edge.talk(seed + last)
    expected, edge.calls[:] = list(edge.calls), []
    assert len(expected) >= 2
    for at in range(1, len(seed)):
        with edge.connect() as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(seed[:at])
            pause(0.0005, "two writes are two packets")
            client.sendall(seed[at:] + last)
            hear(client)
        assert edge.calls == expected, f"split at {at}"
        edge.calls = []


def test_byte_by_byte(edge: Edge) -> None:
    """A request may come in single bytes."""
    raw = post(TE, b"Connection: close", body=b"2\r\nhi\r\n" + END)
    heard = edge.talk(*[raw[at : at + 1] for at in range(len(raw))])
    assert heard.answers()[0][0] == 200
    assert edge.calls[0].body == b"hi"


def test_pipelining_keeps_order(edge: Edge) -> None:
    """A hundred requests in one write are answered one after the other (A6)."""
    many = [get(b"/%d" % n) if n % 3 else post(b"Content-Length: 2", body=b"hi") for n in range(99)]
    heard = edge.talk(b"".join([*many, get(b"/last", b"Connection: close")]))
    assert len(heard.answers()) == 100
    assert [call.target for call in edge.calls] == [
        *[b"/%d" % n if n % 3 else b"/" for n in range(99)],
        b"/last",
    ]


def test_more_than_may_wait_ends_the_connection(edge: Edge) -> None:
    """So many wait behind one; they are answered, then the connection ends (A6, A8)."""
    most = limits.EDGE_PIPELINED.value
    heard = edge.talk(get() * (most + 50))
    assert heard.closed
    answers = heard.answers()
    assert len(answers) == len(edge.calls) == most + 1
    assert answers[-1][1][b"connection"] == b"close"


@pytest.mark.slow
def test_a_client_that_does_not_read_is_not_worked_for(edge: Edge) -> None:
    """Answers that nobody takes hold up the requests behind them; then all go out (A6, A8)."""
    with edge.connect() as client:
        client.sendall(get(b"/large") * 60 + get(b"/last", b"Connection: close"))
        entered = -1
        while entered != edge.entered:
            entered = edge.entered
            pause(0.1, "nothing more is begun")
        assert 0 < entered < 40
        heard = hear(client)
    assert [len(body) for _, _, body in heard.answers()] == [*[len(LARGE)] * 60, 2]


@pytest.mark.slow
def test_reading_goes_on_only_when_nothing_waits(edge: Edge) -> None:
    """A client that sends on and on and never reads is stopped by its own socket (A8)."""
    with edge.connect() as client:
        client.settimeout(0.3)
        sent, piece = 0, get(b"/large", b"A: " + b"b" * 8000) * 100
        with contextlib.suppress(OSError):
            while sent < 64 * 2**20:
                sent += client.send(piece)
    assert sent < 64 * 2**20
    assert 0 < edge.entered < 40


@pytest.mark.parametrize(
    ("raw", "bodies"),
    [
        (get(), [b"ok"]),
        (post(b"Content-Length: 2", body=b"hi"), [b"ok"]),
        (post(TE, body=b"2\r\nhi\r\n" + END), [b"ok"]),
        (get(b"/1") + get(b"/2") + get(b"/whole"), [b"ok", b"ok", b"at once"]),
    ],
    ids=["GET", "length", "chunked", "three"],
)
def test_a_client_that_has_asked_for_all_reads_its_answer(
    edge: Edge, raw: bytes, bodies: list[bytes]
) -> None:
    """A half-closed client is answered, then the connection ends (RFC 9112 section 9.6)."""
    heard = edge.talk(raw, eof=True)
    assert heard.closed
    assert [body for _, _, body in heard.answers()] == bodies


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True], ids=["closed", "half-closed"])
def test_a_client_that_left_before_its_answer_is_told(edge: Edge, half: bool) -> None:
    """A close looks like a half-close: a guest that is slow is told a moment later (A9)."""
    with edge.connect() as client:
        client.sendall(get(b"/never"))
        if half:
            client.shutdown(socket.SHUT_WR)
            assert hear(client) == Heard(b"", True)
    assert [call.method for call in edge.wait(2)] == ["GET", "LEFT"]


def test_a_whole_answer_of_a_wrong_length_is_none(edge: Edge) -> None:
    """It is cut off, and the app learns that nobody has it (A11)."""
    with edge.connect() as client:
        client.sendall(get(b"/whole/short"))
        with contextlib.suppress(ConnectionResetError):
            assert hear(client) == Heard(b"", True)
    assert [call.method for call in edge.wait(2)] == ["GET", "CUT"]


@pytest.mark.parametrize(
    "bad",
    [
        get(b"/a#b"),
        get(b"/", HOST[:-2]),
        post(TE, b"Content-Length: 1"),
        post(TE, body=b"zz\r\n"),
        post(TE, body=b"2\r\nhiX"),
        b"\x16\x03\x01",
    ],
    ids=["fragment", "two hosts", "CL and TE", "chunk", "chunk end", "TLS"],
)
@pytest.mark.parametrize("before", [1, 2, 5])
def test_a_bad_one_in_the_middle(edge: Edge, bad: bytes, before: int) -> None:
    """What stands before it is answered whole, everything from it on is dropped (A6)."""
    good = [get(b"/stream") for _ in range(before)]
    heard = edge.talk(b"".join([*good, bad, get(b"/behind")]))
    assert heard.closed
    answers = heard.answers()
    assert [body for _, _, body in answers] == [b"onetwook"] * before
    assert [call.target for call in edge.calls] == [b"/stream"] * before


def test_a_large_body_before_a_split_head(edge: Edge) -> None:
    """Body bytes do not count as the head of the request behind them (A8)."""
    body = b"x" * 200_000
    first = post(b"Content-Length: %d" % len(body), body=body)
    second = get(b"/second", b"Connection: close")
    heard = edge.talk(first + second[:20], second[20:])
    assert [status for status, _, _ in heard.answers()] == [200, 200]
    assert [(len(call.body), call.target) for call in edge.calls] == [
        (200_000, b"/"),
        (0, b"/second"),
    ]


def test_the_body_of_a_request_that_was_answered_early(edge: Edge) -> None:
    """An unread body is dropped, never read as the next request (A1)."""
    body = get(b"/smuggled")
    raw = post(b"Content-Length: %d" % len(body), target=b"/early")
    with edge.connect() as client:
        client.sendall(raw)
        assert hear(client, until=END).answers()[0][0] == 200
        client.sendall(body + get(b"/last", b"Connection: close"))
        assert hear(client).answers()[0][0] == 200
    assert [call.target for call in edge.calls] == [b"/early", b"/last"]


def test_a_bad_body_behind_a_whole_answer(edge: Edge) -> None:
    """One request, one answer: what is wrong with its rest ends the connection (A1, A11)."""
    with edge.connect() as client:
        client.sendall(post(TE, body=b"2\r\nhi\r\n", target=b"/early"))
        assert hear(client, until=END).answers()[0][0] == 200
        client.sendall(b"zz\r\n")
        assert hear(client) == Heard(b"", True)


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_an_early_answer_is_read_while_the_body_is_still_sent(edge: Edge, version: bytes) -> None:
    """Closing at once would reset the connection, and the answer be lost (RFC 9112 9.6)."""
    size = 2**20
    raw = post(b"Content-Length: %d" % size, b"Connection: close", target=b"/early")
    with edge.connect() as client:
        client.sendall(raw.replace(b"1.1", version) + b"x" * 1000)
        data = client.recv(65536)
        client.sendall(b"x" * (size - 1000))
        heard = hear(client)
    assert Heard(data + heard.data, True).answers()[0][0] == 200


def test_a_broken_body_under_an_answer_to_http_1_0(edge: Edge) -> None:
    """Its end would be the answer's end: the answer is reset instead (A9, A11)."""
    raw = b"POST /early/wait HTTP/1.0\r\n" + HOST + b"Content-Length: 10\r\n\r\n"
    with edge.connect() as client:
        client.sendall(raw)
        hear(client, until=b"two")
        client.sendall(b"x" * 10 + b"y")
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert hear(client) == Heard(b"", True)
    assert [call.method for call in edge.wait(2)] == ["POST", "LEFT"]


@pytest.mark.parametrize("size", [1000, 64 * 1024, 10 * 2**20])
@pytest.mark.parametrize("kind", ["extension", "trailer", "trailers"])
def test_what_lies_between_two_pieces_is_measured(edge: Edge, kind: str, size: int) -> None:
    """An extension or trailers of 64 KiB are refused, in how large pieces ever they come (A8)."""
    odd = {
        "extension": b"2;" + b"x" * size + b"\r\nhi\r\n" + END,
        "trailer": b"2\r\nhi\r\n0\r\nT: " + b"t" * size + b"\r\n\r\n",
        "trailers": b"2\r\nhi\r\n0\r\n" + b"T: t\r\n" * (size // 6) + b"\r\n",
    }[kind]
    raw = post(TE, b"Connection: close", body=b"1\r\n!\r\n" + odd)
    with edge.connect() as client:
        with contextlib.suppress(OSError):
            client.sendall(raw)
        with contextlib.suppress(ConnectionResetError):
            heard = hear(client)
            assert heard.answers()[0][0] == (200 if size < limits.EDGE_SLICE.value else 431)
    edge.wait(1)  # it was called with the head either way


def test_a_websocket_with_much_behind_it(edge: Edge) -> None:
    """What was read along with the handshake reaches the socket, all of it."""
    upgrade = get(
        *(b"/ws", b"Connection: Upgrade", b"Upgrade: websocket"),
        *(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    )
    many = b"\x89\x80\0\0\0\0" * 10_000  # pings, before any answer
    assert edge.talk(upgrade + many + b"\x88\x80\0\0\0\0").closed


def test_a_client_answered_before_its_body_is_not_read_on(edge: Edge) -> None:
    """After `Expect: 100-continue` and no 100, what comes next may be either (RFC 9110 10.1.1)."""
    raw = post(b"Content-Length: 20", b"Expect: 100-continue", target=b"/early")
    ((status, fields, _),) = edge.talk(raw).answers()
    assert (status, fields[b"connection"]) == (200, b"close")


def test_a_bad_body_behind_an_answer_that_has_begun(edge: Edge) -> None:
    """The answer is cut off, and no second one is put into its middle (A1, A11)."""
    with edge.connect() as client:
        client.sendall(post(TE, body=b"2\r\nhi\r\n", target=b"/early/wait"))
        begun = hear(client, until=b"two\r\n")
        client.sendall(b"zz\r\n")
        assert hear(client) == Heard(b"", True)
    with pytest.raises(AssertionError, match="without its end"):
        begun.answers()
    assert [call.method for call in edge.wait(2)] == ["POST", "LEFT"]


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize(
    "raw",
    [
        post(b"Content-Length: 10", body=b"01234"),
        post(b"Content-Length: 10"),
        post(TE, body=b"a\r\n01234"),
        post(TE, body=b"5\r\n01234\r\n"),
        post(TE, body=b"5\r\n01234\r\n0\r\n"),
        post(TE),
    ],
    ids=["length", "length, nothing", "chunk", "between chunks", "before the end", "nothing"],
)
def test_truncated_bodies(edge: Edge, raw: bytes, reset: bool) -> None:
    """A client that leaves mid-body is a disconnect, never the end of the body (A9)."""
    with edge.connect() as client:
        client.sendall(raw)
        until(lambda: edge.entered)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    (call,) = edge.wait(1)
    assert call.broken


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_client_that_leaves_is_told_to_the_request_being_answered(
    edge: Edge, pipelined: bool
) -> None:
    """Also when further requests wait behind it on the connection."""
    with edge.connect() as client:
        client.sendall(get(b"/wait") + (get(b"/x") if pipelined else b""))
        hear(client, until=b"two\r\n")
    assert [call.method for call in edge.wait(2)] == ["GET", "LEFT"]


def test_expect_continue(edge: Edge) -> None:
    """100 Continue is sent when the body is wanted, once, and never without it (A13)."""
    with edge.connect() as client:
        client.sendall(post(b"Content-Length: 2", b"eXPECT: 100-Continue", b"Connection: close"))
        assert hear(client, until=b"\r\n\r\n").data == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hi")
        heard = hear(client)
        assert b"100" not in heard.data.split(b"\r\n")[0]
        assert heard.answers()[0][0] == 200
    early = post(b"Content-Length: 2", b"Expect: 100-continue", target=b"/early")
    heard = edge.talk(early, until=END)
    assert not heard.data.startswith(b"HTTP/1.1 100")
    other = post(b"Content-Length: 2", b"Expect: something", b"Connection: close", body=b"hi")
    assert edge.talk(other).data.startswith(b"HTTP/1.1 200")


def test_head(edge: Edge) -> None:
    """HEAD has the head of GET and no byte more; the connection stays in step."""
    one = get(b"/length/2").replace(b"GET", b"HEAD")
    two = get(b"/stream").replace(b"GET", b"HEAD")
    heard = edge.talk(one + two + get(b"/x", b"Connection: close"))
    answers = heard.answers("HEAD", "HEAD", "GET")
    assert [body for _, _, body in answers] == [b"", b"", b"ok"]
    assert answers[0][1][b"content-length"] == b"2"


@pytest.mark.parametrize("extra", [b"", b"Connection: keep-alive"], ids=["", "keep-alive"])
@pytest.mark.parametrize(
    ("path", "body"),
    [(b"/", b"ok"), (b"/length/2", b"ok"), (b"/stream", b"onetwook"), (b"/status/204", None)],
)
def test_http_1_0(edge: Edge, path: bytes, body: bytes | None, extra: bytes) -> None:
    """To 1.0 no chunks are sent, and every answer ends the connection, whatever is asked."""
    raw = b"GET %b HTTP/1.0\r\n%b%b\r\n" % (path, HOST, extra + b"\r\n" if extra else b"")
    if body is None:
        assert edge.talk(raw).closed  # the app sent a body with a 204: broken off
        return
    heard = edge.talk(raw + get(b"/smuggled"))
    ((status, fields, seen),) = heard.answers()
    assert (status, seen) == (200, body)
    assert b"transfer-encoding" not in fields
    assert fields[b"connection"] == b"close"
    assert len(edge.calls) == 1


def test_connection_close(edge: Edge) -> None:
    """After `Connection: close` nothing more is read."""
    heard = edge.talk(get(b"/1", b"Connection: close") + get(b"/2"))
    assert len(heard.answers()) == 1
    assert heard.answers()[0][1][b"connection"] == b"close"
    assert [call.target for call in edge.calls] == [b"/1"]


@pytest.mark.parametrize(
    "raw",
    [
        get(b"/1", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA"),
        post(
            *(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 2"),
            body=b"hi",
            target=b"/1",
        ),
        post(
            *(b"Connection: Upgrade", b"Upgrade: h2c", TE),
            body=b"1\r\nh\r\n1;x\r\ni\r\n" + END,
            target=b"/1",
        ),
        get(b"/1", b"Connection: upgrade", b"Upgrade: foo/2"),
    ],
    ids=["GET", "POST", "chunked", "other"],
)
def test_an_upgrade_that_is_not_taken(edge: Edge, raw: bytes) -> None:
    """`Upgrade: h2c` is ignored: the body arrives, the connection serves on (A10)."""
    last = get(b"/2", b"Connection: close")
    for at in range(1, len(raw) + 1):
        edge.calls = []
        heard = edge.talk(raw[:at], raw[at:] + last)
        assert [status for status, _, _ in heard.answers()] == [200, 200]
        assert [(call.target, call.body) for call in edge.calls] == [
            (b"/1", b"hi" if raw.startswith(b"POST") else b""),
            (b"/2", b""),
        ]
        assert (b"upgrade" in dict(edge.calls[0].headers)) is True


def test_a_websocket_behind_an_answer_under_way(edge: Edge) -> None:
    """A pipelined WebSocket request never mixes into the answer before it."""
    upgrade = get(
        *(b"/ws", b"Connection: Upgrade", b"Upgrade: websocket"),
        *(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    )
    heard = edge.talk(get(b"/stream") + upgrade)
    assert [body for _, _, body in heard.answers()] == [b"onetwook"]


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        (b"/status/404", 404, b"ok"),
        (b"/status/299", 299, b"ok"),
        (b"/status/999", 999, b"ok"),
        (b"/length/2", 200, b"ok"),
        (b"/stream", 200, b"onetwook"),
        (b"/whole", 203, b"at once"),
    ],
)
def test_answers(edge: Edge, path: bytes, status: int, body: bytes) -> None:
    """What the app answers re-parses as exactly one answer (A11)."""
    ((seen, fields, text),) = edge.talk(get(path, b"Connection: close")).answers()
    assert (seen, text) == (status, body)
    assert b"date" in fields
    assert b"server" not in fields


def test_a_date_that_the_app_sends_is_the_only_one(edge: Edge) -> None:
    """A function that passes on an upstream's answer passes on its date (RFC 9110 6.6.1)."""
    ((status, fields, text),) = edge.talk(get(b"/dated", b"Connection: close")).answers()
    assert (status, text) == (200, b"ok")
    assert fields[b"date"] == b"Thu, 01 Jan 1970 00:00:00 GMT"


@pytest.mark.parametrize(
    "path", [b"/length/1", b"/length/3", b"/status/204", b"/status/304", b"/cut"]
)
def test_answers_that_do_not_keep_their_word(edge: Edge, path: bytes) -> None:
    """A wrong length, a body where none may be, a broken stream: visibly cut off (A11)."""
    with edge.connect() as client:
        client.sendall(get(path))
        try:
            heard = hear(client)
        except ConnectionResetError:
            return
    if heard.data:
        with pytest.raises(AssertionError, match="without its end"):
            heard.answers()


def test_a_cut_answer_to_http_1_0_is_a_reset(edge: Edge) -> None:
    """Where the close ends the body, a broken one ends in a reset: it cannot look whole."""
    with edge.connect() as client:
        client.sendall(b"GET /cut HTTP/1.0\r\n" + HOST + b"\r\n")
        with pytest.raises(ConnectionResetError):
            hear(client)


@pytest.mark.parametrize("path", [b"/raise", b"/silent", b"/body-first"])
def test_a_fault_of_ours(edge: Edge, path: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """An app that fails gives the envelope with 500 and no stack; the log has it (A.7)."""
    with caplog.at_level(logging.ERROR, "amba.edge"):
        ((status, _, body),) = edge.talk(get(path), until=b"}").answers()
    error = json.loads(body)["error"]
    assert (status, error["code"], error["kind"]) == (500, "INTERNAL", "internal")
    assert b"Traceback" not in body
    assert ("failed" in caplog.text) is (path != b"/silent")


@pytest.mark.parametrize("path", [b"/inject", b"/nul", b"/raise-later", b"/twice"])
def test_a_fault_of_ours_behind_the_start(edge: Edge, path: bytes) -> None:
    """No split header and no second head leaves us: the connection ends (A11)."""
    assert edge.talk(get(path)) == Heard(b"", True)


def test_a_refused_client_does_not_hold_up_the_end() -> None:
    """The server ends at once, though a refused client still holds its connection (item 6)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("nothing is called here")

    async def main() -> float:
        sockets = bind("127.0.0.1", 0)
        listener = Listener(app, sockets)
        port: int = sockets[0].getsockname()[1]
        await listener.open()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get(b"/a#b"))
        assert b"BAD_REQUEST" in await reader.read()
        began = time.monotonic()
        await listener.close(grace_s=5)
        took_s = time.monotonic() - began
        writer.close()
        await writer.wait_closed()
        return took_s

    assert uvloop.run(main()) < limits.EDGE_LINGER_S.value / 2


def test_the_short_way_is_not_taken_while_the_client_does_not_read() -> None:
    """Behind an answer that fills the connection, the next takes the way that waits (A8)."""
    size = 16 * 2**20

    class OnOffer:
        def __init__(self) -> None:
            self.offered = 0
            self.called = asyncio.Event()
            self.whole_offered = True

        def offer(self, scope: Scope, whole: Any, promote: Any) -> bool:
            self.offered += 1
            return bool(whole(200, [(b"content-length", b"%d" % size)], b"x" * size))

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            self.whole_offered = "amba.whole" in scope["extensions"]
            self.called.set()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})

    async def main() -> None:
        sockets = bind("127.0.0.1", 0)
        app = OnOffer()
        listener = Listener(app, sockets)
        port: int = sockets[0].getsockname()[1]
        await listener.open()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        writer.write(get(b"/2", b"Connection: close"))
        async with asyncio.timeout(5):
            await app.called.wait()
            rest = await reader.read()
            while not rest.endswith(b"ok\r\n" + END):
                rest += await reader.read()
        assert (app.offered, app.whole_offered) == (1, False)
        writer.close()
        await writer.wait_closed()
        await listener.close(grace_s=1)

    uvloop.run(main())

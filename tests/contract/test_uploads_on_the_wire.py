"""Uploads that no client of good will sends, as bytes to a real node (contract D.3; row D5)."""

from __future__ import annotations

import gzip
import json
import re
import socket

import pytest
from tests.contract.hosted import BOUNDARY, Shop

from amba_runtime import limits

pytestmark = pytest.mark.slow

MEMORY_BYTES = 32 * limits.MIB
"""What the node may have grown by when it has answered: far less than any of these bodies."""


def form(code: bytes) -> bytes:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'
        '{"name": "hello"}\r\n'
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="script"; filename="h.js"\r\n'
        "Content-Type: application/javascript+module\r\n\r\n"
    )
    return head.encode() + code + f"\r\n--{BOUNDARY}--\r\n".encode()


def said(shop: Shop, framing: str, *chunks: bytes, half_close: bool = False) -> tuple[int, str]:
    """Status and code of the answer to a POST; 0 when the node hung up without one."""
    head = (
        f"POST /v1/admin/projects/{shop.id}/functions/deploy HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{shop.node.port}\r\nAuthorization: Bearer {shop.node.pat}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n{framing}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", shop.node.port), timeout=20) as client:
        client.sendall(head.encode())
        try:
            for chunk in chunks:
                client.sendall(chunk)
            if half_close:
                client.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has answered and hung up
        raw = b""
        while not (match := re.match(rb"(?s)HTTP/1.1 (\d{3}).*?\r\n\r\n(\{.*\})", raw)):
            data = client.recv(65536)
            if not data:
                return 0, ""
            raw += data
    error = json.loads(match[2]).get("error", {})
    return int(match[1]), error.get("code", "")


def test_a_chunked_upload_deploys(shop: Shop) -> None:
    """Without a Content-Length (RFC 9112 7.1)."""
    body = form(b"export default { fetch() { return Response.json(1) } }")
    chunks = [b"%x\r\n%b\r\n" % (len(c), c) for c in (body[:9], body[9:300], body[300:])]
    assert said(shop, "Transfer-Encoding: chunked", *chunks, b"0\r\n\r\n") == (201, "")
    assert shop.call("hello").body == 1


def test_a_body_of_100_mib(shop: Shop) -> None:
    """413 where 64 MiB are passed; by its length at once, by its bytes when it lies (D.3)."""
    before = shop.node.rss()
    length = f"Content-Length: {100 * limits.MIB}"
    assert said(shop, length) == (413, "PAYLOAD_TOO_LARGE")
    body = form(b" " * 100 * limits.MIB)
    pieces = [
        b"%x\r\n%b\r\n" % (len(piece), piece)
        for at in range(0, len(body), limits.MIB)
        for piece in [body[at : at + limits.MIB]]
    ]
    got = said(shop, "Transfer-Encoding: chunked", *pieces, b"0\r\n\r\n")
    assert got == (413, "PAYLOAD_TOO_LARGE")
    assert shop.node.rss() - before < MEMORY_BYTES


def test_a_gzip_bomb(shop: Shop) -> None:
    """1,000 to 1: refused at the cap, and memory stays bounded (row D5)."""
    before = shop.node.rss()
    bomb = gzip.compress(form(b" " * 256 * limits.MIB), 9)
    framing = f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}"
    assert said(shop, framing, bomb) == (400, "DEPLOY_REJECTED")
    assert shop.node.rss() - before < MEMORY_BYTES


def test_a_length_that_lies(shop: Shop) -> None:
    """Too long: the body never comes and the client goes; too short: the form is cut off."""
    body = form(b"export default {}")
    long = f"Content-Length: {len(body) + 100}"
    assert said(shop, long, body, half_close=True) == (0, "")
    short = f"Content-Length: {len(body) - 30}"
    assert said(shop, short, body) == (400, "INVALID_UPLOAD")
    for wrong in ("-1", "1e3", "0x10", "5, 6", "5\r\nContent-Length: 6"):
        assert said(shop, f"Content-Length: {wrong}", body) == (400, "BAD_REQUEST")
    assert shop.api("GET", "functions/deployments").data == []


def test_the_node_is_well_after_all_that(shop: Shop) -> None:
    """The next upload deploys."""
    code = b"export default { fetch() { return Response.json('well') } }"
    body = form(code)
    assert said(shop, f"Content-Length: {len(body)}", body) == (201, "")
    assert shop.call("hello").body == "well"

"""Objects on the CDN host, as a browser and a cache ask for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from amba_router.asgi import Message
from amba_router.services.storage.routes import serve_object
from amba_router.services.storage.service import StorageService
from amba_router.store.records import Metadata
from amba_runtime.clock import ManualClock
from amba_runtime.manifest import ProjectId

P = ProjectId("p-1")
ETAG = '"781e5e245d69b566979b86e28d23f2c7"'  # MD5 of 0123456789
MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"  # where a ManualClock starts
Ask = Callable[..., Awaitable["Seen"]]


class Seen:
    """One answer."""

    def __init__(self, messages: list[Message]) -> None:
        self.status: int = messages[0]["status"]
        pairs: list[tuple[bytes, bytes]] = messages[0]["headers"]
        self.headers = {n.decode(): v.decode("latin-1") for n, v in pairs}
        assert len(self.headers) == len(pairs)
        self.body = b"".join(m["body"] for m in messages[1:])
        self.chunks = len(messages) - 1
        assert not messages[-1]["more_body"]


async def body(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def run(state: Path, work: Callable[[StorageService, Ask], Awaitable[None]]) -> None:
    async def main() -> None:
        service = StorageService(state, ManualClock())

        async def ask(key: str, method: str = "GET", **fields: str) -> Seen:
            messages: list[Message] = []

            async def send(message: Message) -> None:
                messages.append(message)

            headers = [(n.replace("_", "-").encode(), v.encode()) for n, v in fields.items()]
            scope: dict[str, Any] = {"type": "http", "method": method, "headers": headers}
            await serve_object(service, P, key, scope, send, request_id="r-1")
            return Seen(messages)

        try:
            await service.put(P, "n", body(b"0123456789"))
            await work(service, ask)
        finally:
            await service.close()

    asyncio.run(main())


def test_an_object_is_served_with_nothing_but_a_put(tmp_path: Path) -> None:
    """Served from the CDN host with no registration call (contract C, E.7)."""

    async def work(_service: StorageService, ask: Ask) -> None:
        seen = await ask("n")
        assert (seen.status, seen.body) == (200, b"0123456789")
        assert seen.headers == {
            "etag": ETAG,
            "last-modified": MODIFIED,
            "accept-ranges": "bytes",
            "x-content-type-options": "nosniff",
            "content-security-policy": "sandbox allow-scripts allow-downloads",
            "content-type": "application/octet-stream",
            "cache-control": "public, max-age=300",
            "content-length": "10",
        }
        head = await ask("n", "HEAD", range="bytes=0-1")
        assert (head.status, head.body, head.headers) == (200, b"", seen.headers)

    run(tmp_path, work)


def test_the_objects_own_metadata_wins(tmp_path: Path) -> None:
    """httpMetadata becomes headers, cacheControl over the default (contract E.7)."""

    async def work(service: StorageService, ask: Ask) -> None:
        http: dict[str, str | int] = {
            "contentType": "text/html; charset=utf-8",
            "contentLanguage": "de",
            "contentDisposition": 'attachment; filename="ü.html"',
            "contentEncoding": "gzip",
            "cacheControl": "no-cache",
            "cacheExpiry": 1_700_000_000_000,
        }
        await service.put(P, "page", body(b"<p>"), metadata=Metadata(http))
        headers = (await ask("page")).headers
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert headers["content-language"] == "de"
        assert headers["content-disposition"].encode("latin-1").decode() == (
            'attachment; filename="ü.html"'
        )
        assert headers["content-encoding"] == "gzip"
        assert headers["cache-control"] == "no-cache"
        assert headers["expires"] == "Tue, 14 Nov 2023 22:13:20 GMT"

    run(tmp_path, work)


@pytest.mark.parametrize("value", ["a\r\nset-cookie: x=1", "a\nb", "a\0", "a\x7f", "\x1b[0m"])
def test_metadata_cannot_write_headers(tmp_path: Path, value: str) -> None:
    """A guest's text that would begin another header is left out; odd dates are clamped."""

    async def work(service: StorageService, ask: Ask) -> None:
        metadata = Metadata({"contentType": value, "cacheExpiry": 1 << 62})
        await service.put(P, "k", body(b"x"), metadata=metadata)
        headers = (await ask("k")).headers
        assert headers["content-type"] == "application/octet-stream"
        assert "set-cookie" not in headers
        assert headers["expires"].endswith("9999 23:59:59 GMT")

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("header", "status", "content_range", "data"),
    [
        ("bytes=2-4", 206, "bytes 2-4/10", b"234"),
        ("bytes=7-", 206, "bytes 7-9/10", b"789"),
        ("bytes=-3", 206, "bytes 7-9/10", b"789"),
        ("bytes=0-99", 206, "bytes 0-9/10", b"0123456789"),
        ("bytes=-99", 206, "bytes 0-9/10", b"0123456789"),
        ("bytes=0-1,4-5", 200, None, b"0123456789"),
        ("pages=1-2", 200, None, b"0123456789"),
        ("bytes=5-2", 200, None, b"0123456789"),
        ("bytes=10-", 416, "bytes */10", None),
        ("bytes=-0", 416, "bytes */10", None),
    ],
)
def test_ranges(
    tmp_path: Path, header: str, status: int, content_range: str | None, data: bytes | None
) -> None:
    """Single and suffix ranges, 206 and 416 (RFC 9110 section 14)."""

    async def work(_service: StorageService, ask: Ask) -> None:
        seen = await ask("n", range=header)
        assert (seen.status, seen.headers.get("content-range")) == (status, content_range)
        assert seen.headers["content-length"] == str(len(seen.body))
        if data is not None:
            assert seen.body == data
        else:
            error = json.loads(seen.body)["error"]
            assert (error["code"], error["details"]) == ("RANGE_NOT_SATISFIABLE", {"size": 10})

    run(tmp_path, work)


EARLIER, LATER = "Wed, 31 Dec 2025 23:59:59 GMT", "Thu, 01 Jan 2026 00:00:01 GMT"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"if_none_match": ETAG}, 304),
        ({"if_none_match": f'"x", W/{ETAG}'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"x"'}, 200),
        ({"if_none_match": '"x"', "if_modified_since": LATER}, 200),
        ({"if_modified_since": MODIFIED}, 304),
        ({"if_modified_since": LATER}, 304),
        ({"if_modified_since": EARLIER}, 200),
        ({"if_modified_since": "not a date"}, 200),
        ({"if_match": ETAG}, 200),
        ({"if_match": "*"}, 200),
        ({"if_match": f"W/{ETAG}"}, 412),
        ({"if_match": '"x"'}, 412),
        ({"if_match": ETAG, "if_unmodified_since": EARLIER}, 200),
        ({"if_unmodified_since": MODIFIED}, 200),
        ({"if_unmodified_since": EARLIER}, 412),
        ({"if_match": ETAG, "if_none_match": ETAG}, 304),
        ({"range": "bytes=0-1", "if_range": ETAG}, 206),
        ({"range": "bytes=0-1", "if_range": '"x"'}, 200),
        ({"range": "bytes=0-1", "if_range": f"W/{ETAG}"}, 200),
        ({"range": "bytes=0-1", "if_range": MODIFIED}, 206),
        ({"range": "bytes=0-1", "if_range": LATER}, 200),
        ({"range": "bytes=99-", "if_none_match": ETAG}, 304),
    ],
)
def test_conditions(tmp_path: Path, fields: dict[str, str], status: int) -> None:
    """RFC 9110 section 13, in its order of precedence."""

    async def work(_service: StorageService, ask: Ask) -> None:
        seen = await ask("n", **fields)
        assert seen.status == status
        assert seen.headers["etag"] == ETAG
        if status == 304:
            assert seen.body == b""
            assert "content-length" not in seen.headers
            assert seen.headers["cache-control"] == "public, max-age=300"
        if status == 412:
            assert json.loads(seen.body)["error"]["code"] == "PRECONDITION_FAILED"

    run(tmp_path, work)


def test_a_repeated_header_counts_whole(tmp_path: Path) -> None:
    """Two If-None-Match lines are one list."""

    async def work(service: StorageService, _ask: Ask) -> None:
        messages: list[Message] = []

        async def send(message: Message) -> None:
            messages.append(message)

        headers = [(b"if-none-match", b'"x"'), (b"if-none-match", ETAG.encode())]
        scope: dict[str, Any] = {"type": "http", "method": "GET", "headers": headers}
        await serve_object(service, P, "n", scope, send)
        assert messages[0]["status"] == 304

    run(tmp_path, work)


@pytest.mark.parametrize(
    "key", ["none", "", "%FF", "a%2Fb", "n%00", "%2e%2e/n", "./n", "x" * 2000, "%6E%2520", "\u20ac"]
)
def test_what_is_not_there_is_404(tmp_path: Path, key: str) -> None:
    """The envelope of contract A.7 with OBJECT_NOT_FOUND, for odd keys as well (H6)."""

    async def work(_service: StorageService, ask: Ask) -> None:
        seen = await ask(key)
        assert seen.status == 404
        assert json.loads(seen.body) == {
            "error": {
                "kind": "not_found",
                "code": "OBJECT_NOT_FOUND",
                "status": 404,
                "message": "there is no object with this key",
                "request_id": "r-1",
                "details": {"resource": "object", "id": key},
            }
        }
        assert (await ask(key, "HEAD")).body == b""

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a b/ü", "a%20b/%C3%BC"),
        ("a%2Fb", "a%252Fb"),
        ("a/../b", "a/../b"),
        ("nul\0", "nul%00"),
        ("raw-ü", "raw-ü".encode().decode("latin-1")),
    ],
)
def test_keys_are_decoded_once(tmp_path: Path, key: str, path: str) -> None:
    """Percent-decoding happens exactly once, and dots mean nothing (H6)."""

    async def work(service: StorageService, ask: Ask) -> None:
        await service.put(P, key, body(b"x"))
        assert (await ask(path)).body == b"x"

    run(tmp_path, work)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_other_methods_are_refused(tmp_path: Path, method: str) -> None:
    """405 with Allow."""

    async def work(_service: StorageService, ask: Ask) -> None:
        seen = await ask("n", method)
        assert (seen.status, seen.headers["allow"]) == (405, "GET, HEAD")
        assert json.loads(seen.body)["error"]["code"] == "METHOD_NOT_ALLOWED"

    run(tmp_path, work)


def test_a_large_object_is_streamed(tmp_path: Path) -> None:
    """Chunk by chunk; a client that leaves lets the blob go."""
    value = bytes(range(256)) * 4096

    async def work(service: StorageService, ask: Ask) -> None:
        await service.put(P, "big", body(value))
        seen = await ask("big")
        assert seen.body == value
        assert seen.chunks > 4

        async def leave(message: Message) -> None:
            if message["type"] == "http.response.body":
                raise ConnectionError("gone")

        scope: dict[str, Any] = {"type": "http", "method": "GET", "headers": []}
        with pytest.raises(ConnectionError):
            await serve_object(service, P, "big", scope, leave)
        await service.delete(P, ["big", "n"])
        assert list((tmp_path / "blobs").glob("??/*")) == []

    run(tmp_path, work)

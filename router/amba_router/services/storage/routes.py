"""Objects on the CDN host: GET and HEAD as an HTTP cache would be answered.

Contract E.7 (served with no registration call, cached about 5 minutes) and interface.md 1.
Conditions and ranges follow RFC 9110 sections 13 and 14.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from amba_router.asgi import Scope, Send
from amba_router.problem import Problem, not_found
from amba_router.services.storage.rules import R2Error, parse_range, resolve
from amba_router.store.records import StoredObject
from amba_runtime import limits
from amba_runtime.manifest import ProjectId

if TYPE_CHECKING:
    from amba_router.services.storage.service import StorageService

_STORED_HEADERS = (
    (b"content-type", "contentType"),
    (b"content-language", "contentLanguage"),
    (b"content-disposition", "contentDisposition"),
    (b"content-encoding", "contentEncoding"),
    (b"cache-control", "cacheControl"),
)


_METHOD_NOT_ALLOWED = Problem(
    405,
    "METHOD_NOT_ALLOWED",
    "invalid_request",
    "objects are read with GET or HEAD",
    allow="GET, HEAD",
)
_PRECONDITION_FAILED = Problem(
    412,
    "PRECONDITION_FAILED",
    "conflict",
    "the object is not in the state that was asked for",
)


async def serve_object(
    service: StorageService,
    project_id: ProjectId,
    key: str,
    scope: Scope,
    send: Send,
    *,
    request_id: str = "",
) -> None:
    """Answer one request for an object. A bare ASGI coroutine; reads no body.

    Args:
        service: where the object is.
        project_id: from the host or the path, resolved by the caller.
        key: what follows the host's `/` in the *raw* path, one character a byte (latin-1), still
            percent-encoded: it is decoded here, exactly once.
        scope: for its method and headers.
        send: ASGI's.
        request_id: for the error envelope.
    """
    answer = _Answer(send, head_only=scope["method"] == "HEAD", request_id=request_id)
    if scope["method"] not in ("GET", "HEAD"):
        await answer.problem(_METHOD_NOT_ALLOWED)
        return
    asked = _Asked(scope["headers"], ranges=not answer.head_only)
    decided: list[tuple[int, tuple[int, int]]] = []

    def choose(found: StoredObject) -> tuple[int, int]:
        status, span = _decide(asked, found)
        decided.append((status, span))
        return (0, 0) if answer.head_only or status not in (200, 206) else span

    try:
        read = await service.read(
            project_id, unquote_to_bytes(key.encode("latin-1")).decode(), choose
        )
    except (UnicodeError, R2Error):
        await answer.problem(not_found("object", key, "there is no object with this key"))
        return
    status, span = decided[-1]
    try:
        headers = _headers(read.found, status, span)
        if status == 412:
            await answer.problem(_PRECONDITION_FAILED, headers)
        elif status == 416:
            await answer.problem(_unsatisfiable(read.found), headers)
        else:
            await answer.start(status, headers)
            async for data in read.body:
                await answer.more(data)
            await answer.end()
    finally:
        await read.body.aclose()


def _unsatisfiable(found: StoredObject) -> Problem:
    return Problem(
        416,
        "RANGE_NOT_SATISFIABLE",
        "invalid_request",
        f"the object has {found.size} bytes: the range is outside of them",
        {"size": found.size},
    )


# --- deciding ---------------------------------------------------------------------------------


class _Asked:
    """The headers that matter. Of a repeated one all values count, joined as RFC 9110 says."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], *, ranges: bool) -> None:
        self.ranges = ranges  # only GET knows ranges
        self._fields: dict[bytes, str] = {}
        for name, value in headers:
            text = value.decode("latin-1")
            had = self._fields.get(name)
            self._fields[name] = text if had is None else f"{had}, {text}"

    def text(self, name: bytes) -> str | None:
        return self._fields.get(name)

    def time_s(self, name: bytes) -> float | None:
        """A date, or None when there is none that can be read."""
        text = self._fields.get(name)
        return None if text is None else _parse_date(text)


def _decide(asked: _Asked, found: StoredObject) -> tuple[int, tuple[int, int]]:
    """Status, and (offset, length) of what is sent. Order of RFC 9110 section 13.2.2."""
    whole = (0, found.size)
    modified_s = found.uploaded_ms // 1000
    match = asked.text(b"if-match")
    if match is not None:
        if not _lists(match, found.etag, weak=False):
            return 412, whole
    else:
        unmodified = asked.time_s(b"if-unmodified-since")
        if unmodified is not None and modified_s > unmodified:
            return 412, whole
    none_match = asked.text(b"if-none-match")
    if none_match is not None:
        if _lists(none_match, found.etag, weak=True):
            return 304, whole
    else:
        modified = asked.time_s(b"if-modified-since")
        if modified is not None and modified_s <= modified:
            return 304, whole
    header = asked.text(b"range")
    wanted = parse_range(header) if header is not None else None
    if wanted is None or not asked.ranges or not _range_applies(asked, found, modified_s):
        return 200, whole
    try:
        return 206, resolve(wanted, found.size)
    except R2Error:
        return 416, whole


def _range_applies(asked: _Asked, found: StoredObject, modified_s: int) -> bool:
    condition = asked.text(b"if-range")
    if condition is None:
        return True
    if condition.startswith('"'):
        return condition.strip() == f'"{found.etag}"'
    return _parse_date(condition) == modified_s


def _lists(header: str, etag: str, *, weak: bool) -> bool:
    """Whether an ETag list (or `*`) holds the object's. Our ETags have no commas in them."""
    for item in header.split(","):
        tag = item.strip()
        if tag == "*" or tag == f'"{etag}"' or (weak and tag == f'W/"{etag}"'):
            return True
    return False


def _parse_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


# --- answering --------------------------------------------------------------------------------


def _headers(found: StoredObject, status: int, span: tuple[int, int]) -> list[tuple[bytes, bytes]]:
    http = found.metadata.http
    headers = [
        (b"etag", f'"{found.etag}"'.encode()),
        (b"last-modified", _date(found.uploaded_ms)),
        (b"accept-ranges", b"bytes"),
        (b"x-content-type-options", b"nosniff"),
        # anybody may have put a page here, and `/cdn/` has the API's origin: it gets none
        (b"content-security-policy", b"sandbox allow-scripts allow-downloads"),
    ]
    if status in (412, 416):
        if status == 416:
            headers.append((b"content-range", b"bytes */%d" % found.size))
        return headers
    stored = {n: v for n, member in _STORED_HEADERS if (v := _safe(http.get(member))) is not None}
    stored.setdefault(b"content-type", b"application/octet-stream")
    stored.setdefault(b"cache-control", b"public, max-age=%d" % int(limits.CDN_MAX_AGE_S.value))
    headers += stored.items()
    expiry = http.get("cacheExpiry")
    if isinstance(expiry, int):
        headers.append((b"expires", _date(expiry)))
    if status in (200, 206):
        headers.append((b"content-length", b"%d" % span[1]))
    if status == 206:
        last = span[0] + span[1] - 1
        headers.append((b"content-range", b"bytes %d-%d/%d" % (span[0], last, found.size)))
    return headers


def _safe(value: str | int | None) -> bytes | None:
    """A header value, or None for text that would end the header or begin another."""
    if not isinstance(value, str) or any(ord(c) < 32 and c != "\t" for c in value):
        return None
    return value.strip().encode("utf-8", "replace") if "\x7f" not in value else None


def _date(ms: int) -> bytes:
    """An HTTP date; one outside the calendar is moved to its nearest end."""
    seconds = min(max(ms // 1000, 0), 253_402_300_799)
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True).encode()


class _Answer:
    """ASGI messages of one answer; HEAD gets the same head and no body."""

    def __init__(self, send: Send, *, head_only: bool, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.head_only = head_only

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def more(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        body = b"" if self.head_only else data
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def problem(self, problem: Problem, about: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """The envelope, with those headers `about` the object that it does not set itself."""
        body = problem.body(self._request_id)
        own = problem.headers(len(body))
        names = {name for name, _ in own}
        await self.start(problem.status, [*own, *(h for h in about if h[0] not in names)])
        await self.end(body)

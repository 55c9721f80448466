"""An HTTP/1.1 reader of the battery's own: what a byte stream means, read by nothing of ours.

Strict where RFC 9112 leaves no choice, and where it leaves one, as strict as the front promises
(reliability.md 3.A). The front's parser is lenient in four places where nobody reads another
request for it, and so is this: line ends before a request line, more blanks than one inside of it,
RTSP/1.0 for HTTP/1.0, and zeros before a chunk size. Whatever this refuses, the front must not pass
on; whatever the front passes on must be what this read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Fields = tuple[tuple[bytes, bytes], ...]

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE = re.compile(
    rb"(?P<method>" + _TOKEN + rb") +(?P<target>[!-~]+) +(?:HTTP/(?P<version>1\.[01])|RTSP/1\.0)\Z"
)
_FIELD = re.compile(rb"(?P<name>" + _TOKEN + rb"):[ \t]*(?P<value>[\t -~\x80-\xff]*?)[ \t]*\Z")
_CHUNK = re.compile(rb"(?P<size>0*[0-9A-Fa-f]{1,16})(?P<extension>[ \t]*;[\t -~\x80-\xff]*)?\Z")
_HOST = re.compile(
    rb"(?P<name>[A-Za-z0-9][A-Za-z0-9-]{0,62}(?:\.[A-Za-z0-9][A-Za-z0-9-]{0,62})*|\[[0-9a-fA-F:.]+\])"
    rb"(?P<dot>\.?)(?::(?P<port>[1-9][0-9]{0,4}))?\Z"
)
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer"
    b" transfer-encoding upgrade".split()
)
_REBUILT = frozenset((b"host", b"content-length", b"expect"))


class Malformed(Exception):
    """Two readers could understand these bytes differently, or nobody can."""


class Unfinished(Exception):
    """The stream ends inside of a request."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request; names in lower case, values without blanks around them.

    Attributes:
        host: normalised: lower case, no dot at its end, the port as it was.
        last: nothing behind it is read.
    """

    method: str
    target: bytes
    version: bytes
    host: bytes
    fields: Fields
    body: bytes
    last: bool

    def url(self) -> str:
        """What a function sees as its URL, of a request to `/fn/SLUG/NAME/...` or `/NAME/...`."""
        path, mark, query = self.target.partition(b"?")
        parts = path.split(b"/")[4 if path.startswith(b"/fn/") else 2 :]
        return (b"http://" + self.host + b"/" + b"/".join(parts) + mark + query).decode()

    def seen(self) -> dict[str, str]:
        """The caller's headers as a function may see them: joined, without what is not its."""
        nominated = {
            token.strip().lower()
            for name, value in self.fields
            if name == b"connection"
            for token in value.split(b",")
        }
        out: dict[str, str] = {}
        for name, value in self.fields:
            plain = name.replace(b"_", b"-")
            if plain.startswith(b"x-amba") or plain == b"cf-connecting-ip":
                continue
            if name in _HOP_BY_HOP or name in _REBUILT:
                continue
            if name in nominated:
                continue
            text = value.decode("utf-8", "replace")
            known = out.get(name.decode())
            out[name.decode()] = text if known is None else f"{known}, {text}"
        return out


@dataclass(frozen=True, slots=True)
class Reading:
    """All that a stream holds: whole requests, and how it goes on behind them.

    `begun` is the head of one whose body does not end well: a function may be called with it, and
    must see its body break.
    """

    requests: tuple[Request, ...]
    end: str
    begun: Request | None = None


def read(stream: bytes) -> Reading:
    """Read a connection's bytes to the end. `end`: `clean`, `last`, `malformed`, `unfinished`."""
    requests: list[Request] = []
    at = 0
    while True:
        while stream[at : at + 1] in (b"\r", b"\n"):
            at += 1  # line ends before a request line are nobody's, in whatever spelling
        if at == len(stream):
            return Reading(tuple(requests), "clean")
        begun: Request | None = None
        try:
            begun, at = _head(stream, at)
            body, at = _body(begun, stream, at)
        except (Malformed, Unfinished) as fault:
            return Reading(tuple(requests), type(fault).__name__.lower(), begun)
        requests.append(
            Request(
                begun.method,
                begun.target,
                begun.version,
                begun.host,
                begun.fields,
                body,
                begun.last,
            )
        )
        if begun.last:
            return Reading(tuple(requests), "last")


def _lines(stream: bytes, at: int) -> tuple[bytes, int]:
    end = stream.find(b"\r\n", at)
    if end < 0:
        if re.search(rb"[\0\n]|\r.", stream[at:], re.DOTALL):
            raise Malformed("a bare line end")
        raise Unfinished("a line")
    line = stream[at:end]
    if b"\n" in line or b"\r" in line or b"\0" in line:
        raise Malformed("a line break or NUL inside a line")
    return line, end + 2


def _fields(stream: bytes, at: int) -> tuple[Fields, int]:
    fields: list[tuple[bytes, bytes]] = []
    while True:
        line, at = _lines(stream, at)
        if not line:
            return tuple(fields), at
        match = _FIELD.match(line)
        if match is None:
            raise Malformed("a header line")
        fields.append((match["name"].lower(), match["value"]))


def _head(stream: bytes, at: int) -> tuple[Request, int]:
    line, at = _lines(stream, at)
    match = _LINE.match(line)
    if match is None:
        raise Malformed("a request line")
    fields, at = _fields(stream, at)
    values = [value for name, value in fields if name == b"host"]
    if len(values) != 1:
        raise Malformed("not one Host")
    host = _HOST.match(values[0])
    if host is None or (host["port"] and int(host["port"]) > 65535):
        raise Malformed("a Host")
    normal = host["name"].lower() + (b":" + host["port"] if host["port"] else b"")
    target: bytes = match["target"]
    if target[:1] != b"/":
        form = re.match(rb"(?i:https?)://([^/?]*)(/?.*)\Z", target, re.DOTALL)
        if form is None or form[1].lower() != values[0].lower():
            raise Malformed("a request target")
        target = form[2] if form[2].startswith(b"/") else b"/" + form[2]
    tokens = [
        token.strip().lower()
        for name, value in fields
        if name == b"connection"
        for token in value.split(b",")
    ]
    version = match["version"] or b"1.0"
    last = b"close" in tokens or version == b"1.0"
    request = Request(match["method"].decode(), target, version, normal, fields, b"", last)
    _framing(request)
    return request, at


def _framing(request: Request) -> int | None:
    """The body's length; None for chunks."""
    lengths = [value for name, value in request.fields if name == b"content-length"]
    codings = [value for name, value in request.fields if name == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise Malformed("two framings")
    if codings:
        if codings[0].lower() != b"chunked" or request.version == b"1.0":
            raise Malformed("a transfer coding")
        return None
    if lengths:
        if not re.fullmatch(rb"[0-9]+", lengths[0]) or int(lengths[0]) >= 2**64:
            raise Malformed("a length")
        return int(lengths[0])
    return 0


def _body(request: Request, stream: bytes, at: int) -> tuple[bytes, int]:
    length = _framing(request)
    if length is not None:
        if len(stream) - at < length:
            raise Unfinished("a body")
        return stream[at : at + length], at + length
    body = b""
    while True:
        line, at = _lines(stream, at)
        match = _CHUNK.match(line)
        if match is None:
            raise Malformed("a chunk size")
        size = int(match["size"], 16)
        if size == 0:
            _, at = _fields(stream, at)  # trailers, which nobody sees
            return body, at
        if len(stream) - at < size:
            raise Unfinished("a chunk")
        body += stream[at : at + size]
        at += size
        end = stream[at : at + 2]
        if end != b"\r\n"[: len(end)]:
            raise Malformed("the end of a chunk")
        if len(end) < 2:
            raise Unfinished("the end of a chunk")
        at += 2

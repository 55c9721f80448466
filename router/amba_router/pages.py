"""Which requests a web page from elsewhere may have sent: judged by what browsers alone write.

A page cannot forge or leave out `Origin`, `Sec-Fetch-Site` and the host in `Referer`; a program
that is no browser need not send any of them, and is not what this guards against.
Source: reliability.md T10, rows C3 and C5; W3C Fetch Metadata; RFC 6454.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from amba_runtime.errors import UserCode, UserError

_ORIGIN = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,31})://"
    r"(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?P<port>:[0-9]{1,5})?"
)
_NULL = "null"
_SAFE = (b"GET", b"HEAD")

TELLING = frozenset((b"origin", b"sec-fetch-site"))
"""A request with none of these is no browser's, as far as anybody can tell."""


@dataclass(frozen=True, slots=True)
class Sender:
    """What a browser said of where a request comes from; "" where it said nothing.

    Attributes:
        origin: of the page, from `Origin`, else from `Referer`.
        site: `Sec-Fetch-Site`: `none`, `same-origin`, `same-site` or `cross-site`.
        navigates: a person follows a link, or a page sends them: the answer replaces the page.
    """

    origin: str = ""
    site: str = ""
    navigates: bool = False


NO_BROWSER = Sender()


class Pages:
    """Whose pages may call: those of loopback, and the origins that were allowed.

    Args:
        allow: such as `https://app.example.com`, from `--allow-origin`; `null` is one too.

    Raises:
        UserError: INVALID_CONFIG, one of them is no origin.
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self.allowed = frozenset(parse_origin(text) for text in allow)

    def foreign(self, fields: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a page from elsewhere may have sent a request with these header fields."""
        sender = sender_of(fields)
        if sender is NO_BROWSER:
            return False
        if sender.origin:
            return not self._ours(sender.origin)
        return sender.site == "cross-site"

    def refuses(self, fields: Iterable[tuple[bytes, bytes]], *, method: str, kind: str) -> str:
        """The origin (or `an unknown page`) whose request is to be refused; "" for none.

        A WebSocket is refused wherever a page from elsewhere may be behind it. Any other request
        only where the browser itself says that it crosses sites, and is no mere link that is
        followed: tools that try out CORS with an `Origin` of their own are answered.

        Args:
            kind: `http` or `websocket`.
        """
        sender = sender_of(fields)
        if sender is NO_BROWSER or (sender.origin and self._ours(sender.origin)):
            return ""
        crosses = sender.site == "cross-site"
        if kind == "websocket":
            refused = crosses or bool(sender.origin)
        else:
            refused = crosses and not (sender.navigates and method.encode() in _SAFE)
        return (sender.origin or "an unknown page") if refused else ""

    def _ours(self, origin: str) -> bool:
        return origin in self.allowed or is_loopback(origin)


def sender_of(fields: Iterable[tuple[bytes, bytes]]) -> Sender:
    """Read what a browser said; `NO_BROWSER` itself where nothing did."""
    origin = referer = site = mode = dest = b""
    said = False
    for name, value in fields:
        if name == b"origin":
            # two are one too many for any browser: what cannot be read is foreign
            origin, said = (value if not origin else b"?"), True
        elif name == b"referer":
            referer = value
        elif name == b"sec-fetch-site":
            site, said = value, True
        elif name == b"sec-fetch-mode":
            mode = value
        elif name == b"sec-fetch-dest":
            dest = value
    if not said:
        return NO_BROWSER
    text = origin.decode("latin-1").lower() or _origin_in(referer.decode("latin-1"))
    navigates = mode == b"navigate" and dest in (b"document", b"")
    return Sender(text, site.decode("latin-1"), navigates)


def parse_origin(text: str) -> str:
    """`https://app.example.com:8443` in lower case, or `null`.

    Raises:
        UserError: INVALID_CONFIG.
    """
    lowered = text.lower().rstrip("/")
    if lowered != _NULL and _ORIGIN.fullmatch(lowered) is None:
        raise UserError(
            UserCode.INVALID_CONFIG,
            f"--allow-origin {text[:80]!r} is no origin",
            hint="scheme, host and port of a page, such as --allow-origin https://app.example.com",
        )
    return lowered


def is_loopback(origin: str) -> bool:
    """Whether this origin's pages come from this machine: no page from elsewhere can have it."""
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return False
    host = match["host"]
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _origin_in(referer: str) -> str:
    """The origin of a URL, "" where it has none."""
    match = _ORIGIN.match(referer)
    return match[0].lower() if match is not None and referer[match.end() :][:1] in "/" else ""

"""Where a function wants to go, read from a request line: one spelling for each, or a refusal.

Engines send what WHATWG URL parsing made (reliability.md B6); one that was taken over may send
anything. No I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address

_DEFAULT_PORTS = {"http": 80, "https": 443}
_TARGET = re.compile(
    rb"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    rb"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
    rb"(?P<path>/[\x21\x22\x24-\x7e]*)?(?P<query>\?[\x21\x22\x24-\x7e]*)?"
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_SHOWN = re.compile(
    rb"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*:)?//(?:[^/?#\\]*@)?(?P<authority>[^/?#\\]*)"
)
_AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")  # as CONNECT has it
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*:")
_SHOWN_BYTES = 200
_NAME_CHARACTERS_MAX = 253  # RFC 1035 section 2.3.4, without the trailing dot


@dataclass(frozen=True, slots=True)
class Target:
    """An absolute URL as a function asked for it, normalised.

    Attributes:
        host: lower case, no trailing dot; IPv6 compressed and in brackets.
        path: origin-form: begins with `/`, with the query, as percent-encoded by the caller.
    """

    scheme: str
    host: str
    port: int
    path: bytes

    @property
    def authority(self) -> str:
        """What the Host header says: the port only where it is not the scheme's own."""
        default = _DEFAULT_PORTS.get(self.scheme) == self.port
        return self.host if default else f"{self.host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme and authority: fit for logs, since paths and queries may carry secrets."""
        return f"{self.scheme}://{self.authority}"

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The address that the host is written as; None for a name."""
        try:
            return ip_address(self.host.strip("[]"))
        except ValueError:
            return None


def default_port(scheme: str) -> int:
    """Of `http` or `https`."""
    return _DEFAULT_PORTS[scheme]


class TargetError(ValueError):
    """A request target that is not exactly right; the message says what."""


def parse_target(raw: bytes) -> Target:
    """Read the absolute-form target of a request line.

    Engines send what WHATWG URL parsing made (B6); what is not in that form is refused.

    Raises:
        TargetError: not an absolute http(s) URL, or userinfo, fragment, blanks, a bad host.
    """
    match = _TARGET.fullmatch(raw)
    if match is None:
        raise TargetError("it is not an absolute URL in normal form")
    scheme = match["scheme"].decode()
    if scheme not in _DEFAULT_PORTS:
        raise TargetError(f"only http and https are spoken, not {scheme}")
    port = int(match["port"]) if match["port"] else _DEFAULT_PORTS[scheme]
    if not 1 <= port <= 65535:
        raise TargetError(f"{port} is not a port")
    path = (match["path"] or b"/") + (match["query"] or b"")
    return Target(scheme, canonical_host(match["host"].decode()), port, path)


def canonical_host(text: str) -> str:
    """One spelling per host: lower case, no trailing dot, IPv6 compressed in brackets.

    Raises:
        TargetError: empty or over-long labels, or a number that is not a dotted quad
            (`getaddrinfo` would read `0x7f.1` and `127.1` as loopback).
    """
    try:
        if text.startswith("["):
            address = IPv6Address(text[1:-1])
            if address.scope_id is not None:
                raise TargetError(f"{text} has a zone")
            return f"[{address.compressed}]"
        name = text.lower().removesuffix(".")
        labels = name.split(".")
        if _NUMBER.fullmatch(labels[-1]):
            return str(IPv4Address(name))
    except AddressValueError as error:
        raise TargetError(f"{text} is not an IP address in its usual form") from error
    if len(name) > _NAME_CHARACTERS_MAX or not all(map(_LABEL.fullmatch, labels)):
        raise TargetError(f"{text} is not a host name")
    return name


def printable(raw: bytes) -> str:
    """A hostile target for the log: plain ASCII, scheme and authority alone.

    Paths, queries and user names may hold secrets, however the rest is spelled.
    """
    match = _SHOWN.match(raw)
    if match is not None:
        raw = (match["scheme"] or b"") + b"//" + match["authority"]
    elif _AUTHORITY.fullmatch(raw) is None:
        scheme = _SCHEME.match(raw)
        raw = (b"" if scheme is None else scheme[0]) + b"..."
    return repr(raw[:_SHOWN_BYTES])[2:-1]

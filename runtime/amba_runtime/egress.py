"""What a function may reach: the decision on every `fetch()` it makes. No sockets here.

A target is one of three things: an address of our own (answered by our app in process), an
external host with the addresses it was resolved to, once (connect to these), or denied.
The table of denied addresses is our own: `ipaddress.is_global` passes multicast, NAT64, 6to4
and more. Source: reliability.md section 5, section 3.G and measurement B9.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Protocol

from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError

DENIED_NETWORKS = (
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "cloud metadata"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "documentation"),
    ("192.31.196.0/24", "reserved"),
    ("192.52.193.0/24", "reserved"),
    ("192.88.99.0/24", "6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("192.175.48.0/24", "reserved"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::/96", "IPv4-compatible"),
    ("::ffff:0:0:0/96", "IPv4-translated"),
    ("64:ff9b::/96", "NAT64"),
    ("64:ff9b:1::/48", "NAT64"),
    ("100::/64", "discard"),
    ("100:0:0:1::/64", "reserved"),
    ("2001::/23", "Teredo or reserved"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "6to4"),
    ("2620:4f:8000::/48", "reserved"),
    ("3fff::/20", "documentation"),
    ("5f00::/16", "segment routing"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
)
"""Network and its class; IPv4-mapped addresses are judged by the IPv4 address inside.

Source: reliability.md section 3.G (deny table to ship).
"""

_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
"""Upper half of the interface id of any address that embeds IPv4 so. Source: RFC 5214, 6.1."""

_PORTS_REFUSED = {25: "SMTP", 465: "SMTP over TLS", 587: "mail submission"}
_NAMES_REFUSED = (".local", ".internal", ".home.arpa", ".localhost")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_TARGET = re.compile(
    rb"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    rb"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
    rb"(?P<path>/[\x21\x22\x24-\x7e]*)?(?P<query>\?[\x21\x22\x24-\x7e]*)?"
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_SHOWN_BYTES = 200
_NAME_CHARACTERS_MAX = 253  # RFC 1035 section 2.3.4, without the trailing dot


class DeniedReason(StrEnum):
    """Why a request went nowhere; the last two are the world's doing, the others policy."""

    MALFORMED = "malformed"
    PORT = "port"
    NAME = "name"
    ADDRESS = "address"
    NOT_EMULATED = "not_emulated"
    NOT_ACTIVE = "not_active"
    UNRESOLVED = "unresolved"
    UNREACHABLE = "unreachable"


class ResolveError(Exception):
    """A name has no address, or the resolver did not answer: see the message."""


class Resolver(Protocol):
    """Names to addresses: the only question that a decision puts to the world."""

    async def resolve(self, name: str) -> Sequence[str]:
        """Every address of a name, both families, as text, best first. Raises ResolveError.

        A trailing dot means: exactly this name, no search domains, no hosts file.
        """
        ...


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


@dataclass(frozen=True, slots=True)
class Own:
    """An address of this server: `platform` for the API and AI, else functions and CDN."""

    target: Target
    platform: bool


@dataclass(frozen=True, slots=True)
class External:
    """A host on the network: connect to one of `addresses` (IP literals), to nothing else."""

    target: Target
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Denied:
    """A refusal for the log; the function sees a network error like any other.

    Attributes:
        origin: where it wanted to go, without path and query; `printable` when malformed.
        hint: what to do, pasteable; "" when nothing can be done.
    """

    origin: str
    reason: DeniedReason
    message: str
    hint: str = ""


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
    """A hostile target for the log: plain ASCII, control bytes escaped, the query cut off."""
    return repr(raw.split(b"?", 1)[0][:_SHOWN_BYTES])[2:-1]


class AddressTable:
    """The addresses no function may reach.

    Args:
        denied: CIDR text and the class it is, both families.
        own: further networks: the node's own addresses, the operator's ranges and NAT64 prefix.
    """

    def __init__(
        self,
        denied: Iterable[tuple[str, str]] = DENIED_NETWORKS,
        *,
        own: Iterable[str] = (),
    ) -> None:
        self._v4: list[tuple[IPv4Network, str]] = []
        self._v6: list[tuple[IPv6Network, str]] = []
        for text, kind in (*((text, "this node's own") for text in own), *denied):
            network = ip_network(text)
            if isinstance(network, IPv4Network):
                self._v4.append((network, kind))
            else:
                self._v6.append((network, kind))

    def objection(self, address: IPv4Address | IPv6Address) -> str | None:
        """Why this address is denied, such as `loopback (127.0.0.0/8)`; None when it is not."""
        if isinstance(address, IPv6Address):
            if address.ipv4_mapped is not None:
                return self.objection(address.ipv4_mapped)
            if int(address) >> 32 & 0xFFFF_FFFF in _ISATAP:
                return "ISATAP"
            return next((f"{kind} ({n})" for n, kind in self._v6 if address in n), None)
        return next((f"{kind} ({n})" for n, kind in self._v4 if address in n), None)


@dataclass(frozen=True, slots=True)
class OwnAddresses:
    """Where this server is reached from outside, and so by its functions.

    Attributes:
        port, scheme: of the public URL; in dev the port that is listened on, and http.
        suffix, cdn_suffix: what follows a project's slug, such as `fn.localhost`.
        api_hosts: hosts of `AMBA_API_URL`, lower case, IPv6 in brackets.

    Source: interface.md section 1.
    """

    port: int
    suffix: str = "fn.localhost"
    cdn_suffix: str = "cdn.localhost"
    api_hosts: frozenset[str] = frozenset({"127.0.0.1", "localhost", "[::1]"})
    scheme: str = "http"

    def under_suffix(self, host: str) -> bool:
        """The host is a project's, on the data plane or the CDN (existing or not)."""
        return f".{host}".endswith((f".{self.suffix}", f".{self.cdn_suffix}"))


class EgressPolicy:
    """Decides on targets; immutable, shared by any number of functions.

    Args:
        own: routes of our own, decided before any rule of denial.
        allow: `host:port` entries that no rule of denial applies to. They match by name:
            `localhost:3000` does not open `127.0.0.1:3000`.

    Raises:
        UserError: INVALID_CONFIG for an entry that is not `host:port`.
    """

    def __init__(
        self,
        own: OwnAddresses,
        *,
        resolver: Resolver,
        allow: Iterable[str] = (),
        table: AddressTable | None = None,
    ) -> None:
        self._own = own
        self._resolver = resolver
        self._allow = frozenset(_parse_allowed(entry) for entry in allow)
        self._table = table or AddressTable()

    async def decide(self, raw: bytes) -> Own | External | Denied:
        """Where a request goes, from the target on its request line. Resolves at most once."""
        try:
            target = parse_target(raw)
        except TargetError as error:
            return Denied(printable(raw), DeniedReason.MALFORMED, str(error))
        own = self._own
        if (target.scheme, target.port) == (own.scheme, own.port):
            platform = target.host in own.api_hosts
            if platform or own.under_suffix(target.host):
                return Own(target, platform)
        if (target.host, target.port) in self._allow:
            return await self._resolve(target, checked=False)
        return self._refuse_unresolved(target) or await self._resolve(target, checked=True)

    def _refuse_unresolved(self, target: Target) -> Denied | None:
        """What can be said without asking a resolver."""
        own = self._own
        if own.under_suffix(target.host):
            hint = f"this server's functions and objects are at {own.scheme}, port {own.port}"
            message = f"{target.origin} is not where this server is"
            return Denied(target.origin, DeniedReason.NAME, message, hint)
        service = _PORTS_REFUSED.get(target.port)
        if service is not None:
            message = f"port {target.port} ({service}) is closed to functions"
            return _denied(target, DeniedReason.PORT, message)
        local = f".{target.host}".endswith(_NAMES_REFUSED) or "." not in target.host
        if local and target.address is None:
            message = f"{target.host} is a name of the local network"
            return _denied(target, DeniedReason.NAME, message)
        return None

    async def _resolve(self, target: Target, *, checked: bool) -> External | Denied:
        """Pin a target to its addresses; one objectionable answer among them denies it."""
        literal = target.address
        if literal is not None:
            answers: Sequence[str] = (str(literal),)
        elif f".{target.host}".endswith(".localhost"):
            answers = ("127.0.0.1", "::1")  # RFC 6761: never a question for a resolver
        else:
            try:
                answers = await self._resolver.resolve(target.host + "." * checked)
            except ResolveError as error:
                return Denied(target.origin, DeniedReason.UNRESOLVED, str(error))
        if not 1 <= len(answers) <= limits.EGRESS_ANSWERS.value:
            message = f"{target.host} has {len(answers)} addresses"
            return Denied(target.origin, DeniedReason.UNRESOLVED, message)
        pinned: list[str] = []
        for answer in answers:
            address = ip_address(answer)
            if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
                address = address.ipv4_mapped
            objection = self._table.objection(address) if checked else None
            if objection is not None:
                via = "" if literal is not None else f"{target.host} resolves to "
                message = f"{via}{address}, which is {objection}"
                return _denied(target, DeniedReason.ADDRESS, message)
            pinned.append(str(address))
        return External(target, tuple(dict.fromkeys(pinned)))


def _parse_allowed(entry: str) -> tuple[str, int]:
    """`host:port` of the allow list, normalised."""
    host, _, port = entry.rpartition(":")
    try:
        if not (host and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            raise TargetError("it is not HOST:PORT")
        if host.startswith("[") != host.endswith("]") or (":" in host and host[0] != "["):
            raise TargetError("an IPv6 address stands in brackets")
        return canonical_host(host), int(port)
    except TargetError as error:
        raise UserError(
            UserCode.INVALID_CONFIG,
            f"{entry!r} cannot be allowed for egress: {error}",
            hint="write HOST:PORT, for example localhost:3000 or [::1]:3000",
        ) from error


def _denied(target: Target, reason: DeniedReason, message: str) -> Denied:
    """A refusal that the person at the keyboard can lift."""
    at = f"{target.host}:{target.port}"
    hint = f'to allow it: [egress] allow = ["{at}"] in amba.toml, or --allow-egress {at}'
    return Denied(target.origin, reason, message, hint)

"""What a function may reach: the decision on every `fetch()` it makes. No sockets here.

A target is one of three things: an address of our own (answered by our app in process), an
external host with the addresses it was resolved to, once (connect to these), or denied.
The table of denied addresses is our own: `ipaddress.is_global` passes multicast, NAT64, 6to4
and more. Source: reliability.md section 5, section 3.G and measurement B9.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Protocol

from amba_runtime import limits
from amba_runtime.addresses import DENIED_NETWORKS, AddressTable
from amba_runtime.errors import UserCode, UserError
from amba_runtime.targets import (
    Target,
    TargetError,
    canonical_host,
    default_port,
    parse_target,
    printable,
)

if TYPE_CHECKING:
    from amba_runtime.egress_rules import EgressRules

__all__ = [
    "DENIED_NETWORKS",
    "AddressTable",
    "Denied",
    "DeniedReason",
    "EgressPolicy",
    "External",
    "Own",
    "OwnAddresses",
    "ResolveError",
    "Resolver",
    "Target",
    "TargetError",
    "canonical_host",
    "default_port",
    "parse_target",
    "printable",
]

_PORTS = frozenset(
    {*(80, 8080, 8880, 2052, 2082, 2086, 2095), *(443, 8443, 2053, 2083, 2087, 2096)}
)
"""Where web servers are, and hardly anything that takes HTTP for orders of its own.

Source: reliability.md row G8; Cloudflare's network ports compatible with its proxy.
"""
_NAMES_REFUSED = (".local", ".internal", ".home.arpa", ".localhost")
_NAMES_OF_ALL = frozenset({"localhost"})
"""Names of our own in dev that are anybody's on this machine."""


class DeniedReason(StrEnum):
    """Why a request went nowhere; the last two are the world's doing, the others policy."""

    MALFORMED = "malformed"
    PORT = "port"
    NAME = "name"
    ADDRESS = "address"
    NOT_LISTED = "not_listed"
    UNFIT_SECRET = "unfit_secret"  # noqa: S105  a word, not a password
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
class Own:
    """An address of this server.

    Attributes:
        platform: the bare host's: the API and AI, and functions under `/fn/`; else functions'
            own hosts and the CDN's.
        function: a function answers there, if any does.
    """

    target: Target
    platform: bool
    function: bool = False


@dataclass(frozen=True, slots=True)
class External:
    """A host on the network: connect to one of `addresses` (IP literals), to nothing else.

    Attributes:
        opened: an entry of the allow list lets it through, whatever its addresses are.
    """

    target: Target
    addresses: tuple[str, ...]
    opened: bool = False

    @property
    def loopback(self) -> bool:
        """It is this machine, and nothing else is."""
        return all(ip_address(address).is_loopback for address in self.addresses)


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

    def function_at(self, target: Target) -> bool:
        """A request there is one to a function, on its own host or under `/fn/` (ours)."""
        if target.host in self.api_hosts:
            return target.path.startswith(b"/fn/")
        return f".{target.host}".endswith(f".{self.suffix}")


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

    def asking(self, resolver: Resolver) -> EgressPolicy:
        """The same policy with another resolver: one project's own, and its bounds."""
        other = copy(self)
        other._resolver = resolver
        return other

    async def decide(self, raw: bytes, rules: EgressRules | None = None) -> Own | External | Denied:
        """Where a request goes, from the target on its request line. Resolves at most once.

        Args:
            rules: of the function that asks; they narrow what external hosts it may reach.
        """
        try:
            target = parse_target(raw)
        except TargetError as error:
            return Denied(printable(raw), DeniedReason.MALFORMED, str(error))
        own = self._own
        if (target.scheme, target.port) == (own.scheme, own.port):
            platform = target.host in own.api_hosts
            if platform or own.under_suffix(target.host):
                return Own(target, platform, own.function_at(target))
        if rules is not None and not rules.permit(target):
            return _not_listed(target)
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
        if target.address is None and target.host in own.api_hosts - _NAMES_OF_ALL:
            message = f"{target.origin} is this server's name, at another scheme or port"
            return _denied(target, DeniedReason.NAME, message)
        address = target.address
        local = f".{target.host}".endswith(_NAMES_REFUSED) or "." not in target.host
        if local and address is None:
            message = f"{target.host} is a name of the local network"
            return _denied(target, DeniedReason.NAME, message)
        fits = address is None or self._table.objection(address) is None  # else told as that
        if fits and target.port not in _PORTS:
            message = f"port {target.port} is closed to functions"
            return _denied(target, DeniedReason.PORT, message)
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
        return External(target, tuple(dict.fromkeys(pinned)), opened=not checked)


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


def _not_listed(target: Target) -> Denied:
    """Refused by the function's own allowlist, before any question to a resolver."""
    port = "" if default_port(target.scheme) == target.port else f":{target.port}"
    listed = f"{target.host}{port}"
    return Denied(
        target.origin,
        DeniedReason.NOT_LISTED,
        f"{listed} is not on this function's own allowlist",
        f'to allow it: add "{listed}" to only of its [functions.NAME.egress] in amba.toml',
    )

"""One strict parser: Host header -> which plane, which project, or a refusal.

Nothing else reads a Host. What is passed on is rebuilt from `Site.authority`, never the text
that came in. Source: interface.md section 1; reliability.md 3.B row B10 and finding 4.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import AddressValueError, IPv6Address

from amba_runtime import limits

logger = logging.getLogger("amba.web")


class Plane(Enum):
    """Who answers."""

    FUNCTIONS = "functions"  # {slug}.fn.localhost
    CDN = "cdn"  # {slug}.cdn.localhost
    PLATFORM = "platform"  # 127.0.0.1, localhost, [::1], the public URL's host
    MALFORMED = "malformed"  # 400 BAD_HOST
    FOREIGN = "foreign"  # well-formed, not ours: 421


@dataclass(frozen=True, slots=True)
class Site:
    """A host as understood.

    Attributes:
        slug: the project's label; "" on planes without one.
        authority: host and port, normalised: lower case, no trailing dot, the caller's port.
    """

    plane: Plane
    slug: str = ""
    authority: bytes = b""


_MALFORMED = Site(Plane.MALFORMED)
_HOST = re.compile(
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}))*"
    r"|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?P<dot>\.)?(?::(?P<port>[1-9][0-9]{0,4}))?\Z"
)
_HOST_CHARACTERS_MAX = 253 + 1 + 6


class Hosts:
    """The addresses of one server. Immutable once made.

    Args:
        suffix: what follows a project's slug, such as `fn.localhost`.
        cdn_suffix: the same for STORAGE objects.
        platform: bare hosts, lower-case, without port, that carry the platform API.
    """

    def __init__(self, *, suffix: str, cdn_suffix: str, platform: frozenset[str]) -> None:
        self.suffix = suffix
        self.cdn_suffix = cdn_suffix
        self.platform = platform
        self._seen: dict[bytes, Site] = {}
        self._told = 0

    def parse(self, host: bytes | None) -> Site:
        """Read one Host header value; None or b"" (absent) is malformed.

        A flood of hosts costs no memory: `limits.HOSTS_SEEN` spellings are remembered.
        """
        if host is None:
            return _MALFORMED
        site = self._seen.get(host)
        if site is None:
            site = self._parse(host)
            if site.plane is Plane.FOREIGN:
                self._tell(site)
            if len(self._seen) < limits.HOSTS_SEEN.value:
                self._seen[host] = site
        return site

    def _tell(self, site: Site) -> None:
        """Say the first few: the caller, who may be a page of another site, is not told more."""
        if self._told < limits.FOREIGN_HOSTS_TOLD.value:
            self._told += 1
            logger.warning(
                "a request for %s was refused (421): this server answers for *.%s and for %s",
                site.authority.decode("ascii"),
                self.suffix,
                ", ".join(sorted(self.platform)),
            )

    def _parse(self, raw: bytes) -> Site:
        if len(raw) > _HOST_CHARACTERS_MAX or not raw.isascii():
            return _MALFORMED
        match = _HOST.match(raw.decode("ascii"))
        if match is None:
            return _MALFORMED
        host = match["host"].lower()
        port = match["port"]
        if (match["dot"] and host[0] == "[") or (port and int(port) > 65535) or len(host) > 253:
            return _MALFORMED
        if host[0] == "[":
            if not _is_ipv6(host[1:-1]):
                return _MALFORMED
        elif any(len(label) > 63 for label in host.split(".")):
            return _MALFORMED
        authority = (f"{host}:{port}" if port else host).encode()
        if host in self.platform:
            return Site(Plane.PLATFORM, "", authority)
        label, _, rest = host.partition(".")
        if rest == self.suffix:
            return Site(Plane.FUNCTIONS, label, authority)
        if rest == self.cdn_suffix:
            return Site(Plane.CDN, label, authority)
        return Site(Plane.FOREIGN, "", authority)


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True

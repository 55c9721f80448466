"""By which names and ports a server is reached, and how it names itself to others.

Source: interface.md section 1; contract A.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import SplitResult, quote, urlsplit

from amba_router.hosts import Hosts
from amba_run.serve import own_addresses
from amba_runtime.egress import OwnAddresses

SUFFIX = "fn.localhost"
CDN_SUFFIX = "cdn.localhost"
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Addresses:
    """How a server is reached from outside. Source: interface.md section 1.

    Attributes:
        suffix, cdn_suffix: what follows a project's slug, lower case.
        public_url: origin of the platform API, `https://api.example.com`, lower case, without
            path; it gives `fn_url` its scheme and port. None is what is listened on.
    """

    suffix: str = SUFFIX
    cdn_suffix: str = CDN_SUFFIX
    public_url: str | None = None


@dataclass(frozen=True, slots=True)
class Reach:
    """One server that listens: what it is called, and what others call it. Made by `of`.

    Attributes:
        origin: of the listener, `http://127.0.0.1:PORT`.
        names: the bare hosts by which callers may ask for the platform.
    """

    addresses: Addresses
    origin: str
    names: frozenset[str]

    @classmethod
    def of(cls, addresses: Addresses, host: str, port: int) -> Reach:
        """Of a listener on that host; `port` is what it was given, never 0."""
        shown, names = _named_by(host)
        reach = cls(addresses, f"http://{shown}:{port}", names)
        return replace(reach, names=names | {_host_of(reach._public)})

    @property
    def _public(self) -> SplitResult:
        return urlsplit(self.api_url)

    @property
    def api_url(self) -> str:
        """`AMBA_API_URL`: the public URL's origin, else our own."""
        return self.addresses.public_url or self.origin

    def fn_url(self, slug: str, name: str) -> str:
        """Where a function answers, as it works when pasted. Source: contract A.1."""
        return f"{self._public.scheme}://{self._authority(slug, self.addresses.suffix)}/{name}"

    def cdn_host(self, slug: str) -> str:
        """Where a project's public objects are, with the port if it has to be said."""
        return self._authority(slug, self.addresses.cdn_suffix)

    def cdn_url(self, slug: str, key: str) -> str:
        """Where an object is served. Source: contract E.7."""
        return f"{self._public.scheme}://{self.cdn_host(slug)}/{quote(key, safe='/')}"

    def _authority(self, slug: str, suffix: str) -> str:
        port = self._public.port
        return f"{slug}.{suffix}" if port is None else f"{slug}.{suffix}:{port}"

    def hosts(self) -> Hosts:
        """What the dispatcher answers for."""
        addresses = self.addresses
        return Hosts(suffix=addresses.suffix, cdn_suffix=addresses.cdn_suffix, platform=self.names)

    def own(self) -> OwnAddresses:
        """What functions reach without leaving the server."""
        public = self._public
        return OwnAddresses(
            port=public.port or _DEFAULT_PORTS[public.scheme],
            suffix=self.addresses.suffix,
            cdn_suffix=self.addresses.cdn_suffix,
            api_hosts=self.names,
            scheme=public.scheme,
        )


def listener_hosts(host: str) -> Hosts:
    """What a listener with nothing but a bare host answers for: metrics."""
    return Hosts(suffix=SUFFIX, cdn_suffix=CDN_SUFFIX, platform=_named_by(host)[1])


def _named_by(host: str) -> tuple[str, frozenset[str]]:
    """How a listener's host is shown, and the names by which callers may ask for it."""
    shown = f"[{host}]" if ":" in host else host.lower()
    everywhere = host in ("0.0.0.0", "::")  # noqa: S104  a comparison, not a bind
    if everywhere or host == "localhost":
        shown = "127.0.0.1"
    names = LOOPBACK_NAMES | {shown}
    return shown, names | own_addresses() if everywhere else names


def _host_of(url: SplitResult) -> str:
    host = url.hostname or ""
    return f"[{host}]" if ":" in host else host

"""Whose word on a caller's address counts: proxies in front of us, by their own addresses.

Source: interface.md section 1 (`--trust-proxy`); contract H-3, D.8.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence

from amba_router.asgi import App, Receive, Scope, Send
from amba_router.relay import Whole
from amba_runtime.errors import UserCode, UserError

_HEADER = b"x-forwarded-for"
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxies:
    """Networks whose members may say for whom they ask.

    Args:
        networks: CIDR texts, such as `10.0.0.0/8`; a bare address is a network of one.

    Raises:
        UserError: INVALID_CONFIG.
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [_network(text) for text in networks]

    def trusts(self, address: Address) -> bool:
        """The address is a proxy's."""
        return any(address in network for network in self._networks)

    def caller(self, peer: str, fields: Sequence[tuple[bytes, bytes]]) -> str:
        """Whom the peer asks for: the last address in `X-Forwarded-For` that is no proxy's.

        The header is read from its end, and only as far as those who wrote it are trusted. The
        peer itself where it is not, or where what it says is no address.
        """
        here = _address(peer)
        if here is None or not self.trusts(here):
            return peer
        found = here
        said = b",".join(value for name, value in fields if name.lower() == _HEADER)
        for part in reversed(said.split(b",")):
            address = _address(part.decode("latin-1").strip())
            if address is None:
                break
            found = address
            if not self.trusts(address):
                break
        return str(found)


class BehindProxies:
    """An ASGI app in front of another: `scope["client"]` becomes the caller, not the proxy."""

    def __init__(self, app: App, proxies: Proxies) -> None:
        self._app = app
        self._proxies = proxies
        self._offer = getattr(app, "offer", None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        self._name(scope)
        await self._app(scope, receive, send)

    def offer(self, scope: Scope, whole: Whole, promote: Callable[[App], None]) -> bool:
        """The short way of the app behind: see `Dispatcher.offer`."""
        if self._offer is None:
            return False
        self._name(scope)
        taken: bool = self._offer(scope, whole, promote)
        return taken

    def _name(self, scope: Scope) -> None:
        client = scope.get("client")
        if client and "amba.peer" not in scope:
            scope["amba.peer"] = client[0]
            scope["client"] = (self._proxies.caller(client[0], scope["headers"]), client[1])


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise UserError(
            UserCode.INVALID_CONFIG,
            f"--trust-proxy {text[:60]!r} is no network: {error}",
            hint="such as --trust-proxy 10.0.0.0/8",
        ) from error


def _address(text: str) -> Address | None:
    """An address as proxies write it: IPv6 perhaps in brackets, perhaps with a port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address

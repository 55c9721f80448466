"""The addresses that no function may reach, and how an address is judged. No I/O.

The table is our own: `ipaddress.is_global` passes multicast, NAT64, 6to4 and more.
Source: reliability.md section 3.G, measurement B9.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address

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


class AddressTable:
    """The addresses no function may reach.

    Args:
        denied: CIDR text and the class it is, both families.
        own: further networks: the operator's ranges and NAT64 prefix.
        machine: asked at each question for the addresses that this machine has at that time.
    """

    def __init__(
        self,
        denied: Iterable[tuple[str, str]] = DENIED_NETWORKS,
        *,
        own: Iterable[str] = (),
        machine: Callable[[], Collection[Address]] = tuple,
    ) -> None:
        self._machine = machine
        self._v4: list[tuple[IPv4Network, str]] = []
        self._v6: list[tuple[IPv6Network, str]] = []
        for text, kind in (*denied, *((text, "this node's own") for text in own)):
            network = ip_network(text)
            if isinstance(network, IPv4Network):
                self._v4.append((network, kind))
            else:
                self._v6.append((network, kind))

    def objection(self, address: Address) -> str | None:
        """Why this address is denied, such as `loopback (127.0.0.0/8)`; None when it is not."""
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        by_table = self._in_table(address)
        if by_table is None and address in self._machine():
            return "an address of this machine"
        return by_table

    def _in_table(self, address: Address) -> str | None:
        if isinstance(address, IPv6Address):
            if int(address) >> 32 & 0xFFFF_FFFF in _ISATAP:
                return "ISATAP"
            return next((f"{kind} ({n})" for n, kind in self._v6 if address in n), None)
        return next((f"{kind} ({n})" for n, kind in self._v4 if address in n), None)

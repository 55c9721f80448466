"""The table of denied addresses, and those that the machine has by itself."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from amba_runtime.addresses import DENIED_NETWORKS, AddressTable

PUBLIC = ip_address("93.184.215.14")


@pytest.mark.parametrize(("text", "kind"), DENIED_NETWORKS)
def test_a_network_is_denied_to_its_last_address(text: str, kind: str) -> None:
    """First, middle and last are inside; the reason is some row's class (rows G1, G3)."""
    network = ip_network(text)
    first, last = int(network.network_address), int(network.broadcast_address)
    make = IPv4Address if network.version == 4 else IPv6Address
    for number in (first, (first + last) // 2, last):
        assert AddressTable().objection(make(number)) is not None
    alone = AddressTable([(text, kind)])
    assert alone.objection(make(first)) == f"{kind} ({text})"
    for number in (first - 1, last + 1):
        if 0 <= number < 1 << make(0).max_prefixlen:
            assert alone.objection(make(number)) is None


def test_this_machines_addresses_are_denied_as_they_change() -> None:
    """A laptop's public IPv6 address is as much its own as loopback (reliability.md 5, 13)."""
    mine: set[IPv4Address | IPv6Address] = set()
    table = AddressTable(machine=lambda: mine)
    home = IPv6Address("2606:2800:220:1::7")
    assert table.objection(home) is None
    mine.update({home, IPv4Address(PUBLIC)})
    assert table.objection(home) == "an address of this machine"
    assert table.objection(IPv6Address(f"::ffff:{PUBLIC}")) == "an address of this machine"
    assert table.objection(IPv4Address("127.0.0.1")) == "loopback (127.0.0.0/8)"
    mine.clear()
    assert table.objection(home) is None


@pytest.mark.parametrize("half", ["5efe", "200:5efe"])
def test_an_address_that_embeds_another_is_denied_by_its_exact_mark(half: str) -> None:
    """ISATAP's interface ids and no others (RFC 5214 6.1)."""
    table = AddressTable()
    assert table.objection(IPv6Address(f"2606:4700::{half}:7f00:1")) == "ISATAP"
    for other in ("5eff", "5efd", "5ffe", "200:5eff", "100:5efe", "201:5efe", "300:5efe"):
        assert table.objection(IPv6Address(f"2606:4700::{other}:7f00:1")) is None


def test_the_operators_own_ranges_are_denied() -> None:
    """Such as the NAT64 prefix of its network (reliability.md 5, 4)."""
    table = AddressTable(own=["93.184.215.0/24"])
    assert table.objection(PUBLIC) == "this node's own (93.184.215.0/24)"

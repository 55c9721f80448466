"""This machine's own addresses, as they are now."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from amba_run.machine import MachineAddresses
from amba_run.serve import own_addresses
from amba_runtime import limits
from amba_runtime.clock import ManualClock


def test_they_are_those_of_the_interfaces() -> None:
    """Loopback among them, as the system gives them (reliability.md 5, 13)."""
    known = MachineAddresses(ManualClock())()
    assert ip_address("127.0.0.1") in known
    assert {str(address) for address in known} == {a.strip("[]") for a in own_addresses()}


def test_they_are_asked_for_anew_after_a_moment() -> None:
    """A laptop moves between networks while a server runs; a system that does not say changes
    nothing."""
    clock = ManualClock()
    now = [frozenset({"192.0.2.1"})]

    def asked() -> frozenset[str]:
        if not now:
            raise OSError("no interfaces")
        return now[0]

    known = MachineAddresses(clock, asked)
    assert known() == {ip_address("192.0.2.1")}
    now[0] = frozenset({"[2001:db8::1]"})
    assert known() == {ip_address("192.0.2.1")}
    asyncio.run(clock.advance(limits.OWN_ADDRESSES_S.value))
    assert known() == {ip_address("2001:db8::1")}
    now.clear()
    asyncio.run(clock.advance(limits.OWN_ADDRESSES_S.value))
    assert known() == {ip_address("2001:db8::1")}

"""The addresses that this machine has, as they change: on none of them a function finds a server.

A laptop has public IPv6 addresses more often than not, and what listens on all of them.
Source: reliability.md section 5, 13.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from ipaddress import ip_address

from amba_run.serve import own_addresses
from amba_runtime import limits
from amba_runtime.addresses import Address
from amba_runtime.clock import Clock

logger = logging.getLogger("amba.egress")


class MachineAddresses:
    """Asks the system anew when the last answer is old; costs nothing until the first question."""

    def __init__(self, clock: Clock, ask: Callable[[], Collection[str]] = own_addresses) -> None:
        self._clock = clock
        self._ask = ask
        self._until_s = float("-inf")
        self._known: frozenset[Address] = frozenset()

    def __call__(self) -> Collection[Address]:
        """As of a moment ago; what was known before, where the system does not say."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._until_s:
            self._until_s = now_s + limits.OWN_ADDRESSES_S.value
            try:
                self._known = frozenset(ip_address(text.strip("[]")) for text in self._ask())
            except (OSError, ValueError):
                logger.exception("this machine's own addresses cannot be read")
        return self._known

"""What functions may reach, as a configuration file says it. Source: interface.md section 4."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .config_shapes import Shapes
from .config_values import EgressTarget
from .problems import KeyPath

if TYPE_CHECKING:
    from amba_runtime.egress_rules import EgressRules

_ELSEWHERE = {"allow": "what all functions may reach besides stands in [egress] allow"}

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_TARGET = re.compile(rf"({_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]{{2,45}}\]):([0-9]{{1,5}})\Z")


class EgressReader(Shapes):
    """`[egress]`, and `egress` of a function."""

    def egress(self, path: KeyPath, value: object) -> tuple[EgressTarget, ...]:
        table = self.table(path, value, ("allow",))
        return self.take(table, path, "allow", lambda p, v: self.array(p, v, self.target), ())

    def egress_rules(self, path: KeyPath, value: object) -> EgressRules | None:
        from amba_runtime.egress_rules import EgressRules, RuleError

        table = self.table(path, value, ("only", "secrets"), _ELSEWHERE)
        try:
            return EgressRules.of(table)
        except RuleError as error:
            self.note((*path, *error.path), str(error))
            return None

    def target(self, path: KeyPath, value: object) -> EgressTarget | None:
        match = _TARGET.match(value) if isinstance(value, str) and len(value) <= 260 else None
        if match is None or not 1 <= int(match[2]) <= 65535 or not _address_holds(match[1]):
            self.wrong(path, 'HOST:PORT such as "localhost:5432" or "[::1]:8080"', value)
            return None
        return EgressTarget(match[1].lower().strip("[]"), int(match[2]))


def _address_holds(host: str) -> bool:
    """False for brackets, or four dotted numbers, around what is no IP address."""
    if not host.startswith("[") and re.fullmatch(r"[0-9.]+", host) is None:
        return len(host) <= 253
    import ipaddress  # only such targets pay for it: start-up time counts

    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return (address.version == 6) == host.startswith("[")

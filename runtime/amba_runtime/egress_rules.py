"""What one function may reach at most, and which of its secrets it never holds itself.

Both only narrow what `egress` decides: no rule here opens a denied address. The same words in
`amba.toml` (`[functions.NAME.egress]`), in an upload's metadata and in the store.
Source: reliability.md 3.G rows G13 and G14; threat T12.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from amba_runtime import limits
from amba_runtime.bindings.secrets import check_secret_name
from amba_runtime.targets import Target, TargetError, canonical_host, default_port

_RULE = re.compile(r"(\*\.)?(\[[0-9A-Fa-f:.]{2,45}\]|[^:\[\]/@*\s]+)(?::([0-9]{1,5}))?\Z")
HOW = 'write a host such as "api.stripe.com", "*.example.com" or "api.example.com:8443"'


class RuleError(ValueError):
    """A rule that is not exactly right.

    Attributes:
        path: where, below the table of rules, such as `("secrets", "STRIPE_KEY", 0)`.
    """

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True, slots=True)
class HostRule:
    """One host, or every name below one.

    Attributes:
        host: in its one spelling (`egress.canonical_host`).
        below: written `*.host`: names below it, itself not.
        port: None is the port of the scheme, 80 or 443, and no other.
    """

    host: str
    below: bool = False
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> HostRule:
        """Read one as it is written.

        Raises:
            ValueError: it is none; the message says why.
        """
        if not text.isascii():
            raise ValueError("a name in other letters is written in its xn-- form")
        match = _RULE.match(text)
        if match is None:
            raise ValueError("it is no host, and no host with a port")
        host = canonical_host(match[2])
        below = match[1] is not None
        if below and Target("https", host, 443, b"/").address is not None:
            raise ValueError("there are no names below an address")
        port = int(match[3]) if match[3] else None
        if port is not None and not 1 <= port <= 65535:
            raise ValueError(f"{port} is no port")
        return cls(host, below, port)

    def matches(self, target: Target) -> bool:
        """Whether a request there is meant by this rule."""
        wanted = default_port(target.scheme) if self.port is None else self.port
        if target.port != wanted:
            return False
        if self.below:
            return target.address is None and target.host.endswith(f".{self.host}")
        return target.host == self.host

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"{'*.' * self.below}{self.host}{port}"


@dataclass(frozen=True, slots=True)
class EgressRules:
    """The rules of one function. Those of most functions are `NO_RULES`.

    Attributes:
        only: what it may reach besides our own addresses; None is whatever egress lets through.
        secrets: names, and the hosts that are given the value itself; `env` holds a placeholder.
    """

    only: tuple[HostRule, ...] | None = None
    secrets: tuple[tuple[str, tuple[HostRule, ...]], ...] = ()

    @classmethod
    def of(cls, value: object) -> EgressRules:
        """Read them from JSON or TOML: `{"only": [...], "secrets": {NAME: [...]}}`.

        Raises:
            RuleError: the first thing that is wrong.
        """
        if not isinstance(value, dict):
            raise RuleError((), "expected a table with only and secrets")
        table = cast(dict[str, object], value)
        for name in table:
            if name not in ("only", "secrets"):
                raise RuleError((str(name)[:64],), "unknown key; known are only, secrets")
        only = table.get("only")
        return cls(
            None if only is None else _hosts(("only",), only),
            _secrets(table.get("secrets")),
        )

    def wire(self) -> dict[str, Any]:
        """As `of` reads it; {} where nothing is ruled."""
        told: dict[str, Any] = {}
        if self.only is not None:
            told["only"] = [str(rule) for rule in self.only]
        if self.secrets:
            told["secrets"] = {name: [str(rule) for rule in hosts] for name, hosts in self.secrets}
        return told

    def permit(self, target: Target) -> bool:
        """Whether an external target is within the allowlist."""
        return self.only is None or any(rule.matches(target) for rule in self.only)


NO_RULES = EgressRules()


def _secrets(value: object) -> tuple[tuple[str, tuple[HostRule, ...]], ...]:
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise RuleError(("secrets",), "expected a table with one list of hosts per secret")
    table = cast(dict[str, object], value)
    most = limits.EGRESS_SECRETS.value
    if len(table) > most:
        raise RuleError(("secrets",), f"at most {most} secrets")
    read: list[tuple[str, tuple[HostRule, ...]]] = []
    for name, hosts in table.items():
        path = ("secrets", str(name)[:64])
        fault = check_secret_name(str(name))
        if fault is not None:
            raise RuleError(path, f"is the name of no secret: {fault.message}")
        rules = _hosts(path, hosts)
        if not rules:
            raise RuleError(path, f"no host is given the secret: {HOW}")
        read.append((name, rules))
    return tuple(read)


def _hosts(path: tuple[str | int, ...], value: object) -> tuple[HostRule, ...]:
    most = limits.EGRESS_RULES.value
    if not isinstance(value, list):
        raise RuleError(path, "expected an array of hosts")
    entries = cast(Sequence[object], value)
    if len(entries) > most:
        raise RuleError(path, f"at most {most} hosts")
    rules: list[HostRule] = []
    for index, entry in enumerate(entries):
        here = (*path, index)
        if not isinstance(entry, str):
            raise RuleError(here, f"is no host: {HOW}")
        try:
            rules.append(HostRule.parse(entry))
        except (ValueError, TargetError) as error:
            shown = entry[:80].encode("ascii", "backslashreplace").decode()
            raise RuleError(here, f"{shown!r} is no host: {error}; {HOW}") from error
    return tuple(dict.fromkeys(rules))

"""Secrets that a function uses and never holds: `env` has a placeholder, and egress the value.

The value is put into headers of requests to the hosts named for it, and only there. Code that
reads `env`, a dependency's included, learns nothing that is worth sending elsewhere.
Source: reliability.md row G14; threat T12.
"""

from __future__ import annotations

from amba_runtime import entropy, limits
from amba_runtime.egress import External
from amba_runtime.egress_rules import EgressRules
from amba_runtime.manifest import Bundle
from amba_runtime.room import Env, Kept
from amba_runtime.secret import SecretText
from amba_runtime.wire import Headers

_PREFIX = b"amba_placeholder_"
_SHORTEST = 8
"""Bytes of a value from which it is looked for in answers: a shorter one stands in any text."""


Used = list[tuple[bytes, bytes]]
"""Values that were put into a request, each with its placeholder."""


class UnfitSecretError(ValueError):
    """A secret that cannot stand in a header; the message names it, and not its value."""


class Placeholders:
    """The values kept back from one version's isolates; lives as long as its egress.

    `_values` is changed by `mask` alone.
    """

    def __init__(self, rules: EgressRules) -> None:
        self._hosts = dict(rules.secrets)
        self._given = {name: f"{_PREFIX.decode()}{entropy.mark()}" for name in self._hosts}
        self._values: dict[str, SecretText] = {}

    def __bool__(self) -> bool:
        return bool(self._hosts)

    def mask(self, env: Env) -> Env:
        """The same bindings, placeholders in the place of values that are kept here."""
        masked: list[tuple[str, str]] = []
        for name, value in env:
            given = self._given.get(name)
            if given is not None:
                self._values[name] = SecretText(value)
                value = given
            masked.append((name, value))
        return tuple(masked)

    def kept(self, kept: Kept) -> Kept:
        """Content as it is kept, its env masked."""
        return _Masked(kept, self) if self else kept

    def fill(self, fields: Headers, external: External) -> Used:
        """Put values where their placeholders stand, in place, as far as this host is given them.

        Returns:
            (value, placeholder) of each that was put in, for `conceal`.

        Raises:
            UnfitSecretError: a value holds a control character, or is too long for a header.
        """
        used: Used = []
        if not any(_PREFIX in value for _, value in fields) or not _fit(external):
            return used
        for name, hosts in self._hosts.items():
            value = self._values.get(name)
            if value is None or not any(rule.matches(external.target) for rule in hosts):
                continue
            placeholder = self._given[name].encode()
            for at, (field, text) in enumerate(fields):
                if placeholder in text:
                    raw = _raw(name, value)
                    fields[at] = (field, text.replace(placeholder, raw))
                    used.append((raw, placeholder))
        return list(dict.fromkeys(used))


def conceal(text: bytes, used: Used) -> bytes:
    """Take values out again from what a host sends back."""
    for value, placeholder in used:
        if len(value) >= _SHORTEST:
            text = text.replace(value, placeholder)
    return text


class Concealing:
    """The same for a body that comes in pieces: what may be the beginning of a value is held."""

    def __init__(self, used: Used) -> None:
        self._used = [pair for pair in used if len(pair[0]) >= _SHORTEST]
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may go on, of all that came so far."""
        text = conceal(self._held + data, self._used)
        keep = max((_overlap(text, value) for value, _ in self._used), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> bytes:
        """The rest."""
        held, self._held = self._held, b""
        return held


class _Masked:
    """A `Kept` whose values stay outside."""

    def __init__(self, kept: Kept, placeholders: Placeholders) -> None:
        self._kept = kept
        self._placeholders = placeholders

    async def bundle(self) -> Bundle:
        return await self._kept.bundle()

    async def env(self) -> Env:
        return self._placeholders.mask(await self._kept.env())


def _fit(external: External) -> bool:
    """Encrypted, or a server of this machine that was opened by name."""
    return external.target.scheme == "https" or (external.opened and external.loopback)


def _raw(name: str, value: SecretText) -> bytes:
    text = value.reveal()
    raw = text.encode("utf-8", "surrogatepass")
    most = limits.EGRESS_SECRET_BYTES.value
    if len(raw) > most:
        raise UnfitSecretError(
            f"the secret {name} has more than the {most} bytes that a header takes"
        )
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise UnfitSecretError(
            f"the secret {name} holds a control character: no header can carry it"
        )
    return raw


def _overlap(text: bytes, value: bytes) -> int:
    """How many bytes at the end of `text` are the beginning of `value`, all of it excepted."""
    at = text.find(value[:1], max(0, len(text) - len(value) + 1))
    while at >= 0:
        if value.startswith(text[at:]):
            return len(text) - at
        at = text.find(value[:1], at + 1)
    return 0

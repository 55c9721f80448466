"""Custom secrets as bindings: which names and values the platform takes. Source: contract C.2."""

from __future__ import annotations

import re
from dataclasses import dataclass

from amba_runtime import limits
from amba_runtime.errors import UserCode

SECRET_NAME = re.compile(r"[A-Z][A-Z0-9_]*\Z")
RESERVED_PREFIXES = ("AMBA_", "EDGE_")
RESERVED_NAMES = frozenset({"STORAGE", "HYPERDRIVE", "EDGE_DB_PROXY"})


@dataclass(frozen=True, slots=True)
class SecretFault:
    """Why a secret is refused.

    Attributes:
        code: RESERVED_NAME for the platform's own names, else INVALID_NAME or INVALID_CONFIG.
        message: never holds the value, and holds the name only where it is a reserved one: in a
            broken file a piece of the value can stand where the name should.
        hint: what to do.
    """

    code: UserCode
    message: str
    hint: str


def check_secret_name(name: str) -> SecretFault | None:
    """The first broken rule of a secret's name, or None.

    Order: empty, too long, reserved prefix, reserved name, spelling.

    Source: contract C.2 (check order of SH); H-11 (64 characters, not 63).
    """
    longest = limits.SECRET_NAME_CHARS.value
    if not name:
        return SecretFault(UserCode.INVALID_NAME, "the name is empty", "write it as NAME=value")
    if len(name) > longest:
        return SecretFault(
            UserCode.INVALID_NAME,
            f"the name has {len(name)} characters, {longest} are allowed",
            "shorten the name",
        )
    for prefix in RESERVED_PREFIXES:
        if name.startswith(prefix):
            return SecretFault(
                UserCode.RESERVED_NAME,
                f"names that begin with {prefix} are reserved for the platform",
                f"rename it, for example by taking {prefix} off its front",
            )
    if name in RESERVED_NAMES:
        return SecretFault(
            UserCode.RESERVED_NAME,
            f"{name} is the name of a binding of the platform",
            f"rename it, for example to MY_{name}",
        )
    if SECRET_NAME.match(name) is None:
        return SecretFault(
            UserCode.INVALID_NAME,
            "the name is not a capital letter followed by capital letters, digits and _",
            "rename it to something like API_KEY",
        )
    return None


def check_secret_value(value: str) -> SecretFault | None:
    """The broken rule of a secret's value, or None: 64 KiB of UTF-8 at most. Source: C.2."""
    size = len(value.encode("utf-8", "surrogatepass"))
    largest = limits.SECRET_VALUE_BYTES.value
    if size > largest:
        return SecretFault(
            UserCode.INVALID_CONFIG,
            f"the value has {size} bytes, {largest} are allowed",
            "keep large data in STORAGE and its key in the secret",
        )
    return None

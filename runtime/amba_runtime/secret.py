"""A text that must not be printed: what holds a secret between its file and its use."""

from __future__ import annotations

import hmac
from typing import Any, Never

MASK = "***"


class SecretText:
    """A secret value, masked wherever it could leak by accident (repr, str, format, pickle).

    Immutable. The one way out is `reveal`, so that a reader can search for every use.
    """

    __slots__ = ("__value",)
    __value: str

    def __init__(self, value: str) -> None:
        object.__setattr__(self, "_SecretText__value", value)

    def reveal(self) -> str:
        """The value itself: for a binding, a MAC key or a credential, never for a message."""
        return self.__value

    def __repr__(self) -> str:
        return f"SecretText({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        """Equal values, compared in constant time; never equal to a plain `str`."""
        if not isinstance(other, SecretText):
            return NotImplemented
        return hmac.compare_digest(_raw(self.__value), _raw(other.__value))

    def __hash__(self) -> int:
        return hash((SecretText, self.__value))

    def __setattr__(self, name: str, value: object) -> Never:
        raise AttributeError("a SecretText does not change")

    def __copy__(self) -> SecretText:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SecretText:
        return self

    def __reduce__(self) -> Never:
        raise TypeError("a SecretText is not pickled: reveal it where it is used")


def _raw(value: str) -> bytes:
    # what came from the environment may hold undecodable bytes
    return value.encode("utf-8", "surrogatepass")

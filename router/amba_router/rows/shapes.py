"""What a decoded JSON value is, in words that type checkers follow."""

from __future__ import annotations

from typing import TypeGuard


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    """Whether it is a JSON object."""
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[list[object]]:
    """Whether it is a JSON array."""
    return isinstance(value, list)


def is_nested(value: object) -> bool:
    """Whether it is either."""
    return isinstance(value, dict | list)

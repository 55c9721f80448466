"""Functions of ours that SQL calls: letters beyond ASCII, and what lies inside of JSON.

All are deterministic; null gives null. JSON comes as text that we wrote ourselves.
Source: Postgres' meaning of ILIKE and of `@>`, `<@` and `&&` (contract E.5).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import lru_cache

import msgspec

from amba_router.services.collections.shapes import is_array, is_nested, is_object

_OPERANDS = 8
"""Right sides kept decoded per connection: a query asks of each row the same few."""


def register(connection: sqlite3.Connection) -> None:
    """Make them known to a new connection."""
    operand = lru_cache(_OPERANDS)(_decoded)

    def of_json(name: str, test: Callable[[object, object], bool]) -> None:
        def run(stored: str | None, wanted: str) -> int | None:
            return None if stored is None else int(test(_decoded(stored), operand(wanted)))

        connection.create_function(name, 2, run, deterministic=True)

    connection.create_function("amba_lower", 1, _lower, deterministic=True)
    of_json("amba_contains", contains)
    of_json("amba_contained", lambda stored, wanted: contains(wanted, stored))
    of_json("amba_overlaps", overlaps)
    of_json("amba_among", among)


def contains(outer: object, inner: object) -> bool:
    """Whether all of `inner` is found in `outer`, at the same place; order and repeats aside.

    An array contains a plain value that is one of its members, at the top alone.
    """
    if is_array(outer) and not is_nested(inner):
        return _key(inner) in _plain(outer)
    return _within(outer, inner)


def overlaps(stored: object, wanted: object) -> bool:
    """Whether two arrays have a member in common; what is no array is the one member of itself."""
    ours, theirs = _listed(stored), _listed(wanted)
    if not _plain(ours).isdisjoint(_plain(theirs)):
        return True
    nested = list(filter(is_nested, theirs))
    return any(among(member, nested) for member in filter(is_nested, ours))


def among(stored: object, wanted: object) -> bool:
    """Whether a value is one of an array's."""
    return any(same(stored, member) for member in _listed(wanted))


def same(one: object, other: object) -> bool:
    """Equal as jsonb: 1 is 1.0, true is not 1."""
    if is_object(one) and is_object(other):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if is_array(one) and is_array(other):
        return len(one) == len(other) and all(map(same, one, other))
    return not is_nested(one) and not is_nested(other) and _key(one) == _key(other)


def _within(outer: object, inner: object) -> bool:
    if is_object(outer) and is_object(inner):
        return all(name in outer and _within(outer[name], inner[name]) for name in inner)
    if is_array(outer) and is_array(inner):
        plain, nested = _plain(outer), list(filter(is_nested, outer))
        return all(
            any(_within(member, wanted) for member in nested)
            if is_nested(wanted)
            else _key(wanted) in plain
            for wanted in inner
        )
    return same(outer, inner)


def _plain(members: list[object]) -> set[tuple[str, object]]:
    return {_key(member) for member in members if not is_nested(member)}


def _key(value: object) -> tuple[str, object]:
    """Equal for equal plain values of JSON, whose types Python mixes up: True is 1."""
    return ("number" if type(value) in (int, float) else type(value).__name__, value)


def _listed(value: object) -> list[object]:
    return value if is_array(value) else [value]


def _decoded(text: str) -> object:
    return msgspec.json.decode(text)


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()

"""What a call asks of a collection's rows: filter, order, page, columns; and cursors.

Both spellings of the options are read: those of 0.1.x, from `?query=`, and those of 4.x.
Source: contract E.5 (query keys, option shapes, cursor); the fingerprint is ours.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from amba_router.api import faults
from amba_router.api.decoding import decode_json
from amba_router.api.faults import Refused
from amba_router.rows.columns import ARRAYS, Collection, Column, Stored
from amba_router.rows.filters import Filter, filter_of
from amba_router.rows.shapes import is_array, is_object
from amba_runtime import limits


@dataclass(frozen=True, slots=True)
class Order:
    """One column to order by."""

    column: Column
    descending: bool = False


@dataclass(frozen=True, slots=True)
class After:
    """Where a page begins: behind a row, by what the order's column held and its id."""

    value: Stored
    row_id: str


@dataclass(frozen=True, slots=True)
class Query:
    """A page that is asked for.

    Attributes:
        order: one column at least; the id decides between equals.
        offset: rows to skip; 0 where there is an `after`.
        select: names of columns to give, in order; none is all.
        fingerprint: of everything that a cursor must have in common with its query.
    """

    filter: Filter
    order: tuple[Order, ...]
    limit: int
    offset: int
    after: After | None
    select: tuple[str, ...]
    include_deleted: bool
    fingerprint: str


_KEYS = frozenset(
    {"where", "filter", "order", "limit", "offset", "cursor", "select"}
    | {"includeDeleted", "include_deleted", "paginate"}
)
_COUNT_KEYS = frozenset({"where", "filter", "includeDeleted", "include_deleted"})
_ORDER = re.compile(r"\s*([a-zA-Z_][a-zA-Z0-9_]*)(?:\s+(asc|desc))?\s*\Z", re.IGNORECASE)
_OFFSET_MAX = 2**53
_CURSOR = re.compile(r"[A-Za-z0-9_-]+={0,2}\Z")


class _Cursor(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """A cursor's JSON. Attributes: sum: over the others and the query."""

    order_column: str
    order_value: str | int | float | None
    id: str
    sum: str


def read_query(text: str | None) -> dict[str, object]:
    """The options in `?query=`; none where there is no such parameter.

    Raises:
        Refused: INVALID_QUERY, not a JSON object.
    """
    if not text:
        return {}
    return decode_json(
        text.encode(),
        dict[str, object],
        what="the query",
        not_json=faults.INVALID_QUERY,
        wrong=faults.INVALID_QUERY,
    )


def parse_query(
    collection: Collection, options: Mapping[str, object], *, scope: str = "", place: str = "$"
) -> Query:
    """Read the options of a find.

    A limit above the most is the most, as the platform's SDKs have it; `paginate` is the SDK's own.

    Args:
        scope: who asks, for whom a cursor is: a user's id, or "".

    Raises:
        Refused: INVALID_FILTER, INVALID_QUERY or INVALID_CURSOR, with the place.
    """
    known_keys(options, _KEYS, place)
    tree = filter_of(collection, options, place)
    order = _order(collection, options.get("order"), f"{place}.order")
    include_deleted = including_deleted(options, place)
    fingerprint = fingerprint_of(
        collection.id, scope, tree, [(o.column.name, o.descending) for o in order], include_deleted
    )
    usual, most = limits.COLLECTION_PAGE_USUAL.value, limits.COLLECTION_PAGE.value
    offset = whole(options, "offset", 0, least=0, place=place)
    if offset > _OFFSET_MAX:
        raise refuse(f"{place}.offset", f"{_OFFSET_MAX} is the most")
    after = None
    cursor = options.get("cursor")
    if cursor is not None:
        if options.get("offset") is not None:
            raise refuse(f"{place}.offset", "a cursor says where to go on; leave offset out")
        if order[1:]:
            raise faults.INVALID_CURSOR.refuse(
                "a cursor needs an order of one column; page by offset",
                {"field": f"{place}.cursor"},
            )
        after = read_cursor(cursor, order[0].column.name, fingerprint, place)
    return Query(
        filter=tree,
        order=order,
        limit=min(whole(options, "limit", usual, least=1, place=place), most),
        offset=offset,
        after=after,
        select=_select(collection, options.get("select"), f"{place}.select"),
        include_deleted=include_deleted,
        fingerprint=fingerprint,
    )


def parse_count(
    collection: Collection, options: Mapping[str, object], place: str = "$"
) -> tuple[Filter, bool]:
    """The filter of a count, and whether deleted rows count.

    Raises:
        Refused: INVALID_FILTER or INVALID_QUERY, with the place.
    """
    known_keys(options, _COUNT_KEYS, place)
    return filter_of(collection, options, place), including_deleted(options, place)


def next_cursor(query: Query, last: Mapping[str, Stored]) -> str | None:
    """The cursor of the page behind a row (in stored form); None where the order has several.

    Raises:
        Refused: INVALID_QUERY, see `write_cursor`; but an offset can go on without one.
    """
    if query.order[1:]:
        return None
    name = query.order[0].column.name
    try:
        return write_cursor(name, last[name], str(last["id"]), query.fingerprint)
    except Refused:
        if query.offset:
            return None
        raise


def write_cursor(column: str, value: Stored, row_id: str, fingerprint: str) -> str:
    """The cursor that goes on behind a row: base64url, without padding.

    Raises:
        Refused: INVALID_QUERY, where the value is too long a text to be carried.
    """
    if isinstance(value, str) and len(value.encode()) > limits.COLLECTION_CURSOR_TEXT.value:
        most = limits.COLLECTION_CURSOR_TEXT.value
        raise refuse(
            "$.order",
            f"{column} of row {row_id} is longer than the {most} bytes that a cursor carries; "
            "order by another column, or page by offset",
        )
    assert not isinstance(value, bytes)
    made = _Cursor(column, value, row_id, fingerprint_of(fingerprint, column, value, row_id))
    return _encoded(made)


def read_cursor(cursor: object, column: str, fingerprint: str, place: str = "$") -> After:
    """Where a page of this very query begins.

    The sum catches what is damaged or another query's; it guards nothing, as a cursor only says
    where in a caller's own rows to go on.

    Raises:
        Refused: INVALID_CURSOR.
    """
    read = _decoded(cursor)
    if (
        read is None
        or read.order_column != column
        or read.sum != fingerprint_of(fingerprint, column, read.order_value, read.id)
    ):
        raise faults.INVALID_CURSOR.refuse(
            "the cursor is not one of this query: send the next_cursor of its last page, with the "
            "same filter and order, or none to begin anew",
            {"field": f"{place}.cursor"},
        )
    return After(read.order_value, read.id)


def fingerprint_of(*of: object) -> str:
    """A sum over values whose representation says all of them, in hex digits."""
    return hashlib.blake2b(repr(of).encode(), digest_size=8).hexdigest()


def known_keys(options: Mapping[str, object], known: frozenset[str], place: str) -> None:
    """Refuse what is no option. Raises `Refused` INVALID_QUERY, NOT_EMULATED (`search`)."""
    unknown = sorted(options.keys() - known)
    if "search" in unknown:
        # the platform has it (contract E.5), and no page says how a call asks for it
        raise faults.NOT_EMULATED.refuse(
            "search of collections is not emulated; filter with like or ilike",
            {"feature": "collections/search", "field": f"{place}.search"},
        )
    if unknown:
        name = unknown[0][:64]
        raise refuse(f"{place}.{name}", f"no such option; there are {', '.join(sorted(known))}")


def including_deleted(options: Mapping[str, object], place: str) -> bool:
    """`include_deleted`, by either name. Raises `Refused` INVALID_QUERY."""
    for name in ("include_deleted", "includeDeleted"):
        value = options.get(name)
        if value is not None:
            if not isinstance(value, bool):
                raise refuse(f"{place}.{name}", "must be true or false")
            return value
    return False


def whole(options: Mapping[str, object], name: str, usual: int, *, least: int, place: str) -> int:
    """A whole number among the options. Raises `Refused` INVALID_QUERY."""
    value = options.get(name)
    if value is None:
        return usual
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise refuse(f"{place}.{name}", f"must be a whole number, {least} or more")
    return value


def refuse(place: str, said: str) -> Refused:
    """INVALID_QUERY, at a place."""
    return faults.INVALID_QUERY.refuse(f"{place}: {said}", {"field": place})


def _order(collection: Collection, given: object, place: str) -> tuple[Order, ...]:
    """`"col desc"`, `{column, direction}`, or an array of them. The usual order is ours."""
    entries = given if is_array(given) else [given]
    if given is None or not entries:
        created = collection.column("created_at")
        assert created is not None
        return (Order(created),)
    most = limits.COLLECTION_ORDER.value
    if len(entries) > most:
        raise refuse(place, f"orders by {most} columns at most")
    order: list[Order] = []
    for index, entry in enumerate(entries):
        where = f"{place}[{index}]" if is_array(given) else place
        name, direction = _ordered(entry, where)
        column = collection.column(name)
        if column is None:
            raise refuse(where, f"{collection.name} has no column {name[:64]}")
        if column.type in ("jsonb", "vector") or column.type in ARRAYS:
            raise refuse(where, f"{name} is {column.type}, which has no order")
        if any(column == one.column for one in order):
            raise refuse(where, f"{name} stands there twice")
        order.append(Order(column, direction == "desc"))
    return tuple(order)


def _ordered(entry: object, place: str) -> tuple[str, str]:
    if isinstance(entry, str):
        match = _ORDER.match(entry)
        if match is not None:
            return match[1], (match[2] or "asc").lower()
    elif is_object(entry) and entry.keys() <= {"column", "direction"}:
        name, direction = entry.get("column"), entry.get("direction", "asc")
        if isinstance(name, str) and isinstance(direction, str):
            lowered = direction.lower()
            if lowered in ("asc", "desc"):
                return name, lowered
    raise refuse(place, 'must be "column", "column asc", "column desc" or {"column", "direction"}')


def _select(collection: Collection, given: object, place: str) -> tuple[str, ...]:
    if given is None:
        return ()
    if not is_array(given):
        raise refuse(place, "must be an array of names of columns")
    # at most once each, so that the list is bounded
    names: dict[str, None] = {}
    for index, name in enumerate(given):
        if not isinstance(name, str) or collection.column(name) is None:
            said = f" {name[:64]}" if isinstance(name, str) else ", and this is no name"
            raise refuse(f"{place}[{index}]", f"{collection.name} has no such column{said}")
        names[name] = None
    return tuple(names)


def _decoded(cursor: object) -> _Cursor | None:
    if not isinstance(cursor, str) or len(cursor) > limits.COLLECTION_CURSOR.value:
        return None
    if not _CURSOR.match(cursor):
        return None
    bare = cursor.rstrip("=")
    try:
        read = msgspec.json.decode(urlsafe_b64decode(bare + "=" * (-len(bare) % 4)), type=_Cursor)
    except (ValueError, msgspec.MsgspecError):
        return None
    # nothing but what we write: no other spelling, no number that the database could not hold
    value = read.order_value
    fits = not isinstance(value, int) or -(2**63) <= value < 2**63
    return read if fits and _encoded(read) == bare else None


def _encoded(cursor: _Cursor) -> str:
    return urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")

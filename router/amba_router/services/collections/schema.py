"""What a collection may be: names, columns, indexes, and which of them are refused, and why.

Source: contract E.5 (types, names, reserved words), C.2 (check order); the command line's own
source (a column takes no nulls unless it says so; `onDelete` in any case; names of columns).
Bounds, and rules for names of columns and indexes beyond that, are ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from amba_router.api import faults
from amba_router.api.faults import Refused
from amba_router.rows.columns import (
    MANAGED_NAMES,
    SYNONYMS,
    TYPES,
    Collection,
    Column,
    Index,
    Reference,
)
from amba_router.services.collections.models import (
    ColumnSpec,
    CreateCollection,
    IndexSpec,
    ReferenceSpec,
)
from amba_runtime import limits

RESERVED_PREFIXES = (
    *("_amba_", "pg_", "coll_amba_", "events_", "media_", "streak_", "xp_", "achievement_"),
    *("challenge_", "currency_", "feed_", "friend_", "group_", "inventory_", "leaderboard_"),
    *("league_", "messaging_", "moderation_", "onboarding_", "referral_", "review_", "role_"),
    *("session_", "store_"),
)
RESERVED_NAMES = frozenset(
    {
        *("app_users", "magic_link_tokens", "remote_config", "remote_configs"),
        *("engagement_events", "schema_migrations", "segment_memberships", "segments"),
        *("config_versions", "push_tokens", "push_campaigns", "push_deliveries", "user_streaks"),
        *("streak_definitions", "streak_events", "user_entitlements", "app_user_sessions"),
        *("content_items", "content_libraries", "content_schedules"),
    }
)
READ_POLICIES = ("owner", "public")
SEARCHES = ("substring", "fuzzy")
USERS = "app_users"

_COLLECTION = re.compile(r"[a-z][a-z0-9_]*\Z")
_COLUMN = re.compile(r"[a-z_][a-z0-9_]*\Z")
_INDEX_PART = re.compile(r"\s*([a-z_][a-z0-9_]*)(?:\s+(asc|desc))?\s*\Z", re.IGNORECASE)
_WORDS = frozenset({"and", "or", "not", "set", "_distance"})
"""What filters, changes and find-nearest mean something else by."""
_ON_DELETE = ("cascade", "restrict", "set null", "no action")


def check_name(name: str) -> None:
    """A new collection's name: empty, too long, reserved prefix, reserved name, spelling.

    Raises:
        Refused: INVALID_NAME or RESERVED_NAME, by the first rule it breaks.
    """
    most = limits.COLLECTION_NAME.value
    shown = name[:most]
    if not name:
        raise _name("a collection needs a name")
    if len(name) > most:
        raise _name(f"the name {shown!r}... is longer than {most} characters")
    for prefix in RESERVED_PREFIXES:
        if name.startswith(prefix):
            raise faults.RESERVED_NAME.refuse(
                f"{shown!r} begins with {prefix}, which the platform keeps for itself",
                {"field": "$.name"},
            )
    if name in RESERVED_NAMES:
        raise faults.RESERVED_NAME.refuse(
            f"{shown!r} is a table of the platform; choose another name", {"field": "$.name"}
        )
    if not _COLLECTION.match(name):
        raise _name(f"{shown!r} must be a-z, 0-9 and _, beginning with a letter")


def _name(said: str) -> Refused:
    return faults.INVALID_NAME.refuse(said, {"field": "$.name"})


def declared(body: CreateCollection, now_ms: int) -> Collection:
    """A new collection; references to others are not looked up yet.

    Raises:
        Refused: INVALID_NAME, RESERVED_NAME, INVALID_SCHEMA with `details.field`.
    """
    check_name(body.name)
    most = limits.COLLECTION_COLUMNS.value
    if len(body.columns) > most:
        raise refuse("$.columns", f"a collection has {most} columns at most")
    columns: list[Column] = []
    for at, spec in enumerate(body.columns):
        columns.append(column_of(spec, columns, f"$.columns[{at}]"))
    if body.read_policy not in READ_POLICIES:
        raise refuse("$.read_policy", f"must be one of {', '.join(READ_POLICIES)}")
    if body.search is not None and body.search not in SEARCHES:
        raise refuse("$.search", f"must be one of {', '.join(SEARCHES)}, or left out")
    made = Collection(
        id=0,
        name=body.name,
        version=1,
        columns=tuple(columns),
        indexes=(),
        read_policy=body.read_policy,
        search=body.search,
        created_ms=now_ms,
        migrated_ms=now_ms,
    )
    indexes: list[Index] = []
    for at, index in enumerate(body.indexes):
        indexes.append(index_of(index, made, indexes, f"$.indexes[{at}]"))
    return replace(made, indexes=tuple(indexes))


def column_of(spec: ColumnSpec, others: Sequence[Column], place: str) -> Column:
    """One column. Args: others: those that are there. Raises `Refused` INVALID_SCHEMA."""
    name = spec.name
    _check_identifier(name, f"{place}.name", "column")
    if name in MANAGED_NAMES:
        raise refuse(f"{place}.name", f"{name} is managed by the server; leave it out")
    if name in _WORDS:
        raise refuse(f"{place}.name", f"{name} is a word of queries; choose another name")
    if any(name == column.name for column in others):
        raise refuse(f"{place}.name", f"there is a column {name} already")
    type_ = _type(spec, place)
    return Column(
        name=name,
        type=type_,
        nullable=spec.nullable,
        dimension=_dimension(spec, type_, place),
        references=None if spec.references is None else _reference(spec, place),
    )


def _type(spec: ColumnSpec, place: str) -> str:
    type_ = spec.type.strip().lower()
    type_ = SYNONYMS.get(type_, type_)
    if type_ not in TYPES:
        raise refuse(
            f"{place}.type", f"{spec.type[:40]!r} is no type; there are {', '.join(TYPES)}"
        )
    return type_


def _dimension(spec: ColumnSpec, type_: str, place: str) -> int:
    most = limits.COLLECTION_VECTOR.value
    if type_ != "vector":
        if spec.dimension is not None:
            raise refuse(f"{place}.dimension", "only a vector has one")
        return 0
    if spec.dimension is None or not 1 <= spec.dimension <= most:
        raise refuse(f"{place}.dimension", f"a vector needs one, from 1 to {most}")
    return spec.dimension


def _reference(spec: ColumnSpec, place: str) -> Reference:
    given = spec.references
    assert isinstance(given, ReferenceSpec)
    _check_identifier(given.table, f"{place}.references.table", "table")
    _check_identifier(given.column, f"{place}.references.column", "column")
    on_delete = given.on_delete.strip().lower().replace("_", " ")
    if on_delete not in _ON_DELETE:
        raise refuse(
            f"{place}.references.onDelete", f"must be one of {', '.join(_ON_DELETE).upper()}"
        )
    if on_delete == "set null" and not spec.nullable:
        raise refuse(f"{place}.references.onDelete", "SET NULL needs a column with nullable: true")
    return Reference(given.table, given.column, on_delete)


def check_reference(column: Column, target: Collection | None, place: str) -> None:
    """That what a column refers to is there, unique, and of its type.

    Args:
        target: the collection of that name, None where there is none.

    Raises:
        Refused: INVALID_SCHEMA.
    """
    reference = column.references
    if reference is None:
        return
    where = f"{place}.references"
    if reference.table == USERS:
        if reference.column != "id" or column.type not in ("text", "uuid"):
            raise refuse(where, f"{USERS} is referred to by its id, which is text")
        return
    found = None if target is None else target.column(reference.column)
    if target is None or found is None:
        raise refuse(where, f"there is no {reference.table}.{reference.column} in this project")
    unique = {index.columns[0][0] for index in target.indexes if _alone(index)}
    if found.name != "id" and found.name not in unique:
        raise refuse(where, f"{reference.table}.{reference.column} has no unique index of its own")
    if found.type != column.type:
        raise refuse(
            where, f"{column.name} is {column.type}, {found.name} is {found.type}: make them one"
        )


def _alone(index: Index) -> bool:
    return index.unique and len(index.columns) == 1


def index_of(spec: IndexSpec, collection: Collection, others: Sequence[Index], place: str) -> Index:
    """One index. Args: others: those that are there. Raises `Refused` INVALID_SCHEMA."""
    if len(others) >= limits.COLLECTION_INDEXES.value:
        raise refuse(place, f"a collection has {limits.COLLECTION_INDEXES.value} indexes at most")
    most = limits.COLLECTION_INDEX_COLUMNS.value
    if not 1 <= len(spec.columns) <= most:
        raise refuse(f"{place}.columns", f"an index has 1 to {most} columns")
    parts: list[tuple[str, bool]] = []
    for at, text in enumerate(spec.columns):
        parts.append(_index_part(text, collection, parts, f"{place}.columns[{at}]"))
    vectors = [name for name, _ in parts if _is_vector(collection, name)]
    if vectors and (spec.unique or len(parts) > 1):
        raise refuse(f"{place}.columns", f"{vectors[0]} is a vector: index it alone, not unique")
    name = spec.name
    if name is None:
        base = "_".join(name for name, _ in parts)[: limits.COLLECTION_NAME.value - 8]
        name, turn = f"{base}_idx", 1
        while any(name == index.name for index in others):
            turn += 1
            name = f"{base}_idx{turn}"
    _check_identifier(name, f"{place}.name", "index")
    if any(name == index.name for index in others):
        raise refuse(f"{place}.name", f"there is an index {name} already")
    return Index(name, tuple(parts), spec.unique)


def _index_part(
    text: str, collection: Collection, before: Sequence[tuple[str, bool]], place: str
) -> tuple[str, bool]:
    match = _INDEX_PART.match(text)
    if match is None:
        raise refuse(place, f'{text[:80]!r} must be "column", "column asc" or "column desc"')
    name = match[1]
    if collection.column(name) is None:
        raise refuse(place, f"there is no column {name[:64]}")
    if any(name == one for one, _ in before):
        raise refuse(place, f"{name} stands there twice")
    return name, (match[2] or "asc").lower() == "desc"


def _is_vector(collection: Collection, name: str) -> bool:
    column = collection.column(name)
    return column is not None and column.type == "vector"


def _check_identifier(name: str, place: str, what: str) -> None:
    most = limits.COLLECTION_NAME.value
    if not 1 <= len(name) <= most or not _COLUMN.match(name):
        raise refuse(
            place,
            f"{name[:64]!r} is no name of a {what}: a-z, 0-9 and _, beginning with a letter "
            f"or _, {most} characters at most",
        )


def refuse(place: str, said: str) -> Refused:
    """INVALID_SCHEMA, at a place."""
    return faults.INVALID_SCHEMA.refuse(f"{place}: {said}", {"field": place})

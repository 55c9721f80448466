"""Rows on their way in and out: what is stripped, stamped, checked, merged.

Source: contract E.5 (managed columns, scoping, merge-patch), H-15 (a foreign `user_id`); RFC 7396.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from amba_router.api import faults
from amba_router.rows import values
from amba_router.rows.columns import (
    MANAGED_NAMES,
    Collection,
    Column,
    Stored,
    to_stored,
    to_wire,
)
from amba_router.rows.shapes import is_object
from amba_router.store.collection_tables import Reach, weight
from amba_runtime import entropy, limits


@dataclass(frozen=True, slots=True)
class Scope:
    """For whom rows are read and written.

    Attributes:
        user_id: whose rows alone; None is everyone's: the admin plane, and trusted credentials.
        as_user: a trusted credential asks for that user: what names another one is refused.
    """

    user_id: str | None = None
    as_user: bool = False

    def reading(self, collection: Collection, *, deleted: bool) -> Reach:
        """What may be read of a collection."""
        return Reach(self.user_id, collection.read_policy == "public", deleted)

    def writing(self, *, deleted: bool = False) -> Reach:
        """What may be changed: nobody writes another one's rows, public or not."""
        return Reach(self.user_id, False, deleted)


EVERYONE = Scope()


@dataclass(frozen=True, slots=True)
class Change:
    """What a `set` does to a row.

    Attributes:
        values: new ones, in stored form.
        patches: objects that are merged into what a jsonb column holds.
    """

    values: Mapping[str, Stored]
    patches: Mapping[str, Mapping[str, Any]]


def new_row(
    collection: Collection, given: object, scope: Scope, now_us: int, place: str = "$"
) -> dict[str, Stored]:
    """A row as it is kept, with its id, its owner and its times.

    Raises:
        Refused: INVALID_INPUT, INVALID_COLUMN, INVALID_VALUE, AS_USER_MISMATCH, PAYLOAD_TOO_LARGE.
    """
    members = _members(collection, given, place)
    row: dict[str, Stored] = {"id": entropy.uuid4(), "user_id": _owner(members, scope, place)}
    for column in collection.columns:
        row[column.name] = _value(column, members.get(column.name), place)
    row.update(created_at=now_us, updated_at=now_us, deleted_at=None)
    _check_weight(row, place)
    return row


def change_of(
    collection: Collection, given: object, scope: Scope, now_us: int, place: str
) -> Change:
    """What a `set` means for the rows of a collection. Raises `Refused`, as `new_row`."""
    members = _members(collection, given, place)
    stored: dict[str, Stored] = {"updated_at": now_us}
    patches: dict[str, Mapping[str, Any]] = {}
    if members.get("user_id") is not None:
        owner = _owner(members, scope, place)
        if scope.user_id is None:
            stored["user_id"] = owner
    for column in collection.columns:
        if column.name not in members:
            continue
        member = members[column.name]
        checked = _value(column, member, place)
        if column.type == "jsonb" and is_object(member):
            patches[column.name] = member
        else:
            stored[column.name] = checked
    _check_weight(stored, place)
    return Change(stored, patches)


def changed(change: Change, row: Mapping[str, Any]) -> dict[str, Stored]:
    """The new values of one row. Raises `Refused` PAYLOAD_TOO_LARGE."""
    made = dict(change.values)
    for name, patch in change.patches.items():
        had = row[name]
        target = None if had is None else values.json_out(had)
        made[name] = values.json_in(merged(target, patch))
    _check_weight({**row, **made}, "$.set")
    return made


def merged(target: object, patch: object) -> object:
    """RFC 7396: members of null are taken out, objects are merged, all else is replaced."""
    if not is_object(patch):
        return patch
    result: dict[str, object] = dict(target) if is_object(target) else {}
    for name, member in patch.items():
        if member is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), member)
    return result


def wire_rows(
    collection: Collection, rows: Iterable[Mapping[str, Any]], select: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Rows as JSON has them. Args: select: names of columns, in order; () is all."""
    columns = collection.all_columns
    if select:
        named = {column.name: column for column in columns}
        columns = tuple(named[name] for name in select)
    return [{c.name: to_wire(c, row[c.name]) for c in columns} for row in rows]


def _members(collection: Collection, given: object, place: str) -> dict[str, object]:
    if not is_object(given):
        raise faults.INVALID_INPUT.refuse(
            f"{place}: must be an object of columns", {"field": place}
        )
    known = {column.name for column in collection.columns} | MANAGED_NAMES
    for name in given:
        if name not in known:
            shown = str(name)[:64]
            raise faults.INVALID_COLUMN.refuse(
                f"{place}: {collection.name} has no column {shown!r}; it has "
                f"{', '.join(column.name for column in collection.columns)[:500] or 'none'}",
                {"field": f"{place}.{shown}", "column": shown},
            )
    return given


def _owner(members: Mapping[str, object], scope: Scope, place: str) -> str | None:
    wanted = members.get("user_id")
    if scope.user_id is not None:
        if scope.as_user and wanted is not None and wanted != scope.user_id:
            raise faults.AS_USER_MISMATCH.refuse(
                f"{place}.user_id: the call is made as {scope.user_id[:64]}; leave user_id out",
                {"field": f"{place}.user_id"},
            )
        return scope.user_id
    if wanted is None:
        return None
    most = limits.COLLECTION_USER_ID.value
    if not isinstance(wanted, str) or not 1 <= len(wanted) <= most or "\0" in wanted:
        raise values.refuse(f"{place}.user_id", "user_id", "text", f"1 to {most} characters")
    return wanted


def _value(column: Column, member: object, place: str) -> Stored:
    where = f"{place}.{column.name}"
    stored = to_stored(column, member, where)
    if stored is None and not column.nullable:
        raise values.refuse(where, column.name, f"{column.type} not null", "a value")
    return stored


def _check_weight(row: Mapping[str, Stored], place: str) -> None:
    size, most = weight(row.values()), limits.COLLECTION_ROW_BYTES.value
    if size > most:
        raise faults.PAYLOAD_TOO_LARGE.refuse(
            f"{place}: the row has {size} bytes, {most} are the most", {"field": place}
        )

"""End users of a project: their rows, by id, address and last sign of life. Source: contract E.3.

An address is compared by its `email_key`; `password` is a bcrypt hash and never leaves with a
`User`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Row, or_

from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import app_users

_ESCAPE = "\\"


@dataclass(frozen=True, slots=True)
class User:
    """One end user.

    Attributes:
        seq: counts up over all projects: the order in which they were made.
        properties: a JSON object, as text.
        first_seen_ms, last_seen_ms: Unix milliseconds.
    """

    seq: int
    id: str
    email: str | None
    display_name: str | None
    avatar_url: str | None
    external_id: str | None
    anonymous_id: str | None
    auth_providers: tuple[str, ...]
    properties: str
    timezone: str | None
    first_seen_ms: int
    last_seen_ms: int


@dataclass(frozen=True, slots=True)
class NewUser:
    """What a user is made of. Attributes: password: a bcrypt hash, None where there is none."""

    id: str
    now_ms: int
    display_name: str | None = None
    email: str | None = None
    email_key: str | None = None
    password: str | None = field(default=None, repr=False)
    anonymous_id: str | None = None
    auth_providers: tuple[str, ...] = ()
    avatar_url: str | None = None
    external_id: str | None = None
    properties: str = "{}"
    timezone: str | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """What a sign-in by address is judged by. Attributes: password: None can never sign in so."""

    user_id: str
    password: str | None = field(repr=False)
    anonymous_id: str | None


def add(scoped: Scoped, new: NewUser) -> bool:
    """Whether they were added; not when the id or the address is another's already."""
    return scoped.add_missing(
        app_users,
        {
            "id": new.id,
            "email": new.email,
            "email_key": new.email_key,
            "password": new.password,
            "display_name": new.display_name,
            "avatar_url": new.avatar_url,
            "external_id": new.external_id,
            "anonymous_id": new.anonymous_id,
            "auth_providers": json.dumps(new.auth_providers),
            "properties": new.properties,
            "timezone": new.timezone,
            "first_seen_ms": new.now_ms,
            "last_seen_ms": new.now_ms,
        },
    )


def exists(scoped: Scoped, user_id: str) -> bool:
    """Whether the project has them."""
    query = scoped.query(app_users, app_users.c.seq).where(app_users.c.id == user_id)
    return scoped.value(query) is not None


def get(scoped: Scoped, user_id: str) -> User | None:
    """One by id."""
    row = scoped.row(scoped.query(app_users).where(app_users.c.id == user_id))
    return None if row is None else user_of(row)


def login(scoped: Scoped, email_key: str) -> Login | None:
    """Who has this address, and what the password is compared with."""
    columns = app_users.c
    query = scoped.query(app_users, columns.id, columns.password, columns.anonymous_id)
    row = scoped.row(query.where(columns.email_key == email_key))
    return None if row is None else Login(row.id, row.password, row.anonymous_id)


def count(scoped: Scoped) -> int:
    """How many there are."""
    return scoped.count(app_users)


def change(scoped: Scoped, user_id: str, values: Mapping[str, Any]) -> bool:
    """Other values for some columns; whether there is such a user."""
    return scoped.change(app_users, app_users.c.id == user_id, **values) == 1


def known(scoped: Scoped, user_ids: Collection[str]) -> set[str]:
    """Those of them whom the project has."""
    found = scoped.query(app_users, app_users.c.id).where(app_users.c.id.in_(list(user_ids)))
    return {row.id for row in scoped.rows(found)}


def seen(scoped: Scoped, user_ids: Collection[str], now_ms: int) -> None:
    """A sign of life of each; never back in time."""
    columns = app_users.c
    mine = columns.id.in_(list(user_ids))
    scoped.change(app_users, mine, columns.last_seen_ms < now_ms, last_seen_ms=now_ms)


def fill_timezone(scoped: Scoped, user_id: str, timezone: str) -> bool:
    """For one who has none yet; whether it was so."""
    columns = app_users.c
    changed = scoped.change(
        app_users, columns.id == user_id, columns.timezone.is_(None), timezone=timezone
    )
    return changed == 1


def page(
    scoped: Scoped,
    *,
    search: str,
    within: ColumnElement[bool] | None,
    offset: int,
    limit: int,
) -> tuple[list[User], int]:
    """Newest active first, and how many there are in all.

    Args:
        search: part of the address, external id or display name, letters A to Z in either case;
            "" is everybody.
        within: of these alone (`segment_rows.members_where`).
    """
    columns = app_users.c
    where: list[ColumnElement[bool]] = [] if within is None else [within]
    if search:
        escaped = search
        for special in (_ESCAPE, "%", "_"):
            escaped = escaped.replace(special, _ESCAPE + special)
        looked_at = (columns.email, columns.external_id, columns.display_name)
        where.append(or_(*(one.like(f"%{escaped}%", escape=_ESCAPE) for one in looked_at)))
    query = scoped.query(app_users).where(*where)
    ordered = query.order_by(columns.last_seen_ms.desc(), columns.seq.desc())
    rows = scoped.rows(ordered.offset(offset).limit(limit))
    return [user_of(row) for row in rows], scoped.count(app_users, *where)


def batch(scoped: Scoped, after: int, limit: int) -> list[User]:
    """In the order of their `seq`, those after one."""
    columns = app_users.c
    query = scoped.query(app_users).where(columns.seq > after)
    return [user_of(row) for row in scoped.rows(query.order_by(columns.seq).limit(limit))]


def user_of(row: Row[Any]) -> User:
    """A row of `app_users`, without what nobody is told."""
    return User(
        seq=row.seq,
        id=row.id,
        email=row.email,
        display_name=row.display_name,
        avatar_url=row.avatar_url,
        external_id=row.external_id,
        anonymous_id=row.anonymous_id,
        auth_providers=tuple(json.loads(row.auth_providers)),
        properties=row.properties,
        timezone=row.timezone,
        first_seen_ms=row.first_seen_ms,
        last_seen_ms=row.last_seen_ms,
    )

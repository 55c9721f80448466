"""Remote config at rest: a project's keys, their values and conditions as JSON text.

Source: contract E.8.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, Row, cast, func

from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import configs

_IN_FORCE: ColumnElement[bool] = configs.c.is_active.is_(True)


@dataclass(frozen=True, slots=True)
class Config:
    """One key.

    Attributes:
        id: of the row; a key that is deleted and set again has another.
        value: JSON text, without blanks. conditions: the same, a list in its order.
        version: counts from 1; one more with each new value.
        updated_ms: grows with every change, also with two in one millisecond.
    """

    id: str
    key: str
    value: str
    value_type: str
    description: str | None
    conditions: str
    version: int
    created_ms: int
    updated_ms: int


@dataclass(frozen=True, slots=True)
class Held:
    """What a project has: its keys, and the UTF-8 bytes of their values, conditions and texts."""

    keys: int
    octets: int


def get(scoped: Scoped, key: str) -> Config | None:
    """One key."""
    row = scoped.row(scoped.query(configs).where(_IN_FORCE, configs.c.key == key))
    return None if row is None else _config(row)


def active(scoped: Scoped) -> list[Config]:
    """All of them, ordered by key."""
    query = scoped.query(configs).where(_IN_FORCE).order_by(configs.c.key)
    return [_config(row) for row in scoped.rows(query)]


def page(scoped: Scoped, offset: int, limit: int) -> list[Config]:
    """Some of them, ordered by key."""
    query = scoped.query(configs).where(_IN_FORCE).order_by(configs.c.key)
    return [_config(row) for row in scoped.rows(query.offset(offset).limit(limit))]


def count(scoped: Scoped) -> int:
    """How many there are."""
    return scoped.count(configs, _IN_FORCE)


def held(scoped: Scoped) -> Held:
    """What limits are compared with."""
    texts = (configs.c.value, configs.c.conditions, configs.c.description)
    octets = [func.coalesce(func.length(cast(text, LargeBinary)), 0) for text in texts]
    total = func.coalesce(func.sum(octets[0] + octets[1] + octets[2]), 0)
    return Held(scoped.count(configs), int(scoped.value(scoped.query(configs, total))))


def put(scoped: Scoped, config: Config) -> None:
    """A new key, or all of an old one anew."""
    scoped.put(configs, ("key",), {**asdict(config), "is_active": True})


def drop(scoped: Scoped, key: str) -> bool:
    """Without a key; whether there was one."""
    return scoped.drop(configs, configs.c.key == key) == 1


def _config(row: Row[Any]) -> Config:
    return Config(
        id=row.id,
        key=row.key,
        value=row.value,
        value_type=row.value_type,
        description=row.description,
        conditions=row.conditions,
        version=row.version,
        created_ms=row.created_ms,
        updated_ms=row.updated_ms,
    )

"""Remote config as operations on the store: set, change, remove, list, and what a user gets.

Source: contract E.8; bounds, and what a second POST leaves as it was, are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from amba_router.api import faults
from amba_router.services.config import evaluation
from amba_router.services.config.models import Condition
from amba_router.store import config_rows, segment_rows
from amba_router.store.config_rows import Config
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_runtime import entropy, limits
from amba_runtime.clock import Clock, time_ms

_UNSET = msgspec.UNSET
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "json": (object,),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """What a write says of a key; `UNSET` is what it leaves as it is.

    Attributes:
        value_type: None leaves it.
        conditions: None is none of them.
    """

    value: Any = _UNSET
    value_type: str | None = None
    description: str | msgspec.UnsetType | None = _UNSET
    conditions: Sequence[Condition] | msgspec.UnsetType | None = _UNSET


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What one caller gets, and the entity tag of it."""

    values: Mapping[str, msgspec.Raw]
    etag: str


class ConfigService:
    """Every method is one transaction."""

    def __init__(self, store: ProjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def put(self, project_id: str, key: str, draft: Draft) -> Config:
        """Set a key, new or not; the version is one more.

        Raises:
            Refused: INVALID_VALUE, SEGMENT_NOT_FOUND, CONFLICT (the project is full).
        """
        now_ms = time_ms(self._clock)

        def work(scoped: Scoped) -> Config:
            old = config_rows.get(scoped, key)
            if old is None:
                held = config_rows.held(scoped)
                if held.keys >= limits.CONFIG_KEYS.value:
                    raise faults.CONFLICT.refuse(
                        f"the project's config has {held.keys} keys; delete one that nobody reads"
                    )
                old = Config(entropy.uuid4(), key, "", "", None, "[]", 0, now_ms, now_ms - 1)
            return self._write(scoped, old, draft, now_ms)

        return await self._store.write(project_id, work)

    async def change(self, project_id: str, key: str, draft: Draft) -> Config:
        """Change a key that is there; the version is one more where the value is given.

        Raises:
            Refused: as `put`; NOT_FOUND.
        """
        now_ms = time_ms(self._clock)

        def work(scoped: Scoped) -> Config:
            old = config_rows.get(scoped, key)
            if old is None:
                raise faults.NOT_FOUND.refuse(
                    f"the config has no key {key[:64]!r}; POST sets one",
                    {"resource": "config", "id": key[:64]},
                )
            return self._write(scoped, old, draft, now_ms)

        return await self._store.write(project_id, work)

    async def remove(self, project_id: str, key: str) -> None:
        """Without a key, whether it was there or not."""
        await self._store.write(project_id, lambda scoped: config_rows.drop(scoped, key))

    async def page(self, project_id: str, offset: int, limit: int) -> tuple[list[Config], int]:
        """Some keys in their order, and how many there are in all."""

        def work(scoped: Scoped) -> tuple[list[Config], int]:
            return config_rows.page(scoped, offset, limit), config_rows.count(scoped)

        return await self._store.read(project_id, work)

    async def evaluate(self, project_id: str, user_id: str) -> Evaluated:
        """What a user gets; "" is nobody. Values and tag are of the same moment."""
        now_ms = time_ms(self._clock)

        def work(scoped: Scoped) -> Evaluated:
            configs = config_rows.active(scoped)
            segments = segment_rows.segments_of(scoped, user_id, now_ms) if user_id else ()
            version = evaluation.version_hash(configs)
            return Evaluated(
                evaluation.values(configs, user_id, segments),
                evaluation.etag(version, user_id, segments),
            )

        return await self._store.read(project_id, work)

    def _write(self, scoped: Scoped, old: Config, draft: Draft, now_ms: int) -> Config:
        new = _changed(old, draft, now_ms)
        if not isinstance(draft.conditions, msgspec.UnsetType):
            for place, condition in enumerate(draft.conditions or ()):
                id_ = condition.segment_id
                if id_ is not None and not segment_rows.known(scoped, id_):
                    raise faults.no_segment(id_, f"$.conditions[{place}].segment_id")
        config_rows.put(scoped, new)
        # counted as it would be: raising takes the row back
        if config_rows.held(scoped).octets > limits.CONFIG_BYTES.value:
            raise faults.CONFLICT.refuse(
                f"the project's config would be over {limits.CONFIG_BYTES.value} bytes in all; "
                "keep what is large in STORAGE or a collection, and its address here"
            )
        return new


def _changed(old: Config, draft: Draft, now_ms: int) -> Config:
    """The row as it shall be. Raises `Refused` INVALID_VALUE."""
    value_type = draft.value_type or old.value_type
    new = replace(
        old,
        value_type=value_type,
        # two changes within a millisecond have two hashes all the same
        updated_ms=max(now_ms, old.updated_ms + 1),
    )
    if draft.value is not _UNSET:
        text = _text(draft.value, value_type, "$.value")
        new = replace(new, value=text, version=old.version + 1)
    if not isinstance(draft.description, msgspec.UnsetType):
        new = replace(new, description=draft.description)
    if not isinstance(draft.conditions, msgspec.UnsetType):
        given = list(draft.conditions or ())
        _check(given, value_type)
        new = replace(new, conditions=msgspec.json.encode(given).decode())
    elif value_type != old.value_type:
        _check(msgspec.json.decode(old.conditions, type=list[Condition]), value_type)
    return new


def _check(conditions: Sequence[Condition], value_type: str) -> None:
    for place, condition in enumerate(conditions):
        _text(condition.value, value_type, f"$.conditions[{place}].value")


def _text(value: Any, value_type: str, place: str) -> str:
    """A value as JSON. Raises `Refused` INVALID_VALUE."""
    fits = isinstance(value, _TYPES[value_type])
    if isinstance(value, bool) and value_type == "number":
        fits = False
    if not fits:
        raise faults.INVALID_VALUE.refuse(
            f"the value at {place} is no {value_type}; send one, or another value_type "
            "(with the conditions that go with it)",
            {"field": place},
        )
    text = msgspec.json.encode(value)
    if len(text) > limits.CONFIG_VALUE_BYTES.value:
        raise faults.INVALID_VALUE.refuse(
            f"the value at {place} has {len(text)} bytes as JSON; "
            f"{limits.CONFIG_VALUE_BYTES.value} is the most",
            {"field": place},
        )
    return text.decode()

"""Segments: made, changed, evaluated. Source: contract E.13.

A project of one batch of users has a segment evaluated in the transaction that writes its rules;
a larger one at the next round, or when asked. Every batch is read and written by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import json

from amba_router.api import faults
from amba_router.services.segments.rules import Facts, Group, parse
from amba_router.store import segment_rows, user_rows
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_router.store.segment_rows import SYSTEM, Difference, Segment
from amba_router.store.user_rows import User
from amba_runtime import entropy, limits
from amba_runtime.clock import Clock, time_ms


@dataclass(frozen=True, slots=True)
class Shown:
    """A segment, and how many are in it. Attributes: own: None for one of the system's."""

    id: str
    members: int
    own: Segment | None


@dataclass(frozen=True, slots=True)
class _Batch:
    """Attributes: last: the `seq` to go on after; None was the end."""

    found: Difference
    last: int | None


class Segments:
    """The segments of all projects."""

    def __init__(self, store: ProjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(
        self, project_id: str, name: str, rules: object, description: str | None
    ) -> Shown:
        """A new one.

        Raises:
            Refused: INVALID_SEGMENT_RULES, SEGMENT_RULES_TOO_DEEP, CONFLICT (too many).
        """
        group = parse(rules)
        now_ms = time_ms(self._clock)
        text = _text(rules)
        new = Segment(entropy.uuid4(), name, description, text, now_ms, now_ms, None)

        def work(scoped: Scoped) -> Shown:
            if segment_rows.count(scoped) >= limits.SEGMENTS.value:
                raise faults.CONFLICT.refuse(
                    f"the project has {limits.SEGMENTS.value} segments; delete one first"
                )
            segment_rows.add(scoped, new)
            _evaluate_few(scoped, new.id, group, now_ms)
            return _shown(scoped, new.id, now_ms)

        return await self._store.write(project_id, work)

    async def change(self, project_id: str, segment_id: str, values: Mapping[str, Any]) -> Shown:
        """Args: values: `name`, `description`, `rules`, where given.

        Raises:
            Refused: SEGMENT_NOT_FOUND, CONFLICT (the system's), and as `create`.
        """
        _check_own(segment_id)
        changed = dict(values)
        group = parse(changed["rules"]) if "rules" in changed else None
        if group is not None:
            changed["rules"] = _text(changed["rules"])
        now_ms = time_ms(self._clock)

        def work(scoped: Scoped) -> Shown:
            if not segment_rows.change(scoped, segment_id, {**changed, "updated_ms": now_ms}):
                raise faults.no_segment(segment_id)
            if group is not None:
                _evaluate_few(scoped, segment_id, group, now_ms)
            return _shown(scoped, segment_id, now_ms)

        return await self._store.write(project_id, work)

    async def remove(self, project_id: str, segment_id: str) -> None:
        """Without it. Raises `Refused` SEGMENT_NOT_FOUND, CONFLICT (the system's)."""
        _check_own(segment_id)

        def work(scoped: Scoped) -> None:
            if not segment_rows.drop(scoped, segment_id):
                raise faults.no_segment(segment_id)

        await self._store.write(project_id, work)

    async def get(self, project_id: str, segment_id: str) -> Shown:
        """One. Raises `Refused` SEGMENT_NOT_FOUND."""
        now_ms = time_ms(self._clock)
        return await self._store.read(project_id, lambda s: _shown(s, segment_id, now_ms))

    async def list(self, project_id: str) -> list[Shown]:
        """The system's, then the project's own, oldest first."""
        now_ms = time_ms(self._clock)

        def work(scoped: Scoped) -> list[Shown]:
            counts = segment_rows.stored_counts(scoped)
            system = [
                Shown(id_, segment_rows.member_count(scoped, id_, now_ms), None) for id_ in SYSTEM
            ]
            own = [Shown(s.id, counts.get(s.id, 0), s) for s in segment_rows.own(scoped)]
            return [*system, *own]

        return await self._store.read(project_id, work)

    async def evaluate(self, project_id: str, segment_id: str) -> tuple[int, int]:
        """(how many are in it, when that was found). One of the system's is counted.

        Raises:
            Refused: SEGMENT_NOT_FOUND; CONFLICT: its rules changed meanwhile.
        """
        now_ms = time_ms(self._clock)
        shown = await self._store.read(project_id, lambda s: _shown(s, segment_id, now_ms))
        segment = shown.own
        if segment is None:
            return shown.members, now_ms
        group = parse(json.decode(segment.rules))
        after: int | None = 0
        while after is not None:
            after = await self._batch(project_id, segment, group, now_ms, after)

        def done(scoped: Scoped) -> int:
            _check_same(scoped, segment)
            segment_rows.change(scoped, segment_id, {"evaluated_ms": now_ms})
            return segment_rows.member_count(scoped, segment_id, now_ms)

        return await self._store.write(project_id, done), now_ms

    async def evaluate_all(self, project_id: str) -> None:
        """Each of the project's own; one that changes or goes meanwhile has its next turn."""
        for segment in await self._store.read(project_id, segment_rows.own):
            try:
                await self.evaluate(project_id, segment.id)
            except faults.Refused:
                continue

    async def _batch(
        self, project_id: str, segment: Segment, group: Group, now_ms: int, after: int
    ) -> int | None:
        batch = await self._store.read(
            project_id, lambda s: _evaluated(s, segment.id, group, now_ms, after)
        )

        def work(scoped: Scoped) -> None:
            _check_same(scoped, segment)
            segment_rows.apply(scoped, segment.id, batch.found)

        if batch.found.added or batch.found.removed:
            await self._store.write(project_id, work)
        return batch.last


def _text(rules: object) -> str:
    raw = json.encode(rules)
    if len(raw) > limits.SEGMENT_RULES_BYTES.value:
        raise faults.INVALID_SEGMENT_RULES.refuse(
            f"rules have at most {limits.SEGMENT_RULES_BYTES.value} bytes of JSON",
            {"field": "$.rules"},
        )
    return raw.decode()


def _check_own(segment_id: str) -> None:
    if segment_id in SYSTEM:
        raise faults.CONFLICT.refuse(f"{segment_id} is the system's; make a segment of your own")


def _check_same(scoped: Scoped, segment: Segment) -> None:
    """Raises `Refused` when its rules are others by now, or it is gone."""
    now = segment_rows.get(scoped, segment.id)
    if now is None:
        raise faults.no_segment(segment.id)
    if now.rules != segment.rules:
        raise faults.CONFLICT.refuse("the rules changed meanwhile; evaluate the segment again")


def _shown(scoped: Scoped, segment_id: str, now_ms: int) -> Shown:
    own = None if segment_id in SYSTEM else segment_rows.get(scoped, segment_id)
    if own is None and segment_id not in SYSTEM:
        raise faults.no_segment(segment_id)
    return Shown(segment_id, segment_rows.member_count(scoped, segment_id, now_ms), own)


def _evaluate_few(scoped: Scoped, segment_id: str, group: Group, now_ms: int) -> None:
    """At once, where one batch is all there is."""
    batch = _evaluated(scoped, segment_id, group, now_ms, 0)
    if batch.last is None:
        segment_rows.apply(scoped, segment_id, batch.found)
        segment_rows.change(scoped, segment_id, {"evaluated_ms": now_ms})


def _evaluated(scoped: Scoped, segment_id: str, group: Group, now_ms: int, after: int) -> _Batch:
    most = limits.SEGMENT_BATCH.value
    users = user_rows.batch(scoped, after, most + 1)
    looked_at = users[:most]
    holds = {user.id: group.holds(_facts(user), now_ms) for user in looked_at}
    found = segment_rows.difference(scoped, segment_id, holds)
    return _Batch(found, looked_at[-1].seq if len(users) > most else None)


def _facts(user: User) -> Facts:
    return Facts(
        {
            "id": user.id,
            "email": user.email,
            "display_name": user.display_name,
            "avatar_url": user.avatar_url,
            "external_id": user.external_id,
            "anonymous_id": user.anonymous_id,
            "auth_providers": user.auth_providers,
            "timezone": user.timezone,
            "first_seen_at": user.first_seen_ms,
            "last_seen_at": user.last_seen_ms,
        },
        json.decode(user.properties, type=dict[str, Any]),
    )

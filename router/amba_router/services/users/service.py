"""What is known of users: themselves, for their developer, and on which devices they are.

Source: contract E.3 (`users/me`), E.4, E.14.
"""

from __future__ import annotations

from typing import Any

from amba_router.api import event_cursor, faults
from amba_router.services.users import rules
from amba_router.store import event_rows, push_rows, segment_rows, user_rows
from amba_router.store.event_rows import EventRecord, Wanted
from amba_router.store.project_store import ProjectStore
from amba_router.store.push_rows import PushToken
from amba_router.store.scoped import Scoped
from amba_router.store.user_rows import User
from amba_runtime import entropy, limits
from amba_runtime.clock import Clock, time_ms

PROVIDERS = {"ios": "apns", "android": "fcm"}
"""Source: contract E.14 (provider derived from the platform)."""

_PLATFORMS = {provider: platform for platform, provider in PROVIDERS.items()}


class Users:
    """The users of all projects."""

    def __init__(self, store: ProjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def get(self, project_id: str, user_id: str) -> User | None:
        """One by id."""
        return await self._store.read(project_id, lambda s: user_rows.get(s, user_id))

    async def me(self, project_id: str, user_id: str, timezone: str) -> User | None:
        """One, who has this time zone from here on if they had none and it is one."""
        user = await self.get(project_id, user_id)
        if user is None or user.timezone is not None or not rules.is_timezone(timezone):
            return user

        def work(scoped: Scoped) -> User | None:
            user_rows.fill_timezone(scoped, user_id, timezone)
            return user_rows.get(scoped, user_id)

        return await self._store.write(project_id, work)

    async def change(self, project_id: str, user_id: str, values: dict[str, Any]) -> User | None:
        """Args: values: columns that are given; `properties` as JSON text.

        Raises:
            Refused: INVALID_TIMEZONE, INVALID_INPUT (properties that are too long).
        """
        timezone = values.get("timezone")
        if timezone is not None and not rules.is_timezone(timezone):
            raise faults.INVALID_TIMEZONE.refuse(
                f"{timezone[:64]!r} is not an IANA time zone; send one such as Europe/Vienna",
                {"field": "$.timezone"},
            )
        most = limits.USER_PROPERTIES_BYTES.value
        if len(values.get("properties", "").encode()) > most:
            raise faults.INVALID_INPUT.refuse(
                f"properties have at most {most} bytes of JSON", {"field": "$.properties"}
            )

        def work(scoped: Scoped) -> User | None:
            if values:
                user_rows.change(scoped, user_id, values)
            return user_rows.get(scoped, user_id)

        return await self._store.write(project_id, work)

    async def page(
        self, project_id: str, *, search: str, segment_id: str | None, offset: int, limit: int
    ) -> tuple[list[User], int]:
        """Newest active first, and how many there are. Raises `Refused` SEGMENT_NOT_FOUND."""
        now_ms = time_ms(self._clock)

        def work(scoped: Scoped) -> tuple[list[User], int]:
            within = None
            if segment_id is not None:
                if not segment_rows.known(scoped, segment_id):
                    raise faults.no_segment(segment_id)
                within = segment_rows.members_where(scoped, segment_id, now_ms)
            return user_rows.page(scoped, search=search, within=within, offset=offset, limit=limit)

        return await self._store.read(project_id, work)

    async def events(
        self, project_id: str, user_id: str, *, since_ms: int | None, cursor: str | None, limit: int
    ) -> tuple[list[EventRecord], str | None]:
        """Newest first, bounded in bytes as `event_rows.page` is, and where the next page begins.

        Raises:
            Refused: USER_NOT_FOUND, INVALID_CURSOR.
        """
        least_ms = since_ms or 0
        before = (
            None
            if cursor is None
            else event_cursor.decode(cursor, since_ms=least_ms, until_ms=None)
        )

        def work(scoped: Scoped) -> tuple[list[EventRecord], bool]:
            if not user_rows.exists(scoped, user_id):
                raise faults.no_user(user_id)
            wanted = Wanted(least_ms, user_id=user_id, before=before)
            return event_rows.page(scoped, wanted, limit)

        found, more = await self._store.read(project_id, work)
        last = event_cursor.encode(found[-1].occurred_ms, found[-1].id) if more else None
        return found, last

    async def register_device(
        self,
        project_id: str,
        user_id: str,
        token: str,
        *,
        platform: str | None,
        provider: str | None,
        bundle_id: str | None,
    ) -> tuple[PushToken, bool]:
        """As it is kept, and whether it is a new one.

        Args:
            platform: `ios`, `android`, or the provider in its place.

        Raises:
            Refused: INVALID_INPUT: neither says which, or they contradict each other.
        """
        named = _PLATFORMS.get(platform or "", platform) or _PLATFORMS.get(provider or "")
        if named is None:
            raise faults.INVALID_INPUT.refuse(
                "say platform, ios or android", {"field": "$.platform"}
            )
        derived = PROVIDERS[named]
        if provider is not None and provider != derived:
            raise faults.INVALID_INPUT.refuse(
                f"{named} is reached by {derived}, not {provider}; leave provider out",
                {"field": "$.provider"},
            )
        now_ms = time_ms(self._clock)
        new = PushToken(entropy.uuid4(), user_id, token, named, derived, bundle_id, now_ms, now_ms)
        return await self._store.write(project_id, lambda s: push_rows.register(s, new))

    async def forget_device(self, project_id: str, user_id: str, token: str) -> bool:
        """Whether the user had it; one of another user stays."""
        return await self._store.write(project_id, lambda s: push_rows.drop(s, user_id, token))

    async def latency_ms(self, project_id: str) -> int:
        """How long one look into the store takes."""
        start_s = self._clock.monotonic_s()
        await self._store.read(project_id, lambda s: user_rows.exists(s, ""))
        return round((self._clock.monotonic_s() - start_s) * 1000)

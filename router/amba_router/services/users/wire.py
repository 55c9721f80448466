"""Users as answers show them. Source: contract E.3, E.4."""

from __future__ import annotations

from typing import Any

from msgspec import json

from amba_router.api.asked import iso_ms
from amba_router.services.users.models import EndUser, SessionUser
from amba_router.store.user_rows import User


def end_user(user: User) -> EndUser:
    """All that is told of one."""
    return EndUser(
        id=user.id,
        email=user.email,
        display_name=user.display_name,
        avatar_url=user.avatar_url,
        external_id=user.external_id,
        anonymous_id=user.anonymous_id,
        auth_providers=list(user.auth_providers),
        properties=properties(user.properties),
        timezone=user.timezone,
        first_seen_at=iso_ms(user.first_seen_ms),
        last_seen_at=iso_ms(user.last_seen_ms),
    )


def session_user(user: User) -> SessionUser:
    """What comes with a new session."""
    return SessionUser(
        id=user.id,
        email=user.email,
        display_name=user.display_name,
        anonymous_id=user.anonymous_id,
        auth_providers=list(user.auth_providers),
        properties=properties(user.properties),
        first_seen_at=iso_ms(user.first_seen_ms),
        last_seen_at=iso_ms(user.last_seen_ms),
    )


def properties(text: str) -> dict[str, Any]:
    """As they were stored."""
    return json.decode(text, type=dict[str, Any])

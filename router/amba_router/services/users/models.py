"""Bodies of users, their sessions and devices. Source: contract E.0, E.3, E.4, E.14."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from amba_router.api.models import TEXT, Count, Iso, Label
from amba_runtime import limits

# --- asked ---

_Token = Annotated[str, Meta(min_length=1, max_length=4096)]
_DeviceToken = Annotated[str, Meta(min_length=1, max_length=4096, pattern=TEXT)]
_Url = Annotated[str, Meta(max_length=2048, pattern=TEXT)]
_Bundle = Annotated[str, Meta(min_length=1, max_length=255, pattern=TEXT)]


class AnonymousSignIn(Struct):
    """Nothing is read of it."""


class EmailSignIn(Struct):
    email: Annotated[str, Meta(max_length=1024)]
    password: Annotated[str, Meta(max_length=limits.PASSWORD_LENGTH.value)]


class RefreshSession(Struct):
    refresh_token: _Token


class UpdateMe(Struct, forbid_unknown_fields=True):
    """What is left out stays; null empties. `properties` are replaced as a whole."""

    display_name: Label | UnsetType | None = UNSET
    avatar_url: _Url | UnsetType | None = UNSET
    properties: dict[str, Any] | UnsetType = UNSET
    timezone: str | UnsetType | None = UNSET


class RegisterPushToken(Struct):
    """`platform` in either spelling, or `provider`; `bundleId` is `bundle_id`."""

    token: _DeviceToken
    platform: Literal["ios", "android", "apns", "fcm"] | None = None
    provider: Literal["apns", "fcm"] | None = None
    bundle_id: _Bundle | None = None
    bundleId: _Bundle | None = None  # as clients of the 4.x spell it


class ForgetPushToken(Struct):
    token: _DeviceToken


# --- answered ---


class SessionUser(Struct, kw_only=True):
    id: str
    email: str | None
    display_name: str | None
    anonymous_id: str | None
    auth_providers: list[str]
    properties: dict[str, Any]
    first_seen_at: Iso
    last_seen_at: Iso


class Session(Struct, kw_only=True):
    session_token: str
    refresh_token: str
    user: SessionUser
    anonymous_id: str | None


class SessionAnswer(Struct):
    data: Session


class RefreshedSession(Struct):
    session_token: str
    refresh_token: str


class RefreshedAnswer(Struct):
    data: RefreshedSession


class LoggedOut(Struct):
    logged_out: bool


class LoggedOutAnswer(Struct):
    data: LoggedOut


class EndUser(Struct, kw_only=True):
    id: str
    email: str | None
    display_name: str | None
    avatar_url: str | None
    external_id: str | None
    anonymous_id: str | None
    auth_providers: list[str]
    properties: dict[str, Any]
    timezone: str | None
    first_seen_at: Iso
    last_seen_at: Iso


class EndUserAnswer(Struct):
    data: EndUser


class EndUserList(Struct):
    data: list[EndUser]
    total: Count
    offset: Count
    limit: Count


class EndUserDetail(EndUser, kw_only=True):
    """`streaks` and `entitlements` are empty: neither is emulated."""

    streaks: list[Any]
    entitlements: list[Any]


class EndUserDetailAnswer(Struct):
    data: EndUserDetail


class EndUserEvent(Struct, kw_only=True):
    id: str
    app_user_id: str
    event_name: str
    properties: Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
    """As they are kept: they leave as they came."""
    occurred_at: Iso


class EndUserEventList(Struct):
    data: list[EndUserEvent]
    next_cursor: str | None


class PushTokenRow(Struct, kw_only=True):
    id: str
    token: str
    platform: Literal["ios", "android"]
    provider: Literal["apns", "fcm"]
    bundle_id: str | None
    created_at: Iso


class PushTokenAnswer(Struct):
    data: PushTokenRow


class ForgottenPushToken(Struct):
    deleted: bool


class ForgottenPushTokenAnswer(Struct):
    data: ForgottenPushToken


class Ping(Struct, kw_only=True):
    """`key_fingerprint`: the last four hex digits of the key's SHA-256."""

    ok: bool
    server_project_id: str
    environment: str
    key_fingerprint: str
    latency_ms: int
    error: str | None


class PingAnswer(Struct):
    data: Ping

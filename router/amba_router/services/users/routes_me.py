"""What a signed-in user asks and says of themselves. Source: contract E.3, E.14."""

from __future__ import annotations

from typing import Any

import msgspec

from amba_router.api import faults
from amba_router.api.asked import iso_ms, project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Reads
from amba_router.headers import TIMEZONE
from amba_router.services.users.models import (
    EndUserAnswer,
    ForgetPushToken,
    ForgottenPushToken,
    ForgottenPushTokenAnswer,
    PushTokenAnswer,
    PushTokenRow,
    RegisterPushToken,
    UpdateMe,
)
from amba_router.services.users.service import Users
from amba_router.services.users.wire import end_user
from amba_router.store.user_rows import User

_ME = "/client/users/me"
_TIME_ZONE = b"time-zone"
"""Read where the platform's own header is not sent. Source: contract E.3."""


def operations(users: Users) -> tuple[Operation, ...]:
    """Their part of the table."""
    me = _Me(users)
    return (
        Operation(
            "getMe",
            "GET",
            _ME,
            Auth.SESSION,
            "The session's user; a time zone that is not known yet is taken from the headers.",
            me.show,
            {200: EndUserAnswer},
            (faults.NOT_FOUND, *faults.WRITES),
        ),
        Operation(
            "updateMe",
            "PATCH",
            _ME,
            Auth.SESSION,
            "Change what is given.",
            me.update,
            {200: EndUserAnswer},
            (faults.NOT_FOUND, faults.INVALID_TIMEZONE, *faults.WRITES),
            reads=Reads.JSON,
            request=UpdateMe,
        ),
        Operation(
            "registerPushToken",
            "POST",
            f"{_ME}/push-token",
            Auth.SESSION,
            "A device of the session's user; one that is known is this user's from here on.",
            me.register,
            {200: PushTokenAnswer, 201: PushTokenAnswer},
            faults.WRITES,
            reads=Reads.JSON,
            request=RegisterPushToken,
        ),
        Operation(
            "forgetPushToken",
            "DELETE",
            f"{_ME}/push-token",
            Auth.SESSION,
            "No device of the session's user any more; says whether it was one.",
            me.forget,
            {200: ForgottenPushTokenAnswer},
            faults.WRITES,
            reads=Reads.JSON,
            request=ForgetPushToken,
        ),
    )


class _Me:
    def __init__(self, users: Users) -> None:
        self._users = users

    async def show(self, asked: Asked) -> Answer:
        zone = asked.header(TIMEZONE) or asked.header(_TIME_ZONE)
        return _shown(await self._users.me(project_of(asked).id, asked.user_id, zone))

    async def update(self, asked: Asked) -> Answer:
        body: UpdateMe = asked.body
        given = {
            name: getattr(body, name)
            for name in body.__struct_fields__
            if getattr(body, name) is not msgspec.UNSET
        }
        if "properties" in given:
            given["properties"] = _json(given["properties"])
        return _shown(await self._users.change(project_of(asked).id, asked.user_id, given))

    async def register(self, asked: Asked) -> Answer:
        body: RegisterPushToken = asked.body
        device, is_new = await self._users.register_device(
            project_of(asked).id,
            asked.user_id,
            body.token,
            platform=body.platform,
            provider=body.provider,
            bundle_id=body.bundle_id or body.bundleId,
        )
        row = PushTokenRow(
            id=device.id,
            token=device.token,
            platform="ios" if device.platform == "ios" else "android",
            provider="apns" if device.provider == "apns" else "fcm",
            bundle_id=device.bundle_id,
            created_at=iso_ms(device.created_ms),
        )
        return Answer(201 if is_new else 200, PushTokenAnswer(row))

    async def forget(self, asked: Asked) -> Answer:
        body: ForgetPushToken = asked.body
        had = await self._users.forget_device(project_of(asked).id, asked.user_id, body.token)
        return Answer(200, ForgottenPushTokenAnswer(ForgottenPushToken(had)))


def _shown(user: User | None) -> Answer:
    if user is None:
        raise faults.NOT_FOUND.refuse("the session's user is not there any more")
    return Answer(200, EndUserAnswer(end_user(user)))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()

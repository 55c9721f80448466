"""A project's users as its developer sees them. Source: contract E.4."""

from __future__ import annotations

from msgspec import Raw

from amba_router.api import faults
from amba_router.api.asked import OFFSET, iso_ms, number, parse_ms, project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Query
from amba_router.services.users.models import (
    EndUserDetail,
    EndUserDetailAnswer,
    EndUserEvent,
    EndUserEventList,
    EndUserList,
)
from amba_router.services.users.service import Users
from amba_router.services.users.wire import end_user
from amba_runtime import limits

_USERS = "/admin/projects/{project_id}/users"


def _limit(default: int, what: str) -> Query:
    most = limits.LIST_ROWS.value
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Query("limit", schema, f"{what} to give")


_SEARCH = Query(
    "search",
    {"type": "string", "maxLength": limits.USER_SEARCH.value},
    "part of the address, the external id or the display name, in either case",
)
_SEGMENT = Query("segment_id", {"type": "string"}, "of this segment alone")
_SINCE = Query("since", {"type": "string"}, "ISO 8601 or Unix milliseconds; from the first without")
_CURSOR = Query("cursor", {"type": "string"}, "`next_cursor` of the page before")


def operations(users: Users) -> tuple[Operation, ...]:
    """Their part of the table."""
    admin = _Admin(users)
    return (
        Operation(
            "listUsers",
            "GET",
            _USERS,
            Auth.PROJECT,
            "Newest active first.",
            admin.list,
            {200: EndUserList},
            (faults.INVALID_LIMIT, faults.SEGMENT_NOT_FOUND),
            query=(OFFSET, _limit(limits.USERS_PAGE.value, "users"), _SEARCH, _SEGMENT),
        ),
        Operation(
            "getUser",
            "GET",
            f"{_USERS}/{{user_id}}",
            Auth.PROJECT,
            "One user.",
            admin.show,
            {200: EndUserDetailAnswer},
            (faults.USER_NOT_FOUND,),
        ),
        Operation(
            "listUserEvents",
            "GET",
            f"{_USERS}/{{user_id}}/events",
            Auth.PROJECT,
            "What a user did, newest first.",
            admin.events,
            {200: EndUserEventList},
            (
                *(faults.USER_NOT_FOUND, faults.INVALID_LIMIT),
                *(faults.INVALID_SINCE, faults.INVALID_CURSOR),
            ),
            query=(_limit(limits.USER_EVENTS_PAGE.value, "events"), _SINCE, _CURSOR),
        ),
    )


class _Admin:
    def __init__(self, users: Users) -> None:
        self._users = users

    async def list(self, asked: Asked) -> Answer:
        offset = number(asked, "offset", 0, least=0, most=OFFSET.schema["maximum"])
        limit = _number(asked, limits.USERS_PAGE.value)
        search = asked.query.get("search", "")
        if len(search) > limits.USER_SEARCH.value:
            raise faults.INVALID_INPUT.refuse(
                f"search has at most {limits.USER_SEARCH.value} characters",
                {"parameter": "search"},
            )
        found, total = await self._users.page(
            project_of(asked).id,
            search=search,
            segment_id=asked.query.get("segment_id") or None,
            offset=offset,
            limit=limit,
        )
        return Answer(200, EndUserList([end_user(user) for user in found], total, offset, limit))

    async def show(self, asked: Asked) -> Answer:
        user_id = asked.path["user_id"]
        user = await self._users.get(project_of(asked).id, user_id)
        if user is None:
            raise faults.no_user(user_id)
        shown = end_user(user)
        fields = {name: getattr(shown, name) for name in shown.__struct_fields__}
        detail = EndUserDetail(**fields, streaks=[], entitlements=[])
        return Answer(200, EndUserDetailAnswer(detail))

    async def events(self, asked: Asked) -> Answer:
        user_id = asked.path["user_id"]
        since = asked.query.get("since")
        since_ms = None if since is None else parse_ms(since)
        if since is not None and since_ms is None:
            raise faults.INVALID_SINCE.refuse(
                "since is ISO 8601 or Unix milliseconds", {"parameter": "since"}
            )
        found, cursor = await self._users.events(
            project_of(asked).id,
            user_id,
            since_ms=since_ms,
            cursor=asked.query.get("cursor"),
            limit=_number(asked, limits.USER_EVENTS_PAGE.value),
        )
        rows = [
            EndUserEvent(
                id=event.id,
                app_user_id=user_id,
                event_name=event.name,
                properties=Raw(event.properties.encode()),
                occurred_at=iso_ms(event.occurred_ms),
            )
            for event in found
        ]
        return Answer(200, EndUserEventList(rows, cursor))


def _number(asked: Asked, default: int) -> int:
    return number(asked, "limit", default, least=1, most=limits.LIST_ROWS.value)

"""Push tokens of users' devices; each belongs to who registered it last. Source: contract E.14."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import push_tokens
from amba_runtime import limits


@dataclass(frozen=True, slots=True)
class PushToken:
    """One device. Attributes: provider: `apns` or `fcm`, as `platform` has it."""

    id: str
    user_id: str
    token: str
    platform: str
    provider: str
    bundle_id: str | None
    created_ms: int
    updated_ms: int


def register(scoped: Scoped, new: PushToken) -> tuple[PushToken, bool]:
    """As it is kept, and whether it is a new one.

    One that is there keeps its id and its age. Of a user's devices the one that registered
    longest ago gives way to one too many.
    """
    columns = push_tokens.c
    same = columns.token.in_([new.token])
    values = {
        "user_id": new.user_id,
        "platform": new.platform,
        "provider": new.provider,
        "bundle_id": new.bundle_id,
        "updated_ms": new.updated_ms,
    }
    old = scoped.row(scoped.query(push_tokens).where(same))
    if old is not None:
        scoped.change(push_tokens, same, **values)
    else:
        scoped.add(
            push_tokens,
            {**values, "id": new.id, "token": new.token, "created_ms": new.created_ms},
        )
    _trim(scoped, new)
    row = scoped.row(scoped.query(push_tokens).where(same))
    assert row is not None, "it was written just now"
    return _push_token(row), old is None


def _trim(scoped: Scoped, new: PushToken) -> None:
    columns = push_tokens.c
    own = columns.user_id == new.user_id
    over = scoped.count(push_tokens, own) - limits.PUSH_TOKENS.value
    if over > 0:
        query = scoped.query(push_tokens, columns.seq).where(own, columns.token.not_in([new.token]))
        oldest = scoped.rows(query.order_by(columns.updated_ms, columns.seq).limit(over))
        scoped.drop(push_tokens, columns.seq.in_([row.seq for row in oldest]))


def of_user(scoped: Scoped, user_id: str) -> list[PushToken]:
    """A user's devices, in the order in which they were first registered."""
    query = scoped.query(push_tokens).where(push_tokens.c.user_id == user_id)
    return [_push_token(row) for row in scoped.rows(query.order_by(push_tokens.c.seq))]


def drop(scoped: Scoped, user_id: str, token: str) -> bool:
    """Without this device of a user; whether they had it."""
    columns = push_tokens.c
    dropped = scoped.drop(push_tokens, columns.user_id == user_id, columns.token.in_([token]))
    return dropped == 1


def _push_token(row: Row[Any]) -> PushToken:
    return PushToken(
        id=row.id,
        user_id=row.user_id,
        token=row.token,
        platform=row.platform,
        provider=row.provider,
        bundle_id=row.bundle_id,
        created_ms=row.created_ms,
        updated_ms=row.updated_ms,
    )

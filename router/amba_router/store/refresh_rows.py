"""Refresh tokens: digests, the family of each, and that a used one ends them all.

Source: contract E.3 ("old one revoked, replay detected").
"""

from __future__ import annotations

from dataclasses import dataclass

from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import refresh_tokens
from amba_runtime import limits


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What is kept of one. Attributes: digest: SHA-256 of it. family: all of one sign-in."""

    digest: bytes
    user_id: str
    family: str
    created_ms: int
    expires_ms: int


def add(scoped: Scoped, new: RefreshToken) -> None:
    """A new one; where its user has too many, used ones and then the oldest are forgotten."""
    columns = refresh_tokens.c
    own = columns.user_id == new.user_id
    scoped.drop(refresh_tokens, own, columns.expires_ms <= new.created_ms)
    over = scoped.count(refresh_tokens, own) + 1 - limits.REFRESH_TOKENS.value
    if over > 0:
        query = scoped.query(refresh_tokens, columns.digest).where(own)
        order = query.order_by(columns.used_ms.is_(None), columns.created_ms)
        oldest = [row.digest for row in scoped.rows(order.limit(over))]
        scoped.drop(refresh_tokens, columns.digest.in_(oldest))
    scoped.add(
        refresh_tokens,
        {
            "digest": new.digest,
            "user_id": new.user_id,
            "family": new.family,
            "created_ms": new.created_ms,
            "expires_ms": new.expires_ms,
            "revoked": False,
        },
    )


def get(scoped: Scoped, digest: bytes, now_ms: int) -> RefreshToken | None:
    """One that is good still, or was until it was used."""
    columns = refresh_tokens.c
    query = scoped.query(refresh_tokens).where(
        columns.digest == digest, columns.expires_ms > now_ms, columns.revoked.is_(False)
    )
    row = scoped.row(query)
    if row is None:
        return None
    return RefreshToken(row.digest, row.user_id, row.family, row.created_ms, row.expires_ms)


def use(scoped: Scoped, found: RefreshToken, now_ms: int) -> bool:
    """Whether this was its first use; a second one revokes its family."""
    columns = refresh_tokens.c
    first = scoped.change(
        refresh_tokens,
        columns.digest == found.digest,
        columns.used_ms.is_(None),
        used_ms=now_ms,
    )
    if not first:
        revoke(scoped, found.family)
    return first == 1


def revoke(scoped: Scoped, family: str) -> None:
    """None of these is good any more."""
    scoped.change(refresh_tokens, refresh_tokens.c.family == family, revoked=True)

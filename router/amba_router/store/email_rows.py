"""The outbox of one project: its statements. Source: contract E.11."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Row

from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import emails


@dataclass(frozen=True, slots=True)
class EmailRecord:
    """One mail; `data` is JSON."""

    id: str
    user_id: str | None
    recipient: str
    template: str | None
    subject: str
    html: str | None
    text: str | None
    data: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class ListedEmail:
    """What a list shows of one mail."""

    id: str
    user_id: str | None
    recipient: str
    template: str | None
    subject: str
    created_ms: int


def add(scope: Scoped, record: EmailRecord, *, most: int) -> list[str]:
    """A new one; the ids of the oldest, which go where there are more than `most`."""
    scope.add(emails, asdict(record))
    over = scope.count(emails) - most
    if over <= 0:
        return []
    oldest = scope.query(emails, emails.c.seq, emails.c.id).order_by(emails.c.seq).limit(over)
    gone = scope.rows(oldest)
    scope.drop(emails, emails.c.seq.in_([row.seq for row in gone]))
    return [row.id for row in gone]


def page(scope: Scoped, *, offset: int, limit: int) -> tuple[list[ListedEmail], int]:
    """Mails, the newest first, and how many there are in all."""
    shown = [emails.c[field.name] for field in fields(ListedEmail)]
    newest = scope.query(emails, *shown).order_by(emails.c.seq.desc())
    rows = scope.rows(newest.offset(offset).limit(limit))
    found = [
        ListedEmail(row.id, row.user_id, row.recipient, row.template, row.subject, row.created_ms)
        for row in rows
    ]
    return found, scope.count(emails)


def ids(scope: Scoped) -> set[str]:
    """Of all that are kept."""
    return {row.id for row in scope.rows(scope.query(emails, emails.c.id))}


def find(scope: Scoped, id_: str) -> EmailRecord | None:
    """One of them."""
    row = scope.row(scope.query(emails).where(emails.c.id == id_))
    return None if row is None else _email(row)


def _email(row: Row[Any]) -> EmailRecord:
    return EmailRecord(
        row.id,
        row.user_id,
        row.recipient,
        row.template,
        row.subject,
        row.html,
        row.text,
        row.data,
        row.created_ms,
    )

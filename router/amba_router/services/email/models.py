"""The bodies of the email service, both ways. Source: contract E.11; H-8 (doubled keys)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from amba_router.api.models import Count, Iso
from amba_runtime import limits

Address = Annotated[str, Meta(min_length=1, max_length=limits.EMAIL_ADDRESS.value)]
Template = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9_]*(?![\s\S])",
        max_length=limits.EMAIL_TEMPLATE.value,
        description="templates are not emulated: any name is taken, `data` is listed",
    ),
]
Subject = Annotated[str, Meta(min_length=1, max_length=limits.EMAIL_SUBJECT.value)]


class Recipient(Struct, kw_only=True):
    """One of the two."""

    user_id: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    email: Address | None = None


class SendEmail(Struct, kw_only=True):
    """With a `template`, or a `subject` and `html`, `text` or both."""

    to: Recipient
    template: Template | None = None
    data: dict[str, Any] | None = None
    subject: Subject | None = None
    html: str | None = None
    text: str | None = None


class SendUserEmail(Struct, kw_only=True):
    """To the session's user."""

    template: Template
    data: dict[str, Any] | None = None


class SentEmail(Struct):
    id: str
    status: Literal["sent"]


class SentEmailAnswer(Struct):
    """`data` and the same keys at the top (contract H-8)."""

    data: SentEmail
    id: str
    status: Literal["sent"]


class UserEmail(Struct):
    message_id: str | None
    status: Literal["sent", "suppressed"]


class UserEmailAnswer(Struct):
    data: UserEmail


class EmailRow(Struct, kw_only=True):
    """`file` lies below the state directory; the oldest are gone."""

    id: str
    to: str
    user_id: str | None
    template: str | None
    subject: str
    file: str
    created_at: Iso


class Email(EmailRow, kw_only=True):
    html: str | None
    text: str | None
    data: dict[str, Any]


class EmailList(Struct):
    data: list[EmailRow]
    total: Count
    offset: Count
    limit: Count


class EmailAnswer(Struct):
    data: Email

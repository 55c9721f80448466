"""Mail goes into an outbox and nowhere else. Source: contract E.11.

Ours: templates are not kept, so a template's name is taken as it is and its mail lists `data`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from amba_router.api import faults
from amba_router.services.email.files import Outbox
from amba_router.store import email_rows, user_rows
from amba_router.store.email_rows import EmailRecord, ListedEmail
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_runtime import entropy, limits
from amba_runtime.clock import Clock, time_ms

_ADDRESS = re.compile(r"[^\s\x00-\x1f\x7f@<>()\[\],;:\\\"]+@[^\s\x00-\x1f\x7f@<>()\[\],;:\\\"]+\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class NewEmail:
    """One mail: with a template, or a subject and html, text or both.

    Attributes:
        user_id, email: one of the two.
    """

    user_id: str | None = None
    email: str | None = None
    template: str | None = None
    data: dict[str, Any] | None = None
    subject: str | None = None
    html: str | None = None
    text: str | None = None


class EmailService:
    """Of all projects."""

    def __init__(self, store: ProjectStore, files: Outbox, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.files = files

    async def send(self, project_id: str, new: NewEmail) -> EmailRecord | None:
        """Into the outbox: durable when this returns. None for a user without an address.

        Raises:
            Refused: INVALID_INPUT; USER_NOT_FOUND.
        """
        _check(new)
        now_ms = time_ms(self._clock)
        data = msgspec.json.encode(new.data or {}).decode()
        _check_size("$.data", data)

        def work(scope: Scoped) -> tuple[EmailRecord, list[str]] | None:
            recipient = _recipient(scope, new)
            if recipient is None:
                return None
            record = EmailRecord(
                id=entropy.uuid4(),
                user_id=new.user_id,
                recipient=recipient,
                template=new.template,
                subject=new.template or new.subject or "",
                html=new.html,
                text=new.text if new.template is None else _listing(new),
                data=data,
                created_ms=now_ms,
            )
            return record, email_rows.add(scope, record, most=limits.EMAILS_KEPT.value)

        sent = await self._store.write(project_id, work)
        if sent is None:
            return None
        await self.files.put(project_id, *sent)
        return sent[0]

    async def page(
        self, project_id: str, *, offset: int, limit: int
    ) -> tuple[list[ListedEmail], int]:
        """Mails, the newest first, and how many there are in all."""
        return await self._store.read(
            project_id, lambda scope: email_rows.page(scope, offset=offset, limit=limit)
        )

    async def find(self, project_id: str, id_: str) -> EmailRecord | None:
        """One of them."""
        return await self._store.read(project_id, lambda scope: email_rows.find(scope, id_))


def _recipient(scope: Scoped, new: NewEmail) -> str | None:
    if new.user_id is None:
        return new.email
    user = user_rows.get(scope, new.user_id)
    if user is None:
        raise faults.no_user(new.user_id, "nothing was sent")
    # an address of a user that no mail can carry is as good as none
    return user.email if user.email and _ADDRESS.match(user.email) else None


def _check(new: NewEmail) -> None:
    if (new.user_id is None) == (new.email is None):
        raise _wrong("$.to", "to has either user_id or email")
    if new.email is not None and not _ADDRESS.match(new.email):
        raise _wrong("$.to.email", "to.email must be one plain address, such as ada@example.com")
    if new.template is not None:
        if (new.subject, new.html, new.text) != (None, None, None):
            raise _wrong("$.template", "send a template, or subject with html or text, not both")
        return
    if new.subject is None or (new.html is None and new.text is None):
        raise _wrong("$.subject", "send a template, or a subject with html or text")
    if _CONTROL.search(new.subject):
        raise _wrong("$.subject", "a subject has no line breaks or other control characters")
    _check_size("$.html", new.html or "")
    _check_size("$.text", new.text or "")


def _check_size(place: str, text: str) -> None:
    most = limits.EMAIL_BODY.value
    if len(text.encode()) > most:
        raise _wrong(place, f"{place[2:]} is larger than {most} bytes", bytes_max=most)


def _wrong(place: str, message: str, **details: Any) -> faults.Refused:
    return faults.INVALID_INPUT.refuse(message, {"field": place, **details})


def _listing(new: NewEmail) -> str:
    lines = [f"Template: {new.template}", ""]
    for name, value in (new.data or {}).items():
        shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        lines.append(f"{name}: {shown}")
    return "\n".join(lines) + "\n"

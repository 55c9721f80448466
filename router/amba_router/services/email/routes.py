"""Email over HTTP: sending into the outbox, and reading it. Source: contract E.11, H-8."""

from __future__ import annotations

from typing import Any

import msgspec

from amba_router.api import faults
from amba_router.api.asked import LIMIT, OFFSET, iso_ms, page, project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Reads
from amba_router.services.email.files import FOLDER
from amba_router.services.email.models import (
    Email,
    EmailAnswer,
    EmailList,
    EmailRow,
    SendEmail,
    SendUserEmail,
    SentEmail,
    SentEmailAnswer,
    UserEmail,
    UserEmailAnswer,
)
from amba_router.services.email.service import EmailService, NewEmail
from amba_router.store.email_rows import EmailRecord, ListedEmail

_BASE = "/admin/projects/{project_id}/email"


def operations(service: EmailService) -> tuple[Operation, ...]:
    """Their part of the table."""
    email = _Email(service)
    return (
        *(
            Operation(
                id_,
                "POST",
                path,
                auth,
                "Put a mail into the outbox: with a template, or a subject and a body.",
                email.send,
                {200: SentEmailAnswer},
                (faults.USER_NOT_FOUND, *faults.WRITES),
                reads=Reads.JSON,
                request=SendEmail,
            )
            for id_, path, auth in (
                ("sendEmail", f"{_BASE}/send", Auth.PROJECT),
                ("sendInternalEmail", "/admin/internal/email/send", Auth.FUNCTION),
            )
        ),
        Operation(
            "sendUserEmail",
            "POST",
            "/client/email/send",
            Auth.SESSION,
            "Put a mail to the session's user into the outbox.",
            email.send_to_user,
            {200: UserEmailAnswer},
            (faults.INVALID_BODY, *faults.WRITES),
            reads=Reads.JSON,
            request=dict[str, Any],
            content={
                "application/json": {
                    "schema": {"$ref": f"#/components/schemas/{SendUserEmail.__name__}"}
                }
            },
            also=(SendUserEmail,),
        ),
        Operation(
            "listOutbox",
            "GET",
            f"{_BASE}/outbox",
            Auth.PROJECT,
            "What was sent, the newest first.",
            email.list,
            {200: EmailList},
            (faults.INVALID_LIMIT,),
            query=(OFFSET, LIMIT),
            ours=True,
        ),
        Operation(
            "getOutboxEmail",
            "GET",
            f"{_BASE}/outbox/{{email_id}}",
            Auth.PROJECT,
            "One mail with its body.",
            email.get,
            {200: EmailAnswer},
            (faults.NOT_FOUND,),
            ours=True,
        ),
    )


class _Email:
    def __init__(self, service: EmailService) -> None:
        self._service = service

    async def send(self, asked: Asked) -> Answer:
        body: SendEmail = asked.body
        record = await self._service.send(
            project_of(asked).id,
            NewEmail(
                user_id=body.to.user_id,
                email=body.to.email,
                template=body.template,
                data=body.data,
                subject=body.subject,
                html=body.html,
                text=body.text,
            ),
        )
        if record is None:
            raise faults.INVALID_INPUT.refuse(
                "this user has no address that mail could go to; send to an email",
                {"field": "$.to.user_id"},
            )
        return Answer(200, SentEmailAnswer(SentEmail(record.id, "sent"), record.id, "sent"))

    async def send_to_user(self, asked: Asked) -> Answer:
        try:
            body = msgspec.convert(asked.body, SendUserEmail)
        except msgspec.ValidationError as error:
            raise faults.INVALID_BODY.refuse(f"the body is not right: {error}") from None
        try:
            record = await self._service.send(
                project_of(asked).id,
                NewEmail(user_id=asked.user_id, template=body.template, data=body.data),
            )
        except faults.Refused as refusal:
            if refusal.fault is not faults.INVALID_INPUT:
                raise
            problem = refusal.problem
            raise faults.INVALID_BODY.refuse(problem.message, problem.details) from None
        if record is None:
            return Answer(200, UserEmailAnswer(UserEmail(None, "suppressed")))
        return Answer(200, UserEmailAnswer(UserEmail(record.id, "sent")))

    async def list(self, asked: Asked) -> Answer:
        offset, limit = page(asked)
        project_id = project_of(asked).id
        records, total = await self._service.page(project_id, offset=offset, limit=limit)
        rows = [EmailRow(**_row(project_id, record)) for record in records]
        return Answer(200, EmailList(rows, total, offset, limit))

    async def get(self, asked: Asked) -> Answer:
        project_id, id_ = project_of(asked).id, asked.path["email_id"]
        record = await self._service.find(project_id, id_)
        if record is None:
            raise faults.NOT_FOUND.refuse(
                "no such mail in this project's outbox; the oldest go",
                {"resource": "email", "id": id_[:64]},
            )
        return Answer(
            200,
            EmailAnswer(
                Email(
                    **_row(project_id, record),
                    html=record.html,
                    text=record.text,
                    data=msgspec.json.decode(record.data, type=dict[str, Any]),
                )
            ),
        )


def _row(project_id: str, record: EmailRecord | ListedEmail) -> dict[str, Any]:
    return {
        "id": record.id,
        "to": record.recipient,
        "user_id": record.user_id,
        "template": record.template,
        "subject": record.subject,
        "file": f"{FOLDER}/{project_id}/{record.id}.eml",
        "created_at": iso_ms(record.created_ms),
    }

"""Queues on the wire: what the platform has; ours are in `message_routes`.

Source: contract D.7, H-8 (doubled keys), H-14.
"""

from __future__ import annotations

from amba_router.api import faults
from amba_router.api.asked import LIMIT, OFFSET, confirmed, iso_ms, page, project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Query, Reads
from amba_router.services.queues import rules
from amba_router.services.queues.message_routes import operations as message_operations
from amba_router.services.queues.models import (
    BindQueue,
    QueueBinding,
    QueueBindingAnswer,
    QueueBindingList,
    SendJob,
    SentJob,
    SentJobAnswer,
    UnboundQueue,
    UnboundQueueAnswer,
)
from amba_router.services.queues.service import QueueService, Send
from amba_router.store.queue_records import Binding, Settings

_BASE = "/admin/projects/{project_id}/queue"


def operations(service: QueueService) -> tuple[Operation, ...]:
    """Their part of the table."""
    queues = _Queues(service)
    return (
        Operation(
            "bindQueue",
            "PUT",
            f"{_BASE}/bindings",
            Auth.PROJECT,
            "Let a function consume a queue, in place of the one that did; active unless said.",
            queues.bind,
            {200: QueueBindingAnswer},
            (
                *(faults.INVALID_NAME, faults.FUNCTION_NOT_FOUND, faults.HANDLER_MISSING),
                *faults.WRITES,
            ),
            reads=Reads.JSON,
            request=BindQueue,
        ),
        Operation(
            "listQueueBindings",
            "GET",
            f"{_BASE}/bindings",
            Auth.PROJECT,
            "Who consumes which queue, by the queue's name.",
            queues.bindings,
            {200: QueueBindingList},
            (faults.INVALID_LIMIT,),
            query=(OFFSET, LIMIT),
        ),
        Operation(
            "unbindQueue",
            "DELETE",
            f"{_BASE}/bindings/{{queue}}",
            Auth.PROJECT,
            "Nobody consumes the queue; its messages stay. Idempotent.",
            queues.unbind,
            {200: UnboundQueueAnswer},
            (faults.CONFIRM_REQUIRED, *faults.WRITES),
            query=(Query("confirm", {"type": "string"}, "the name again", required=True),),
        ),
        Operation(
            "sendJob",
            "POST",
            f"{_BASE}/send",
            Auth.PROJECT,
            "Keep a message and have it delivered; durable when this answers.",
            queues.send,
            {200: SentJobAnswer},
            (
                *(faults.INVALID_NAME, faults.QUEUE_NOT_BOUND, faults.QUEUE_FULL),
                *(faults.INVALID_DELAY, faults.INVALID_IDEMPOTENCY_KEY, *faults.WRITES),
            ),
            reads=Reads.JSON,
            request=SendJob,
        ),
        *message_operations(service),
    )


class _Queues:
    def __init__(self, service: QueueService) -> None:
        self._service = service

    async def bind(self, asked: Asked) -> Answer:
        body: BindQueue = asked.body
        bound = await self._service.bind(
            project_of(asked).id,
            body.queue_name,
            body.function_name,
            body.status,
            Settings(
                batch_size=body.batch_size,
                batch_wait_ms=body.batch_wait_ms,
                consumers=body.consumers,
                retries=body.retries,
                backoff_ms=body.backoff_ms,
            ),
        )
        return Answer(200, QueueBindingAnswer(_row(bound)))

    async def bindings(self, asked: Asked) -> Answer:
        offset, limit = page(asked)
        bound = await self._service.bindings(project_of(asked).id)
        rows = [_row(one) for one in bound[offset : offset + limit]]
        return Answer(200, QueueBindingList(rows, len(bound), offset, limit))

    async def unbind(self, asked: Asked) -> Answer:
        queue = asked.path["queue"]
        confirmed(asked, queue)
        await self._service.unbind(project_of(asked).id, queue)
        return Answer(200, UnboundQueueAnswer(UnboundQueue(queue[:80], True)))

    async def send(self, asked: Asked) -> Answer:
        body: SendJob = asked.body
        rules.check_name(body.name, "$.name")
        rules.check_key(body.idempotency_key)
        new = Send(
            body.name,
            rules.payload_text(bytes(body.payload), "$.payload"),
            rules.delay_ms(body.delay_seconds),
            body.idempotency_key,
        )
        job_id = await self._service.send(project_of(asked).id, new)
        return Answer(200, SentJobAnswer(SentJob(job_id), job_id))


def _row(bound: Binding) -> QueueBinding:
    settings = bound.settings
    return QueueBinding(
        id=bound.id,
        queue_name=bound.queue,
        function_name=bound.function,
        status=bound.status,
        batch_size=settings.batch_size,
        batch_wait_ms=settings.batch_wait_ms,
        consumers=settings.consumers,
        retries=settings.retries,
        backoff_ms=settings.backoff_ms,
        source=bound.source,
        created_at=iso_ms(bound.created_ms),
        updated_at=iso_ms(bound.updated_ms),
    )

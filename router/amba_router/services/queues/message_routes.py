"""What lies in queues, and drills, on the wire: ours, beside the platform's. Source: issue 6."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Raw

from amba_router.api import faults
from amba_router.api.asked import LIMIT, OFFSET, iso_ms, page, project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Query, Reads
from amba_router.services.queues import rules
from amba_router.services.queues.models import (
    DeliveredBatch,
    DeliveredBatchAnswer,
    DeliverNow,
    DeliveryLine,
    FailingNext,
    FailingNextAnswer,
    FailNext,
    MessageVerdict,
    PurgedQueue,
    PurgedQueueAnswer,
    PurgeQueue,
    QueueJob,
    QueueJobList,
    QueueList,
    QueueRow,
    Redeliver,
    Redelivered,
    RedeliveredAnswer,
)
from amba_router.services.queues.service import QueueService
from amba_router.store.queue_records import Binding, DeliveredNow, Depth, Job, State
from amba_runtime import limits

_BASE = "/admin/projects/{project_id}/queue"
_ONE = f"{_BASE}/{{queue}}"
_STATES: Mapping[str, State] = MappingProxyType(
    {"waiting": "waiting", "delayed": "delayed", "leased": "leased", "dead": "dead"}
)


def operations(service: QueueService) -> tuple[Operation, ...]:
    """Their part of the table."""
    messages = _Messages(service)
    named = (faults.INVALID_NAME,)
    return (
        Operation(
            "listQueues",
            "GET",
            f"{_BASE}/queues",
            Auth.PROJECT,
            "Queues with a binding or messages, and how many messages are in which state.",
            messages.queues,
            {200: QueueList},
            ours=True,
        ),
        Operation(
            "listJobs",
            "GET",
            f"{_ONE}/jobs",
            Auth.PROJECT,
            "Messages in order of availability, dead letters the newest first.",
            messages.jobs,
            {200: QueueJobList},
            (faults.INVALID_LIMIT, faults.INVALID_INPUT, *named),
            query=(Query("state", {"enum": list(_STATES)}, "only these"), OFFSET, LIMIT),
            ours=True,
        ),
        Operation(
            "redeliverJobs",
            "POST",
            f"{_ONE}/redeliver",
            Auth.PROJECT,
            "Dead letters are due now, as if they had just been sent.",
            messages.redeliver,
            {200: RedeliveredAnswer},
            (*named, *faults.WRITES),
            reads=Reads.MAYBE_JSON,
            request=Redeliver,
            ours=True,
        ),
        Operation(
            "purgeQueue",
            "POST",
            f"{_ONE}/purge",
            Auth.PROJECT,
            "Drop messages, but none that is being delivered.",
            messages.purge,
            {200: PurgedQueueAnswer},
            (*named, *faults.WRITES),
            reads=Reads.JSON,
            request=PurgeQueue,
            ours=True,
        ),
        Operation(
            "failNextDeliveries",
            "POST",
            f"{_ONE}/fail-next",
            Auth.PROJECT,
            "Let the next deliveries fail before they reach the function; until a restart.",
            messages.fail_next,
            {200: FailingNextAnswer},
            (*named, faults.QUEUE_NOT_BOUND, faults.FUNCTION_NOT_FOUND, faults.HANDLER_MISSING),
            reads=Reads.JSON,
            request=FailNext,
            ours=True,
        ),
        Operation(
            "deliverBatch",
            "POST",
            f"{_ONE}/deliver",
            Auth.PROJECT,
            "Deliver one batch now, stored nowhere; 200 however it ends.",
            messages.deliver,
            {200: DeliveredBatchAnswer},
            (*named, faults.QUEUE_NOT_BOUND, faults.FUNCTION_NOT_FOUND, faults.HANDLER_MISSING),
            reads=Reads.MAYBE_JSON,
            request=DeliverNow,
            bytes_max=limits.QUEUE_NOW_BYTES.value,
            ours=True,
        ),
    )


class _Messages:
    def __init__(self, service: QueueService) -> None:
        self._service = service

    async def queues(self, asked: Asked) -> Answer:
        found = await self._service.overview(project_of(asked).id)
        return Answer(200, QueueList([_queue(depth, bound) for depth, bound in found]))

    async def jobs(self, asked: Asked) -> Answer:
        offset, limit = page(asked)
        named = asked.query.get("state")
        state = None if named is None else _STATES.get(named)
        if named is not None and state is None:
            raise faults.INVALID_INPUT.refuse(
                f"state is one of {', '.join(_STATES)}", {"parameter": "state"}
            )
        found, total = await self._service.jobs(
            project_of(asked).id,
            _named(asked),
            state,
            offset=offset,
            limit=limit,
        )
        return Answer(200, QueueJobList([_job(job) for job in found], total, offset, limit))

    async def redeliver(self, asked: Asked) -> Answer:
        body: Redeliver = asked.body
        queue = _named(asked)
        count = await self._service.redeliver(project_of(asked).id, queue, body.job_ids)
        return Answer(200, RedeliveredAnswer(Redelivered(queue, count)))

    async def purge(self, asked: Asked) -> Answer:
        body: PurgeQueue = asked.body
        queue = _named(asked)
        count = await self._service.purge(project_of(asked).id, queue, body.state)
        return Answer(200, PurgedQueueAnswer(PurgedQueue(queue, count)))

    async def fail_next(self, asked: Asked) -> Answer:
        body: FailNext = asked.body
        queue = _named(asked)
        await self._service.fail_next(project_of(asked).id, queue, body.count)
        return Answer(200, FailingNextAnswer(FailingNext(queue, body.count)))

    async def deliver(self, asked: Asked) -> Answer:
        body: DeliverNow = asked.body
        queue = _named(asked)
        one = bytes(body.payload)
        if one and body.payloads:
            raise faults.INVALID_INPUT.refuse(
                "send payload, or payloads, not both", {"field": "$.payloads"}
            )
        if body.payloads:
            payloads = [
                rules.payload_text(bytes(raw), f"$.payloads[{at}]")
                for at, raw in enumerate(body.payloads)
            ]
        else:
            payloads = [rules.payload_text(one or b"null", "$.payload")]
        delivered = await self._service.deliver(project_of(asked).id, queue, payloads)
        return Answer(200, DeliveredBatchAnswer(_delivered(delivered)))


def _named(asked: Asked) -> str:
    queue = asked.path["queue"]
    rules.check_known(queue)
    return queue


def _queue(depth: Depth, bound: Binding | None) -> QueueRow:
    return QueueRow(
        queue_name=depth.queue,
        function_name=None if bound is None else bound.function,
        status=None if bound is None else bound.status,
        waiting=depth.waiting,
        delayed=depth.delayed,
        leased=depth.leased,
        dead=depth.dead,
        oldest_waiting_at=None if depth.oldest_ms is None else iso_ms(depth.oldest_ms),
    )


def _job(job: Job) -> QueueJob:
    return QueueJob(
        id=job.id,
        state=job.state,
        payload=Raw(job.payload.encode()),
        attempts=job.attempts,
        failures=job.failures,
        created_at=iso_ms(job.created_ms),
        due_at=iso_ms(job.due_ms),
        reason=job.reason,
        error=job.error,
        dead_at=None if job.dead_ms is None else iso_ms(job.dead_ms),
    )


def _delivered(delivered: DeliveredNow) -> DeliveredBatch:
    return DeliveredBatch(
        request_id=delivered.request_id,
        outcome=delivered.outcome.value,
        error=delivered.error or None,
        ms=round(delivered.ms, 3),
        messages=[
            MessageVerdict(
                id=id_,
                verdict="acked" if verdict.acked else "retried",
                delay_seconds=verdict.delay_s,
            )
            for id_, verdict in delivered.verdicts
        ],
        logs=[DeliveryLine(line.level, line.message, line.timestamp_ms) for line in delivered.logs],
    )

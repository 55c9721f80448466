"""The bodies of the queue service, both ways. Source: contract D.7, H-8 (doubled keys), H-14."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct, field

from amba_router.api.models import Count, Iso
from amba_router.store.queue_records import Settings
from amba_runtime import limits

Status = Literal["active", "paused"]
BatchSize = Annotated[int, Meta(ge=1, le=limits.QUEUE_BATCH.value)]
BatchWait = Annotated[int, Meta(ge=0, le=limits.QUEUE_BATCH_WAIT_MS.value)]
Consumers = Annotated[int, Meta(ge=1, le=limits.QUEUE_CONSUMERS.value)]
Retries = Annotated[int, Meta(ge=0, le=limits.QUEUE_RETRIES.value)]
Backoff = Annotated[int, Meta(ge=0, le=limits.QUEUE_BACKOFF_MOST_MS.value)]
_USUAL = Settings()


# --- bindings ---


class BindQueue(Struct, kw_only=True):
    """What is left out is as it is for a new binding: nothing of an old one stays."""

    queue_name: str
    function_name: str
    status: Status = "active"
    batch_size: BatchSize = _USUAL.batch_size
    batch_wait_ms: BatchWait = _USUAL.batch_wait_ms
    consumers: Consumers = _USUAL.consumers
    retries: Retries = _USUAL.retries
    backoff_ms: Backoff = _USUAL.backoff_ms


class QueueBinding(Struct, kw_only=True):
    """`source` is `file` for what `amba.toml` declares."""

    id: str
    queue_name: str
    function_name: str
    status: Status
    batch_size: BatchSize
    batch_wait_ms: BatchWait
    consumers: Consumers
    retries: Retries
    backoff_ms: Backoff
    source: Literal["api", "file"]
    created_at: Iso
    updated_at: Iso


class QueueBindingAnswer(Struct):
    data: QueueBinding


class QueueBindingList(Struct):
    data: list[QueueBinding]
    total: Count
    offset: Count
    limit: Count


class UnboundQueue(Struct):
    queue_name: str
    deleted: bool


class UnboundQueueAnswer(Struct):
    data: UnboundQueue


# --- messages ---


class SendJob(Struct, kw_only=True):
    """`payload` is any JSON, delivered as it was sent; null without one.

    `delay_seconds` and `idempotency_key` have refusals of their own.
    """

    name: str
    payload: Raw = field(default_factory=lambda: Raw(b"null"))
    delay_seconds: float | None = None
    idempotency_key: str | None = None


class SentJob(Struct):
    job_id: str


class SentJobAnswer(Struct):
    """`data` and the same key at the top (contract H-8)."""

    data: SentJob
    job_id: str


class QueueJob(Struct, kw_only=True):
    """`due_at` of a leased one is the end of its lease; `reason` is that of a dead letter."""

    id: str
    state: Literal["waiting", "delayed", "leased", "dead"]
    payload: Raw
    attempts: Count
    failures: Count
    created_at: Iso
    due_at: Iso
    reason: str | None
    error: str | None
    dead_at: Iso | None


class QueueJobList(Struct):
    data: list[QueueJob]
    total: Count
    offset: Count
    limit: Count


class QueueRow(Struct, kw_only=True):
    """A queue that has a binding, or messages; function and status are null without the first."""

    queue_name: str
    function_name: str | None
    status: Status | None
    waiting: Count
    delayed: Count
    leased: Count
    dead: Count
    oldest_waiting_at: Iso | None


class QueueList(Struct):
    data: list[QueueRow]


# --- changes of many, and drills ---


class Redeliver(Struct):
    """Dead letters by id; all of the queue's without."""

    job_ids: Annotated[list[str], Meta(max_length=limits.QUEUE_NAMED.value)] | None = None


class Redelivered(Struct):
    queue_name: str
    redelivered: Count


class RedeliveredAnswer(Struct):
    data: Redelivered


class PurgeQueue(Struct):
    state: Literal["dead", "waiting", "all"]


class PurgedQueue(Struct):
    queue_name: str
    purged: Count


class PurgedQueueAnswer(Struct):
    data: PurgedQueue


class FailNext(Struct):
    count: Annotated[int, Meta(ge=0, le=limits.QUEUE_FAIL_NEXT.value)]


class FailingNext(Struct):
    queue_name: str
    count: Count


class FailingNextAnswer(Struct):
    data: FailingNext


class DeliverNow(Struct, kw_only=True):
    """One of the two; `payload` is null without either. No text at all is one that is absent."""

    payload: Raw = field(default_factory=Raw)
    payloads: Annotated[list[Raw], Meta(min_length=1, max_length=limits.QUEUE_BATCH.value)] = field(
        default_factory=lambda: list[Raw]()
    )


class MessageVerdict(Struct, omit_defaults=True, kw_only=True):
    """`delay_seconds` is there where the handler named it."""

    id: str
    verdict: Literal["acked", "retried"]
    delay_seconds: int | None = None


class DeliveryLine(Struct):
    """A console line, its arguments as JSON."""

    level: str
    message: list[Any]
    timestamp_ms: int


class DeliveredBatch(Struct, kw_only=True):
    """`outcome` is `ok`, or why not: `exception`, `exceededCpu`, ..."""

    request_id: str
    outcome: str
    error: str | None
    ms: float
    messages: list[MessageVerdict]
    logs: list[DeliveryLine]


class DeliveredBatchAnswer(Struct):
    data: DeliveredBatch

"""The bodies of the schedules API, both ways. Source: contract D.6; all but making one is ours."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from amba_router.api.models import Count, Iso

Missed = Literal["skip", "run_once"]


class CreateSchedule(Struct, kw_only=True):
    """`missed` says what becomes of slots that nobody was there for; one that is there keeps
    what it has."""

    name: Annotated[str, Meta(description="the function's")]
    cron: Annotated[str, Meta(examples=["*/5 * * * *"], description="five fields")]
    timezone: Annotated[str, Meta(examples=["Europe/Berlin"])] = "UTC"
    missed: Missed | UnsetType = UNSET


class ScheduleMade(Struct):
    schedule_id: str


class ScheduleMadeAnswer(Struct):
    data: ScheduleMade


class Run(Struct, kw_only=True):
    """A slot that fired or was left out. `outcome` is null while it is under way; besides those
    of invocations there are `skipped` (the one before still ran) and `interrupted`."""

    scheduled_at: Iso
    began_at: Iso
    ended_at: Iso | None
    outcome: str | None
    error: str | None
    request_id: str | None


class ScheduleRow(Struct, kw_only=True):
    """`next_runs` is empty where none comes; `last_runs` has the newest first."""

    id: str
    function_name: str
    cron: str
    timezone: str
    missed: Annotated[str, Meta(examples=["skip", "run_once"])]
    source: Annotated[str, Meta(examples=["api", "deploy", "file"])]
    created_at: Iso
    updated_at: Iso
    next_runs: list[Iso]
    last_runs: list[Run]


class ScheduleList(Struct):
    data: list[ScheduleRow]
    total: Count
    offset: Count
    limit: Count


class DeletedSchedule(Struct):
    id: str
    deleted: bool


class DeletedScheduleAnswer(Struct):
    data: DeletedSchedule


class FireScheduled(Struct, kw_only=True):
    """What the handler is told: the function's own first expression, and now, where left out."""

    cron: str | None = None
    scheduled_time: (
        Annotated[str | int, Meta(description="ISO 8601, or Unix milliseconds")] | None
    ) = None


class FiredLog(Struct):
    level: str
    message: list[Any]
    timestamp_ms: int


class FiredSchedule(Struct, kw_only=True):
    request_id: str
    outcome: str
    error: str | None
    ms: float
    no_retry: bool
    logs: list[FiredLog]


class FiredScheduleAnswer(Struct):
    data: FiredSchedule

"""Schedules on the wire. Source: contract D.6, H-13; the list, the deletion and firing are ours."""

from __future__ import annotations

from msgspec import UNSET

from amba_router.api import faults
from amba_router.api.asked import LIMIT, OFFSET, iso_ms, page, parse_ms, project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Query, Reads
from amba_router.services.schedules.models import (
    CreateSchedule,
    DeletedSchedule,
    DeletedScheduleAnswer,
    FiredLog,
    FiredSchedule,
    FiredScheduleAnswer,
    FireScheduled,
    Run,
    ScheduleList,
    ScheduleMade,
    ScheduleMadeAnswer,
    ScheduleRow,
)
from amba_router.services.schedules.service import SchedulesService, Shown
from amba_router.store.schedule_rows import SlotRow

_BASE = "/admin/projects/{project_id}/functions"
_FUNCTION = (faults.FUNCTION_NOT_FOUND, faults.HANDLER_MISSING)


def operations(service: SchedulesService) -> tuple[Operation, ...]:
    """Their part of the table."""
    wire = _Wire(service)
    return (
        Operation(
            "createSchedule",
            "POST",
            f"{_BASE}/schedules",
            Auth.PROJECT,
            "Call a function's scheduled handler by the clock; the same again changes nothing.",
            wire.create,
            {201: ScheduleMadeAnswer},
            (faults.INVALID_CRON, faults.INVALID_TIMEZONE, *_FUNCTION, *faults.WRITES),
            reads=Reads.JSON,
            request=CreateSchedule,
        ),
        Operation(
            "listSchedules",
            "GET",
            f"{_BASE}/schedules",
            Auth.PROJECT,
            "Schedules with their next and last runs, the oldest first.",
            wire.list,
            {200: ScheduleList},
            (faults.INVALID_LIMIT,),
            query=(Query("name", {"type": "string"}, "of one function"), OFFSET, LIMIT),
            ours=True,
        ),
        Operation(
            "deleteSchedule",
            "DELETE",
            f"{_BASE}/schedules/{{schedule_id}}",
            Auth.PROJECT,
            "Fire it no more; a run under way goes on.",
            wire.remove,
            {200: DeletedScheduleAnswer},
            (faults.SCHEDULE_NOT_FOUND, *faults.WRITES),
            ours=True,
        ),
        Operation(
            "fireScheduled",
            "POST",
            f"{_BASE}/{{name}}/scheduled",
            Auth.PROJECT,
            "Call a function's scheduled handler now, and wait for its end.",
            wire.fire,
            {200: FiredScheduleAnswer},
            (faults.INVALID_CRON, *_FUNCTION),
            reads=Reads.MAYBE_JSON,
            request=FireScheduled,
            ours=True,
        ),
    )


class _Wire:
    def __init__(self, service: SchedulesService) -> None:
        self._service = service

    async def create(self, asked: Asked) -> Answer:
        body: CreateSchedule = asked.body
        made = await self._service.create(
            project_of(asked).id,
            body.name,
            body.cron,
            body.timezone,
            None if body.missed is UNSET else str(body.missed),
        )
        return Answer(201, ScheduleMadeAnswer(ScheduleMade(made.id)))

    async def list(self, asked: Asked) -> Answer:
        offset, limit = page(asked)
        shown, total = await self._service.page(
            project_of(asked).id, asked.query.get("name"), offset=offset, limit=limit
        )
        return Answer(200, ScheduleList([_row(one) for one in shown], total, offset, limit))

    async def remove(self, asked: Asked) -> Answer:
        id_ = asked.path["schedule_id"]
        await self._service.remove(project_of(asked).id, id_)
        return Answer(200, DeletedScheduleAnswer(DeletedSchedule(id_, deleted=True)))

    async def fire(self, asked: Asked) -> Answer:
        body: FireScheduled = asked.body
        done = await self._service.fire(
            project_of(asked).id,
            asked.path["name"],
            cron=body.cron,
            scheduled_ms=_moment(body.scheduled_time),
        )
        logs = [] if done.tell is None else done.tell.logs
        return Answer(
            200,
            FiredScheduleAnswer(
                FiredSchedule(
                    request_id=done.request_id,
                    outcome=done.outcome.value,
                    error=done.error or None,
                    ms=round(done.ms, 3),
                    no_retry=done.result.get("noRetry") is True,
                    logs=[FiredLog(line.level, line.message, line.timestamp_ms) for line in logs],
                )
            ),
        )


def _moment(given: str | int | None) -> int | None:
    if given is None:
        return None
    ms = parse_ms(str(given))
    if ms is None or not 0 <= ms <= _LAST_MS:
        raise faults.INVALID_INPUT.refuse(
            "scheduled_time must be a time such as 2026-01-01T00:00:00Z, or Unix milliseconds, "
            "from 1970 to April 2262",
            {"field": "$.scheduled_time"},
        )
    return ms


_LAST_MS = 9_223_372_036_854
"""In April 2262: workerd counts nanoseconds in 64 bits, and answers 500 to what is later."""


def _row(shown: Shown) -> ScheduleRow:
    schedule = shown.schedule
    return ScheduleRow(
        id=schedule.id,
        function_name=schedule.function,
        cron=schedule.cron,
        timezone=schedule.timezone,
        missed=schedule.missed,
        source=schedule.source,
        created_at=iso_ms(schedule.created_ms),
        updated_at=iso_ms(schedule.updated_ms),
        next_runs=[iso_ms(ms) for ms in shown.next_ms],
        last_runs=[_run(slot) for slot in shown.last],
    )


def _run(slot: SlotRow) -> Run:
    return Run(
        scheduled_at=iso_ms(slot.slot_ms),
        began_at=iso_ms(slot.began_ms),
        ended_at=None if slot.ended_ms is None else iso_ms(slot.ended_ms),
        outcome=slot.outcome if slot.ended_ms is not None else None,
        error=slot.error if slot.ended_ms is not None else None,
        request_id=slot.request_id,
    )

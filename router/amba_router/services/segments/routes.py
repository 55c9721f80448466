"""Segments on the wire. Source: contract E.13."""

from __future__ import annotations

from typing import Any

import msgspec

from amba_router.api import faults
from amba_router.api.asked import LIMIT, OFFSET, iso_ms, page, project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Reads
from amba_router.services.segments.models import (
    CreateSegment,
    Evaluation,
    EvaluationAnswer,
    RemovedSegment,
    RemovedSegmentAnswer,
    SegmentAnswer,
    SegmentList,
    SegmentRow,
    UpdateSegment,
)
from amba_router.services.segments.rounds import Rounds
from amba_router.services.segments.service import Segments, Shown

_BASE = "/admin/projects/{project_id}/segments"
_ONE = f"{_BASE}/{{segment_id}}"
_RULES = (faults.INVALID_SEGMENT_RULES, faults.SEGMENT_RULES_TOO_DEEP)


def operations(segments: Segments, rounds: Rounds) -> tuple[Operation, ...]:
    """Their part of the table. Args: rounds: begin with the first request."""
    wire = _Wire(segments, rounds)
    return (
        Operation(
            "createSegment",
            "POST",
            _BASE,
            Auth.PROJECT,
            "A segment; who is in it is found out at once where users are few.",
            wire.create,
            {201: SegmentAnswer},
            (*_RULES, *faults.WRITES),
            reads=Reads.JSON,
            request=CreateSegment,
        ),
        Operation(
            "listSegments",
            "GET",
            _BASE,
            Auth.PROJECT,
            "The system's, then the project's own, oldest first.",
            wire.list,
            {200: SegmentList},
            (faults.INVALID_LIMIT,),
            query=(OFFSET, LIMIT),
        ),
        Operation(
            "getSegment",
            "GET",
            _ONE,
            Auth.PROJECT,
            "One segment.",
            wire.show,
            {200: SegmentAnswer},
            (faults.SEGMENT_NOT_FOUND,),
        ),
        Operation(
            "updateSegment",
            "PATCH",
            _ONE,
            Auth.PROJECT,
            "Change what is given.",
            wire.update,
            {200: SegmentAnswer},
            (faults.SEGMENT_NOT_FOUND, *_RULES, *faults.WRITES),
            reads=Reads.JSON,
            request=UpdateSegment,
        ),
        Operation(
            "deleteSegment",
            "DELETE",
            _ONE,
            Auth.PROJECT,
            "Forget a segment and who was in it.",
            wire.remove,
            {200: RemovedSegmentAnswer},
            (faults.SEGMENT_NOT_FOUND, *faults.WRITES),
        ),
        Operation(
            "evaluateSegment",
            "POST",
            f"{_ONE}/evaluate",
            Auth.PROJECT,
            "Find out now who is in it.",
            wire.evaluate,
            {200: EvaluationAnswer},
            (faults.SEGMENT_NOT_FOUND, *faults.WRITES),
        ),
    )


class _Wire:
    def __init__(self, segments: Segments, rounds: Rounds) -> None:
        self._segments = segments
        self._rounds = rounds

    async def create(self, asked: Asked) -> Answer:
        self._rounds.start()
        body: CreateSegment = asked.body
        shown = await self._segments.create(
            project_of(asked).id, body.name, body.rules, body.description
        )
        return Answer(201, SegmentAnswer(_row(shown)))

    async def list(self, asked: Asked) -> Answer:
        self._rounds.start()
        offset, limit = page(asked)
        shown = await self._segments.list(project_of(asked).id)
        rows = [_row(one) for one in shown[offset : offset + limit]]
        return Answer(200, SegmentList(rows, len(shown), offset, limit))

    async def show(self, asked: Asked) -> Answer:
        shown = await self._segments.get(project_of(asked).id, asked.path["segment_id"])
        return Answer(200, SegmentAnswer(_row(shown)))

    async def update(self, asked: Asked) -> Answer:
        self._rounds.start()
        body: UpdateSegment = asked.body
        given: dict[str, Any] = {
            name: getattr(body, name)
            for name in body.__struct_fields__
            if getattr(body, name) is not msgspec.UNSET
        }
        shown = await self._segments.change(project_of(asked).id, asked.path["segment_id"], given)
        return Answer(200, SegmentAnswer(_row(shown)))

    async def remove(self, asked: Asked) -> Answer:
        segment_id = asked.path["segment_id"]
        await self._segments.remove(project_of(asked).id, segment_id)
        return Answer(200, RemovedSegmentAnswer(RemovedSegment(segment_id, True)))

    async def evaluate(self, asked: Asked) -> Answer:
        self._rounds.start()
        segment_id = asked.path["segment_id"]
        members, at_ms = await self._segments.evaluate(project_of(asked).id, segment_id)
        return Answer(
            200,
            EvaluationAnswer(
                Evaluation(segment_id=segment_id, member_count=members, evaluated_at=iso_ms(at_ms))
            ),
        )


def _row(shown: Shown) -> SegmentRow:
    own = shown.own
    evaluated_ms = own.evaluated_ms if own is not None else None
    return SegmentRow(
        id=shown.id,
        name=own.name if own is not None else shown.id,
        description=own.description if own is not None else None,
        rules=msgspec.json.decode(own.rules) if own is not None else None,
        is_system=own is None,
        member_count=shown.members,
        last_evaluated_at=iso_ms(evaluated_ms) if evaluated_ms is not None else None,
        created_at=iso_ms(own.created_ms) if own is not None else None,
        updated_at=iso_ms(own.updated_ms) if own is not None else None,
    )

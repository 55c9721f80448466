"""Bodies of segments. Source: contract E.13; the members of a row are ours."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from amba_router.api.models import Count, Iso, Label

_Description = Annotated[str, Meta(max_length=2000)]
_Rules = Annotated[
    Any,
    Meta(
        description="{operator: AND|OR, conditions: [{field, op, value} or a group like this]}",
        examples=[
            {
                "operator": "AND",
                "conditions": [{"field": "last_seen_at", "op": "within", "value": "7d"}],
            }
        ],
    ),
]


class CreateSegment(Struct):
    name: Label
    rules: _Rules
    description: _Description | None = None


class UpdateSegment(Struct):
    """What is left out stays."""

    name: Label | UnsetType = UNSET
    rules: _Rules | UnsetType = UNSET
    description: _Description | UnsetType | None = UNSET


class SegmentRow(Struct, kw_only=True):
    """`rules` and times are null for a segment of the system, which is evaluated when asked."""

    id: str
    name: str
    description: str | None
    rules: Any
    is_system: bool
    member_count: Count
    last_evaluated_at: Iso | None
    created_at: Iso | None
    updated_at: Iso | None


class SegmentAnswer(Struct):
    data: SegmentRow


class SegmentList(Struct):
    data: list[SegmentRow]
    total: Count
    offset: Count
    limit: Count


class RemovedSegment(Struct):
    id: str
    deleted: bool


class RemovedSegmentAnswer(Struct):
    data: RemovedSegment


class Evaluation(Struct, kw_only=True):
    segment_id: str
    member_count: Count
    evaluated_at: Iso


class EvaluationAnswer(Struct):
    data: Evaluation

"""Fan-out over the wire. Source: contract E.13."""

from __future__ import annotations

from amba_router.api import faults
from amba_router.api.asked import project_of
from amba_router.api.operations import Answer, Asked, Auth, Operation, Reads
from amba_router.services.fan_out.models import (
    DeliveryWindow,
    FannedOut,
    FannedOutAnswer,
    FanOutSegment,
)
from amba_router.services.fan_out.service import FanOut
from amba_router.services.fan_out.windows import Window


def operations(fan_out: FanOut) -> tuple[Operation, ...]:
    """Their part of the table."""
    return (
        Operation(
            "fanOutSegment",
            "POST",
            "/admin/projects/{project_id}/fan-out/segment",
            Auth.PROJECT,
            "Deliver to a function's queue handler the users of a segment, a hundred a message.",
            _Wire(fan_out).segment,
            {200: FannedOutAnswer},
            (
                *(faults.SEGMENT_OR_FUNCTION_NOT_FOUND, faults.HANDLER_MISSING),
                *(faults.QUEUE_FULL, *faults.WRITES),
            ),
            reads=Reads.JSON,
            request=FanOutSegment,
        ),
    )


class _Wire:
    def __init__(self, fan_out: FanOut) -> None:
        self._fan_out = fan_out

    async def segment(self, asked: Asked) -> Answer:
        body: FanOutSegment = asked.body
        done = await self._fan_out.segment(
            project_of(asked).id,
            body.segment_id,
            body.invoke.function,
            payload=bytes(body.invoke.payload).decode(),
            window=_window(body.delivery_window),
        )
        counts = {"batch_count": done.batches, "estimated_user_count": done.users}
        return Answer(200, FannedOutAnswer(data=FannedOut(**counts), **counts))


def _window(given: DeliveryWindow | None) -> Window | None:
    if given is None:
        return None
    if given.local_hour_start == given.local_hour_end:
        raise faults.INVALID_INPUT.refuse(
            "the window ends as it begins; leave delivery_window out to deliver at any hour",
            {"field": "$.delivery_window.local_hour_end"},
        )
    return Window(given.local_hour_start, given.local_hour_end)

"""Find-nearest over the wire, on both planes. Source: contract E.5."""

from __future__ import annotations

from msgspec import Struct

from amba_router.api import faults
from amba_router.api.operations import Answer, Asked, Auth, Operation, Reads
from amba_router.services.collections.models import Options, Row
from amba_router.services.collections.nearest_service import NearestService
from amba_router.services.collections.row_routes import place_of

_REFUSALS = (
    *(faults.COLLECTION_NOT_FOUND, faults.INVALID_FILTER, faults.INVALID_QUERY),
    *(faults.INVALID_CURSOR, faults.CONFLICT, faults.NOT_EMULATED),
    *(faults.AI_BUDGET_EXCEEDED, faults.AI_PROVIDER_FAILED, *faults.READS),
)


class NearestAnswer(Struct):
    """Rows with their `_distance`, the nearest first. `next_cursor` is null at the end."""

    data: list[Row]
    next_cursor: str | None


def operations(service: NearestService) -> tuple[Operation, ...]:
    """One for each plane."""

    async def find(asked: Asked) -> Answer:
        return Answer(200, NearestAnswer(*await service.find(*place_of(asked), asked.body)))

    return (
        Operation(
            "findNearestRows",
            "POST",
            "/admin/projects/{project_id}/collections/{name}/rows/find-nearest",
            Auth.PROJECT,
            "The rows whose vectors are nearest to one, or to a text: any user's.",
            find,
            {200: NearestAnswer},
            _REFUSALS,
            reads=Reads.JSON,
            request=Options,
            ours=True,
        ),
        Operation(
            "findNearestOwnRows",
            "POST",
            "/client/collections/{name}/find-nearest",
            Auth.SESSION,
            "The rows whose vectors are nearest to one, or to a text: the user's.",
            find,
            {200: NearestAnswer},
            _REFUSALS,
            reads=Reads.JSON,
            request=Options,
        ),
    )

"""Every fifteen minutes all segments are evaluated anew (contract E.13)."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from tests.router.control.world import World

from amba_router.services.segments.rounds import Rounds
from amba_router.services.segments.service import Segments
from amba_router.store.project_store import ProjectStore
from amba_runtime.clock import ManualClock
from amba_runtime.errors import InternalCode, InternalError

MINUTE_S = 60.0


class Counted(Segments):
    """Evaluates nothing; says of what it was asked, and fails where it is told to."""

    def __init__(self, store: ProjectStore, clock: ManualClock, failing: str = "") -> None:
        super().__init__(store, clock)
        self.asked: list[str] = []
        self._failing = failing

    async def evaluate_all(self, project_id: str) -> None:
        self.asked.append(project_id)
        if project_id == self._failing:
            raise InternalError(InternalCode.STATE_FAILED, "the disk is gone")


def run(tmp_path: Path, failing: str = "") -> None:
    """With rounds over two projects that were started twice."""

    async def main() -> None:
        async with World(tmp_path) as world:
            segments = Counted(ProjectStore(world.states), world.clock, failing)
            rounds = Rounds(segments, lambda: ("p_1", "p_2"), world.clock)
            await rounds.close()
            rounds = Rounds(segments, lambda: ("p_1", "p_2"), world.clock)
            rounds.start()
            rounds.start()
            await world.clock.advance(15 * MINUTE_S - 1)
            assert segments.asked == []
            await world.clock.advance(1)
            assert segments.asked == ["p_1", "p_2"]
            await world.clock.advance(15 * MINUTE_S)
            assert segments.asked == ["p_1", "p_2"] * 2
            await rounds.close()
            await rounds.close()
            rounds.start()
            await world.clock.advance(60 * MINUTE_S)
            assert len(segments.asked) == 4

    asyncio.run(main())


def test_every_fifteen_minutes(tmp_path: Path) -> None:
    """All projects, one after another; never after the close, and one loop for two starts."""
    run(tmp_path)


def test_one_that_fails_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged by its project; the others and the next rounds have their turn."""
    with caplog.at_level(logging.ERROR, "amba.segments"):
        run(tmp_path, failing="p_1")
    assert [record.getMessage() for record in caplog.records] == [
        "segments of p_1 were not evaluated"
    ] * 2


@pytest.mark.parametrize("first", ["session", "segment"])
def test_they_begin_with_the_first_request(tmp_path: Path, first: str) -> None:
    """Whoever asks for users or segments has them evaluated; the new pro is found in time."""

    async def main() -> None:
        async with World(tmp_path) as world:
            project = await world.project()
            base = f"/v1/admin/projects/{project['id']}"
            rules = {
                "operator": "AND",
                "conditions": [{"field": "properties.plan", "op": "eq", "value": "pro"}],
            }
            made = (await world.post(f"{base}/segments", {"name": "Pro", "rules": rules})).data
            await world.emulation.close()
            await world.restart()  # as a node that starts anew
            if first == "segment":
                assert (await world.get(f"{base}/segments")).status == 200
            body = {"properties": {"plan": "pro"}}
            await world.as_client("PATCH", "/client/users/me", body, project=project, user="u_1")
            listed = f"{base}/users?segment_id={made['id']}"
            assert (await world.get(listed)).body["total"] == 0
            await world.clock.advance(15 * MINUTE_S)
            async with asyncio.timeout(20):
                while not (await world.get(listed)).body["total"]:
                    pass  # the round is under way in the store's threads
            shown = (await world.get(f"{base}/segments/{made['id']}")).data
            assert shown["member_count"] == 1

    asyncio.run(main())

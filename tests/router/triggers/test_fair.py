"""Turns over projects: however much one has to do, another begins at once (reliability.md T20)."""

from __future__ import annotations

import asyncio

from amba_router.triggers.fair import Turns


def test_a_project_takes_no_more_than_it_leaves() -> None:
    """Of eight places one project gets four, the next one begins at once; all are done."""

    async def main() -> None:
        done: list[tuple[str, int]] = []
        begun: list[str] = []
        gate = asyncio.Event()

        async def work(project_id: str, item: int) -> None:
            begun.append(project_id)
            await gate.wait()
            done.append((project_id, item))

        turns = Turns[int](8, work)
        for item in range(1000):
            turns.add("hot", item)
        await asyncio.sleep(0)
        assert begun == ["hot"] * 4
        for item in range(3):
            turns.add("cold", item)
        await asyncio.sleep(0)
        assert begun[4:] == ["cold"] * 2  # it, too, leaves as many as it takes
        assert (turns.busy, turns.waiting) == (6, 997)
        gate.set()
        for _ in range(3000):
            await asyncio.sleep(0)
        assert turns.busy == 0
        assert len(done) == 1003
        assert [item for id_, item in done if id_ == "hot"] == list(range(1000))
        assert [id_ for id_, _ in done[:8]].count("cold") == 3
        await turns.close()

    asyncio.run(main())


def test_what_fails_gives_its_place_back_and_a_stop_begins_nothing() -> None:
    """A piece of work that raises costs nobody a turn; after `stop` what is under way ends."""

    async def main() -> None:
        ran: list[int] = []

        async def work(project_id: str, item: int) -> None:
            ran.append(item)
            if item < 3:
                raise ValueError("on purpose")
            await asyncio.Event().wait()

        turns = Turns[int](2, work)
        for item in range(6):
            turns.add("p", item)
        for _ in range(10):
            await asyncio.sleep(0)
        assert ran == [0, 1, 2, 3]
        turns.stop()
        assert (turns.busy, turns.waiting) == (1, 0)
        turns.add("p", 9)
        await turns.close()
        assert ran == [0, 1, 2, 3]
        assert turns.busy == 0

    asyncio.run(main())

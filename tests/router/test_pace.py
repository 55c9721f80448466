"""Calls in process begin a few at a time (row E29)."""

from __future__ import annotations

import asyncio

from amba_router.pace import Pace


def test_no_more_begin_in_one_pass_than_may() -> None:
    """Others have their turn in between, and all come to begin, in order."""

    async def main() -> None:
        pace = Pace(2)
        begun: list[int] = []
        passes: list[int] = []

        async def one(number: int) -> None:
            await pace.turn()
            begun.append(number)

        tasks = [asyncio.create_task(one(n)) for n in range(7)]
        while len(begun) < 7:
            before = len(begun)
            await asyncio.sleep(0)
            passes.append(len(begun) - before)
        await asyncio.gather(*tasks)
        assert begun == list(range(7))
        assert max(passes) == 2

    asyncio.run(main())


def test_one_that_leaves_the_line_costs_nobody_a_turn() -> None:
    """A caller that is cancelled while it waits is passed over."""

    async def main() -> None:
        pace = Pace(1)
        begun: list[int] = []

        async def one(number: int) -> None:
            await pace.turn()
            begun.append(number)

        tasks = [asyncio.create_task(one(n)) for n in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert begun == [0, 2]
        await pace.turn()

    asyncio.run(main())

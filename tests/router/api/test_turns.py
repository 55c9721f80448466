"""Taking turns: one at a time per key, in order, few waiting, nothing left behind."""

from __future__ import annotations

import asyncio

import pytest

from amba_router.api.faults import TOO_MANY_DEPLOYS, Refused
from amba_router.api.turns import Turns


def test_turns() -> None:
    """In order of asking; other keys do not wait; one too many is refused at once."""

    async def main() -> None:
        turns = Turns(2, lambda: TOO_MANY_DEPLOYS.refuse("full"))
        order: list[int] = []
        gate = asyncio.Event()

        async def work(number: int, key: str = "a") -> None:
            async with turns.take(key):
                order.append(number)
                await gate.wait()

        tasks = [asyncio.create_task(work(n)) for n in range(3)]
        other = asyncio.create_task(work(9, "b"))
        for _ in range(3):
            await asyncio.sleep(0)
        assert order == [0, 9]
        with pytest.raises(Refused, match="full"):
            await work(3)
        # one that leaves makes room, and the others keep their order
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        tasks.append(asyncio.create_task(work(4)))
        gate.set()
        await asyncio.gather(other, tasks[0], tasks[2], tasks[3])
        assert order == [0, 9, 2, 4]
        assert turns._locks == {}  # pyright: ignore[reportPrivateUsage]

    asyncio.run(main())


def test_a_failure_gives_the_turn_on() -> None:
    """Whatever happens in a turn, the next one comes."""

    async def main() -> None:
        turns = Turns(2, lambda: TOO_MANY_DEPLOYS.refuse("full"))
        with pytest.raises(KeyError):
            async with turns.take("a"):
                raise KeyError
        async with turns.take("a"):
            pass

    asyncio.run(main())

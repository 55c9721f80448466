"""Requests of engines begin a few at a time, and projects take turns (rows E18, E29, T20)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from amba_runtime.wire.pace import Pace


class Line:
    """Calls that begin when they may; `begun` holds their names in that order."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def calls(self, pace: Pace, owner: str, names: Iterable[str]) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self._one(pace, owner, name)) for name in names]

    async def _one(self, pace: Pace, owner: str, name: str) -> None:
        await pace.turn(owner)
        self.begun.append(name)


def test_no_more_begin_in_one_pass_than_may() -> None:
    """Others have their turn in between, and all come to begin, in order (row E29)."""

    async def main() -> None:
        line = Line()
        passes: list[int] = []
        tasks = line.calls(Pace(2), "p", "0123456")
        while len(line.begun) < 7:
            before = len(line.begun)
            await asyncio.sleep(0)
            passes.append(len(line.begun) - before)
        await asyncio.gather(*tasks)
        assert line.begun == list("0123456")
        assert max(passes) == 2

    asyncio.run(main())


@pytest.mark.parametrize("flood", [5, 500])
def test_a_flood_of_one_project_delays_another_by_one_turn(flood: int) -> None:
    """However many of one project wait, another's call begins behind one of them, beside the one
    that was let in as it came (T20).
    """

    async def main() -> None:
        pace, line = Pace(1), Line()
        tasks = line.calls(pace, "hot", (f"h{n}" for n in range(flood)))
        await asyncio.sleep(0)
        tasks += line.calls(pace, "quiet", ("q0", "q1"))
        await asyncio.sleep(0)  # they wait
        before = len(line.begun)
        await asyncio.gather(*tasks)
        at = [line.begun.index(name) - before for name in ("q0", "q1")]
        assert at[0] <= 2
        assert at[1] - at[0] == 2
        assert len(line.begun) == flood + 2

    asyncio.run(main())


@pytest.mark.parametrize("left", [(1,), (2,), (2, 1), (1, 2)])
def test_one_that_leaves_the_line_costs_nobody_a_turn(left: tuple[int, ...]) -> None:
    """A caller that is cancelled while it waits is passed over, and counts no more."""

    async def main() -> None:
        pace, line = Pace(1), Line()
        first = line.calls(pace, "p", "0")
        await asyncio.sleep(0)
        tasks = line.calls(pace, "p", "abc")
        await asyncio.sleep(0)
        for number in left:
            tasks[number].cancel()
        await asyncio.gather(*first, *tasks, return_exceptions=True)
        assert line.begun == ["0", *(n for i, n in enumerate("abc") if i not in left)]
        again = line.calls(pace, "p", "012")
        await asyncio.gather(*again)
        assert line.begun[-3:] == ["0", "1", "2"]

    asyncio.run(main())


def test_a_line_that_all_have_left_is_forgotten() -> None:
    """Whoever of that project comes next finds it empty."""

    async def main() -> None:
        pace, line = Pace(1), Line()
        tasks = line.calls(pace, "quiet", ["0"]) + line.calls(pace, "hot", ["h"])
        tasks += line.calls(pace, "quiet", ["left"])
        await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.sleep(0)
        tasks += line.calls(pace, "quiet", ["next"])
        await asyncio.gather(*tasks, return_exceptions=True)
        assert line.begun == ["0", "h", "next"]

    asyncio.run(main())


def test_one_that_leaves_as_its_turn_comes_holds_up_nobody() -> None:
    """Cancelled between its turn and its beginning: the next pass serves the next."""

    async def main() -> None:
        pace, line = Pace(1), Line()
        tasks = line.calls(pace, "p", "0123")
        await tasks[1]
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert line.begun == ["0", "1", "3"]

    asyncio.run(main())

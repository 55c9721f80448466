"""One project's calls of the store leave room for others' (`store.shares`)."""

from __future__ import annotations

import asyncio

import pytest

from amba_router.store.shares import Shares
from amba_runtime.errors import UserCode, UserError


def test_so_many_of_one_project_at_once_in_order() -> None:
    """Others wait for none of them; whoever waits comes in order of asking."""

    async def main() -> None:
        shares = Shares(2, 10)
        begun: list[str] = []
        gate = asyncio.Event()

        async def call(project: str, name: str) -> None:
            async with shares.take(project):
                begun.append(name)
                await gate.wait()

        tasks = [asyncio.create_task(call("hot", f"h{n}")) for n in range(5)]
        tasks.append(asyncio.create_task(call("quiet", "q")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert begun == ["h0", "h1", "q"]
        gate.set()
        await asyncio.gather(*tasks)
        assert begun == ["h0", "h1", "q", "h2", "h3", "h4"]

    asyncio.run(main())


def test_one_too_many_is_refused_and_who_leaves_makes_room() -> None:
    """OVERLOADED at the bound; nothing is kept of a project that is done."""

    async def main() -> None:
        shares = Shares(1, 1)
        gate = asyncio.Event()

        async def call() -> None:
            async with shares.take("p"):
                await gate.wait()

        tasks = [asyncio.create_task(call()) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(UserError) as caught:
            await call()
        assert caught.value.code is UserCode.OVERLOADED
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        gate.set()
        await call()
        await tasks[0]
        assert not shares._held  # pyright: ignore[reportPrivateUsage]

    asyncio.run(main())

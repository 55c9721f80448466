"""A state directory that is opened at its first use (`store.on_demand`)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from amba_router.store.on_demand import OnDemand
from amba_router.store.state import State
from amba_runtime.clock import ManualClock
from amba_runtime.errors import InternalError, UserCode, UserError


def test_nothing_is_opened_until_it_is_needed_and_then_once(tmp_path: Path) -> None:
    """`prepare` has run before anybody has the directory; whoever comes together shares it."""

    async def main() -> None:
        prepared: list[State] = []

        async def prepare(state: State) -> None:
            await asyncio.sleep(0)
            prepared.append(state)

        folder = tmp_path / "state"
        it = OnDemand(folder, ManualClock(), prepare=prepare)
        assert not folder.exists()
        first, second = await asyncio.gather(it.state(), it.state())
        assert first is second
        assert prepared == [first]
        await it.close()
        await it.close()
        with pytest.raises(InternalError, match="after its close"):
            await it.state()

    asyncio.run(main())


def test_what_could_not_be_opened_is_tried_again(tmp_path: Path) -> None:
    """A folder in use now may be free later; one that cannot be prepared is let go."""

    async def main() -> None:
        fails = [True]

        async def prepare(_: State) -> None:
            if fails.pop():
                fails.append(False)
                raise UserError(UserCode.CONFLICT, "not yet")

        it = OnDemand(tmp_path, ManualClock(), prepare=prepare)
        with pytest.raises(UserError, match="not yet"):
            await it.state()
        assert (await it.state()).path == tmp_path
        await it.close()

    asyncio.run(main())


def test_what_others_opened_stays_open(tmp_path: Path) -> None:
    """An open state is used, and left to its owner."""

    async def main() -> None:
        state = await State.open(tmp_path, ManualClock())
        it = OnDemand(state, ManualClock())
        assert await it.state() is state
        await it.close()
        assert await state.database.read(lambda c: c.exec_driver_sql("SELECT 1").scalar()) == 1
        await state.close()

    asyncio.run(main())


def test_a_forgotten_close_is_told(tmp_path: Path) -> None:
    """One that was used and dropped warns; one that was never used does not."""

    async def main() -> None:
        it = OnDemand(tmp_path, ManualClock())
        await it.state()
        with pytest.warns(ResourceWarning, match="was not closed"):
            it.__del__()
        await it.close()
        it.__del__()

    asyncio.run(main())

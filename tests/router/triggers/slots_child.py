"""One of two trigger layers on one database, without the node's lock; its clock waits for it.

Usage: slots_child.py STATE PROJECT FUNCTIONS BEGIN. Each line on its standard input is a minute
that passes; a line `done` says that all that was due in it has ended. At its end there is printed
a line for each event that a handler was called with: its function, its expression and its slot.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from tests.router.triggers.schedule_lab import FINE, Stage

from amba_router.store.database import Database
from amba_router.store.state import DATABASE
from amba_runtime.clock import ManualClock
from amba_runtime.outcome import Event, Outcome, Tell


class Unlocked:
    """An `OnDemand` for a database that others have open, too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database(path / DATABASE)

    async def state(self) -> Unlocked:
        """What stands for the open directory."""
        return self


PATIENCE_S = 2.0
"""Of the machine's time, after which a second of the clock passes for what waits for it."""
MOST_S = 30
"""Seconds that pass so in a minute: half of what makes a slot late."""


async def _settle(stage: Stage, clock: ManualClock) -> int:
    """Until nothing is due; how many seconds passed for a store that was tried again."""
    passed = 0
    since = time.monotonic()
    while not stage.ticker.idle:
        await asyncio.sleep(0.002)
        if time.monotonic() - since > PATIENCE_S and passed < MOST_S:
            await clock.advance(1)
            passed, since = passed + 1, time.monotonic()
    return passed


async def main(path: Path, project: str, functions: int, begin_s: float) -> None:
    """Serve for as many minutes as it is told. Args: begin_s: what its clock says at first."""
    clock = ManualClock(begin_s)
    states = Unlocked(path)
    stage = Stage(states, clock, alone=False)
    stage.serve(project, "shop")
    said: list[str] = []

    async def tell(function: str, cron: str, at: int) -> Event:
        said.append(f"{function} {cron} {at}")
        return Event(Outcome.OK, Tell(), dict(FINE))

    stage.engine.act = tell
    for number in range(functions):
        stage.function(project, f"f{number}")
    stage.ticker.open()
    await stage.until(lambda: stage.ticker.loaded)
    print("loaded", flush=True)
    passed = 0
    while await asyncio.to_thread(sys.stdin.readline):
        await clock.advance(60 - passed)
        passed = await _settle(stage, clock)
        print("done", flush=True)
    print("\n".join([*said, f"skipped {stage.ticker.firings.skipped}"]), flush=True)
    await stage.close()
    states.database.close()


if __name__ == "__main__":
    where, of, many, begin = sys.argv[1:]
    asyncio.run(main(Path(where), of, int(many), float(begin)))

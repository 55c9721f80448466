"""One of two trigger layers on one database, without the node's lock; its clock runs fast.

Usage: slots_child.py STATE PROJECT FUNCTIONS BEGIN SPEED SECONDS. Prints a line for each event
that a handler was called with: its function, its expression and its slot.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from tests.router.triggers.schedule_lab import FINE, Stage

from amba_router.store.database import Database
from amba_router.store.state import DATABASE
from amba_runtime.outcome import Event, Outcome, Tell


class FastClock:
    """Time that began at `begin_s` of the machine's, and goes `speed` times as fast since."""

    def __init__(self, begin_s: float, speed: float) -> None:
        self._begin_s = begin_s
        self._speed = speed

    def time_s(self) -> float:
        """As a wall clock of whoever began at the same time."""
        return self._begin_s + (time.time() - self._begin_s) * self._speed

    def monotonic_s(self) -> float:
        """The same: the machine's clock does not jump for so long as this takes."""
        return self.time_s()

    async def sleep(self, seconds: float) -> None:
        """So much less of real time."""
        await asyncio.sleep(max(0.0, seconds) / self._speed)


class Unlocked:
    """An `OnDemand` for a database that others have open, too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database(path / DATABASE)

    async def state(self) -> Unlocked:
        """What stands for the open directory."""
        return self


async def main(path: Path, project: str, functions: int, *numbers: float) -> None:
    """Serve for so many of its own seconds. Args: numbers: as in the usage."""
    begin_s, speed, run_s = numbers
    clock = FastClock(begin_s, speed)
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
    await clock.sleep(begin_s + run_s - clock.time_s())
    stage.ticker.stop()
    await stage.until(lambda: stage.ticker.idle)
    print("\n".join([*said, f"skipped {stage.ticker.firings.skipped}"]), flush=True)
    await stage.close()
    states.database.close()


if __name__ == "__main__":
    where, of, many, *numbers = sys.argv[1:]
    asyncio.run(main(Path(where), of, int(many), *map(float, numbers)))

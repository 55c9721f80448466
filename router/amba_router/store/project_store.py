"""Transactions for one project at a time: what service stores are made on.

Cheap to import: SQLAlchemy comes with the first transaction, as the state directory does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from amba_router.store.on_demand import OnDemand
from amba_router.store.shares import Shares
from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from amba_router.store.scoped import Scoped

T = TypeVar("T")


class ProjectStore:
    """Reads and writes of all projects, each with a bounded share of the store's threads."""

    def __init__(self, states: OnDemand) -> None:
        self._states = states
        waiting = limits.STORE_WAITING.value
        self._reads = Shares(limits.STORE_READS.value, waiting)
        self._writes = Shares(limits.STORE_WRITES.value, waiting)

    async def read(self, project_id: str, work: Callable[[Scoped], T]) -> T:
        """Run `work` on one consistent snapshot.

        Raises:
            UserError: OVERLOADED when too many of this project wait.
        """

        def job(c: Connection) -> T:
            from amba_router.store.scoped import Scoped

            return work(Scoped(c, project_id))

        async with self._reads.take(project_id):
            return await (await self._states.state()).database.read(job)

    async def write(self, project_id: str, work: Callable[[Scoped], T]) -> T:
        """Run `work` in a transaction of its own; an exception rolls it back.

        Raises:
            UserError: DISK_FULL, STATE_READ_ONLY; CONFLICT when the project is not there (any
                more); OVERLOADED when too many of this project wait.
        """

        def job(c: Connection) -> T:
            from sqlalchemy.exc import IntegrityError

            from amba_router.store.project_rows import exists
            from amba_router.store.scoped import Scoped

            try:
                return work(Scoped(c, project_id))
            except IntegrityError:
                if not exists(c, project_id):
                    raise UserError(
                        UserCode.CONFLICT, "the project was deleted meanwhile"
                    ) from None
                raise

        async with self._writes.take(project_id):
            return await (await self._states.state()).database.write(job)

    async def write_in_steps(
        self, project_id: str, step: Callable[[Scoped], int], *, at_once: int, most: int
    ) -> int:
        """A change of many rows, some in each transaction: nobody waits for all of it.

        Args:
            step: changes `at_once` rows, or what is left of them; how many there were.
            most: rows, more are not changed.

        Returns:
            how many there were. Raises what `write` does: what was changed before stays.
        """
        done = 0
        for _ in range(1 + most // at_once):
            changed = await self.write(project_id, step)
            done += changed
            if changed < at_once:
                break
        return done

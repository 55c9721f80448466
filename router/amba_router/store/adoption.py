"""Transactions that give staged bytes their names: bytes, then name, then row.

A blob goes only after the transaction that forgot it was committed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from amba_router.store.blobs import Blobs, Staged
from amba_router.store.database import Database
from amba_router.store.queries import referenced
from amba_runtime.errors import AmbaRunError

T = TypeVar("T")


class Adoption:
    """Owns neither `database` nor `blobs`."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database = database
        self._blobs = blobs

    async def run(
        self,
        staged: tuple[Staged, ...],
        work: Callable[[Connection, Callable[[], None]], tuple[T, set[str]]],
    ) -> T:
        """Run a transaction that names `staged`; when it fails, the names go again.

        Args:
            staged: finished bytes.
            work: given a connection and what names the bytes, which it calls when it has
                admitted them. Returns its result, and blobs that nobody may refer to any more.
        """
        named: set[str] = set()

        def adopt() -> None:
            for one in staged:
                named.add(one.segment().blob)
                self._blobs.adopt(one)

        def job(c: Connection) -> tuple[T, set[str]]:
            result, gone = work(c, adopt)
            return result, self.garbage(c, gone)

        try:
            result, _ = await self._database.write(job, then=self._remove)
        except Exception:  # whatever failed: no blob stays that no row names
            if named:
                # What does not go now goes at the next open.
                with contextlib.suppress(AmbaRunError, RuntimeError):
                    await self._undo(staged, named)
            raise
        return result

    async def _undo(self, staged: tuple[Staged, ...], named: set[str]) -> None:
        def work(c: Connection) -> set[str]:
            for one in staged:
                one.discard()
            return self.garbage(c, named)

        await self._database.write(work, then=self._blobs.remove)

    def garbage(self, c: Connection, candidates: set[str]) -> set[str]:
        """Those of `candidates`, and of the blobs that wait for a reader, nobody refers to."""
        candidates = candidates | self._blobs.doomed()
        used = referenced(c, list(candidates))
        self._blobs.spare(used)
        return candidates - used

    def _remove(self, result: tuple[T, set[str]]) -> None:
        self._blobs.remove(result[1])

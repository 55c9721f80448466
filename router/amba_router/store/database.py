"""One SQLite file, one writer thread, a few readers: how transactions run.

WAL with synchronous=FULL: a transaction that was answered survives a power cut.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select
from sqlalchemy.exc import DatabaseError

from amba_router.store import schema
from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError

T = TypeVar("T")

WRITER = "amba-store-writer"
READER = "amba-store-reader"
"""Names of the threads, as a debugger shows them."""


class Database:
    """An open database. `close` ends its threads; nothing may use it afterwards.

    `write` runs transactions one after another in one thread; `read` runs in a few others and
    sees the last committed state.
    """

    def __init__(self, path: Path) -> None:
        """Open, and create when new. Blocks: run it in a thread.

        Raises:
            UserError: STATE_TOO_NEW or STATE_DAMAGED, naming the file and what to do.
        """
        self.path = path
        self._write_engine = _engine(path, begin="BEGIN IMMEDIATE", size=1)
        try:
            _prepare(self._write_engine, path)
        except BaseException:
            self._write_engine.dispose()
            raise
        self._read_engine = _engine(path, begin="BEGIN", size=limits.STORE_THREADS.value)
        self._writer = ThreadPoolExecutor(1, WRITER)
        self._readers = ThreadPoolExecutor(limits.STORE_THREADS.value, READER)

    async def write(
        self, work: Callable[[Connection], T], *, then: Callable[[T], None] | None = None
    ) -> T:
        """Run `work` in a transaction of its own, and `then` after the commit.

        An exception of `work` rolls back and passes through. When the caller is cancelled, a
        transaction that has begun still ends as it would have.
        """

        def job() -> T:
            with self._write_engine.begin() as connection:
                result = work(connection)
            if then is not None:
                then(result)
            return result

        return await asyncio.get_running_loop().run_in_executor(self._writer, job)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one consistent snapshot."""

        def job() -> T:
            with self._read_engine.connect() as connection:
                return work(connection)

        return await self.in_thread(job)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work that needs no connection (blob reads and writes)."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    def close(self) -> None:
        """Wait for what has begun, then close. Blocks; idempotent."""
        self._writer.shutdown(cancel_futures=True)
        self._readers.shutdown(cancel_futures=True)
        self._read_engine.dispose()
        self._write_engine.dispose()


def _engine(path: Path, *, begin: str, size: int) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=size,
        max_overflow=0,
        connect_args={"timeout": limits.STORE_BUSY_S.value, "check_same_thread": False},
    )

    # The driver would start transactions by its own rules: it is told not to, and we say BEGIN.
    def on_connect(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"journal_size_limit={64 * limits.MIB}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def _prepare(engine: Engine, path: Path) -> None:
    """Create the tables of a new database; refuse one this program cannot use."""
    try:
        with engine.begin() as connection:
            version = _version(connection)
            if version is None:
                schema.metadata.create_all(connection)
                connection.execute(
                    insert(schema.amba_meta).values(
                        name="schema_version", value=str(schema.VERSION)
                    )
                )
                return
    except DatabaseError as error:
        raise UserError(
            UserCode.STATE_DAMAGED,
            f"{path} cannot be used as the database of a state folder: {error.orig}",
            hint="restore a snapshot, or start afresh with: amba-run state reset",
        ) from error
    if version > schema.VERSION:
        raise UserError(
            UserCode.STATE_TOO_NEW,
            f"{path} has schema version {version}; this program knows {schema.VERSION} at most",
            hint="use the newer amba-run that wrote it, or another folder with --state",
            details={"found": version, "known": schema.VERSION},
        )


def _version(connection: Connection) -> int | None:
    if not inspect(connection).has_table("amba_meta"):
        return None
    meta = schema.amba_meta
    found = connection.scalar(select(meta.c.value).where(meta.c.name == "schema_version"))
    return None if found is None else int(found)

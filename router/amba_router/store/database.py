"""One SQLite file, one writer thread, a few readers: how transactions run.

WAL with synchronous=FULL: a transaction that was answered survives a power cut.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select, update
from sqlalchemy.exc import DBAPIError

from amba_router.store import schema, service_schema, sql_functions, trigger_schema
from amba_router.store.failures import Probe, damaged, probe_once, told, translated
from amba_runtime import limits
from amba_runtime.errors import InternalCode, InternalError, UserCode, UserError

T = TypeVar("T")

WRITER = "amba-store-writer"
READER = "amba-store-reader"
"""Names of the threads, as a debugger shows them."""


class Database:
    """An open database. `close` ends its threads; nothing may use it afterwards.

    `write` runs transactions one after another in one thread; `read` runs in a few others and
    sees the last committed state. Those that wait while the disk is busy are committed together,
    each in a savepoint of its own: one that fails takes nothing of the others with it.
    """

    def __init__(self, path: Path) -> None:
        """Open; create when new, bring up to date when older. Blocks: run it in a thread.

        Raises:
            UserError: STATE_TOO_NEW, STATE_DAMAGED, STATE_READ_ONLY or DISK_FULL, naming the
                folder and what to do.
        """
        self.path = path
        self.upgraded_from: int | None = None
        """The schema version that was found, when it was an older one."""
        self._closed = False
        self._write_engine = _engine(path, begin="BEGIN IMMEDIATE", size=1)
        try:
            with translated(path.parent, opening=True):
                self.upgraded_from = _prepare(self._write_engine, path)
        except BaseException:
            self._write_engine.dispose()
            raise
        self._read_engine = _engine(path, begin="BEGIN", size=limits.STORE_THREADS.value)
        self._writer = ThreadPoolExecutor(1, WRITER)
        self._waiting: deque[_Job] = deque()  # filled by the loop, emptied by the writer
        self._readers = ThreadPoolExecutor(limits.STORE_THREADS.value, READER)

    async def write(
        self, work: Callable[[Connection], T], *, then: Callable[[T], None] | None = None
    ) -> T:
        """Run `work` in a transaction of its own, and `then` after the commit.

        An exception of `work` rolls back and passes through; those of SQLite and of the file
        system come as DISK_FULL, STATE_READ_ONLY or STATE_FAILED, which is also what those get
        that still wait when the store closes. When the caller is cancelled, a transaction that has
        begun still ends as it would have.
        """
        job = _Job(work, then)
        self._waiting.append(job)
        try:
            self._writer.submit(self._write_waiting)
        except RuntimeError:  # closed; what the last group has taken along still ends
            if job.done.cancel():
                raise
        result: T = await self._outcome(job.done)
        return result

    async def _outcome(self, future: Future[T]) -> T:
        """What a job of ours came to. Who waited when the store closed was not cancelled itself.

        Raises:
            InternalError: STATE_FAILED; the store closed before the job began.
        """
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            own = task is not None and task.cancelling() > 0
            if own or not self._closed or not future.cancelled():
                raise
            raise InternalError(
                InternalCode.STATE_FAILED, "the store closed while this waited; nothing was done"
            ) from None

    def _write_waiting(self) -> None:
        """Run what waits, in one transaction; several calls may find nothing left."""
        jobs: list[_Job] = []
        while self._waiting and len(jobs) < limits.STORE_GROUP.value:
            job = self._waiting.popleft()
            if job.done.set_running_or_notify_cancel():
                jobs.append(job)
        if not jobs:
            return
        failed: BaseException | None = None
        try:
            with self._write_engine.begin() as connection:
                if len(jobs) == 1:
                    jobs[0].run(connection)
                else:
                    for job in jobs:
                        job.run_aside(connection)
        except BaseException as error:  # the callers' to know: of the work, or of the commit
            failed = error
        folder = self.path.parent
        probe = probe_once(folder)  # what failed for one failed for all
        for job in jobs:
            job.tell(failed, folder, probe)

    def write_here(
        self,
        work: Callable[[Connection], T],
        *,
        then: Callable[[T], None] | None = None,
        opening: bool = False,
    ) -> T:
        """The same in the caller's thread. Blocks; for the opening, when nobody else writes."""
        with translated(self.path.parent, opening=opening):
            with self._write_engine.begin() as connection:
                result = work(connection)
            if then is not None:
                then(result)
            return result

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on one consistent snapshot."""

        def job() -> T:
            with self._read_engine.connect() as connection:
                return work(connection)

        return await self.in_thread(job)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work that needs no connection (blob reads and writes)."""

        def job() -> T:
            with translated(self.path.parent):
                return work()

        return await self._outcome(self._readers.submit(job))

    def close(self) -> None:
        """Wait for what has begun, then close. Blocks; idempotent.

        Who waits for what has not begun is told so (STATE_FAILED).
        """
        self._closed = True
        self._writer.shutdown(cancel_futures=True)
        while self._waiting:
            self._waiting.popleft().done.cancel()
        self._readers.shutdown(cancel_futures=True)
        self._read_engine.dispose()
        self._write_engine.dispose()


class _Job:
    """One caller's transaction, and what it is told."""

    def __init__(self, work: Callable[[Connection], Any], then: Callable[[Any], None] | None):
        self.done: Future[Any] = Future()
        self._work = work
        self._then = then
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self, connection: Connection) -> None:
        """Alone in the transaction. Raises what the work does."""
        self._result = self._work(connection)
        if not _alive(connection):
            raise _Lost(self, None)

    def run_aside(self, connection: Connection) -> None:
        """Where others share the transaction. Raises what leaves none of it intact."""
        savepoint = connection.begin_nested()
        try:
            self._result = self._work(connection)
        except BaseException as error:  # its caller's to know; the others go on
            if not _alive(connection):
                raise _Lost(self, error) from error
            self._error = error
            savepoint.rollback()
            return
        if not _alive(connection):
            raise _Lost(self, None)
        savepoint.commit()

    def tell(self, failed: BaseException | None, folder: Path, probe: Probe) -> None:
        """After the commit, or after there was none. Raises nothing: others wait to be told.

        Args:
            failed: why nothing was committed: not what this job did, nor what it saw others do.
        """
        try:
            if failed is not None:
                self._error = failed.told(self) if isinstance(failed, _Lost) else failed
            elif self._error is None and self._then is not None:
                self._then(self._result)
        except BaseException as error:  # the caller's to know
            self._error = error
        if self._error is None:
            self.done.set_result(self._result)
            return
        try:
            said = told(self._error, folder, probe=probe)
        except BaseException as error:  # it promises not to; who is not told waits for ever
            said = error
        self.done.set_exception(said)


class _Lost(Exception):
    """SQLite took the whole transaction back while a job ran, as it does on a full disk."""

    def __init__(self, job: _Job, error: BaseException | None) -> None:
        super().__init__()
        self._job = job
        self._error = error
        self._reason: BaseException | None = error
        for _ in range(_CAUSES):
            if self._reason is None or isinstance(self._reason, DBAPIError):
                break
            self._reason = self._reason.__cause__ or self._reason.__context__

    def told(self, job: _Job) -> BaseException:
        """To the job that met it what it raised; to others the database's reason alone.

        Jobs are of different projects: what one of them says is none of another's.
        """
        if job is self._job and self._error is not None:
            return self._error
        if isinstance(self._reason, DBAPIError):
            return self._reason
        return InternalError(
            InternalCode.STATE_FAILED, "the database took a transaction back; nothing was changed"
        )


_CAUSES = 16
"""Errors behind an error that are looked at for the database's own."""


def _alive(connection: Connection) -> bool:
    """Whether the transaction that began is still there."""
    driver = connection.connection.driver_connection
    return isinstance(driver, sqlite3.Connection) and driver.in_transaction


def _engine(path: Path, *, begin: str, size: int) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=size,
        max_overflow=0,
        hide_parameters=True,  # what users keep is in no traceback
        connect_args={"timeout": limits.STORE_BUSY_S.value, "check_same_thread": False},
    )

    # The driver would start transactions by its own rules: it is told not to, and we say BEGIN.
    def on_connect(connection: sqlite3.Connection, record: Any) -> None:
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "secure_delete=ON",  # what is destroyed does not stay in free pages
            f"journal_size_limit={64 * limits.MIB}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()
        sql_functions.register(connection, record.info)

    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def _prepare(engine: Engine, path: Path) -> int | None:
    """Create the tables of a new database, upgrade an older one, refuse what is neither.

    All in one transaction, the version last: a crash leaves the old one or the new one.
    """
    with engine.begin() as connection:
        found = _version(connection, path)
        if found is None:
            if _has_blobs(path.parent):
                # a new one would count them all as garbage
                raise damaged(path.parent, "it is missing or empty, and blobs/ is not")
            known = {*service_schema.SERVICES, *trigger_schema.TRIGGERS}
            assert known <= set(schema.metadata.tables)
            schema.metadata.create_all(connection)
            connection.execute(
                insert(schema.amba_meta).values(name="schema_version", value=str(schema.VERSION))
            )
            return None
        if found > schema.VERSION:
            raise UserError(
                UserCode.STATE_TOO_NEW,
                f"{path} has schema version {found}; this program knows {schema.VERSION} at most",
                hint="use the newer amba-run that wrote it, or another folder with --state",
                details={"found": found, "known": schema.VERSION},
            )
        _check(connection, path)
        if found == schema.VERSION:
            return None
        from amba_router.store import migrations  # alembic: for an upgrade alone

        migrations.upgrade(connection, found=found, wanted=schema.VERSION)
        meta = schema.amba_meta
        connection.execute(
            update(meta).where(meta.c.name == "schema_version").values(value=str(schema.VERSION))
        )
        return found


def _check(connection: Connection, path: Path) -> None:
    """Refuse damaged pages now, not in the middle of a deploy.

    A large database is checked in the tables of the control plane alone: those of STORAGE grow
    with what users keep, and a start must not.
    """
    whole = os.stat(path).st_size <= limits.STORE_CHECK_BYTES.value
    for name in ("",) if whole else schema.CONTROL:
        pragma = f"PRAGMA quick_check('{name}')" if name else "PRAGMA quick_check"
        said = [str(row[0]) for row in connection.exec_driver_sql(pragma)]
        if said != ["ok"]:
            raise damaged(path.parent, said[0])


def _version(connection: Connection, path: Path) -> int | None:
    if not inspect(connection).has_table("amba_meta"):
        return None
    meta = schema.amba_meta
    found = connection.scalar(select(meta.c.value).where(meta.c.name == "schema_version"))
    if found is None:
        return None
    if not (found.isascii() and found.isdigit()):
        raise damaged(path.parent, f"its schema version is {found[:40]!r}")
    return int(found)


def _has_blobs(folder: Path) -> bool:
    """Whether a blob lies beside the database."""
    return next(folder.glob("blobs/[0-9a-f][0-9a-f]/*"), None) is not None

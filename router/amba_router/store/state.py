"""One opened state directory: its lock, its database, its blobs, its key, and what was repaired.

    amba.db   SQLite (WAL)          blobs/   content-addressed files, and the lock
    key       32 bytes, mode 0600: seals what is secret in the database

StorageService and ControlStore share one `State`. Cheap to import: SQLAlchemy comes with `open`.
Source: architecture.md 7.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from amba_router.store.blobs import Blobs, fsync_folder
from amba_router.store.sealing import Sealer
from amba_runtime import limits
from amba_runtime.clock import Clock, time_ms
from amba_runtime.errors import UserCode, UserError

if TYPE_CHECKING:
    from amba_router.store.database import Database
    from amba_router.store.objects import Objects

T = TypeVar("T")

DATABASE = "amba.db"


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An active deployment that was disabled because its bundle is not what was stored."""

    project_id: str
    slug: str
    name: str
    version: int
    deployment_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Repairs:
    """What a crash left and the opening put right. False when nothing was.

    Attributes:
        half_written: files that never became blobs (or a key), removed.
        orphans: blobs that nothing refers to, removed.
        quarantined: deployments that were active and are disabled now; all others serve.
        upgraded_from: the schema version the database had before, None when it was current.
    """

    half_written: int = 0
    orphans: int = 0
    quarantined: tuple[Quarantined, ...] = ()
    upgraded_from: int | None = None

    def lines(self) -> tuple[str, ...]:
        """Sentences for a person; none when nothing was done."""
        said: list[str] = []
        if self.upgraded_from is not None:
            said.append(f"the database was upgraded from schema version {self.upgraded_from}")
        if self.half_written:
            said.append(f"{_files(self.half_written)} that a crash left half-written removed")
        if self.orphans:
            said.append(f"{_files(self.orphans)} that nothing refers to removed")
        said += [
            f"{q.slug}/{q.name} version {q.version} was disabled: {q.reason}; deploy it again"
            for q in self.quarantined
        ]
        return tuple(said)

    def __bool__(self) -> bool:
        return self != Repairs()


class State:
    """An open state directory. `close` it; idempotent.

    Attributes:
        repairs: what `open` put right.
    """

    def __init__(
        self,
        path: Path,
        blobs: Blobs,
        database: Database,
        objects: Objects,
        sealer: Sealer,
        repairs: Repairs,
    ) -> None:
        """For `open`."""
        self.path = path
        self.blobs = blobs
        self.database = database
        self.objects = objects
        self.sealer = sealer
        self.repairs = repairs
        self._open = True

    @classmethod
    async def open(cls, path: Path, clock: Clock) -> State:
        """Take the directory, made when missing, and repair what a crash left.

        Raises:
            UserError: STATE_IN_USE (after waiting `STORE_LOCK_S` for its owner), STATE_TOO_NEW,
                STATE_DAMAGED, STATE_KEY, STATE_READ_ONLY, DISK_FULL.
        """
        blobs = Blobs(path / "blobs")
        try:
            await _take(blobs, path, clock)
            now_ms = time_ms(clock)
            loading = asyncio.ensure_future(in_thread(lambda: _load(path, blobs, now_ms)))
            try:
                return await asyncio.shield(loading)
            except asyncio.CancelledError:
                with contextlib.suppress(Exception):
                    await (await loading).close()
                raise
        except OSError as error:
            blobs.close()
            from amba_router.store.failures import of_files

            raise of_files(error, path, opening=True) from error
        except BaseException:
            blobs.close()
            raise

    async def close(self) -> None:
        """Finish what has begun, then let the directory go."""
        if self._open:
            self._open = False
            await in_thread(self.database.close)
            self.blobs.close()

    def __del__(self) -> None:
        if self._open:
            message = f"the state directory {self.path} was not closed"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)


async def in_thread(work: Callable[[], T]) -> T:
    """For opening and closing, when the store's own threads are not there."""
    pool = ThreadPoolExecutor(1, "amba-store-open")
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, work)
    finally:
        pool.shutdown(wait=False)


async def _take(blobs: Blobs, path: Path, clock: Clock) -> None:
    """The lock; its last owner may still be ending."""
    await in_thread(lambda: _make(path))
    until = clock.monotonic_s() + limits.STORE_LOCK_S.value
    while not await in_thread(blobs.try_open):
        if clock.monotonic_s() >= until:
            raise UserError(
                UserCode.STATE_IN_USE,
                f"{path} is used by another amba-run process",
                hint="stop it, or choose another folder with --state",
            )
        await clock.sleep(0.05)


def _make(path: Path) -> None:
    """A folder for its owner alone, and those above it; their names are durable."""
    if not path.is_dir():
        _make(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(PermissionError):  # a folder may be written and not read
            fsync_folder(path.parent)


def _close_to_others(database: Path) -> None:
    """The database and SQLite's files beside it are this person's, in whatever folder they lie.

    What cannot be made or changed here is told by whoever opens it.
    """
    with contextlib.suppress(OSError):
        os.close(os.open(database, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for suffix in ("", "-wal", "-shm"):  # SQLite gives the other two the first one's mode
        with contextlib.suppress(OSError):
            database.with_name(database.name + suffix).chmod(0o600)


def _load(path: Path, blobs: Blobs, now_ms: int) -> State:
    # Importing SQLAlchemy takes a few hundred milliseconds: here, in a thread, once.
    from amba_router.store import repair
    from amba_router.store.database import Database
    from amba_router.store.objects import Objects

    _close_to_others(path / DATABASE)
    database = Database(path / DATABASE)
    try:
        sealer, scratch = repair.load_sealer(path, database)
        orphans, quarantined = repair.repair(database, blobs, now_ms)
    except BaseException:
        database.close()
        raise
    repairs = Repairs(blobs.half_written + scratch, orphans, quarantined, database.upgraded_from)
    return State(path, blobs, database, Objects(database, blobs), sealer, repairs)


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"

"""What went wrong below the store, told in words of ours: the one table of translations.

Full and read-only disks are for a person to mend, so they are user errors, at any time; a damaged
database is one at open, where it can be chosen otherwise, and ours when it happens in use.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sqlite3
from collections.abc import Callable, Generator
from pathlib import Path

from sqlalchemy.exc import DBAPIError, IntegrityError

from amba_runtime import entropy
from amba_runtime.errors import AmbaRunError, InternalCode, InternalError, UserCode, UserError

Probe = Callable[[], OSError | None]
"""Why a folder takes no writes; None when it takes them."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextlib.contextmanager
def translated(folder: Path, *, opening: bool = False) -> Generator[None]:
    """Errors of SQLite and of the file system as ours, with the cause kept; others pass."""
    try:
        yield
    except (DBAPIError, OSError, StopIteration) as error:
        raise told(error, folder, opening=opening) from error


def told(
    error: BaseException, folder: Path, *, opening: bool = False, probe: Probe | None = None
) -> BaseException:
    """What is told of an error; itself where it is not of the store. Raises nothing.

    Args:
        probe: as of `probe_once`, where several are told of what may be one failure.
    """
    ours = error
    if isinstance(error, DBAPIError):
        ours = of_database(error, folder, opening=opening, probe=probe)
    elif isinstance(error, OSError):
        ours = of_files(error, folder, opening=opening)
    elif isinstance(error, StopIteration):
        # a future cannot hold one: whoever waits for it would wait for ever
        ours = InternalError(InternalCode.INVARIANT, "an iterator ended too soon")
    if ours is not error:
        ours.__cause__ = error
    return ours


def of_files(error: OSError, folder: Path, *, opening: bool = False) -> AmbaRunError:
    """What a failed call of the file system means."""
    if error.errno in _FULL:
        return UserError(
            UserCode.DISK_FULL,
            f"there is no space left for {folder}: {os.strerror(error.errno or 0)}",
            hint="free some; nothing that was answered is lost, and the next write tries again",
        )
    if error.errno in _READ_ONLY:
        return UserError(
            UserCode.STATE_READ_ONLY,
            f"{folder} cannot be written: {os.strerror(error.errno or 0)}",
            hint="check its owner, its mode and its mount, or choose another: --state DIR",
        )
    if opening:
        return UserError(
            UserCode.STATE_DAMAGED,
            f"{folder} cannot be used as a state folder: {error}",
            hint="check its owner, its mode and the space left, or choose another: --state DIR",
        )
    return InternalError(InternalCode.STATE_FAILED, f"{folder} failed: {error}")


def of_database(
    error: DBAPIError, folder: Path, *, opening: bool = False, probe: Probe | None = None
) -> AmbaRunError:
    """What a failed statement means."""
    cause = error.orig
    code = (getattr(cause, "sqlite_errorcode", None) or 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return of_files(OSError(errno.ENOSPC, ""), folder)
    if code == sqlite3.SQLITE_READONLY:
        return of_files(OSError(errno.EROFS, ""), folder)
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        # SQLite does not pass on why (a quota, a mount that turned read-only): ask again.
        why = (probe or probe_once(folder))() or OSError(errno.EIO, f"its database says: {cause}")
        return of_files(why, folder, opening=opening)
    if isinstance(error, IntegrityError):
        return InternalError(InternalCode.INVARIANT, f"the database refused a row: {cause}")
    if opening:
        return damaged(folder, str(cause))
    return InternalError(
        InternalCode.STATE_FAILED,
        f"the database of {folder} failed: {cause}; end this server and see what its start says",
    )


def damaged(folder: Path, what: str) -> UserError:
    """A database that cannot be used."""
    return UserError(
        UserCode.STATE_DAMAGED,
        f"{folder / 'amba.db'} cannot be used as the database of a state folder: {what}",
        hint="restore the whole state directory from a copy, or start with another: --state DIR",
    )


def probe_once(folder: Path) -> Probe:
    """Tries the folder when first asked, and says the same from then on."""
    return functools.cache(lambda: _probe(folder))


def _probe(folder: Path) -> OSError | None:
    """Why a small file cannot be written there; None when it can. Raises nothing.

    What happens after the write counts too: a disk may turn read-only in between, and then the
    file stays, which the next start removes (`keyfile`).
    """
    path = folder / f".probe-{entropy.short_id()}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return error
    steps = (
        lambda: os.write(fd, bytes(4096)),
        lambda: os.fsync(fd),
        lambda: os.close(fd),
        lambda: path.unlink(missing_ok=True),
    )
    first: OSError | None = None
    for step in steps:
        try:
            step()
        except OSError as error:
            first = first or error
    return first

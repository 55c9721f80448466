"""Private folders under the system's temporary one, and the end of those whose owner was killed.

A folder's owner holds a lock on a file in it for its whole life. The system gives the lock back
however the owner ends, so that a folder whose lock is free is nobody's any more.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from itertools import islice
from pathlib import Path

from amba_runtime import limits

PREFIX = "amba-"
LOCK = ".amba-lock"
OPEN_PLACES = (Path("/tmp"), Path("/var/tmp"), Path("/run"))  # noqa: S108  made with mkdtemp


class PrivateFolder:
    """A new folder of mode 0700, ours until `close` or until we end."""

    def __init__(self, kind: str = "", *, within: Path | None = None) -> None:
        """Make it. Raises OSError.

        Args:
            kind: a word for its name, such as `state-`.
            within: another place than the system's temporary folder: `open_place()`, so that it
                is swept too.
        """
        # a short name, because a Unix socket's path has 107 bytes at most
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX + kind, dir=within))
        self._lock = _hold(self.path)

    def close(self) -> None:
        """Remove the folder with all that is in it. Idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _hold(folder: Path) -> int | None:
    """Lock a new file in the folder; its descriptor, or None where there are no such locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    new = folder / f"{LOCK}-new"
    lock = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    with contextlib.suppress(OSError):  # a file system without locks: nobody sweeps it either
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # under its name only once it is locked: no sweeper can come first
        new.rename(folder / LOCK)
    return lock


def barrier(path: Path) -> Path | None:
    """The first folder on the way to `path` that only its owner may enter; None: the way is open.

    Raises OSError where the way does not exist.
    """
    for folder in reversed(path.resolve(strict=True).parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


def open_place() -> Path:
    """The temporary folder if every user may come there, as engines with users of their own must.

    Otherwise the first of the usual ones where they may; the temporary folder if there is none.
    """
    usual = Path(tempfile.gettempdir())
    for place in (usual, *OPEN_PLACES):
        with contextlib.suppress(OSError):
            if place.stat().st_mode & stat.S_IXOTH and barrier(place) is None:
                return place
    return usual


def sweep() -> int:
    """Remove our user's folders that no living process holds, secrets in them included.

    Follows no symbolic links, looks at a bounded number of entries, never raises.

    Returns:
        How many were removed.
    """
    return sum(_sweep(place) for place in {Path(tempfile.gettempdir()), open_place()})


def _sweep(place: Path) -> int:
    removed = 0
    refusals = contextlib.suppress(OSError, ImportError)
    with refusals, os.scandir(place) as entries:
        for entry in islice(entries, limits.SWEPT_ENTRIES.value):
            if entry.name.startswith(PREFIX):
                with contextlib.suppress(OSError):
                    removed += _remove_if_free(entry)
    return removed


def _remove_if_free(entry: os.DirEntry[str]) -> bool:
    import fcntl

    if not entry.is_dir(follow_symlinks=False):
        return False
    if entry.stat(follow_symlinks=False).st_uid != os.getuid():
        return False
    folder = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        lock = os.open(LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(entry.path, ignore_errors=True)
        return True
    finally:
        os.close(lock)

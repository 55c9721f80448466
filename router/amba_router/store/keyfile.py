"""The file that holds a state directory's key: made whole or not at all, for its owner alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from amba_router.store.blobs import fsync_folder
from amba_router.store.sealing import KEY_BYTES
from amba_runtime import entropy
from amba_runtime.errors import UserCode, UserError

NAME = "key"
_SCRATCH = ".key-"


def read_key(folder: Path) -> bytes | None:
    """The key; None when there is no file.

    Raises:
        UserError: STATE_KEY: others may read it, or it is no key.
    """
    path = folder / NAME
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        key = os.read(fd, KEY_BYTES + 1)
    finally:
        os.close(fd)
    if mode & 0o077:
        raise UserError(
            UserCode.STATE_KEY,
            f"{path} has mode {mode:04o}: others than its owner may use the key",
            hint=f"chmod 600 {path}",
        )
    if len(key) != KEY_BYTES:
        raise UserError(
            UserCode.STATE_KEY,
            f"{path} is no key: it has not {KEY_BYTES} bytes",
            hint="restore it from a copy of this state directory",
        )
    return key


def make_key(folder: Path) -> bytes:
    """A new key, durable when this returns. For the owner of the directory's lock alone."""
    key = entropy.key_bytes(KEY_BYTES)
    scratch = folder / f"{_SCRATCH}{entropy.short_id()}"
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o600)
        os.write(fd, key)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(scratch, folder / NAME)
    fsync_folder(folder)
    return key


def sweep(folder: Path) -> int:
    """Remove what a crash in `make_key` left; how many."""
    left = [*folder.glob(_SCRATCH + "*"), *folder.glob(".probe-*")]
    for path in left:
        path.unlink()
    return len(left)

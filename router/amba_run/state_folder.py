"""State directories as a whole, while no server holds them: keep one, put it back, empty it.

What is there is replaced by a new folder beside it and two renames: a failure before them changes
nothing, one between them is undone, and a crash there leaves the old folder under another name.
Source: interface.md section 2; architecture.md section 7.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from amba_router.store.blobs import Blobs, fsync_folder
from amba_router.store.state import DATABASE, State
from amba_run.dev_state import CREDENTIALS, DEV_FILE, LOCK_FILE, Claim
from amba_runtime import entropy
from amba_runtime.clock import Clock
from amba_runtime.errors import UserCode, UserError

if TYPE_CHECKING:
    from amba_router.store.snapshots import Saved

_OURS = frozenset(
    {
        *(DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal"),
        *("blobs", "key", "outbox", CREDENTIALS, DEV_FILE, LOCK_FILE),
    }
)
"""What a state directory holds; whatever else lies there is somebody's, and is never removed."""
_PASSING = (".key-", ".probe-", f".{CREDENTIALS}.", f".{DEV_FILE}.")
_EMPTY = frozenset({LOCK_FILE, DEV_FILE, "blobs", "outbox"})


@dataclass(frozen=True, slots=True)
class Restored:
    """A state directory that came from a snapshot; `upgraded_from` is its older schema."""

    state: Path
    blobs: int
    upgraded_from: int | None


async def snapshot(path: Path, file: Path, clock: Clock) -> Saved:
    """Keep a state directory in `file`, whole or not at all.

    Without `outbox/`: its files are made anew from the mails in the database.

    Raises:
        UserError: NO_STATE, STATE_IN_USE, DISK_FULL, and as `State.open`.
    """
    _require(path)
    if not file.parent.is_dir():
        raise UserError(UserCode.ENTRY_NOT_FOUND, f"{file.parent} is no folder")
    with _claimed(path):
        state = await State.open(path, clock)
        try:
            from amba_router.store import snapshots

            return await snapshots.save(state, file, beside=(CREDENTIALS,), now_s=clock.time_s())
        finally:
            await state.close()


async def restore(file: Path, path: Path, clock: Clock, *, force: bool) -> Restored:
    """Put a snapshot in the place of a state directory; what is there stays if it fails.

    Args:
        path: made when missing.
        force: replaces what is in it.

    Raises:
        UserError: STATE_NOT_EMPTY, STATE_IN_USE, INVALID_SNAPSHOT, NO_STATE for a folder that
            holds what is not ours, DISK_FULL, and as `State.open` of what was kept.
    """
    path = _resolved(path)
    made = not path.is_dir()
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with _held(path):
            if not force and _holds(path):
                raise UserError(
                    UserCode.STATE_NOT_EMPTY,
                    f"{path} holds a state already",
                    hint="--force replaces it; amba-run state snapshot keeps it before",
                )
            return await _restore(file, path, clock)
    except BaseException:
        if made:
            shutil.rmtree(path, ignore_errors=True)
        raise


async def _restore(file: Path, path: Path, clock: Clock) -> Restored:
    from amba_router.store import snapshots

    scratch = _beside(path)
    try:
        blobs = await asyncio.to_thread(
            lambda: snapshots.unpack(file, scratch, beside=(CREDENTIALS,))
        )
        # opened as a server would: what cannot be served from is told now
        state = await State.open(scratch, clock)
        upgraded_from = state.repairs.upgraded_from
        await state.close()
        await asyncio.to_thread(lambda: _swap(scratch, path))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Restored(path, blobs, upgraded_from)


async def reset(path: Path, *, keys: bool) -> Path:
    """Empty a state directory; its id and keys (`credentials.json`) stay unless `keys`.

    Raises:
        UserError: NO_STATE, STATE_IN_USE, STATE_READ_ONLY.
    """
    _require(path)
    path = _resolved(path)
    with _held(path):
        scratch = _beside(path)
        try:
            await asyncio.to_thread(lambda: _fresh(path, scratch, keys=keys))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return path


def _fresh(path: Path, scratch: Path, *, keys: bool) -> None:
    from amba_router.store.failures import translated

    with translated(path):
        scratch.mkdir(mode=0o700)
        if not keys and (path / CREDENTIALS).is_file():
            shutil.copyfile(path / CREDENTIALS, scratch / CREDENTIALS)
            os.chmod(scratch / CREDENTIALS, 0o600)
            with open(scratch / CREDENTIALS, "rb") as copied:
                os.fsync(copied.fileno())
        fsync_folder(scratch)
    _swap(scratch, path)


def _swap(scratch: Path, path: Path) -> None:
    """`scratch` in the place of `path`, which is removed once that is durable."""
    from amba_router.store.failures import translated

    old = _beside(path)
    with translated(path):
        os.rename(path, old)
        try:
            os.rename(scratch, path)
        except BaseException:
            os.rename(old, path)
            raise
        fsync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{entropy.short_id()}")


def _resolved(path: Path) -> Path:
    """The folder itself, which may be renamed."""
    real = Path(os.path.realpath(path))
    if os.path.ismount(real):
        raise UserError(
            UserCode.NO_STATE,
            f"{real} is where a volume is mounted: it cannot be replaced as a whole",
            hint=f"keep the state in a folder below it, such as {real / 'state'}",
        )
    return real


def is_used(path: Path) -> bool:
    """Whether a server has kept something there."""
    return any((path / name).is_file() for name in (DATABASE, CREDENTIALS))


def _require(path: Path) -> None:
    if not is_used(path):
        raise UserError(
            UserCode.NO_STATE,
            f"{path} is no state directory",
            hint="give the PATH that amba-run dev serves with --path, or a folder with --state",
        )


def _holds(path: Path) -> bool:
    """Whether something is in it besides what taking it leaves."""
    names = {entry.name for entry in path.iterdir()}
    return not names <= _EMPTY or any(path.glob("blobs/[0-9a-f][0-9a-f]/*"))


@contextlib.contextmanager
def _claimed(path: Path) -> Generator[None]:
    claim = Claim(path)
    claim.take()
    try:
        yield
    finally:
        claim.drop()


@contextlib.contextmanager
def _held(path: Path) -> Generator[None]:
    """No server holds it, and none takes it meanwhile; and nothing in it is another's."""
    names = sorted(entry.name for entry in path.iterdir())
    foreign = [name for name in names if name not in _OURS and not name.startswith(_PASSING)]
    if foreign:
        raise UserError(
            UserCode.NO_STATE,
            f"{path} holds what is not amba-run's: {', '.join(foreign[:5])}",
            hint="nothing was touched; name a folder that holds a state and nothing else",
        )
    with _claimed(path):
        blobs = Blobs(path / "blobs")
        if not blobs.try_open():
            raise UserError(
                UserCode.STATE_IN_USE,
                f"{path} is used by another amba-run process",
                hint="end it, or name another folder with --state",
            )
        try:
            yield
        finally:
            blobs.close()

"""A state directory in one file, and out of it: what a snapshot holds, and how it is checked.

    snapshot.json     first: the format, and the SHA-256 of the files that are not blobs
    amba.db           a copy that SQLite made, in one transaction
    key               what opens the sealed values in it: a snapshot is as secret as its directory
    blobs/ab/ab12...  every blob that the database names, each checked against its name
    and the files that the caller names (a dev server's `credentials.json`)

A gzipped tar of plain files, mode 0600. Everything here blocks but `save`.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import json
import os
import re
import sqlite3
import tarfile
import zlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection

from amba_router.store import keyfile
from amba_router.store.blobs import fsync_folder
from amba_router.store.failures import translated
from amba_router.store.queries import all_referenced
from amba_router.store.state import DATABASE, State
from amba_runtime import entropy, limits
from amba_runtime.errors import UserCode, UserError

FORMAT = 1
_MANIFEST = "snapshot.json"
_BLOB = re.compile(r"blobs/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_LEVEL = 6
_SPEC = tarfile.PAX_FORMAT


@dataclass(frozen=True, slots=True)
class Saved:
    """A snapshot that was written.

    Attributes:
        missing: blobs that the database names and that are gone or damaged: not in it.
    """

    file: Path
    size: int
    blobs: int
    missing: tuple[str, ...]


async def save(state: State, file: Path, *, beside: Iterable[str], now_s: float) -> Saved:
    """Write a snapshot, whole or not at all; an older `file` is replaced at the end.

    Args:
        beside: names of files in the directory that go along, where they are there.

    Raises:
        UserError: DISK_FULL, STATE_READ_ONLY of the folder of `file`.
    """
    copy = _scratch(file)
    try:
        names = await state.database.read(lambda c: _copy(c, copy, file.parent))
        return await state.database.in_thread(
            lambda: _pack(state.path, copy, sorted(names), file, tuple(beside), int(now_s))
        )
    finally:
        copy.unlink(missing_ok=True)


def _copy(c: Connection, copy: Path, folder: Path) -> set[str]:
    """The database as this transaction sees it, as one file; the blobs that it names."""
    with translated(folder):
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        source = c.connection.driver_connection
        assert isinstance(source, sqlite3.Connection)
        try:
            with contextlib.closing(sqlite3.connect(copy)) as target:
                source.backup(target)
                target.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.Error as error:
            full = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF == sqlite3.SQLITE_FULL
            number = errno.ENOSPC if full else 0
            raise OSError(number, f"the database could not be copied: {error}") from error
    return all_referenced(c)


def _pack(
    state: Path, copy: Path, blobs: list[str], file: Path, beside: tuple[str, ...], now_s: int
) -> Saved:
    files = {DATABASE: copy, keyfile.NAME: state / keyfile.NAME}
    files |= {name: state / name for name in beside if (state / name).is_file()}
    manifest = {
        "format": FORMAT,
        "files": {name: _digest(path) for name, path in files.items()},
    }
    missing: list[str] = []
    scratch = _scratch(file)
    with translated(file.parent):
        try:
            fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as raw:
                with tarfile.open(
                    fileobj=raw, mode="w:gz", compresslevel=_LEVEL, format=_SPEC
                ) as tar:
                    text = json.dumps(manifest).encode()
                    _add(tar, _MANIFEST, len(text), io.BytesIO(text), now_s)
                    for name, path in files.items():
                        with open(path, "rb") as opened:
                            _add(tar, name, os.fstat(opened.fileno()).st_size, opened, now_s)
                    for blob in blobs:
                        if not _add_blob(tar, state, blob, now_s):
                            missing.append(blob)
                raw.flush()
                os.fsync(raw.fileno())
                size = os.fstat(raw.fileno()).st_size
            os.replace(scratch, file)
            fsync_folder(file.parent)
        finally:
            scratch.unlink(missing_ok=True)
    return Saved(file, size, len(blobs) - len(missing), tuple(missing))


def _add(tar: tarfile.TarFile, name: str, size: int, opened: IO[bytes], now_s: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, now_s
    tar.addfile(info, opened)


def _add_blob(tar: tarfile.TarFile, state: Path, blob: str, now_s: int) -> bool:
    path = state / "blobs" / blob[:2] / blob
    if not path.is_file() or _digest(path) != blob:
        return False
    with open(path, "rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        _add(tar, f"blobs/{blob[:2]}/{blob}", size, opened, now_s)
    return True


def unpack(file: Path, folder: Path, *, beside: Iterable[str]) -> int:
    """Fill a new folder from a snapshot, durably; how many blobs there were.

    Nothing but files that a snapshot may have is made, whatever the archive says. What is in the
    database is not looked at: open the folder to know.

    Args:
        folder: made here; may be left half-filled by an error.
        beside: as `save` got them; others are refused.

    Raises:
        UserError: ENTRY_NOT_FOUND, INVALID_SNAPSHOT; DISK_FULL, STATE_READ_ONLY of the folder.
    """
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(open(file, "rb"))
        except OSError as error:
            raise UserError(
                UserCode.ENTRY_NOT_FOUND, f"{file} cannot be read: {error.strerror}"
            ) from error
        stack.enter_context(translated(folder.parent))
        folder.mkdir(mode=0o700)
        (folder / "blobs").mkdir(mode=0o700)
        with _readable(file), tarfile.open(fileobj=opened, mode="r|gz") as tar:
            blobs = _unpack(_Members(tar, file), folder, file, frozenset(beside))
        for made in [*folder.glob("blobs/??"), folder / "blobs", folder]:
            fsync_folder(made)
    return blobs


@contextlib.contextmanager
def _readable(file: Path) -> Generator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _invalid(file, f"{error}"[:200] or "it ends too soon") from error


class _Members:
    """The plain files of an archive, counted. Iterate once."""

    def __init__(self, tar: tarfile.TarFile, file: Path) -> None:
        self._tar = tar
        self._file = file
        self._files = limits.SNAPSHOT_FILES.value
        self._bytes = limits.SNAPSHOT_BYTES.value

    def __iter__(self) -> Iterator[tuple[str, int, IO[bytes]]]:
        for info in self._tar:
            content = self._tar.extractfile(info) if info.isreg() else None
            if content is None:
                raise _invalid(self._file, f"{info.name[:100]!r} is no plain file")
            self._files -= 1
            self._bytes -= info.size
            if self._files < 0 or self._bytes < 0:
                raise _invalid(self._file, "it holds more than a state directory may")
            yield info.name, info.size, content


def _unpack(members: _Members, folder: Path, file: Path, beside: frozenset[str]) -> int:
    allowed = {DATABASE, keyfile.NAME, *beside}
    wanted: dict[str, str] | None = None
    seen: set[str] = set()
    for name, size, content in members:
        if wanted is None:
            wanted = _manifest(name, size, content, file, allowed)
            continue
        blob = _BLOB.fullmatch(name)
        if (name not in wanted and blob is None) or name in seen:
            raise _invalid(file, f"{name[:100]!r} has no place in it")
        seen.add(name)
        target = folder / name
        if blob is not None:
            target.parent.mkdir(mode=0o700, exist_ok=True)
        if _write(target, content) != (blob[2] if blob is not None else wanted[name]):
            raise _invalid(file, f"{name} is not what was kept")
    if wanted is None or not seen.issuperset(wanted):
        raise _invalid(file, "it is not whole")
    return len(seen) - len(wanted)


def _manifest(
    name: str, size: int, content: IO[bytes], file: Path, allowed: set[str]
) -> dict[str, str]:
    """Names and digests of the files that are not blobs."""
    if name != _MANIFEST or size > limits.SNAPSHOT_MANIFEST_BYTES.value:
        raise _invalid(file, f"it does not begin with {_MANIFEST}")
    try:
        said: Any = json.loads(content.read())
        format_, files = int(said["format"]), dict(said["files"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _invalid(file, f"its {_MANIFEST} cannot be read") from error
    if format_ != FORMAT:
        raise _invalid(file, f"it has format {format_}; this amba-run knows {FORMAT}")
    if not {DATABASE, keyfile.NAME} <= set(files) <= allowed:
        raise _invalid(file, f"its {_MANIFEST} names other files than a snapshot has")
    return {str(one): str(digest) for one, digest in files.items()}


def _write(target: Path, content: IO[bytes]) -> str:
    """A new file, durable when this returns; its SHA-256."""
    digest = hashlib.sha256()
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as out:
        for chunk in _chunks(content):
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as opened:
        for chunk in _chunks(opened):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(opened: IO[bytes]) -> Iterator[bytes]:
    return iter(partial(opened.read, limits.STORE_CHUNK.value), b"")


def _scratch(file: Path) -> Path:
    return file.with_name(f".{file.name}.{entropy.short_id()}")


def _invalid(file: Path, why: str) -> UserError:
    return UserError(
        UserCode.INVALID_SNAPSHOT,
        f"{file} is no snapshot that can be restored: {why}",
        hint="use a file that amba-run state snapshot wrote",
    )

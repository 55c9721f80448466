"""Content-addressed files: how bytes become durable, and when they may go.

    blobs/lock            held (flock) by the one process that owns this folder
    blobs/incoming/*      half-written; emptied at every open
    blobs/ab/ab12...      whole blobs, named by the SHA-256 of their bytes

A blob is acknowledged after its file and the folders above it were fsynced.
Names come from hashes alone: no key of a user ever reaches the file system (reliability T16).
Everything here blocks: callers run it in threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from amba_router.store.records import Segment
from amba_runtime import entropy
from amba_runtime.errors import InternalCode, InternalError

ALGORITHMS = ("md5", "sha1", "sha256", "sha384", "sha512")


class Hash(Protocol):
    """The part of a hashlib object that is used here."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Staged:
    """Bytes on their way to a blob. One user at a time; ends with `Blobs.adopt` or `discard`.

    The file is made at the first write, so an empty value touches nothing.
    """

    def __init__(self, path: Path, algorithms: Iterable[str]) -> None:
        self.path = path
        self.size = 0
        self._fd = -1
        self._ended = False
        self.adopted = False
        """Its bytes have their name now: nothing is left to discard."""
        # A cancelled writer may still be at work in its thread when `discard` comes.
        self._guard = threading.Lock()
        names = {"md5", "sha256", *algorithms}
        self._hashes: dict[str, Hash] = {n: hashlib.new(n, usedforsecurity=False) for n in names}

    def write(self, data: bytes) -> None:
        """Append. OSError (no space, I/O) leaves nothing acknowledged: call `discard`."""
        with self._guard:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if not data or self._ended:
            return
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        for hash_ in self._hashes.values():
            hash_.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        self.size += len(data)

    def finish(self, data: bytes = b"") -> None:
        """Append the last bytes and fsync. After an OSError the bytes count as lost."""
        with self._guard:
            self._write(data)
            if self._fd >= 0:
                fd, self._fd = self._fd, -1
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)

    def digest(self, algorithm: str) -> str:
        """Lower-case hex of all bytes so far."""
        return self._hashes[algorithm].hexdigest()

    def segment(self) -> Segment:
        """What the bytes are called once adopted."""
        return Segment(self.digest("sha256"), self.size)

    def discard(self) -> None:
        """Remove what was written; nothing to do once adopted. Blocks; idempotent."""
        with self._guard:
            self._ended = True
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()


class Lease:
    """Keeps blobs readable while someone reads them. Close it; dropping it closes it too."""

    __slots__ = ("_blobs", "_held")

    def __init__(self, blobs: Blobs, held: tuple[str, ...]) -> None:
        self._blobs = blobs
        self._held = held

    def close(self) -> None:
        """Idempotent; from any thread."""
        held, self._held = self._held, ()
        if held:
            self._blobs.unpin(held)

    def __del__(self) -> None:
        self.close()


class Blobs:
    """The folder. `open` before use, `close` at the end; both may block."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"
        self._lock_fd = -1
        self.half_written = 0
        """Files that `try_open` found half-written, and removed."""
        # Changed only under _guard: readers per blob, and blobs to go once nobody reads them.
        self._guard = threading.Lock()
        self._pins: dict[str, int] = {}
        self._doomed: set[str] = set()

    def try_open(self) -> bool:
        """Make the folder, take its lock, empty `incoming`.

        Returns:
            False when another process holds the lock (the caller may try again).
        """
        for folder in (self.root, self._incoming):  # `parents` would not heed the mode
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows: two owners of one folder are not told apart
            pass
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._lock_fd = fd
        self.half_written = 0
        for leftover in self._incoming.iterdir():
            leftover.unlink()
            self.half_written += 1
        fsync_folder(self.root)
        fsync_folder(self.root.parent)
        return True

    def close(self) -> None:
        """Let go of the lock. Idempotent."""
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)

    # writing

    def stage(self, algorithms: Iterable[str] = ()) -> Staged:
        """A place to write to; MD5 and SHA-256 are always computed."""
        return Staged(self._incoming / entropy.key_bytes(16).hex(), algorithms)

    def adopt(self, staged: Staged) -> None:
        """Give finished bytes their name, durably. Runs in the writer thread only.

        An equal blob is replaced by the new file, which also heals a damaged one.
        """
        staged.adopted = True
        if staged.size == 0:
            return
        target = self._path(staged.segment().blob)
        try:
            os.rename(staged.path, target)
        except FileNotFoundError:
            target.parent.mkdir(mode=0o700, exist_ok=True)
            fsync_folder(self.root)
            os.rename(staged.path, target)
        fsync_folder(target.parent)

    def remove(self, blobs: Iterable[str]) -> None:
        """Delete blobs nobody refers to; those being read go later. Writer thread only.

        It comes after the transaction that forgot them and cannot undo it: a file that does not
        go is left for the sweep of the next open.
        """
        with self._guard:
            self._doomed.update(blobs)
            free = [b for b in self._doomed if b not in self._pins]
            self._doomed.difference_update(free)
            for blob in free:
                with contextlib.suppress(OSError):
                    self._path(blob).unlink()

    def doomed(self) -> set[str]:
        """Blobs whose removal waits for a reader: ask again whether someone refers to them."""
        with self._guard:
            return set(self._doomed)

    def spare(self, blobs: Iterable[str]) -> None:
        """These are referred to again: do not remove them."""
        with self._guard:
            self._doomed.difference_update(blobs)

    def sweep(self, referenced: set[str]) -> int:
        """Delete every blob that is not `referenced`; how many went. At open only."""
        gone = 0
        for folder in self.root.iterdir():
            if len(folder.name) != 2:
                continue
            for file in folder.iterdir():
                if file.name not in referenced:
                    file.unlink()
                    gone += 1
        return gone

    # reading

    def size(self, blob: str) -> int | None:
        """Bytes of its file; None when there is none."""
        try:
            return os.stat(self._path(blob)).st_size
        except FileNotFoundError:
            return None

    def pin(self, segments: Iterable[Segment]) -> Lease:
        """Keep these until the lease is closed."""
        held = tuple(s.blob for s in segments)
        with self._guard:
            for blob in held:
                self._pins[blob] = self._pins.get(blob, 0) + 1
        return Lease(self, held)

    def unpin(self, held: Iterable[str]) -> None:
        """For `Lease.close`."""
        with self._guard:
            for blob in held:
                count = self._pins.pop(blob, 0) - 1
                if count > 0:
                    self._pins[blob] = count

    def missing(self, segments: Iterable[Segment]) -> bool:
        """Whether a file is not there.

        Raises:
            InternalError: BLOB_DAMAGED when one has another size than was recorded.
        """
        for segment in segments:
            size = self.size(segment.blob)
            if size is None:
                return True
            if size != segment.size:
                raise damaged(segment.blob, f"it has {size} bytes instead of {segment.size}")
        return False

    def read(self, blob: str, offset: int, length: int, whole: Hash | None = None) -> bytes:
        """`length` bytes from `offset`.

        The file is opened for each read: whoever stops reading leaves nothing open.

        Args:
            blob: its name.
            offset: from 0.
            length: bytes; all of them are there or it raises.
            whole: the SHA-256 over all earlier bytes, when a blob is read from end to end. It is
                brought up to date, and after the last byte compared: bytes that rotted on disk
                are never handed out as good.

        Raises:
            InternalError: BLOB_DAMAGED.
        """
        try:
            fd = os.open(self._path(blob), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise damaged(blob, "its file is gone") from error
        try:
            data = os.pread(fd, length, offset)
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        if len(data) != length:
            raise damaged(blob, "its file is cut short")
        if whole is not None:
            whole.update(data)
            if offset + length == size and whole.hexdigest() != blob:
                raise damaged(blob, "its bytes have another SHA-256")
        return data

    def _path(self, blob: str) -> Path:
        return self.root / blob[:2] / blob


def damaged(blob: str, what: str) -> InternalError:
    """The error for stored bytes that are not what they were."""
    return InternalError(InternalCode.BLOB_DAMAGED, f"blob {blob} is damaged: {what}")


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""Blobs: what is durable, what may go, and when."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from amba_router.store.blobs import Blobs
from amba_router.store.records import Segment
from amba_runtime.errors import InternalCode, InternalError


def opened(tmp_path: Path) -> Blobs:
    blobs = Blobs(tmp_path / "blobs")
    assert blobs.try_open()
    return blobs


def adopt(blobs: Blobs, data: bytes) -> Segment:
    staged = blobs.stage()
    staged.finish(data)
    blobs.adopt(staged)
    return staged.segment()


def files(blobs: Blobs) -> set[str]:
    return {f.name for f in blobs.root.glob("??/*")}


def test_a_blob_is_named_by_its_bytes_and_reads_back(tmp_path: Path) -> None:
    """Content addressing: SHA-256 names, exact windows (architecture.md 7)."""
    blobs = opened(tmp_path)
    staged = blobs.stage(["sha1"])
    staged.write(b"hello ")
    staged.finish(b"world")
    blobs.adopt(staged)
    segment = staged.segment()
    assert segment == Segment(hashlib.sha256(b"hello world").hexdigest(), 11)
    assert staged.digest("sha1") == hashlib.sha1(b"hello world").hexdigest()  # noqa: S324
    assert blobs.read(segment.blob, 6, 5) == b"world"
    assert (blobs.root / segment.blob[:2] / segment.blob).stat().st_mode & 0o777 == 0o600
    blobs.close()


def test_a_discarded_value_leaves_no_file_and_takes_no_more(tmp_path: Path) -> None:
    """A truncated upload stores nothing, also when its writer was still at work (H7)."""
    blobs = opened(tmp_path)
    staged = blobs.stage()
    staged.write(b"half")
    staged.discard()
    staged.discard()
    staged.write(b"late")
    staged.finish(b"later")
    assert list((blobs.root / "incoming").iterdir()) == []
    blobs.close()


def test_an_empty_value_has_no_file(tmp_path: Path) -> None:
    """Zero bytes need no blob."""
    blobs = opened(tmp_path)
    assert adopt(blobs, b"").size == 0
    assert files(blobs) == set()
    blobs.close()


def test_open_removes_half_written_files(tmp_path: Path) -> None:
    """Garbage is removed at open (architecture.md 7)."""
    blobs = opened(tmp_path)
    blobs.stage().write(b"half")
    blobs.close()
    again = opened(tmp_path)
    assert list((again.root / "incoming").iterdir()) == []
    again.close()


def test_sweep_keeps_what_is_referred_to(tmp_path: Path) -> None:
    """Blobs nobody refers to go; others stay (architecture.md 7)."""
    blobs = opened(tmp_path)
    kept, gone = adopt(blobs, b"kept"), adopt(blobs, b"gone")
    assert blobs.sweep({kept.blob}) == 1
    assert files(blobs) == {kept.blob}
    assert blobs.missing([gone])
    blobs.close()


def test_a_leased_blob_outlives_its_removal(tmp_path: Path) -> None:
    """Readers see the old object whole (H7): a blob goes when its last reader has gone."""
    blobs = opened(tmp_path)
    segment = adopt(blobs, b"read me")
    one, two = blobs.pin([segment]), blobs.pin([segment])
    blobs.remove({segment.blob})
    one.close()
    one.close()
    blobs.remove(())
    assert blobs.read(segment.blob, 0, 7) == b"read me"
    assert blobs.doomed() == {segment.blob}
    del two
    blobs.remove(())
    assert files(blobs) == set()
    blobs.close()


def test_a_doomed_blob_is_spared_when_it_is_wanted_again(tmp_path: Path) -> None:
    """The same bytes put again while the old ones wait for a reader stay."""
    blobs = opened(tmp_path)
    segment = adopt(blobs, b"again")
    lease = blobs.pin([segment])
    blobs.remove({segment.blob})
    blobs.spare({segment.blob})
    lease.close()
    blobs.remove(())
    assert files(blobs) == {segment.blob}
    blobs.close()


def test_one_process_owns_the_folder(tmp_path: Path) -> None:
    """One writer per state folder (architecture.md 7); the lock goes with `close`."""
    blobs = opened(tmp_path)
    other = Blobs(tmp_path / "blobs")
    assert not other.try_open()
    blobs.close()
    blobs.close()
    assert other.try_open()
    other.close()


@pytest.mark.parametrize(
    ("damage", "what"),
    [("truncate", "has 3 bytes instead of 7"), ("flip", "another SHA-256"), ("unlink", "gone")],
)
def test_damage_is_found_and_named(tmp_path: Path, damage: str, what: str) -> None:
    """Rotted, cut or deleted bytes are never handed out as good (I8)."""
    blobs = opened(tmp_path)
    segment = adopt(blobs, b"content")
    file = blobs.root / segment.blob[:2] / segment.blob
    if damage == "truncate":
        os.truncate(file, 3)
    elif damage == "flip":
        file.write_bytes(b"Content")
    else:
        file.unlink()

    def look() -> None:
        blobs.missing([segment])
        blobs.read(segment.blob, 0, 7, hashlib.sha256())

    with pytest.raises(InternalError, match=what) as caught:
        look()
    assert caught.value.code is InternalCode.BLOB_DAMAGED
    blobs.close()


def test_a_window_past_the_end_is_damage(tmp_path: Path) -> None:
    """A file that was cut while it was read is told."""
    blobs = opened(tmp_path)
    segment = adopt(blobs, b"content")
    with pytest.raises(InternalError, match="cut short"):
        blobs.read(segment.blob, 5, 7)
    blobs.close()


def test_adopting_the_same_bytes_again_heals_them(tmp_path: Path) -> None:
    """A new put of equal bytes replaces a damaged file (I8)."""
    blobs = opened(tmp_path)
    segment = adopt(blobs, b"content")
    (blobs.root / segment.blob[:2] / segment.blob).write_bytes(b"rot")
    assert adopt(blobs, b"content") == segment
    assert blobs.read(segment.blob, 0, 7, hashlib.sha256()) == b"content"
    blobs.close()


def test_every_adoption_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File before name, name before acknowledgement (I6): the order of system calls."""
    blobs = opened(tmp_path)
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def seen_fsync(fd: int) -> None:
        calls.append("fsync " + ("folder" if os.path.isdir(f"/proc/self/fd/{fd}") else "file"))
        fsync(fd)

    def seen_rename(source: Path, target: Path) -> None:
        rename(source, target)
        calls.append("rename")

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "rename", seen_rename)
    adopt(blobs, b"one")
    assert calls == ["fsync file", "fsync folder", "rename", "fsync folder"]
    blobs.close()


def test_a_failed_fsync_loses_the_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one failed fsync the bytes count as lost; the next try works (I3)."""
    blobs = opened(tmp_path)

    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, "I/O error")

    staged = blobs.stage()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="I/O error"):
            staged.finish(b"lost")
    staged.discard()
    assert list((blobs.root / "incoming").iterdir()) == []
    assert adopt(blobs, b"lost").size == 4
    blobs.close()


def test_a_lock_that_cannot_be_taken_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error while locking passes through and closes what was opened."""
    import fcntl

    def fail(_fd: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", fail)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="no locks"):
        Blobs(tmp_path / "blobs").try_open()
    assert len(os.listdir("/proc/self/fd")) == before

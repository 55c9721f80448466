"""What is said when the disk is full, read-only or broken: one table, with the cause kept."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import DatabaseError, IntegrityError

from amba_router.store.failures import of_database, of_files, probe_once, told, translated
from amba_runtime.errors import AmbaRunError, InternalCode, UserCode, UserError


def sqlite_error(code: int, text: str = "said") -> DatabaseError:
    cause = sqlite3.OperationalError(text)
    cause.sqlite_errorcode = code
    return DatabaseError("INSERT", {}, cause)


def code_of(error: AmbaRunError) -> str:
    return str(getattr(error, "code"))  # noqa: B009  both kinds have one


@pytest.mark.parametrize(
    ("number", "opening", "code"),
    [
        (errno.ENOSPC, False, UserCode.DISK_FULL),
        (errno.EDQUOT, False, UserCode.DISK_FULL),
        (errno.EFBIG, False, UserCode.DISK_FULL),
        (errno.ENOSPC, True, UserCode.DISK_FULL),
        (errno.EROFS, False, UserCode.STATE_READ_ONLY),
        (errno.EACCES, True, UserCode.STATE_READ_ONLY),
        (errno.EPERM, True, UserCode.STATE_READ_ONLY),
        (errno.EIO, False, InternalCode.STATE_FAILED),
        (errno.EIO, True, UserCode.STATE_DAMAGED),
        (errno.ENOTDIR, True, UserCode.STATE_DAMAGED),
    ],
)
def test_files(tmp_path: Path, number: int, opening: bool, code: str) -> None:
    """Full and read-only are told as such; the folder is named (issue 3, row 11)."""
    error = of_files(OSError(number, "x"), tmp_path, opening=opening)
    assert code_of(error) == code
    assert str(tmp_path) in str(error)


@pytest.mark.parametrize(
    ("number", "opening", "code"),
    [
        (sqlite3.SQLITE_FULL, False, UserCode.DISK_FULL),
        (sqlite3.SQLITE_READONLY, False, UserCode.STATE_READ_ONLY),
        (sqlite3.SQLITE_READONLY | 8 << 8, True, UserCode.STATE_READ_ONLY),
        (sqlite3.SQLITE_CORRUPT, False, InternalCode.STATE_FAILED),
        (sqlite3.SQLITE_CORRUPT, True, UserCode.STATE_DAMAGED),
        (sqlite3.SQLITE_NOTADB, True, UserCode.STATE_DAMAGED),
        (sqlite3.SQLITE_IOERR, False, InternalCode.STATE_FAILED),
        (sqlite3.SQLITE_CANTOPEN, True, UserCode.STATE_DAMAGED),
    ],
)
def test_database(tmp_path: Path, number: int, opening: bool, code: str) -> None:
    """By SQLite's own codes, extended ones too (issue 3, row 11)."""
    assert code_of(of_database(sqlite_error(number), tmp_path, opening=opening)) == code
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN])
def test_the_system_is_asked_why(tmp_path: Path, number: int) -> None:
    """SQLite's I/O error hides a quota or a mount: a probe says which."""
    error = of_database(sqlite_error(number), tmp_path / "gone", opening=False)
    assert code_of(error) == InternalCode.STATE_FAILED
    assert "No such file" in str(error)


def test_a_probe_that_fails_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No space for the bytes, though there was some for the name."""

    def full(_fd: int) -> None:
        raise OSError(errno.EDQUOT, "quota")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        error = of_database(sqlite_error(sqlite3.SQLITE_IOERR), tmp_path)
    assert code_of(error) == UserCode.DISK_FULL
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["close", "unlink"])
def test_a_probe_raises_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A disk that turns read-only after the write: that is why, whatever could not be undone."""
    left: list[int] = []

    def read_only(what: object, *_: object) -> None:
        if isinstance(what, int):
            left.append(what)
        raise OSError(errno.EROFS, "read-only")

    with monkeypatch.context() as patch:
        patch.setattr(f"os.{step}", read_only)
        error = told(sqlite_error(sqlite3.SQLITE_IOERR), tmp_path)
    for fd in left:
        os.close(fd)
    assert isinstance(error, UserError)
    assert error.code is UserCode.STATE_READ_ONLY


def test_a_probe_is_made_once(tmp_path: Path) -> None:
    """And only when asked: what is said afterwards is the same."""
    gone = tmp_path / "gone"
    probe = probe_once(gone)
    first = probe()
    gone.mkdir()
    assert first is not None
    assert first.errno == errno.ENOENT
    assert probe() is first


def test_a_refused_row_is_our_fault(tmp_path: Path) -> None:
    """What the schema forbids never comes from a user."""
    error = of_database(IntegrityError("INSERT", {}, sqlite3.IntegrityError("UNIQUE")), tmp_path)
    assert code_of(error) == InternalCode.INVARIANT


def test_other_errors_pass_and_causes_are_kept(tmp_path: Path) -> None:
    """Translated once, with what was below it."""
    with pytest.raises(KeyError), translated(tmp_path):
        raise KeyError("x")
    cause = OSError(errno.ENOSPC, "full")
    with pytest.raises(UserError) as caught, translated(tmp_path):
        raise cause
    assert caught.value.__cause__ is cause
    with pytest.raises(UserError) as caught, translated(tmp_path, opening=True):
        raise sqlite_error(sqlite3.SQLITE_CORRUPT, "malformed")
    assert caught.value.code is UserCode.STATE_DAMAGED

"""The key file: whole or not at all, and for its owner alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from amba_router.store.keyfile import NAME, make_key, read_key, sweep
from amba_runtime.errors import UserCode, UserError


def test_a_key_is_made_once_and_read_again(tmp_path: Path) -> None:
    """32 random bytes in a file of mode 0600 (issue 3, item 4)."""
    assert read_key(tmp_path) is None
    key = make_key(tmp_path)
    assert len(key) == 32
    assert read_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o777])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    """With the command that mends it."""
    make_key(tmp_path)
    (tmp_path / NAME).chmod(mode)
    with pytest.raises(UserError, match=f"has mode {mode:04o}") as caught:
        read_key(tmp_path)
    assert caught.value.code is UserCode.STATE_KEY
    assert caught.value.hint == f"chmod 600 {tmp_path / NAME}"


@pytest.mark.parametrize("size", [0, 31, 33, 5000])
def test_what_is_no_key_is_refused(tmp_path: Path, size: int) -> None:
    """A key that was cut or overwritten is never used, and never replaced."""
    (tmp_path / NAME).touch(0o600)
    (tmp_path / NAME).write_bytes(bytes(size))
    with pytest.raises(UserError, match="is no key") as caught:
        read_key(tmp_path)
    assert caught.value.code is UserCode.STATE_KEY
    assert len((tmp_path / NAME).read_bytes()) == size


def test_what_a_crash_left_is_swept(tmp_path: Path) -> None:
    """A key that never got its name counts for nothing."""
    (tmp_path / ".key-01234567").write_bytes(b"half")
    (tmp_path / ".probe-01234567").touch()
    key = make_key(tmp_path)
    assert sweep(tmp_path) == 2
    assert sweep(tmp_path) == 0
    assert read_key(tmp_path) == key

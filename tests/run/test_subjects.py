"""Finished bundles as `check` and `deploy` read them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from amba_run.subjects import read_bundle
from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError

CODE = b"export default { fetch() {} }\n"


def test_a_bundle_is_read_with_the_map_beside_it(tmp_path: Path) -> None:
    """Interface.md section 2: `NAME.js.map` belongs to `NAME.js`; none is no fault."""
    path = tmp_path / "f.js"
    path.write_bytes(CODE)
    assert read_bundle(path).source_map is None
    path.with_name("f.js.map").write_bytes(b'{"version":3}')
    read = read_bundle(path)
    assert (read.code, read.source_map) == (CODE, b'{"version":3}')


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing"])
def test_what_is_no_file_is_told_and_never_waited_for(tmp_path: Path, kind: str) -> None:
    """Style.md, limits: a pipe that nobody writes to would hold the command for ever."""
    path = tmp_path / "f.js"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(UserError) as caught:
        read_bundle(path)
    assert caught.value.code is UserCode.ENTRY_NOT_FOUND
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_huge_one_is_not_read_to_its_end(tmp_path: Path) -> None:
    """Limits: one byte more than may be is enough to refuse it."""
    path = tmp_path / "f.js"
    with path.open("wb") as file:
        file.truncate(limits.BUNDLE_BYTES.value * 2)
    assert len(read_bundle(path).code) == limits.BUNDLE_BYTES.value + 1


def test_a_map_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    """A map helps to read stacks: for want of it nothing is refused."""
    path = tmp_path / "f.js"
    path.write_bytes(CODE)
    beside = path.with_name("f.js.map")
    beside.write_bytes(b"{}")
    beside.chmod(0)
    if os.geteuid() == 0:  # whom no mode keeps out
        beside.unlink()
        beside.mkdir()
    assert read_bundle(path).source_map is None

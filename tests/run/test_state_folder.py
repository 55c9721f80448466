"""Snapshots of state directories: whole or not at all, and nothing is lost (architecture 7)."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import stat
import tarfile
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.router.store.world import blob_names, deploy, opened, opened_state, project

from amba_router.services.storage.service import StorageService
from amba_router.store.blobs import Blobs
from amba_router.store.on_demand import OnDemand
from amba_run import dev_state, state_folder
from amba_run.dev_state import Claim
from amba_runtime import limits
from amba_runtime.clock import ManualClock, SystemClock
from amba_runtime.errors import UserCode, UserError
from amba_runtime.manifest import ProjectId


async def fill(path: Path, *, said: bytes = b"kept") -> str:
    """A state with a project, a deployment and an object; the project's id."""

    async def body() -> AsyncGenerator[bytes, None]:
        yield said

    async with opened(path) as store:
        made = await project(store)
        await deploy(store, made.record.id, code=b"export default {} // " + said)
    async with opened_state(path) as state:
        storage = StorageService(OnDemand(state, ManualClock()), ManualClock())
        await storage.put(ProjectId(made.record.id), "greeting", body())
    dev_state.load_credentials(path)
    return str(made.record.id)


async def content(path: Path, project_id: str) -> bytes:
    """What the object of `fill` says."""
    async with opened_state(path) as state:
        storage = StorageService(OnDemand(state, ManualClock()), ManualClock())
        found = await storage.get(ProjectId(project_id), "greeting")
        assert found is not None
        read = b"".join([piece async for piece in found.body])
        await found.body.aclose()
        assert not state.repairs
        return read


def tree(path: Path) -> dict[str, bytes]:
    """Every file that is not a lock."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name not in ("lock", "dev.lock")
    }


def snapshot(path: Path, file: Path) -> Any:
    return asyncio.run(state_folder.snapshot(path, file, SystemClock()))


def restore(file: Path, path: Path, *, force: bool = False) -> Any:
    return asyncio.run(state_folder.restore(file, path, SystemClock(), force=force))


def refused(work: Callable[[], object]) -> UserError:
    with pytest.raises(UserError) as raised:
        work()
    return raised.value


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    """Database, blobs, key and credentials, into a folder that was not there (interface 2)."""
    state, file, other = tmp_path / "state", tmp_path / "kept.tar.gz", tmp_path / "a" / "other"
    id_ = asyncio.run(fill(state))
    saved = snapshot(state, file)
    assert (saved.file, saved.blobs, saved.missing) == (file, 2, ())
    assert saved.size == file.stat().st_size
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    restored = restore(file, other)
    assert (restored.state, restored.blobs, restored.upgraded_from) == (other, 2, None)
    assert asyncio.run(content(other, id_)) == b"kept"
    assert dev_state.load_credentials(other) == dev_state.load_credentials(state)
    assert (other / "key").read_bytes() == (state / "key").read_bytes()
    assert blob_names(other) == blob_names(state)
    for made in other.rglob("*"):
        assert stat.S_IMODE(made.stat().st_mode) & 0o077 == 0
    assert {entry.name for entry in tmp_path.iterdir()} == {"state", "kept.tar.gz", "a"}
    assert {entry.name for entry in (tmp_path / "a").iterdir()} == {"other"}


def test_a_snapshot_replaces_an_older_one_at_the_end(tmp_path: Path) -> None:
    """Which stays as it is when the new one fails, with nothing beside it (whole or not at all)."""
    state, file = tmp_path / "state", tmp_path / "kept.tar.gz"
    asyncio.run(fill(state))
    file.write_bytes(b"older")
    (state / "key").chmod(0o644)
    assert refused(lambda: snapshot(state, file)).code is UserCode.STATE_KEY
    assert file.read_bytes() == b"older"
    (state / "key").chmod(0o600)
    snapshot(state, file)
    assert file.read_bytes() != b"older"
    (tmp_path / "folder.tar.gz").mkdir()
    with pytest.raises(Exception, match="folder"):
        snapshot(state, tmp_path / "folder.tar.gz")
    assert {e.name for e in tmp_path.iterdir()} == {"state", "kept.tar.gz", "folder.tar.gz"}
    assert refused(lambda: snapshot(state, tmp_path / "no" / "f")).code is UserCode.ENTRY_NOT_FOUND


def test_a_blob_that_is_gone_or_damaged_is_told(tmp_path: Path) -> None:
    """And the rest is kept: a start quarantines what it needs (reliability I8)."""
    state, file = tmp_path / "state", tmp_path / "kept.tar.gz"
    asyncio.run(fill(state))
    first, second = sorted((state / "blobs").glob("??/*"))
    first.unlink()
    second.write_bytes(b"x" * second.stat().st_size)
    saved = snapshot(state, file)
    assert (saved.blobs, saved.missing) == (0, (first.name, second.name))
    assert restore(file, tmp_path / "other").blobs == 0


def test_no_server_may_hold_it(tmp_path: Path) -> None:
    """The locks of dev and of a node say so; nothing is touched (STATE_IN_USE)."""
    state, file = tmp_path / "state", tmp_path / "kept.tar.gz"
    asyncio.run(fill(state))
    snapshot(state, file)
    before = tree(state)
    claim, blobs = Claim(state), Blobs(state / "blobs")
    works: list[Callable[[], object]] = [
        lambda: restore(file, state, force=True),
        lambda: asyncio.run(state_folder.reset(state, keys=True)),
    ]
    claim.take()
    try:
        for work in [*works, lambda: snapshot(state, file)]:
            assert refused(work).code is UserCode.STATE_IN_USE
    finally:
        claim.drop()
    assert blobs.try_open()
    try:
        for work in works:
            assert refused(work).code is UserCode.STATE_IN_USE
    finally:
        blobs.close()
    assert tree(state) == before


def test_what_is_there_is_replaced_with_force_alone(tmp_path: Path) -> None:
    """Without it 409's like; with it the old state is gone and the kept one is there."""
    state, file, other = tmp_path / "state", tmp_path / "kept.tar.gz", tmp_path / "other"
    id_ = asyncio.run(fill(state))
    snapshot(state, file)
    asyncio.run(fill(other, said=b"newer"))
    before = tree(other)
    assert refused(lambda: restore(file, other)).code is UserCode.STATE_NOT_EMPTY
    assert tree(other) == before
    restore(file, other, force=True)
    assert asyncio.run(content(other, id_)) == b"kept"
    assert blob_names(other) == blob_names(state)
    empty = tmp_path / "empty"
    empty.mkdir()
    restore(file, empty)
    assert asyncio.run(content(empty, id_)) == b"kept"


def pack(file: Path, members: list[tuple[str, bytes]], *, link: str = "") -> None:
    """A tar of one's own."""
    with tarfile.open(file, "w:gz") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo("blobs")
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)


def members_of(file: Path) -> list[tuple[str, bytes]]:
    """What is in a snapshot."""
    found: list[tuple[str, bytes]] = []
    with tarfile.open(file) as tar:
        for info in tar:
            opened_ = tar.extractfile(info)
            assert opened_ is not None
            found.append((info.name, opened_.read()))
    return found


def bad_snapshots(members: list[tuple[str, bytes]]) -> dict[str, list[tuple[str, bytes]]]:
    """Ways in which an archive is none."""
    (first, manifest), *rest = members
    said = json.loads(manifest)
    names = dict(rest)

    def begun(**changed: Any) -> list[tuple[str, bytes]]:
        return [(first, json.dumps({**said, **changed}).encode()), *rest]

    blob = next(name for name in names if name.startswith("blobs/"))
    other = f"blobs/{blob[6:8]}/" + blob[9:11] + "0" * 62
    return {
        "empty": [],
        "no manifest": rest,
        "manifest is no JSON": [(first, b"{"), *rest],
        "manifest is too long": [(first, b" " * (limits.SNAPSHOT_MANIFEST_BYTES.value + 1)), *rest],
        "another format": begun(format=2),
        "without the key": begun(files={"amba.db": "0"}),
        "another file": begun(files={**said["files"], "../evil": "0"}),
        "a stranger": [*members, ("../../evil", b"x")],
        "absolute": [*members, ("/tmp/evil", b"x")],
        "twice": [*members, members[-1]],
        "changed": [(n, d + b"x" if n == "key" else d) for n, d in members],
        "changed blob": [(n, d + b"x" if n == blob else d) for n, d in members],
        "wrong name": [(other if n == blob else n, d) for n, d in members],
        "without the database": [(n, d) for n, d in members if n != "amba.db"],
    }


def test_what_is_no_snapshot_changes_nothing(tmp_path: Path) -> None:
    """Other archives, cut, changed, or such as would write elsewhere (INVALID_SNAPSHOT)."""
    state, file, bad = tmp_path / "state", tmp_path / "kept.tar.gz", tmp_path / "bad"
    asyncio.run(fill(state))
    snapshot(state, file)
    before, members = tree(state), members_of(file)
    for label, wrong in bad_snapshots(members).items():
        pack(bad, wrong)
        assert refused(lambda: restore(bad, state, force=True)).code is UserCode.INVALID_SNAPSHOT, (
            label
        )
    pack(bad, members, link="/etc")
    assert refused(lambda: restore(bad, state, force=True)).code is UserCode.INVALID_SNAPSHOT
    raw = file.read_bytes()
    for cut in (b"", b"nonsense", raw[:10], raw[: len(raw) // 2], gzip.compress(b"x" * 2000)):
        bad.write_bytes(cut)
        assert refused(lambda: restore(bad, state, force=True)).code is UserCode.INVALID_SNAPSHOT
        assert refused(lambda: restore(bad, tmp_path / "new")).code is UserCode.INVALID_SNAPSHOT
    gone = tmp_path / "gone"
    assert refused(lambda: restore(gone, state, force=True)).code is UserCode.ENTRY_NOT_FOUND
    assert tree(state) == before
    assert {e.name for e in tmp_path.iterdir()} == {"state", "kept.tar.gz", "bad"}
    restore(file, state, force=True)
    assert (tree(state)["key"], len(blob_names(state))) == (before["key"], 2)


def test_a_snapshot_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many files and bytes, and no more (house rule: a limit is reached)."""
    state, file = tmp_path / "state", tmp_path / "kept.tar.gz"
    asyncio.run(fill(state))
    snapshot(state, file)
    members = members_of(file)
    size = sum(len(data) for _, data in members)
    for name, most in (("SNAPSHOT_FILES", len(members)), ("SNAPSHOT_BYTES", size)):
        with monkeypatch.context() as patch:
            patch.setattr(limits, name, limits.Limit(most, "", "", ""))
            restore(file, tmp_path / name)
            patch.setattr(limits, name, limits.Limit(most - 1, "", "", ""))
            error = refused(lambda: restore(file, tmp_path / "more"))
            assert error.code is UserCode.INVALID_SNAPSHOT


def test_a_database_that_no_server_would_open(tmp_path: Path) -> None:
    """Such as one of another key: told before anything is replaced (STATE_KEY)."""
    state, file, bad = tmp_path / "state", tmp_path / "kept.tar.gz", tmp_path / "bad"
    asyncio.run(fill(state))
    snapshot(state, file)
    before, members = tree(state), members_of(file)
    import hashlib

    said = json.loads(members[0][1])
    said["files"]["key"] = hashlib.sha256(b"k" * 32).hexdigest()
    changed = [(members[0][0], json.dumps(said).encode())]
    changed += [(n, b"k" * 32 if n == "key" else d) for n, d in members[1:]]
    pack(bad, changed)
    assert refused(lambda: restore(bad, state, force=True)).code is UserCode.STATE_KEY
    assert tree(state) == before


@pytest.mark.parametrize("at", [1, 2])
def test_a_rename_that_fails_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The old state is in its place again (nothing is lost)."""
    state, file = tmp_path / "state", tmp_path / "kept.tar.gz"
    asyncio.run(fill(state))
    snapshot(state, file)
    before = tree(state)
    renames = 0
    rename = os.rename

    def failing(source: Any, target: Any) -> None:
        nonlocal renames
        if state in (Path(source), Path(target)):
            renames += 1
            if renames == at:
                raise PermissionError(13, "no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    error = refused(lambda: restore(file, state, force=True))
    assert error.code is UserCode.STATE_READ_ONLY
    assert tree(state) == before
    assert {e.name for e in tmp_path.iterdir()} == {"state", "kept.tar.gz"}


def test_reset_keeps_the_keys_of_a_dev_project(tmp_path: Path) -> None:
    """All else goes; with `keys` these, too; what is there works like new (interface 2)."""
    state = tmp_path / "state"
    asyncio.run(fill(state))
    kept = dev_state.load_credentials(state)
    asyncio.run(state_folder.reset(state, keys=False))
    assert {entry.name for entry in state.iterdir()} == {"credentials.json"}
    assert stat.S_IMODE((state / "credentials.json").stat().st_mode) == 0o600
    assert dev_state.load_credentials(state) == kept
    asyncio.run(fill(state))
    asyncio.run(state_folder.reset(state, keys=True))
    assert list(state.iterdir()) == []
    error = refused(lambda: asyncio.run(state_folder.reset(state, keys=True)))
    assert error.code is UserCode.NO_STATE
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_folder_of_somebodys_is_never_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No state directory, one with other files in it, a mounted volume (NO_STATE)."""
    state, file = tmp_path / "state", tmp_path / "kept.tar.gz"
    asyncio.run(fill(state))
    snapshot(state, file)
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years")
    for work in (
        lambda: snapshot(home, file),
        lambda: restore(file, home),
        lambda: restore(file, home, force=True),
        lambda: asyncio.run(state_folder.reset(home, keys=True)),
    ):
        assert refused(work).code is UserCode.NO_STATE
    (state / "notes.txt").write_text("mine")
    before = tree(state)
    for work in (
        lambda: restore(file, state, force=True),
        lambda: asyncio.run(state_folder.reset(state, keys=True)),
    ):
        error = refused(work)
        assert error.code is UserCode.NO_STATE
        assert "notes.txt" in error.message
    assert tree(state) == before
    (state / "notes.txt").unlink()

    def ismount(path: object) -> bool:
        return path == state

    monkeypatch.setattr(os.path, "ismount", ismount)
    error = refused(lambda: asyncio.run(state_folder.reset(state, keys=True)))
    assert error.code is UserCode.NO_STATE
    assert (home / "thesis.txt").read_text() == "years"


def test_a_directory_that_is_a_link(tmp_path: Path) -> None:
    """What it leads to is replaced, and it leads there still."""
    state, link = tmp_path / "state", tmp_path / "link"
    asyncio.run(fill(state))
    link.symlink_to(state)
    asyncio.run(state_folder.reset(link, keys=True))
    assert link.is_symlink()
    assert list(link.iterdir()) == []

"""Opening a state directory: one owner, its key, and what is refused."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.router.store.world import blob_names, deploy, opened, opened_state, project

from amba_router.store.blobs import Blobs
from amba_router.store.schema import CONTROL, VERSION, metadata
from amba_router.store.service_schema import SERVICES
from amba_router.store.state import DATABASE, Quarantined, Repairs, State
from amba_router.store.trigger_schema import TRIGGERS
from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.errors import UserCode, UserError
from amba_runtime.secret import SecretText


def refused(path: Path) -> UserError:
    """What opening says; nothing is held afterwards."""

    async def main() -> UserError:
        with pytest.raises(UserError) as caught:
            await State.open(path, ManualClock())
        return caught.value

    error = asyncio.run(main())
    if (path / "blobs").is_dir():
        other = Blobs(path / "blobs")
        assert other.try_open()
        other.close()
    return error


def test_a_new_directory_is_private(tmp_path: Path) -> None:
    """Database, blobs and key, in a folder for its owner alone; a second open repairs nothing."""
    path = tmp_path / "deep" / "state"

    async def main() -> None:
        for _ in range(2):
            async with opened_state(path) as state:
                assert not state.repairs
                assert state.repairs.lines() == ()

    asyncio.run(main())
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((path / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE((path / "amba.db").stat().st_mode) == 0o600
    assert stat.S_IMODE((path / "blobs").stat().st_mode) == 0o700
    assert {"amba.db", "blobs", "key"} <= {p.name for p in path.iterdir()}


def test_a_second_owner_waits_then_is_refused(tmp_path: Path) -> None:
    """Up to 5 s for one that is ending, then STATE_IN_USE (issue 3, item 4)."""

    async def main() -> None:
        async with opened_state(tmp_path):
            clock = ManualClock()
            opening = asyncio.create_task(State.open(tmp_path, clock))
            while not opening.done():
                await asyncio.sleep(0)
                await clock.advance(0.1)
            with pytest.raises(UserError, match="another amba-run process") as caught:
                await opening
            assert caught.value.code is UserCode.STATE_IN_USE
            assert clock.monotonic_s() >= limits.STORE_LOCK_S.value
            late = ManualClock()
            waiting = asyncio.create_task(State.open(tmp_path, late))
            await late.advance(1.0)
            assert not waiting.done()
        while not waiting.done():
            await asyncio.sleep(0)
            await late.advance(0.1)
        await (await waiting).close()

    asyncio.run(main())


def test_children_do_not_inherit_the_lock(tmp_path: Path) -> None:
    """A start right after `kill -9` works though an engine still lives (issue 3, item 4)."""

    def start() -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            close_fds=False,
        )
        assert child.stdout is not None
        child.stdout.readline()
        return child

    async def main() -> None:
        async with opened_state(tmp_path):
            child = start()
        with child:
            async with opened_state(tmp_path) as state:
                assert not state.repairs
            child.kill()

    asyncio.run(main())


def test_an_opening_that_is_cancelled_lets_go(tmp_path: Path) -> None:
    """Nothing stays open behind a start that was given up."""

    async def main() -> None:
        opening = asyncio.create_task(State.open(tmp_path, ManualClock()))
        while not (tmp_path / DATABASE).exists():  # noqa: ASYNC110  a file tells nobody
            await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        async with opened_state(tmp_path):
            pass

    asyncio.run(main())


def test_a_forgotten_state_warns(tmp_path: Path) -> None:
    """Who opens closes (style.md)."""

    async def main() -> None:
        state = await State.open(tmp_path, ManualClock())
        state.blobs.close()
        state.database.close()

    def forget() -> None:
        asyncio.run(main())
        gc.collect()

    with pytest.warns(ResourceWarning, match="was not closed"):
        forget()


def test_a_close_is_idempotent(tmp_path: Path) -> None:
    """As every close here."""

    async def main() -> None:
        state = await State.open(tmp_path, ManualClock())
        await state.close()
        await state.close()

    asyncio.run(main())


# --- the key ---


async def fill(path: Path) -> None:
    async with opened(path) as store:
        await project(store)


def test_a_lost_key_is_told(tmp_path: Path) -> None:
    """Sealed values without their key: refused, and no new key is made over it."""
    asyncio.run(fill(tmp_path))
    key = (tmp_path / "key").read_bytes()
    (tmp_path / "key").unlink()
    error = refused(tmp_path)
    assert error.code is UserCode.STATE_KEY
    assert "is missing" in error.message
    assert not (tmp_path / "key").exists()
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_bytes(key)
    asyncio.run(fill(tmp_path))


def test_a_key_of_another_directory_is_told(tmp_path: Path) -> None:
    """Before anything is sealed with it."""
    asyncio.run(fill(tmp_path))
    (tmp_path / "key").write_bytes(bytes(32))
    error = refused(tmp_path)
    assert error.code is UserCode.STATE_KEY
    assert "not the key of this database" in error.message


def test_a_key_that_others_read_is_told(tmp_path: Path) -> None:
    """Wrong mode: refused with the command that mends it (issue 3, item 4)."""
    asyncio.run(fill(tmp_path))
    (tmp_path / "key").chmod(0o644)
    assert refused(tmp_path).hint == f"chmod 600 {tmp_path / 'key'}"


@pytest.mark.parametrize("how", ["gone", "another"])
def test_a_lost_key_of_nothing_is_made_again(tmp_path: Path, how: str) -> None:
    """A dev server's directory has nothing sealed: no person is needed."""

    async def main() -> None:
        async with opened_state(tmp_path):
            pass
        (tmp_path / "key").unlink()
        if how == "another":
            (tmp_path / "key").touch(0o600)
            (tmp_path / "key").write_bytes(bytes(32))
        for _ in range(2):
            await fill(tmp_path)

    asyncio.run(main())


# --- damage and refusals ---


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    """By an older program, untouched (issue 3, item 4; I9)."""
    asyncio.run(fill(tmp_path))
    with sqlite3.connect(tmp_path / DATABASE) as plain:
        plain.execute("UPDATE amba_meta SET value = ? WHERE name = 'schema_version'", [VERSION + 1])
    plain.close()
    assert refused(tmp_path).code is UserCode.STATE_TOO_NEW


def damage(path: Path, table: str, *, at: int = 0, size: int = 4096) -> None:
    """Overwrite bytes of a table's page in the database file."""
    plain = sqlite3.connect(path / DATABASE)
    plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    page = plain.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [table]).fetchone()[0]
    assert plain.execute("PRAGMA page_size").fetchone()[0] == 4096
    plain.close()
    with (path / DATABASE).open("r+b") as file:
        file.seek((page - 1) * 4096 + at)
        file.write(b"\xaa" * size)


@pytest.mark.parametrize("table", ["projects", "deployments", "storage_objects"])
@pytest.mark.parametrize(("at", "size"), [(0, 4096), (7, 1)], ids=["whole", "one byte"])
def test_a_damaged_page_is_told_at_open(tmp_path: Path, table: str, at: int, size: int) -> None:
    """Not in the middle of a deploy; the file is left as it is (issue 3, row 11; I8)."""
    asyncio.run(fill(tmp_path))
    damage(tmp_path, table, at=at, size=size)
    before = (tmp_path / DATABASE).read_bytes()
    error = refused(tmp_path)
    assert error.code is UserCode.STATE_DAMAGED
    assert str(tmp_path / DATABASE) in error.message
    assert (tmp_path / DATABASE).read_bytes() == before


def test_a_large_database_is_checked_where_it_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What users keep in STORAGE does not slow a start; the control plane is still checked."""
    ours = {t for t in metadata.tables if not t.startswith(("storage_", "amba_"))}
    assert ours - {*SERVICES, *TRIGGERS} == set(CONTROL)
    asyncio.run(fill(tmp_path))
    monkeypatch.setattr(limits, "STORE_CHECK_BYTES", limits.Limit(0, "bytes", "", ""))
    damage(tmp_path, "storage_objects")
    asyncio.run(fill(tmp_path))
    damage(tmp_path, "secrets")
    assert refused(tmp_path).code is UserCode.STATE_DAMAGED


def test_no_directory_can_be_made_there(tmp_path: Path) -> None:
    """A file where the state folder should be."""
    (tmp_path / "state").write_text("a file")
    error = refused(tmp_path / "state")
    assert error.code is UserCode.STATE_DAMAGED
    assert "cannot be used as a state folder" in error.message


# --- repairs ---


def test_what_a_crash_left_is_removed_and_told(tmp_path: Path) -> None:
    """Half-written files, orphan blobs, a nameless key: counted and gone (issue 3, item 4)."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            made = await project(store)
            await deploy(store, made.record.id, code=b"kept", source_map=b'{"kept":1}')
        kept = blob_names(tmp_path)
        assert len(kept) == 2
        (tmp_path / "blobs" / "incoming" / "half").write_bytes(b"half")
        (tmp_path / ".key-0a").write_bytes(b"half")
        orphan = hashlib.sha256(b"orphan").hexdigest()
        (tmp_path / "blobs" / orphan[:2]).mkdir(exist_ok=True)
        (tmp_path / "blobs" / orphan[:2] / orphan).write_bytes(b"orphan")
        async with opened_state(tmp_path) as state:
            assert state.repairs == Repairs(half_written=2, orphans=1)
            assert state.repairs.lines() == (
                "2 files that a crash left half-written removed",
                "1 file that nothing refers to removed",
            )
        assert blob_names(tmp_path) == kept
        async with opened_state(tmp_path) as state:
            assert not state.repairs

    asyncio.run(main())


@pytest.mark.parametrize("how", ["gone", "short", "long", "empty"])
def test_a_version_without_its_bundle_is_disabled_alone(tmp_path: Path, how: str) -> None:
    """The others serve; what was done is told; its value that was unset goes (I8)."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            made = await project(store, slug="shop")
            bad = await deploy(store, made.record.id, "bad", b"the bad one")
            good = await deploy(store, made.record.id, "good", b"the good one")
            await store.set_secret(made.record.id, "A", SecretText("1"), "bad")
            await store.unset_secret(made.record.id, "A", "bad")
        file = tmp_path / "blobs" / bad.bundle_sha[:2] / bad.bundle_sha
        if how == "gone":
            file.unlink()
        else:
            file.write_bytes({"short": b"the bad", "long": b"x" * 100, "empty": b""}[how])
        reason = (
            "the file of its bundle is gone"
            if how == "gone"
            else f"the file of its bundle has {file.stat().st_size} bytes instead of 11"
        )
        async with opened_state(tmp_path) as state:
            assert state.repairs.quarantined == (
                Quarantined(made.record.id, "shop", "bad", 1, bad.id, reason),
            )
            assert state.repairs.lines() == (
                f"shop/bad version 1 was disabled: {reason}; deploy it again",
            )
        async with opened(tmp_path) as store:
            (one,) = (await store.snapshot()).projects
            assert [d.id for d in one.active] == [good.id]
            found = await store.find_deployment(made.record.id, deployment_id=bad.id)
            assert found is not None
            assert (found.status, found.note) == ("disabled", reason)
            assert await store.secrets_for(bad.id) == ()
            again = await deploy(store, made.record.id, "bad", b"the bad one")
            assert (await store.load_bundle(again.id)).code == b"the bad one"
        async with opened_state(tmp_path) as state:
            assert not state.repairs

    asyncio.run(main())


# --- what is in the files ---


def test_no_value_is_in_any_file(tmp_path: Path) -> None:
    """Secrets, tokens, keys: not in the clear on disk, and gone from it when destroyed (H9)."""

    async def main() -> list[str]:
        async with opened(tmp_path) as store:
            made = await project(store)
            pat = await store.add_pat("d")
            canary = "canary-" * 500
            await store.set_secret(made.record.id, "A", SecretText(canary), None)
            one = made.credentials
            values = [c.value.reveal() for c in (*one.internal, *one.signing, *one.session)]
            return [pat, made.client_key[1], made.server_key[1], "canary-canary", *values]

    values = asyncio.run(main())
    assert len(values) == 7
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert [v for v in values if v.encode() in everything] == []


def test_a_destroyed_value_leaves_the_database_file(tmp_path: Path) -> None:
    """`unset` destroys the store's copy, also its sealed form in free pages (contract C.2)."""

    async def main() -> bytes:
        async with opened(tmp_path) as store:
            made = await project(store)
            await store.set_secret(made.record.id, "A", SecretText("x" * 60_000), None)
        with sqlite3.connect(tmp_path / DATABASE) as plain:
            sealed = bytes(plain.execute("SELECT sealed FROM secrets").fetchone()[0])
        plain.close()
        assert sealed[1000:1100] in (tmp_path / DATABASE).read_bytes()
        async with opened(tmp_path) as store:
            assert await store.unset_secret(made.record.id, "A", None)
        return sealed

    sealed = asyncio.run(main())
    everything = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert [at for at in range(0, 60_000, 1000) if sealed[at : at + 100] in everything] == []


def test_the_database_is_checked_by_itself_too(tmp_path: Path) -> None:
    """What we write passes SQLite's own full check (INV)."""

    async def main() -> None:
        await fill(tmp_path)
        async with opened_state(tmp_path) as state:
            said = await state.database.read(
                lambda c: [
                    *c.scalars(text("PRAGMA integrity_check")),
                    *c.execute(text("PRAGMA foreign_key_check")),
                ]
            )
            assert said == ["ok"]

    asyncio.run(main())
    assert os.listdir(tmp_path / "blobs" / "incoming") == []

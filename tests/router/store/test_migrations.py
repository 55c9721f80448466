"""Databases of older programs: brought up to date whole or not at all, with all they hold."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import World
from tests.router.store.world import deploy, opened, project

from amba_router.services.storage.service import StorageService
from amba_router.store import migrations
from amba_router.store.schema import VERSION
from amba_router.store.state import DATABASE, Repairs, State
from amba_router.store.trigger_schema import TRIGGERS
from amba_runtime.clock import ManualClock
from amba_runtime.errors import InternalError, UserError
from amba_runtime.manifest import ProjectId

VERSION_1 = """
CREATE TABLE amba_meta (name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name));
CREATE TABLE storage_objects (
	project_id TEXT NOT NULL, "key" BLOB NOT NULL, version TEXT NOT NULL, size BIGINT NOT NULL,
	etag TEXT NOT NULL, uploaded_ms BIGINT NOT NULL, checksums TEXT NOT NULL,
	http_metadata TEXT NOT NULL, custom_metadata TEXT NOT NULL, storage_class TEXT NOT NULL,
	PRIMARY KEY (project_id, "key"), UNIQUE (version)
);
CREATE TABLE storage_uploads (
	upload_id TEXT NOT NULL, project_id TEXT NOT NULL, "key" BLOB NOT NULL,
	created_ms BIGINT NOT NULL, open BOOLEAN NOT NULL, http_metadata TEXT NOT NULL,
	custom_metadata TEXT NOT NULL, storage_class TEXT NOT NULL, PRIMARY KEY (upload_id)
);
CREATE TABLE storage_segments (
	version TEXT NOT NULL, position INTEGER NOT NULL, blob TEXT NOT NULL, size BIGINT NOT NULL,
	PRIMARY KEY (version, position),
	FOREIGN KEY(version) REFERENCES storage_objects (version) ON DELETE CASCADE
);
CREATE INDEX storage_segments_blob ON storage_segments (blob);
CREATE TABLE storage_parts (
	upload_id TEXT NOT NULL, number INTEGER NOT NULL, etag TEXT NOT NULL, blob TEXT NOT NULL,
	size BIGINT NOT NULL, PRIMARY KEY (upload_id, number),
	FOREIGN KEY(upload_id) REFERENCES storage_uploads (upload_id) ON DELETE CASCADE
);
CREATE INDEX storage_parts_blob ON storage_parts (blob);
"""
"""What amba-run 0.1.0 made, word for word but for white space."""

P = ProjectId("p-1")


def version_1(path: Path) -> None:
    """A state directory with one object, as version 1 left it."""
    value = b"kept since version 1"
    blob = hashlib.sha256(value).hexdigest()
    folder = path / "blobs" / blob[:2]
    folder.mkdir(parents=True)
    (folder / blob).write_bytes(value)
    md5 = hashlib.md5(value, usedforsecurity=False).hexdigest()
    with sqlite3.connect(path / DATABASE) as plain:
        plain.execute("PRAGMA journal_mode=WAL")
        plain.executescript(VERSION_1)
        plain.execute("INSERT INTO amba_meta VALUES ('schema_version', '1')")
        plain.execute(
            "INSERT INTO storage_objects VALUES (?,?,?,?,?,?,?,?,?,?)",
            (P, b"k", "v" * 32, len(value), md5, 1, f'{{"md5": "{md5}"}}', "{}", "[]", "Standard"),
        )
        plain.execute("INSERT INTO storage_segments VALUES (?,0,?,?)", ("v" * 32, blob, len(value)))
    plain.close()


async def stored(path: Path) -> bytes:
    service = StorageService(path, ManualClock())
    try:
        return await (await service.get(P, "k")).body.read()
    finally:
        await service.close()


def tables(path: Path) -> dict[str, str]:
    """Names and statements of everything in a database, white space aside."""
    with sqlite3.connect(path / DATABASE) as plain:
        rows = plain.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    plain.close()
    return {name: re.sub(r"\s+", "", sql) for name, sql in rows}


def normal(sql: str) -> list[str]:
    """The columns and constraints of a table in any order."""
    return sorted(re.split(r",(?![^(]*\))", sql.partition("(")[2].rpartition(")")[0]))


@pytest.mark.slow
def test_version_1_is_upgraded_with_all_it_holds(tmp_path: Path) -> None:
    """STORAGE of 0.1.0 is there; the control plane works; it is told once (issue 3, item 4)."""
    version_1(tmp_path)

    async def main() -> None:
        state = await State.open(tmp_path, ManualClock())
        assert state.repairs == Repairs(upgraded_from=1)
        assert state.repairs.lines() == ("the database was upgraded from schema version 1",)
        await state.close()
        assert await stored(tmp_path) == b"kept since version 1"
        async with opened(tmp_path) as store:
            made = await project(store)
            await deploy(store, made.record.id)
        state = await State.open(tmp_path, ManualClock())
        assert not state.repairs
        await state.close()
        assert await stored(tmp_path) == b"kept since version 1"

    asyncio.run(main())


@pytest.mark.slow
def test_an_upgraded_database_is_like_a_new_one(tmp_path: Path) -> None:
    """The steps and the schema say the same."""
    version_1(tmp_path / "old")

    async def main() -> None:
        for name in ("old", "new"):
            await (await State.open(tmp_path / name, ManualClock())).close()

    asyncio.run(main())
    old, new = tables(tmp_path / "old"), tables(tmp_path / "new")
    assert old.keys() == new.keys()
    assert {n: normal(s) for n, s in old.items()} == {n: normal(s) for n, s in new.items()}
    assert set(migrations.STEPS) == set(range(2, VERSION + 1))


@pytest.mark.slow
def test_unique_indexes_of_version_3_pass_over_deleted_rows(tmp_path: Path) -> None:
    """Made anew, and those that others refer to twice; the database is like a new one (E.5)."""
    unique = [{"name": "by_code", "columns": ["code desc"], "unique": True}]
    reference = {"table": "shelves", "column": "code", "onDelete": "cascade"}
    code = {"name": "code", "type": "text"}
    made = [
        {"name": "shelves", "columns": [code], "indexes": unique},
        {"name": "books", "columns": [{**code, "references": reference}]},
        {"name": "free", "columns": [code, {**code, "name": "other"}], "indexes": unique},
    ]

    async def main() -> None:
        async with World(tmp_path) as world:
            pat, id_ = world.pat, (await world.project())["id"]
            base = f"/v1/admin/projects/{id_}/collections"
            for body in made:
                assert (await world.post(base, body)).status == 201
            for name in ("shelves", "free"):
                row = {"code": "A", **({"other": "x"} if name == "free" else {})}
                kept = (await world.post(f"{base}/{name}/rows", row)).data
                await world.delete(f"{base}/{name}/rows/{kept['id']}")
        new = tables(tmp_path / "state")
        with sqlite3.connect(tmp_path / "state" / DATABASE) as plain:
            for name, sql in list(new.items()):
                if ".target." in name:
                    plain.execute(f'DROP INDEX "{name}"')
                elif ".index." in name:
                    plain.execute(f'DROP INDEX "{name}"')
                    table = name.partition(".")[0]
                    plain.execute(f'CREATE UNIQUE INDEX "{name}" ON "{table}" ("code" DESC)')
                assert ".index." not in name or "WHERE" in sql
            for name in TRIGGERS:
                plain.execute(f"DROP TABLE {name}")
            plain.execute("UPDATE amba_meta SET value = '3' WHERE name = 'schema_version'")
        plain.close()
        assert tables(tmp_path / "state") != new
        async with World(tmp_path) as world:
            world.pat = pat
            assert world.state.repairs.upgraded_from == 3
            assert tables(tmp_path / "state") == new
            row = {"code": "A", "other": "x"}
            assert (await world.post(f"{base}/free/rows", row)).status == 201
            assert (await world.post(f"{base}/free/rows", row)).said == (409, "ROW_CONFLICT")
            assert (await world.post(f"{base}/shelves/rows", {"code": "A"})).status == 409
            assert (await world.post(f"{base}/books/rows", {"code": "Z"})).status == 409
            assert (await world.post(f"{base}/books/rows", {"code": "A"})).status == 201

    asyncio.run(main())


OPEN = """
import asyncio, sys
from pathlib import Path
from amba_router.store.state import State
from amba_runtime.clock import SystemClock
async def main():
    state = await State.open(Path(sys.argv[1]), SystemClock())
    print("open", flush=True)
    await state.close()
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("call", ["pwrite64:3", "pwrite64:9", "fdatasync:1"])
def test_an_upgrade_that_is_killed_begins_anew(tmp_path: Path, call: str) -> None:
    """Version 1 or version 2, never between (I9)."""
    version_1(tmp_path)
    name, when = call.split(":")
    inject = f"inject={name}:signal=SIGKILL:when={when}"
    done = subprocess.run(
        [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=" + name,
            "-e",
            inject,
            sys.executable,
            "-c",
            OPEN,
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("", -9)
    with sqlite3.connect(tmp_path / DATABASE) as plain:
        found = plain.execute("SELECT value FROM amba_meta WHERE name='schema_version'").fetchone()
        there = plain.execute("SELECT count(*) FROM sqlite_master WHERE name='secrets'").fetchone()
    plain.close()
    assert (found[0], there[0]) in (("1", 0), ("2", 1))
    assert asyncio.run(stored(tmp_path)) == b"kept since version 1"


@pytest.mark.slow
def test_an_upgrade_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All steps and the new version in one transaction."""
    version_1(tmp_path)
    before = tables(tmp_path)
    real = migrations.upgrade

    def broken(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        raise OSError(28, "no space")

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(migrations, "upgrade", broken)
            with pytest.raises((UserError, InternalError), match="no space left"):
                await State.open(tmp_path, ManualClock())
        assert tables(tmp_path) == before
        assert await stored(tmp_path) == b"kept since version 1"

    asyncio.run(main())

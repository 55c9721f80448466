"""The database: durable settings, one writer, refusals that say what to do."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, text

from amba_router.store.database import READER, WRITER, Database
from amba_router.store.schema import VERSION, amba_meta
from amba_runtime.errors import UserCode, UserError


def test_connections_are_durable_and_strict(tmp_path: Path) -> None:
    """WAL, synchronous=FULL, foreign keys, for writer and readers (architecture.md 7)."""
    database = Database(tmp_path / "amba.db")

    def settings(c: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [c.scalar(text(f"PRAGMA {name}")) for name in names]

    async def main() -> None:
        assert await database.write(settings) == ["wal", 2, 1, 5000]
        assert await database.read(settings) == ["wal", 2, 1, 5000]

    asyncio.run(main())
    database.close()
    database.close()


def test_writes_share_one_named_thread(tmp_path: Path) -> None:
    """One dedicated writer, found by name in a debugger."""
    database = Database(tmp_path / "amba.db")

    async def main() -> None:
        writers = await asyncio.gather(
            *(database.write(lambda _c: threading.current_thread().name) for _ in range(5))
        )
        reader = await database.read(lambda _c: threading.current_thread().name)
        assert set(writers) == {f"{WRITER}_0"}
        assert reader.startswith(READER)

    asyncio.run(main())
    database.close()


def test_a_failed_write_rolls_back(tmp_path: Path) -> None:
    """All or nothing; `then` is not called; the error passes through."""
    database = Database(tmp_path / "amba.db")
    after: list[str] = []

    def work(c: Connection) -> str:
        c.execute(insert(amba_meta).values(name="x", value="y"))
        raise LookupError("no")

    async def main() -> None:
        with pytest.raises(LookupError, match="no"):
            await database.write(work, then=after.append)
        names = await database.read(lambda c: list(c.scalars(select(amba_meta.c.name))))
        assert names == ["schema_version"]

    asyncio.run(main())
    assert after == []
    database.close()


def test_readers_see_what_was_committed(tmp_path: Path) -> None:
    """A read after an answered write sees it, also in a new process's eyes."""
    path = tmp_path / "amba.db"

    async def main(database: Database) -> str | None:
        def write(c: Connection) -> None:
            c.execute(insert(amba_meta).values(name="x", value="y"))

        await database.write(write)
        return await database.read(
            lambda c: c.scalar(select(amba_meta.c.value).where(amba_meta.c.name == "x"))
        )

    database = Database(path)
    assert asyncio.run(main(database)) == "y"
    database.close()
    again = Database(path)  # the same version opens
    again.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """An older program leaves a newer database alone and says so (I9)."""
    path = tmp_path / "amba.db"
    Database(path).close()
    with sqlite3.connect(path) as plain:
        plain.execute("UPDATE amba_meta SET value = ?", [str(VERSION + 1)])
    plain.close()
    with pytest.raises(UserError, match=f"schema version {VERSION + 1}") as caught:
        Database(path)
    assert caught.value.code is UserCode.STATE_TOO_NEW
    assert "--state" in caught.value.hint


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """A damaged database is named, with the way out (I8)."""
    path = tmp_path / "amba.db"
    path.write_bytes(b"this is not a database at all, really" * 100)
    with pytest.raises(UserError, match="not a database") as caught:
        Database(path)
    assert caught.value.code is UserCode.STATE_DAMAGED
    assert "from a copy" in caught.value.hint


@pytest.mark.parametrize("version", ["two", "", "-1", "²"])
def test_a_version_that_is_none_is_damage(tmp_path: Path, version: str) -> None:
    """Not a traceback (row 11)."""
    path = tmp_path / "amba.db"
    Database(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE amba_meta SET value = ? WHERE name = 'schema_version'", [version]
        )
    with pytest.raises(UserError, match="schema version") as caught:
        Database(path)
    assert caught.value.code is UserCode.STATE_DAMAGED


@pytest.mark.parametrize("empty", [True, False])
def test_a_lost_database_beside_blobs_is_damage(tmp_path: Path, *, empty: bool) -> None:
    """A new one would have every bundle swept away: a restore half done loses nothing (I8)."""
    path = tmp_path / "amba.db"
    blob = tmp_path / "blobs" / "ab" / ("ab" + "0" * 62)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"a bundle")
    if empty:
        path.write_bytes(b"")
    with pytest.raises(UserError, match="blobs/") as caught:
        Database(path)
    assert caught.value.code is UserCode.STATE_DAMAGED
    assert blob.read_bytes() == b"a bundle"
    blob.unlink()
    Database(path).close()

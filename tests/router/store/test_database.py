"""The database: durable settings, one writer, refusals that say what to do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from amba_router.store import database
from amba_router.store.collection_ddl import drop_tables
from amba_router.store.collection_tables import table_name
from amba_router.store.database import READER, WRITER, Database
from amba_router.store.schema import VERSION, amba_meta
from amba_runtime import limits
from amba_runtime.errors import InternalCode, InternalError, UserCode, UserError


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


# --- transactions that wait are committed together ---


class Waiting:
    """Writes that come while the writer is busy, and are let go together."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.begun = threading.Event()
        self.go = threading.Event()
        self.transactions: list[object] = []
        """Of each job that `seen` wraps, in the order in which they ran."""

    def seen(self, work: Callable[[Connection], object]) -> Callable[[Connection], object]:
        """The same work; notes whose transaction it is in."""

        def job(connection: Connection) -> object:
            self.transactions.append(connection.get_transaction())
            return work(connection)

        return job

    def block(self, _: Connection) -> None:
        self.begun.set()
        assert self.go.wait(10)

    async def run(
        self,
        *works: Callable[[Connection], object],
        then: Callable[[object], None] | None = None,
    ) -> list[object]:
        """What each is told; exceptions too."""
        self.begun.clear()
        self.go.clear()
        blocked = asyncio.create_task(self.database.write(self.block))
        assert await asyncio.to_thread(self.begun.wait, 10)
        tasks = [
            asyncio.create_task(self.database.write(self.seen(work), then=then)) for work in works
        ]
        await asyncio.sleep(0)  # all of them wait now
        self.go.set()
        await blocked
        return [*await asyncio.gather(*tasks, return_exceptions=True)]

    async def names(self) -> list[str]:
        """What was committed, besides what a new database has."""
        query = select(amba_meta.c.name).where(amba_meta.c.name != "schema_version")
        return await self.database.read(lambda c: sorted(c.scalars(query)))


@contextlib.asynccontextmanager
async def waiting(tmp_path: Path) -> AsyncGenerator[Waiting]:
    """A new database whose writer is held back."""
    held = Waiting(Database(tmp_path / "amba.db"))
    try:
        yield held
    finally:
        held.go.set()
        held.database.close()


def add(name: str, value: str = "") -> Callable[[Connection], str]:
    """Work that writes one row and gives its name."""

    def work(c: Connection) -> str:
        c.execute(insert(amba_meta).values(name=name, value=value))
        return name

    return work


def cap(pages: int) -> Callable[[Connection], None]:
    """Work that lets the database grow so little: a disk that is nearly full."""

    def work(c: Connection) -> None:
        count = c.scalar(text("PRAGMA page_count"))
        assert isinstance(count, int)
        c.exec_driver_sql(f"PRAGMA max_page_count={count + pages}")

    return work


HUGE = "x" * 1_000_000


def test_what_waits_is_committed_together(tmp_path: Path) -> None:
    """One transaction for all, in the order they came; each is told its own result."""

    async def main() -> None:
        async with waiting(tmp_path) as held:
            works = [add(f"{number}") for number in range(9)]
            assert await held.run(*works) == [f"{number}" for number in range(9)]
            assert len(set(held.transactions)) == 1
            assert await held.names() == [f"{number}" for number in range(9)]

    asyncio.run(main())


def test_a_group_has_its_most(tmp_path: Path) -> None:
    """STORE_GROUP at once; the rest are the next group's (limits.py)."""
    most = limits.STORE_GROUP.value

    async def main() -> None:
        async with waiting(tmp_path) as held:
            works = [add(f"{number}") for number in range(2 * most + 1)]
            assert await held.run(*works) == [f"{number}" for number in range(2 * most + 1)]
            groups = [len([t for t in held.transactions if t is one]) for one in held.transactions]
            assert groups == [most] * 2 * most + [1]

    asyncio.run(main())


def test_one_that_fails_takes_nothing_of_others(tmp_path: Path) -> None:
    """Its rows go, its own error is told to it alone, with and without the database's help."""

    def late(c: Connection) -> None:
        add("late")(c)
        raise LookupError("no")

    def twice(c: Connection) -> None:
        add("twice")(c)
        add("a")(c)

    async def main() -> None:
        async with waiting(tmp_path) as held:
            a, no, b, refused, c = await held.run(add("a"), late, add("b"), twice, add("c"))
            assert (a, b, c) == ("a", "b", "c")
            assert isinstance(no, LookupError)
            assert isinstance(refused, InternalError)
            assert refused.code is InternalCode.INVARIANT
            assert isinstance(refused.__cause__, IntegrityError)
            assert len(set(held.transactions)) == 1
            assert await held.names() == ["a", "b", "c"]

    asyncio.run(main())


def test_a_later_one_sees_what_an_earlier_one_did(tmp_path: Path) -> None:
    """As if each had had a transaction of its own: not what failed, but what was done."""

    def fail(c: Connection) -> None:
        add("gone")(c)
        raise LookupError

    async def main() -> None:
        async with waiting(tmp_path) as held:
            look = select(amba_meta.c.name).where(amba_meta.c.name != "schema_version")
            *_, seen = await held.run(add("a"), fail, lambda c: list(c.scalars(look)))
            assert seen == ["a"]

    asyncio.run(main())


def test_a_full_disk_is_told_to_all_of_a_group(tmp_path: Path) -> None:
    """SQLite takes the whole transaction back: DISK_FULL for each, and nothing was written (I3)."""

    async def main() -> None:
        async with waiting(tmp_path) as held:
            await held.database.write(cap(4))
            told = await held.run(add("a"), add("huge", HUGE), add("b"))
            assert [getattr(error, "code", error) for error in told] == [UserCode.DISK_FULL] * 3
            assert len({id(error) for error in told}) == 3
            assert await held.names() == []
            assert await held.database.write(add("after")) == "after"

    asyncio.run(main())


def test_what_one_says_of_a_lost_transaction_is_its_own(tmp_path: Path) -> None:
    """Groups are made of different projects' jobs: others get the database's reason alone."""

    def personal(c: Connection) -> None:
        try:
            add("huge", HUGE)(c)
        except Exception as error:
            raise LookupError("order 7 of ann") from error

    async def main() -> None:
        async with waiting(tmp_path) as held:
            await held.database.write(cap(4))
            a, mine, b = await held.run(add("a"), personal, add("b"))
            assert isinstance(mine, LookupError)
            assert [getattr(error, "code", error) for error in (a, b)] == [UserCode.DISK_FULL] * 2
            assert await held.names() == []

    asyncio.run(main())


@pytest.mark.parametrize("alone", [True, False])
def test_a_lost_transaction_is_no_success(tmp_path: Path, *, alone: bool) -> None:
    """Who swallows the error of a full disk is not told that its rows are there."""

    def swallow(c: Connection) -> str:
        with contextlib.suppress(Exception):
            add("huge", HUGE)(c)
        return "done"

    async def main() -> None:
        async with waiting(tmp_path) as held:
            await held.database.write(cap(4))
            works = [swallow] if alone else [add("a"), swallow, add("b")]
            told = await held.run(*works)
            for error in told:
                assert isinstance(error, InternalError)
                assert error.code is InternalCode.STATE_FAILED
            assert await held.names() == []

    asyncio.run(main())


def test_a_commit_that_fails_is_told_to_all(tmp_path: Path) -> None:
    """Also to those that had failed for what they saw of others: none of it is there."""

    def later(c: Connection) -> None:
        c.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        c.exec_driver_sql("CREATE TABLE child (p TEXT REFERENCES amba_meta (name))")
        c.exec_driver_sql("INSERT INTO child VALUES ('nobody')")

    def refused(c: Connection) -> None:
        assert c.scalar(select(amba_meta.c.name).where(amba_meta.c.name == "a")) == "a"
        raise LookupError("a is there")

    async def main() -> None:
        async with waiting(tmp_path) as held:
            told = await held.run(add("a"), refused, later)
            assert [type(error) for error in told] == [InternalError] * 3
            assert await held.names() == []
            assert await held.database.write(add("after")) == "after"

    asyncio.run(main())


def io_error(_: Connection) -> None:
    """Work that meets a disk that fails."""
    cause = sqlite3.OperationalError("disk I/O error")
    cause.sqlite_errorcode = sqlite3.SQLITE_IOERR
    raise OperationalError("INSERT", {}, cause)


def test_a_disk_that_turns_read_only_is_told_to_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe's own failure is an answer: nobody waits for ever, and it is made once (I3)."""
    probes: list[object] = []

    def read_only(path: object, **_: object) -> None:
        probes.append(path)
        raise OSError(errno.EROFS, "read-only")

    async def main() -> None:
        async with waiting(tmp_path) as held:
            with monkeypatch.context() as patch:
                patch.setattr("os.unlink", read_only)
                async with asyncio.timeout(10):
                    *failed, a = await held.run(io_error, io_error, add("a"))
            for error in failed:
                assert isinstance(error, UserError)
                assert error.code is UserCode.STATE_READ_ONLY
            assert failed[0] is not failed[1]
            assert a == "a"
            assert len(probes) == 1

    asyncio.run(main())


def test_who_cannot_be_told_why_is_told_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of ours in the telling of one leaves nobody waiting."""

    def broken(*_: object, **__: object) -> BaseException:
        raise LookupError("ours")

    async def main() -> None:
        async with waiting(tmp_path) as held:
            monkeypatch.setattr(database, "told", broken)
            async with asyncio.timeout(10):
                first, second, a = await held.run(io_error, io_error, add("a"))
            assert [type(first), type(second)] == [LookupError] * 2
            assert a == "a"

    asyncio.run(main())


def test_a_deletion_that_fails_leaves_references_checked(tmp_path: Path) -> None:
    """Of who shares the transaction a bad reference is refused to its own caller, at once."""

    def tables(c: Connection) -> None:
        c.exec_driver_sql(f'CREATE TABLE "{table_name(1)}" (id INTEGER PRIMARY KEY)')
        c.exec_driver_sql(f'CREATE TABLE child (p REFERENCES "{table_name(1)}" (id))')

    def half(c: Connection) -> None:
        drop_tables(c, (1, 2))  # there is no second

    def bad(c: Connection) -> None:
        c.exec_driver_sql("INSERT INTO child VALUES (7)")

    async def main() -> None:
        async with waiting(tmp_path) as held:
            await held.database.write(tables)
            failed, refused, a = await held.run(half, bad, add("a"))
            assert isinstance(failed, InternalError)
            assert failed.code is InternalCode.STATE_FAILED
            assert isinstance(refused, InternalError)
            assert refused.code is InternalCode.INVARIANT
            assert a == "a"
            assert await held.names() == ["a"]

    asyncio.run(main())


def test_then_runs_after_the_commit(tmp_path: Path) -> None:
    """Another process would see the rows by then; of one that failed it does not run."""
    after: list[tuple[object, int]] = []

    def then(result: object) -> None:
        with closing(sqlite3.connect(tmp_path / "amba.db")) as other:
            [count] = other.execute("SELECT count(*) FROM amba_meta WHERE value = 'v'").fetchone()
        after.append((result, count))

    def fail(c: Connection) -> None:
        raise LookupError

    async def main() -> None:
        async with waiting(tmp_path) as held:
            await held.run(add("a", "v"), fail, add("b", "v"), then=then)

    asyncio.run(main())
    assert after == [("a", 2), ("b", 2)]


def test_then_that_fails_is_its_own_callers(tmp_path: Path) -> None:
    """What was committed stays; the others are told nothing of it."""

    def then(result: object) -> None:
        if result == "b":
            raise PermissionError(13, "no")

    async def main() -> None:
        async with waiting(tmp_path) as held:
            a, b, c = await held.run(add("a"), add("b"), add("c"), then=then)
            assert (a, c) == ("a", "c")
            assert isinstance(b, UserError)
            assert b.code is UserCode.STATE_READ_ONLY
            assert await held.names() == ["a", "b", "c"]

    asyncio.run(main())


def test_a_caller_that_leaves_in_time_writes_nothing(tmp_path: Path) -> None:
    """Cancelled while it waits: its work never runs; the others' does."""

    async def main() -> None:
        async with waiting(tmp_path) as held:
            blocked = asyncio.create_task(held.database.write(held.block))
            assert await asyncio.to_thread(held.begun.wait, 10)
            leaves = asyncio.create_task(held.database.write(add("left")))
            stays = asyncio.create_task(held.database.write(add("stayed")))
            await asyncio.sleep(0)
            leaves.cancel()
            await asyncio.gather(leaves, return_exceptions=True)
            held.go.set()
            await blocked
            assert await stays == "stayed"
            assert leaves.cancelled()
            assert await held.names() == ["stayed"]

    asyncio.run(main())


def test_a_caller_that_leaves_late_has_written(tmp_path: Path) -> None:
    """What has begun ends as it would have, `then` included."""
    after: list[object] = []

    async def main() -> None:
        async with waiting(tmp_path) as held:

            def slow(c: Connection) -> str:
                held.block(c)
                return add("late")(c)

            leaves = asyncio.create_task(held.database.write(slow, then=after.append))
            assert await asyncio.to_thread(held.begun.wait, 10)
            leaves.cancel()
            await asyncio.gather(leaves, return_exceptions=True)
            held.go.set()
            assert await held.database.write(add("next")) == "next"
            assert await held.names() == ["late", "next"]

    asyncio.run(main())
    assert after == ["late"]


def test_an_iterator_that_ends_hangs_nobody(tmp_path: Path) -> None:
    """A future cannot hold StopIteration: writers and readers are told something else."""

    def empty(_: Connection) -> object:
        return next(iter(()))

    async def main() -> None:
        async with waiting(tmp_path) as held:
            told = [*await held.run(empty), *await held.run(add("a"), empty)]
            with pytest.raises(InternalError) as caught:
                await held.database.read(empty)
            errors = [told[0], told[2], caught.value]
            assert [getattr(e, "code", e) for e in errors] == [InternalCode.INVARIANT] * 3
            assert await held.names() == ["a"]

    asyncio.run(main())


def test_close_lets_go_of_who_waits(tmp_path: Path) -> None:
    """What has begun is committed, what waits is not left waiting, what comes later is refused."""

    async def main() -> None:
        async with waiting(tmp_path) as held:
            blocked = asyncio.create_task(held.database.write(held.block))
            assert await asyncio.to_thread(held.begun.wait, 10)
            waits = asyncio.create_task(held.database.write(add("waits")))
            await asyncio.sleep(0)
            held.go.set()
            await asyncio.to_thread(held.database.close)
            await asyncio.wait([blocked, waits], timeout=10)
            assert blocked.exception() is None
            assert waits.done()
            with pytest.raises(RuntimeError):
                await held.database.write(add("later"))

    asyncio.run(main())
    with closing(sqlite3.connect(tmp_path / "amba.db")) as plain:
        names = [name for (name,) in plain.execute("SELECT name FROM amba_meta")]
    assert "later" not in names


def test_who_waits_at_the_close_was_not_cancelled(tmp_path: Path) -> None:
    """Writers and readers are told STATE_FAILED; who was cancelled as well is cancelled."""
    read = threading.Event()

    async def main() -> None:
        async with waiting(tmp_path) as held:
            store = held.database
            blocked = asyncio.create_task(store.write(held.block))
            assert await asyncio.to_thread(held.begun.wait, 10)
            readers = [
                asyncio.create_task(store.in_thread(lambda: read.wait(10)))
                for _ in range(limits.STORE_THREADS.value)
            ]
            reads = asyncio.create_task(store.read(lambda _: None))
            leaves = asyncio.create_task(store.write(add("leaves")))
            writes = [asyncio.create_task(store.write(add("waits")))]
            await asyncio.sleep(0)
            ends = asyncio.create_task(asyncio.to_thread(store.close))
            while not (writes[-1].done() and isinstance(writes[-1].exception(), RuntimeError)):
                writes.append(asyncio.create_task(store.write(add("late"))))
                await asyncio.sleep(0)
            writes.pop()  # the first that came too late: by now what waits cannot begin
            leaves.cancel()
            held.go.set()
            await asyncio.wait([reads], timeout=10)
            read.set()
            await asyncio.gather(ends, blocked, *readers)
            for waited in (reads, *writes):
                with pytest.raises(InternalError) as told:
                    await waited
                assert told.value.code is InternalCode.STATE_FAILED
            await asyncio.wait([leaves], timeout=10)
            assert leaves.cancelled()

    asyncio.run(main())


def test_errors_repeat_no_values(tmp_path: Path) -> None:
    """What users keep stands in no message and no traceback of a failed statement (M, N)."""

    async def main() -> None:
        async with waiting(tmp_path) as held:
            [error] = await held.run(add("schema_version", "s3cr3t"))
            assert isinstance(error, InternalError)
            assert "s3cr3t" not in f"{error} {error.__cause__}"

    asyncio.run(main())

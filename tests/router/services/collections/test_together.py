"""Collections under many callers at once, and while their schemas change."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.router.services.collections.desk import Desk, asked, at_desk, column

from amba_runtime import limits

NASTY = [
    "'; DROP TABLE coll_1; --",
    '"; DROP TABLE projects; --',
    "' OR '1'='1",
    "') OR 1=1 --",
    "x' UNION SELECT * FROM credentials --",
    "%00",
    "${7*7}",
    "coll_1",
    "\\'; --",
    "ä🌱‮",
]


@pytest.mark.parametrize("text", NASTY)
def test_sql_is_text_wherever_it_stands(tmp_path: Path, text: str) -> None:
    """In names it is refused, in values it comes back; nothing else happens (issue 5)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"), column("j", "jsonb"), column("ts", "text[]"))
        row = await desk.insert("posts", t=text, j={text: text}, ts=[text], user_id=text)
        assert (row["t"], row["j"], row["ts"]) == (text, {text: text}, [text])
        assert row["user_id"] == text
        for where in ({"t": text}, {"user_id": text}, {"j": {"eq": {text: text}}}):
            assert await desk.all("posts", where=where) == [row]
        refused: list[tuple[str, str, Any]] = [
            ("POST", "", {"name": text, "columns": []}),
            ("POST", "", {"name": "other", "columns": [column(text)]}),
            ("POST", "", {"name": "other", "columns": [column("a", text)]}),
            ("POST", "", {"name": "other", "columns": [], "read_policy": text}),
            ("PATCH", "/posts", {"drop_column": text}),
            ("PATCH", "/posts", {"add_column": column(text)}),
            ("PATCH", "/posts", {"add_column": column("a", references={"table": text})}),
            ("PATCH", "/posts", {"add_index": {"columns": [text]}}),
            ("PATCH", "/posts", {"add_index": {"name": text, "columns": ["t"]}}),
            ("POST", "/posts/rows", {text: 1}),
            ("PATCH", f"/posts/rows/{row['id']}", {"set": {text: 1}}),
            ("GET", f"/posts/rows{asked(where={text: 1})}", None),
            ("GET", f"/posts/rows{asked(order=text)}", None),
            ("GET", f"/posts/rows{asked(select=[text])}", None),
            ("GET", f"/posts/rows{asked(cursor=text)}", None),
            ("POST", "/posts/rows/find", {"filter": {"column": text, "op": "eq", "value": 1}}),
            ("POST", "/posts/rows/find", {"filter": {"column": "t", "op": text, "value": 1}}),
        ]
        for method, path, body in refused:
            # where the text happens to be a good name it makes or finds nothing that was not there
            if text == "coll_1" and method != "GET" and "rows" not in path:
                continue
            got = await desk.admin(method, path, body)
            assert got.status == 400, (method, path, body)
        assert await desk.all("posts") == [row]

    at_desk(tmp_path, work)


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    """32 at once, single and in batches, good and bad: what was answered is there, once each."""

    async def work(desk: Desk) -> None:
        unique = {"columns": ["n"], "unique": True}
        await desk.make("posts", column("n", "integer", nullable=False), indexes=[unique])

        async def write(n: int) -> list[int]:
            if n % 3 == 0:
                rows: list[Any] = [{"n": n * 10 + k} for k in range(5)]
                if n % 2:
                    rows[4] = {"n": "bad"}
                got = await desk.admin("POST", "/posts/rows:batch", rows)
                return [row["n"] for row in got.data] if got.status == 201 else []
            # each of these numbers is wanted by two
            got = await desk.admin("POST", "/posts/rows", {"n": n // 3 * 30 + 9})
            assert got.status == 201 or got.said == (409, "ROW_CONFLICT")
            return [got.data["n"]] if got.status == 201 else []

        answered = await asyncio.gather(*(write(n) for n in range(96)))
        kept = sorted(row["n"] for row in await desk.all("posts", limit=1000))
        assert kept == sorted(n for some in answered for n in some)
        assert len(kept) == 16 * 5 + 32

    at_desk(tmp_path, work)


def test_rows_are_written_while_the_schema_changes(tmp_path: Path) -> None:
    """Each call sees one schema whole: it is done, or refused by name (contract E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("a"))

        async def change(n: int) -> None:
            added = {"add_column": column(f"c{n}", "integer", nullable=True)}
            assert (await desk.admin("PATCH", "/posts", added)).status == 200
            drop = {"drop_column": f"c{n}"}
            assert (await desk.admin("PATCH", f"/posts?confirm=c{n}", drop)).status == 200

        async def write(n: int) -> int:
            got = await desk.admin("POST", "/posts/rows", {"a": "x", f"c{n % 8}": n})
            assert got.status == 201 or got.said == (400, "INVALID_COLUMN")
            assert (await desk.admin("GET", "/posts/rows?limit=5")).status == 200
            return int(got.status == 201)

        outcomes = await asyncio.gather(
            *(change(n) for n in range(8)), *(write(n) for n in range(48))
        )
        written = sum(outcome or 0 for outcome in outcomes)
        assert (await desk.admin("GET", "/posts/rows/count")).data == {"count": written}
        assert (await desk.admin("GET", "/posts")).data["version"] == 17

    at_desk(tmp_path, work)


def test_only_so_many_tables_are_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was let go is made anew, and works as before."""
    monkeypatch.setattr(limits, "COLLECTION_TABLES", limits.Limit(2, "tables", "", ""))

    async def work(desk: Desk) -> None:
        for name in ("a", "b", "c"):
            await desk.make(name, column(name))
            await desk.insert(name, **{name: name})
        for name in ("a", "b", "c", "a"):
            assert [row[name] for row in await desk.all(name)] == [name]

    at_desk(tmp_path, work)


def test_the_database_stays_whole(tmp_path: Path) -> None:
    """After schemas, references, failures and drops SQLite finds nothing broken."""

    async def work(desk: Desk) -> None:
        await desk.make("a", column("x"), indexes=[{"columns": ["x"], "unique": True}])
        reference = {"table": "a", "onDelete": "cascade"}
        await desk.make("b", column("a", "uuid", references=reference))
        for n in range(20):
            row = await desk.insert("a", x=str(n))
            await desk.insert("b", a=row["id"])
            await desk.admin("POST", "/a/rows", {"x": str(n)})
            await desk.admin("POST", "/b/rows", {"a": "00000000-0000-4000-8000-000000000000"})
            if n % 2:
                await desk.admin("DELETE", f"/a/rows/{row['id']}?hard=true")
        await desk.make("c", column("x"))
        await desk.admin("DELETE", "/c?confirm=c")
        await desk.admin("PATCH", "/a?confirm=x", {"drop_column": "x"})
        assert len(await desk.all("b")) == 10
        connection = sqlite3.connect(desk.world.folder / "state" / "amba.db")
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        connection.close()

    at_desk(tmp_path, work)

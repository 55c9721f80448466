"""Schemas of collections over the wire: made, altered, described, dropped (contract E.5)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.router.services.collections.desk import Desk, at_desk, column

from amba_router.rows.columns import Collection
from amba_router.services.collections.schema import RESERVED_NAMES, RESERVED_PREFIXES
from amba_router.store import collection_rows
from amba_router.store.collection_tables import CollectionTables, Reach, Rows
from amba_router.store.scoped import Scoped
from amba_runtime import limits


def test_a_collection_is_made_as_the_command_line_asks(tmp_path: Path) -> None:
    """The answer and the list have the keys that it prints (contract E.5, ran)."""

    async def work(desk: Desk) -> None:
        wanted = {
            "name": "posts",
            "columns": [column("title", "string"), column("n", "int", nullable=True)],
            "indexes": [{"columns": ["n desc"]}],
        }
        got = await desk.admin("POST", "", wanted)
        assert got.status == 201
        assert got.data == {
            "name": "posts",
            "version": 1,
            "workflow_id": got.data["workflow_id"],
            "run_id": got.data["run_id"],
            "status": "applied",
        }
        listed = await desk.admin("GET", "?limit=200")
        assert listed.body == {
            "data": [{"name": "posts", "created_at": "2026-01-01T00:00:00.000Z"}],
            "total": 1,
            "offset": 0,
            "limit": 200,
        }
        assert (await desk.admin("POST", "", wanted)).said == (409, "COLLECTION_EXISTS")

    at_desk(tmp_path, work)


def test_a_description_has_both_spellings(tmp_path: Path) -> None:
    """The platform's API and its code generator read other keys of one column (contract E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("authors", column("name"))
        await desk.admin(
            "POST",
            "",
            {
                "name": "posts",
                "columns": [
                    column("at", "timestamptz"),
                    column("tags", "text[]", nullable=True),
                    column("embedding", "vector", dimension=3, nullable=True),
                    column(
                        "author",
                        "uuid",
                        nullable=True,
                        references={"table": "authors", "onDelete": "set_null"},
                    ),
                ],
                "indexes": [{"name": "by_at", "columns": ["at DESC", "author"], "unique": True}],
                "read_policy": "public",
                "search": "fuzzy",
            },
        )
        said = (await desk.admin("GET", "/posts")).data
        by_name = {one["name"]: one for one in said["columns"]}
        assert list(by_name) == [
            "id", "user_id", "at", "tags", "embedding", "author",
            "created_at", "updated_at", "deleted_at",
        ]  # fmt: skip
        assert by_name["at"] == {
            "name": "at",
            "type": "timestamptz",
            "nullable": False,
            "managed": False,
            "column_name": "at",
            "data_type": "timestamp with time zone",
            "is_nullable": "NO",
            "column_default": None,
        }
        assert by_name["tags"]["data_type"] == "ARRAY"
        assert by_name["tags"]["is_nullable"] == "YES"
        assert by_name["embedding"]["dimension"] == 3
        assert by_name["author"]["references"] == {
            "table": "authors",
            "column": "id",
            "onDelete": "SET NULL",
        }
        assert by_name["id"]["managed"] is True
        assert said["indexes"] == [
            {"name": "by_at", "columns": ["at desc", "author"], "unique": True}
        ]
        assert (said["read_policy"], said["search"]) == ("public", "fuzzy")
        assert said["latest_migration"] == {
            "version": 1,
            "applied_at": "2026-01-01T00:00:00.000Z",
        }

    at_desk(tmp_path, work)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "INVALID_NAME"),
        ("a" * 51, "INVALID_NAME"),
        ("pg_" + "A" * 48, "INVALID_NAME"),  # too long comes before the prefix
        ("_amba_x", "RESERVED_NAME"),  # the prefix before the spelling
        ("store_Front", "RESERVED_NAME"),
        ("segments", "RESERVED_NAME"),
        ("_x", "INVALID_NAME"),
        ("Posts", "INVALID_NAME"),
        ("1st", "INVALID_NAME"),
        ("a b", "INVALID_NAME"),
        ('a"; DROP TABLE projects; --', "INVALID_NAME"),
        ("ä", "INVALID_NAME"),
    ],
)
def test_names_are_checked_in_the_platforms_order(tmp_path: Path, name: str, code: str) -> None:
    """Empty, too long, reserved prefix, reserved name, spelling (contract E.5, C.2)."""

    async def work(desk: Desk) -> None:
        got = await desk.admin("POST", "", {"name": name, "columns": []})
        assert got.said == (400, code)
        assert got.details == {"field": "$.name"}
        assert (await desk.admin("GET")).body["total"] == 0

    at_desk(tmp_path, work)


def test_every_reserved_name_is_refused(tmp_path: Path) -> None:
    """All prefixes and names of contract E.5; the longest good name is none of them."""

    async def work(desk: Desk) -> None:
        assert (len(RESERVED_PREFIXES), len(RESERVED_NAMES)) == (24, 20)
        for name in (*(f"{prefix}x" for prefix in RESERVED_PREFIXES), *RESERVED_NAMES):
            got = await desk.admin("POST", "", {"name": name, "columns": []})
            assert got.said == (400, "RESERVED_NAME"), name
        longest = "a" * limits.COLLECTION_NAME.value
        assert (await desk.admin("POST", "", {"name": longest, "columns": []})).status == 201

    at_desk(tmp_path, work)


BAD_COLUMNS: list[tuple[dict[str, Any], str]] = [
    (column("", "text"), "$.columns[0].name"),
    (column("A"), "$.columns[0].name"),
    (column("a" * 51), "$.columns[0].name"),
    (column('a" TEXT, "b'), "$.columns[0].name"),
    (column("id", "uuid"), "$.columns[0].name"),
    (column("deleted_at", "timestamptz"), "$.columns[0].name"),
    (column("or"), "$.columns[0].name"),
    (column("_distance"), "$.columns[0].name"),
    (column("a", "money"), "$.columns[0].type"),
    (column("a", "text); DROP TABLE projects; --"), "$.columns[0].type"),
    (column("a", "vector"), "$.columns[0].dimension"),
    (column("a", "vector", dimension=0), "$.columns[0].dimension"),
    (column("a", "vector", dimension=4097), "$.columns[0].dimension"),
    (column("a", "text", dimension=3), "$.columns[0].dimension"),
    (column("a", "uuid", references={"table": "none"}), "$.columns[0].references"),
    (column("a", "text", references={"table": "other"}), "$.columns[0].references"),
    (column("a", "uuid", references={"table": "other", "column": "z"}), "$.columns[0].references"),
    (column("a", "text", references={"table": "other", "column": "t"}), "$.columns[0].references"),
    (column("a", references={"table": "O'"}), "$.columns[0].references.table"),
    (column("a", references={"table": "app_users", "column": "email"}), "$.columns[0].references"),
    (
        column("a", "uuid", references={"table": "other", "onDelete": "explode"}),
        "$.columns[0].references.onDelete",
    ),
    (
        column("a", "uuid", references={"table": "other", "onDelete": "SET NULL"}),
        "$.columns[0].references.onDelete",
    ),
]


@pytest.mark.parametrize(("bad", "place"), BAD_COLUMNS)
def test_a_bad_column_is_refused_with_its_place(
    tmp_path: Path, bad: dict[str, Any], place: str
) -> None:
    """INVALID_SCHEMA, and nothing is made; as an addition it is refused as well (contract E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("other", column("t"))
        got = await desk.admin("POST", "", {"name": "posts", "columns": [bad]})
        assert got.said == (400, "INVALID_SCHEMA"), got.raw
        assert got.details == {"field": place}
        assert (await desk.admin("GET", "/posts")).said == (404, "COLLECTION_NOT_FOUND")
        got = await desk.admin("PATCH", "/other", {"add_column": bad})
        assert got.said == (400, "INVALID_SCHEMA")
        assert got.details == {"field": place.replace("columns[0]", "add_column")}
        assert (await desk.admin("GET", "/other")).data["version"] == 1

    at_desk(tmp_path, work)


BAD_INDEXES: list[tuple[dict[str, Any], str]] = [
    ({"columns": []}, ".columns"),
    ({"columns": ["a"] * 17}, ".columns"),
    ({"columns": ["z"]}, ".columns[0]"),
    ({"columns": ["a up"]}, ".columns[0]"),
    ({"columns": ["a", "a desc"]}, ".columns[1]"),
    ({"columns": ['a"; DROP TABLE projects']}, ".columns[0]"),
    ({"columns": ["a"], "name": "By"}, ".name"),
    ({"columns": ["a"], "name": "taken"}, ".name"),
    ({"columns": ["v"], "unique": True}, ".columns"),
    ({"columns": ["v", "a"]}, ".columns"),
]


@pytest.mark.parametrize(("bad", "place"), BAD_INDEXES)
def test_a_bad_index_is_refused_with_its_place(
    tmp_path: Path, bad: dict[str, Any], place: str
) -> None:
    """INVALID_SCHEMA, and nothing is changed (contract E.5)."""

    async def work(desk: Desk) -> None:
        columns = [column("a"), column("v", "vector", dimension=2)]
        taken = {"name": "taken", "columns": ["a"]}
        wanted = {"name": "posts", "columns": columns, "indexes": [taken, bad]}
        got = await desk.admin("POST", "", wanted)
        assert got.said == (400, "INVALID_SCHEMA")
        assert got.details == {"field": f"$.indexes[1]{place}"}
        await desk.make("posts", *columns, indexes=[taken])
        got = await desk.admin("PATCH", "/posts", {"add_index": bad})
        assert got.said == (400, "INVALID_SCHEMA")
        assert got.details == {"field": f"$.add_index{place}"}
        assert len((await desk.admin("GET", "/posts")).data["indexes"]) == 1

    at_desk(tmp_path, work)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "posts"}, "INVALID_INPUT"),
        ({"name": "posts", "columns": {}}, "INVALID_INPUT"),
        ({"name": "posts", "columns": [{"name": "a"}]}, "INVALID_INPUT"),
        ({"name": "posts", "columns": [column("a", default=1)]}, "INVALID_INPUT"),
        ({"name": 1, "columns": []}, "INVALID_INPUT"),
        ({"name": "posts", "columns": [], "owner": "x"}, "INVALID_INPUT"),
        ({"name": "posts", "columns": [column("a"), column("a")]}, "INVALID_SCHEMA"),
        ({"name": "posts", "columns": [], "read_policy": "everyone"}, "INVALID_SCHEMA"),
        ({"name": "posts", "columns": [], "search": "magic"}, "INVALID_SCHEMA"),
        ([], "INVALID_INPUT"),
    ],
)
def test_what_is_no_schema_is_refused(tmp_path: Path, body: object, code: str) -> None:
    """Missing, mistyped and unknown members: none is passed over in silence (contract E.5)."""

    async def work(desk: Desk) -> None:
        assert (await desk.admin("POST", "", body)).said == (400, code)
        assert (await desk.admin("GET")).body["total"] == 0

    at_desk(tmp_path, work)


def test_an_alteration_is_one_change(tmp_path: Path) -> None:
    """Each makes a version; none, two or an unknown one is refused (contract E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("a"))
        await desk.insert("posts", a="x")
        desk.world.clock.jump(60)
        got = await desk.admin("PATCH", "/posts", {"add_column": column("b", "int", nullable=True)})
        assert (got.status, got.data["version"], got.data["status"]) == (200, 2, "applied")
        got = await desk.admin("PATCH", "/posts", {"add_index": {"columns": ["b desc", "a"]}})
        assert got.data["version"] == 3
        said = (await desk.admin("GET", "/posts")).data
        assert said["indexes"] == [{"name": "b_a_idx", "columns": ["b desc", "a"], "unique": False}]
        assert said["created_at"] == "2026-01-01T00:00:00.000Z"
        assert said["latest_migration"] == {"version": 3, "applied_at": "2026-01-01T00:01:00.000Z"}
        assert [row["b"] for row in await desk.all("posts")] == [None]
        for bad in ({}, {"drop_column": "a", "add_index": {"columns": ["a"]}}):
            got = await desk.admin("PATCH", "/posts", bad)
            assert got.said == (400, "INVALID_SCHEMA")
        assert (await desk.admin("PATCH", "/posts", {"rename": "x"})).said == (400, "INVALID_INPUT")
        assert (await desk.admin("PATCH", "/posts", {"drop_column": None})).said == (
            400,
            "INVALID_INPUT",
        )
        assert (await desk.admin("PATCH", "/none", {"drop_column": "a"})).said == (
            404,
            "COLLECTION_NOT_FOUND",
        )
        # names that are made never clash
        for index in ("b_a_idx2", "b_a_idx3"):
            await desk.admin("PATCH", "/posts", {"add_index": {"columns": ["b", "a"]}})
            said = (await desk.admin("GET", "/posts")).data
            assert said["indexes"][-1]["name"] == index

    at_desk(tmp_path, work)


def test_a_column_is_dropped_when_confirmed(tmp_path: Path) -> None:
    """`?confirm=` repeats its name; its values and its indexes go with it (contract E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make(
            "posts", column("a"), column("b"), indexes=[{"columns": ["a", "b"]}, {"columns": ["b"]}]
        )
        await desk.insert("posts", a="x", b="y")
        drop = {"drop_column": "a"}
        for confirm in ("", "?confirm=b", "?confirm="):
            got = await desk.admin("PATCH", f"/posts{confirm}", drop)
            assert got.said == (400, "CONFIRM_REQUIRED")
        for missing in ("z", "id", "x'; --"):
            got = await desk.admin("PATCH", f"/posts?confirm={missing}", {"drop_column": missing})
            assert got.said == (400, "INVALID_SCHEMA")
        assert (await desk.admin("PATCH", "/posts?confirm=a", drop)).data["version"] == 2
        said = (await desk.admin("GET", "/posts")).data
        assert [index["name"] for index in said["indexes"]] == ["b_idx"]
        (row,) = await desk.all("posts")
        assert row["b"] == "y"
        assert "a" not in row
        # the name is free again, with another type
        got = await desk.admin("PATCH", "/posts", {"add_column": column("a", "int", nullable=True)})
        assert got.data["version"] == 3
        assert [row["a"] for row in await desk.all("posts")] == [None]

    at_desk(tmp_path, work)


def test_a_collection_is_dropped_when_confirmed(tmp_path: Path) -> None:
    """Rows and table go; one of the same name begins anew (contract E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("a"))
        await desk.insert("posts", a="x")
        assert (await desk.admin("DELETE", "/posts")).said == (400, "CONFIRM_REQUIRED")
        assert (await desk.admin("DELETE", "/none?confirm=none")).said == (
            404,
            "COLLECTION_NOT_FOUND",
        )
        got = await desk.admin("DELETE", "/posts?confirm=posts")
        assert got.data == {"name": "posts", "deleted": True, "version": 2}
        assert (await desk.admin("GET", "/posts/rows")).said == (404, "COLLECTION_NOT_FOUND")
        await desk.make("posts", column("b"))
        assert await desk.all("posts") == []
        assert _tables(desk) == 1

    at_desk(tmp_path, work)


def test_a_deleted_project_leaves_no_table(tmp_path: Path) -> None:
    """Though its collections refer to each other in a circle, and have rows (contract E.1)."""

    async def work(desk: Desk) -> None:
        await desk.make("a", column("x"))
        reference = {"table": "a", "onDelete": "restrict"}
        await desk.make("b", column("a", "uuid", references=reference))
        reference = {"table": "b", "onDelete": "restrict"}
        circle = column("b", "uuid", nullable=True, references=reference)
        await desk.admin("PATCH", "/a", {"add_column": circle})
        a = await desk.insert("a", x="1")
        b = await desk.insert("b", a=a["id"])
        assert (await desk.admin("PATCH", f"/a/rows/{a['id']}", {"b": b["id"]})).status == 200
        other = Desk(desk.world, await desk.world.project("Other"))
        await other.make("a", column("x"))
        assert _tables(desk) == 3
        gone = await desk.world.delete(f"/v1/admin/projects/{desk.project['id']}")
        assert gone.status == 200
        assert _tables(desk) == 1
        assert await other.all("a") == []

    at_desk(tmp_path, work)


def _tables(desk: Desk) -> int:
    """How many tables of collections the database has."""
    import sqlite3

    with sqlite3.connect(desk.world.folder / "state" / "amba.db") as connection:
        wanted = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name LIKE 'coll!_%'"
        (count,) = connection.execute(f"{wanted} ESCAPE '!'").fetchone()
    connection.close()
    return int(count)


def test_a_column_without_nulls_needs_an_empty_collection(tmp_path: Path) -> None:
    """Even a deleted row would be null in it (contract E.5; as Postgres)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("a"))
        first = {"add_column": column("b")}
        assert (await desk.admin("PATCH", "/posts", first)).status == 200
        row = await desk.insert("posts", b="x")
        await desk.admin("DELETE", f"/posts/rows/{row['id']}")
        got = await desk.admin("PATCH", "/posts", {"add_column": column("c")})
        assert got.said == (409, "CONFLICT")
        assert got.details == {"field": "$.add_column.nullable"}
        assert (await desk.admin("GET", "/posts")).data["version"] == 2

    at_desk(tmp_path, work)


def test_a_unique_index_needs_unique_rows(tmp_path: Path) -> None:
    """It is refused while rows stand against it, and nothing is changed (contract E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("a"))
        await desk.insert("posts", a="x")
        row = await desk.insert("posts", a="x")
        unique = {"add_index": {"columns": ["a"], "unique": True}}
        got = await desk.admin("PATCH", "/posts", unique)
        assert got.said == (409, "CONFLICT")
        assert (await desk.admin("GET", "/posts")).data["version"] == 1
        await desk.admin("PATCH", f"/posts/rows/{row['id']}", {"a": "y"})
        assert (await desk.admin("PATCH", "/posts", unique)).data["version"] == 2

    at_desk(tmp_path, work)


def test_an_index_of_a_vector_is_declared_alone(tmp_path: Path) -> None:
    """As the command line declares it; described, kept by no table, dropped with its column."""

    async def work(desk: Desk) -> None:
        vector = column("embedding", "vector", dimension=2)
        await desk.make("posts", column("t"), vector, indexes=[{"columns": ["embedding"]}])
        got = await desk.admin("PATCH", "/posts", {"add_index": {"columns": ["embedding"]}})
        assert got.status == 200
        said = (await desk.admin("GET", "/posts")).data
        assert [index["name"] for index in said["indexes"]] == ["embedding_idx", "embedding_idx2"]
        row = await desk.insert("posts", embedding=[1.0, 2.0])
        assert row["embedding"] == [1.0, 2.0]
        drop = {"drop_column": "embedding"}
        assert (await desk.admin("PATCH", "/posts?confirm=embedding", drop)).status == 200
        assert (await desk.admin("GET", "/posts")).data["indexes"] == []

    at_desk(tmp_path, work)


def test_schemas_have_their_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns, indexes and collections: at the limit, and one past it."""
    monkeypatch.setattr(limits, "COLLECTION_COLUMNS", limits.Limit(3, "columns", "", ""))
    monkeypatch.setattr(limits, "COLLECTION_INDEXES", limits.Limit(2, "indexes", "", ""))
    monkeypatch.setattr(limits, "COLLECTIONS", limits.Limit(2, "collections", "", ""))

    async def work(desk: Desk) -> None:
        columns = [column(name) for name in "abcd"]
        got = await desk.admin("POST", "", {"name": "posts", "columns": columns})
        assert got.said == (400, "INVALID_SCHEMA")
        index = {"columns": ["a"]}
        await desk.make("posts", *columns[:3], indexes=[index, index])
        got = await desk.admin("PATCH", "/posts", {"add_column": columns[3]})
        assert got.said == (409, "CONFLICT")
        got = await desk.admin("PATCH", "/posts", {"add_index": index})
        assert got.said == (400, "INVALID_SCHEMA")
        await desk.make("second")
        got = await desk.admin("POST", "", {"name": "third", "columns": []})
        assert got.said == (409, "CONFLICT")
        assert (await desk.admin("GET", "?limit=1&offset=1")).data[0]["name"] == "second"
        assert (await desk.admin("GET", "?limit=0")).said == (400, "INVALID_LIMIT")

    at_desk(tmp_path, work)


def _bound(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    monkeypatch.setattr(limits, name, replace(getattr(limits, name), value=value))


def test_a_large_collection_is_not_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Indexes and columns that go hold up every write: refused over a number of rows (ours)."""
    _bound(monkeypatch, "COLLECTION_ALTER_ROWS", 3)

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("a"), column("b"))
        for at in range(3):
            await desk.insert("posts", a=str(at))
        index = {"add_index": {"columns": ["a"]}}
        assert (await desk.admin("PATCH", "/posts", index)).status == 200
        row = await desk.insert("posts", a="3")
        await desk.admin("DELETE", f"/posts/rows/{row['id']}")  # deleted, it is still there
        for change, place in (
            ({"add_index": {"name": "x", "columns": ["b"]}}, "$.add_index"),
            ({"drop_column": "b"}, "$.drop_column"),
        ):
            got = await desk.admin("PATCH", "/posts?confirm=b", change)
            assert got.said == (409, "CONFLICT")
            assert got.details == {"field": place, "rows_max": 3}
        # a column that is added is null in all rows: none is read
        added = {"add_column": column("c", nullable=True)}
        assert (await desk.admin("PATCH", "/posts", added)).status == 200
        await desk.admin("DELETE", f"/posts/rows/{row['id']}?hard=true")
        got = await desk.admin("PATCH", "/posts?confirm=b", {"drop_column": "b"})
        assert got.data["version"] == 4

    at_desk(tmp_path, work)


@pytest.mark.parametrize("on_delete", ["cascade", "restrict", "set null"])
def test_a_large_collection_is_emptied_before_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_delete: str
) -> None:
    """A few rows a transaction, whatever refers to what within it; others keep theirs."""
    _bound(monkeypatch, "COLLECTION_DROP_ROWS", 3)
    _bound(monkeypatch, "COLLECTION_DROP_BATCH", 3)
    gone: list[int] = []
    real = collection_rows.empty_some

    def seen(scoped: Scoped, collection: Collection, count: int) -> None:
        rows = Rows(scoped, collection, CollectionTables())
        before = rows.count(Reach(None, deleted=True))
        real(scoped, collection, count)
        gone.append(before - rows.count(Reach(None, deleted=True)))

    monkeypatch.setattr(collection_rows, "empty_some", seen)

    async def work(desk: Desk) -> None:
        up = column("up", "uuid", references={"table": "nodes", "onDelete": on_delete})
        await desk.make("nodes", column("n", "integer"), up)
        await desk.make("others", column("n", "integer"))
        first = last = await desk.insert("nodes", n=0)
        for n in range(1, 11):
            last = await desk.insert("nodes", n=n, up=last["id"])
        await desk.admin("PATCH", f"/nodes/rows/{first['id']}", {"up": last["id"]})  # a circle
        for n in range(5):
            await desk.insert("others", n=n)
        assert (await desk.admin("DELETE", "/nodes?confirm=nodes")).data["deleted"] is True
        # eleven references are taken back, two indexes go, then rows until three are left
        assert gone == [*[0] * 4, *[0] * 2, 3, 3, 3]
        assert (await desk.admin("GET", "/nodes")).said == (404, "COLLECTION_NOT_FOUND")
        assert len(await desk.all("others")) == 5

    at_desk(tmp_path, work)


def test_a_collection_that_grows_as_fast_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is not emptied for ever: 409, with what is left (house rule: every loop is bounded)."""
    _bound(monkeypatch, "COLLECTION_DROP_ROWS", 1)
    _bound(monkeypatch, "COLLECTION_DROP_BATCH", 1)
    _bound(monkeypatch, "COLLECTION_DROP_TURNS", 4)  # two of them for indexes

    async def work(desk: Desk) -> None:
        unique = {"columns": ["n"], "unique": True}
        await desk.make("posts", column("n", "integer"), indexes=[unique])
        for n in range(4):
            await desk.insert("posts", n=n)
        assert (await desk.admin("DELETE", "/posts?confirm=posts")).said == (409, "CONFLICT")
        assert len(await desk.all("posts")) == 2
        assert (await desk.admin("POST", "/posts/rows", {"n": 3})).said == (409, "ROW_CONFLICT")
        assert (await desk.admin("POST", "/posts/rows", {"n": 4})).status == 201
        assert (await desk.admin("DELETE", "/posts?confirm=posts")).status == 200

    at_desk(tmp_path, work)

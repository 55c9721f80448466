"""Columns that refer to rows of other collections, and what a deletion does to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.router.services.collections.desk import Desk, at_desk, column

NOWHERE = "00000000-0000-4000-8000-000000000000"
CONFLICT = (409, "ROW_CONFLICT")


async def _shelves(desk: Desk, on_delete: str | None, **more: Any) -> None:
    """Collection `books` refers to `shelves`."""
    await desk.make("shelves", column("t"))
    reference = {"table": "shelves", **({"onDelete": on_delete} if on_delete else {})}
    await desk.make("books", column("t"), column("shelf", "uuid", references=reference, **more))


def test_a_reference_needs_its_row(tmp_path: Path) -> None:
    """409 names the column, on insert, in a batch, on change; null refers to nothing."""

    async def work(desk: Desk) -> None:
        await _shelves(desk, None)
        shelf = await desk.insert("shelves", t="top")
        book = await desk.insert("books", t="a", shelf=shelf["id"])
        got = await desk.admin("POST", "/books/rows", {"t": "b", "shelf": NOWHERE})
        assert got.said == CONFLICT
        assert got.details == {"field": "$.shelf", "column": "shelf"}
        got = await desk.admin("POST", "/books/rows:batch", [{"t": "b"}, {"shelf": NOWHERE}])
        assert got.said == CONFLICT
        assert got.details == {"field": "$[1].shelf", "column": "shelf", "row": 1}
        got = await desk.admin("PATCH", f"/books/rows/{book['id']}", {"set": {"shelf": NOWHERE}})
        assert got.said == CONFLICT
        assert got.details["field"] == "$.set.shelf"
        got = await desk.admin("PATCH", "/books/rows", {"where": {}, "set": {"shelf": NOWHERE}})
        assert got.said == CONFLICT
        assert await desk.all("books") == [book]
        assert (await desk.admin("POST", "/books/rows", {"t": "b"})).status == 201
        # marked, a row is still one
        await desk.admin("DELETE", f"/shelves/rows/{shelf['id']}")
        assert (await desk.admin("POST", "/books/rows", {"shelf": shelf["id"]})).status == 201

    at_desk(tmp_path, work)


@pytest.mark.parametrize("on_delete", [None, "RESTRICT", "no_action"])
def test_what_is_referred_to_stays(tmp_path: Path, on_delete: str | None) -> None:
    """`restrict`, and no action, which is the default: 409, and nothing is deleted."""

    async def work(desk: Desk) -> None:
        await _shelves(desk, on_delete)
        shelf = await desk.insert("shelves", t="top")
        free = await desk.insert("shelves", t="free")
        book = await desk.insert("books", shelf=shelf["id"])
        target = f"/shelves/rows/{shelf['id']}?hard=true"
        assert (await desk.admin("DELETE", target)).said == CONFLICT
        got = await desk.admin("DELETE", "/shelves/rows?hard=true", {"where": {}})
        assert got.said == CONFLICT
        assert await desk.all("shelves") == [shelf, free]
        await desk.admin("DELETE", f"/books/rows/{book['id']}?hard=true")
        assert (await desk.admin("DELETE", target)).status == 200

    at_desk(tmp_path, work)


def test_a_deletion_cascades(tmp_path: Path) -> None:
    """Rows that refer to it go, and those that refer to them; a soft one touches none."""

    async def work(desk: Desk) -> None:
        await _shelves(desk, "cascade")
        reference = {"table": "books", "onDelete": "CASCADE"}
        await desk.make("pages", column("book", "uuid", references=reference))
        shelves = [await desk.insert("shelves", t=t) for t in "ab"]
        for shelf in shelves:
            book = await desk.insert("books", shelf=shelf["id"], t=shelf["t"])
            await desk.insert("pages", book=book["id"])
        await desk.admin("DELETE", f"/shelves/rows/{shelves[0]['id']}")
        assert len(await desk.all("pages")) == 2
        await desk.admin("DELETE", f"/shelves/rows/{shelves[0]['id']}?hard=true")
        assert [row["t"] for row in await desk.all("books", include_deleted=True)] == ["b"]
        assert len(await desk.all("pages", include_deleted=True)) == 1

    at_desk(tmp_path, work)


def test_a_deletion_sets_null(tmp_path: Path) -> None:
    """The rows stay, without what they referred to."""

    async def work(desk: Desk) -> None:
        await _shelves(desk, "set null")
        shelf = await desk.insert("shelves", t="top")
        book = await desk.insert("books", t="a", shelf=shelf["id"])
        await desk.admin("DELETE", f"/shelves/rows/{shelf['id']}?hard=true")
        assert await desk.all("books") == [{**book, "shelf": None}]

    at_desk(tmp_path, work)


def test_a_reference_may_be_to_a_unique_column(tmp_path: Path) -> None:
    """With a unique index of its own, in this collection or another; added later as well."""

    async def work(desk: Desk) -> None:
        unique = {"columns": ["code"], "unique": True}
        await desk.make("shelves", column("code"), indexes=[unique])
        reference = {"table": "shelves", "column": "code", "onDelete": "cascade"}
        await desk.make("books", column("t"))
        added = column("shelf", nullable=True, references=reference)
        assert (await desk.admin("PATCH", "/books", {"add_column": added})).status == 200
        parent = {"table": "nodes", "onDelete": "cascade"}
        await desk.make("nodes", column("parent", "uuid", references=parent))
        await desk.insert("shelves", code="A1")
        await desk.insert("books", shelf="A1")
        assert (await desk.admin("POST", "/books/rows", {"shelf": "Z"})).said == CONFLICT
        root = await desk.insert("nodes")
        await desk.insert("nodes", parent=(await desk.insert("nodes", parent=root["id"]))["id"])
        await desk.admin("DELETE", f"/nodes/rows/{root['id']}?hard=true")
        assert await desk.all("nodes") == []
        code = (await desk.all("shelves"))[0]["id"]
        got = await desk.admin("PATCH", f"/shelves/rows/{code}", {"code": "A2"})
        assert got.said == CONFLICT
        assert got.details == {"field": "$"}
        # the column that refers is free to go, the one that is referred to is not
        got = await desk.admin("PATCH", "/shelves?confirm=code", {"drop_column": "code"})
        assert got.said == (409, "CONFLICT")
        drop = {"drop_column": "shelf"}
        assert (await desk.admin("PATCH", "/books?confirm=shelf", drop)).status == 200
        got = await desk.admin("PATCH", "/shelves?confirm=code", {"drop_column": "code"})
        assert got.status == 200
        drop = {"drop_column": "parent"}
        assert (await desk.admin("PATCH", "/nodes?confirm=parent", drop)).status == 200

    at_desk(tmp_path, work)


def test_what_is_referred_to_counts_deleted_rows(tmp_path: Path) -> None:
    """A row that refers to a code means one row: a deleted one's code is not free meanwhile, and
    where two have it already no column can refer to it.
    """

    async def work(desk: Desk) -> None:
        unique = {"columns": ["code"], "unique": True}
        await desk.make("shelves", column("code"), indexes=[unique])
        for _ in range(2):
            row = await desk.insert("shelves", code="A1")
            await desk.admin("DELETE", f"/shelves/rows/{row['id']}")
        reference = {"table": "shelves", "column": "code", "onDelete": "cascade"}
        shelf = column("shelf", nullable=True, references=reference)
        books = {"name": "books", "columns": [shelf]}
        got = await desk.admin("POST", "", books)
        assert got.said == (409, "CONFLICT")
        assert "?hard=true" in got.body["error"]["message"]
        assert (await desk.admin("GET", "/books")).said == (404, "COLLECTION_NOT_FOUND")
        await desk.make("notes", column("t"))
        got = await desk.admin("PATCH", "/notes", {"add_column": shelf})
        assert got.said == (409, "CONFLICT")
        assert (await desk.admin("GET", "/notes")).data["version"] == 1

        await desk.admin("DELETE", "/shelves/rows?hard=true", {"where": {}})
        assert (await desk.admin("POST", "", books)).status == 201
        assert (await desk.admin("PATCH", "/notes", {"add_column": shelf})).status == 200
        row = await desk.insert("shelves", code="A1")
        await desk.insert("books", shelf="A1")
        await desk.admin("DELETE", f"/shelves/rows/{row['id']}")
        taken = await desk.admin("POST", "/shelves/rows", {"code": "A1"})
        assert taken.said == CONFLICT
        assert taken.details["columns"] == ["code"]
        # free again with the last column that refers to it
        assert (await desk.admin("DELETE", "/books?confirm=books")).status == 200
        assert (await desk.admin("POST", "/shelves/rows", {"code": "A1"})).said == CONFLICT
        drop = {"drop_column": "shelf"}
        assert (await desk.admin("PATCH", "/notes?confirm=shelf", drop)).status == 200
        assert (await desk.admin("POST", "/shelves/rows", {"code": "A1"})).status == 201
        drop = {"drop_column": "code"}
        assert (await desk.admin("PATCH", "/shelves?confirm=code", drop)).status == 200

    at_desk(tmp_path, work)


def test_a_collection_may_refer_to_a_column_of_its_own(tmp_path: Path) -> None:
    """From the start and with a column that is added; both can go, in this order."""

    async def work(desk: Desk) -> None:
        unique = {"columns": ["code"], "unique": True}
        reference = {"table": "nodes", "column": "code", "onDelete": "cascade"}
        await desk.make(
            "nodes", column("code"), column("up", references=reference), indexes=[unique]
        )
        await desk.insert("nodes", code="root")
        await desk.insert("nodes", code="leaf", up="root")
        assert (await desk.admin("POST", "/nodes/rows", {"up": "nowhere"})).said == CONFLICT
        for name in ("up", "code"):
            target = f"/nodes?confirm={name}"
            assert (await desk.admin("PATCH", target, {"drop_column": name})).status == 200
        assert (await desk.admin("DELETE", "/nodes?confirm=nodes")).status == 200

    at_desk(tmp_path, work)


def test_a_collection_that_is_referred_to_is_not_dropped(tmp_path: Path) -> None:
    """409 names the column; its own references to itself do not count."""

    async def work(desk: Desk) -> None:
        await _shelves(desk, "cascade")
        shelf = await desk.insert("shelves", t="top")
        await desk.insert("books", shelf=shelf["id"])
        got = await desk.admin("DELETE", "/shelves?confirm=shelves")
        assert got.said == (409, "CONFLICT")
        assert "books.shelf" in got.body["error"]["message"]
        assert len(await desk.all("books")) == 1
        for name in ("books", "shelves"):
            assert (await desk.admin("DELETE", f"/{name}?confirm={name}")).status == 200
        await desk.make("nodes", column("parent", "uuid", references={"table": "nodes"}))
        root = await desk.insert("nodes")
        await desk.insert("nodes", parent=root["id"])
        assert (await desk.admin("DELETE", "/nodes?confirm=nodes")).status == 200

    at_desk(tmp_path, work)


def test_users_are_referred_to_by_name_alone(tmp_path: Path) -> None:
    """`app_users` is taken, described, and not enforced (contract E.5; ours)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("author", references={"table": "app_users"}))
        assert (await desk.insert("posts", author="u1"))["author"] == "u1"
        described = (await desk.admin("GET", "/posts")).data["columns"][2]
        assert described["references"]["table"] == "app_users"

    at_desk(tmp_path, work)

"""Rows on the admin plane: any row, any user (contract E.5; J.9)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import World
from tests.router.services.collections.desk import Desk, asked, at_desk, column

from amba_runtime import limits

NOWHERE = "00000000-0000-4000-8000-000000000000"


def test_a_row_is_inserted_and_read(tmp_path: Path) -> None:
    """Every type there and back; both path styles; managed columns are the server's."""

    async def work(desk: Desk) -> None:
        values = {
            "u": NOWHERE,
            "t": "'; DROP TABLE coll_1; --",
            "i": -1,
            "b": 2**53,
            "n": 1.5,
            "f": False,
            "at": "2026-01-01T12:00:00.000Z",
            "d": "2026-01-01",
            "j": {"a": [1, None]},
            "v": [0.1, 2.0],
            "ts": ["x", "y"],
            "ns": [1, 2],
        }
        types = {
            "u": "uuid",
            "t": "text",
            "i": "integer",
            "b": "bigint",
            "n": "numeric",
            "f": "boolean",
            "at": "timestamptz",
            "d": "date",
            "j": "jsonb",
            "ts": "text[]",
            "ns": "integer[]",
        }
        columns = [column(name, type_) for name, type_ in types.items()]
        await desk.make("every", *columns, column("v", "vector", dimension=2))
        forged = {"id": NOWHERE, "created_at": "2000-01-01T00:00:00Z", "deleted_at": "x"}
        got = await desk.admin("POST", "/every/rows", {**values, **forged, "user_id": "u9"})
        assert got.status == 201
        row = got.data
        assert {name: row[name] for name in values} == values
        assert row["id"] != NOWHERE
        assert row["user_id"] == "u9"
        assert row["created_at"] == row["updated_at"] == "2026-01-01T00:00:00.000Z"
        assert row["deleted_at"] is None
        project = desk.project["id"]
        for prefix in ("/v1", ""):
            target = f"{prefix}/admin/projects/{project}/collections/every/rows/{row['id']}"
            assert (await desk.world.get(target)).data == row
        listed = (await desk.admin("GET", "/every/rows")).body
        assert listed == {"data": [row], "total": 1, "next_cursor": None}
        nothing = await desk.insert("every")
        assert [nothing[name] for name in values] == [None] * len(values)

    at_desk(tmp_path, work)


@pytest.mark.parametrize(
    ("row", "code", "field"),
    [
        ({"t": 1}, "INVALID_VALUE", "$.t"),
        ({"t": None}, "INVALID_VALUE", "$.t"),
        ({}, "INVALID_VALUE", "$.t"),
        ({"t": "x", "i": "1"}, "INVALID_VALUE", "$.i"),
        ({"t": "x", "z": 1}, "INVALID_COLUMN", "$.z"),
        ({"t": "x", 't"; --': 1}, "INVALID_COLUMN", '$.t"; --'),
        ({"t": "x", "user_id": 7}, "INVALID_VALUE", "$.user_id"),
        ({"t": "x", "user_id": ""}, "INVALID_VALUE", "$.user_id"),
        ({"t": "x", "user_id": "u" * 257}, "INVALID_VALUE", "$.user_id"),
        ([], "INVALID_INPUT", "$"),
        ("x", "INVALID_INPUT", "$"),
    ],
)
def test_a_bad_row_is_refused_with_its_column(
    tmp_path: Path, row: object, code: str, field: str
) -> None:
    """Wrong types, unknown columns, missing values: nothing is written (contract E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t", nullable=False), column("i", "integer"))
        got = await desk.admin("POST", "/posts/rows", row)
        assert got.said == (400, code)
        assert got.details["field"] == field
        assert await desk.all("posts") == []

    at_desk(tmp_path, work)


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"t": NaN}', b'{"t": 1e999}', b'{"t": "\\ud800"}', b"\xff", b"[" * 70]
)
def test_what_is_no_json_is_refused(tmp_path: Path, body: bytes) -> None:
    """And of a member given twice the last counts (issue 5, bad input)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"))
        got = await desk.admin("POST", "/posts/rows", body)
        assert got.status == 400
        assert got.code in ("INVALID_JSON", "INVALID_INPUT")
        assert await desk.all("posts") == []
        twice = await desk.admin("POST", "/posts/rows", b'{"t": "a", "t": "b"}')
        assert twice.data["t"] == "b"

    at_desk(tmp_path, work)


def test_a_row_is_changed(tmp_path: Path) -> None:
    """Bare columns or `set`; managed ones are passed over; `updated_at` moves (contract E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t", nullable=False), column("n", "integer"))
        row = await desk.insert("posts", t="a", n=1, user_id="u1")
        target = f"/posts/rows/{row['id']}"
        desk.world.clock.jump(1)
        got = await desk.admin("PATCH", target, {"t": "b", "id": NOWHERE, "created_at": "x"})
        assert got.data == {**row, "t": "b", "updated_at": "2026-01-01T00:00:01.000Z"}
        got = await desk.admin("PATCH", target, {"set": {"n": None, "user_id": "u2"}})
        assert (got.data["t"], got.data["n"], got.data["user_id"]) == ("b", None, "u2")
        # null is no owner: it leaves the row with the one it has
        assert (await desk.admin("PATCH", target, {"user_id": None})).data["user_id"] == "u2"
        shouted = await desk.admin("PATCH", f"/posts/rows/{row['id'].upper()}", {})
        assert shouted.data["t"] == "b"
        bad: list[tuple[dict[str, Any], str, str]] = [
            ({"t": None}, "INVALID_VALUE", "$.t"),
            ({"set": {"n": "x"}}, "INVALID_VALUE", "$.set.n"),
            ({"set": {"z": 1}}, "INVALID_COLUMN", "$.set.z"),
            ({"set": 1}, "INVALID_INPUT", "$.set"),
            ({"set": {}, "t": "x"}, "INVALID_INPUT", "$.set"),
        ]
        for body, code, field in bad:
            got = await desk.admin("PATCH", target, body)
            assert got.said == (400, code), body
            assert got.details["field"] == field
        for id_ in (NOWHERE, "1", "x'; --"):
            got = await desk.admin("PATCH", f"/posts/rows/{id_.replace(' ', '%20')}", {"t": "z"})
            assert got.said == (404, "ROW_NOT_FOUND")
        assert [one["t"] for one in await desk.all("posts")] == ["b"]

    at_desk(tmp_path, work)


MERGES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    (None, {"a": {"b": None, "c": 1}}, {"a": {"c": 1}}),
    ({"a": 1}, None, None),
]


def test_objects_in_jsonb_are_merged(tmp_path: Path) -> None:
    """RFC 7396, appendix A; a null column is no object (contract E.5, 4.x)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("j", "jsonb"), column("n", "integer"))
        for had, patch, wanted in MERGES:
            row = await desk.insert("posts", j=had)
            got = await desk.admin("PATCH", f"/posts/rows/{row['id']}", {"set": {"j": patch}})
            assert got.data["j"] == wanted
            assert (await desk.admin("GET", f"/posts/rows/{row['id']}")).data["j"] == wanted
        # each row of many by itself, and of none
        no_rows = {"where": {"n": 7}, "set": {"j": {"a": 1}}}
        assert (await desk.admin("PATCH", "/posts/rows", no_rows)).body == {"data": [], "count": 0}
        await desk.admin("DELETE", "/posts/rows?hard=true", {"where": {}})
        for number in range(3):
            await desk.insert("posts", j={"n": number, "gone": 1}, n=number)
        body = {"where": {"n": {"gte": 1}}, "set": {"j": {"gone": None, "new": True}}}
        got = await desk.admin("PATCH", "/posts/rows", body)
        assert [row["j"] for row in got.data] == [{"n": n, "new": True} for n in (1, 2)]
        assert [row["j"] for row in await desk.all("posts")] == [
            {"n": 0, "gone": 1},
            {"n": 1, "new": True},
            {"n": 2, "new": True},
        ]

    at_desk(tmp_path, work)


def test_a_deleted_row_is_marked_and_found_no_more(tmp_path: Path) -> None:
    """`deleted_at` and `updated_at`; reads see it on demand alone (contract E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"))
        row = await desk.insert("posts", t="a")
        target = f"/posts/rows/{row['id']}"
        desk.world.clock.jump(1)
        assert (await desk.admin("DELETE", target)).data == {"id": row["id"], "deleted": True}
        for method, body in (("GET", None), ("PATCH", {"t": "b"}), ("DELETE", None)):
            assert (await desk.admin(method, target, body)).said == (404, "ROW_NOT_FOUND")
        at = "2026-01-01T00:00:01.000Z"
        marked = {**row, "deleted_at": at, "updated_at": at}
        assert (await desk.admin("GET", f"{target}?include_deleted=true")).data == marked
        assert await desk.all("posts") == []
        assert await desk.all("posts", include_deleted=True) == [marked]
        assert await desk.all("posts", includeDeleted=True) == [marked]
        counted = await desk.admin("GET", "/posts/rows/count")
        assert counted.data == {"count": 0}
        counted = await desk.admin("GET", f"/posts/rows/count{asked(include_deleted=True)}")
        assert counted.data == {"count": 1}
        assert (await desk.admin("GET", f"{target}?include_deleted=yes")).said == (
            400,
            "INVALID_INPUT",
        )

    at_desk(tmp_path, work)


def test_a_hard_deletion_is_for_good(tmp_path: Path) -> None:
    """On the admin plane alone; of a marked row as well (contract E.5; `hard` is ours)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"))
        marked, kept = [await desk.insert("posts", t=t) for t in "ab"]
        await desk.admin("DELETE", f"/posts/rows/{marked['id']}")
        assert (await desk.admin("DELETE", f"/posts/rows/{marked['id']}?hard=1")).said == (
            400,
            "INVALID_INPUT",
        )
        got = await desk.admin("DELETE", f"/posts/rows/{marked['id']}?hard=true")
        assert got.data == {"id": marked["id"], "deleted": True}
        assert await desk.all("posts", include_deleted=True) == [kept]
        again = await desk.admin("DELETE", f"/posts/rows/{marked['id']}?hard=true")
        assert again.said == (404, "ROW_NOT_FOUND")

    at_desk(tmp_path, work)


def test_a_batch_is_all_or_nothing(tmp_path: Path) -> None:
    """500 rows in their order; with a bad one nothing is written, and it is named (J.9)."""

    async def work(desk: Desk) -> None:
        unique = {"columns": ["n"], "unique": True}
        await desk.make("posts", column("n", "integer", nullable=False), indexes=[unique])
        rows: list[Any] = [{"n": n, "user_id": f"u{n % 7}"} for n in range(500)]
        bad: list[tuple[int, Any, tuple[int, str], str]] = [
            (499, {"n": "x"}, (400, "INVALID_VALUE"), "$.rows[499].n"),
            (250, {"n": 1, "z": 1}, (400, "INVALID_COLUMN"), "$.rows[250].z"),
            (3, 7, (400, "INVALID_INPUT"), "$.rows[3]"),
            (0, {}, (400, "INVALID_VALUE"), "$.rows[0].n"),
            (498, {"n": 17}, (409, "ROW_CONFLICT"), "$.rows[498]"),
        ]
        for at, row, said, field in bad:
            some = [*rows[:at], row, *rows[at + 1 :]]
            got = await desk.admin("POST", "/posts/rows:batch", {"rows": some})
            assert got.said == said
            assert (got.details["row"], got.details["field"]) == (at, field)
            assert (await desk.admin("GET", "/posts/rows/count")).data == {"count": 0}
        got = await desk.admin("POST", "/posts/rows:batch", {"rows": [*rows, {"n": 500}]})
        assert got.said == (413, "BATCH_TOO_LARGE")
        assert got.details == {"field": "$.rows", "rows": 501, "most": 500}
        got = await desk.admin("POST", "/posts/rows:batch", {"rows": rows})
        assert got.status == 201
        assert got.body["count"] == 500
        assert [row["n"] for row in got.data] == list(range(500))
        page = await desk.all("posts", limit=1000)
        assert [row["n"] for row in page] == list(range(500))
        # a bare array is taken as well
        got = await desk.admin("POST", "/posts/rows:batch", [{"n": 500}, {"n": 0}])
        assert got.said == (409, "ROW_CONFLICT")
        assert (got.details["row"], got.details["columns"]) == (1, ["n"])
        got = await desk.admin("POST", "/posts/rows:batch", [{"n": 500}])
        assert [row["n"] for row in got.data] == [500]
        assert (await desk.admin("POST", "/posts/rows:batch", [])).body == {"data": [], "count": 0}
        shapeless: list[Any] = [{}, {"rows": {}}, {"rows": [], "more": 1}, 7]
        for body in shapeless:
            got = await desk.admin("POST", "/posts/rows:batch", body)
            assert got.said == (400, "INVALID_INPUT")

    at_desk(tmp_path, work)


def test_a_unique_index_holds(tmp_path: Path) -> None:
    """409 with its columns, on insert and on change; nulls are never equal (as Postgres)."""

    async def work(desk: Desk) -> None:
        unique = {"columns": ["a desc", "b"], "unique": True}
        await desk.make("posts", column("a"), column("b"), indexes=[unique])
        await desk.insert("posts", a="x", b="1")
        other = await desk.insert("posts", a="x", b="2")
        for _ in range(2):
            await desk.insert("posts", a="x")
        got = await desk.admin("POST", "/posts/rows", {"a": "x", "b": "1"})
        assert got.said == (409, "ROW_CONFLICT")
        assert got.details == {"field": "$", "columns": ["a", "b"]}
        target = f"/posts/rows/{other['id']}"
        assert (await desk.admin("PATCH", target, {"b": "1"})).said == (409, "ROW_CONFLICT")
        everyone = {"where": {}, "set": {"b": "1"}}
        got = await desk.admin("PATCH", "/posts/rows", everyone)
        assert got.said == (409, "ROW_CONFLICT")
        assert [row["b"] for row in await desk.all("posts")] == ["1", "2", None, None]

    at_desk(tmp_path, work)


def test_a_unique_index_does_not_count_deleted_rows(tmp_path: Path) -> None:
    """A value is free again once its row is marked; among rows that are there it is unique."""

    async def work(desk: Desk) -> None:
        unique = {"columns": ["email"], "unique": True}
        await desk.make("members", column("email"), indexes=[unique])
        for _ in range(3):
            row = await desk.insert("members", email="ann@example.com")
            again = await desk.admin("POST", "/members/rows", {"email": "ann@example.com"})
            assert again.said == (409, "ROW_CONFLICT")
            assert (await desk.admin("DELETE", f"/members/rows/{row['id']}")).status == 200
        assert len(await desk.all("members", include_deleted=True)) == 3
        assert await desk.all("members") == []
        # added later, too, over rows of which all but one are deleted
        await desk.insert("members", email="bob@example.com")
        added = {"add_index": {"name": "later", "columns": ["email"], "unique": True}}
        assert (await desk.admin("PATCH", "/members", added)).status == 200

    at_desk(tmp_path, work)


def test_a_list_is_asked_in_two_ways(tmp_path: Path) -> None:
    """Options as `?query=` JSON or beside it, and as the body of a find (contract E.5, H-10)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("n", "integer"))
        rows = [{"n": n} for n in range(7)]
        await desk.admin("POST", "/posts/rows:batch", rows)
        got = await desk.admin("GET", "/posts/rows?limit=2&offset=1")
        assert ([row["n"] for row in got.data], got.body["total"]) == ([1, 2], 7)
        seen: list[int] = []
        target = f"/posts/rows{asked(order='n desc', select=['n'])}&limit=3"
        cursor: str | None = ""
        while cursor is not None:
            got = await desk.admin("GET", f"{target}&cursor={cursor}" if cursor else target)
            seen += [row["n"] for row in got.data]
            cursor = got.body["next_cursor"]
        assert seen == [6, 5, 4, 3, 2, 1, 0]
        options = {
            "filter": {"column": "n", "op": "gte", "value": 3},
            "order": [{"column": "n", "direction": "desc"}],
            "limit": 2,
            "select": ["n"],
        }
        got = await desk.admin("POST", "/posts/rows/find", options)
        assert got.data == [{"n": 6}, {"n": 5}]
        assert got.body["has_more"] is True
        options["cursor"] = got.body["next_cursor"]
        got = await desk.admin("POST", "/posts/rows/find", options)
        assert got.body == {"data": [{"n": 4}, {"n": 3}], "next_cursor": None, "has_more": False}
        assert (await desk.admin("POST", "/posts/rows/find")).status == 200
        counted = await desk.admin("GET", f"/posts/rows/count{asked(where={'n': {'lt': 2}})}")
        assert counted.data == {"count": 2}
        bad: list[tuple[str, str, Any, str]] = [
            ("GET", "/posts/rows?limit=0", None, "INVALID_LIMIT"),
            ("GET", "/posts/rows?limit=1001", None, "INVALID_LIMIT"),
            ("GET", "/posts/rows?offset=x", None, "INVALID_LIMIT"),
            ("GET", f"/posts/rows{asked(limit=1)}&limit=1", None, "INVALID_QUERY"),
            ("GET", "/posts/rows?query=[]", None, "INVALID_QUERY"),
            ("GET", "/posts/rows?query=x", None, "INVALID_QUERY"),
            ("GET", "/posts/rows?cursor=x", None, "INVALID_CURSOR"),
            ("GET", f"/posts/rows{asked(where={'z': 1})}", None, "INVALID_FILTER"),
            ("GET", f"/posts/rows/count{asked(limit=1)}", None, "INVALID_QUERY"),
            ("POST", "/posts/rows/find", {"where": {"n": "x"}}, "INVALID_FILTER"),
            ("POST", "/posts/rows/find", {"order": "z"}, "INVALID_QUERY"),
            ("POST", "/posts/rows/find", [], "INVALID_INPUT"),
        ]
        for method, path, body, code in bad:
            assert (await desk.admin(method, path, body)).said == (400, code), path

    at_desk(tmp_path, work)


def test_search_is_not_emulated(tmp_path: Path) -> None:
    """501 by name wherever rows are asked for, whatever the collection declares (E.0, E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("n", "integer"), search="substring")
        for method, path, body in (
            ("POST", "/posts/rows/find", {"search": "x"}),
            ("POST", "/posts/rows/find", {"where": {"n": 1}, "search": {"fuzzy": "x"}}),
            ("GET", f"/posts/rows{asked(search='x')}", None),
            ("GET", f"/posts/rows/count{asked(search='x')}", None),
            ("POST", "/posts/rows/find-nearest", {"search": "x"}),
        ):
            got = await desk.admin(method, path, body)
            assert got.said == (501, "NOT_EMULATED"), path
            assert got.details["feature"] == "collections/search"
        assert (await desk.admin("GET", "/posts")).data["search"] == "substring"

    at_desk(tmp_path, work)


def test_bulk_calls_say_which_rows(tmp_path: Path) -> None:
    """The oldest first, 1,000 unless asked, 10,000 at most; marked rows stay (contract E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("n", "integer"))
        for at in range(0, 1001, 500):
            rows = [{"n": n} for n in range(at, min(at + 500, 1001))]
            await desk.admin("POST", "/posts/rows:batch", rows)
        got = await desk.admin("PATCH", "/posts/rows", {"where": {}, "set": {"n": -1}})
        assert got.body["count"] == len(got.data) == 1000
        by_filter = {"filter": {"column": "n", "op": "ne", "value": -1}, "limit": 10_000}
        got = await desk.admin("DELETE", "/posts/rows", by_filter)
        assert got.data == {"count": 1}
        got = await desk.admin("DELETE", "/posts/rows", {"where": {}, "limit": 2})
        assert got.data == {"count": 2}
        assert (await desk.admin("GET", "/posts/rows/count")).data == {"count": 998}
        got = await desk.admin("DELETE", "/posts/rows?hard=true", {"where": {}, "limit": 10_000})
        assert got.data == {"count": 1001}
        assert await desk.all("posts", include_deleted=True) == []
        bad: list[tuple[str, dict[str, Any], str]] = [
            ("PATCH", {"set": {"n": 1}}, "INVALID_FILTER"),
            ("DELETE", {}, "INVALID_FILTER"),
            ("DELETE", {"where": {}, "filter": {}}, "INVALID_FILTER"),
            ("DELETE", {"where": {}, "limit": 10_001}, "INVALID_QUERY"),
            ("DELETE", {"where": {}, "limit": 0}, "INVALID_QUERY"),
            ("DELETE", {"where": {}, "limit": "1"}, "INVALID_INPUT"),
            ("PATCH", {"where": {}}, "INVALID_INPUT"),
            ("PATCH", {"where": {}, "set": {"z": 1}}, "INVALID_COLUMN"),
            ("PATCH", {"where": {"n": "x"}, "set": {"n": 1}}, "INVALID_FILTER"),
            ("PATCH", {"where": {}, "set": {"n": 1}, "order": "n"}, "INVALID_INPUT"),
        ]
        for method, body, code in bad:
            assert (await desk.admin(method, "/posts/rows", body)).said == (400, code), body

    at_desk(tmp_path, work)


def test_a_row_has_a_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit, and one byte past it: on insert, on change, by a merge, in a batch."""
    monkeypatch.setattr(limits, "COLLECTION_ROW_BYTES", limits.Limit(100, "bytes", "", ""))

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"), column("j", "jsonb"))
        # an id of 36 bytes; user_id, j, the times: eight each
        room = 100 - 36 - 5 * 8
        row = await desk.insert("posts", t="x" * room)
        target = f"/posts/rows/{row['id']}"
        too_large = (413, "PAYLOAD_TOO_LARGE")
        assert (await desk.admin("POST", "/posts/rows", {"t": "x" * (room + 1)})).said == too_large
        assert (await desk.admin("PATCH", target, {"t": "x" * 101})).said == too_large
        assert (await desk.admin("PATCH", target, {"j": {"a": "x" * 9}})).said == too_large
        got = await desk.admin("POST", "/posts/rows:batch", [{"t": ""}, {"t": "x" * 101}])
        assert got.said == too_large
        assert got.details["row"] == 1
        assert [one["t"] for one in await desk.all("posts")] == ["x" * room]

    at_desk(tmp_path, work)


def test_a_bulk_answer_has_a_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past it nothing is changed; a smaller limit goes through (reliability.md 2.3)."""
    monkeypatch.setattr(limits, "COLLECTION_ANSWER_BYTES", limits.Limit(1000, "bytes", "", ""))

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"))
        await desk.admin("POST", "/posts/rows:batch", [{"t": "x" * 300}] * 3)
        got = await desk.admin("PATCH", "/posts/rows", {"where": {}, "set": {"t": "y"}})
        assert got.said == (413, "PAYLOAD_TOO_LARGE")
        assert got.details == {"field": "$.limit"}
        assert {row["t"] for row in await desk.all("posts")} == {"x" * 300}
        got = await desk.admin("PATCH", "/posts/rows", {"where": {}, "set": {"t": "y"}, "limit": 2})
        assert got.body["count"] == 2

    at_desk(tmp_path, work)


def test_a_batch_has_more_room_than_other_bodies(tmp_path: Path) -> None:
    """500 rows of 4 KiB fit into a batch; one past its bytes is 413 (contract E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"))
        got = await desk.admin("POST", "/posts/rows:batch", [{"t": "x" * 4096}] * 500)
        assert got.status == 201
        most = limits.COLLECTION_BATCH_BYTES.value
        got = await desk.admin("POST", "/posts/rows:batch", b"[" + b" " * most + b"]")
        assert got.said == (413, "PAYLOAD_TOO_LARGE")
        one = {"t": "x" * limits.CONTROL_JSON_BYTES.value}
        assert (await desk.admin("POST", "/posts/rows", one)).said == (413, "PAYLOAD_TOO_LARGE")

    at_desk(tmp_path, work)


def test_rows_outlive_a_restart(tmp_path: Path) -> None:
    """What was answered is there when the state directory is opened again (issue 5)."""
    kept: list[Any] = []

    async def first(desk: Desk) -> None:
        await desk.make("posts", column("j", "jsonb"), indexes=[{"columns": ["j"]}])
        kept.append(desk.project)
        kept.append(await desk.insert("posts", j={"a": 1}, user_id="u1"))

    at_desk(tmp_path, first)

    async def again() -> None:
        world = World(tmp_path)
        world.pat = ""
        async with world:
            world.pat = await world.store.add_pat("dev_1")
            await world.restart()
            desk = Desk(world, kept[0])
            assert await desk.all("posts") == [kept[1]]

    asyncio.run(again())


def test_lists_keep_the_order_of_inserts(tmp_path: Path) -> None:
    """Of one instant, too; a clock that was set back is believed (ours)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("n", "integer"))
        for n in range(0, 9, 3):
            await desk.insert("posts", n=n)
            await desk.admin("POST", "/posts/rows:batch", [{"n": n + 1}, {"n": n + 2}])
        assert [row["n"] for row in await desk.all("posts")] == list(range(9))
        desk.world.clock.jump(-60)
        late = await desk.insert("posts", n=9)
        assert late["created_at"] == "2025-12-31T23:59:00.000Z"

    at_desk(tmp_path, work)


def test_any_good_name_is_a_column(tmp_path: Path) -> None:
    """Words of SQL, of SQLite and of our own code are names like others (contract E.5)."""

    async def work(desk: Desk) -> None:
        names = (
            *("select", "order", "group", "table", "index", "values", "null", "default", "limit"),
            *("rowid", "oid", "_rowid_", "keys", "items", "update", "row_id", "new_n", "seq"),
            *("project_id", "c", "where", "filter", "column", "op", "value", "in", "like", "_"),
        )
        await desk.make(
            "table",
            *(column(name, "jsonb") for name in names),
            column("n", "jsonb"),
            indexes=[{"columns": [f"{name} desc"], "name": f"by_{name}"} for name in names],
        )
        given: dict[str, Any] = {name: {"is": name} for name in names}
        row = await desk.insert("table", **given, n={})
        assert {name: row[name] for name in names} == given
        for name in names:
            (found,) = await desk.all("table", where={name: {"eq": {"is": name}}}, select=[name])
            assert found == {name: {"is": name}}
        patch = {name: {"new": 1} for name in (*names, "n")}
        got = await desk.admin("PATCH", "/table/rows", {"where": {}, "set": patch})
        assert got.data[0]["row_id"] == {"is": "row_id", "new": 1}
        assert got.data[0]["n"] == {"new": 1}
        drop = {"drop_column": "rowid"}
        assert (await desk.admin("PATCH", "/table?confirm=rowid", drop)).status == 200
        assert await desk.all("table") == [
            {name: value for name, value in got.data[0].items() if name != "rowid"}
        ]

    at_desk(tmp_path, work)

"""Options of a find, and cursors: what they may be, and what stands against them (E.5)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from tests.router.services.collections.desk import Desk, asked, at_desk, column
from tests.router.services.collections.shelf import BOOKS, Shelf

from amba_router.api.faults import Refused
from amba_router.rows.query import (
    fingerprint_of,
    parse_count,
    parse_query,
    read_query,
)
from amba_runtime import limits


def refused(options: dict[str, Any], code: str = "INVALID_QUERY") -> tuple[str, str]:
    """(place, message) of the refusal."""
    with pytest.raises(Refused) as caught:
        parse_query(BOOKS, options)
    problem = caught.value.problem
    assert (problem.status, problem.code) == (400, code)
    return problem.details["field"], problem.message


def test_a_find_that_says_nothing() -> None:
    """50 rows, the first made first, all columns, none deleted (E.5: default 50)."""
    query = parse_query(BOOKS, {})
    assert (query.limit, query.offset, query.after, query.select) == (50, 0, None, ())
    assert [(o.column.name, o.descending) for o in query.order] == [("created_at", False)]
    assert not query.include_deleted


def test_a_limit_above_the_most_is_the_most() -> None:
    """As the platform's SDKs have it: 1,000 (E.5)."""
    assert parse_query(BOOKS, {"limit": 1000}).limit == 1000
    assert parse_query(BOOKS, {"limit": 10**30}).limit == 1000


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        ("title", [("title", False)]),
        ("  title   DESC ", [("title", True)]),
        ("title Asc", [("title", False)]),
        (["title desc", "count"], [("title", True), ("count", False)]),
        ({"column": "title", "direction": "DESC"}, [("title", True)]),
        ([{"column": "title"}, "id desc"], [("title", False), ("id", True)]),
        ([], [("created_at", False)]),
    ],
)
def test_orders_of_both_generations(order: Any, wanted: list[tuple[str, bool]]) -> None:
    """`"col desc"`, `{column, direction}`, or an array (E.5)."""
    query = parse_query(BOOKS, {"order": order})
    assert [(o.column.name, o.descending) for o in query.order] == wanted


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"limits": 5}, "$.limits", "no such option; there are cursor, filter"),
    ({"where; DROP": 5}, "$.where; DROP", "no such option"),
    ({"limit": 0}, "$.limit", "whole number, 1 or more"),
    ({"limit": -1}, "$.limit", "whole number"),
    ({"limit": 1.5}, "$.limit", "whole number"),
    ({"limit": "10"}, "$.limit", "whole number"),
    ({"limit": True}, "$.limit", "whole number"),
    ({"offset": -1}, "$.offset", "whole number, 0 or more"),
    ({"offset": 2**53 + 1}, "$.offset", "9007199254740992 is the most"),
    ({"offset": 2**64}, "$.offset", "9007199254740992 is the most"),
    ({"include_deleted": 1}, "$.include_deleted", "true or false"),
    ({"includeDeleted": "true"}, "$.includeDeleted", "true or false"),
    ({"order": "title; DROP TABLE coll_1"}, "$.order", 'must be "column"'),
    ({"order": "title desc nulls first"}, "$.order", 'must be "column"'),
    ({"order": "title\0"}, "$.order", 'must be "column"'),
    ({"order": "nope"}, "$.order", "has no column nope"),
    ({"order": 5}, "$.order", 'must be "column"'),
    ({"order": ["title", 5]}, "$.order[1]", 'must be "column"'),
    ({"order": ["title", "title desc"]}, "$.order[1]", "stands there twice"),
    ({"order": {"column": "title", "direction": "up"}}, "$.order", 'must be "column"'),
    ({"order": {"column": "title", "nulls": "last"}}, "$.order", 'must be "column"'),
    ({"order": "extra"}, "$.order", "extra is jsonb, which has no order"),
    ({"order": "tags"}, "$.order", "tags is text[], which has no order"),
    ({"order": "place desc"}, "$.order", "place is vector, which has no order"),
    ({"select": "title"}, "$.select", "must be an array of names"),
    ({"select": ["title", "nope"]}, "$.select[1]", "has no such column nope"),
    ({"select": [5]}, "$.select[0]", "this is no name"),
]


@pytest.mark.parametrize(("options", "place", "said"), BAD)
def test_a_bad_option_is_refused_at_its_place(
    options: dict[str, Any], place: str, said: str
) -> None:
    """INVALID_QUERY with `details.field`."""
    where, message = refused(options)
    assert where == place
    assert said in message


def test_an_order_has_as_many_columns_as_it_may() -> None:
    """Eight; nine are refused."""
    most = limits.COLLECTION_ORDER.value
    names = [c.name for c in BOOKS.all_columns if c.type in ("text", "uuid", "integer", "bigint")]
    names += ["ratio", "done", "at", "day"]
    assert len(parse_query(BOOKS, {"order": names[:most]}).order) == most
    assert refused({"order": names[: most + 1]}) == (
        "$.order",
        "$.order: orders by 8 columns at most",
    )


def test_a_select_names_each_column_once() -> None:
    """However often it was sent."""
    assert parse_query(BOOKS, {"select": ["id", "title"] * 1000}).select == ("id", "title")


def test_a_count_has_a_filter_and_no_page() -> None:
    """`where` and `includeDeleted` alone (E.5)."""
    tree, deleted = parse_count(BOOKS, {"where": {"title": "a"}, "includeDeleted": True})
    assert (tree, deleted) == (parse_query(BOOKS, {"where": {"title": "a"}}).filter, True)
    with pytest.raises(Refused, match="no such option"):
        parse_count(BOOKS, {"limit": 5})


@pytest.mark.parametrize(
    "text", ["{", "[]", "5", '"x"', "{'a': 1}", '{"limit": NaN}', "[" * 100, "nul"]
)
def test_a_query_that_is_no_object_is_refused(text: str) -> None:
    """Not JSON, NaN, another type, too deep: INVALID_QUERY."""
    with pytest.raises(Refused) as caught:
        read_query(text)
    assert (caught.value.problem.status, caught.value.problem.code) == (400, "INVALID_QUERY")


def test_of_a_member_sent_twice_the_last_counts() -> None:
    """As everywhere in JSON of ours."""
    assert read_query('{"limit": 1, "limit": 2}') == {"limit": 2}
    assert read_query(None) == read_query("") == {}


# --- cursors ---


def pages(shelf: Shelf, options: dict[str, Any]) -> tuple[list[str], str | None]:
    """(ids, next cursor) of a page."""
    found, cursor, _ = shelf.find(options)
    return [row["id"] for row in found], cursor


def test_a_cursor_is_base64url_of_what_the_contract_says() -> None:
    """JSON with orderColumn, orderValue and id (E.5), and a sum of ours; padding may be there."""
    with Shelf() as shelf:
        kept = [shelf.put({"count": count})["id"] for count in (3, 2, 1)]
        asked = {"order": "count", "limit": 1}
        _, cursor = pages(shelf, asked)
        assert cursor is not None
        padded = cursor + "=" * (-len(cursor) % 4)
        read = json.loads(base64.urlsafe_b64decode(padded))
        assert read.pop("sum")
        assert read == {"orderColumn": "count", "orderValue": 1, "id": kept[2]}
        assert pages(shelf, asked | {"cursor": padded})[0] == [kept[1]]


def test_a_cursor_outlives_its_row() -> None:
    """What lies behind a row that is gone meanwhile is found all the same."""
    with Shelf() as shelf:
        kept = [shelf.put({"count": count})["id"] for count in (1, 2, 2, 3)]
        asked = {"order": "count desc", "limit": 2}
        ids, cursor = pages(shelf, asked)
        assert ids == [kept[3], kept[2]]
        shelf.rows.drop([kept[2]])
        assert pages(shelf, asked | {"cursor": cursor}) == ([kept[1], kept[0]], None)


def test_a_page_may_have_another_size_and_other_columns() -> None:
    """limit and select are no part of what a cursor is for."""
    with Shelf() as shelf:
        kept = [shelf.put({})["id"] for _ in range(5)]
        _, cursor = pages(shelf, {"limit": 1})
        assert pages(shelf, {"limit": 3, "select": ["id"], "cursor": cursor})[0] == kept[1:4]


def test_a_cursor_of_another_query_is_refused() -> None:
    """Another filter, order, caller or collection (issue 5, bad input)."""
    with Shelf() as shelf:
        for count in range(3):
            shelf.put({"count": count})
        asked = {"where": {"count": {"gte": 0}}, "order": "count", "limit": 1}
        cursor = pages(shelf, asked)[1]
        same = {"filter": {"column": "count", "op": "gte", "value": 0}, "order": ["count"]}
        assert parse_query(BOOKS, same | {"cursor": cursor}).after is not None
        others: list[dict[str, Any]] = [
            *({"where": {"count": {"gt": 0}}}, {"where": {}}, {"order": "count desc"}),
            *({"order": "large"}, {"include_deleted": True}),
        ]
        for other in others:
            assert refused(asked | other | {"cursor": cursor}, "INVALID_CURSOR")[0] == "$.cursor"
        for scope in ("u1", "u2"):
            with pytest.raises(Refused, match="not one of this query"):
                shelf.find(asked | {"cursor": cursor}, scope)


def test_a_cursor_that_was_tampered_with_is_refused() -> None:
    """Each of its characters counts; so does each member (issue 5, bad input)."""
    with Shelf() as shelf:
        for count in range(2):
            shelf.put({"count": count})
        cursor = pages(shelf, {"order": "count", "limit": 1})[1]
    assert cursor is not None
    for at, character in enumerate(cursor):
        changed = cursor[:at] + ("A" if character != "A" else "B") + cursor[at + 1 :]
        refused({"order": "count", "cursor": changed}, "INVALID_CURSOR")
        refused({"order": "count", "cursor": cursor[:at]}, "INVALID_CURSOR")


def forged(**members: Any) -> str:
    """A cursor with a right sum, which anybody can make."""
    query = parse_query(BOOKS, {})
    made = {"orderColumn": "created_at", "orderValue": 5, "id": "x", **members}
    made["sum"] = fingerprint_of(
        query.fingerprint, made["orderColumn"], made["orderValue"], made["id"]
    )
    text = json.dumps(made, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def test_what_is_forged_well_is_a_place_in_ones_own_rows() -> None:
    """No more than a filter could say; what is no value of a column is refused."""
    after = parse_query(BOOKS, {"cursor": forged()}).after
    assert after is not None
    assert (after.value, after.row_id) == (5, "x")
    with Shelf() as shelf:
        kept = shelf.put({})["id"]
        assert shelf.ids(cursor=forged(orderValue="a'; DROP TABLE coll_1; --")) == []
        assert shelf.ids(cursor=forged(orderValue=-(2**63))) == [kept]
    for bad in (
        *({"orderValue": 2**63}, {"orderValue": -(2**63) - 1}, {"orderValue": [1]}),
        *({"orderValue": True}, {"orderValue": {"a": 1}}, {"id": 5}, {"more": 1}),
        {"orderColumn": "deleted_at"},
    ):
        refused({"cursor": forged(**bad)}, "INVALID_CURSOR")


@pytest.mark.parametrize(
    "cursor", ["", "x", "%%%", "e30", "bnVsbA", 5, True, [], {}, "é", "A" * 20_000, "=="]
)
def test_what_is_no_cursor_is_refused(cursor: Any) -> None:
    """Of whatever type and length."""
    assert refused({"cursor": cursor}, "INVALID_CURSOR")[0] == "$.cursor"


def test_cursor_and_offset_exclude_each_other() -> None:
    """E.5; an offset of null is none."""
    assert "leave offset out" in refused({"cursor": forged(), "offset": 0})[1]
    assert parse_query(BOOKS, {"cursor": forged(), "offset": None}).after is not None


def test_several_columns_are_paged_by_offset() -> None:
    """A cursor needs an order of one column (E.5)."""
    with Shelf() as shelf:
        kept = [shelf.put({"count": 1, "large": large})["id"] for large in range(3)]
        asked = {"order": ["count", "large desc"], "limit": 2}
        found, cursor, more = shelf.find(asked)
        assert ([row["id"] for row in found], cursor, more) == (kept[:0:-1], None, True)
        assert pages(shelf, asked | {"offset": 2}) == ([kept[0]], None)
    assert "order of one column" in refused(asked | {"cursor": forged()}, "INVALID_CURSOR")[1]


def test_a_text_too_long_for_a_cursor_is_said_so() -> None:
    """Rather than a list that ends early; an offset still goes on."""
    most = limits.COLLECTION_CURSOR_TEXT.value
    with Shelf() as shelf:
        kept = [shelf.put({"title": "ä" * (most // 2) + tail})["id"] for tail in ("", "b", "c")]
        asked = {"order": "title", "limit": 1}
        assert pages(shelf, asked)[1] is not None
        cursor = pages(shelf, asked)[1]
        with pytest.raises(Refused, match=r"title of row .* is longer than the 2000 bytes"):
            shelf.find(asked | {"cursor": cursor})
        assert pages(shelf, asked | {"offset": 1}) == ([kept[1]], None)
        assert pages(shelf, asked | {"offset": 2}) == ([kept[2]], None)


def test_a_page_of_large_rows_ends_early() -> None:
    """16 MiB; the cursor goes on, and each page has a row at least."""
    most = limits.COLLECTION_PAGE_BYTES.value
    text = "x" * limits.COLLECTION_TEXT_BYTES.value
    whole = most // len(text)
    with Shelf() as shelf:
        kept = [shelf.put({"title": text})["id"] for _ in range(whole + 1)]
        found, cursor, more = shelf.find({"limit": 1000})
        assert (len(found), more) == (whole - 1, True)
        assert [*(row["id"] for row in found), *pages(shelf, {"cursor": cursor})[0]] == kept


def test_an_order_sorts_no_whole_rows() -> None:
    """Ids and values of the order alone: a thousand rows of half a MiB are not moved for a page."""
    ordered: list[str] = []

    def note(*call: Any) -> None:
        if "ORDER BY" in call[2]:
            ordered.append(call[2])

    with Shelf() as shelf:
        kept = [shelf.put({"count": -count})["id"] for count in range(120)]
        event.listen(shelf.connection, "before_cursor_execute", note)
        found, cursor, more = shelf.find({"order": "count", "limit": 110})
        assert [row["id"] for row in found] == kept[:9:-1]
        assert [row["count"] for row in found] == list(range(-119, -9))
        assert (more, pages(shelf, {"order": "count", "cursor": cursor})[0]) == (True, kept[9::-1])
        assert len(ordered) == 2
        for statement in ordered:
            assert statement.split("FROM")[0].split() == ["SELECT", "coll_1.id"]


def test_both_planes_page_over_the_wire(tmp_path: Path) -> None:
    """The cursor in `?query=`, beside it, and in a body; of another user it is refused (E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("books", column("n", "integer"))
        for number in range(5):
            await desk.client("POST", "/books", {"n": number})
        await desk.client("POST", "/books", {"n": 9}, "u2")
        options = {"where": {"n": {"lt": 4}}, "order": "n desc", "limit": 3}
        got = await desk.client("GET", f"/books{asked(**options)}")
        assert ([row["n"] for row in got.data], got.body["has_more"]) == ([3, 2, 1], True)
        cursor = got.body["next_cursor"]
        got = await desk.client("POST", "/books/find", {**options, "cursor": cursor})
        assert got.body["data"][0]["n"] == 0
        assert (got.body["next_cursor"], got.body["has_more"]) == (None, False)
        got = await desk.client("GET", f"/books{asked(**options)}&cursor={cursor}")
        assert [row["n"] for row in got.data] == [0]
        got = await desk.client("POST", "/books/find", {**options, "cursor": cursor}, "u2")
        assert got.said == (400, "INVALID_CURSOR")
        got = await desk.admin("GET", f"/books/rows{asked(**options, cursor=cursor)}")
        assert got.said == (400, "INVALID_CURSOR")
        got = await desk.admin("GET", f"/books/rows{asked(**options)}")
        assert (len(got.data), got.body["total"]) == (3, 4)

    at_desk(tmp_path, work)


def test_bad_filters_over_the_wire(tmp_path: Path) -> None:
    """10,000 values, 50 levels, too deep for JSON, a column that is not there (issue 5)."""

    async def work(desk: Desk) -> None:
        await desk.make("books", column("n", "integer"))
        deep: dict[str, Any] = {"n": 1}
        for _ in range(50):
            deep = {"not": deep}
        deeper = {"and": [deep]}
        for _ in range(10):
            deeper = {"and": [deeper]}
        for filter_, code in (
            ({"n": {"in": list(range(10_000))}}, "INVALID_FILTER"),
            (deep, "INVALID_FILTER"),
            (deeper, "INVALID_JSON"),
            ({"nope": 1}, "INVALID_FILTER"),
            ({"n": "1"}, "INVALID_FILTER"),
        ):
            for plane, path in ((desk.client, "/books"), (desk.admin, "/books/rows")):
                got = await plane("POST", f"{path}/find", {"where": filter_})
                assert got.said == (400, code)
                changes = {"where": filter_, "set": {"n": 2}}
                assert (await plane("PATCH", path, changes)).said == (400, code)
                assert (await plane("DELETE", path, {"where": filter_})).said == (400, code)
        got = await desk.client("GET", f"/books{asked(where=deeper)}")
        assert got.said == (400, "INVALID_QUERY")

    at_desk(tmp_path, work)

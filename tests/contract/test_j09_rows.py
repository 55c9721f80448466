"""Check J.9: rows. Admin any user; client auto-scoped; soft delete; batches; both filter DSLs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.router.services.collections.desk import Desk, asked, at_desk, column


async def _posts(desk: Desk) -> None:
    await desk.make("posts", column("title"), column("likes", "integer"))


def test_contract_J_9_the_admin_plane_has_any_users_rows(tmp_path: Path) -> None:
    """Contract J.9, S1: read and insert any row, for any user."""

    async def work(desk: Desk) -> None:
        await _posts(desk)
        mine = (await desk.client("POST", "/posts", {"title": "mine"}, user="u1")).data
        theirs = await desk.insert("posts", title="theirs", user_id="u2")
        assert await desk.all("posts") == [mine, theirs]

    at_desk(tmp_path, work)


def test_contract_J_9_the_client_plane_is_scoped_by_itself(tmp_path: Path) -> None:
    """Contract J.9, E.5: `user_id` is the session's on every read and write."""

    async def work(desk: Desk) -> None:
        await _posts(desk)
        theirs = await desk.insert("posts", title="theirs", user_id="u2")
        mine = (await desk.client("POST", "/posts", {"title": "mine", "user_id": "u2"})).data
        assert mine["user_id"] == "u1"
        assert (await desk.client("GET", "/posts")).data == [mine]
        assert (await desk.client("GET", f"/posts/{theirs['id']}")).status == 404
        got = await desk.client("PATCH", f"/posts/{theirs['id']}", {"set": {"title": "stolen"}})
        assert got.status == 404
        assert (await desk.client("DELETE", f"/posts/{theirs['id']}")).status == 404
        assert await desk.all("posts") == [theirs, mine]

    at_desk(tmp_path, work)


def test_contract_J_9_a_deletion_is_soft(tmp_path: Path) -> None:
    """Contract J.9, E.5: `deleted_at` and `updated_at` are set; reads leave the row out."""

    async def work(desk: Desk) -> None:
        await _posts(desk)
        row = (await desk.client("POST", "/posts", {"title": "a"})).data
        desk.world.clock.jump(1)
        got = await desk.client("DELETE", f"/posts/{row['id']}")
        assert got.body == {"data": {"id": row["id"], "deleted": True}}
        assert (await desk.client("GET", "/posts")).data == []
        at = "2026-01-01T00:00:01.000Z"
        (kept,) = (await desk.client("GET", f"/posts{asked(includeDeleted=True)}")).data
        assert kept == {**row, "deleted_at": at, "updated_at": at}

    at_desk(tmp_path, work)


def test_contract_J_9_a_batch_is_atomic_and_has_500_rows(tmp_path: Path) -> None:
    """Contract J.9: 500 rows are written, 501 are not, nor 500 of which one is bad."""

    async def work(desk: Desk) -> None:
        await _posts(desk)
        rows: list[Any] = [{"title": str(n), "likes": n} for n in range(500)]
        got = await desk.admin("POST", "/posts/rows:batch", {"rows": [*rows, {"title": "501"}]})
        assert got.said == (413, "BATCH_TOO_LARGE")
        bad = [*rows[:-1], {"likes": "many"}]
        got = await desk.admin("POST", "/posts/rows:batch", {"rows": bad})
        assert got.said == (400, "INVALID_VALUE")
        assert got.details["row"] == 499
        assert (await desk.admin("GET", "/posts/rows/count")).data == {"count": 0}
        got = await desk.admin("POST", "/posts/rows:batch", {"rows": rows})
        assert (got.status, got.body["count"]) == (201, 500)

    at_desk(tmp_path, work)


def test_contract_J_9_both_languages_of_filters_are_read(tmp_path: Path) -> None:
    """Contract J.9, E.5: 0.1.x `where` and 4.x `filter` find the same rows."""

    async def work(desk: Desk) -> None:
        await _posts(desk)
        for likes in range(6):
            await desk.client("POST", "/posts", {"title": "aB"[likes % 2], "likes": likes})
        where: dict[str, Any] = {
            "title": {"ilike": "b"},
            "or": [{"likes": 1}, {"likes": {"gt": 3}}],
        }
        tree: dict[str, Any] = {
            "and": [
                {"column": "title", "op": "ilike", "value": "b"},
                {
                    "or": [
                        {"column": "likes", "op": "eq", "value": 1},
                        {"column": "likes", "op": "gt", "value": 3},
                    ]
                },
            ]
        }
        old = (await desk.client("GET", f"/posts{asked(where=where, order='likes desc')}")).data
        order = [{"column": "likes", "direction": "desc"}]
        new = (await desk.client("POST", "/posts/find", {"filter": tree, "order": order})).data
        assert old == new
        assert [row["likes"] for row in old] == [5, 1]

    at_desk(tmp_path, work)

"""Rows on the client plane: each user's own, whoever asks for them (contract E.5, H-9, H-15)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.router.services.collections.desk import Desk, asked, at_desk, column

from amba_router.api.operations import Asked
from amba_router.services.collections.building import EVERYONE, Scope
from amba_router.services.collections.row_routes import place_of
from amba_router.store.control_records import ProjectRecord
from amba_runtime.manifest import DeveloperId, ProjectId

NOT_FOUND = (404, "ROW_NOT_FOUND")


def test_the_wire_is_that_of_the_client_sdk(tmp_path: Path) -> None:
    """Every call of contract E.5's table of 0.1.x, with its answer."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"), column("n", "integer"))
        got = await desk.client("POST", "/posts", {"t": "a", "n": 1})
        assert got.status == 201
        row = got.data
        assert row["user_id"] == "u1"
        got = await desk.client("GET", "/posts")
        assert got.body == {"data": [row], "next_cursor": None, "has_more": False}
        assert (await desk.client("GET", f"/posts/{row['id']}")).body == {"data": row}
        where = asked(where={"t": "a"}, order="t desc", limit=1, select=["t"], includeDeleted=False)
        assert (await desk.client("GET", f"/posts{where}")).data == [{"t": "a"}]
        got = await desk.client("GET", f"/posts/count{asked(where={'n': {'gt': 1}})}")
        assert got.body == {"data": {"count": 0}}
        got = await desk.client("PATCH", f"/posts/{row['id']}", {"set": {"t": "b"}})
        assert got.data["t"] == "b"
        got = await desk.client("PATCH", "/posts", {"where": {"t": "b"}, "set": {"n": 2}})
        assert (got.data[0]["n"], got.body["count"]) == (2, 1)
        got = await desk.client("DELETE", f"/posts/{row['id']}")
        assert got.body == {"data": {"id": row["id"], "deleted": True}}
        assert (await desk.client("GET", f"/posts/{row['id']}")).said == NOT_FOUND
        await desk.client("POST", "/posts", {"t": "c"})
        got = await desk.client("DELETE", "/posts", {"where": {"t": "c"}})
        assert got.body == {"data": {"count": 1}}
        got = await desk.client("POST", "/posts/find", {"include_deleted": True})
        assert [row["t"] for row in got.data] == ["b", "c"]

    at_desk(tmp_path, work)


def test_nobody_is_told_to_sign_in(tmp_path: Path) -> None:
    """A client key without a session is 401, on every call (contract E.0, H-9)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"))
        for method, path, body in _calls("posts", "00000000-0000-4000-8000-000000000000"):
            got = await desk.client(method, path, body, user="")
            assert got.said == (401, "UNAUTHORIZED"), path
        assert await desk.all("posts", include_deleted=True) == []

    at_desk(tmp_path, work)


def _calls(name: str, id_: str) -> list[tuple[str, str, Any]]:
    everything: dict[str, Any] = {"where": {}}
    return [
        ("POST", f"/{name}", {"t": "x"}),
        ("GET", f"/{name}", None),
        ("POST", f"/{name}/find", {}),
        ("GET", f"/{name}/count", None),
        ("GET", f"/{name}/{id_}", None),
        ("PATCH", f"/{name}/{id_}", {"set": {"t": "stolen"}}),
        ("PATCH", f"/{name}", {**everything, "set": {"t": "stolen"}}),
        ("DELETE", f"/{name}/{id_}", None),
        ("DELETE", f"/{name}", everything),
    ]


def test_a_session_reaches_its_own_rows_alone(tmp_path: Path) -> None:
    """Another user's row is not found, not counted, not changed, whatever a filter says."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"))
        theirs = await desk.insert("posts", t="theirs", user_id="u2")
        nobodys = await desk.insert("posts", t="nobody's")
        tricks: list[Any] = [
            {},
            {"user_id": "u2"},
            {"or": [{"user_id": "u2"}, {"id": theirs["id"]}]},
            {"not": {"user_id": "u1"}},
            {"user_id": {"isNotNull": True}},
        ]
        for where in tricks:
            assert (await desk.client("GET", f"/posts{asked(where=where)}")).data == []
            assert (await desk.client("GET", f"/posts/count{asked(where=where)}")).data == {
                "count": 0
            }
            got = await desk.client("PATCH", "/posts", {"where": where, "set": {"t": "stolen"}})
            assert got.body == {"data": [], "count": 0}
            got = await desk.client("DELETE", "/posts", {"where": where})
            assert got.data == {"count": 0}
        for row in (theirs, nobodys):
            target = f"/posts/{row['id']}"
            assert (await desk.client("GET", target)).said == NOT_FOUND
            assert (await desk.client("PATCH", target, {"t": "stolen"})).said == NOT_FOUND
            assert (await desk.client("DELETE", target)).said == NOT_FOUND
        assert await desk.all("posts") == [theirs, nobodys]
        mine = (await desk.client("POST", "/posts", {"t": "mine"})).data
        assert (await desk.client("GET", "/posts")).data == [mine]

    at_desk(tmp_path, work)


def test_a_time_that_was_shown_finds_its_row_again(tmp_path: Path) -> None:
    """However close together rows were written: `gt` of the last one seen gives what is new."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"))
        rows = [(await desk.client("POST", "/posts", {"t": str(n)})).data for n in range(3)]
        for n, row in enumerate(rows):
            same = json.dumps({"where": {"created_at": row["created_at"]}})
            assert row in (await desk.client("GET", f"/posts?query={quote(same)}")).data
            later = json.dumps({"where": {"updated_at": {"gt": row["updated_at"]}}})
            got = (await desk.client("GET", f"/posts?query={quote(later)}")).data
            assert row not in got
            assert got == [one for one in rows[n + 1 :] if one["updated_at"] != row["updated_at"]]

    at_desk(tmp_path, work)


def test_a_session_cannot_give_a_row_away(tmp_path: Path) -> None:
    """A foreign `user_id`, and whatever else the server manages, is passed over (H-15; CL)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"))
        forged: dict[str, Any] = {
            "id": "00000000-0000-4000-8000-000000000000",
            "user_id": "u2",
            "created_at": 1,
            "updated_at": {},
            "deleted_at": "2020-01-01T00:00:00Z",
        }
        row = (await desk.client("POST", "/posts", {"t": "a", **forged})).data
        assert row["user_id"] == "u1"
        assert row["id"] != forged["id"]
        assert row["deleted_at"] is None
        got = await desk.client("PATCH", f"/posts/{row['id']}", {"set": {**forged, "t": "b"}})
        assert got.data == {**row, "t": "b", "updated_at": got.data["updated_at"]}
        assert got.data["updated_at"] > row["updated_at"].replace("Z", "")
        got = await desk.client("PATCH", "/posts", {"where": {}, "set": {**forged, "t": "c"}})
        assert got.data == [{**row, "t": "c", "updated_at": got.data[0]["updated_at"]}]

    at_desk(tmp_path, work)


def test_a_server_key_as_a_user_is_refused_a_foreign_row(tmp_path: Path) -> None:
    """403 AS_USER_MISMATCH on insert and change; its own name is no mismatch (H-9, H-15)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"))
        await desk.client("POST", "/posts", {"t": "a"})  # u1 is known from here on
        row = (await desk.as_user("POST", "/posts", {"t": "b", "user_id": "u1"})).data
        assert row["user_id"] == "u1"
        mismatch = (403, "AS_USER_MISMATCH")
        for foreign in ("u2", "", 7):
            body = {"t": "c", "user_id": foreign}
            assert (await desk.as_user("POST", "/posts", body)).said == mismatch
            got = await desk.as_user("PATCH", f"/posts/{row['id']}", {"set": body})
            assert got.said == mismatch
            got = await desk.as_user("PATCH", "/posts", {"where": {}, "set": body})
            assert got.said == mismatch
        theirs = await desk.insert("posts", t="theirs", user_id="u2")
        assert (await desk.as_user("GET", f"/posts/{theirs['id']}")).said == NOT_FOUND
        assert (await desk.as_user("DELETE", f"/posts/{theirs['id']}")).said == NOT_FOUND
        assert [one["t"] for one in (await desk.as_user("GET", "/posts")).data] == ["a", "b"]
        assert (await desk.as_user("DELETE", f"/posts/{row['id']}")).status == 200

    at_desk(tmp_path, work)


def test_a_server_key_that_names_no_user_is_nobody(tmp_path: Path) -> None:
    """Neither session nor user: 401, on this plane; the admin plane is its own (contract F)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"))
        assert (await desk.trusted("GET", "/posts")).said == (401, "UNAUTHORIZED")
        assert (await desk.trusted("POST", "/posts", {"t": "b"})).said == (401, "UNAUTHORIZED")

    at_desk(tmp_path, work)


def test_on_the_client_plane_nobody_is_everybody() -> None:
    """Whatever let a request in without a user: its scope is that of nobody, not of all rows."""
    project = ProjectRecord(
        ProjectId("p"), "p", "p", "all", "development", None, DeveloperId("d"), storage=True,
        created_ms=0,
    )  # fmt: skip
    visitor = Asked({"name": "posts"}, {}, None, project, None, None, lambda: None)
    assert place_of(visitor)[2] == Scope("", visitor.as_user)
    admin = replace(visitor, path={"project_id": "p", "name": "posts"})
    assert place_of(admin)[2] == EVERYONE


def test_a_public_collection_is_read_by_every_session(tmp_path: Path) -> None:
    """Written by the owner alone; what another one deleted stays unseen (contract E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"), read_policy="public")
        theirs = await desk.insert("posts", t="theirs", user_id="u2")
        gone = await desk.insert("posts", t="gone", user_id="u2")
        await desk.admin("DELETE", f"/posts/rows/{gone['id']}")
        mine = (await desk.client("POST", "/posts", {"t": "mine"})).data
        assert (await desk.client("GET", "/posts")).data == [theirs, mine]
        assert (await desk.client("GET", "/posts/count")).data == {"count": 2}
        assert (await desk.client("GET", f"/posts/{theirs['id']}")).data == theirs
        target = f"/posts/{theirs['id']}"
        assert (await desk.client("PATCH", target, {"t": "stolen"})).said == NOT_FOUND
        assert (await desk.client("DELETE", target)).said == NOT_FOUND
        got = await desk.client("PATCH", "/posts", {"where": {}, "set": {"t": "changed"}})
        assert [row["t"] for row in got.data] == ["changed"]
        assert (await desk.client("DELETE", "/posts", {"where": {}})).data == {"count": 1}
        with_deleted = asked(include_deleted=True)
        seen = (await desk.client("GET", f"/posts{with_deleted}")).data
        assert [row["t"] for row in seen] == ["theirs", "changed"]
        seen = (await desk.client("GET", f"/posts{with_deleted}", user="u2")).data
        assert [row["t"] for row in seen] == ["theirs", "gone"]

    at_desk(tmp_path, work)


def test_clients_delete_softly_alone(tmp_path: Path) -> None:
    """`?hard=true` is the admin plane's: a client's deletion marks (contract E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"))
        for method in ("one", "all"):
            row = (await desk.client("POST", "/posts", {"t": method})).data
            if method == "one":
                await desk.client("DELETE", f"/posts/{row['id']}?hard=true")
            else:
                await desk.client("DELETE", "/posts?hard=true", {"where": {}})
        kept = await desk.all("posts", include_deleted=True)
        assert [row["t"] for row in kept] == ["one", "all"]
        assert all(row["deleted_at"] for row in kept)

    at_desk(tmp_path, work)


def test_a_cursor_is_for_the_user_it_was_made_for(tmp_path: Path) -> None:
    """Another user's, another filter's, or a damaged one is INVALID_CURSOR (contract E.5)."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"))
        for user in ("u1", "u2"):
            for t in "abc":
                await desk.client("POST", "/posts", {"t": t}, user=user)
        page = (await desk.client("POST", "/posts/find", {"limit": 1})).body
        assert page["has_more"] is True
        cursor = page["next_cursor"]
        on = await desk.client("POST", "/posts/find", {"limit": 9, "cursor": cursor})
        assert [row["t"] for row in on.data] == ["b", "c"]
        bad = (400, "INVALID_CURSOR")
        body: dict[str, Any] = {"cursor": cursor}
        assert (await desk.client("POST", "/posts/find", body, user="u2")).said == bad
        body = {"cursor": cursor, "where": {"t": "a"}}
        assert (await desk.client("POST", "/posts/find", body)).said == bad
        body = {"cursor": f"{cursor[:-2]}AA"}
        assert (await desk.client("POST", "/posts/find", body)).said == bad

    at_desk(tmp_path, work)


def test_other_projects_are_not_there(tmp_path: Path) -> None:
    """Names and ids of another project give 404 in every position, and nothing is written."""

    async def work(desk: Desk) -> None:
        await desk.make("posts", column("t"))
        row = await desk.insert("posts", t="a", user_id="u1")
        other = Desk(desk.world, await desk.world.project("Other"))
        # the other project has neither the collection nor, with one of that name, the row
        own: Any = None
        for there in (False, True):
            if there:
                await other.make("posts", column("t"))
                own = await other.insert("posts", t="own", user_id="u9")
            for plane in (_calls("posts", row["id"]), _calls("posts/rows", row["id"])):
                ask = other.client if plane[0][1] == "/posts" else other.admin
                for method, path, body in plane:
                    got = await ask(method, path, body)
                    if there:
                        assert got.status in (200, 201) or got.said == NOT_FOUND
                        if row["id"] in path:
                            assert got.said == NOT_FOUND
                    else:
                        assert got.said == (404, "COLLECTION_NOT_FOUND"), path
            if not there:
                batch = await other.admin("POST", "/posts/rows:batch", [{"t": "x"}])
                assert batch.said == (404, "COLLECTION_NOT_FOUND")
                for method, path, body in (
                    ("GET", "/posts", None),
                    ("PATCH", "/posts", {"add_column": column("z", nullable=True)}),
                    ("DELETE", "/posts?confirm=posts", None),
                ):
                    got = await other.admin(method, path, body)
                    assert got.said == (404, "COLLECTION_NOT_FOUND")
        # what the other project's own calls did was done to its own rows
        kept = await other.all("posts", include_deleted=True)
        assert own["id"] in {one["id"] for one in kept}
        assert await desk.all("posts", include_deleted=True) == [row]
        assert (await desk.admin("GET", "/posts")).data["version"] == 1
        foreign = column("p", "uuid", nullable=True, references={"table": "elsewhere"})
        await desk.make("elsewhere")
        got = await other.admin("PATCH", "/posts", {"add_column": foreign})
        assert got.said == (400, "INVALID_SCHEMA")

    at_desk(tmp_path, work)

"""Contract J, check 13: bundles of the 0.1.x functions SDK run as they are.

The SDK cannot be installed: a guest has a wrapper of our own that asks what the SDK asks.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.contract.hosted import GUESTS, Shop, Told, ask, guest, make_shop
from tests.run.serving import Dev

pytestmark = pytest.mark.slow

NAME = "define-function"
COLUMNS = [
    {"name": "title", "type": "text", "nullable": True},
    {"name": "score", "type": "integer", "nullable": True},
    {"name": "tags", "type": "text[]", "nullable": True},
    {"name": "meta", "type": "jsonb", "nullable": True},
]


@pytest.fixture
def defined(shop: Shop) -> Shop:
    """A project with the bundle and its collection."""
    return with_bundle(shop)


def with_bundle(shop: Shop) -> Shop:
    assert shop.upload(NAME, guest(NAME), prefix="").status == 201
    assert shop.api("POST", "collections", {"name": "letters", "columns": COLUMNS}).status == 201
    return shop


def signed_in(shop: Shop) -> tuple[str, str]:
    """A new user's session, and its id."""
    key = shop.api("POST", "api-keys", {"key_type": "client", "environment": "development"})
    headers = {"X-Api-Key": key.data["key"], "Content-Type": "application/json"}
    made = ask(shop.node, "POST", "/v1/client/auth/anonymous", b"{}", headers).data
    return made["session_token"], made["user"]["id"]


def post(shop: Shop, path: str, body: object = None, token: str = "") -> Told:
    """A call of the function, by whoever has this token."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    target = f"/fn/{shop.slug}/{NAME}{path}"
    return ask(shop.node, "POST", target, json.dumps(body).encode(), headers)


def test_contract_J_13_the_edge_headers_hold(defined: Shop) -> None:
    """Who calls, by the names of this generation; what a caller sends of them does not count."""
    session, user_id = signed_in(defined)
    about = {"projectId": defined.id, "functionName": NAME}
    nobody = {"userId": None, "developerId": None, **about}
    assert post(defined, "/who").body == nobody
    assert post(defined, "/who", token=session).body == {**nobody, "userId": user_id}
    by_developer = post(defined, "/who", token=defined.node.pat).body
    assert by_developer["userId"] is None
    assert by_developer["developerId"]
    forged = defined.call(f"{NAME}/who", **{"X-Amba-User-Id": "u", "X-Amba-Edge-Signature": "00"})
    assert forged.body == nobody


def test_contract_J_13_a_whole_story(defined: Shop) -> None:
    """Rows by SQL, an event, an object with its URL, an email: no `/v1`, top-level replies."""
    session, user_id = signed_in(defined)
    told: dict[str, Any] = post(defined, "/story", token=session).body
    created = told.pop("created")
    assert (created["title"], created["score"], created["user_id"]) == ("Hello", 1, user_id)
    assert (created["tags"], created["meta"], created["deleted_at"]) == (["a"], {"n": 1}, None)
    upload, email = told.pop("upload"), told.pop("email")
    assert told == {
        "all": ["of another", "hello again", "Hello"],
        "mine": ["Hello", "hello again"],
        "page": ["hello again"],
        "like": ["hello again"],
        "ilike": ["Hello", "hello again"],
        "nested": ["Hello", "of another"],
        "in": 2,
        "notIn": 2,
        "updated": ["Changed"],
        "some": 2,
        "deleted": 1,
        "left": 2,
        "everything": 3,
        "presigned": "string",
    }
    # and all of it is there for everybody else
    rows = defined.api("GET", "collections/letters/rows").data
    assert sorted(row["title"] for row in rows) == ["hello again", "of another"]
    [event] = defined.api("GET", "events?event_name=story_told").data
    assert event["properties"] == {"left": 2}
    assert upload["url"].endswith("/avatars/me.txt")
    assert upload["id"]
    served = ask(defined.node, "GET", f"/cdn/{defined.slug}/avatars/me.txt", b"", {})
    assert (served.status, served.body) == (200, b"a picture")
    assert defined.api("GET", f"email/outbox/{email}").data["subject"] == "Told"


def test_contract_J_13_the_database_is_the_projects_own(defined: Shop) -> None:
    """Whatever SQL a function sends: another project's rows, and the platform's, are nowhere."""
    other = with_bundle(make_shop(defined.node, "Another"))
    insert = "INSERT INTO coll_letters (title) VALUES ($1) RETURNING id"
    [row] = post(other, "/sql", {"sql": insert, "params": ["theirs"]}).body
    mine = {"sql": "SELECT * FROM coll_letters WHERE id = $1", "params": [row["id"]]}
    assert post(defined, "/sql", mine).body == []
    for sql, said in {
        "SELECT * FROM sqlite_master": (404, "COLLECTION_NOT_FOUND"),
        "SELECT * FROM coll_1": (404, "COLLECTION_NOT_FOUND"),
        "SELECT load_extension('x') FROM coll_letters": (400, "UNSUPPORTED_SQL"),
        "DELETE FROM coll_letters; DELETE FROM projects": (400, "UNSUPPORTED_SQL"),
        "UPDATE coll_letters SET score = 'many'": (400, "INVALID_VALUE"),
    }.items():
        assert post(defined, "/sql", {"sql": sql}).said == said
    assert post(other, "/sql", {"sql": "SELECT title FROM coll_letters"}).body == [
        {"title": "theirs"}
    ]


def test_contract_J_13_it_runs_in_dev_as_well(tmp_path: Path) -> None:
    """The same bundle, served by `amba-run dev`; what it wrote is there after a restart."""
    folder = tmp_path / "functions"
    shutil.copytree(GUESTS / NAME, folder / NAME)
    body = json.dumps({"sql": "INSERT INTO coll_letters (title) VALUES ('kept') RETURNING title"})
    again = json.dumps({"sql": "SELECT title FROM coll_letters"})
    for statement in (body, again):
        with Dev(folder, "--no-watch", "--state", str(tmp_path / "s"), data_home=tmp_path) as dev:
            project = dev.ready["project"]["id"]
            path = f"/v1/admin/projects/{project}/collections"
            made = dev.api("POST", path, {"name": "letters", "columns": COLUMNS})
            assert made.status == (201 if statement == body else 409)
            with dev.connection() as connection:
                connection.request("POST", f"/fn/local/{NAME}/sql", statement)
                assert json.loads(connection.getresponse().read()) == [{"title": "kept"}]

"""A function that calls the platform, driven through the real dispatcher as a signed-in user, with
no network (issue 5, line 5)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.run.serving import Dev

pytestmark = pytest.mark.slow

REWARD = Path(__file__).parents[2] / "fixtures" / "reward"
LETTERS = {
    "name": "letters",
    "columns": [{"name": "title", "type": "text"}, {"name": "score", "type": "integer"}],
}


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """`amba-run dev` on the sample, with what it wants."""
    data = tmp_path_factory.mktemp("data")
    with Dev(REWARD / "index.ts", "--ephemeral", data_home=data) as dev:
        base = f"/v1/admin/projects/{dev.ready['project']['id']}"
        for path, body in (
            ("/collections", LETTERS),
            ("/currencies", {"code": "gems", "name": "Gems"}),
            ("/config", {"key": "reward", "value": 7, "value_type": "number"}),
        ):
            assert dev.api("POST", base + path, body).status == 201
        yield dev


@pytest.fixture(scope="module")
def signed_in(dev: Dev) -> dict[str, Any]:
    """The envelope of an anonymous sign-in."""
    got = dev.api("POST", "/v1/client/auth/anonymous", {}, x_api_key=dev.ready["keys"]["client"])
    assert got.status == 201
    data: dict[str, Any] = got.json["data"]
    return data


def test_without_a_user_it_refuses(dev: Dev) -> None:
    """The function itself asks who it is (A.6)."""
    assert dev.get("/fn/local/index/").status == 401


def test_everything_it_calls_answers(dev: Dev, signed_in: dict[str, Any]) -> None:
    """Config, rows, currency, events, STORAGE and AI, offline; all of it is there afterwards."""
    bearer = f"Bearer {signed_in['session_token']}"
    got = dev.get("/fn/local/index/?title=Dear%20Ann", authorization=bearer)
    assert got.status == 200, got.text
    told = got.json
    assert told["balance"] == 7
    assert told["summary"]
    base = f"/v1/admin/projects/{dev.ready['project']['id']}"
    user = signed_in["user"]["id"]
    rows = dev.api("GET", f"{base}/collections/letters/rows").json["data"]
    assert sorted(row["id"] for row in rows) == sorted(told["rows"])
    assert {(row["title"], row["user_id"]) for row in rows} == {
        ("Dear Ann", user),
        ("Dear Ann, again", user),
    }
    spent = dev.api("GET", f"{base}/currencies/transactions/{user}").json["data"]
    assert [(one["amount"], one["balance_after"]) for one in spent] == [(7, 7)]
    events = dev.api("GET", f"{base}/events").json["data"]
    assert [one["event_name"] for one in events] == ["letter_scanned"]
    stored = dev.get(f"/cdn/local/{told['stored']}")
    assert (stored.status, stored.text) == (200, "Dear Ann")
    own = dev.api(
        "GET",
        "/v1/client/collections/letters",
        x_api_key=dev.ready["keys"]["client"],
        authorization=bearer,
    )
    assert len(own.json["data"]) == 2


def test_what_a_node_alone_answers_says_so(dev: Dev) -> None:
    """Deploys, keys and secrets of a dev server are its folder's: 501 by name, never 404 (E.0)."""
    base = f"/v1/admin/projects/{dev.ready['project']['id']}"
    for path in ("", "/functions/deployments", "/secrets", "/internal-credentials"):
        got = dev.api("GET", base + path)
        assert (got.status, got.json["error"]["code"]) == (501, "NOT_EMULATED")
    assert dev.api("GET", "/v1/admin/projects").status == 501
    assert dev.api("POST", "/v1/auth/validate", {"api_key": "x"}).status == 501
    assert dev.api("GET", f"{base}/nothing").status == 404
    later = dev.api("GET", f"{base}/analytics")
    assert (later.status, later.json["error"]["code"]) == (501, "NOT_EMULATED")
    fan_out = dev.api("POST", f"{base}/fan-out/segment", {})
    assert (fan_out.status, fan_out.json["error"]["code"]) == (400, "INVALID_INPUT")
    for name, said in (
        ("index", (400, "HANDLER_MISSING")),
        ("nope", (404, "segment_or_function_not_found")),
    ):
        body = {"segment_id": "all", "invoke": {"function": name}}
        fan_out = dev.api("POST", f"{base}/fan-out/segment", body)
        assert (fan_out.status, fan_out.json["error"]["code"]) == said

"""Contract part F: every call of the Node SDK's table, made by Node against `amba-run dev`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.bench.npm import find_node
from tests.run.serving import Dev, function

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent / "node_sdk" / "script.mjs"
LETTERS = {
    "name": "letters",
    "columns": [{"name": "title", "type": "text"}, {"name": "score", "type": "integer"}],
}
PROMPT = {
    "name": "sum-up",
    "provider": "anthropic",
    "model": "claude-sonnet-4-5",
    "template": "Sum up: {{title}}",
    "client_invokable": True,
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script printed."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "hello.ts").write_text(function("'hello'"))
    with Dev(folder, "--ephemeral", data_home=tmp_path_factory.mktemp("data")) as dev:
        keys = dev.ready["keys"]
        base = f"/v1/admin/projects/{dev.ready['project']['id']}"
        for path, body in (("/collections", LETTERS), ("/ai/prompts", PROMPT)):
            made = dev.api("POST", base + path, body)
            assert made.status == 201, made.text
        done = subprocess.run(
            [find_node(), str(SCRIPT), dev.ready["origin"], keys["client"], keys["server"]],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result


def test_without_a_session_nothing_is_told(told: dict[str, Any]) -> None:
    """A client key alone, and a server key without a user, are 401 (H-9, S0)."""
    assert told["without_session"] == [401, "UNAUTHORIZED"]
    assert told["server_alone"] == [401, "UNAUTHORIZED"]


def test_rows(told: dict[str, Any]) -> None:
    """find, findOne, insert, update, delete, filters, order, select and cursors (F)."""
    assert told["inserted"]["title"] == "Dear Ann"
    assert told["inserted"]["user_id"] == told["user"]
    assert [row["score"] for row in told["found"]["data"]] == [3, 2]
    assert told["found"]["has_more"] is True
    assert [row["score"] for row in told["next"]["data"]] == [1]
    assert told["next"]["has_more"] is False
    assert set(told["found"]["data"][0]) == {"title", "score"}
    assert told["updated"]["score"] == 10
    assert told["gone"] is None


def test_a_session_that_ran_out_is_renewed(told: dict[str, Any]) -> None:
    """The SDK refreshes by itself (F: token refresh)."""
    assert told["after_refresh"] == 2


def test_events_storage_push_and_ai(told: dict[str, Any]) -> None:
    """track, presign, PUT, commit, register, messages.create (F)."""
    assert told["tracked"] == {"tracked": 1}
    assert told["put"] in (200, 201, 204)
    assert told["asset"]["mime_type"] == "text/plain"
    assert told["asset"]["size_bytes"] == 19
    assert told["asset"]["url"].startswith("http")
    assert told["push"]["token"] == "a-device-token"
    assert told["said"]["content"][0]["type"] == "text"
    assert told["said"]["usage"]["input_tokens"] > 0


def test_as_user(told: dict[str, Any]) -> None:
    """Reads are the user's, a foreign `user_id` is refused, an unknown user is none (F, H-15)."""
    assert told["as_user"] == [told["user"]] * 2
    assert told["as_user_insert"]["user_id"] == told["user"]
    assert told["as_user_mismatch"] == [403, "AS_USER_MISMATCH"]
    assert told["as_nobody"] == [404, "USER_NOT_FOUND"]
    assert told["middleware"] is True

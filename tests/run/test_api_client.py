"""What client commands say to a control plane, and how they take its answers."""

from __future__ import annotations

import json
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path

import pytest
from tests.run.stub import Stub

from amba_run.api_client import ApiClient, Part, encode_parts, find_api, pages
from amba_runtime import limits
from amba_runtime.errors import UserCode, UserError
from amba_runtime.secret import SecretText


def refusal(stub: Stub, status: int, raw: bytes) -> UserError:
    stub.answers.append((status, raw))
    with pytest.raises(UserError) as caught:
        stub.client.get("/v1/x")
    return caught.value


def test_a_call_carries_token_agent_and_query(stub: Stub) -> None:
    """Bearer token, our user agent; parameters that are None are left out (contract G.1)."""
    stub.answer({"data": 1})
    assert stub.client.get(stub.client.at("functions", "a b/c"), active=1, name=None) == {"data": 1}
    method, path, fields, _ = stub.asked[0]
    assert (method, path) == ("GET", "/v1/admin/projects/p-1/functions/a%20b%2Fc?active=1")
    assert fields["authorization"] == "Bearer amb_dpat_x"
    assert fields["user-agent"].startswith("amba-run/")


def test_a_json_body_is_posted(stub: Stub) -> None:
    """An object, with its content type; an empty one where there is nothing to say."""
    stub.answer({"data": {}}, 201)
    stub.answer({"data": {}})
    stub.client.post("/v1/x", {"name": "A"})
    stub.client.post("/v1/y")
    assert [json.loads(body) for *_, body in stub.asked] == [{"name": "A"}, {}]
    assert stub.asked[0][2]["content-type"] == "application/json"


def test_an_upload_is_what_a_multipart_parser_reads(stub: Stub) -> None:
    """Parts in order with name, file name, content type and their very bytes (contract D.2)."""
    stub.answer({"data": {}}, 201)
    code = bytes(range(256)) + b"\r\n--x\r\n"
    parts = [
        Part("script", "hello.js", "application/javascript+module", code),
        Part("metadata", "metadata.json", "application/json", b"{}"),
    ]
    stub.client.upload("/v1/up", parts)
    _, _, fields, body = stub.asked[0]
    head = f"Content-Type: {fields['content-type']}\r\n\r\n".encode()
    read = [*BytesParser(policy=HTTP).parsebytes(head + body).iter_parts()]
    assert [part.get_content_type() for part in read] == [p.content_type for p in parts]
    assert [part.get_filename() for part in read] == ["hello.js", "metadata.json"]
    assert b'name="script"' in body
    assert code in body
    assert encode_parts([], "b") == b"--b--\r\n"


def test_pages_are_read_to_the_end(stub: Stub) -> None:
    """A full page asks for the next; a short one is the last."""
    most = limits.API_PAGE.value
    stub.answer({"data": [{"n": n} for n in range(most)], "total": most + 1})
    stub.answer({"data": [{"n": most}], "total": most + 1})
    rows = pages(stub.client, "/v1/rows", active=1)
    assert [row["n"] for row in rows] == list(range(most + 1))
    assert [path for _, path, _, _ in stub.asked] == [
        f"/v1/rows?offset={offset}&limit={most}&active=1" for offset in (0, most)
    ]


def test_pages_have_an_end(stub: Stub) -> None:
    """A server that always has another full page is left at limits.API_ROWS."""
    page: dict[str, list[dict[str, int]]] = {"data": [{}] * limits.API_PAGE.value}
    most = limits.API_ROWS.value // limits.API_PAGE.value
    for _ in range(most + 1):
        stub.answer(page)
    assert len(pages(stub.client, "/v1/rows")) == limits.API_ROWS.value
    assert len(stub.answers) == 1


def test_a_refusal_is_told_with_its_code_and_details(stub: Stub) -> None:
    """The platform's code and message, a hint where we have one (contract E.0)."""
    error = refusal(
        stub,
        403,
        b'{"error":{"code":"WRONG_PROJECT","message":"no","request_id":"r","details":{"a":1}}}',
    )
    assert error.code is UserCode.API_REFUSED
    assert error.message == "GET /v1/x: WRONG_PROJECT: no"
    assert "own project" in error.hint
    assert error.details == {"status": 403, "code": "WRONG_PROJECT", "request_id": "r", "a": 1}
    rejected = refusal(stub, 400, b'{"error":{"code":"DEPLOY_REJECTED","message":"m"}}')
    assert rejected.code is UserCode.REJECTED


@pytest.mark.parametrize(
    ("status", "raw", "says"),
    [
        (200, b"<html>", "status 200 and no JSON"),
        (200, b"[]", "no JSON object"),
        (502, b"Bad Gateway", "status 502 and no JSON"),
        (500, b"{}", "status 500: no reason was given"),
        (500, b'{"error": "text"}', "no reason was given"),
    ],
)
def test_answers_that_are_not_the_platforms(stub: Stub, status: int, raw: bytes, says: str) -> None:
    """Another server at that address is an error that says so, never a crash."""
    assert says in refusal(stub, status, raw).message


def test_an_answer_without_a_body_is_empty(stub: Stub) -> None:
    """204 is tolerated (contract E.0)."""
    stub.answers.append((204, b""))
    assert stub.client.delete("/v1/x") == {}


def test_an_endless_answer_is_not_read(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than limits.API_ANSWER_BYTES."""
    small = limits.Limit(10, "bytes", "of a test", "this test")
    monkeypatch.setattr(limits, "API_ANSWER_BYTES", small)
    assert "more than we read" in refusal(stub, 200, b'{"data": "0123456789"}').message
    stub.answers.append((200, b'{"a": 123}'))
    assert stub.client.get("/v1/x") == {"a": 123}


@pytest.mark.parametrize("origin", ["http://127.0.0.1:1", "http://127.0.0.1:99999"])
def test_a_server_that_is_not_there(origin: str) -> None:
    """NO_SERVER, naming the address."""
    with pytest.raises(UserError) as caught:
        ApiClient(origin, SecretText("t")).get("/")
    assert caught.value.code is UserCode.NO_SERVER
    assert origin in caught.value.message


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No dev server, no environment."""
    for name in ("AMBA_API_URL", "AMBA_PAT", "AMBA_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("nowhere")
def test_options_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """--api, --token, --project; else AMBA_API_URL, AMBA_PAT, AMBA_PROJECT_ID (interface.md 2)."""
    monkeypatch.setenv("AMBA_API_URL", "http://env:1/")
    monkeypatch.setenv("AMBA_PAT", "env-token")
    monkeypatch.setenv("AMBA_PROJECT_ID", "env-project")
    found = find_api(api=None, token=None, project=None)
    assert found == ApiClient("http://env:1", SecretText("env-token"), "env-project")
    found = find_api(api="http://o:2/v1/", token="t", project="p")
    assert found == ApiClient("http://o:2", SecretText("t"), "p")


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(
    ("api", "token", "code", "hint"),
    [
        (None, None, UserCode.NO_SERVER, "--api"),
        ("ftp://x", "t", UserCode.NO_SERVER, "http://"),
        ("127.0.0.1:8788", "t", UserCode.NO_SERVER, "http://"),
        ("http://x", None, UserCode.NO_TOKEN, "AMBA_PAT"),
        ("http://x", "t", UserCode.NO_PROJECT, "AMBA_PROJECT_ID"),
    ],
)
def test_what_is_missing_is_named(
    api: str | None, token: str | None, code: UserCode, hint: str
) -> None:
    """Server, token, project: each with the option and variable that gives it."""
    with pytest.raises(UserError) as caught:
        find_api(api=api, token=token, project=None)
    assert caught.value.code is code
    assert hint in caught.value.hint


@pytest.mark.usefixtures("nowhere")
def test_a_command_may_need_no_project() -> None:
    """`projects list` asks about none."""
    assert find_api(api="http://x", token="t", project=None, need_project=False).project == ""

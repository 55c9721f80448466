"""The error envelope: what both readings of the platform's errors want, in one body."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from amba_router.asgi import Message
from amba_router.problem import BAD_HOST, MISDIRECTED, PAYLOAD_TOO_LARGE, Problem, not_found


def answered(problem: Problem, *, head: bool = False) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: Message) -> None:
        sent.append(dict(message))

    asyncio.run(problem.answer(send, "req-1", head=head))
    return sent


def test_the_envelope() -> None:
    """`code, message, details, kind, status, request_id`, whichever reader comes (A.7)."""
    problem = Problem(429, "rate_limited", "rate_limit", "slow down", {"max": 3}, retry_after_s=7)
    start, body = answered(problem)
    assert start["status"] == 429
    fields = dict(start["headers"])
    assert fields[b"content-type"] == b"application/json"
    assert fields[b"content-length"] == b"%d" % len(body["body"])
    assert fields[b"retry-after"] == b"7"
    assert fields[b"cache-control"] == b"no-store"
    assert json.loads(body["body"]) == {
        "error": {
            "kind": "rate_limit",
            "code": "rate_limited",
            "status": 429,
            "message": "slow down",
            "request_id": "req-1",
            "details": {"max": 3},
        }
    }


def test_head_has_the_same_head_and_no_body() -> None:
    """HEAD is told the length it would have got (RFC 9110 9.3.2)."""
    whole, none = answered(BAD_HOST), answered(BAD_HOST, head=True)
    assert none[0] == whole[0]
    assert none[1]["body"] == b""


def test_absent_members() -> None:
    """Details are left out when empty; a request without an id says null."""
    problem = Problem(405, "METHOD", "invalid_request", "no", allow="GET, HEAD")
    error = json.loads(problem.body(None))["error"]
    assert "details" not in error
    assert error["request_id"] is None
    assert (b"allow", b"GET, HEAD") in problem.headers(3)
    assert b"retry-after" not in dict(problem.headers(3))


def test_what_cannot_be_text_is_escaped() -> None:
    """A lone surrogate or a control character in a message is still a valid body."""
    problem = not_found("function", "\ud800\0", "no function is called '\ud800\0é'")
    error = json.loads(problem.body("r"))["error"]
    assert error["message"] == "no function is called '?\0é'"


@pytest.mark.parametrize(
    ("problem", "status", "code", "kind"),
    [
        (BAD_HOST, 400, "BAD_HOST", "invalid_request"),
        (MISDIRECTED, 421, "MISDIRECTED", "invalid_request"),
        (PAYLOAD_TOO_LARGE, 413, "PAYLOAD_TOO_LARGE", "invalid_request"),
        (not_found("function", "f", "m"), 404, "FUNCTION_NOT_FOUND", "not_found"),
        (not_found("project", "p", "m"), 404, "PROJECT_NOT_FOUND", "not_found"),
    ],
)
def test_the_codes(problem: Problem, status: int, code: str, kind: str) -> None:
    """Codes are as printed in contract A.7 and interface.md 1."""
    assert (problem.status, problem.code, problem.kind) == (status, code, kind)


def test_a_bare_one_tells_nothing() -> None:
    """A host that is not ours may be another site's name for this machine (C1): no body."""
    assert MISDIRECTED.body("r") == b""
    assert dict(MISDIRECTED.headers(0)) == {b"content-length": b"0", b"cache-control": b"no-store"}


def test_not_found_names_what() -> None:
    """404 carries resource and id (A.7)."""
    details = json.loads(not_found("function", "nope", "m").body("r"))["error"]["details"]
    assert details == {"resource": "function", "id": "nope"}

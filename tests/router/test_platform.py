"""What answers on the bare host."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from amba_router.asgi import Message
from amba_router.platform import PLANES, Platform


def asked(path: str, *, method: str = "GET", ready: bool = True) -> tuple[int, bytes, Any]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("nothing of a body is wanted")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "amba.request_id": "req-1"}
    asyncio.run(Platform(ready=lambda: ready)(scope, receive, send))
    start, body = sent
    assert dict(start["headers"])[b"cache-control"] == b"no-store"
    raw: bytes = body["body"]
    return start["status"], raw, json.loads(raw) if raw else None


@pytest.mark.parametrize("path", ["/healthz", "/health"])
def test_health(path: str) -> None:
    """The process is well, also before it serves (interface.md 1)."""
    assert asked(path, ready=False)[::2] == (200, {"status": "ok"})


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
def test_readiness(ready: bool, status: int) -> None:
    """Ready only when requests can be served (interface.md 1)."""
    assert asked("/readyz", ready=ready)[::2] == (status, {"ready": ready})


@pytest.mark.parametrize("plane", sorted(PLANES))
def test_planes_that_are_not_here_say_so(plane: str) -> None:
    """An API of a later issue is an honest 501 by name, never a silent stub (E.0)."""
    status, _, body = asked(f"/{plane}/projects/p/config", method="POST")
    assert status == 501
    error = body["error"]
    assert (error["code"], error["kind"], error["request_id"]) == (
        "NOT_EMULATED",
        "not_emulated",
        "req-1",
    )
    assert error["message"] == f"POST /{plane}/projects/p/config is not emulated yet"
    assert error["details"] == {"feature": f"/{plane}/projects/p/config"}


def test_a_doubled_leading_slash_is_the_same_plane() -> None:
    """The real command line joins a trailing slash and a path (contract G.1)."""
    assert asked("//v1/admin/projects")[0] == 501


@pytest.mark.parametrize("path", ["/", "/fn", "/cdn", "/V1/x", "/v1x", "/healthz/", "/x\0y"])
def test_anything_else_is_404(path: str) -> None:
    """Nothing else answers on the bare host."""
    status, _, body = asked(path)
    assert (status, body["error"]["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/x", "/x"])
def test_head(path: str) -> None:
    """HEAD gives the status alone."""
    assert asked(path, method="HEAD")[:2] == (asked(path)[0], b"")


def test_a_long_path_is_cut_in_the_message() -> None:
    """An answer does not grow with the question."""
    assert len(asked("/v1/" + "a" * 10_000)[1]) < 1000

"""What answers on the bare host."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from amba_router.asgi import App, Message, Receive, Scope, Send
from amba_router.platform import PLANES, Platform


async def control(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands for the control plane: says which path it was given."""
    headers = [(b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 299, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(scope["path"]).encode()})


def asked(
    path: str, *, method: str = "GET", ready: bool = True, app: App | None = None
) -> tuple[int, bytes, Any]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("nothing of a body is wanted")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "amba.request_id": "req-1"}
    asyncio.run(Platform(ready=lambda: ready, api=app)(scope, receive, send))
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


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/admin/projects", "/admin/projects", "//v1/admin/projects", "/v1/nope", "/v1"),
        *("/client/events", "/auth/validate", "/openapi.json", "/v1/openapi.json"),
    ],
)
def test_the_control_plane_answers_for_its_planes(path: str) -> None:
    """With and without `/v1` (E.0, H-6); what it gets is what was asked."""
    assert asked(path, app=control)[::2] == (299, path)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/healthz", 200), ("/health", 200), ("/readyz", 200), ("/webhooks/x", 501)],
)
def test_and_for_nothing_else(path: str, status: int) -> None:
    """Health stays ours, webhooks stay an honest 501 (interface 1)."""
    assert asked(path, app=control)[0] == status


def test_without_one_there_is_no_document() -> None:
    """404, not a promise: `openapi.json` is the control plane's alone."""
    assert asked("/openapi.json")[0] == 404

"""The app around the operations: paths, methods, bodies, answers that are never undocumented."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.router.control.world import World, pieces

from amba_router.api import app as module
from amba_router.api.faults import SECRET_NOT_FOUND
from amba_router.api.operations import Answer
from amba_router.asgi import Scope
from amba_runtime import limits
from amba_runtime.errors import InternalCode, InternalError, UserCode, UserError

PROJECTS = "/v1/admin/projects"


def asked(tmp_path: Path, method: str, target: str, body: bytes = b"", **more: Any) -> Any:
    """One request to an empty node."""

    async def main() -> Any:
        async with World(tmp_path) as world:
            return await world.ask(method, target, body, **more)

    return asyncio.run(main())


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/admin/projects", "/admin/projects", "//v1/admin/projects", "///admin/projects"),
        *("/v1/admin/%70rojects", "/v1/admin/projects?x=1&x=2"),
    ],
)
def test_paths_that_are_one(tmp_path: Path, path: str) -> None:
    """With and without `/v1`, leading slashes collapsed, percent-encoded (E.0, G.1, H-6)."""
    assert asked(tmp_path, "GET", path).status == 200


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/admin", "/v1", "/v1/", "/v1/v1/admin/projects", "/v2/admin/projects"),
        *("/v1/admin/projects/", "/v1/admin//projects", "/v1/admin/projects/p/", "/admin/nope"),
        *("/v1/admin/projects/p/nope", "/v1/Admin/projects", "/v1/client", "/v1/client/nope"),
        *("/v1/admin/projects/%ff", "/v1/admin/projects%2fp", "/auth/nope", "/" + "a/" * 40),
        *("/v1/admin/projects/p/functions/schedules/1/2", "/v1/admin/projects/p/functions"),
    ],
)
def test_paths_of_nobodys(tmp_path: Path, path: str) -> None:
    """404 NOT_FOUND for any other path, whoever asks (E.0)."""
    for token in (None, "unknown"):
        got = asked(tmp_path / str(token), "GET", path, token=token)
        assert got.said == (404, "NOT_FOUND")
        assert got.body["error"]["request_id"] == "req-1"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", PROJECTS, "GET, HEAD, OPTIONS, POST"),
        ("TRACE", PROJECTS, "GET, HEAD, OPTIONS, POST"),
        ("get", PROJECTS, "GET, HEAD, OPTIONS, POST"),
        ("POST", f"{PROJECTS}/p", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("GET", f"{PROJECTS}/p/functions/deploy", "DELETE, OPTIONS, POST"),
        ("HEAD", f"{PROJECTS}/p/functions/deploy", "DELETE, OPTIONS, POST"),
        ("POST", "/openapi.json", "GET, HEAD, OPTIONS"),
    ],
)
def test_methods_that_are_not_there(tmp_path: Path, method: str, path: str, allow: str) -> None:
    """405, and `Allow` names those that are (RFC 9110 15.5.6)."""
    got = asked(tmp_path, method, path)
    assert got.status == 405
    assert got.headers["allow"] == allow
    assert method == "HEAD" or got.code == "METHOD_NOT_ALLOWED"


def test_head_and_options(tmp_path: Path) -> None:
    """HEAD is GET without a body; OPTIONS says the methods; no CORS on the admin plane (A.8)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            whole = await world.get(PROJECTS)
            head = await world.ask("HEAD", PROJECTS)
            assert (head.status, head.raw) == (200, b"")
            assert head.headers == whole.headers
            refused = await world.ask("HEAD", f"{PROJECTS}/nope")
            assert (refused.status, refused.raw) == (404, b"")
            assert int(refused.headers["content-length"]) > 0
            cors = [("access-control-request-method", "POST"), ("origin", "http://x")]
            options = await world.ask("OPTIONS", PROJECTS, token=None, headers=cors)
            assert (options.status, options.raw) == (204, b"")
            assert options.headers == {
                "cache-control": "no-store",
                "allow": "GET, HEAD, OPTIONS, POST",
            }
            assert not [name for name in whole.headers if name.startswith("access-control")]
            later = await world.ask("OPTIONS", f"{PROJECTS}/p/collections", headers=cors)
            assert not [name for name in later.headers if name.startswith("access-control")]

    asyncio.run(main())


def test_preflights_of_the_client_plane(tmp_path: Path) -> None:
    """Browsers call it directly: they may send what A.8 names, and read what they are told."""

    async def main() -> None:
        async with World(tmp_path) as world:
            cors = [("Access-Control-Request-Method", "POST"), ("Origin", "http://x")]
            got = await world.ask("OPTIONS", "/v1/client/leagues", token=None, headers=cors)
            assert got.status == 204
            assert got.headers["access-control-allow-origin"] == "*"
            allowed = got.headers["access-control-allow-headers"]
            assert allowed == (
                "X-Api-Key, Authorization, Content-Type, If-None-Match, X-Amba-Timezone, Time-Zone"
            )
            refused = await world.post("/v1/client/leagues", {}, token=None)
            assert refused.said == (401, "UNAUTHORIZED")
            assert refused.headers["access-control-allow-origin"] == "*"
            assert refused.headers["access-control-expose-headers"] == "ETag"
            nowhere = await world.ask("OPTIONS", "/v1/client/nope", token=None, headers=cors)
            assert nowhere.said == (404, "NOT_FOUND")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/auth/developer/signup"),
        ("GET", "/v1/auth/developer/login"),
        ("GET", f"{PROJECTS}/{{p}}/streaks/daily"),
        ("POST", f"{PROJECTS}/{{p}}/analytics/export"),
        ("PATCH", f"{PROJECTS}/{{p}}/push/campaigns"),
        ("GET", f"{PROJECTS}/{{p}}/service-accounts"),
    ],
)
def test_what_is_not_here_says_so(tmp_path: Path, method: str, path: str) -> None:
    """501 NOT_EMULATED by name, any method, after authentication (E.0)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            here = path.replace("{p}", (await world.project())["id"])
            got = await world.ask(method, here, b"not even json")
            assert got.said == (501, "NOT_EMULATED")
            feature = here.removeprefix("/v1")
            assert got.details == {"feature": feature}
            assert got.body["error"]["message"] == (
                f"{method} {feature} is not emulated in this release"
            )

    asyncio.run(main())


@pytest.mark.parametrize(
    ("type_", "headers", "body", "said"),
    [
        (None, [], b'{"name": "A"}', (201, "")),
        ("application/json; charset=UTF-8", [], b'{"name": "A"}', (201, "")),
        ("Application/JSON", [], b'{"name": "A", "name": "B"}', (201, "")),
        ("application/json", [("content-encoding", "identity")], b'{"name": "A"}', (201, "")),
        ("text/plain", [], b'{"name": "A"}', (415, "UNSUPPORTED_MEDIA_TYPE")),
        ("application/json; charset=utf-16", [], b"{}", (415, "UNSUPPORTED_MEDIA_TYPE")),
        ("application/xml", [], b"{}", (415, "UNSUPPORTED_MEDIA_TYPE")),
        ("application/json", [("content-encoding", "br")], b"", (415, "UNSUPPORTED_MEDIA_TYPE")),
        ("application/json", [], b"", (400, "INVALID_JSON")),
        ("application/json", [], b"{", (400, "INVALID_JSON")),
        ("application/json", [], b"[" * 3000, (400, "INVALID_JSON")),
        ("application/json", [], b'{"name": "\xff"}', (400, "INVALID_JSON")),
        ("application/json", [], b'{"name": 1}', (400, "INVALID_INPUT")),
    ],
)
def test_json_bodies(
    tmp_path: Path,
    type_: str | None,
    headers: list[tuple[str, str]],
    body: bytes,
    said: tuple[int, str],
) -> None:
    """JSON in UTF-8, at most so deep; what is wrong is said."""
    got = asked(tmp_path, "POST", PROJECTS, body, type_=type_, headers=headers)
    assert (got.status, got.code if got.status >= 400 else "") == said


def test_a_json_body_has_its_size(tmp_path: Path) -> None:
    """1 MiB, packed or unpacked; one byte more is 413."""
    most = limits.CONTROL_JSON_BYTES.value

    async def main() -> None:
        async with World(tmp_path) as world:
            fits = b'{"name": "A"}'.ljust(most)
            too_long = pieces(fits + b" ")
            assert (await world.ask("POST", PROJECTS, fits)).status == 201
            assert (await world.ask("POST", PROJECTS, too_long)).said == (413, "PAYLOAD_TOO_LARGE")
            packed = gzip.compress(fits)
            headers = [("content-encoding", "gzip")]
            got = await world.ask("POST", PROJECTS, packed, headers=headers)
            assert got.status == 201
            bomb = gzip.compress(fits + b" " * most)
            got = await world.ask("POST", PROJECTS, bomb, headers=headers)
            assert got.said == (413, "PAYLOAD_TOO_LARGE")

    asyncio.run(main())


def test_a_body_that_nobody_wants_is_not_read(tmp_path: Path) -> None:
    """GET, DELETE and POST without a request model answer without it."""

    async def main() -> None:
        async with World(tmp_path) as world:
            assert (await world.ask("GET", PROJECTS, [])).status == 200
            assert (await world.ask("POST", "/v1/auth/developer/pats", [])).status == 201

    asyncio.run(main())


def test_who_is_not_allowed_is_told_before_anything_is_read(tmp_path: Path) -> None:
    """No byte of a body is read for nobody (T13)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            got = await world.ask("POST", f"{PROJECTS}/p/functions/deploy", [], token=None)
            assert got.said == (401, "UNAUTHORIZED")

    asyncio.run(main())


def test_a_websocket_is_not_found(tmp_path: Path) -> None:
    """The API has none: the opening is refused with an ordinary 404."""

    async def main() -> None:
        async with World(tmp_path) as world:
            sent: list[Any] = []

            async def send(message: Any) -> None:
                sent.append(message)

            async def receive() -> Any:
                raise AssertionError

            scope: Scope = {"type": "websocket", "path": PROJECTS, "headers": []}
            await world.app(scope, receive, send)
            assert sent[0]["status"] == 404

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "said", "retry"),
    [
        (UserError(UserCode.DISK_FULL, "/var/x", hint="h"), (507, "DISK_FULL"), None),
        (UserError(UserCode.STATE_READ_ONLY, "/var/x"), (503, "STATE_READ_ONLY"), "1"),
        (UserError(UserCode.CONFLICT, "gone", details={"a": 1}), (409, "CONFLICT"), None),
        (UserError(UserCode.STATE_DAMAGED, "/var/x"), (500, "INTERNAL"), None),
        (InternalError(InternalCode.INVARIANT, "/var/x"), (500, "INTERNAL"), None),
        (ValueError("/var/x"), (500, "INTERNAL"), None),
        (SECRET_NOT_FOUND.refuse("/var/x"), (500, "INTERNAL"), None),
    ],
)
def test_what_the_store_says(
    tmp_path: Path, monkeypatch: Any, caplog: Any, error: Exception, said: Any, retry: str | None
) -> None:
    """One table; never a path of this machine; the log has it with the request id (A.7, D9)."""

    async def main() -> None:
        async with World(tmp_path) as world:

            async def fail(_: object) -> Any:
                raise error

            monkeypatch.setattr(world.store, "create_project", fail)
            got = await world.post(PROJECTS, {"name": "A"})
            assert got.said == said
            assert got.headers.get("retry-after") == retry
            assert b"/var/x" not in got.raw
            assert got.body["error"]["request_id"] == "req-1"
            # and the next one is answered
            assert (await world.get(PROJECTS)).status == 200

    asyncio.run(main())
    if said[0] >= 500:
        assert "req-1" in caplog.text


def test_an_answer_that_is_not_in_the_document_never_leaves(
    tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    """Whatever a handler gives, the caller sees what its operation names."""

    async def main() -> None:
        async with World(tmp_path) as world:
            from amba_router.control.models import Deleted, DeletedAnswer

            table, _, _ = world.app._table()  # pyright: ignore[reportPrivateUsage]
            operation = next(one for one in table.operations if one.id == "listProjects")
            for status in (200, 299):

                async def odd(_: object, status: int = status) -> Answer:
                    return Answer(status, DeletedAnswer(Deleted("x", deleted=True)))

                object.__setattr__(operation, "handler", odd)
                assert (await world.get(PROJECTS)).said == (500, "INTERNAL")

    asyncio.run(main())
    assert "listProjects gave 299 DeletedAnswer" in caplog.text


def test_logs(tmp_path: Path) -> None:
    """`{events, truncated, since, until}`; defaults of an hour and 100; limits 1 to 1000 (D.5)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            await world.deploy(id_)
            path = f"{PROJECTS}/{id_}/functions/hello/logs"
            events = [{"ScriptName": "hello-v1", "EventTimestampMs": n} for n in (2, 1)]
            world.logs.stored = events
            now_ms = int(world.clock.time_s() * 1000)
            assert (await world.get(path)).data == {
                "events": events,
                "truncated": True,
                "since": "2025-12-31T23:00:00.000Z",
                "until": "2026-01-01T00:00:00.001Z",
            }
            assert world.logs.asked.pop() == {
                "name": "hello",
                "since_ms": now_ms - 3_600_000,
                "until_ms": now_ms + 1,
                "limit": 100,
                "request_id": None,
            }
            for text, ms in (
                ("2026-01-01T00:00:00Z", now_ms),
                ("2026-01-01T01:00:00.5%2B01:00", now_ms + 500),
                ("2026-01-01T01:00:00+01:00", now_ms),
                ("2026-01-01", now_ms),
                ("2026-01-01T00:00:00", now_ms),
                (str(now_ms), now_ms),
            ):
                got = await world.get(f"{path}?since={text}&until={text}&limit=1000&request_id=r")
                assert got.status == 200
                last = world.logs.asked.pop()
                assert (last["since_ms"], last["until_ms"]) == (ms, ms)
                assert (last["limit"], last["request_id"]) == (1000, "r")
            for bad in ("x", "", "2026-13-01", "now", "1h", "9" * 19, "99999-01-01", "%C3%A9"):
                assert (await world.get(f"{path}?since={bad}")).said == (400, "INVALID_SINCE")
                assert (await world.get(f"{path}?until={bad}")).said == (400, "INVALID_UNTIL")
            for bad in ("0", "1001", "x", "", "-1", "1.0", "%00"):
                assert (await world.get(f"{path}?limit={bad}")).status == 400
            never = f"{PROJECTS}/{id_}/functions/never/logs"
            assert (await world.get(never)).said == (404, "FUNCTION_NOT_FOUND")

    asyncio.run(main())


def test_the_list_of_deployments(tmp_path: Path) -> None:
    """`{data, total, offset, limit}`, active ones alone with `active=1`, one function's (D.4)."""

    async def main() -> None:
        async with World(tmp_path) as world:
            id_ = (await world.project())["id"]
            for name in ("a", "b", "a"):
                await world.deploy(id_, name)
            path = f"{PROJECTS}/{id_}/functions/deployments"

            async def listed(query: str) -> list[str]:
                return [row["cf_script_name"] for row in (await world.get(path + query)).data]

            assert await listed("") == ["a-v2", "b-v1", "a-v1"]
            assert await listed("?active=1") == ["a-v2", "b-v1"]
            assert await listed("?active=true&name=a") == ["a-v2"]
            assert await listed("?active=0&limit=1&offset=1") == ["b-v1"]
            assert await listed("?name=never") == []
            body = (await world.get(f"{path}?name=a&limit=1")).body
            assert (body["total"], body["offset"], body["limit"]) == (2, 0, 1)
            assert (await world.get(f"{path}?active=yes")).said == (400, "INVALID_INPUT")

    asyncio.run(main())


def test_every_code_is_documented() -> None:
    """router/README.md has a row for each refusal of the control plane."""
    from amba_router.api.faults import FAULTS

    text = (Path(__file__).parents[3] / "router/README.md").read_text()
    rows = {code for line in text.splitlines() for code in re.findall(r"`([A-Za-z_]+)`", line)}
    assert [fault.code for fault in FAULTS if fault.code not in rows] == []
    assert len({fault.code for fault in FAULTS}) == len(FAULTS)


def test_nothing_heavy_is_loaded_before_the_first_request(tmp_path: Path) -> None:
    """msgspec and multipart come with the first request, not with a start (house rule)."""
    import subprocess
    import sys

    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, json, amba_router.platform, amba_router.api.app;"
            "print(json.dumps([m for m in ('msgspec', 'python_multipart', 'sqlalchemy') "
            "if m in sys.modules]))",
        ],
        capture_output=True,
        check=True,
    )
    assert json.loads(said.stdout) == []
    assert module.Api is not None

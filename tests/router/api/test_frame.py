"""What the frame gives handlers, and what it makes of their answers: users, streams, no body."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from tests.router.control.world import Got, World

from amba_router.api.app import Api
from amba_router.api.operations import Answer, Asked, Auth, Operation, Plain, Reads


class Told(Struct):
    """What the handler was given."""

    user_id: str
    as_user: bool
    project_id: str
    body: dict[str, Any] | None
    agent: str


class Users:
    """Knows `u_1`; remembers whom it made."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []

    async def admit(self, project_id: str, user_id: str, *, make: bool) -> bool:
        if make:
            self.made.append((project_id, user_id))
        return make or user_id == "u_1"


async def _tell(asked: Asked) -> Answer:
    project_id = asked.project.id if asked.project is not None else ""
    agent = asked.header(b"user-agent")
    return Answer(200, Told(asked.user_id, asked.as_user, project_id, asked.body, agent))


async def _pieces() -> AsyncIterator[bytes]:
    for piece in (b"one ", b"two ", b"three"):
        yield piece


async def _stream(_: Asked) -> Answer:
    return Answer(200, Plain(b"text/event-stream", _pieces()), ((b"x-left", b"4"),))


async def _cached(_: Asked) -> Answer:
    return Answer(200, Plain(b"text/plain", b"here"), ((b"cache-control", b"private"),))


async def _same(_: Asked) -> Answer:
    return Answer(304, None, ((b"etag", b'"1"'),))


async def _created(_: Asked) -> Answer:
    return Answer(201, None)


def _operations() -> Iterable[Operation]:
    told: dict[int, Any] = {200: Told}
    yield Operation("session", "POST", "/client/told", Auth.SESSION, "", _tell, told,
                    reads=Reads.MAYBE_JSON, request=dict[str, Any])  # fmt: skip
    yield Operation("visitor", "GET", "/client/visit", Auth.CLIENT, "", _tell, told)
    yield Operation("function", "GET", "/ai/told", Auth.FUNCTION, "", _tell, told)
    yield Operation("stream", "GET", "/client/stream", Auth.NOBODY, "", _stream, {200: None})
    yield Operation("cached", "GET", "/client/cached", Auth.NOBODY, "", _cached, {200: None})
    yield Operation("same", "GET", "/client/same", Auth.NOBODY, "", _same, {304: None})
    yield Operation("wrong", "GET", "/client/wrong", Auth.NOBODY, "", _created, {200: None})
    yield Operation("small", "POST", "/client/small", Auth.NOBODY, "", _tell, told,
                    reads=Reads.JSON, request=dict[str, Any], bytes_max=10)  # fmt: skip


class Frame(World):
    """A world whose API has the operations above alone."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.users = Users()

    async def restart(self) -> None:
        await super().restart()
        directory = self.app.directory
        parts = (self.plane.operations, _operations)
        self.app = Api(parts, directory, self.clock, users=self.users)


def framed(tmp_path: Path, body: Any) -> Any:
    """Run `body(frame, project)`."""

    async def main() -> Any:
        async with Frame(tmp_path) as frame:
            return await body(frame, await frame.project())

    return asyncio.run(main())


def test_a_session_names_its_user_and_makes_one_that_is_new(tmp_path: Path) -> None:
    """Our own session tokens are good for users that nobody signed up: `amba-run token` (E.3)."""

    async def body(frame: Frame, project: Any) -> None:
        got = await frame.as_client("POST", "/v1/client/told", {"a": 1}, project=project, user="u9")
        assert got.body == {
            "user_id": "u9",
            "as_user": False,
            "project_id": project["id"],
            "body": {"a": 1},
            "agent": "",
        }
        assert frame.users.made == [(project["id"], "u9")]

    framed(tmp_path, body)


def test_a_server_key_asks_for_a_user_who_exists(tmp_path: Path) -> None:
    """H-9: the header is ours; an unknown user is 404, none named 400, a client key 403."""

    async def body(frame: Frame, project: Any) -> None:
        async def said(user: str) -> Got:
            return await frame.as_user("POST", "/client/told", project=project, user=user)

        assert (await said("u_1")).body["as_user"] is True
        assert (await said("u_1")).body["user_id"] == "u_1"
        assert (await said("u_2")).said == (404, "USER_NOT_FOUND")
        assert (await said("")).said == (400, "INVALID_INPUT")
        assert frame.users.made == []
        key = project["api_keys"]["client"]["key"]
        headers = [("x-api-key", key), ("x-amba-as-user", "u_1")]
        got = await frame.ask("POST", "/client/told", token=None, headers=headers)
        assert got.said == (403, "PROJECT_FORBIDDEN")

    framed(tmp_path, body)


@pytest.mark.parametrize(("user", "bad"), [("", False), ("u_1", False), ("", True)])
def test_where_a_session_is_optional_a_bad_one_is_nobody(
    tmp_path: Path, user: str, bad: bool
) -> None:
    """Remote config is read by anybody with an API key; its session counts where it holds (E.8)."""

    async def body(frame: Frame, project: Any) -> None:
        key = project["api_keys"]["client"]["key"]
        token = "rubbish" if bad else frame.session(project["id"], user) if user else None
        got = await frame.get("/client/visit", token=token, headers=[("x-api-key", key)])
        assert got.body["user_id"] == user

    framed(tmp_path, body)


def test_a_function_names_its_project_by_its_token_or_a_header(tmp_path: Path) -> None:
    """E.10, E.11: no project in the path; a header that says another one is refused."""

    async def body(frame: Frame, project: Any) -> None:
        credentials = f"/v1/admin/projects/{project['id']}/internal-credentials"
        token = (await frame.get(credentials)).data["internal_token"]
        for headers in ([], [("x-amba-project-id", project["id"])], [("x-amba-project-id", "")]):
            got = await frame.get("/v1/ai/told", token=token, headers=headers)
            assert got.body["project_id"] == project["id"]
        elsewhere = [("x-amba-project-id", "another")]
        assert (await frame.get("/ai/told", token=token, headers=elsewhere)).said == (
            *(403, "WRONG_PROJECT"),
        )
        assert (await frame.get("/ai/told")).said == (404, "PROJECT_NOT_FOUND")
        named = [("x-amba-project-id", project["id"])]
        assert (await frame.get("/ai/told", headers=named)).status == 200

    framed(tmp_path, body)


def test_what_is_no_json_of_ours_goes_out_as_it_is(tmp_path: Path) -> None:
    """Streams in pieces, other bodies whole, 304 without one; HEAD never has any (E.8, E.10)."""

    async def body(frame: Frame, _: Any) -> None:
        got = await frame.get("/client/stream", token=None)
        assert (got.raw, got.headers["content-type"]) == (b"one two three", "text/event-stream")
        assert got.headers["x-left"] == "4"
        assert "content-length" not in got.headers
        got = await frame.get("/client/cached", token=None)
        assert got.headers["cache-control"] == "private"
        assert (got.raw, got.headers["content-length"]) == (b"here", "4")
        assert (await frame.ask("HEAD", "/client/cached", token=None)).raw == b""
        assert (await frame.ask("HEAD", "/client/stream", token=None)).raw == b""
        got = await frame.get("/client/same", token=None)
        assert (got.status, got.raw, got.headers["etag"]) == (304, b"", '"1"')
        assert "content-length" not in got.headers

    framed(tmp_path, body)


def test_an_answer_that_its_operation_does_not_name_stays_in_the_house(tmp_path: Path) -> None:
    """500 INTERNAL instead (module docstring of `api.app`)."""

    async def body(frame: Frame, _: Any) -> None:
        assert (await frame.get("/client/wrong", token=None)).said == (500, "INTERNAL")

    framed(tmp_path, body)


def test_bodies_that_may_be_missing_and_bodies_that_are_bounded(tmp_path: Path) -> None:
    """An empty one is an empty object where it may be; an operation has its own size."""

    async def body(frame: Frame, project: Any) -> None:
        got = await frame.as_client("POST", "/client/told", project=project, user="u_1")
        assert got.body["body"] == {}
        assert (await frame.post("/client/small", {"a": 1}, token=None)).status == 200
        large = await frame.post("/client/small", {"a": "x" * 10}, token=None)
        assert large.said == (413, "PAYLOAD_TOO_LARGE")

    framed(tmp_path, body)

"""The data plane, called as ASGI with the fake engine behind it: what a guest sees of a request,
and what a caller is told of every way it can end.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from amba_router import headers as names
from amba_router.asgi import Message, Receive, Scope, Send
from amba_router.dispatch import Dispatcher
from amba_router.hosts import Hosts
from amba_router.identity import Identities, Identity
from amba_router.journal import Invocation, Journal
from amba_router.rate_limit import RateCounter, RateKey, RateLimit
from amba_router.routes import Project, Projects, Route
from amba_router.signing import Keyring, Stamp
from amba_runtime import limits, wire
from amba_runtime.clock import ManualClock
from amba_runtime.engine.base import StartFailed, Surroundings
from amba_runtime.engine.fake import (
    FakeEngine,
    FakeExchange,
    FakeHandler,
    FakeIsolate,
    FakeRequest,
    FakeResponse,
)
from amba_runtime.errors import InternalCode, InternalError
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.outcome import LogLine, Outcome, Tell
from amba_runtime.pool import Pool
from amba_runtime.slot import Room, Slot

HOST = b"local.fn.localhost:8787"
PAT = "amb_dpat_" + "A" * 32
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
Fields = Sequence[tuple[bytes, bytes]]


@dataclass(slots=True)
class Answer:
    """What the ASGI server was told to send."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: list[tuple[bytes, bytes]]())
    body: bytes = b""
    whole: bool = False
    messages: list[Message] = field(default_factory=lambda: list[Message]())

    @property
    def error(self) -> dict[str, Any]:
        assert dict(self.headers)[b"content-type"] == b"application/json"
        found: dict[str, Any] = json.loads(self.body)["error"]
        assert found["status"] == self.status
        assert set(found) >= {"kind", "code", "status", "message", "request_id"}
        return found

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def echo(request: FakeRequest) -> FakeResponse:
    """All that a guest can see of a request."""
    body = await request.read()
    seen = {
        "method": request.method,
        "target": request.target,
        "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in request.headers],
        "body": body.decode("latin-1"),
    }
    return FakeResponse(200, [(b"content-type", b"application/json")], json.dumps(seen).encode())


class Caller:
    """The client side of one ASGI call; `leave` is what a server says when it goes."""

    def __init__(self, *pieces: bytes, ends: bool = True) -> None:
        self.answer = Answer()
        self.started = asyncio.Event()
        self.pieces: asyncio.Queue[Message] = asyncio.Queue()
        for at, piece in enumerate(pieces):
            more = not ends or at < len(pieces) - 1
            self.pieces.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    def leave(self) -> None:
        self.pieces.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> Message:
        return await self.pieces.get()

    async def send(self, message: Message) -> None:
        answer = self.answer
        answer.messages.append(message)
        if message["type"] == "http.response.start":
            assert answer.status == 0
            answer.status = message["status"]
            answer.headers = list(message["headers"])
        elif message["type"] == "http.response.body":
            answer.body += message.get("body", b"")
            answer.whole = not message.get("more_body", False)
            self.started.set()


class Rig:
    """A dispatcher with one project `local` and functions made of Python callables."""

    def __init__(self, engine: FakeEngine, *, persona: Identity | None = None) -> None:
        self.clock = ManualClock()
        self.engine = engine
        self.told: list[Invocation] = []
        self.late: list[str] = []
        self.journal = Journal()
        self.journal.listen(self.told.extend, lambda _slot, id_, _tell: self.late.append(id_))
        self.projects = Projects()
        self.project = self.add("local", persona or Identity())
        self.dispatcher = Dispatcher(
            hosts=Hosts(
                suffix="fn.localhost",
                cdn_suffix="cdn.localhost",
                platform=frozenset({"127.0.0.1", "localhost"}),
            ),
            projects=self.projects,
            journal=self.journal,
            clock=self.clock,
            platform=self.platform,
            cdn=self.cdn,
        )

    def add(self, slug: str, persona: Identity) -> Project:
        id_ = ProjectId(f"id-of-{slug}")
        identities = Identities(id_, session_key=b"s" * 32, clock=self.clock, persona=persona)
        identities.add_pat(PAT, "d_1")
        project = Project(id_, slug, Keyring((b"k" * 32,)), identities)
        self.projects.add(project)
        return project

    async def platform(self, scope: Scope, receive: Receive, send: Send) -> None:
        await plain(send, f"platform {scope['path']} {scope['amba.request_id']}".encode())

    async def cdn(
        self, project: Project, key: bytes, scope: Scope, send: Send, request_id: str
    ) -> None:
        await plain(send, b"cdn %b %b" % (project.slug.encode(), key))

    async def deploy(self, name: str, project: Project | None = None, **changed: int) -> Slot:
        project = project or self.project
        slot = Slot(
            self.engine,
            Manifest(project.id, FunctionName(name), 3),
            Bundle.of(b""),
            limits_=FunctionLimits.dev().override(changed),
            egress=no_egress,
            storage=None,
            late=self.journal.late,
            clock=self.clock,
        )
        await slot.start()
        project.routes[name.encode()] = Route(FunctionName(name), slot)
        return slot

    async def call(
        self,
        caller: Caller,
        target: bytes = b"/echo",
        *fields: tuple[bytes, bytes],
        method: str = "GET",
        host: bytes | None = HOST,
        client: tuple[str, int] | None = ("127.0.0.1", 5000),
        extra: Mapping[str, Any] | None = None,
    ) -> Answer:
        raw_path, mark, query = target.partition(b"?")
        scope: Scope = {
            "type": "http",
            "method": method,
            "http_version": "1.1",
            "path": raw_path.decode("latin-1"),
            "raw_path": raw_path,
            "query_string": query,
            "client": client,
            "headers": [*([] if host is None else [(b"host", host)]), *fields],
            **(extra or {}),
        }
        if mark and not query:
            scope["amba.bare_query"] = True
        await self.dispatcher(scope, caller.receive, caller.send)
        return caller.answer

    async def ask(self, target: bytes = b"/echo", *fields: Any, **options: Any) -> Answer:
        body: bytes | None = options.pop("body", None)
        if body is not None:
            fields = (*fields, (b"content-length", b"%d" % len(body)))
        answer = await self.call(Caller(body or b""), target, *fields, **options)
        assert answer.whole
        return answer

    async def events(self) -> list[Invocation]:
        self.journal.flush()
        return self.told

    async def close(self) -> None:
        for project in self.projects.all():
            for route in project.routes.values():
                if route.slot is not None:
                    await route.slot.retire(drain_s=0)
        self.journal.flush()


async def plain(send: Send, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def no_egress(request: wire.Request) -> wire.Response:
    raise AssertionError("nothing is fetched here")


def run(
    test: Callable[[Rig], Awaitable[None]],
    *,
    engine: FakeEngine | None = None,
    persona: Identity | None = None,
    **handlers: FakeHandler,
) -> None:
    async def main() -> None:
        rig = Rig(engine or FakeEngine({"echo": echo, **handlers}), persona=persona)
        await rig.deploy("echo")
        try:
            async with asyncio.timeout(10):
                await test(rig)
        finally:
            await rig.close()

    asyncio.run(main())


def stamped(answer: Answer) -> dict[str, list[str]]:
    seen: dict[str, list[str]] = {}
    for name, value in answer.json["headers"]:
        seen.setdefault(name, []).append(value)
    return seen


# where a request goes


@pytest.mark.parametrize(
    ("host", "target", "seen"),
    [
        (HOST, b"/echo", "/"),
        (HOST, b"/echo/", "/"),
        (HOST, b"/echo/a/b", "/a/b"),
        (HOST, b"/echo/a/b?c=d&c=%20", "/a/b?c=d&c=%20"),
        (HOST, b"/echo?q", "/?q"),
        (HOST, b"/echo?", "/?"),
        (HOST, b"/echo/?", "/?"),
        (HOST, b"/echo?a?b/c", "/?a?b/c"),
        (HOST, b"/echo//", "//"),
        (HOST, b"/echo//a//b//", "//a//b//"),
        (HOST, b"/echo/%2F%2f%5c%00%0d%0a%zz%c0%ae", "/%2F%2f%5c%00%0d%0a%zz%c0%ae"),
        (HOST, b"/echo/../../admin", "/../../admin"),
        (HOST, b"/echo/./%2e%2e%2fadmin/..;/x", "/./%2e%2e%2fadmin/..;/x"),
        (HOST, b'/echo/"<>\\^`{|}', '/"<>\\^`{|}'),
        (HOST, b"/echo/" + b"a" * 16_000, "/" + "a" * 16_000),
        (HOST, b"/echo/echo", "/echo"),
        (b"LOCAL.fn.localhost.", b"/echo/x", "/x"),
        (b"127.0.0.1:8787", b"/fn/local/echo", "/"),
        (b"localhost", b"/fn/local/echo/a%2Fb?c", "/a%2Fb?c"),
        (b"127.0.0.1:8787", b"/fn/local/echo//x", "//x"),
    ],
)
def test_paths_reach_the_function_byte_for_byte(host: bytes, target: bytes, seen: str) -> None:
    """`/{name}` is cut off and nothing else touched, the query not at all (H-2; B12)."""

    async def test(rig: Rig) -> None:
        assert (await rig.ask(target, host=host)).json["target"] == seen

    run(test)


@pytest.mark.parametrize(
    ("host", "target", "status", "code", "id_"),
    [
        (b"nobody.fn.localhost", b"/echo", 404, "PROJECT_NOT_FOUND", "nobody"),
        (b"127.0.0.1", b"/fn/nobody/echo", 404, "PROJECT_NOT_FOUND", "nobody"),
        (b"127.0.0.1", b"/fn/LOCAL/echo", 404, "PROJECT_NOT_FOUND", "LOCAL"),
        (b"127.0.0.1", b"/fn//echo", 404, "PROJECT_NOT_FOUND", ""),
        (b"127.0.0.1", b"/fn/lo%63al/echo", 404, "PROJECT_NOT_FOUND", "lo%63al"),
        (b"127.0.0.1", b"/cdn/nobody/key", 404, "PROJECT_NOT_FOUND", "nobody"),
        (b"nobody.cdn.localhost", b"/key", 404, "PROJECT_NOT_FOUND", "nobody"),
        (HOST, b"/", 404, "FUNCTION_NOT_FOUND", ""),
        (HOST, b"//echo", 404, "FUNCTION_NOT_FOUND", ""),
        (HOST, b"/nope/x", 404, "FUNCTION_NOT_FOUND", "nope"),
        (HOST, b"/ECHO", 404, "FUNCTION_NOT_FOUND", "ECHO"),
        (HOST, b"/ech%6f", 404, "FUNCTION_NOT_FOUND", "ech%6f"),
        (HOST, b"/echo%2Fx", 404, "FUNCTION_NOT_FOUND", "echo%2Fx"),
        (HOST, b"/echo%00", 404, "FUNCTION_NOT_FOUND", "echo%00"),
        (HOST, b"/echo;x", 404, "FUNCTION_NOT_FOUND", "echo;x"),
        (HOST, b"/x/../echo", 404, "FUNCTION_NOT_FOUND", "x"),
        (HOST, b"/./echo", 404, "FUNCTION_NOT_FOUND", "."),
        (HOST, b"/fn/local/echo", 404, "FUNCTION_NOT_FOUND", "fn"),
        (HOST, b"/" + b"a" * 5000, 404, "FUNCTION_NOT_FOUND", "a" * 64),
        (b"127.0.0.1", b"/fn/local", 404, "FUNCTION_NOT_FOUND", ""),
        (b"127.0.0.1", b"/fn/local/", 404, "FUNCTION_NOT_FOUND", ""),
        (b"", b"/echo", 400, "BAD_HOST", None),
        (None, b"/echo", 400, "BAD_HOST", None),
        (b"local.fn.localhost@evil", b"/echo", 400, "BAD_HOST", None),
        (b"evil.example", b"/echo", 421, None, None),
        (b"fn.localhost", b"/echo", 421, None, None),
        (b"a.local.fn.localhost", b"/echo", 421, None, None),
    ],
)
def test_who_does_not_answer(
    host: bytes | None, target: bytes, status: int, code: str | None, id_: str | None
) -> None:
    """Unknown and malformed: refused in the envelope, nothing started (A.7; B10); foreign hosts
    get no body at all (C1).
    """

    async def test(rig: Rig) -> None:
        for method in ("GET", "HEAD"):
            answer = await rig.ask(target, host=host, method=method)
            assert answer.status == status
            if method == "HEAD" or code is None:
                assert answer.body == b""
                continue
            error = answer.error
            assert error["code"] == code
            assert error.get("details", {}).get("id") == id_
            assert UUID7.match(error["request_id"])
            assert len(answer.body) < 700
        assert await rig.events() == []
        assert rig.engine.isolates[0].exchanges == set()

    run(test)


def test_two_hosts_are_refused_here_too() -> None:
    """Whatever server stands in front, two Hosts never route (A, B10)."""

    async def test(rig: Rig) -> None:
        answer = await rig.ask(b"/echo", (b"host", HOST))
        assert (answer.status, answer.error["code"]) == (400, "BAD_HOST")

    run(test)


def test_forwarding_headers_do_not_route() -> None:
    """Routing reads Host and path, and nothing a caller can add to them (B11)."""
    forged = [
        (b"x-forwarded-host", b"other.fn.localhost"),
        (b"forwarded", b"host=other.fn.localhost"),
        (b"x-original-url", b"/admin"),
        (b"x-rewrite-url", b"/admin"),
        (b"x-http-method-override", b"DELETE"),
    ]

    async def test(rig: Rig) -> None:
        rig.add("other", Identity())
        answer = await rig.ask(b"/echo/x", *forged)
        assert (answer.json["target"], answer.json["method"]) == ("/x", "GET")
        seen = stamped(answer)
        assert seen["host"] == [HOST.decode()]
        assert seen["x-amba-project-id"] == ["id-of-local"]

    run(test)


def test_the_platform_and_the_cdn() -> None:
    """The bare host is the platform's, and objects have addresses of both kinds."""

    async def test(rig: Rig) -> None:
        answer = await rig.ask(b"/healthz", host=b"127.0.0.1:1")
        assert answer.body.startswith(b"platform /healthz ")
        assert UUID7.match(answer.body.rpartition(b" ")[2].decode())
        for host, target in ((b"local.cdn.localhost", b"/a/b%20c"), (b"[::1]", b"")):
            if target:
                assert (await rig.ask(target, host=host)).body == b"cdn local a/b%20c"
        assert (await rig.ask(b"/cdn/local/a//b", host=b"localhost")).body == b"cdn local a//b"

    run(test)


# what a function sees


def test_exactly_nine_stamped_headers() -> None:
    """Seven meanings, two spellings of two; empty for nobody; the signature holds (J 1, A.3)."""

    async def test(rig: Rig) -> None:
        forged = [(n.upper() if i % 2 else n, b"evil") for i, n in enumerate(names.STAMPED)]
        more = [(b"X_Amba_User_Id", b"evil"), (b"x-amba-role", b"admin"), (b"a", b"1")]
        seen = stamped(await rig.ask(b"/echo", *forged, *more, *forged))
        ours = {n: v for n, v in seen.items() if n.startswith(("x-amba", "x_amba"))}
        assert set(ours) == {n.decode() for n in names.STAMPED}
        assert all(len(values) == 1 for values in ours.values())
        assert ours["x-amba-user-id"] == ours["x-amba-developer-id"] == [""]
        assert ours["x-amba-timestamp"] == ours["x-amba-edge-timestamp"] == ["1767225600"]
        assert ours["x-amba-signature"] == ours["x-amba-edge-signature"]
        assert UUID7.match(ours["x-amba-request-id"][0])
        stamp = Stamp("id-of-local", "", "", ours["x-amba-request-id"][0], "echo", 1767225600)
        assert Keyring((b"k" * 32,)).verify(stamp, ours["x-amba-signature"][0])
        assert seen["a"] == ["1"]

    run(test)


def test_identity_is_stamped() -> None:
    """A session is its user, a PAT its developer, a bad token nobody; all signed (A.6)."""

    async def test(rig: Rig) -> None:
        session = rig.project.identities.mint_session("u_42").encode()
        for token, user, developer in (
            (session, "u_42", ""),
            (PAT.encode(), "", "d_1"),
            (b"garbage", "", ""),
        ):
            bearer = b"Bearer " + token
            seen = stamped(await rig.ask(b"/echo", (b"authorization", bearer)))
            assert seen["x-amba-user-id"] == [user]
            assert seen["x-amba-developer-id"] == [developer]
            assert seen["authorization"] == [bearer.decode()]
            (id_,) = seen["x-amba-request-id"]
            stamp = Stamp("id-of-local", user, developer, id_, "echo", 1767225600)
            assert rig.project.keyring.verify(stamp, seen["x-amba-signature"][0])
        nominated = [(b"connection", b"authorization"), (b"authorization", b"Bearer " + session)]
        seen = stamped(await rig.ask(b"/echo", *nominated))
        assert (seen["x-amba-user-id"], "authorization" in seen) == ([""], False)

    run(test)


def test_a_persona_is_stamped() -> None:
    """`--as user:u_7` is who a request without a credential comes from."""

    async def test(rig: Rig) -> None:
        assert stamped(await rig.ask())["x-amba-user-id"] == ["u_7"]

    run(test, persona=Identity(user_id="u_7"))


@pytest.mark.parametrize(
    ("client", "seen"),
    [
        (("127.0.0.1", 1), "127.0.0.1"),
        (("::1", 1), "::1"),
        (("192.0.2.7", 1), "192.0.2.7"),
        (None, "127.0.0.1"),
    ],
)
def test_the_peers_address(client: tuple[str, int] | None, seen: str) -> None:
    """`CF-Connecting-IP` is the peer's, whatever the caller says (H-3)."""

    async def test(rig: Rig) -> None:
        forged = [(b"cf-connecting-ip", b"6.6.6.6"), (b"CF-Connecting-IP", b"6.6.6.7")]
        assert stamped(await rig.ask(b"/echo", *forged, client=client))["cf-connecting-ip"] == [
            seen
        ]

    run(test)


def test_other_headers_pass_in_order() -> None:
    """What is neither ours nor for one hop reaches the guest: order, duplicates, odd bytes."""
    fields = [
        (b"b", b"1"),
        (b"cookie", b"a=b; c=d"),
        (b"a", b"\xff\x80"),
        (b"b", b"2"),
        (b"connection", b"close, drop-me"),
        (b"drop-me", b"x"),
        (b"te", b"trailers"),
        (b"expect", b"100-continue"),
        (b"user_agent", b"x"),
    ]

    async def test(rig: Rig) -> None:
        got = (await rig.ask(b"/echo", *fields)).json["headers"]
        mine = [f for f in got if not f[0].startswith(("x-amba", "host", "cf-"))]
        assert mine == [
            ["b", "1"],
            ["cookie", "a=b; c=d"],
            ["a", "\xff\x80"],
            ["b", "2"],
            ["user_agent", "x"],
        ]

    run(test)


def test_request_ids_are_unique_and_ordered() -> None:
    """Each dispatch has an id of its own, a replayed header set too (B8)."""

    async def test(rig: Rig) -> None:
        first = stamped(await rig.ask())
        replay = [(n.encode(), v[0].encode()) for n, v in first.items() if n != "host"]
        await rig.clock.advance(61)
        second = stamped(await rig.ask(b"/echo/other", *replay))
        for name in ("x-amba-request-id", "x-amba-signature", "x-amba-timestamp"):
            assert len(second[name]) == 1
            assert second[name] != first[name]
        ids = [stamped(await rig.ask())["x-amba-request-id"][0] for _ in range(300)]
        assert len(set(ids)) == 300

    run(test)


def test_projects_do_not_mix() -> None:
    """A project's requests carry its id and key, whatever else is served (B14, F5)."""

    async def test(rig: Rig) -> None:
        other = rig.add("other", Identity())
        other.keyring = Keyring((b"o" * 32,))
        await rig.deploy("echo", other)
        for slug, project in (("local", rig.project), ("other", other)):
            seen = stamped(await rig.ask(host=f"{slug}.fn.localhost".encode()))
            assert seen["x-amba-project-id"] == [f"id-of-{slug}"]
            (id_,) = seen["x-amba-request-id"]
            stamp = Stamp(project.id, "", "", id_, "echo", 1767225600)
            assert project.keyring.verify(stamp, seen["x-amba-signature"][0])

    run(test)


# bodies


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET", "OPTIONS"])
def test_bodies_and_methods_pass(method: str) -> None:
    """Any method, with or without a body, in one piece or many."""

    async def test(rig: Rig) -> None:
        whole = await rig.ask(method=method, body=b"\x00\xffhi")
        assert (whole.json["method"], whole.json["body"]) == (method, "\x00\xffhi")
        chunked = Caller(b"a", b"", b"b" * 100_000, b"c")
        answer = await rig.call(
            chunked, b"/echo", (b"transfer-encoding", b"chunked"), method=method
        )
        assert answer.json["body"] == "a" + "b" * 100_000 + "c"
        assert "transfer-encoding" not in stamped(answer)
        assert (await rig.ask(method=method)).json["body"] == ""

    run(test)


@pytest.mark.parametrize(
    "framing",
    [
        [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"chunked"), (b"content-length", b"1")],
        [(b"content-length", b"1"), (b"content-length", b"1")],
        [(b"content-length", b"x")],
        [(b"content-length", b"-1")],
        [(b"content-length", b"")],
        [(b"content-length", b"1, 1")],
        [(b"transfer-encoding", b"gzip")],
    ],
)
def test_contradictory_framing_is_refused_here_too(framing: Fields) -> None:
    """Whatever server stands in front, an ambiguous body never reaches a guest (A1)."""

    async def test(rig: Rig) -> None:
        answer = await rig.call(Caller(b"x"), b"/echo", *framing, method="POST")
        assert (answer.status, answer.error["code"]) == (400, "BAD_REQUEST")
        assert await rig.events() == []

    run(test)


def test_too_large_by_its_length() -> None:
    """413 at one byte past the limit, before the guest is called; at the limit it passes (A8)."""
    mib = 1024 * 1024

    async def test(rig: Rig) -> None:
        await rig.deploy("echo", request_body_mib=1)
        inside = await rig.ask(method="POST", body=b"a" * mib)
        assert len(inside.json["body"]) == mib
        outside = await rig.call(
            Caller(), b"/echo", (b"content-length", b"%d" % (mib + 1)), method="POST"
        )
        error = outside.error
        assert (outside.status, error["code"]) == (413, "PAYLOAD_TOO_LARGE")
        assert error["details"] == {"limit": "request_body_mib", "bytes_max": mib}
        assert "1 MiB" in error["message"]
        absurd = await rig.call(Caller(), b"/echo", (b"content-length", b"9" * 30), method="POST")
        assert absurd.status == 413
        outcomes = [(i.status, i.outcome) for i in await rig.events()]
        assert outcomes == [(200, Outcome.OK), (413, Outcome.CANCELED), (413, Outcome.CANCELED)]

    run(test)


def test_too_large_by_its_chunks() -> None:
    """A chunked body is counted as it comes; past the limit the guest's work ends (A8)."""
    mib = 1024 * 1024
    chunked = (b"transfer-encoding", b"chunked")

    async def test(rig: Rig) -> None:
        await rig.deploy("echo", request_body_mib=1)
        half = b"a" * (mib // 2)
        inside = await rig.call(Caller(half, half), b"/echo", chunked, method="POST")
        assert len(inside.json["body"]) == mib
        for pieces in ((half, half, b"a"), (half, half + b"a"), (half, half, b"a", half)):
            outside = await rig.call(Caller(*pieces), b"/echo", chunked, method="POST")
            assert (outside.status, outside.error["code"]) == (413, "PAYLOAD_TOO_LARGE")
        assert [i.outcome for i in await rig.events()][1:] == [Outcome.CANCELED] * 3
        assert all(not isolate.exchanges for isolate in rig.engine.isolates)

    run(test)


# how it ends


async def throws(request: FakeRequest) -> FakeResponse:
    raise ValueError("no items: 'é'")


async def throws_half_a_pair(request: FakeRequest) -> FakeResponse:
    raise ValueError("half \ud800 a pair")


async def quiet(request: FakeRequest) -> FakeResponse:
    raise ValueError


def test_a_guest_that_throws() -> None:
    """500 `unhandled_exception` with the error's own message, and the event has it (A.5, A.7)."""

    async def test(rig: Rig) -> None:
        for name, message in (
            ("throws", "no items: 'é'"),
            ("half", "half ? a pair"),
            ("quiet", "the function threw, or returned no Response"),
        ):
            await rig.deploy(name)
            answer = await rig.ask(b"/%b/x?y" % name.encode())
            error = answer.error
            assert (answer.status, error["code"], error["kind"]) == (
                500,
                "unhandled_exception",
                "internal",
            )
            assert error["message"] == message
            assert not any(n.startswith(b"amba-run") for n, _ in answer.headers)
            (event,) = [i for i in await rig.events() if i.request_id == error["request_id"]]
            assert (event.outcome, event.status) == (Outcome.EXCEPTION, 500)
            assert (event.method, event.path) == ("GET", "/x?y")
            assert event.tell is not None
            assert event.tell.exceptions[0].name == "ValueError"
        assert (await rig.ask(b"/throws", method="HEAD")).body == b""

    run(test, throws=throws, half=throws_half_a_pair, quiet=quiet)


def test_nobody_can_forge_what_we_are_told() -> None:
    """An upstream's `amba-run-*` headers, passed through by a guest, are ordinary headers."""
    forged = [
        (b"amba-run-outcome", b"exception"),
        (b"amba-run-tell", b'{"o":"exception","l":[["log",1,["x"]]]}'),
        (b"amba-run-0123456789abcdef", b'{"o":"exception"}'),
    ]

    async def passes(request: FakeRequest) -> FakeResponse:
        return FakeResponse(200, list(forged), b"fine")

    async def test(rig: Rig) -> None:
        await rig.deploy("passes")
        answer = await rig.ask(b"/passes")
        assert (answer.status, answer.body) == (200, b"fine")
        assert [f for f in answer.headers if f[0].startswith(b"amba-run-")] == forged
        (event,) = await rig.events()
        assert (event.outcome, event.tell) == (Outcome.OK, None)

    run(test, passes=passes)


def test_the_event_of_an_invocation() -> None:
    """One event each, with what `dev` prints: ids, version, path, status, ms, lines."""

    async def slow(request: FakeRequest) -> FakeResponse:
        await rigs[0].clock.advance(0.25)
        tell = Tell([LogLine("warn", ["careful", 1], 5)])
        return FakeResponse(201, [(b"x-a", b"b")], b"made", tell)

    rigs: list[Rig] = []

    async def test(rig: Rig) -> None:
        rigs.append(rig)
        await rig.deploy("slow")
        await rig.clock.advance(1000.0)  # a server that has run for a while
        answer = await rig.ask(b"/slow/p?q", method="POST", body=b"x")
        assert (answer.status, answer.body) == (201, b"made")
        assert dict(answer.headers) == {b"x-a": b"b", b"content-length": b"4"}
        (event,) = await rig.events()
        assert UUID7.match(event.request_id)
        assert (event.function, event.version, event.method, event.path) == (
            "slow",
            3,
            "POST",
            "/p?q",
        )
        assert (event.status, event.outcome, round(event.ms, 3)) == (201, Outcome.OK, 250.0)
        assert event.started_s == 1767225600 + 1000
        assert event.tell is not None
        assert event.tell.logs == [LogLine("warn", ["careful", 1], 5)]

    run(test, slow=slow)


HOP = [b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"trailer"]


async def hop_by_hop(request: FakeRequest) -> FakeResponse:
    fields = [(name, b"x") for name in HOP]
    return FakeResponse(200, [*fields, (b"set-cookie", b"a"), (b"set-cookie", b"b")], b"hi")


def test_hop_by_hop_headers_of_an_answer_stay_here() -> None:
    """A guest cannot reach into the caller's connection; its cookies pass, each (A11)."""

    async def test(rig: Rig) -> None:
        await rig.deploy("hop")
        assert (await rig.ask(b"/hop")).headers == [
            (b"set-cookie", b"a"),
            (b"set-cookie", b"b"),
            (b"content-length", b"2"),
        ]

    run(test, hop=hop_by_hop)


def test_overload() -> None:
    """Past what a version may have under way: 503 with Retry-After, and no call (A.7, K)."""

    async def test(rig: Rig) -> None:
        slot = rig.project.routes[b"echo"].slot
        assert slot is not None
        slot.inflight = limits.INFLIGHT.value
        answer = await rig.ask()
        assert (answer.status, answer.error["code"]) == (503, "overloaded")
        assert dict(answer.headers)[b"retry-after"] == b"1"
        slot.inflight = limits.INFLIGHT.value - 1
        assert (await rig.ask()).status == 200
        slot.inflight = 0
        assert [i.outcome for i in await rig.events()] == [Outcome.LOAD_SHED, Outcome.OK]

    run(test)


def test_inflight_returns_to_nothing() -> None:
    """However requests end, what is under way is counted down again."""

    async def test(rig: Rig) -> None:
        slot = await rig.deploy("throws")
        for _ in range(3):
            await rig.ask(b"/throws")
        gone = Caller(b"part", ends=False)
        gone.leave()
        await rig.call(gone, b"/throws", (b"content-length", b"9"), method="POST")
        assert slot.inflight == 0

    run(test, throws=throws)


class Hanging:
    """A guest that tells when it was called and when it was cancelled, and never answers."""

    def __init__(self, *, wanted: int = 1) -> None:
        self.called = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.calls = 0
        self.wanted = wanted

    async def __call__(self, request: FakeRequest) -> FakeResponse:
        self.calls += 1
        if self.calls == self.wanted:
            self.called.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError("never")


def test_an_engine_that_crashes_under_a_request() -> None:
    """502 for what was under way, run once; the next request finds a new isolate (item 3)."""

    async def test(rig: Rig) -> None:
        hang = Hanging(wanted=3)
        rig.engine.handlers["hang"] = hang
        await rig.deploy("hang")
        rig.engine.handlers["hang"] = echo
        calls = [asyncio.create_task(rig.ask(b"/hang")) for _ in range(3)]
        await hang.called.wait()
        rig.engine.isolates[-1].crash("engine process 7 ended (signal 9): oom")
        for answer in await asyncio.gather(*calls):
            assert (answer.status, answer.error["code"]) == (502, "upstream_failure")
            assert "oom" not in answer.error["message"]
        assert hang.calls == 3
        events = await rig.events()
        assert [i.outcome for i in events] == [Outcome.INTERNAL_ERROR] * 3
        assert {i.note for i in events} == {"engine process 7 ended (signal 9): oom"}
        assert (await rig.ask(b"/hang")).status == 200
        assert len(rig.engine.isolates) == 3

    run(test)


def test_an_engine_that_had_ended_before_the_request() -> None:
    """A request that was never taken is answered by the next isolate, and run once."""

    async def test(rig: Rig) -> None:
        await rig.ask()
        rig.engine.isolates[0].crash()
        assert (await rig.ask()).status == 200
        assert len(rig.engine.isolates) == 2

    run(test)


class UnreadExchange(FakeExchange):
    """Ends without having read the request, as the connection to a dying engine may."""

    def begin(self, method: bytes, target: bytes, headers: Any, length: int | None) -> None:
        self.head().set_exception(wire.NothingSentError("unread"))


class Unread(FakeIsolate):
    """Its first exchange reads nothing; those behind it are well."""

    exchanges_made = 0

    def idle(self) -> FakeExchange | None:
        return None

    async def exchange(self, *, fresh: bool = False) -> FakeExchange:
        self.exchanges_made += 1
        if self.exchanges_made == 1:
            return UnreadExchange(self)
        return await super().exchange(fresh=fresh)


class UnreadEngine(FakeEngine):
    async def start(
        self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
    ) -> FakeIsolate:
        isolate = Unread(self.handlers[manifest.name], surroundings)
        self.isolates.append(isolate)
        return isolate


@pytest.mark.parametrize(("body", "status"), [(None, 200), (b"x", 502)])
def test_only_what_was_never_read_is_sent_again(body: bytes | None, status: int) -> None:
    """A request without a body goes to a fresh connection; a body cannot be sent twice."""

    async def test(rig: Rig) -> None:
        answer = await rig.ask(method="POST", body=body)
        assert answer.status == status
        isolate = rig.engine.isolates[0]
        assert isinstance(isolate, Unread)
        assert isolate.exchanges_made == (2 if body is None else 1)
        (event,) = await rig.events()
        assert event.status == status

    run(test, engine=UnreadEngine({"echo": echo}))


class NeverAgain(FakeEngine):
    """Starts each function once, and fails in a given way from then on."""

    fault: Exception = StartFailed("Uncaught Error: no key")

    async def start(
        self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
    ) -> FakeIsolate:
        if self.isolates:
            raise self.fault
        return await super().start(manifest, bundle, surroundings)


@pytest.mark.parametrize(
    "fault",
    [
        StartFailed("Uncaught Error: no key"),
        InternalError(InternalCode.ENGINE_START, "the spawner is gone"),
    ],
)
def test_an_engine_that_does_not_start_any_more(fault: Exception) -> None:
    """Every request gets its 502 without our reasons in it, and none waits for ever."""

    async def test(rig: Rig) -> None:
        assert isinstance(rig.engine, NeverAgain)
        rig.engine.fault = fault
        rig.engine.isolates[0].crash()
        answer = await rig.ask()
        assert (answer.status, answer.error["code"]) == (502, "upstream_failure")
        assert str(fault) not in answer.error["message"]
        (event,) = await rig.events()
        assert (event.status, event.outcome) == (502, Outcome.INTERNAL_ERROR)
        slot = rig.project.routes[b"echo"].slot
        assert slot is not None
        assert slot.inflight == 0

    run(test, engine=NeverAgain({"echo": echo}))


def test_a_function_that_keeps_ending_rests() -> None:
    """While a crashing isolate rests, requests are told when to come again (E32)."""

    async def test(rig: Rig) -> None:
        answers: list[Answer] = []
        for _ in range(8):
            rig.engine.isolates[-1].crash()
            call = asyncio.create_task(rig.ask())
            await rig.clock.advance(limits.RESTART_PATIENCE_S.value)
            answers.append(await call)
            if answers[-1].status == 503:
                break
        assert answers[0].status == 200
        assert (answers[-1].status, answers[-1].error["code"]) == (503, "overloaded")
        assert int(dict(answers[-1].headers)[b"retry-after"]) >= 1
        await rig.clock.advance(limits.RESTART_WAIT_MAX_S.value)
        assert (await rig.ask()).status == 200

    run(test)


class Fleeting(Unread):
    """Ends under each request before it has read it; one sent again is read."""

    async def exchange(self, *, fresh: bool = False) -> FakeExchange:
        self.exchanges_made = 1 if fresh else 0
        exchange = await super().exchange(fresh=fresh)
        if not fresh:
            asyncio.get_running_loop().call_soon(self.crash)
        return exchange


class FleetingEngine(FakeEngine):
    async def start(
        self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
    ) -> FakeIsolate:
        isolate = Fleeting(self.handlers[manifest.name], surroundings)
        self.isolates.append(isolate)
        return isolate


def test_a_request_sent_again_to_a_function_that_rests() -> None:
    """It is told when to come again, as one sent for the first time is (E32)."""

    async def test(rig: Rig) -> None:
        answers: list[Answer] = []
        for _ in range(8):
            call = asyncio.create_task(rig.ask())
            while not call.done():
                await rig.clock.advance(limits.RESTART_PATIENCE_S.value / 50)
            answers.append(await call)
            if answers[-1].status != 200:
                break
        assert answers[0].status == 200
        assert (answers[-1].status, answers[-1].error["code"]) == (503, "overloaded")
        assert int(dict(answers[-1].headers)[b"retry-after"]) >= 1
        assert (await rig.events())[-1].outcome is Outcome.LOAD_SHED
        slot = rig.project.routes[b"echo"].slot
        assert slot is not None
        assert slot.inflight == 0

    run(test, engine=FleetingEngine({"echo": echo}))


def test_a_fault_before_the_head_is_sent_leaves_nothing_behind() -> None:
    """It goes up to the server, which answers 500; nothing counts as under way (A.7, E1)."""

    async def test(rig: Rig) -> None:
        with pytest.raises(UnicodeEncodeError):
            await rig.ask(client=("\udcff", 5000))
        slot = rig.project.routes[b"echo"].slot
        assert slot is not None
        assert slot.inflight == 0
        assert (await rig.ask()).status == 200

    run(test)


@pytest.mark.parametrize("first_byte_ms", [1, 60])
def test_a_guest_that_never_answers(first_byte_ms: int) -> None:
    """504 `function_timeout` after `first_byte_ms`, and its work is ended (A.7)."""

    async def test(rig: Rig) -> None:
        hang = Hanging()
        rig.engine.handlers["hang"] = hang
        await rig.deploy("hang", first_byte_ms=first_byte_ms)
        for body in (None, b"x"):
            began = asyncio.get_running_loop().time()
            answer = await rig.ask(b"/hang", method="POST", body=body)
            took_s = asyncio.get_running_loop().time() - began
            assert (answer.status, answer.error["code"]) == (504, "function_timeout")
            assert first_byte_ms / 1000 <= took_s < 2
            await hang.cancelled.wait()
            hang.cancelled.clear()
        assert [i.outcome for i in await rig.events()] == [Outcome.EXCEEDED_WALL_TIME] * 2

    run(test)


def test_a_guest_that_falls_silent() -> None:
    """A stream without a byte for `idle_ms` is cut off, and looks cut off (2.3)."""

    async def part() -> AsyncIterator[bytes]:
        yield b"one"
        await asyncio.Event().wait()

    async def stream(request: FakeRequest) -> FakeResponse:
        return FakeResponse(200, [], part())

    async def test(rig: Rig) -> None:
        await rig.deploy("stream", idle_ms=30)
        caller = Caller(b"")
        answer = await rig.call(caller, b"/stream")
        assert (answer.status, answer.body, answer.whole) == (200, b"one", False)
        (event,) = await rig.events()
        assert (event.status, event.outcome) == (200, Outcome.EXCEEDED_WALL_TIME)

    run(test, stream=stream)


def test_a_stream_that_breaks_off() -> None:
    """The caller's answer stays without its end; the event says why (A11)."""

    async def part() -> AsyncIterator[bytes]:
        yield b"one"
        raise OSError("the disk is gone")

    async def stream(request: FakeRequest) -> FakeResponse:
        return FakeResponse(200, [], part())

    async def test(rig: Rig) -> None:
        await rig.deploy("stream")
        answer = await rig.call(Caller(b""), b"/stream")
        assert (answer.body, answer.whole) == (b"one", False)
        (event,) = await rig.events()
        assert event.outcome is Outcome.RESPONSE_STREAM_DISCONNECTED

    run(test, stream=stream)


def test_streams_pass_as_they_come() -> None:
    """The head goes out at once, each piece when it is there, the end at the end."""

    async def test(rig: Rig) -> None:
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def part() -> AsyncIterator[bytes]:
            while (data := await pieces.get()) is not None:
                yield data

        async def stream(request: FakeRequest) -> FakeResponse:
            return FakeResponse(200, [(b"x-a", b"b")], part())

        rig.engine.handlers["stream"] = stream
        await rig.deploy("stream")
        caller = Caller(b"")
        call = asyncio.create_task(rig.call(caller, b"/stream"))
        await caller.started.wait()
        assert (caller.answer.status, caller.answer.body) == (200, b"")
        for data in (b"one", b"two"):
            caller.started.clear()
            pieces.put_nowait(data)
            await caller.started.wait()
            assert caller.answer.messages[-1]["body"] == data
        pieces.put_nowait(None)
        answer = await call
        assert (answer.body, answer.whole) == (b"onetwo", True)

    run(test, stream=echo)


@pytest.mark.parametrize("stage", ["before", "uploading", "waiting", "streaming"])
def test_a_client_that_leaves_ends_the_guests_work(stage: str) -> None:
    """At every stage a disconnect cancels the guest, and the event says so (item 4)."""

    async def test(rig: Rig) -> None:
        hang = Hanging()
        if stage == "streaming":

            async def part() -> AsyncIterator[bytes]:
                yield b"one"
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    hang.cancelled.set()
                    raise

            async def stream(request: FakeRequest) -> FakeResponse:
                hang.called.set()
                return FakeResponse(200, [], part())

            rig.engine.handlers["hang"] = stream
        else:
            rig.engine.handlers["hang"] = hang
        await rig.deploy("hang")
        upload = stage in ("before", "uploading")
        pieces = {"before": [], "uploading": [b"part"]}.get(stage, [b""])
        caller = Caller(*pieces, ends=not upload)
        fields = [(b"content-length", b"9")] if upload else []
        call = asyncio.create_task(
            rig.call(caller, b"/hang", *fields, method="POST" if upload else "GET")
        )
        await hang.called.wait()
        if stage == "streaming":
            await caller.started.wait()
        caller.leave()
        answer = await call
        await hang.cancelled.wait()
        assert not answer.whole
        (event,) = await rig.events()
        assert event.outcome is Outcome.CANCELED
        assert event.status == (200 if stage == "streaming" else 0)
        slot = rig.project.routes[b"hang"].slot
        assert slot is not None
        assert slot.inflight == 0

    run(test, hang=echo)


# a source that does not build


@pytest.mark.parametrize("serving", [True, False])
def test_a_broken_build(serving: bool) -> None:
    """A browser sees why; others get the old version, or an error when there is none (item 6)."""

    async def test(rig: Rig) -> None:
        route = rig.project.routes[b"echo"]
        slot = route.slot
        assert slot is not None
        route.broken = ("the newest source does not build: line 3", b"<h1>line 3</h1>")
        if not serving:
            route.slot = None
        html = (b"accept", b"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")
        page = await rig.ask(b"/echo", html)
        assert (page.status, page.body) == (500, b"<h1>line 3</h1>")
        fields = dict(page.headers)
        assert fields[b"content-type"] == b"text/html; charset=utf-8"
        assert fields[b"cache-control"] == b"no-store"
        assert fields[b"content-length"] == b"15"
        assert (await rig.ask(b"/echo", html, method="HEAD")).body == b""
        other = await rig.ask(b"/echo", (b"accept", b"application/json"), (b"x-note", b"text/html"))
        if serving:
            assert (other.status, other.json["target"]) == (200, "/")
        else:
            assert (other.status, other.error["code"]) == (500, "FUNCTION_BROKEN")
            assert other.error["message"] == "the newest source does not build: line 3"
        route.slot, route.broken = slot, None
        assert (await rig.ask(b"/echo", html)).status == 200

    run(test)


def test_a_function_that_never_started_is_not_there() -> None:
    """A route without a version and without a reason is 404."""

    async def test(rig: Rig) -> None:
        rig.project.routes[b"new"] = Route(FunctionName("new"))
        answer = await rig.ask(b"/new")
        assert (answer.status, answer.error["code"]) == (404, "FUNCTION_NOT_FOUND")

    run(test)


# WebSockets


def websocket(**changed: Any) -> dict[str, Any]:
    extensions: dict[str, Any] = {"websocket.http.response": {}}
    return {"type": "websocket", "subprotocols": [], "extensions": extensions, **changed}


def test_a_websocket_is_refused_with_an_answer() -> None:
    """Refusals have status and envelope where the server can send them (A.7)."""

    async def test(rig: Rig) -> None:
        for target, host, status in (
            (b"/nope", HOST, 404),
            (b"/echo", b"evil.example", 421),
            (b"/echo", b"b@d", 400),
        ):
            caller = Caller()
            await rig.call(caller, target, host=host, extra=websocket())
            start, body = caller.answer.messages
            assert start["type"] == "websocket.http.response.start"
            assert start["status"] == status
            if status == 421:
                assert body["body"] == b""
            else:
                assert json.loads(body["body"])["error"]["status"] == status
        caller = Caller()
        await rig.call(caller, b"/nope", extra=websocket(extensions={}))
        assert caller.answer.messages == [{"type": "websocket.close", "code": 1000}]

    run(test)


@pytest.mark.parametrize(
    ("target", "host"), [(b"/cdn/local/x", b"127.0.0.1"), (b"/x", b"local.cdn.localhost")]
)
def test_a_stored_file_opens_no_websocket(target: bytes, host: bytes) -> None:
    """Refused in the envelope before the store is asked (A.7, C.6)."""

    async def test(rig: Rig) -> None:
        caller = Caller()
        await rig.call(caller, target, host=host, extra=websocket())
        start, body = caller.answer.messages
        assert start["type"] == "websocket.http.response.start"
        assert start["status"] == 400
        assert json.loads(body["body"])["error"]["code"] == "BAD_REQUEST"

    run(test)


def test_a_guest_that_answers_a_websocket_with_a_response() -> None:
    """The guest's own refusal reaches the caller, and is told once."""

    async def test(rig: Rig) -> None:
        caller = Caller()
        caller.pieces.put_nowait({"type": "websocket.connect"})
        await rig.call(caller, b"/echo/x", extra=websocket())
        start, body = caller.answer.messages
        assert (start["status"], body["body"]) == (426, b"no WebSockets here")
        (event,) = await rig.events()
        assert (event.status, event.outcome, event.path) == (426, Outcome.OK, "/x")

    run(test)


@pytest.mark.parametrize("fault", ["overload", "gone"])
def test_a_websocket_that_no_isolate_takes(fault: str) -> None:
    """Overload and a dead engine answer a WebSocket request as they answer any other."""

    async def test(rig: Rig) -> None:
        slot = rig.project.routes[b"echo"].slot
        assert slot is not None
        if fault == "overload":
            slot.inflight = limits.INFLIGHT.value
        else:
            await slot.retire(drain_s=0)
        caller = Caller()
        await rig.call(caller, b"/echo", extra=websocket())
        assert caller.answer.messages[0]["status"] == (503 if fault == "overload" else 502)
        slot.inflight = 0
        assert len(await rig.events()) == 1

    run(test)


def test_the_trust_decision_is_read_before_anything_is_awaited() -> None:
    """Fields that a server appends while the body comes are never seen (finding 3b)."""

    async def test(rig: Rig) -> None:
        scope_headers = [(b"host", HOST), (b"content-length", b"2")]

        class Late(Caller):
            async def receive(self) -> Message:
                scope_headers.append((b"x-amba-user-id", b"evil"))
                scope_headers.append((b"late", b"evil"))
                return await super().receive()

        answer = await rig.call(
            Late(b"hi"), b"/echo", method="POST", extra={"headers": scope_headers}
        )
        assert "evil" not in answer.body.decode()
        assert len(scope_headers) > 2

    run(test)


def test_a_replaced_route_serves_at_once() -> None:
    """The switch of versions is one assignment: the next request has the new one."""

    async def test(rig: Rig) -> None:
        async def other(request: FakeRequest) -> FakeResponse:
            return FakeResponse(200, [], b"new")

        rig.engine.handlers["echo"] = other
        await rig.deploy("echo")
        assert (await rig.ask()).body == b"new"

    run(test)


def test_nothing_of_this_is_a_secret_in_a_repr() -> None:
    """What the dispatcher keeps per project prints no key (H9)."""
    project = Rig(FakeEngine({})).project
    assert "kkkk" not in repr(project)
    assert "ssss" not in repr(project)


# rate limits, and isolates that are not there yet


def limited(rig: Rig, *, most: int = 1, key: RateKey = "ip") -> RateCounter:
    counter = RateCounter(RateLimit("60s", 60, most, key), scope="p:echo", clock=rig.clock)
    rig.project.routes[b"echo"].counter = counter
    return counter


@pytest.mark.parametrize(
    ("host", "target"), [(HOST, b"/echo/x"), (b"127.0.0.1:8787", b"/fn/local/echo")]
)
def test_one_too_many_is_refused_and_nothing_invoked(host: bytes, target: bytes) -> None:
    """429 with the time to wait, counted over both addresses of a function (D.8, J check 7)."""

    async def test(rig: Rig) -> None:
        limited(rig, most=2)
        assert (await rig.ask(b"/echo")).status == 200
        assert (await rig.ask(target, host=host)).status == 200
        answer = await rig.ask(target, host=host, body=b"x", method="POST")
        assert (answer.status, answer.error["code"]) == (429, "rate_limited")
        assert answer.error["details"]["retry_after_seconds"] == 60
        assert dict(answer.headers)[b"retry-after"] == b"60"
        assert (await rig.ask(target, host=host, method="HEAD")).body == b""
        assert len(await rig.events()) == 2
        await rig.clock.advance(60.0)
        assert (await rig.ask(target, host=host)).status == 200

    run(test)


def test_addresses_are_counted_apart() -> None:
    """By the peer, never by what a caller claims to be (D.8: CF-Connecting-IP is ours)."""

    async def test(rig: Rig) -> None:
        limited(rig)
        claims = [(b"cf-connecting-ip", b"9.9.9.9"), (b"x-forwarded-for", b"9.9.9.9")]
        assert (await rig.ask(client=("1.1.1.1", 1))).status == 200
        assert (await rig.ask(b"/echo", *claims, client=("1.1.1.1", 2))).status == 429
        assert (await rig.ask(client=("2.2.2.2", 1))).status == 200
        assert (await rig.ask(client=None)).status == 200

    run(test)


def test_users_are_counted_apart_and_all_without_one_together() -> None:
    """By the session, wherever it comes from; a developer is no user (D.8)."""

    async def test(rig: Rig) -> None:
        limited(rig, key="user_id")

        def session(user_id: str) -> tuple[bytes, bytes]:
            token = rig.project.identities.mint_session(user_id)
            return (b"Authorization", f"Bearer {token}".encode())

        assert (await rig.ask(b"/echo", session("u_1"))).status == 200
        assert (await rig.ask(b"/echo", session("u_2"), client=("9.9.9.9", 1))).status == 200
        assert (await rig.ask(b"/echo", session("u_1"), client=("9.9.9.9", 1))).status == 429
        pat = (b"authorization", f"Bearer {PAT}".encode())
        forged = (b"authorization", b"Bearer a.b.c")
        assert (await rig.ask(b"/echo", forged)).status == 200
        assert [(await rig.ask(b"/echo", pat)).status, (await rig.ask()).status] == [429, 429]

    run(test)


class _Later:
    """Content that a start waits for."""

    def __init__(self) -> None:
        self.there = asyncio.Event()

    async def bundle(self) -> Bundle:
        await self.there.wait()
        return Bundle.of(b"")

    async def env(self) -> tuple[tuple[str, str], ...]:
        return ()


def dormant(rig: Rig, later: _Later, *, room: Room | None = None, **changed: int) -> Slot:
    slot = Slot(
        rig.engine,
        Manifest(rig.project.id, FunctionName("echo"), 4),
        None,
        limits_=FunctionLimits.dev().override(changed),
        egress=no_egress,
        storage=None,
        late=rig.journal.late,
        clock=rig.clock,
        kept=later,
        room=room,
    )
    rig.project.routes[b"echo"] = Route(FunctionName("echo"), slot)
    return slot


def test_a_dormant_function_answers_its_first_request() -> None:
    """It starts for it; the event says the version."""

    async def test(rig: Rig) -> None:
        later = _Later()
        slot = dormant(rig, later)
        asked = asyncio.create_task(rig.ask())
        await rig.clock.advance(0.0)
        assert slot.inflight == 1
        later.there.set()
        assert (await asked).status == 200
        assert slot.inflight == 0
        assert [event.version for event in await rig.events()] == [4]

    run(test)


def test_a_start_that_takes_too_long_is_a_timeout() -> None:
    """The function's own time to its first byte bounds the wait: 504 (A.7)."""

    async def test(rig: Rig) -> None:
        later = _Later()
        slot = dormant(rig, later, first_byte_ms=1)
        answer = await rig.ask()
        assert (answer.status, answer.error["code"]) == (504, "function_timeout")
        assert slot.inflight == 0
        later.there.set()

    run(test)


def test_a_start_that_fails_is_an_upstream_failure(caplog: pytest.LogCaptureFixture) -> None:
    """502; the reason is for the log, not for the caller (A.7)."""

    async def test(rig: Rig) -> None:
        later = _Later()
        later.there.set()
        slot = dormant(rig, later)
        rig.engine.handlers.clear()
        for _ in range(2):
            answer = await rig.ask()
            assert (answer.status, answer.error["code"]) == (502, "upstream_failure")
            assert "no fake handler" not in answer.body.decode()
        assert slot.inflight == 0
        assert "no fake handler for echo" in caplog.text

    run(test)


def test_a_full_node_sheds_load() -> None:
    """503 with Retry-After where an isolate can be had for nobody, WebSockets included."""

    async def test(rig: Rig) -> None:
        later = _Later()
        later.there.set()
        pool = Pool(rig.clock, most=1, hard=1)
        busy = dormant(rig, later, room=pool)
        assert (await rig.ask()).status == 200
        busy.enter()
        slot = dormant(rig, later, room=pool)
        answer = await rig.ask()
        assert (answer.status, answer.error["code"]) == (503, "overloaded")
        assert dict(answer.headers)[b"retry-after"] == b"1"
        answer = await rig.call(
            Caller(),
            extra={
                "type": "websocket",
                "subprotocols": [],
                "extensions": {"websocket.http.response": {}},
            },
        )
        assert {"websocket.http.response.start"} <= {m["type"] for m in answer.messages}
        assert slot.inflight == 0
        await pool.close()
        await busy.retire(drain_s=0)

    run(test)


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "A", "ZZ"]
)
@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"/echo", b"bad host", 400),
        (b"/echo", b"other.fn.localhost", 404),
        (b"/nope", HOST, 404),
        (b"/broken", HOST, 500),
    ],
)
def test_only_head_gets_no_body(target: bytes, host: bytes, status: int, method: str) -> None:
    """A refusal says why to whoever can read it; its length is the same (RFC 9110 9.3.2)."""

    async def test(rig: Rig) -> None:
        broken = ("does not build", b"<p>")
        rig.project.routes[b"broken"] = Route(FunctionName("broken"), broken=broken)
        answer = await rig.ask(target, method=method, host=host)
        assert answer.status == status
        assert (answer.body == b"") is (method == "HEAD")
        assert int(dict(answer.headers)[b"content-length"]) > 50

    run(test)


def test_a_projects_host_is_no_way_to_another_project() -> None:
    """`/fn/{slug}/` is read on the bare host alone; elsewhere it is a function's name and path
    (interface.md 1; T1).
    """

    async def test(rig: Rig) -> None:
        await rig.deploy("echo", rig.add("other", Identity()))
        for host in (HOST, b"other.fn.localhost"):
            answer = await rig.ask(b"/fn/other/echo", host=host)
            assert (answer.status, answer.error["details"]["id"]) == (404, "fn")
        await rig.deploy("fn")
        answer = await rig.ask(b"/fn/other/echo")
        assert answer.json["target"] == "/other/echo"
        assert stamped(answer)["x-amba-project-id"] == ["id-of-local"]

    run(test, fn=echo)

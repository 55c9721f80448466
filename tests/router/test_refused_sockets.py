"""A guest that answers a WebSocket with a response: its words pass, within bounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from amba_router.asgi import Message, Receive, Scope, Send
from amba_router.dispatch import Dispatcher
from amba_router.hosts import Hosts
from amba_router.identity import Identities
from amba_router.journal import Invocation, Journal, LimitEvent
from amba_router.routes import Project, Projects, Route
from amba_router.signing import Keyring
from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.engine.base import Refused, Surroundings
from amba_runtime.engine.fake import FakeEngine, FakeIsolate, FakeRequest, FakeResponse
from amba_runtime.limits import KIB, FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.outcome import Breach, Outcome, Tell
from amba_runtime.slot import Slot
from amba_runtime.wire import Headers, Request, Response

ID = ProjectId("11111111-2222-4333-8444-555555555555")
KIB_MOST = 4


class _Isolate(FakeIsolate):
    fields: Headers
    asked: Headers

    async def socket(self, target: bytes, headers: Headers, subprotocols: Sequence[str]) -> Any:
        self.asked.extend(headers)
        raise Refused(418, self.fields, b"the guest's own words")


class _Engine(FakeEngine):
    """Its guests refuse every WebSocket, with these fields; b"" stands for the tell's name."""

    def __init__(self, fields: Headers) -> None:
        super().__init__({"f": _nothing})
        self.fields = fields
        self.asked: Headers = []

    async def start(
        self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
    ) -> FakeIsolate:
        isolate = _Isolate(self.handlers["f"], surroundings)
        tell = surroundings.tell_header
        isolate.asked = self.asked
        isolate.fields = [(name or tell, value) for name, value in self.fields]
        self.isolates.append(isolate)
        return isolate


async def _nothing(_request: FakeRequest) -> FakeResponse:
    return FakeResponse()


async def _nowhere(_request: Request) -> Response:
    raise AssertionError("egress was asked")


async def _no_plane(*_: Any) -> None:
    raise AssertionError("another plane was asked")


def _quiet(_slot: Slot, _request_id: str, _tell: Tell) -> None:
    """Late lines are another test's."""


def asked(
    fields: Headers, *own: tuple[bytes, bytes], engine: _Engine | None = None
) -> tuple[int, bytes, list[Invocation], list[LimitEvent]]:
    """Status and body of the answer to one request for a WebSocket, and what is told of it."""
    told: list[Invocation] = []
    breaches: list[LimitEvent] = []

    async def main() -> list[Message]:
        clock = ManualClock()
        journal = Journal(clock)
        journal.listen(told.extend, _quiet, breaches.append)
        slot = Slot(
            engine or _Engine(fields),
            Manifest(ID, FunctionName("f"), 1),
            Bundle.of(b""),
            limits_=FunctionLimits.dev().override({"response_header_kib": KIB_MOST}),
            egress=_nowhere,
            storage=None,
            late=_quiet,
            clock=clock,
        )
        projects = Projects()
        identities = Identities(ID, session_key=b"k" * 32, clock=clock)
        project = Project(ID, "local", Keyring((b"s" * 32,)), identities)
        project.routes[b"f"] = Route(FunctionName("f"), slot)
        projects.add(project)
        dispatcher = Dispatcher(
            hosts=Hosts(suffix="fn.x", cdn_suffix="cdn.x", platform=frozenset()),
            projects=projects,
            journal=journal,
            clock=clock,
            platform=_no_plane,
            cdn=_no_plane,
        )
        scope: Scope = {
            "type": "websocket",
            "raw_path": b"/f",
            "path": "/f",
            "query_string": b"",
            "headers": [(b"host", b"local.fn.x"), *own],
            "client": ("127.0.0.9", 5),
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
        }
        sent = await _sent(dispatcher, scope)
        await slot.retire(drain_s=0)
        journal.flush()
        return sent

    start, body = asyncio.run(main())
    assert start["type"] == "websocket.http.response.start"
    return start["status"], body["body"], told, breaches


async def _sent(dispatcher: Dispatcher, scope: Scope) -> list[Message]:
    sent: list[Message] = []

    async def connect() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    receive: Receive = connect
    answer: Send = send
    await dispatcher(scope, receive, answer)
    return sent


def fields_of(size: int) -> Headers:
    """One field that is `size` bytes as it is sent."""
    return [(b"a", b"x" * (size - len(b"a: \r\n")))]


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b"a", b"1"), (b"connection", b"close")],
        fields_of(KIB_MOST * KIB),
        [(b"a", b"")] * limits.RESPONSE_HEADERS.value,
    ],
    ids=["none", "some", "as many bytes as may be", "as many as may be"],
)
def test_a_guests_refusal_is_the_answer(fields: Headers) -> None:
    """Its own status and words, up to the bounds of a head themselves (2.3; contract A.7)."""
    status, body, told, breaches = asked(fields)
    assert (status, body) == (418, b"the guest's own words")
    assert [(i.status, i.outcome) for i in told] == [(418, Outcome.OK)]
    assert breaches == []


@pytest.mark.parametrize(
    ("fields", "breach"),
    [
        (fields_of(KIB_MOST * KIB + 1), Breach("response_header_kib", KIB_MOST + 1, KIB_MOST)),
        ([(b"a", b"")] * (limits.RESPONSE_HEADERS.value + 1), Breach("response_headers", 201, 200)),
    ],
    ids=["bytes", "fields"],
)
def test_a_refusal_with_too_large_a_head_is_none(fields: Headers, breach: Breach) -> None:
    """502 with the bound that was passed; nothing of the guest's gets out (2.3)."""
    status, body, told, breaches = asked(fields)
    assert status == 502
    assert b"the guest" not in body
    assert json.loads(body)["error"]["details"]["limit"] == breach.limit
    assert [(i.status, i.outcome) for i in told] == [(502, Outcome.INTERNAL_ERROR)]
    assert [(e.breach, e.action) for e in breaches] == [(breach, "refused")]


def test_a_handler_that_threw_is_no_refusal_of_its_own() -> None:
    """500 as for any request, and the exception is told (contract A.5, A.7)."""
    line = b'{"o":"exception","e":[["Error","on purpose","",1]]}'
    status, body, told, _ = asked([(b"", line)])
    assert status == 500
    error = json.loads(body)["error"]
    assert (error["code"], error["message"]) == ("unhandled_exception", "on purpose")
    assert [(i.status, i.outcome) for i in told] == [(500, Outcome.EXCEPTION)]
    assert told[0].tell is not None
    assert told[0].tell.exceptions[0].message == "on purpose"


def test_the_handshake_is_the_edges_own() -> None:
    """A guest sees what a caller says besides, and who it is, but no field of the handshake: its
    own is made anew (RFC 6455 4.2; contract A.3).
    """
    engine = _Engine([])
    handshake = [(b"sec-websocket-" + name, b"x") for name in (b"key", b"version", b"extensions")]
    forged = [(b"x-amba-user-id", b"evil"), (b"upgrade", b"websocket")]
    asked([], *handshake, (b"cookie", b"sec-websocket-"), *forged, engine=engine)
    seen = dict(engine.asked)
    assert [name for name in seen if name.startswith(b"sec-websocket-")] == []
    assert seen[b"cookie"] == b"sec-websocket-"
    assert (seen[b"x-amba-user-id"], seen[b"x-amba-function-name"]) == (b"", b"f")

"""The platform API on a real store, with a host that starts nothing, asked without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from amba_router.api.app import Api
from amba_router.api.callers import Directory
from amba_router.asgi import Message
from amba_router.control.host import Trial
from amba_router.control.plane import ControlPlane
from amba_router.journal import Journal
from amba_router.routes import Projects
from amba_router.services.storage.service import StorageService
from amba_router.store import database
from amba_router.store.control import ControlStore
from amba_router.store.control_records import (
    Credentials,
    Deployment,
    ProjectRecord,
    ProjectState,
)
from amba_router.store.on_demand import OnDemand
from amba_router.store.queue_records import DeliveredNow, Verdict
from amba_router.store.state import State
from amba_run.emulation import Emulation
from amba_run.triggering import Triggers
from amba_runtime.clock import ManualClock
from amba_runtime.egress_rules import EgressRules
from amba_runtime.manifest import Bundle, FunctionName
from amba_runtime.outcome import LogLine, Outcome
from amba_runtime.secret import SecretText
from amba_runtime.violations import Rejected, Violation, ViolationCode

_SQLALCHEMY = database.__name__
"""Half a second to load: not in the time of whichever test comes first."""

CODE = b"export default { fetch() { return new Response('hello') } }"
REJECTED = b"import 'left-behind'"


@dataclass
class FakeTrial:
    """What `FakeHost.trial` gives."""

    name: str
    version: int
    bundle: Bundle
    limits: Mapping[str, int]
    env: dict[str, str]
    storage: bool
    egress: EgressRules
    handlers: tuple[str, ...] = ("fetch",)
    warnings: tuple[str, ...] = ()


@dataclass
class FakeHost:
    """Runs nothing; remembers what it was told.

    Attributes:
        stale: the names of functions whose trial had secrets that were gone.
        gate: while it is set, a trial waits for it.
        handlers: what every function exports.
        pushes_fail: so many pushes still raise.
    """

    trials: list[FakeTrial] = field(default_factory=lambda: list[FakeTrial]())
    discarded: list[FakeTrial] = field(default_factory=lambda: list[FakeTrial]())
    serving: dict[tuple[str, str], Deployment] = field(
        default_factory=lambda: dict[tuple[str, str], Deployment]()
    )
    projects: dict[str, ProjectState] = field(default_factory=lambda: dict[str, ProjectState]())
    credentials: dict[str, Credentials] = field(default_factory=lambda: dict[str, Credentials]())
    pats: list[tuple[bytes, str]] = field(default_factory=lambda: list[tuple[bytes, str]]())
    pushed: list[tuple[str | None, str, str]] = field(
        default_factory=lambda: list[tuple[str | None, str, str]]()
    )
    stale: list[str] = field(default_factory=lambda: list[str]())
    gate: asyncio.Event | None = None
    handlers: tuple[str, ...] = ("fetch",)
    pushes_fail: int = 0
    push_tries: int = 0
    _tried: asyncio.Event = field(default_factory=asyncio.Event)

    async def tried(self, count: int) -> None:
        """Wait until so many trials have begun."""
        while len(self.trials) < count:
            self._tried.clear()
            await self._tried.wait()

    async def push_tried(self, count: int) -> None:
        """Wait until so many pushes have been tried."""
        while self.push_tries < count:
            self._tried.clear()
            await self._tried.wait()

    async def trial(
        self,
        project: ProjectRecord,
        name: FunctionName,
        bundle: Bundle,
        *,
        version: int,
        limits: Mapping[str, int],
        env: tuple[tuple[str, SecretText], ...],
        storage: bool,
        egress: EgressRules,
    ) -> FakeTrial:
        plain = {key: value.reveal() for key, value in env}
        trial = FakeTrial(name, version, bundle, limits, plain, storage, egress, self.handlers)
        self.trials.append(trial)
        self._tried.set()
        if self.gate is not None:
            await self.gate.wait()
        if bundle.code == REJECTED:
            fix = "bundle it"
            raise Rejected(
                (
                    Violation(
                        ViolationCode.EXTERNAL_IMPORT,
                        "an import is left",
                        fix,
                        file="hello.ts",
                        line=1,
                        column=8,
                        chain=("hello.ts",),
                    ),
                    Violation(ViolationCode.NO_HANDLER, "no handler", fix),
                )
            )
        return trial

    async def discard(self, trial: Trial) -> None:
        assert isinstance(trial, FakeTrial)
        self.discarded.append(trial)

    def activate(self, deployment: Deployment, trial: Trial, *, stale: bool = False) -> None:
        if stale:
            self.stale.append(deployment.name)
        self.serving[deployment.project_id, deployment.name] = deployment

    def remove(self, project_id: str, name: str) -> None:
        self.serving.pop((project_id, name), None)

    def add_project(self, state: ProjectState) -> None:
        self.projects[state.record.id] = state

    def remove_project(self, project_id: str) -> None:
        del self.projects[project_id]

    def set_credentials(self, project_id: str, credentials: Credentials) -> None:
        self.credentials[project_id] = credentials

    def set_pats(self, pats: Sequence[tuple[bytes, str]]) -> None:
        self.pats = list(pats)

    async def push_secret(
        self, project_id: str, function: str | None, name: str, value: SecretText
    ) -> None:
        self.push_tries += 1
        self._tried.set()
        if self.pushes_fail:
            self.pushes_fail -= 1
            raise OSError(f"the socket is gone, and {value.reveal()} with it")
        self.pushed.append((function, name, value.reveal()))

    def fn_url(self, slug: str, name: str) -> str:
        return f"http://{slug}.fn.localhost:8788/{name}"


@dataclass
class FakePump:
    """Delivers nothing; remembers what it was told."""

    woken: list[tuple[str, str, int | None, bool]] = field(
        default_factory=lambda: list[tuple[str, str, int | None, bool]]()
    )
    failing: dict[tuple[str, str], int] = field(default_factory=lambda: dict[Any, int]())
    delivered: list[tuple[str, str, tuple[str, ...]]] = field(
        default_factory=lambda: list[tuple[str, str, tuple[str, ...]]]()
    )

    def wake(
        self, project_id: str, queue: str, due_ms: int | None = None, *, changed: bool = False
    ) -> None:
        self.woken.append((project_id, queue, due_ms, changed))

    def fail_next(self, project_id: str, queue: str, count: int) -> None:
        self.failing[project_id, queue] = count

    async def deliver(
        self, project_id: str, queue: str, function: str, payloads: Sequence[str]
    ) -> DeliveredNow:
        self.delivered.append((queue, function, tuple(payloads)))
        line = LogLine("log", ["hello", 1], 5)
        verdicts = (("m-1", Verdict(True)), ("m-2", Verdict(False, 7)), ("m-3", Verdict(False)))
        return DeliveredNow("r-1", Outcome.EXCEPTION, "it threw", 1.5, verdicts, (line,))


class FakeTriggers:
    """Queues at rest, whose functions are those that the host serves; schedules are real."""

    def __init__(self, host: FakeHost, pump: FakePump, real: Triggers) -> None:
        self.queues = pump
        self.functions = self
        self.schedules = real.schedules
        self.declared = real.declared
        self._host = host
        self.real = real

    async def close(self) -> None:
        await self.real.close()

    def handlers(self, project_id: str, name: str) -> tuple[str, ...] | None:
        serving = self._host.serving.get((project_id, name))
        return None if serving is None else serving.handlers


@dataclass
class FakeLogs:
    """Gives what it was given."""

    asked: list[dict[str, Any]] = field(default_factory=lambda: list[dict[str, Any]]())
    stored: list[dict[str, Any]] = field(default_factory=lambda: list[dict[str, Any]]())

    async def events(
        self, project_id: str, name: str, **wanted: Any
    ) -> tuple[list[dict[str, Any]], bool]:
        self.asked.append({"name": name, **wanted})
        return self.stored, len(self.stored) > 1


@dataclass(frozen=True)
class Got:
    """An answer."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def data(self) -> Any:
        assert self.status in (200, 201), self.raw
        return self.body["data"]

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])

    @property
    def said(self) -> tuple[int, str]:
        return self.status, self.code

    @property
    def details(self) -> Any:
        return self.body["error"]["details"]


class World:
    """A state directory, a store, a host, an app and one developer. `async with`."""

    pat: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.host = FakeHost()
        self.logs = FakeLogs()
        self.projects = Projects()
        self.pump = FakePump()

    async def __aenter__(self) -> Self:
        self.state = await State.open(self.folder / "state", self.clock)
        self.states = OnDemand(self.state, self.clock)
        self.storage = StorageService(self.states, self.clock)
        self.store = ControlStore(self.state, self.clock)
        if not await self.store.has_pat():
            self.pat = await self.store.add_pat("dev_1")
        await self.restart()
        return self

    async def restart(self) -> None:
        """The app anew, from what the store has."""
        directory = Directory(await self.store.snapshot(), self.clock)
        real = Triggers(self.projects, Journal(self.clock), self.states, self.clock)
        self.triggers = FakeTriggers(self.host, self.pump, real)
        self.plane = ControlPlane(
            store=self.store,
            host=self.host,
            logs=self.logs,
            directory=directory,
            clock=self.clock,
            timetable=self.triggers.declared,
        )
        self.emulation = Emulation(
            self.states, self.storage, directory, self.clock, triggers=self.triggers
        )
        self.app = Api(
            (self.plane.operations, *self.emulation.parts()),
            directory,
            self.clock,
            users=self.emulation,
            version="1.2.3",
        )

    async def __aexit__(self, *_: object) -> None:
        await self.plane.close()
        await self.emulation.close()
        await self.state.close()

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes | Sequence[Message] = b"",
        *,
        token: str | None = "",
        type_: str | None = "application/json",
        headers: Sequence[tuple[str, str]] = (),
    ) -> Got:
        """One request. Args: token: "" for this world's PAT, None for none."""
        url = urlsplit(target)
        fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        if token is not None:
            fields.append((b"authorization", f"Bearer {token or self.pat}".encode("latin-1")))
        if type_ is not None:
            fields.append((b"content-type", type_.encode()))
        messages: list[Message] = (
            [{"type": "http.request", "body": body, "more_body": False}]
            if isinstance(body, bytes)
            else list(body)
        )
        sent: list[Message] = []

        async def receive() -> Message:
            if not messages:
                await asyncio.get_running_loop().create_future()
            return messages.pop(0)

        async def send(message: Message) -> None:
            sent.append(message)

        path = target.partition("?")[0]
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": url.query.encode(),
            "headers": fields,
            "amba.request_id": "req-1",
        }
        await self.app(scope, receive, send)
        start, *pieces = sent
        assert [piece.get("more_body", False) for piece in pieces][-1:] == [False]
        names = {name.decode(): value.decode() for name, value in start["headers"]}
        raw = b"".join(piece["body"] for piece in pieces)
        assert "content-type" in names or not raw
        return Got(start["status"], names, raw)

    async def get(self, target: str, **more: Any) -> Got:
        return await self.ask("GET", target, **more)

    async def post(self, target: str, body: object = None, **more: Any) -> Got:
        return await self.ask("POST", target, json.dumps(body).encode(), **more)

    async def delete(self, target: str, **more: Any) -> Got:
        return await self.ask("DELETE", target, **more)

    def session(self, project_id: str, user_id: str) -> str:
        """A session token of a user, who is made at its first use."""
        return self.app.directory.mint_session(project_id, user_id, anonymous_id=None)

    async def as_client(
        self, method: str, target: str, body: object = None, *, project: Any, user: str = ""
    ) -> Got:
        """Of the client plane. Args: project: as `project` gave it; user: "" is nobody."""
        return await self.ask(
            method,
            target,
            b"" if body is None else json.dumps(body).encode(),
            token=self.session(project["id"], user) if user else None,
            headers=[("x-api-key", project["api_keys"]["client"]["key"])],
        )

    async def as_user(
        self, method: str, target: str, body: object = None, *, project: Any, user: str
    ) -> Got:
        """A server key that asks for a user (H-9)."""
        key = project["api_keys"]["server"]["key"]
        return await self.ask(
            method,
            target,
            b"" if body is None else json.dumps(body).encode(),
            token=None,
            headers=[("x-api-key", key), ("x-amba-as-user", user)],
        )

    async def project(self, name: str = "Shop", **more: Any) -> Any:
        """A new project's data."""
        return (await self.post("/v1/admin/projects", {"name": name, **more})).data

    async def deploy(
        self, project_id: str, name: str = "hello", code: bytes = CODE, **more: Any
    ) -> Got:
        """Upload as the platform's own command line does."""
        metadata = json.dumps({"name": name, "rate_limit": None, **more}).encode()
        return await self.upload(project_id, [script(code, name), meta(metadata)])

    async def upload(self, project_id: str, parts: Sequence[Part], **more: Any) -> Got:
        """A multipart upload of these parts."""
        return await self.ask(
            "POST",
            f"/v1/admin/projects/{project_id}/functions/deploy",
            more.pop("body", None) or multipart(parts),
            type_=more.pop("type_", "multipart/form-data; boundary=XX"),
            **more,
        )


@dataclass(frozen=True)
class Part:
    """One part of a multipart body; None leaves a header or a parameter out."""

    name: str | None
    body: bytes
    filename: str | None = None
    type_: str | None = None
    extra: str = ""


def script(code: bytes = CODE, name: str = "hello", **changed: Any) -> Part:
    """As contract D.2 has it."""
    fields = {"filename": f"{name}.js", "type_": "application/javascript+module", **changed}
    return Part("script", code, **fields)


def meta(body: bytes = b'{"name": "hello", "rate_limit": null}', **changed: Any) -> Part:
    """As contract D.2 has it."""
    fields = {"filename": "metadata.json", "type_": "application/json", **changed}
    return Part("metadata", body, **fields)


def multipart(parts: Sequence[Part], boundary: str = "XX", *, closed: bool = True) -> bytes:
    """The body, as undici writes it."""
    out = bytearray()
    for part in parts:
        out += f"--{boundary}\r\nContent-Disposition: form-data".encode()
        if part.name is not None:
            out += f'; name="{part.name}"'.encode()
        if part.filename is not None:
            out += f'; filename="{part.filename}"'.encode()
        if part.type_ is not None:
            out += f"\r\nContent-Type: {part.type_}".encode()
        out += f"{part.extra}\r\n\r\n".encode() + part.body + b"\r\n"
    if closed:
        out += f"--{boundary}--\r\n".encode()
    return bytes(out)


def pieces(data: bytes, size: int = 64 * 1024, *, then: str = "end") -> list[Message]:
    """A body that comes in pieces. Args: then: `end`, `leave` (the client goes), `hang`."""
    messages: list[Message] = [
        {"type": "http.request", "body": data[at : at + size], "more_body": True}
        for at in range(0, len(data), size)
    ]
    if then == "end":
        messages.append({"type": "http.request", "body": b"", "more_body": False})
    elif then == "leave":
        messages.append({"type": "http.disconnect"})
    return messages

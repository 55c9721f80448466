"""The node as the control plane sees it, on the fake engine and a real state directory."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amba_router.api.faults import Refused
from amba_router.rate_limit import RateLimit
from amba_router.signing import Keyring, Stamp
from amba_router.store.control import ControlStore
from amba_router.store.control_records import (
    CreatedProject,
    Credentials,
    Deployment,
    NewDeployment,
    NewProject,
    ProjectState,
)
from amba_router.store.state import State
from amba_run.addresses import Addresses
from amba_run.hosting import Hosting
from amba_run.node import Node
from amba_runtime.admission import Rejected, Scanned
from amba_runtime.clock import ManualClock, SystemClock
from amba_runtime.egress_rules import NO_RULES, EgressRules
from amba_runtime.engine.base import StartFailed, Surroundings
from amba_runtime.engine.fake import FakeEngine, FakeIsolate, FakeRequest, FakeResponse
from amba_runtime.errors import InternalError
from amba_runtime.manifest import Bundle, FunctionName, Manifest
from amba_runtime.pool import Pool
from amba_runtime.secret import SecretText
from amba_runtime.wire import WireError

CODE = b"export default { fetch() { return new Response('hi') } }\n//"


class _Engine(FakeEngine):
    """Guests that answer with what they were given: their env, their headers, their version."""

    def __init__(self) -> None:
        super().__init__({})
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0
        self.deaf = False
        self.deafened = 0

    async def start(
        self, manifest: Manifest, bundle: Bundle, surroundings: Surroundings
    ) -> FakeIsolate:
        gate = self.gate
        self.waiting += not gate.is_set()
        await gate.wait()
        if b"throw" in bundle.code:
            raise StartFailed("Uncaught Error: no")
        env = dict(manifest.env)

        async def answer(request: FakeRequest) -> FakeResponse:
            headers = {n.decode(): v.decode() for n, v in request.headers}
            seen = {"version": manifest.version, "env": env | isolate.env, "headers": headers}
            return FakeResponse(body=json.dumps(seen).encode())

        isolate = _Isolate(answer, surroundings, self)
        self.isolates.append(isolate)
        return isolate

    @property
    def running(self) -> int:
        return sum(isolate.alive for isolate in self.isolates)


class _Isolate(FakeIsolate):
    def __init__(self, handler: Any, surroundings: Surroundings, engine: _Engine) -> None:
        super().__init__(handler, surroundings)
        self._engine = engine

    async def configure(self, values: Mapping[str, str]) -> None:
        if self._engine.deaf:
            self._engine.deafened += 1
            raise WireError("it did not listen")
        await super().configure(values)


async def _scan(code: bytes) -> Scanned:
    return Scanned((), "esm", ("default",))


class World:
    """A listening node with one project, and what the control plane would do to it."""

    def __init__(self, state: State, node: Node, pool: Pool, engine: _Engine) -> None:
        self.node = node
        self.pool = pool
        self.engine = engine
        self.store = ControlStore(state, SystemClock())
        self.clock = ManualClock()
        """Of the hosting alone: it tells when something is tried again."""
        self.hosting = Hosting(node, self.store, scan=_scan, clock=self.clock)
        self.project: CreatedProject

    async def add_project(self, name: str = "acme", developer: str = "d_1") -> CreatedProject:
        made = await self.store.create_project(
            NewProject(name, name, "all", "development", None, developer)
        )
        self.hosting.add_project(ProjectState(made.record, made.credentials, (), ()))
        return made

    async def try_out(self, name: str = "f", code: bytes = CODE, **more: Any) -> Any:
        project = more.pop("project", self.project)
        version = await self.store.next_version(project.record.id, name)
        return version, await self.hosting.trial(
            project.record,
            FunctionName(name),
            Bundle.of(code, source_map=more.pop("source_map", None)),
            version=version,
            limits=more.pop("limits", {}),
            env=await self.store.secrets_for_new(project.record.id, name),
            storage=False,
            egress=more.pop("egress", NO_RULES),
        )

    async def commit(self, name: str, version: int, trial: Any, **more: Any) -> Deployment:
        project = more.pop("project", self.project)
        stale = more.pop("stale", False)
        code, source_map = more.pop("code", CODE), more.pop("source_map", None)
        bundle = Bundle.of(code, source_map=source_map)
        deployment = await self.store.add_deployment(
            NewDeployment(project.record.id, name, version, bundle, trial.handlers, **more)
        )
        self.hosting.activate(deployment, trial, stale=stale)
        return deployment

    async def deploy(self, name: str = "f", **more: Any) -> Deployment:
        kept = {k: more[k] for k in ("project", "source_map", "code") if k in more}
        version, trial = await self.try_out(name, **kept)
        return await self.commit(name, version, trial, **more)

    async def ask(self, name: str = "f", slug: str = "acme", **headers: str) -> tuple[int, Any]:
        def request() -> tuple[int, Any]:
            connection = http.client.HTTPConnection("127.0.0.1", self.node.port, timeout=5)
            try:
                connection.request("GET", f"/fn/{slug}/{name}", headers=headers)
                response = connection.getresponse()
                return response.status, json.loads(response.read())
            finally:
                connection.close()

        return await asyncio.to_thread(request)

    async def seen(self, name: str = "f", **headers: str) -> Any:
        status, seen = await self.ask(name, **headers)
        assert status == 200
        return seen

    async def rotate(self, which: str) -> Credentials:
        id_ = self.project.record.id
        credentials = await self.store.rotate_internal(id_, which=which)
        self.hosting.set_credentials(id_, credentials)
        return credentials

    async def begin_rekey(self) -> Callable[[], bool]:
        """Rotate the signing secret; one replacement has read its env and is held at the gate.

        Returns:
            Whether stamps have switched.
        """
        old = self.node.projects.get("acme")
        self.engine.gate.clear()
        await self.rotate("header_signing_secret")
        await self.until(lambda: self.engine.waiting == 1)
        return lambda: self.node.projects.get("acme") is not old

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not true():  # noqa: ASYNC110  the loop itself is what is waited for
                await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def _world(path: Path, *, hard: int = 64) -> AsyncGenerator[World]:
    clock = SystemClock()
    state = await State.open(path, clock)
    engine = _Engine()
    pool = Pool(clock, most=min(hard, 64), hard=hard)
    node = Node(engine=engine, clock=clock, state=state, room=pool)
    world = World(state, node, pool, engine)
    try:
        await node.open(host="127.0.0.1", port=0)
        await node.listen()
        yield world
    finally:
        engine.gate.set()
        await pool.close()
        await world.hosting.close()
        await node.close()
        await state.close()
    assert engine.running == 0


def hosted(path: Path, body: Callable[[World], Awaitable[None]], *, hard: int = 64) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), _world(path / "state", hard=hard) as world:
            world.project = await world.add_project()
            await body(world)

    asyncio.run(run())


# --- versions ---


def test_a_trial_serves_nothing_until_it_is_active(tmp_path: Path) -> None:
    """404 before, served after, by the very isolate that was tried (architecture.md 4, 7)."""

    async def body(world: World) -> None:
        version, trial = await world.try_out()
        assert (trial.handlers, trial.warnings) == (("fetch",), ())
        assert (await world.ask())[0] == 404
        await world.commit("f", version, trial)
        assert (await world.seen())["version"] == 1
        assert len(world.engine.isolates) == 1
        await world.deploy()
        assert (await world.seen())["version"] == 2
        await world.until(lambda: world.engine.running == 1)

    hosted(tmp_path, body)


def test_a_trial_that_is_discarded_leaves_nothing(tmp_path: Path) -> None:
    """Twice is as good as once; what served goes on serving."""

    async def body(world: World) -> None:
        await world.deploy()
        _, trial = await world.try_out()
        assert world.engine.running == 2
        await world.hosting.discard(trial)
        await world.hosting.discard(trial)
        assert world.engine.running == 1
        assert (await world.seen())["version"] == 1

    hosted(tmp_path, body)


def test_a_bundle_that_may_not_serve_is_rejected(tmp_path: Path) -> None:
    """With its violations; counted by code."""

    async def body(world: World) -> None:
        with pytest.raises(Rejected) as caught:
            await world.try_out(code=b"throw new Error('no')")
        codes = {str(v.code) for v in caught.value.violations}
        assert set(world.hosting.metrics.refusals) == codes
        assert world.engine.running == 0

    hosted(tmp_path, body)


def test_limits_are_lowered_to_the_nodes_and_that_is_said(tmp_path: Path) -> None:
    """A node clamps to its own maxima (interface.md 4)."""

    async def body(world: World) -> None:
        _, trial = await world.try_out(limits={"first_byte_ms": 90_000, "idle_ms": 5})
        assert trial.slot.limits.first_byte_ms == 25_000
        assert trial.slot.limits.idle_ms == 5
        assert trial.warnings == ("first_byte_ms is 25000 on this node, not 90000",)
        await world.hosting.discard(trial)

    hosted(tmp_path, body)


def test_a_full_node_tries_nothing_out(tmp_path: Path) -> None:
    """503 for the deployer, and what serves is not touched; a trial is no idle isolate."""

    async def body(world: World) -> None:
        _, trial = await world.try_out()
        with pytest.raises(Refused) as caught:
            await world.try_out("g")
        assert caught.value.problem.status == 503
        assert caught.value.problem.retry_after_s == 1
        await world.hosting.discard(trial)
        await world.deploy("g")
        assert (await world.ask("g"))[0] == 200

    hosted(tmp_path, body, hard=1)


def test_what_was_removed_is_gone_at_once(tmp_path: Path) -> None:
    """404 from the next request on; removing it again does nothing (J check 15)."""

    async def body(world: World) -> None:
        await world.deploy()
        id_ = world.project.record.id
        world.hosting.remove(id_, "f")
        assert (await world.ask())[0] == 404
        world.hosting.remove(id_, "f")
        world.hosting.remove("no such project", "f")
        await world.until(lambda: world.engine.running == 0)
        await world.deploy()
        assert (await world.seen())["version"] == 2

    hosted(tmp_path, body)


def test_a_thousand_functions_come_back_asleep(tmp_path: Path) -> None:
    """Nothing is started until its first request; then it is what was deployed (issue 3, 5)."""

    async def body(world: World) -> None:
        await world.store.set_secret(world.project.record.id, "KEY", SecretText("v"), None)
        for name in ("f", "g"):
            await world.deploy(name)
        snapshot = await world.store.snapshot()
        world.hosting.remove_project(world.project.record.id)
        assert (await world.ask())[0] == 404
        await world.until(lambda: world.engine.running == 0)
        started = world.pool.starts
        world.hosting.restore(snapshot)
        assert world.pool.starts == started
        seen = await world.seen()
        assert (seen["version"], seen["env"]["KEY"]) == (1, "v")
        assert seen["env"]["AMBA_API_URL"] == world.node.origin
        assert world.pool.starts == started + 1

    hosted(tmp_path, body)


# --- projects and who calls ---


def test_a_removed_project_is_unknown_and_its_trial_ends(tmp_path: Path) -> None:
    """What was on trial for it never serves."""

    async def body(world: World) -> None:
        await world.deploy()
        _, trial = await world.try_out()
        deployment = await world.store.find_deployment(world.project.record.id, version=1)
        assert deployment is not None
        world.hosting.remove_project(world.project.record.id)
        world.hosting.remove_project(world.project.record.id)
        assert (await world.ask())[1]["error"]["code"] == "PROJECT_NOT_FOUND"
        world.hosting.activate(deployment, trial)
        with pytest.raises(Refused) as caught:
            await world.try_out()
        assert caught.value.problem.status == 404
        await world.until(lambda: world.engine.running == 0)

    hosted(tmp_path, body)


def test_a_pat_speaks_for_its_developer_in_that_developers_projects(tmp_path: Path) -> None:
    """Elsewhere, and once it is revoked, for nobody (contract A.6)."""

    async def body(world: World) -> None:
        other = await world.add_project("other", developer="d_2")
        await world.deploy()
        await world.deploy(project=other)
        pat = "amb_dpat_" + "p" * 32
        hashed = hashlib.sha256(pat.encode()).digest()
        bearer = {"Authorization": f"Bearer {pat}"}

        async def developers() -> list[str]:
            return [
                (await world.ask(slug=slug, **bearer))[1]["headers"]["x-amba-developer-id"]
                for slug in ("acme", "other")
            ]

        world.hosting.set_pats([(hashed, "d_1")])
        assert await developers() == ["d_1", ""]
        assert world.hosting.knows_developer(hashed)
        world.hosting.set_pats([])
        assert await developers() == ["", ""]
        assert not world.hosting.knows_developer(hashed)

    hosted(tmp_path, body)


# --- rate limits ---


def test_a_rate_limit_comes_and_goes_with_its_deployment(tmp_path: Path) -> None:
    """The same one goes on counting over a redeploy; none is none (D.8)."""

    async def body(world: World) -> None:
        limit = RateLimit("1h", 3600, 2, "ip")
        await world.deploy(rate_limit=limit)
        assert (await world.ask())[0] == 200
        await world.deploy(rate_limit=limit)
        assert [(await world.ask())[0] for _ in range(2)] == [200, 429]
        assert world.hosting.metrics.refusals["rate_limited"] == 1
        await world.deploy(rate_limit=RateLimit("1h", 3600, 1, "ip"))
        assert [(await world.ask())[0] for _ in range(2)] == [200, 429]
        await world.deploy()
        assert [(await world.ask())[0] for _ in range(3)] == [200] * 3

    hosted(tmp_path, body)


# --- secrets and credentials ---


def test_a_secret_reaches_what_runs_and_what_starts_later(tmp_path: Path) -> None:
    """A function's own wins over the project's, also when that is set later (C.2, H-12)."""

    async def body(world: World) -> None:
        id_ = world.project.record.id
        for name in ("f", "g", "asleep"):
            await world.deploy(name)
        asleep = world.node.projects.all()[0].routes[b"asleep"].slot
        assert asleep is not None
        await asleep.evict()

        async def set_secret(value: str, function: str | None) -> None:
            await world.store.set_secret(id_, "KEY", SecretText(value), function)
            await world.hosting.push_secret(id_, function, "KEY", SecretText(value))

        await set_secret("own", "g")
        await set_secret("all", None)
        isolates = len(world.engine.isolates)
        keys = [(await world.seen(name))["env"].get("KEY") for name in ("f", "g")]
        assert keys == ["all", "own"]
        assert len(world.engine.isolates) == isolates
        assert (await world.seen("asleep"))["env"]["KEY"] == "all"
        await world.hosting.push_secret("no such project", None, "KEY", SecretText("x"))

    hosted(tmp_path, body)


def test_an_isolate_that_cannot_be_told_is_an_error(tmp_path: Path) -> None:
    """The control plane tries again."""

    async def body(world: World) -> None:
        id_ = world.project.record.id
        await world.deploy()
        await world.store.set_secret(id_, "KEY", SecretText("v"), None)
        world.engine.deaf = True
        with pytest.raises(InternalError, match="1 of 1 isolates could not be given KEY"):
            await world.hosting.push_secret(id_, None, "KEY", SecretText("v"))

    hosted(tmp_path, body)


def _verifies(seen: Any) -> bool:
    """What a guest does: verify the stamp with the secret in its own env (A.4)."""
    h = seen["headers"]
    stamp = Stamp(
        h["x-amba-project-id"],
        h["x-amba-user-id"],
        h["x-amba-developer-id"],
        h["x-amba-request-id"],
        h["x-amba-function-name"],
        int(h["x-amba-timestamp"]),
    )
    secret = seen["env"]["EDGE_HEADER_SIGNING_SECRET"]
    return Keyring((secret.encode(),)).verify(stamp, h["x-amba-signature"])


def test_a_new_signing_secret_switches_stamp_and_env_in_one_step(tmp_path: Path) -> None:
    """No request is ever stamped with another secret than its isolate has (A.4; issue 3, 3)."""

    async def body(world: World) -> None:
        id_ = world.project.record.id
        limit = RateLimit("1h", 3600, 50, "ip")
        await world.deploy(rate_limit=limit)
        await world.deploy("asleep")
        before = await world.seen()
        world.engine.gate.clear()
        world.hosting.set_credentials(
            id_, await world.store.rotate_internal(id_, which="header_signing_secret")
        )
        during = await world.seen()
        assert during["env"] == before["env"]
        world.engine.gate.set()

        def switched() -> bool:
            return world.node.projects.get("acme") is not old

        old = world.node.projects.get("acme")
        await world.until(switched)
        after = await world.seen()
        name = "EDGE_HEADER_SIGNING_SECRET"
        assert after["env"][name] != before["env"][name]
        assert all(_verifies(seen) for seen in (before, during, after))
        assert _verifies(await world.seen("asleep"))
        await world.until(lambda: world.engine.running == 2)
        project = world.node.projects.get("acme")
        assert project is not None
        assert project.routes[b"f"].counter is not None
        assert world.pool.starts == 4

    hosted(tmp_path, body)


def test_two_rotations_at_once_end_with_the_newest(tmp_path: Path) -> None:
    """And a version deployed between them has it too."""

    async def body(world: World) -> None:
        id_ = world.project.record.id
        await world.deploy()
        version, trial = await world.try_out()
        world.engine.gate.clear()
        await world.store.rotate_internal(id_, which="header_signing_secret")
        credentials = await world.store.rotate_internal(id_, which="header_signing_secret")
        older = replace(credentials, signing=credentials.signing[1:])
        world.hosting.set_credentials(id_, older)
        world.hosting.set_credentials(id_, credentials)
        first = world.node.projects.get("acme")
        world.engine.gate.set()
        await world.until(lambda: world.node.projects.get("acme") is not first)
        await world.commit("f", version, trial)
        newest = credentials.signing[0].value.reveal()
        async with asyncio.timeout(5):
            while True:
                seen = await world.seen()
                assert _verifies(seen)
                if seen["env"]["EDGE_HEADER_SIGNING_SECRET"] == newest:
                    break
        assert seen["version"] == 2

    hosted(tmp_path, body)


def test_a_new_internal_token_reaches_what_runs(tmp_path: Path) -> None:
    """Without a restart (C.1)."""

    async def body(world: World) -> None:
        id_ = world.project.record.id
        await world.deploy()
        before = (await world.seen())["env"]["AMBA_INTERNAL_TOKEN"]
        credentials = await world.store.rotate_internal(id_, which="internal_token")
        world.hosting.set_credentials(id_, credentials)
        isolate = world.engine.isolates[0]
        await world.until(lambda: "AMBA_INTERNAL_TOKEN" in isolate.env)
        now = (await world.seen())["env"]["AMBA_INTERNAL_TOKEN"]
        assert now == credentials.internal[0].value.reveal() != before
        assert len(world.engine.isolates) == 1
        world.hosting.set_credentials("no such project", credentials)

    hosted(tmp_path, body)


def test_values_that_change_while_a_new_signing_secret_warms_up_are_not_lost(
    tmp_path: Path,
) -> None:
    """Replacements that read the old values are told the new ones, too (C.1, C.2)."""

    async def body(world: World) -> None:
        id_ = world.project.record.id
        await world.deploy()
        await world.store.set_secret(id_, "KEY", SecretText("one"), None)
        switched = await world.begin_rekey()
        await world.store.set_secret(id_, "KEY", SecretText("two"), None)
        pushing = asyncio.create_task(
            world.hosting.push_secret(id_, None, "KEY", SecretText("two"))
        )
        credentials = await world.rotate("internal_token")
        await world.until(lambda: "AMBA_INTERNAL_TOKEN" in world.engine.isolates[0].env)
        assert (await world.seen())["env"]["KEY"] == "two"
        assert not pushing.done()  # nobody is told `synced` before the replacement has it
        world.engine.gate.set()
        await pushing
        await world.until(switched)
        assert (await world.seen())["env"]["KEY"] == "two"
        token = credentials.internal[0].value.reveal()
        isolate = world.engine.isolates[1]
        await world.until(lambda: isolate.env.get("AMBA_INTERNAL_TOKEN") == token)
        assert (await world.seen())["env"]["AMBA_INTERNAL_TOKEN"] == token
        assert len(world.engine.isolates) == 2

    hosted(tmp_path, body)


def test_what_starts_while_a_new_signing_secret_warms_up_verifies(tmp_path: Path) -> None:
    """Cold-started or freshly deployed in between: before the switch and after (A.4, H4)."""

    async def body(world: World) -> None:
        for name in ("f", "cold"):
            await world.deploy(name)
        cold = world.node.projects.all()[0].routes[b"cold"].slot
        assert cold is not None
        await cold.evict()
        tried_before = await world.try_out("before")
        switched = await world.begin_rekey()
        # only the replacement of `f` is held; what starts from here on is not
        held, world.engine.gate = world.engine.gate, asyncio.Event()
        world.engine.gate.set()
        await world.deploy("fresh")
        await world.commit("before", *tried_before)
        tried_across = await world.try_out("across")
        names = ("f", "cold", "fresh", "before")
        for name in names:
            assert _verifies(await world.seen(name)), name
        assert not switched()
        held.set()
        await world.until(switched)
        await world.commit("across", *tried_across)
        secrets = set[str]()
        for name in (*names, "across"):
            seen = await world.seen(name)
            assert _verifies(seen), name
            secrets.add(seen["env"]["EDGE_HEADER_SIGNING_SECRET"])
        assert len(secrets) == 1

    hosted(tmp_path, body)


def test_a_token_that_is_rotated_during_a_trial_is_not_missed(tmp_path: Path) -> None:
    """What was tried with the old one is not what serves (C.1)."""

    async def body(world: World) -> None:
        version, trial = await world.try_out()
        credentials = await world.rotate("internal_token")
        await world.commit("f", version, trial)
        token = credentials.internal[0].value.reveal()
        assert (await world.seen())["env"]["AMBA_INTERNAL_TOKEN"] == token
        await world.until(lambda: world.engine.running == 1)

    hosted(tmp_path, body)


def test_a_token_that_does_not_arrive_is_handed_out_again(tmp_path: Path, caplog: Any) -> None:
    """Until it is there, ever more slowly (limits.SECRET_PUSH_SLOWEST_S); never logged (C.1)."""

    async def body(world: World) -> None:
        async def deafened(tries: int) -> None:
            await world.until(lambda: world.engine.deafened == tries)

        await world.deploy()
        world.engine.deaf = True
        older = await world.rotate("internal_token")
        for tries, wait_s in ((1, 0.2), (2, 0.4), (3, 0.8)):
            await deafened(tries)
            await world.clock.advance(wait_s)
        await deafened(4)
        newer = await world.rotate("internal_token")
        await deafened(5)
        world.engine.deaf = False
        await world.clock.advance(0.2)
        isolate = world.engine.isolates[0]
        await world.until(lambda: "AMBA_INTERNAL_TOKEN" in isolate.env)
        token = newer.internal[0].value.reveal()
        assert (await world.seen())["env"]["AMBA_INTERNAL_TOKEN"] == token
        assert len(world.engine.isolates) == 1
        assert "token.push_failed" in caplog.text
        assert older.internal[0].value.reveal() not in caplog.text
        assert token not in caplog.text

    hosted(tmp_path, body)


def test_a_stale_trial_serves_from_an_isolate_of_its_own(tmp_path: Path) -> None:
    """One that was tried with a secret that is unset by now: it never serves with it (C.2)."""

    async def body(world: World) -> None:
        id_ = world.project.record.id
        await world.store.set_secret(id_, "KEY", SecretText("v"), None)
        version, trial = await world.try_out()
        await world.store.unset_secret(id_, "KEY", None)
        await world.commit("f", version, trial, stale=True)
        seen = await world.seen()
        assert (seen["version"], "KEY" in seen["env"]) == (1, False)
        await world.until(lambda: world.engine.running == 1)

    hosted(tmp_path, body)


def test_a_new_session_key_signs_and_the_old_one_verifies(tmp_path: Path) -> None:
    """At once, and without a restart."""

    async def body(world: World) -> None:
        id_ = world.project.record.id
        await world.deploy()
        project = world.node.projects.get("acme")
        assert project is not None
        old = project.identities.mint_session("u_1")
        credentials = await world.store.rotate_internal(id_, which="session_key")
        world.hosting.set_credentials(id_, credentials)
        assert project.identities.mint_session("u_1") != old
        seen = await world.seen(Authorization=f"Bearer {old}")
        assert seen["headers"]["x-amba-user-id"] == "u_1"
        assert len(world.engine.isolates) == 1

    hosted(tmp_path, body)


# --- stacks ---

MAP = json.dumps(
    {
        "version": 3,
        "sources": ["src/index.ts"],
        "sourcesContent": ["throw new Error('no')\n"],
        "names": [],
        "mappings": "AAAA",
    }
).encode()
STACK = "Error: no\n    at fetch (fn.mjs:1:1)"


def test_stacks_lead_to_the_sources_of_their_version(tmp_path: Path) -> None:
    """By the map that was stored with it; without one they name the bundle."""

    async def body(world: World) -> None:
        id_ = world.project.record.id
        await world.deploy(source_map=MAP)
        await world.deploy()
        for _ in range(2):
            map_stack = await world.hosting.maps.mapper(id_, "f", 1)
            assert "src/index.ts:1:1" in map_stack(STACK)
        plain = "Error: no\n    at fetch (f.js:1:1)"
        assert (await world.hosting.maps.mapper(id_, "f", 2))(STACK) == plain
        assert (await world.hosting.maps.mapper(id_, "f", 9))(STACK) == STACK
        for n in range(6):
            await world.deploy(f"m{n}", source_map=MAP)
            assert "src/index.ts" in (await world.hosting.maps.mapper(id_, f"m{n}", 1))(STACK)
        for blob in (tmp_path / "state" / "blobs").glob("??/*"):
            blob.unlink()
        assert (await world.hosting.maps.mapper(id_, "m0", 1))(STACK) == STACK

    hosted(tmp_path, body)


# --- addresses ---


@pytest.mark.parametrize(
    ("addresses", "fn_url", "cdn"),
    [
        (Addresses(), "http://acme.fn.localhost:{port}/f", "acme.cdn.localhost:{port}"),
        (
            Addresses("fn.example.com", "cdn.example.com", "https://api.example.com"),
            "https://acme.fn.example.com/f",
            "acme.cdn.example.com",
        ),
        (
            Addresses("fn.example.com", "cdn.example.com", "http://api.example.com:8080"),
            "http://acme.fn.example.com:8080/f",
            "acme.cdn.example.com:8080",
        ),
    ],
)
def test_addresses_are_those_of_the_outside(
    tmp_path: Path, addresses: Addresses, fn_url: str, cdn: str
) -> None:
    """`fn_url`, `AMBA_API_URL`, `AMBA_CDN_HOST` by the node's options (interface.md 1)."""

    async def run() -> None:
        clock = SystemClock()
        state = await State.open(tmp_path / "state", clock)
        node = Node(engine=_Engine(), clock=clock, state=state, addresses=addresses)
        try:
            await node.open(host="127.0.0.1", port=0)
            world = World(state, node, Pool(clock), _Engine())
            made = await world.add_project()
            assert world.hosting.fn_url("acme", "f") == fn_url.format(port=node.port)
            env = dict(node.platform_env(made.record.id, Keyring((b"whsec_1",))))
            assert env["AMBA_API_URL"] == (addresses.public_url or node.origin)
            assert env["EDGE_HEADER_SIGNING_SECRET"] == "whsec_1"
            assert env["AMBA_CDN_HOST"] == cdn.format(port=node.port)
            served = node.reach.cdn_url("acme", "b/ä ?.txt").partition("://")
            assert served[0] == fn_url.partition(":")[0]
            assert served[2] == cdn.format(port=node.port) + "/b/%C3%A4%20%3F.txt"
            await world.hosting.close()
        finally:
            await node.close()
            await state.close()

    asyncio.run(run())


def test_a_secret_that_stays_outside_is_a_placeholder_from_its_trial_on(tmp_path: Path) -> None:
    """On trial, active, started again, and after a new value: `env` never has it; what is not
    named is as it was (row G14)."""

    async def body(world: World) -> None:
        id_ = world.project.record.id
        await world.store.set_secret(id_, "KEY", SecretText("canary-one"), None)
        await world.store.set_secret(id_, "PLAIN", SecretText("plain"), None)
        rules = EgressRules.of({"secrets": {"KEY": ["api.stripe.com"]}})
        version, trial = await world.try_out(egress=rules)
        deployment = await world.commit("f", version, trial, egress=rules)
        assert deployment.egress == rules
        first = (await world.seen())["env"]
        assert first["PLAIN"] == "plain"
        assert first["KEY"].startswith("amba_placeholder_")
        slot = world.node.projects.all()[0].routes[b"f"].slot
        assert slot is not None
        await slot.evict()
        assert (await world.seen())["env"]["KEY"] == first["KEY"]
        await world.store.set_secret(id_, "KEY", SecretText("canary-two"), None)
        await world.hosting.push_secret(id_, None, "KEY", SecretText("canary-two"))
        assert (await world.seen())["env"]["KEY"] == first["KEY"]
        assert (await world.seen())["env"]["AMBA_PROJECT_ID"] == id_

    hosted(tmp_path, body)

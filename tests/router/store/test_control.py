"""The whole store against a plain model: any order of calls, with restarts between them."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.router.store.world import blob_names, project

from amba_router.store.control import ControlStore
from amba_router.store.control_records import NewDeployment
from amba_router.store.state import State
from amba_runtime.clock import ManualClock
from amba_runtime.manifest import Bundle
from amba_runtime.secret import SecretText

FUNCTIONS = ("f", "g")
NAMES = ("A", "B")
Key = tuple[str | None, str]
"""Of a secret: function (None for all) and name."""


@dataclass
class Row:
    """A deployment as the model knows it; `env` is what it was last known to have."""

    function: str
    version: int
    code: bytes
    status: str = "active"
    kept: dict[tuple[str | None, str], str] = field(
        default_factory=dict[tuple[str | None, str], str]
    )
    """Values that were unset since, which it keeps while it is active."""


@dataclass
class Model:
    """One project: deployments in order, and secrets by (scope, name)."""

    rows: dict[str, Row] = field(default_factory=dict[str, Row])
    secrets: dict[Key, str] = field(default_factory=dict[tuple[str | None, str], str])

    def of(self, function: str) -> list[Row]:
        return [row for row in self.rows.values() if row.function == function]

    def env(self, row: Row) -> dict[str, str]:
        return self._merged({**row.kept, **self.secrets}, row.function)

    def next_env(self, function: str) -> dict[str, str]:
        return self._merged(self.secrets, function)

    @staticmethod
    def _merged(values: dict[Key, str], function: str) -> dict[str, str]:
        wide = {name: v for (scope, name), v in values.items() if scope is None}
        own = {name: v for (scope, name), v in values.items() if scope == function}
        return {**wide, **own}

    def set(self, scope: str | None, name: str, value: str) -> None:
        self.secrets[scope, name] = value
        for row in self.rows.values():
            row.kept.pop((scope, name), None)

    def unset(self, scope: str | None, name: str) -> bool:
        value = self.secrets.pop((scope, name), None)
        if value is None:
            return False
        for row in self.rows.values():
            if row.status == "active" and scope in (None, row.function):
                row.kept[scope, name] = value
        return True


Step = tuple[str, int, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["deploy", "deploy", "rollback", "disable", "delete", "set", "set", "unset", "restart"]
        ),
        st.integers(0, 1),
        st.integers(0, 1),
        st.integers(0, 5),
    ),
    max_size=20,
)


class Run:
    """One run of steps on both."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = Model()
        self.owner = ""

    async def __call__(self, steps: list[Step]) -> None:
        self.state = await State.open(self.path, ManualClock())
        self.store = ControlStore(self.state, ManualClock())
        try:
            self.owner = (await project(self.store)).record.id
            for step in steps:
                await self.step(*step)
                await self.compare()
            assert await self.store.delete_project(self.owner)
            assert blob_names(self.path) == set()
        finally:
            await self.state.close()

    async def step(self, what: str, function: int, name: int, number: int) -> None:
        store, model, owner = self.store, self.model, self.owner
        target, secret = FUNCTIONS[function], NAMES[name]
        scope = (None, "f", "g")[number % 3]
        rows = list(model.rows)
        if what == "deploy":
            await self.deploy(target, b"code %d" % number)
        elif what == "rollback" and model.of(target):
            old = model.of(target)[number % len(model.of(target))]
            found = await store.find_deployment(owner, name=target, version=old.version)
            assert found is not None
            bundle = await store.load_bundle(found.id)
            assert bundle.code == old.code
            await self.deploy(target, bundle.code, back=old.version)
        elif what == "disable" and rows:
            chosen = rows[number % len(rows)]
            assert await store.disable_deployment(owner, chosen) is not None
            model.rows[chosen].status = "disabled"
        elif what == "delete":
            on = [row for row in model.of(target) if row.status != "disabled"]
            wanted = len(on) if model.of(target) else None
            assert await store.delete_function(owner, target) == wanted
            for row in on:
                row.status = "disabled"
        elif what == "set":
            await store.set_secret(owner, secret, SecretText(f"v{number}"), scope)
            model.set(scope, secret, f"v{number}")
        elif what == "unset":
            assert await store.unset_secret(owner, secret, scope) == model.unset(scope, secret)
        elif what == "restart":
            await self.state.close()
            self.state = await State.open(self.path, ManualClock())
            assert not self.state.repairs
            self.store = ControlStore(self.state, ManualClock())

    async def deploy(self, target: str, code: bytes, *, back: int | None = None) -> None:
        version = await self.store.next_version(self.owner, target)
        assert version == len(self.model.of(target)) + 1
        made = await self.store.add_deployment(
            NewDeployment(
                self.owner, target, version, Bundle.of(code), ("fetch",), rolled_back_from=back
            )
        )
        for row in self.model.of(target):
            row.status = "superseded" if row.status == "active" else row.status
        self.model.rows[made.id] = Row(target, version, code)

    async def compare(self) -> None:
        store, model = self.store, self.model
        there, total = await store.deployments(
            self.owner, active=False, name=None, offset=0, limit=100
        )
        assert total == len(model.rows)
        assert [(d.id, d.name, d.version, d.status) for d in there] == [
            (id_, row.function, row.version, row.status)
            for id_, row in reversed(model.rows.items())
        ]
        active = {id_ for id_, row in model.rows.items() if row.status == "active"}
        (one,) = (await store.snapshot()).projects
        assert {d.id for d in one.active} == active
        for id_ in active:
            got = {n: v.reveal() for n, v in await store.secrets_for(id_)}
            assert got == model.env(model.rows[id_])
        for target in FUNCTIONS:
            got = {n: v.reveal() for n, v in await store.secrets_for_new(self.owner, target)}
            assert got == model.next_env(target)
        listed = {(r.function, r.name) for r in await store.secrets(self.owner)}
        assert listed == set(model.secrets)
        assert len(blob_names(self.path)) == len({row.code for row in model.rows.values()})


@pytest.mark.slow
def test_any_sequence_does_what_the_model_does() -> None:
    """Deploy, roll back, disable, delete, set, unset, restart (I11; contract C.2, D.4)."""

    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(steps=STEPS)
    def check(steps: list[Step]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(Run(Path(folder))(steps))

    check()

"""Secrets: scopes, versions, and what unset means for what is running."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from tests.router.store.world import deploy, opened, project

from amba_router.store.control import ControlStore
from amba_router.store.state import DATABASE
from amba_runtime.clock import ManualClock
from amba_runtime.errors import InternalCode, InternalError
from amba_runtime.secret import SecretText


async def env(store: ControlStore, deployment_id: str) -> dict[str, str]:
    return {name: value.reveal() for name, value in await store.secrets_for(deployment_id)}


async def next_env(store: ControlStore, owner: str, name: str) -> dict[str, str]:
    return {n: value.reveal() for n, value in await store.secrets_for_new(owner, name)}


def rows(path: Path) -> list[tuple[str, str]]:
    """(function, name) of every secret there is, hidden ones too."""
    with sqlite3.connect(path / DATABASE) as plain:
        found = plain.execute("SELECT function, name FROM secrets ORDER BY 1, 2").fetchall()
    plain.close()
    return found


def test_a_secret_is_set_and_set_again(tmp_path: Path) -> None:
    """Versions count up, the first time stays, values are never in a record (contract E.2)."""

    async def main() -> None:
        clock = ManualClock()
        async with opened(tmp_path, clock) as store:
            owner = (await project(store)).record.id
            first_ms = int(clock.time_s() * 1000)
            one = await store.set_secret(owner, "A", SecretText("v1"), None)
            await clock.advance(5)
            two = await store.set_secret(owner, "A", SecretText("v2"), None)
            mine = await store.set_secret(owner, "A", SecretText("f1"), "f")
            assert (one.version, two.version, mine.version) == (1, 2, 1)
            assert (two.created_ms, two.updated_ms) == (first_ms, first_ms + 5000)
            assert (two.function, mine.function) == (None, "f")
            assert (two.sync_status, two.attempts, two.last_error) == ("synced", 1, None)
        async with opened(tmp_path) as store:
            assert await store.secrets(owner) == [two, mine]
            assert "v2" not in repr(await store.secrets(owner))
            assert await next_env(store, owner, "f") == {"A": "f1"}
            assert await next_env(store, owner, "g") == {"A": "v2"}

    asyncio.run(main())


@pytest.mark.parametrize("value", ["", "x" * 65_536, "grüße\n\0😀", "\udcff"])
def test_any_value_comes_back(tmp_path: Path, value: str) -> None:
    """64 KiB, empty, not even valid UTF-8."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner = (await project(store)).record.id
            await store.set_secret(owner, "A", SecretText(value), None)
        async with opened(tmp_path) as store:
            made = await deploy(store, owner)
            assert await env(store, made.id) == {"A": value}

    asyncio.run(main())


def test_scopes_reach_whom_they_should(tmp_path: Path) -> None:
    """Project-wide reaches all, also later ones; a function's own only it, and wins (J 6, H-12)."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner, other = (await project(store)).record.id, (await project(store)).record.id
            early = await deploy(store, owner, "f")
            await store.set_secret(owner, "ALL", SecretText("all"), None)
            await store.set_secret(owner, "BOTH", SecretText("wide"), None)
            await store.set_secret(owner, "BOTH", SecretText("own"), "f")
            await store.set_secret(owner, "MINE", SecretText("mine"), "f")
            await store.set_secret(other, "ALL", SecretText("not yours"), None)
            late = await deploy(store, owner, "g")
            assert await env(store, early.id) == {"ALL": "all", "BOTH": "own", "MINE": "mine"}
            assert list(await env(store, early.id)) == ["ALL", "BOTH", "MINE"]
            assert await env(store, late.id) == {"ALL": "all", "BOTH": "wide"}

    asyncio.run(main())


@pytest.mark.parametrize("function", [None, "f"])
def test_unset_waits_for_the_next_deploy(tmp_path: Path, function: str | None) -> None:
    """Hidden at once; what runs keeps the value over restarts; then it is destroyed (J 6)."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner = (await project(store)).record.id
            await store.set_secret(owner, "A", SecretText("v"), function)
            old = await deploy(store, owner, "f")
            assert await store.unset_secret(owner, "A", function)
            assert not await store.unset_secret(owner, "A", function)
            assert await store.secrets(owner) == []
            assert await next_env(store, owner, "f") == {}
        async with opened(tmp_path) as store:
            assert await env(store, old.id) == {"A": "v"}
            new = await deploy(store, owner, "f")
            assert rows(tmp_path) == []
            assert await env(store, new.id) == {}
            assert await env(store, old.id) == {}

    asyncio.run(main())


def test_a_value_stays_as_long_as_anyone_runs_with_it(tmp_path: Path) -> None:
    """Project-wide: until the last deployment made before is superseded, disabled or deleted."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner = (await project(store)).record.id
            await store.set_secret(owner, "A", SecretText("v"), None)
            f, g, h = [await deploy(store, owner, name) for name in ("f", "g", "h")]
            await store.unset_secret(owner, "A", None)
            late = await deploy(store, owner, "late")
            assert await env(store, late.id) == {}
            await deploy(store, owner, "f")
            assert await env(store, g.id) == {"A": "v"}
            await store.disable_deployment(owner, g.id)
            assert rows(tmp_path) == [("", "A")]
            assert await env(store, h.id) == {"A": "v"}
            await store.delete_function(owner, "h")
            assert rows(tmp_path) == []
            assert await env(store, f.id) == {}

    asyncio.run(main())


def test_nobody_keeps_what_nobody_has(tmp_path: Path) -> None:
    """Unset before any deploy, or of another function: destroyed in the same transaction."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner = (await project(store)).record.id
            await store.set_secret(owner, "A", SecretText("v"), None)
            await store.unset_secret(owner, "A", None)
            assert rows(tmp_path) == []
            await deploy(store, owner, "f")
            await store.set_secret(owner, "A", SecretText("v"), "g")
            await store.unset_secret(owner, "A", "g")
            assert rows(tmp_path) == []

    asyncio.run(main())


def test_set_after_unset_begins_anew(tmp_path: Path) -> None:
    """Version 1 again, and what was kept for old deployments is replaced."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner = (await project(store)).record.id
            await store.set_secret(owner, "A", SecretText("1"), None)
            await store.set_secret(owner, "A", SecretText("2"), None)
            old = await deploy(store, owner)
            await store.unset_secret(owner, "A", None)
            again = await store.set_secret(owner, "A", SecretText("3"), None)
            assert again.version == 1
            assert await env(store, old.id) == {"A": "3"}
            assert await env(store, (await deploy(store, owner)).id) == {"A": "3"}

    asyncio.run(main())


def test_a_damaged_value_is_told(tmp_path: Path) -> None:
    """SECRET_DAMAGED, naming it; other functions are not touched (I8)."""

    async def main() -> None:
        async with opened(tmp_path) as store:
            owner = (await project(store)).record.id
            await store.set_secret(owner, "A", SecretText("v"), "f")
            await store.set_secret(owner, "B", SecretText("v"), None)
            f, g = await deploy(store, owner, "f"), await deploy(store, owner, "g")
        with sqlite3.connect(tmp_path / DATABASE) as plain:
            plain.execute(
                "UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE name = 'B')"
                " WHERE name = 'A'"
            )
        plain.close()
        async with opened(tmp_path) as store:
            with pytest.raises(InternalError, match=f"{owner} / f / A") as caught:
                await store.secrets_for(f.id)
            assert caught.value.code is InternalCode.SECRET_DAMAGED
            assert await env(store, g.id) == {"B": "v"}
            await store.set_secret(owner, "A", SecretText("new"), "f")
            assert (await env(store, f.id))["A"] == "new"

    asyncio.run(main())

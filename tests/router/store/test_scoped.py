"""What one project sees of the database (`store.scoped`): its own rows, whatever is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func
from tests.router.store.world import opened_state, project

from amba_router.store.control import ControlStore
from amba_router.store.on_demand import OnDemand
from amba_router.store.project_store import ProjectStore
from amba_router.store.scoped import Scoped
from amba_router.store.service_schema import configs, currencies
from amba_router.store.trigger_schema import queue_jobs
from amba_runtime.clock import ManualClock
from amba_runtime.errors import InternalError, UserCode, UserError


def config(key: str, **more: Any) -> dict[str, Any]:
    """A row of `configs`."""
    return {
        "id": key,
        "key": key,
        "value": "1",
        "value_type": "number",
        "description": None,
        "conditions": "[]",
        "is_active": True,
        "version": 1,
        "created_ms": 1,
        "updated_ms": 1,
        **more,
    }


Body = Callable[[ProjectStore, str, str], Awaitable[None]]


def with_two(tmp_path: Path, body: Body) -> None:
    """Run `body(store, a, b)` with the ids of two projects."""

    async def main() -> None:
        clock = ManualClock()
        async with opened_state(tmp_path) as state:
            control = ControlStore(state, clock)
            ids = [(await project(control, n)).record.id for n in ("A", "B")]
            await body(ProjectStore(OnDemand(state, clock)), ids[0], ids[1])

    asyncio.run(main())


def test_rows_by_seq_are_of_the_project_all_the_same(tmp_path: Path) -> None:
    """`at` with the `seq` of another project's rows finds, changes and drops none of them."""

    async def body(store: ProjectStore, a: str, b: str) -> None:
        message = {"payload": "1", "created_ms": 1, "due_ms": 1, "queue": "q", "attempts": 0}
        message |= {"failures": 0, "generation": 0}
        await store.write(a, lambda s: s.add(queue_jobs, [{**message, "id": "a"}]))
        await store.write(b, lambda s: s.add(queue_jobs, [{**message, "id": "b"}]))

        def ids(s: Scoped) -> list[str]:
            return [row.id for row in s.rows(s.query(queue_jobs, queue_jobs.c.id, at=(1, 2, 3)))]

        assert await store.read(a, ids) == ["a"]
        assert await store.write(a, lambda s: s.change_at(queue_jobs, (1, 2), due_ms=2)) == 1
        assert await store.write(a, lambda s: s.drop(queue_jobs, at=(2,))) == 0
        assert await store.write(a, lambda s: s.drop(queue_jobs, at=(1, 2))) == 1
        assert await store.read(b, ids) == ["b"]

    with_two(tmp_path, body)


def test_each_method_keeps_to_its_project(tmp_path: Path) -> None:
    """The same keys in two projects: no query, change or deletion of one touches the other's."""

    async def body(store: ProjectStore, a: str, b: str) -> None:
        for id_ in (a, b):
            await store.write(id_, lambda s: s.add(configs, [config("x"), config("y")]))
        assert await store.write(a, lambda s: s.change(configs, value="2")) == 2
        assert await store.write(a, lambda s: s.drop(configs, configs.c.key == "y")) == 1
        await store.write(a, lambda s: s.put(configs, ["key"], config("x", value="3")))

        def values(s: Scoped) -> list[tuple[str, str]]:
            rows = s.rows(s.query(configs, configs.c.key, configs.c.value).order_by(configs.c.key))
            return [(row.key, row.value) for row in rows]

        assert await store.read(a, values) == [("x", "3")]
        assert await store.read(b, values) == [("x", "1"), ("y", "1")]
        assert await store.read(b, lambda s: s.count(configs)) == 2
        assert await store.read(a, lambda s: s.value(s.query(configs, func.count()))) == 1
        assert (
            await store.read(a, lambda s: s.row(s.query(configs).where(configs.c.key == "y")))
            is None
        )

    with_two(tmp_path, body)


def test_rows_are_added_once_where_they_may_be_there(tmp_path: Path) -> None:
    """`add_missing` says whether it did; `add` of the same key is refused; of nothing, nothing."""

    async def body(store: ProjectStore, a: str, b: str) -> None:
        assert await store.write(a, lambda s: s.add_missing(configs, config("x")))
        assert not await store.write(a, lambda s: s.add_missing(configs, config("x", value="9")))
        assert await store.write(b, lambda s: s.add_missing(configs, config("x")))
        with pytest.raises(InternalError, match="UNIQUE"):
            await store.write(a, lambda s: s.add(configs, config("x")))
        await store.write(a, lambda s: s.add(configs, []))
        assert await store.read(a, lambda s: s.count(configs, configs.c.value == "1")) == 1

    with_two(tmp_path, body)


def test_a_project_that_was_deleted_meanwhile_takes_nothing(tmp_path: Path) -> None:
    """CONFLICT, not a broken reference: the request was let in a moment before (E.1)."""

    async def body(store: ProjectStore, _: str, __: str) -> None:
        with pytest.raises(UserError, match="deleted meanwhile") as caught:
            await store.write("gone", lambda s: s.add(configs, config("x")))
        assert caught.value.code is UserCode.CONFLICT

    with_two(tmp_path, body)


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    """One transaction: the rows before the one that fails go with it."""

    async def body(store: ProjectStore, a: str, _: str) -> None:
        def work(s: Scoped) -> None:
            s.add(configs, config("x"))
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await store.write(a, work)
        assert await store.read(a, lambda s: s.count(configs) + s.count(currencies)) == 0

    with_two(tmp_path, body)

"""Any writes in any order: rows as a plain model has them, and a hash of their own (E.8)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.router.store.world import project

from amba_router.api.faults import Refused
from amba_router.services.config.models import Condition
from amba_router.services.config.service import ConfigService, Draft
from amba_router.store.control import ControlStore
from amba_router.store.on_demand import OnDemand
from amba_router.store.project_store import ProjectStore
from amba_router.store.state import State
from amba_runtime.clock import ManualClock

Row = dict[str, Any]
KEYS = ("a", "B", "b.c")
FITS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "json": lambda value: True,
}
values = st.one_of(
    st.text(max_size=4), st.integers(), st.booleans(), st.none(), st.lists(st.integers())
)
conditions = st.lists(
    st.builds(Condition, percentage=st.none() | st.integers(0, 100), value=values), max_size=2
)
drafts = st.builds(
    Draft,
    value=values,
    value_type=st.sampled_from(tuple(FITS)),
    description=st.just(msgspec.UNSET) | st.none() | st.text(max_size=3),
    conditions=st.just(msgspec.UNSET) | st.none() | conditions,
)
patches = st.builds(
    Draft,
    value=st.just(msgspec.UNSET) | values,
    description=st.just(msgspec.UNSET) | st.none() | st.text(max_size=3),
    conditions=st.just(msgspec.UNSET) | st.none() | conditions,
)
keys = st.sampled_from(KEYS)
steps = st.one_of(
    st.tuples(st.just("put"), keys, drafts),
    st.tuples(st.just("change"), keys, patches),
    st.tuples(st.just("remove"), keys, st.none()),
    st.tuples(st.just("wait"), keys, st.none()),
)


def after(row: Row | None, draft: Draft) -> Row | None:
    """The row that a draft makes of one, or of none; None where its values do not fit."""
    new: Row = dict(row or {"version": 0, "description": None, "conditions": [], "type": ""})
    new["type"] = draft.value_type or new["type"]
    if draft.value is not msgspec.UNSET:
        new["value"] = draft.value
        new["version"] += 1
    if draft.description is not msgspec.UNSET:
        new["description"] = draft.description
    if draft.conditions is not msgspec.UNSET:
        given_ = draft.conditions or ()
        assert not isinstance(given_, msgspec.UnsetType)
        new["conditions"] = [msgspec.to_builtins(condition) for condition in given_]
    all_values = [new["value"], *(condition["value"] for condition in new["conditions"])]
    return new if all(FITS[new["type"]](value) for value in all_values) else None


def test_any_writes_in_any_order(tmp_path: Path) -> None:
    """Rows and versions of the model; a hash changes with a mutation, and with nothing else."""
    clock = ManualClock()
    with asyncio.Runner() as runner:
        state = runner.run(State.open(tmp_path / "state", clock))
        store = ControlStore(state, clock)
        service = ConfigService(ProjectStore(OnDemand(state, clock)), clock)
        numbers = itertools.count()

        async def listed(id_: str) -> dict[str, Row]:
            configs, total = await service.page(id_, 0, 10)
            assert total == len(configs)
            assert [config.key for config in configs] == sorted(config.key for config in configs)
            return {
                config.key: {
                    "version": config.version,
                    "description": config.description,
                    "conditions": msgspec.json.decode(config.conditions),
                    "type": config.value_type,
                    "value": msgspec.json.decode(config.value),
                }
                for config in configs
            }

        async def step(id_: str, model: dict[str, Row], what: str, key: str, draft: Any) -> bool:
            """Do it in both; whether it was a mutation."""
            if what == "wait":
                clock.jump(1)
                return False
            if what == "remove":
                await service.remove(id_, key)
                return model.pop(key, None) is not None
            missing = what == "change" and key not in model
            row = None if missing else after(model.get(key), draft)
            try:
                await getattr(service, what)(id_, key, draft)
            except Refused as refusal:
                said = refusal.fault.code
            else:
                said = ""
            assert said == ("NOT_FOUND" if missing else "" if row else "INVALID_VALUE")
            if row is None:
                return False
            model[key] = row
            return True

        async def play(todo: list[tuple[str, str, Any]]) -> None:
            id_ = (await project(store, f"P{next(numbers)}")).record.id
            model: dict[str, Row] = {}
            tag = (await service.evaluate(id_, "")).etag
            empty = tag
            # what each tag stood for: a state that comes back may have its tag, no other state
            seen: dict[str, dict[str, Row]] = {tag: {}}
            for what, key, draft in todo:
                mutated = await step(id_, model, what, key, draft)
                now = (await service.evaluate(id_, "")).etag
                if model and mutated:
                    assert now != tag
                else:
                    assert now == (tag if model else empty)
                tag = now
                assert seen.setdefault(now, dict(model)) == model
                assert await listed(id_) == model
            bundle = (await service.evaluate(id_, "")).values
            assert {key: msgspec.json.decode(raw) for key, raw in bundle.items()} == {
                key: row["value"] for key, row in model.items()
            }

        @settings(max_examples=50, deadline=None)
        @given(st.lists(steps, max_size=10))
        def check(todo: list[tuple[str, str, Any]]) -> None:
            runner.run(play(todo))

        check()
        runner.run(state.close())

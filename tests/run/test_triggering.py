"""The trigger layer, wired: begins with the first use, takes up what was left, and is told of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.router.triggers.lab import Lab, run

from amba_router.metrics import Metrics
from amba_router.store import queue_rows
from amba_router.store.on_demand import OnDemand
from amba_router.store.queue_records import Binding, Depth, Settings
from amba_run.trigger_metrics import QueueMetrics
from amba_run.triggering import Triggers
from amba_runtime import limits
from amba_runtime.clock import ManualClock


def with_triggers(
    tmp_path: Path, work: Callable[[Lab, Triggers], Awaitable[None]], *, opened: bool = True
) -> None:
    """A lab whose own queues are closed, and the trigger layer of a server in their place."""

    async def main(lab: Lab) -> None:
        await lab.queues.close()
        triggers = Triggers(lab.projects, lab.journal, lab.states, lab.clock)
        lab.queues = triggers.queues
        lab.service = lab.served()
        if opened:
            await triggers.queues.open()
        try:
            await work(lab, triggers)
        finally:
            await triggers.close(grace_s=0.0)
            await triggers.close()

    run(tmp_path, main)


def declared(queue: str, function: str = "worker", **changed: object) -> Binding:
    """As `amba.toml` has it."""
    bound = Binding(f"id-{queue}", queue, function, "active", Settings(), "file", 5, 5)
    return replace(bound, **changed)  # type: ignore[arg-type]  # fields of a binding


def test_what_is_deployed_is_known(tmp_path: Path) -> None:
    """Handlers of a function; all where nobody has told; None for what is not there."""

    async def work(lab: Lab) -> None:
        functions = lab.projects
        lab.function("page", handlers=("fetch",))
        lab.function("untold")
        found = lab.projects.by_id(lab.p)
        assert found is not None
        found.routes[b"untold"].handlers = None
        assert functions.handlers(lab.p, "page") == ("fetch",)
        assert functions.handlers(lab.p, "untold") == ("fetch", "scheduled", "queue")
        assert functions.handlers(lab.p, "nope") is None
        assert functions.handlers(lab.p, "\ud800") is None
        assert functions.handlers("nobody", "page") is None

    run(tmp_path, work)


def test_a_server_without_a_database_opens_none(tmp_path: Path) -> None:
    """`open`, `declare` of nothing and `close` leave no trace: a dev server stays as light."""

    async def main() -> None:
        states = OnDemand(tmp_path / "state", ManualClock())
        async with Lab(tmp_path / "lab") as lab:
            triggers = Triggers(lab.projects, lab.journal, states, lab.clock)
            triggers.open()
            await triggers.declare("p")
            await asyncio.sleep(0)
            await triggers.close()
            await states.close()
        assert not (tmp_path / "state").exists()

    asyncio.run(main())


def test_what_an_earlier_run_left_is_taken_up(tmp_path: Path) -> None:
    """Where there is a database, `open` finds its messages."""

    async def work(lab: Lab, triggers: Triggers) -> None:
        lab.function()
        await lab.hold("left behind")
        triggers.open()
        while not lab.bodies():
            await asyncio.sleep(0)
            await triggers.queues.rest()
        assert lab.bodies() == ["left behind"]

    with_triggers(tmp_path, work, opened=False)


def test_a_files_queues_are_bound_and_unbound(tmp_path: Path) -> None:
    """These and no others of a file; those made over the API stay, or give way to a file's."""

    async def work(lab: Lab, triggers: Triggers) -> None:
        async def bound() -> list[tuple[str, str, str, str]]:
            found = await lab.store.read(lab.p, queue_rows.bindings)
            return [(one.queue, one.function, one.status, one.source) for one in found]

        lab.function()
        lab.function("other")
        await lab.bind("by-api")
        await lab.bind("both", "other")
        await triggers.declare(lab.p, queues=[declared("a"), declared("both")])
        assert await bound() == [
            ("a", "worker", "active", "file"),
            ("both", "worker", "active", "file"),
            ("by-api", "worker", "active", "api"),
        ]
        paused = declared("a", status="paused")
        await triggers.declare(lab.p, queues=[paused, declared("both")])
        await lab.send("x", queue="a")
        await triggers.queues.rest()
        assert await lab.states_of("a") == ["dead"]
        await triggers.declare(lab.p, queues=[declared("a")])
        await triggers.queues.rest()
        assert lab.bodies() == ["x"]
        await triggers.declare(lab.p)
        assert await bound() == [("by-api", "worker", "active", "api")]

    with_triggers(tmp_path, work)


def test_what_is_declared_again_changes_nothing(tmp_path: Path) -> None:
    """A reload of the same file touches no binding."""

    async def work(lab: Lab, triggers: Triggers) -> None:
        await triggers.declare(lab.p, queues=[declared("a")])
        [first] = await lab.store.read(lab.p, queue_rows.bindings)
        later = declared("a", id="another", created_ms=9, updated_ms=9)
        await triggers.declare(lab.p, queues=[later])
        assert await lab.store.read(lab.p, queue_rows.bindings) == [first]
        await triggers.declare(lab.p, queues=[replace(later, settings=Settings(consumers=1))])
        [third] = await lab.store.read(lab.p, queue_rows.bindings)
        assert (third.id, third.created_ms, third.updated_ms) == (first.id, 5, 9)

    with_triggers(tmp_path, work)


# --- metrics ---


def lines(metrics: Metrics) -> list[str]:
    """The series of queues."""
    return [line for line in metrics.text().splitlines() if line.startswith("amba_queue")]


def test_depths_ages_and_counts_are_told(tmp_path: Path) -> None:
    """By project, queue and state; attempts and dead letters since the start (issue 6, 3)."""

    async def work(lab: Lab, triggers: Triggers) -> None:
        metrics = Metrics()
        QueueMetrics(triggers, lab.clock).tell(metrics)
        buried: list[int] = []
        triggers.buried = lambda: buried.append(triggers.queues.counts.dead)
        lab.function()
        await lab.bind()
        await lab.send("delivered")
        await lab.bind("paused", status="paused")
        await lab.send("put aside", queue="paused")
        await lab.send("later", queue="paused", delay_s=60)
        await triggers.queues.rest()
        await lab.hold("waits", queue="asleep")
        await lab.clock.advance(2)
        await metrics.refresh()
        asleep = f'project="{lab.p}",queue="asleep"'
        paused = f'project="{lab.p}",queue="paused"'
        found = lines(metrics)
        for line in (
            f'amba_queue_depth{{{asleep},state="waiting"}} 1',
            f'amba_queue_depth{{{asleep},state="dead"}} 0',
            f'amba_queue_depth{{{paused},state="delayed"}} 1',
            f'amba_queue_depth{{{paused},state="dead"}} 1',
            f"amba_queue_oldest_seconds{{{asleep}}} 2",
            f"amba_queue_oldest_seconds{{{paused}}} 0",
            "amba_queue_attempts_total 1",
            "amba_queue_dead_total 1",
        ):
            assert line in found
        assert buried == [1]
        await lab.hold("one more", queue="asleep")
        await metrics.refresh()
        assert f'amba_queue_depth{{{asleep},state="waiting"}} 1' in lines(metrics)
        await lab.clock.advance(limits.QUEUE_COUNT_S.value)
        await metrics.refresh()
        assert f'amba_queue_depth{{{asleep},state="waiting"}} 2' in lines(metrics)

    with_triggers(tmp_path, work)


def test_so_many_queues_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deepest: the number of series is bounded."""
    monkeypatch.setattr(limits, "QUEUE_SERIES", limits.Limit(2, "queues", "", ""))

    async def work(lab: Lab, triggers: Triggers) -> None:
        for n in range(1, 5):
            await lab.hold(*range(n), queue=f"q{n}")
        depths: Sequence[Depth] = await triggers.queues.depths()
        assert [(depth.queue, depth.waiting) for depth in depths] == [("q4", 4), ("q3", 3)]

    with_triggers(tmp_path, work)

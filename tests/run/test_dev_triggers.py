"""What `dev` declares for a file, and what it tells of schedules and queues."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from amba_router.api import faults
from amba_router.journal import Invocation
from amba_router.routes import Project
from amba_router.store.queue_records import Binding, Settings
from amba_run.config import ProjectConfig, load_config
from amba_run.dev_triggers import DevTriggers, Line, unserved
from amba_run.in_process import Told
from amba_run.report import Reporter
from amba_runtime import limits
from amba_runtime.clock import ManualClock, time_ms
from amba_runtime.errors import UserCode, UserError
from amba_runtime.outcome import Outcome

Row = dict[str, Any]

TOML = """
[functions.digest]
schedules = ["* * * * *"]
[queues]
orders = "ship"
[queues.mail]
function = "ship"
status = "paused"
batch_size = 10
batch_wait_ms = 50
consumers = 1
retries = 0
backoff_ms = 20
"""


@dataclass
class FakeRoute:
    """As much of a route as counts here."""

    handlers: frozenset[str] | None = None


@dataclass
class FakeProject:
    """As much of a project."""

    id: str = "p-1"
    routes: dict[bytes, FakeRoute] = field(default_factory=dict[bytes, FakeRoute])


@dataclass
class Heard:
    """A reporter's and a trigger layer's other end: what each was told."""

    triggered: list[tuple[list[Row], list[Row]]] = field(
        default_factory=lambda: list[tuple[list[Row], list[Row]]]()
    )
    queues: list[Row] = field(default_factory=list[Row])
    warnings: list[str] = field(default_factory=list[str])
    declared: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    refuse: Exception | None = None

    def triggers(self, schedules: Sequence[Row], queues: Sequence[Row]) -> None:
        self.triggered.append((list(schedules), list(queues)))

    def queue(self, row: Row) -> None:
        self.queues.append(row)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    async def declare(
        self,
        project_id: str,
        *,
        queues: Iterable[Binding],
        schedules: Mapping[str, Sequence[Line]],
    ) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.declared.append((project_id, tuple(queues), dict(schedules)))


@dataclass
class Api:
    """What the platform API answers."""

    schedules: list[Row] = field(default_factory=list[Row])
    depths: list[Row] = field(default_factory=list[Row])
    status: int = 200
    asked: list[str] = field(default_factory=list[str])

    async def __call__(self, path: str) -> Told:
        self.asked.append(path)
        if self.status != 200:
            return Told(self.status, {"error": {"code": "OVERLOADED", "message": "busy"}})
        rows = self.depths if path == "queue/queues" else self.schedules
        return Told(200, {"data": [dict(row) for row in rows]})


def depth(name: str = "orders", *, waiting: int = 0, dead: int = 0) -> Row:
    return {"queue_name": name, "waiting": waiting, "delayed": 0, "leased": 0, "dead": dead}


def project(**handlers: str | None) -> Project:
    routes = {
        name.encode(): FakeRoute(None if told is None else frozenset(told.split()))
        for name, told in handlers.items()
    }
    return cast(Project, FakeProject(routes=routes))


@pytest.fixture
def config(tmp_path: Path) -> ProjectConfig:
    (tmp_path / "amba.toml").write_text(TOML)
    return load_config(tmp_path)


@dataclass
class Set:
    """One `DevTriggers` and all around it."""

    heard: Heard = field(default_factory=Heard)
    api: Api = field(default_factory=Api)
    clock: ManualClock = field(default_factory=ManualClock)
    kept: bool = True

    def __post_init__(self) -> None:
        say = cast(Reporter, self.heard)
        self.dev = DevTriggers(
            self.heard, self.api, kept=lambda: self.kept, say=say, clock=self.clock
        )

    async def looked(self) -> list[Row]:
        """What was told of queues, once a look is over; the list begins anew."""
        await self.clock.advance(limits.QUEUE_TALK_S.value)
        told, self.heard.queues = self.heard.queues, []
        return told


SERVED = {"digest": "scheduled", "ship": "queue fetch"}


def test_the_file_is_declared_and_told(config: ProjectConfig) -> None:
    """Schedules by function, bindings; then what there is, as the API has it (issue 6 item 3)."""

    async def main() -> None:
        set_ = Set(api=Api([{"id": "s-1", "next_runs": []}], [depth()]))
        set_.dev.apply(project(**SERVED), config)
        await set_.clock.advance(0)
        ((project_id, (binding, mail), schedules),) = set_.heard.declared
        now_ms = time_ms(set_.clock)
        assert project_id == "p-1"
        assert schedules == {"digest": [("* * * * *", "UTC", "skip")]}
        assert binding == Binding(
            *(binding.id, "orders", "ship", "active", Settings(), "file", now_ms, now_ms)
        )
        settings = Settings(10, 50, 1, 0, 20)
        assert mail == Binding(
            *(mail.id, "mail", "ship", "paused", settings, "file", now_ms, now_ms)
        )
        assert set_.heard.triggered == [([{"id": "s-1", "next_runs": []}], [depth()])]
        assert set_.heard.warnings == []
        await set_.dev.close()
        await set_.dev.close()

    asyncio.run(main())


def test_what_is_declared_counts_before_the_ready_line(config: ProjectConfig) -> None:
    """Who sees that line can send to the queues of the file; it is told after it."""

    async def main() -> None:
        set_ = Set(api=Api(depths=[depth(dead=1)]))
        await set_.dev.begin(project(**SERVED), config)
        assert len(set_.heard.declared) == 1
        assert set_.api.asked == []
        set_.dev.told(project(**SERVED), config)
        await set_.clock.advance(0)
        assert len(set_.heard.triggered) == 1
        assert len(set_.heard.declared) == 1
        set_.dev.changed()
        assert await set_.looked() == []  # its dead letters were told
        await set_.dev.close()

    asyncio.run(main())


def test_nothing_there_is_not_told(tmp_path: Path) -> None:
    """A folder without either opens nothing; one that was used before lets go what it had."""

    async def main() -> None:
        set_ = Set(kept=False)
        set_.dev.apply(project(), ProjectConfig(tmp_path))
        await set_.clock.advance(0)
        assert set_.heard.declared == []
        assert set_.api.asked == []
        set_.kept = True
        set_.dev.apply(project(), ProjectConfig(tmp_path))
        await set_.clock.advance(0)
        assert set_.heard.declared == [("p-1", (), {})]
        assert set_.heard.triggered == []
        await set_.dev.close()

    asyncio.run(main())


def test_what_cannot_be_served_is_told(config: ProjectConfig) -> None:
    """A function that is not there, or has not the handler; one that does not start yet is not
    judged (contract D.6, D.7)."""
    assert list(unserved(project(digest="fetch", ship=None), config)) == [
        "the schedules of digest cannot be served: digest has no scheduled handler"
    ]
    assert list(unserved(project(digest="scheduled"), config)) == [
        f"the queue {queue} cannot be served: no function is called ship"
        for queue in ("orders", "mail")
    ]


def test_a_store_that_cannot_be_used_is_told(config: ProjectConfig) -> None:
    """The server serves on."""

    async def main() -> None:
        damaged = UserError(UserCode.STATE_DAMAGED, "amba.db is no database")
        for refusal in (damaged, faults.CONFLICT.refuse("too many")):
            set_ = Set(heard=Heard(refuse=refusal))
            set_.dev.apply(project(**SERVED), config)
            await set_.clock.advance(0)
            (warning,) = set_.heard.warnings
            assert warning.endswith(f"amba.toml are not in force: {refusal}")
            await set_.dev.close()

    asyncio.run(main())


def test_a_queue_that_gets_worse_is_told_once() -> None:
    """From empty to waiting, and each time there are more dead letters; not while it lasts."""

    async def main() -> None:
        set_ = Set()
        steps: list[tuple[Row, bool]] = [
            (depth(), False),
            (depth(waiting=2), True),
            (depth(waiting=9), False),
            (depth(waiting=9, dead=1), True),
            (depth(waiting=9, dead=1), False),
            (depth(dead=1), False),
            (depth(waiting=1, dead=1), True),
            (depth(waiting=1, dead=0), False),
            (depth(waiting=1, dead=1), True),
        ]
        for row, told in steps:
            set_.api.depths = [row]
            set_.dev.changed()
            assert await set_.looked() == ([row] if told else [])
        await set_.dev.close()

    asyncio.run(main())


def test_many_changes_are_one_look() -> None:
    """Within QUEUE_TALK_S; none without a change, and at most TRIGGERS_TOLD lines of one."""

    async def main() -> None:
        most = limits.TRIGGERS_TOLD.value
        set_ = Set(api=Api(depths=[depth(f"q{n}", waiting=1) for n in range(most + 5)]))
        for _ in range(100):
            set_.dev.changed()
        assert len(await set_.looked()) == most
        assert set_.api.asked == ["queue/queues"]
        await set_.clock.advance(3600)
        assert set_.api.asked == ["queue/queues"]
        set_.api.status = 503
        set_.dev.changed()
        assert await set_.looked() == []
        await set_.dev.close()

    asyncio.run(main())


def test_what_counts_as_a_change() -> None:
    """A delivery that ended, and a request that may have changed a queue."""

    def invocation(method: str) -> Invocation:
        return Invocation("r", "f", 1, method, "orders", 200, Outcome.OK, 0.0, 1.0, None)

    async def main() -> None:
        set_ = Set()
        queues = "/v1/admin/projects/p/queue/send"
        quiet = [("GET", queues), ("POST", "/v1/admin/projects/p/events")]
        set_.dev.heard([invocation("GET"), invocation("SCHEDULED")])
        for request in quiet:
            set_.dev.asked(*request)
        await set_.looked()
        assert set_.api.asked == []
        set_.dev.heard([invocation("GET"), invocation("QUEUE")])
        await set_.looked()
        for method in ("POST", "PUT", "DELETE"):
            set_.dev.asked(method, queues)
            await set_.looked()
        assert len(set_.api.asked) == 4
        await set_.dev.close()

    asyncio.run(main())

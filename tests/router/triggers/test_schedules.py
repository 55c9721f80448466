"""The ticker: each slot once and on time, whatever clocks, stores, functions do (contract D.6)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.router.triggers.schedule_lab import FINE, START, Stage, ms, on_stage, staged

from amba_router.api.faults import Refused
from amba_router.store import schedule_rows, trigger_sweeps
from amba_router.store.control import ControlStore
from amba_router.store.schedule_rows import Claim, Wanted
from amba_router.triggers.deliver import Deliverer, NotNow
from amba_router.triggers.timetable import Entry
from amba_runtime import limits
from amba_runtime.clock import ManualClock
from amba_runtime.errors import UserCode, UserError
from amba_runtime.outcome import Event, GuestException, Outcome, Tell

MINUTE = 60_000
T0 = round(START.timestamp() * 1000)


def minutes(*at: int) -> list[int]:
    """Slots, in minutes after the start."""
    return [T0 + one * MINUTE for one in at]


def test_a_schedule_fires_on_its_minute(tmp_path: Path) -> None:
    """The handler gets cron and slot; its history says how it went (contract B, D.6)."""

    async def body(stage: Stage) -> None:
        id_ = await stage.project()
        stage.function(id_, "report")
        schedule = await stage.add(id_, "report", "*/2 * * * *", "Europe/Berlin")
        await stage.steps(300)
        assert stage.engine.heard == [("report", "*/2 * * * *", at) for at in minutes(2, 4)]
        newest, _ = await stage.slots_of(id_, schedule)
        assert (newest.slot_ms, newest.began_ms, newest.ended_ms) == (*minutes(4, 4), T0 + 240_000)
        assert (newest.outcome, newest.error) == ("ok", None)
        assert newest.request_id is not None
        assert stage.ticker.firings.outcomes == {"ok": 2}

    on_stage(tmp_path, body)


def test_a_day_of_many_schedules(tmp_path: Path) -> None:
    """24 hours, three zones, two projects: each slot of each, once, in order (issue 6, item 4)."""

    async def body(stage: Stage) -> None:
        for name in ("One", "Two"):
            id_ = await stage.project(name)
            for function, cron, zone in (
                (f"hourly-{name}", "0 * * * *", "UTC"),
                (f"morning-{name}", "30 8 * * *", "Asia/Kolkata"),
                (f"twice-{name}", "0 6,18 * * *", "America/New_York"),
            ):
                stage.function(id_, function)
                await stage.add(id_, function, cron, zone)
        await stage.steps(86_400, 1800)
        heard = stage.engine.heard
        for name in ("One", "Two"):
            slots = {f: [at for g, _, at in heard if g == f] for f, _, _ in heard}
            assert slots[f"hourly-{name}"] == [T0 + hour * 3_600_000 for hour in range(1, 25)]
            assert slots[f"morning-{name}"] == [ms(2026, 3, 1, 3)]
            assert slots[f"twice-{name}"] == [ms(2026, 3, 1, 11), ms(2026, 3, 1, 23)]
        assert len(heard) == 54

    on_stage(tmp_path, body)


def test_the_clock_is_put_forward_in_march(tmp_path: Path) -> None:
    """A time that is left out runs once, right after the change (cron(8), Debian)."""

    async def body(stage: Stage) -> None:
        id_ = await stage.project()
        for name, cron in (("fixed", "30 2 * * *"), ("clock", "*/30 2 * * *")):
            stage.function(id_, name)
            await stage.add(id_, name, cron, "Europe/Berlin")
        await stage.steps(36 * 3600, 1800)
        assert sorted(stage.engine.heard) == [
            ("clock", "*/30 2 * * *", ms(2026, 3, 30)),
            ("clock", "*/30 2 * * *", ms(2026, 3, 30, 0, 30)),
            ("fixed", "30 2 * * *", ms(2026, 3, 29, 1)),
            ("fixed", "30 2 * * *", ms(2026, 3, 30, 0, 30)),
        ]

    on_stage(tmp_path, body, at=datetime(2026, 3, 28, 13, tzinfo=UTC))


@pytest.mark.parametrize(("missed", "made_up"), [("skip", []), ("run_once", [57])])
def test_slots_that_were_missed_while_nobody_was_there(
    tmp_path: Path, missed: str, made_up: list[int]
) -> None:
    """Left out, or the newest of them once; from there on as ever (issue 6, item 1)."""

    async def main() -> None:
        clock = ManualClock(START.timestamp())
        async with staged(tmp_path, clock=clock) as stage:
            id_ = await stage.project()
            stage.function(id_, "f")
            schedule = await stage.add(id_, "f", "*/3 * * * *", missed=missed)
            await stage.steps(200)
            assert await stage.outcomes(id_, schedule) == [(T0 + 3 * MINUTE, "ok")]
        await clock.advance(3400)  # it is 0:59:58 or so
        async with staged(tmp_path, clock=clock) as stage:
            stage.serve(id_, "shop")
            stage.function(id_, "f")
            await stage.settle()
            assert [at for *_, at in stage.engine.heard] == minutes(*made_up)
            await stage.steps(240, 10)
            assert [at for *_, at in stage.engine.heard] == minutes(*made_up, 60, 63)

    asyncio.run(main())


def test_a_slot_that_is_a_little_late_is_none_that_was_missed(tmp_path: Path) -> None:
    """Up to 60 s: a restart over a slot loses nothing, and fires nothing twice."""

    async def main() -> None:
        clock = ManualClock(START.timestamp())
        async with staged(tmp_path, clock=clock) as stage:
            id_ = await stage.project()
            stage.function(id_, "f")
            await stage.add(id_, "f", "0 * * * *")
            await stage.settle()
            await clock.advance(3590)
        await clock.advance(70)  # 60 s after the slot
        for slots in ([T0 + 3_600_000], []):
            async with staged(tmp_path, clock=clock) as stage:
                stage.serve(id_, "shop")
                stage.function(id_, "f")
                await stage.settle()
                assert [at for *_, at in stage.engine.heard] == slots

    asyncio.run(main())


def test_what_is_not_there_yet_fires_nothing_that_was_before(tmp_path: Path) -> None:
    """A schedule of run_once that was made a moment ago has missed nothing."""

    async def main() -> None:
        clock = ManualClock(START.timestamp() + 30)
        async with staged(tmp_path, clock=clock) as stage:
            id_ = await stage.project()
            stage.function(id_, "f")
            await stage.add(id_, "f", "* * * * *", missed="run_once")
            await stage.settle()
            assert stage.engine.heard == []
        async with staged(tmp_path, clock=clock) as stage:
            stage.serve(id_, "shop")
            stage.function(id_, "f")
            await stage.settle()
            assert stage.engine.heard == []

    asyncio.run(main())


@pytest.mark.parametrize("jump_s", [3600, -3600, 10 * 365 * 86400, -9 * 365 * 86400])
def test_the_wall_clock_jumps(tmp_path: Path, jump_s: int) -> None:
    """Forwards, what lies between is missed; backwards, nothing fires twice; then as ever (I10)."""

    async def body(stage: Stage) -> None:
        assert isinstance(stage.clock, ManualClock)
        id_ = await stage.project()
        stage.function(id_, "f")
        await stage.add(id_, "f", "*/5 * * * *")
        await stage.steps(660, 30)
        assert [at for *_, at in stage.engine.heard] == minutes(5, 10)
        stage.clock.jump(jump_s)
        await stage.steps(1200, 30)
        now_ms = round(stage.clock.time_s() * 1000)
        heard = [at for *_, at in stage.engine.heard][2:]
        assert len(heard) in (3, 4)
        assert heard == [now_ms // 300_000 * 300_000 - 300_000 * n for n in range(len(heard))][::-1]
        stage.clock.jump(-jump_s)
        await stage.steps(1200, 30)
        every = [at for *_, at in stage.engine.heard]
        assert len(set(every)) == len(every)
        assert every[-1] == round(stage.clock.time_s() * 1000) // 300_000 * 300_000

    on_stage(tmp_path, body)


def test_a_clock_that_was_years_ahead_keeps_nothing_from_firing(tmp_path: Path) -> None:
    """More slots than the history holds were fired in a wrong year; today's fire all the same."""

    async def body(stage: Stage) -> None:
        assert isinstance(stage.clock, ManualClock)
        id_ = await stage.project()
        stage.function(id_, "f")
        schedule = await stage.add(id_, "f", "* * * * *")
        stage.clock.jump(10 * 365 * 86400)
        await stage.steps(60 * (limits.SCHEDULE_SLOTS.value + 5))
        stage.clock.jump(-10 * 365 * 86400)
        stage.engine.heard.clear()
        await stage.steps(300)
        assert len(stage.engine.heard) >= 4
        assert all(at < T0 + 86_400_000 for *_, at in stage.engine.heard)
        rows = await stage.slots_of(id_, schedule)
        assert all(row.slot_ms < T0 + 86_400_000 for row in rows)

    on_stage(tmp_path, body)


def test_a_run_that_lasts_over_its_next_slot(tmp_path: Path) -> None:
    """The slot is skipped, its row says so, and it is counted; other schedules go on."""

    async def body(stage: Stage) -> None:
        gate = asyncio.Event()

        async def slow(function: str, cron: str, at: int) -> Event:
            if function == "slow":
                await gate.wait()
            return Event(Outcome.OK, Tell(), dict(FINE))

        stage.engine.act = slow
        id_ = await stage.project()
        ids: dict[str, str] = {}
        for name in ("slow", "quick"):
            stage.function(id_, name)
            ids[name] = await stage.add(id_, name, "* * * * *")
        assert isinstance(stage.clock, ManualClock)
        await stage.until(lambda: stage.ticker.loaded)
        for minute in (1, 2, 3):
            await stage.clock.advance(60)
            await stage.until(partial(_stands_at, stage, ok=minute, skipped=minute - 1))
        gate.set()
        await stage.settle()
        await stage.steps(60)
        one, two, three, four = minutes(1, 2, 3, 4)
        assert await stage.outcomes(id_, ids["slow"]) == [
            *((one, "ok"), (two, "skipped"), (three, "skipped"), (four, "ok"))
        ]
        assert stage.ticker.firings.skipped == 2

    on_stage(tmp_path, body)


def _stands_at(stage: Stage, *, ok: int, skipped: int) -> bool:
    """All but the one run that lasts has ended, and been written down."""
    done = stage.ticker.firings
    return (done.outcomes["ok"], done.skipped, stage.ticker.under_way) == (ok, skipped, 1)


def _are_left(errors: list[Exception], count: int) -> bool:
    return len(errors) == count


def _has_heard(stage: Stage, count: int) -> bool:
    return len(stage.engine.heard) == count


def test_a_handler_that_fails_is_not_called_again(tmp_path: Path) -> None:
    """It ran: the history has its error, and the next slot comes (documented)."""

    async def body(stage: Stage) -> None:
        async def fails(function: str, cron: str, at: int) -> Event:
            tell = Tell(exceptions=[GuestException("Error", "x" * 5000, "", 0)], threw=True)
            return Event(Outcome.EXCEPTION, tell, {"outcome": "exception", "noRetry": False})

        stage.engine.act = fails
        id_ = await stage.project()
        stage.function(id_, "f")
        schedule = await stage.add(id_, "f", "* * * * *")
        await stage.steps(120)
        assert len(stage.engine.heard) == 2
        (newest, _) = await stage.slots_of(id_, schedule)
        assert newest.outcome == "exception"
        assert newest.error is not None
        assert len(newest.error) == limits.SCHEDULE_ERROR.value
        assert stage.ticker.firings.outcomes == {"exception": 2}

    on_stage(tmp_path, body)


def test_a_firing_that_finds_no_place_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 10 and 20 s; then its row says that it was refused (NotNow)."""

    async def body(stage: Stage) -> None:
        assert isinstance(stage.clock, ManualClock)
        tries: list[float] = []
        places = 0

        @contextlib.asynccontextmanager
        async def full(self: Deliverer, *what: str) -> AsyncGenerator[Any]:
            tries.append(stage.clock.time_s() % 3600)
            if len(tries) > places:
                raise NotNow("the function is full", 1)
            async with real(self, *what) as delivery:  # type: ignore[arg-type]  # as it was called
                yield delivery

        real = Deliverer.turn
        monkeypatch.setattr(Deliverer, "turn", full)
        id_ = await stage.project()
        stage.function(id_, "f")
        schedule = await stage.add(id_, "f", "0 * * * *")
        await stage.until(lambda: stage.ticker.loaded)
        await stage.clock.advance(3600)
        await stage.until(lambda: len(tries) == 1)
        await stage.clock.advance(10)
        await stage.clock.advance(19)
        assert tries == [0, 10]
        await stage.clock.advance(1)
        await stage.settle()
        assert tries == [0, 10, 30]
        assert stage.engine.heard == []
        (row,) = await stage.slots_of(id_, schedule)
        assert (row.outcome, row.error) == ("loadShed", "the function is full")
        # the next slot finds one at the second try
        tries.clear()
        await stage.clock.advance(3570)
        await stage.until(lambda: len(tries) == 1)
        tries.clear()
        places = 1
        await stage.clock.advance(10)
        await stage.settle()
        assert [at for *_, at in stage.engine.heard] == [T0 + 2 * 3_600_000]
        assert (await stage.outcomes(id_, schedule))[-1][1] == "ok"

    on_stage(tmp_path, body)


def test_an_engine_that_ends_under_it_is_tried_again(tmp_path: Path) -> None:
    """Twice; unless the handler has said `noRetry` (contract B)."""

    async def body(stage: Stage) -> None:
        assert isinstance(stage.clock, ManualClock)
        forgone = False

        async def gone(function: str, cron: str, at: int) -> Event:
            return Event(Outcome.INTERNAL_ERROR, Tell(), {"noRetry": forgone})

        stage.engine.act = gone
        id_ = await stage.project()
        stage.function(id_, "f")
        schedule = await stage.add(id_, "f", "0 * * * *")
        await stage.until(lambda: stage.ticker.loaded)
        await stage.clock.advance(3600)
        await stage.until(lambda: len(stage.engine.heard) == 1)
        for wait_s, count in ((10, 2), (20, 3)):
            await stage.clock.advance(wait_s)
            await stage.until(partial(_has_heard, stage, count))
        await stage.settle()
        assert (await stage.outcomes(id_, schedule))[-1][1] == "internalError"
        forgone = True
        await stage.clock.advance(3570)
        await stage.settle()
        assert len(stage.engine.heard) == 4

    on_stage(tmp_path, body)


def test_functions_that_go_away_and_come_back(tmp_path: Path) -> None:
    """The history says that nothing was there to be called; a redeploy is called again."""

    async def body(stage: Stage) -> None:
        id_ = await stage.project()
        stage.function(id_, "f")
        schedule = await stage.add(id_, "f", "* * * * *")
        await stage.steps(60)
        where = stage.projects.by_id(id_)
        assert where is not None
        route = where.routes.pop(b"f")
        await stage.steps(60)
        where.routes[b"f"] = route
        route.handlers = ("fetch",)
        await stage.steps(60)
        route.handlers = ("fetch", "scheduled")
        await stage.steps(60)
        rows = list(reversed(await stage.slots_of(id_, schedule)))
        assert [(row.outcome, row.error) for row in rows] == [
            ("ok", None),
            ("scriptNotFound", "no function is called 'f'"),
            ("scriptNotFound", "the function 'f' has no scheduled handler"),
            ("ok", None),
        ]

    on_stage(tmp_path, body)


def test_deleted_while_it_runs(tmp_path: Path) -> None:
    """The run ends as it would have; nothing of it is kept, and no slot comes."""

    async def body(stage: Stage) -> None:
        gate = asyncio.Event()

        async def slow(function: str, cron: str, at: int) -> Event:
            await gate.wait()
            return Event(Outcome.OK, Tell(), dict(FINE))

        stage.engine.act = slow
        assert isinstance(stage.clock, ManualClock)
        id_ = await stage.project()
        stage.function(id_, "f")
        schedule = await stage.add(id_, "f", "* * * * *")
        await stage.until(lambda: stage.ticker.loaded)
        await stage.clock.advance(60)
        await stage.until(lambda: len(stage.engine.heard) == 1)
        assert await stage.declared.forget(id_, "f") == 1
        gate.set()
        await stage.settle()
        assert stage.ticker.firings.outcomes == {"ok": 1}
        await stage.steps(180)
        assert len(stage.engine.heard) == 1
        assert await stage.slots_of(id_, schedule) == []

    on_stage(tmp_path, body)


def test_a_server_that_ends_writes_down_what_has_run(tmp_path: Path) -> None:
    """`stop` begins nothing more; a run that ended in time is not fired again by the next start."""

    async def main() -> None:
        clock = ManualClock(START.timestamp())
        gate = asyncio.Event()

        async def slow(function: str, cron: str, at: int) -> Event:
            await gate.wait()
            return Event(Outcome.OK, Tell(), dict(FINE))

        async with staged(tmp_path, clock=clock) as stage:
            stage.engine.act = slow
            id_ = await stage.project()
            stage.function(id_, "f")
            schedule = await stage.add(id_, "f", "* * * * *", missed="run_once")
            await stage.until(lambda: stage.ticker.loaded)
            await clock.advance(60)
            await stage.until(partial(_has_heard, stage, 1))
            stage.ticker.stop()
            gate.set()
            await stage.until(lambda: stage.ticker.firings.outcomes["ok"] == 1)
            await stage.ticker.close()
            assert (await stage.outcomes(id_, schedule)) == [(T0 + MINUTE, "ok")]
            await clock.advance(120)
            assert len(stage.engine.heard) == 1
            stage.ticker.open()  # it is closed for good
            assert stage.ticker.under_way == 0

    asyncio.run(main())


def test_an_open_run_of_another_process_skips_the_next_slot(tmp_path: Path) -> None:
    """Whoever is at the slot before: its row counts, until it is too old to be anybody's."""

    async def body(stage: Stage) -> None:
        await stage.until(lambda: stage.ticker.loaded)  # the start takes open runs for dead
        id_ = await stage.project()
        schedule = await stage.add(id_, "f", "0 0 1 1 *")

        async def claim(minute: int, owner: str) -> Claim:
            at_ms = minutes(minute)[0]
            work = partial(
                schedule_rows.claim, id_=schedule, slot_ms=at_ms, owner=owner, now_ms=at_ms
            )
            return await stage.store.write(id_, work)

        assert await claim(1, "a") is Claim.OURS
        assert await claim(1, "b") is Claim.TAKEN
        assert await claim(2, "b") is Claim.SKIPPED
        assert await claim(2, "a") is Claim.SKIPPED_ALREADY
        stale = limits.SCHEDULE_STALE_MS.value // MINUTE
        assert await claim(stale, "b") is Claim.SKIPPED
        assert await claim(stale + 1, "b") is Claim.OURS
        gone = partial(schedule_rows.claim, id_="no", slot_ms=T0, owner="a", now_ms=T0)
        assert await stage.store.write(id_, gone) is Claim.GONE
        # a stale owner that comes back ends nothing that is not its own
        end = partial(
            schedule_rows.end,
            id_=schedule,
            slot_ms=minutes(stale + 1)[0],
            now_ms=T0,
            outcome="ok",
            error="",
            request_id=None,
        )
        assert not await stage.store.write(id_, partial(end, owner="a"))
        assert await stage.store.write(id_, partial(end, owner="b"))

    on_stage(tmp_path, body)


@pytest.mark.parametrize(("alone", "age_ms", "expected"), [
    (True, 0, 2), (False, 0, 0), (False, limits.SCHEDULE_STALE_MS.value + 1, 2),
])  # fmt: skip
def test_whose_runs_a_start_takes_for_dead(
    tmp_path: Path, alone: bool, age_ms: int, expected: int
) -> None:
    """Everybody's with a state directory of one's own; else those that nobody can be at."""

    async def body(stage: Stage) -> None:
        await stage.until(lambda: stage.ticker.loaded)
        id_ = await stage.project()
        for missed in ("skip", "run_once"):
            schedule = await stage.add(id_, missed, "0 0 1 1 *", missed=missed, told=False)
            claim = partial(schedule_rows.claim, id_=schedule, slot_ms=T0, owner="dead", now_ms=T0)
            assert await stage.store.write(id_, claim) is Claim.OURS
        now_ms = T0 + age_ms
        ours = partial(trigger_sweeps.schedule_interrupt, owner="dead", alone=alone, now_ms=now_ms)
        assert await stage.state.database.write(ours) == []
        work = partial(ours, owner="us")
        found = await stage.state.database.write(work)
        assert [one.slot_ms for one in found] == [T0] * expected
        assert sorted(one.again for one in found) == [False, True][:expected]
        # a crash before it was begun once more: the next start sees it, until somebody began
        left = [one for one in await stage.state.database.write(work) if one.again]
        assert len(left) == expected // 2
        for one in left:
            once_more = partial(schedule_rows.claim_again, id_=one.schedule_id, slot_ms=T0)
            for owner, first in (("a", True), ("b", False)):
                at_once = partial(once_more, owner=owner, now_ms=T0)
                assert await stage.store.write(id_, at_once) is first
            assert not any(one.again for one in await stage.state.database.write(work))

    on_stage(tmp_path, body)


def test_a_zone_that_is_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its schedule fires no more, the log says why, and the others fire on."""

    async def body(stage: Stage) -> None:
        id_ = await stage.project()
        stage.function(id_, "f")
        await stage.add(id_, "f", "* * * * *", "Mars/Olympus")
        await stage.add(id_, "f", "* * * * *")
        await stage.steps(60)
        assert len(stage.engine.heard) == 1
        assert "schedule.unreadable" in caplog.text
        assert "Mars/Olympus" in caplog.text

    on_stage(tmp_path, body)


def test_a_store_that_fails_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A look that fails, in words or with a bug, is followed by the next one."""

    async def body(stage: Stage) -> None:
        assert isinstance(stage.clock, ManualClock)
        id_ = await stage.project()
        stage.function(id_, "f")
        await stage.settle()
        errors: list[Exception] = [
            UserError(UserCode.STATE_READ_ONLY, "read-only now"), ValueError("a bug")
        ]  # fmt: skip
        real = stage.state.database.read

        async def fails(work: Any) -> Any:
            if errors and work is trigger_sweeps.schedule_stamp:
                raise errors.pop(0)
            return await real(work)

        monkeypatch.setattr(stage.state.database, "read", fails)
        await stage.add(id_, "f", "* * * * *", told=False)
        for left in (1, 0):
            await stage.clock.advance(30)
            await stage.until(partial(_are_left, errors, left))
        await stage.clock.advance(30)
        await stage.until(lambda: stage.ticker.known == 1)
        assert "read-only now" in caplog.text
        assert "a bug" in caplog.text

    on_stage(tmp_path, body)


def test_one_that_cannot_be_reckoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Keeps no other from its time."""

    async def body(stage: Stage) -> None:
        id_ = await stage.project()
        stage.function(id_, "f")
        await stage.add(id_, "f", "* * * * *", "Asia/Tokyo")
        await stage.add(id_, "f", "* * * * *", "Asia/Seoul")
        real = stage.ticker._due  # pyright: ignore[reportPrivateUsage]

        def due(entry: Entry, now_ms: int) -> None:
            if entry.cron.timezone == "Asia/Tokyo":
                raise ArithmeticError("on purpose")
            real(entry, now_ms)

        monkeypatch.setattr(stage.ticker, "_due", due)
        await stage.steps(60)
        assert len(stage.engine.heard) == 1
        assert "schedule.lost" in caplog.text
        monkeypatch.setattr(stage.ticker, "_due", real)
        await stage.steps(60, 15)
        assert len(stage.engine.heard) >= 3  # it is looked at again

    on_stage(tmp_path, body)


def test_a_project_that_is_deleted(tmp_path: Path) -> None:
    """Its schedules fire no more, though nobody has told the ticker."""

    async def body(stage: Stage) -> None:
        id_ = await stage.project()
        stage.function(id_, "f")
        await stage.add(id_, "f", "* * * * *")
        await stage.steps(60)
        await ControlStore(stage.state, stage.clock).delete_project(id_)
        await stage.steps(180)
        assert len(stage.engine.heard) == 1
        assert stage.ticker.known == 0

    on_stage(tmp_path, body)


def test_what_another_process_changes_is_seen(tmp_path: Path) -> None:
    """Within 30 s: a schedule that is new, one that has other settings, one that is gone."""

    async def body(stage: Stage) -> None:
        id_ = await stage.project()
        for name in ("f", "g"):
            stage.function(id_, name)
        await stage.settle()
        await stage.add(id_, "f", "* * * * *", told=False)
        gone = await stage.add(id_, "g", "* * * * *", told=False)
        assert isinstance(stage.clock, ManualClock)
        await stage.clock.advance(30)
        await stage.until(lambda: stage.ticker.known == 2)
        await stage.steps(30, 15)
        assert {name for name, *_ in stage.engine.heard} == {"f", "g"}
        await stage.store.write(id_, lambda s: schedule_rows.drop(s, [gone]))
        await stage.clock.advance(30)
        await stage.until(lambda: stage.ticker.known == 1)
        stage.engine.heard.clear()
        await stage.steps(60, 15)
        assert [name for name, *_ in stage.engine.heard] == ["f"]

    on_stage(tmp_path, body)


@pytest.mark.parametrize(("missed", "times"), [("skip", 1), ("run_once", 2)])
def test_a_run_that_a_crash_cuts_off(tmp_path: Path, missed: str, times: int) -> None:
    """It is `interrupted`; with run_once it fires once more, and only once (issue 6)."""

    async def main() -> None:
        clock = ManualClock(START.timestamp())
        heard = 0

        async def never(function: str, cron: str, at: int) -> Event:
            await asyncio.Event().wait()
            raise AssertionError("it was cut off")

        async with staged(tmp_path, clock=clock) as stage:
            stage.engine.act = never
            id_ = await stage.project()
            stage.function(id_, "f")
            schedule = await stage.add(id_, "f", "0 * * * *", missed=missed)
            await stage.until(lambda: stage.ticker.loaded)
            await clock.advance(3600)
            await stage.until(lambda: len(stage.engine.heard) == 1)
            assert await stage.outcomes(id_, schedule) == [(T0 + 3_600_000, None)]
            heard += 1
        for _ in range(2):  # the second crash is the last
            await clock.advance(5)
            async with staged(tmp_path, clock=clock) as stage:
                stage.engine.act = never
                stage.serve(id_, "shop")
                stage.function(id_, "f")
                await stage.until(lambda: stage.ticker.loaded)
                expected = min(heard + 1, times) - heard
                await stage.until(partial(_has_heard, stage, expected))
                heard += len(stage.engine.heard)
        async with staged(tmp_path, clock=clock) as stage:
            await stage.settle()
            row = (await stage.slots_of(id_, schedule))[0]
            assert (row.outcome, row.error) == ("interrupted", "the server ended while it ran")
        assert heard == times

    asyncio.run(main())


def test_the_history_is_bounded(tmp_path: Path) -> None:
    """50 slots of each schedule; one that went is not fired again (SCHEDULE_SLOTS)."""

    async def body(stage: Stage) -> None:
        id_ = await stage.project()
        stage.function(id_, "f")
        schedule = await stage.add(id_, "f", "* * * * *")
        kept = limits.SCHEDULE_SLOTS.value
        await stage.steps(60 * (kept + 10))
        rows = await stage.outcomes(id_, schedule)
        assert [at for at, _ in rows] == minutes(*range(11, kept + 11))
        for minute in (1, 10, 11, 40):
            claim = partial(
                schedule_rows.claim,
                id_=schedule,
                slot_ms=minutes(minute)[0],
                owner="o",
                now_ms=T0 + 60 * (kept + 10) * 1000,
            )
            claimed = await stage.store.write(id_, claim)
            assert claimed is Claim.TAKEN

    on_stage(tmp_path, body)


def test_a_storm_is_fair_and_loses_nothing(tmp_path: Path) -> None:
    """Hundreds of one project and one of another in a second: all fire, the one not last (T20)."""

    async def body(stage: Stage) -> None:
        assert isinstance(stage.clock, ManualClock)
        hot, cold = await stage.project("Hot"), await stage.project("Cold")
        for id_, names in ((hot, [f"h{n}" for n in range(12)]), (cold, ["c"])):
            for name in names:
                stage.function(id_, name)
        for number in range(12):
            for day in range(2, 29):
                await stage.add(hot, f"h{number}", f"0 1 1,{day} * *")
        await stage.add(cold, "c", "0 1 * * *")
        await stage.until(lambda: stage.ticker.loaded)
        await stage.clock.advance(3600)
        await stage.settle()
        names = [name for name, *_ in stage.engine.heard]
        assert (names.count("c"), len(names)) == (1, 12 * 27 + 1)
        assert names.index("c") <= limits.SCHEDULES_AT_ONCE.value // 2 + 1

    on_stage(tmp_path, body)


def test_fired_by_hand(tmp_path: Path) -> None:
    """Whatever the schedules say: its own first expression and now, or what is asked for."""

    async def body(stage: Stage) -> None:
        id_ = await stage.project()
        stage.function(id_, "f")
        stage.function(id_, "other", handlers=("fetch",))
        now_ms = round(stage.clock.time_s() * 1000)
        await stage.ticker.fire(id_, "f", cron=None, scheduled_ms=None)
        await stage.add(id_, "f", "0 9 * * *")
        await stage.ticker.fire(id_, "f", cron=None, scheduled_ms=5)
        done = await stage.ticker.fire(id_, "f", cron="1 2 3 4 5", scheduled_ms=6)
        assert done.outcome is Outcome.OK
        assert stage.engine.heard == [
            ("f", "* * * * *", now_ms),
            ("f", "0 9 * * *", 5),
            ("f", "1 2 3 4 5", 6),
        ]
        for name, code in (("never", "FUNCTION_NOT_FOUND"), ("other", "HANDLER_MISSING")):
            with pytest.raises(Refused) as caught:
                await stage.ticker.fire(id_, name, cron=None, scheduled_ms=None)
            assert caught.value.fault.code == code

    on_stage(tmp_path, body)


def test_a_full_disk_delays_and_does_not_lose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim that cannot be written is tried again after 10 s; a load, after 30 s."""

    async def body(stage: Stage) -> None:
        assert isinstance(stage.clock, ManualClock)
        id_ = await stage.project()
        stage.function(id_, "f")
        schedule = await stage.add(id_, "f", "0 * * * *")
        await stage.settle()
        store = stage.ticker.firings._store  # pyright: ignore[reportPrivateUsage]
        tried: list[str] = []

        async def full(project_id: str, work: object) -> object:
            tried.append(project_id)
            raise UserError(UserCode.DISK_FULL, "no space")

        with monkeypatch.context() as patch:
            patch.setattr(store, "write", full)
            await stage.clock.advance(3600)
            await stage.until(lambda: len(tried) == 1)
        await stage.clock.advance(10)
        await stage.settle()
        assert [at for *_, at in stage.engine.heard] == [T0 + 3_600_000]
        assert await stage.outcomes(id_, schedule) == [(T0 + 3_600_000, "ok")]

    on_stage(tmp_path, body)


@pytest.mark.parametrize(("cron", "missed", "outage_s", "fired_s"), [
    ("0 * * * *", "skip", 40, [0]), ("0 * * * *", "skip", 100, []),
    ("0 * * * *", "run_once", 100, [0]), ("0 * * * *", "run_once", 1000, [0]),
    # the minute that came due meanwhile is not too late, and not skipped for the one before it
    ("* * * * *", "skip", 70, [60, 120]),
])  # fmt: skip
def test_a_store_that_fails_for_longer(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cron: str,
    missed: str,
    outage_s: int,
    fired_s: list[int],
) -> None:
    """A slot that cannot be claimed is put back while it is not missed; with run_once, anyway."""

    async def body(stage: Stage) -> None:
        assert isinstance(stage.clock, ManualClock)
        id_ = await stage.project()
        stage.function(id_, "f")
        await stage.add(id_, "f", cron, missed=missed)
        await stage.settle()
        store = stage.ticker.firings._store  # pyright: ignore[reportPrivateUsage]

        async def full(project_id: str, work: object) -> object:
            raise UserError(UserCode.DISK_FULL, "no space")

        with monkeypatch.context() as patch:
            patch.setattr(store, "write", full)
            await stage.clock.advance(3600)
            for _ in range(outage_s // 10):
                await stage.clock.advance(10)
        for _ in range(6):
            await stage.clock.advance(10)
            for _ in range(20):
                await stage.state.database.in_thread(lambda: None)
        await stage.settle()
        fired = [at for *_, at in stage.engine.heard]
        assert fired == [T0 + (3600 + at) * 1000 for at in fired_s]

    on_stage(tmp_path, body)


def test_a_first_look_that_was_overtaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was deleted while it read does not come back with what it had read."""

    async def body(stage: Stage) -> None:
        await stage.until(lambda: stage.ticker.loaded)
        id_ = await stage.project()
        stage.function(id_, "f")
        gone = await stage.add(id_, "f", "* * * * *", told=False)
        await stage.add(id_, "f", "0 0 1 1 *", told=False)
        await stage.ticker.close()
        stage.start()
        real = stage.state.database.read

        async def overtaken(work: Any) -> Any:
            found = await real(work)
            if work is trigger_sweeps.schedule_all:
                await stage.store.write(id_, lambda s: schedule_rows.drop(s, [gone]))
                stage.ticker.drop(id_, gone)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(stage.state.database, "read", overtaken)
            stage.ticker.open()
            await stage.until(lambda: stage.ticker.loaded)
        assert stage.ticker.known == 1
        await stage.steps(60)
        assert stage.engine.heard == []

    on_stage(tmp_path, body)


def test_nothing_is_polled(tmp_path: Path) -> None:
    """Ten thousand schedules that are not due: two looks a minute, and no more (Must show 6)."""

    async def body(stage: Stage) -> None:
        assert isinstance(stage.clock, ManualClock)
        id_ = await stage.project()
        most = limits.SCHEDULES_OF_PROJECT.value
        wanted = [Wanted(f"f{n}", f"{n % 60} 12 * * *", "UTC", None) for n in range(most)]
        ids = [str(n) for n in range(most)]
        replace = partial(
            schedule_rows.replace,
            functions=None,
            source="deploy",
            wanted=wanted,
            ids=ids,
            now_ms=T0,
        )
        await stage.until(lambda: stage.ticker.loaded)
        await stage.store.write(id_, replace)
        await stage.clock.advance(31)
        await stage.until(lambda: stage.ticker.known == most)
        await stage.steps(1, 1)
        sleeps: list[float] = []
        real = stage.clock.sleep

        async def counted(seconds: float) -> None:
            sleeps.append(seconds)
            await real(seconds)

        stage.clock.sleep = counted  # type: ignore[method-assign]  # only to count
        await stage.steps(600, 30)
        looks = 600 / limits.SCHEDULE_LOOK_S.value + 600 / limits.SCHEDULE_REFRESH_S.value
        assert looks / 2 - 2 <= len(sleeps) <= looks + 2
        assert stage.engine.heard == []

    on_stage(tmp_path, body)

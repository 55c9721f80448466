"""Processes, folders and descriptors of the default engine: made when needed, gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.runtime.engine.lab import (
    Lab,
    answer,
    ask,
    begin,
    folder_of,
    guest,
    nowhere,
    on_workerd,
    pid_of,
    spawner_of,
    workerd_lab,
)

from amba_runtime import limits
from amba_runtime.clock import ManualClock, SystemClock
from amba_runtime.engine.base import StartFailed, StartFault
from amba_runtime.engine.workerd.engine import WorkerdEngine, find_workerd
from amba_runtime.engine.workerd.isolate import WorkerdIsolate
from amba_runtime.errors import InternalCode, InternalError, UserCode, UserError
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.outcome import Tell
from amba_runtime.pool import Resting, Slot
from amba_runtime.private import LOCK
from amba_runtime.wire import NothingSentError, Request, Response, WireError

pytestmark = pytest.mark.slow

FETCH = "export default { fetch() { return new Response('here') } };"


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_the_program_travels_with_us(tmp_path: Path) -> None:
    """Or is named; one that is missing or no program is refused by name (architecture 2)."""
    assert find_workerd().name == "workerd"
    assert find_workerd(str(find_workerd())) == find_workerd()
    plain = tmp_path / "workerd"
    for path in (tmp_path / "nothing", plain):
        with pytest.raises(UserError) as refused:
            find_workerd(str(path))
        assert refused.value.code is UserCode.PROGRAM_MISSING
        assert str(path) in refused.value.message
        assert "AMBA_RUN_WORKERD" in refused.value.message
        plain.write_text("not executable")


def test_folders_and_sockets_are_ours_alone() -> None:
    """0700 and 0600 while they live; nothing afterwards (issue 2, item 3)."""

    async def storage(request: Request) -> Response:
        return Response(404)

    async def body(lab: Lab) -> None:
        env = [("SECRET", "s3cret")]
        isolate = await lab.start(FETCH, storage=storage, database=storage, env=env)
        folder = folder_of(isolate)
        config = folder / "in" / "worker.capnp"
        assert "s3cret" in config.read_text()
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        await isolate.describe()
        assert not config.exists()  # secrets lie on the disk only until they were read
        # an engine's own user comes through the outer ones, and sees no name there
        passed = lab.engine.sandbox.folder_mode
        modes = [stat.S_IMODE(p.stat().st_mode) for p in (folder.parent, folder, folder / "in")]
        assert modes == [passed, passed, 0o700]
        sockets = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*.sock")}
        names = ("fn", "control", "egress", "log", "cache", "r2", "database")
        assert sockets == {f"{name}.sock": 0o600 for name in names}
        # what an engine listens on is handed to it: it cannot see it
        seen = {path.name for path in (folder / "in").glob("*.sock")}
        assert seen == {f"{name}.sock" for name in names[2:]}
        await isolate.close()
        assert not folder.exists()
        assert folder.parent.exists()
        parents.append(folder.parent)

    parents: list[Path] = []
    on_workerd(body)
    assert not parents[0].exists()


def test_an_engine_has_no_environment_and_no_descriptors_of_ours() -> None:
    """It inherits its five descriptors and nothing else."""

    async def body(lab: Lab) -> None:
        process = psutil.Process(pid_of(await lab.serving(FETCH)))
        assert {name for name in process.environ() if name != "PWD"} == set()  # bwrap sets it
        place = f"/proc/{process.pid}/fd"
        names = {os.readlink(f"{place}/{fd}") for fd in os.listdir(place)}
        # its event files, its pipe to us, its listeners, and the two folders it opens itself
        inside = {"/"} if lab.engine.sandbox.tier == 3 else {"/", process.cwd()}
        assert {n for n in names if n.startswith("/")} == {os.devnull, *inside}
        assert os.getsid(process.pid) == process.pid

    on_workerd(body)


def test_thirty_lives_leak_nothing() -> None:
    """Descriptors, processes and folders are as many afterwards as before (Must show 9)."""

    async def body(lab: Lab) -> None:
        await (await lab.serving(FETCH)).close()
        before = descriptors()
        folder = spawner = None
        for n in range(30):
            isolate = await lab.serving(FETCH)
            spawner = spawner_of(isolate)
            folder = folder_of(isolate)
            assert (await ask(isolate)).body == b"here"
            if n % 3 == 0:
                os.kill(pid_of(isolate), signal.SIGKILL)
                await lab.told.until(lambda: lab.told.deaths)
                lab.told.deaths.clear()
            await isolate.close()
        assert descriptors() == before
        assert folder is not None
        assert [path.name for path in folder.parent.iterdir()] == [LOCK]
        assert spawner is not None
        assert [p.name() for p in spawner.children() if p.status() != psutil.STATUS_ZOMBIE] == []

    on_workerd(body)


def test_starts_that_fail_leak_nothing() -> None:
    """The owner closes, and nothing is left."""

    async def body(lab: Lab) -> None:
        await (await lab.serving(FETCH)).close()
        before = descriptors()
        for _ in range(5):
            isolate = await lab.start("throw new Error('no')")
            with pytest.raises(StartFailed):
                await isolate.describe()
            await isolate.close()
        assert descriptors() == before

    on_workerd(body)


def test_what_was_not_closed_is_closed_with_the_engine() -> None:
    """Live isolates, dead ones and those that never described themselves."""

    async def main() -> None:
        before = descriptors()
        async with workerd_lab() as lab:
            await lab.serving(FETCH)
            dead = await lab.serving(FETCH)
            os.kill(pid_of(dead), signal.SIGKILL)
            await lab.told.until(lambda: lab.told.deaths)
            await lab.start("throw 1")
        assert descriptors() == before

    asyncio.run(main())


def test_a_program_that_is_none_is_told(tmp_path: Path) -> None:
    """A workerd that cannot run ends at once, and what it said is the reason."""
    program = tmp_path / "workerd"
    program.write_text("#!/bin/sh\necho 'not today' >&2\nexit 3\n")
    program.chmod(0o755)

    async def main() -> None:
        engine = WorkerdEngine(program=program)
        try:
            isolate = await Lab(engine).start(FETCH)
            with pytest.raises(StartFailed, match="not today"):
                await isolate.describe()
        finally:
            await engine.close()

    asyncio.run(main())


def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    """A reload that overtakes another one: no process, no folder, no descriptor."""

    async def body(lab: Lab) -> None:
        await (await lab.serving(FETCH)).close()
        before = descriptors()
        for turns in range(12):
            starting = asyncio.create_task(lab.start(FETCH))
            for _ in range(turns):
                await asyncio.sleep(0)
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await (await starting).close()
        await (await lab.serving(FETCH)).close()  # a round trip later all answers have come
        assert descriptors() == before

    on_workerd(body)


def test_an_engine_survives_its_spawner() -> None:
    """Isolates end with it, each told; the next start has a spawner again."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(FETCH)
        spawner_of(isolate).kill()
        await lab.told.until(lambda: lab.told.deaths)
        assert not isolate.alive
        await isolate.close()
        assert (await ask(await lab.serving(FETCH))).body == b"here"

    on_workerd(body)


# --- with the pool on top ----------------------------------------------------------------------


def slot_on(lab: Lab, code: bytes, clock: ManualClock | SystemClock) -> Slot:
    def late(slot: Slot, label: str, tell: Tell) -> None:
        pass

    return Slot(
        lab.engine,
        Manifest(ProjectId("p"), FunctionName("f"), 1, (), storage=False),
        Bundle.of(code),
        limits_=FunctionLimits.dev(),
        egress=nowhere,
        storage=None,
        late=late,
        clock=clock,
    )


async def get(slot: Slot, target: str = "/", *, fresh: bool = False) -> bytes:
    exchange = await slot.exchange(fresh=fresh)
    begin(exchange, target)
    return (await answer(exchange)).body


def test_a_dead_engine_is_replaced_before_the_next_request() -> None:
    """Also when the request comes before the news of the death (reliability E30)."""

    async def body(lab: Lab) -> None:
        slot = slot_on(lab, FETCH.encode(), SystemClock())
        await slot.start()
        for _ in range(2):
            assert await get(slot) == b"here"
            isolate = slot.isolate
            assert isinstance(isolate, WorkerdIsolate)
            os.kill(isolate.pid, signal.SIGKILL)
            try:
                assert await get(slot) == b"here"
            except NothingSentError:  # as the dispatcher does, which may ask once more
                assert await get(slot, fresh=True) == b"here"
            assert slot.isolate is not isolate
        await slot.retire(drain_s=0)

    on_workerd(body)


def test_what_is_under_way_is_lost_with_its_engine() -> None:
    """Each gets a WireError, and the cause names the signal (issue 2, item 3)."""

    async def body(lab: Lab) -> None:
        slot = slot_on(lab, bundle.code, SystemClock())
        await slot.start()
        waiting = [asyncio.create_task(get(slot, "/never")) for _ in range(5)]
        await get(slot, "/head")
        isolate = slot.isolate
        assert isinstance(isolate, WorkerdIsolate)
        os.kill(isolate.pid, signal.SIGSEGV)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [isinstance(r, WireError) for r in results] == [True] * 5
        # workerd says it, prints a stack and exits
        await asyncio.wait_for(isolate._exited, 5)  # pyright: ignore[reportPrivateUsage]
        assert slot.last_end is not None
        assert "signal #11" in slot.last_end.reason
        assert len(await get(slot, "/head")) == 1000
        await slot.retire(drain_s=0)

    bundle = guest("streams")
    on_workerd(body)


def test_a_crash_loop_backs_off() -> None:
    """At once, then 0.1 s, 0.2 s, ... as the clock says; a long rest is refused (row E32)."""

    async def body(lab: Lab) -> None:
        clock = ManualClock()
        slot = slot_on(lab, FETCH.encode(), clock)
        await slot.start()
        for wait_s in (0.0, 0.1, 0.2, 0.4, 0.8):
            isolate = slot.isolate
            assert isinstance(isolate, WorkerdIsolate)
            os.kill(isolate.pid, signal.SIGKILL)
            await asyncio.wait_for(isolate._exited, 5)  # pyright: ignore[reportPrivateUsage]
            waiting = asyncio.create_task(get(slot))
            if wait_s:
                await clock.advance(wait_s - 0.01)
                assert slot.isolate is None  # nothing was started yet
                await clock.advance(0.02)
            assert await waiting == b"here"
        assert isinstance(slot.isolate, WorkerdIsolate)
        os.kill(slot.isolate.pid, signal.SIGKILL)
        await asyncio.wait_for(slot.isolate._exited, 5)  # pyright: ignore[reportPrivateUsage]
        await asyncio.sleep(0)
        with pytest.raises(Resting) as resting:
            await slot.exchange()
        assert resting.value.retry_after_s == 2
        await slot.retire(drain_s=0)

    on_workerd(body)


def test_a_slot_without_a_spawner_answers_with_a_wire_error(monkeypatch: Any) -> None:
    """An engine that cannot start any more is the caller's 502, never a stray exception."""

    async def body(lab: Lab) -> None:
        slot = slot_on(lab, FETCH.encode(), SystemClock())
        await slot.start()

        async def no(*_: Any) -> None:
            raise InternalError(InternalCode.ENGINE_START, "no more processes")

        monkeypatch.setattr(lab.engine, "start", no)
        isolate = slot.isolate
        assert isinstance(isolate, WorkerdIsolate)
        os.kill(isolate.pid, signal.SIGKILL)
        await asyncio.wait_for(isolate._exited, 5)  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(WireError, match="no more processes"):
            await slot.exchange()
        await slot.retire(drain_s=0)

    on_workerd(body)


def test_an_engine_sweeps_what_killed_hosts_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders whose lock is free go when an engine opens; its own stays until it closes."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "amba-killed"
    left.mkdir()
    (left / LOCK).touch()
    (left / "worker.capnp").write_text("s3cret")

    async def main() -> None:
        engine = WorkerdEngine(program=find_workerd())
        await engine.open()
        assert not left.exists()
        await engine.close()
        assert os.listdir(tmp_path) == []

    asyncio.run(main())


@pytest.mark.slow
def test_a_start_that_never_ends_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that takes no CPU and says nothing has a deadline too (limits.START_S)."""
    program = tmp_path / "workerd"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(limits, "START_S", limits.Deadline(0.01, "", ""))

    async def main() -> None:
        engine = WorkerdEngine(program=program, most=0)
        try:
            isolate = await Lab(engine).start(FETCH)
            with pytest.raises(StartFailed, match="its start did not end") as failed:
                await isolate.describe()
            assert failed.value.fault is StartFault.UNSETTLED
        finally:
            await engine.close()

    asyncio.run(main())

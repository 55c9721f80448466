"""The default engine within walls: the same answers at every tier, and ends over memory told."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.engine.lab import GUESTS, Lab, ask, folder_of, guest, nowhere, pid_of

from amba_runtime import limits
from amba_runtime.engine.base import Isolate, StartFailed, StartFault, Surroundings
from amba_runtime.engine.workerd.engine import WorkerdEngine, find_workerd
from amba_runtime.errors import InternalCode, InternalError
from amba_runtime.limits import FunctionLimits
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.outcome import Breach, Outcome
from amba_runtime.sandbox import Sandbox
from amba_runtime.sandbox.cgroups import Cgroups, Group
from amba_runtime.wire import Request, Response, WireError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="walls are Linux' own"),
]

CAP_MIB = 96
NO_STARTERS = ("hostile", "cpu-loop", "syntax-error")


def at_tier(tier: int, body: Callable[[Lab], Coroutine[Any, Any, None]]) -> None:
    """Run a test's body with an engine of one tier; skips it where there is none."""

    async def main() -> None:
        engine = WorkerdEngine(program=find_workerd(), most=tier)
        try:
            await engine.open()
            if engine.sandbox.tier != tier:
                pytest.skip(f"no tier {tier} here: {'; '.join(engine.sandbox.notes)}")
            async with asyncio.timeout(20):
                await body(Lab(engine))
        finally:
            await engine.close()

    asyncio.run(main())


async def capped(lab: Lab, bundle: Bundle) -> Isolate:
    """An isolate that may hold CAP_MIB."""
    most = replace(FunctionLimits.hosted(), memory_mib=CAP_MIB)
    manifest = Manifest(ProjectId("p"), FunctionName("f"), 1, (), False, limits=most)
    around = Surroundings(nowhere, None, lab.told.on_tell, lab.told.on_death)
    return await lab.engine.start(manifest, bundle, around)


def needs_cap(lab: Lab) -> None:
    assert isinstance(lab.engine, WorkerdEngine)
    if "memory" not in lab.engine.cgroups.controllers:
        pytest.skip(f"no control group for memory: {lab.engine.cgroups.note}")


@pytest.mark.parametrize("tier", [0, 1, 2, 3])
def test_a_function_does_the_same_at_every_tier(tier: int) -> None:
    """Answers, env, STORAGE, egress and console lines; F4 held before it was handed over."""
    reached: list[bytes] = []

    async def egress(request: Request) -> Response:
        reached.append(request.target)
        return Response(200, body=b"outside")

    async def storage(request: Request) -> Response:
        reached.append(b"storage")
        return Response(404)

    async def body(lab: Lab) -> None:
        isolate = await lab.serving(
            """export default { async fetch(request, env) {
              const out = await (await fetch("http://example.com/x")).text();
              await env.STORAGE.get("key").catch(() => null);
              const same = crypto.randomUUID() === crypto.randomUUID();
              return Response.json([out, env.WORD, same, new Date().getTimezoneOffset()]);
            } };""",
            env=[("WORD", "said")],
            egress=egress,
            storage=storage,
        )
        assert (await ask(isolate)).body == b'["outside","said",false,0]'
        assert reached[0] == b"http://example.com/x"
        assert b"storage" in reached
        seen = folder_of(isolate) / "in"
        stranger = seen.stat().st_uid != os.getuid()
        assert stranger == (tier >= 2 and os.getuid() == 0)

    at_tier(tier, body)


@pytest.mark.parametrize("tier", [2, 3])
@pytest.mark.parametrize(
    "grows", ["all.push({ all: [n] })", "all.push(new Uint8Array(1e6).fill(1))"]
)
def test_too_much_memory_is_told_as_such(tier: int, grows: str) -> None:
    """By the kernel or by V8: EXCEEDED_MEMORY with the limit; the next start is well (E10, E11)."""

    async def body(lab: Lab) -> None:
        needs_cap(lab)
        code = f"export default {{ fetch() {{ for (const all = [], n = 1;;) {grows}; }} }};"
        isolate = await capped(lab, Bundle.of(code.encode()))
        await isolate.describe()
        with pytest.raises(WireError):
            await ask(isolate)
        await lab.told.until(lambda: lab.told.deaths)
        [ended] = lab.told.deaths
        assert ended.outcome is Outcome.EXCEEDED_MEMORY
        assert ended.breach is not None
        assert (ended.breach.limit, ended.breach.most) == ("memory_mib", CAP_MIB)
        assert CAP_MIB * 0.5 <= ended.breach.used <= CAP_MIB * 1.1
        again = await lab.serving("export default { fetch: () => new Response('well') };")
        assert (await ask(again)).body == b"well"

    at_tier(tier, body)


def test_a_start_that_takes_all_memory_is_the_functions_fault() -> None:
    """MEMORY, in words that are good for whoever sent it."""

    async def body(lab: Lab) -> None:
        needs_cap(lab)
        bomb = b"const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1));"
        isolate = await capped(lab, Bundle.of(bomb))
        with pytest.raises(StartFailed) as failed:
            await isolate.describe()
        assert failed.value.fault is StartFault.MEMORY
        assert failed.value.reason == "its start used all memory there is"

    at_tier(3, body)


def test_what_a_kill_says_goes_before_what_the_kernel_says() -> None:
    """A verdict of ours is told as it was given (base.Isolate)."""

    async def body(lab: Lab) -> None:
        isolate = await lab.serving("export default { fetch: () => new Response('here') };")
        from amba_runtime.outcome import Ended

        verdict = Ended(Outcome.EXCEEDED_CPU, "enough", Breach("cpu_ms", 60, 50))
        isolate.kill(verdict)
        await lab.told.until(lambda: lab.told.deaths)
        assert lab.told.deaths == [verdict]
        isolate.kill(verdict)
        assert not isolate.alive

    for tier in (1, 3):
        at_tier(tier, body)


def test_walls_that_cannot_be_raised_any_more_are_our_fault(tmp_path: Path) -> None:
    """ENGINE_START with bubblewrap's own words: never blamed on the function (F4)."""

    async def body(lab: Lab) -> None:
        assert isinstance(lab.engine, WorkerdEngine)
        kit = lab.engine.sandbox.kit
        broken = replace(kit, libraries=(*kit.libraries, str(tmp_path / "removed.so")))
        engine = WorkerdEngine(
            program=find_workerd(), sandbox=replace(lab.engine.sandbox, kit=broken)
        )
        try:
            isolate = await Lab(engine).start("export default {};")
            with pytest.raises(InternalError) as refused:
                await isolate.describe()
            assert refused.value.code is InternalCode.ENGINE_START
            assert "bwrap: Can't find source path" in refused.value.message
        finally:
            await engine.close()

    at_tier(3, body)


def test_a_group_that_cannot_be_made_is_no_reason_not_to_serve(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog looks at the process then; it is said in the log."""

    async def body(lab: Lab) -> None:
        assert isinstance(lab.engine, WorkerdEngine)

        def refuse(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(lab.engine.cgroups, "open", refuse)
        isolate = await lab.serving("export default { fetch: () => new Response('here') };")
        assert (await ask(isolate)).body == b"here"
        assert "No space left on device" in caplog.text

    at_tier(1, body)


def test_strict_starts_nothing_without_a_group_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where there are groups for memory, one that cannot be made is no start (4.2, tier 3)."""

    async def body(lab: Lab) -> None:
        needs_cap(lab)
        engine = WorkerdEngine(program=find_workerd(), sandbox=lab.engine.sandbox, strict=True)
        try:
            await engine.open()
            assert engine.memory_note == ""
            strict = Lab(engine)
            held = await strict.serving("export default { fetch: () => new Response('here') };")
            folder = group_of(pid_of(held)).parent

            def refuse(_self: Group, _memory_bytes: int, _pids: int) -> None:
                raise OSError(28, "No space left on device")

            monkeypatch.setattr(Group, "cap", refuse)
            with pytest.raises(InternalError) as refused:
                await strict.serving("export default { fetch: () => new Response('here') };")
            assert refused.value.code is InternalCode.WALLS_MISSING
            assert "No space left on device" in refused.value.message
            assert "--sandbox strict" in refused.value.message
            assert [entry.name for entry in folder.iterdir() if entry.is_dir()] == [
                folder_of(held).name
            ]
            assert (await ask(held)).body == b"here"
        finally:
            await engine.close()

    at_tier(3, body)


def test_strict_without_any_groups_of_memory_leaves_it_to_the_watchdog(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The poller holds where a machine has no groups (reliability.md 1.4, T4); it says so."""

    async def body(lab: Lab) -> None:
        def none() -> Cgroups:
            return Cgroups.none("nothing to write to")

        monkeypatch.setattr(Cgroups, "detect", none)
        engine = WorkerdEngine(program=find_workerd(), sandbox=lab.engine.sandbox, strict=True)
        try:
            await engine.open()
            assert engine.memory_note == "nothing to write to"
            isolate = await Lab(engine).serving("export default { fetch: () => new Response() };")
            assert (await ask(isolate)).status == 200
        finally:
            await engine.close()

    at_tier(3, body)


def group_of(pid: int) -> Path:
    """The folder of a process's group for memory."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(",") or not controllers:
            return Path("/sys/fs/cgroup") / controllers / path.lstrip("/")
    raise AssertionError("no group")


def members(group: Path) -> list[str]:
    """Pids of the processes in it."""
    return (group / "cgroup.procs").read_text().split()


def test_every_process_is_in_a_group_of_its_own() -> None:
    """Also what keeps its jail; the group goes with it."""

    async def body(lab: Lab) -> None:
        needs_cap(lab)
        isolate = await lab.serving("export default { fetch: () => new Response('here') };")
        name = folder_of(isolate).name
        place = group_of(pid_of(isolate))
        assert place.name == name
        assert str(pid_of(isolate)) in members(place)
        assert len(members(place)) == 2  # and what keeps its jail
        await isolate.close()
        await (await lab.serving("export default { fetch: () => new Response() };")).close()
        assert not place.exists()

    at_tier(3, body)


def test_engines_are_told_apart_from_off() -> None:
    """`most=0` looks for nothing and makes nothing (interface.md 2, --sandbox off)."""

    async def main() -> None:
        engine = WorkerdEngine(program=find_workerd(), most=0)
        assert engine.sandbox == Sandbox()
        await engine.open()
        try:
            assert engine.sandbox == Sandbox()
            assert engine.cgroups.version == 0
        finally:
            await engine.close()
        assert limits.SANDBOX_FILES.value >= limits.INFLIGHT.value  # what it may serve at once

    asyncio.run(main())


def test_guests_of_the_tests_all_start_within_the_walls() -> None:
    """None needs a system call that the filter refuses: each says what it always says."""

    paths = [path for path in sorted(GUESTS.iterdir()) if path.is_dir()]
    bundles = {p.name: guest(p.name) for p in paths if p.name not in NO_STARTERS}

    async def body(lab: Lab) -> None:
        plain = WorkerdEngine(program=find_workerd(), most=0)
        try:
            for name, bundle in bundles.items():
                said = [await describe(Lab(engine), bundle) for engine in (lab.engine, plain)]
                assert said[0] == said[1], name
        finally:
            await plain.close()

    async def describe(lab: Lab, bundle: Bundle) -> object:
        isolate = await lab.start(bundle)
        try:
            description = await isolate.describe()
            return description.handlers, description.default, description.fault
        except StartFailed as failed:
            return failed.fault, failed.reason, failed.stack
        finally:
            await isolate.close()

    at_tier(3, body)

"""What `doctor` finds on machines that are not well."""

from __future__ import annotations

import platform
import socket
from pathlib import Path

import pytest

from amba_run import health
from amba_run.config import Environment
from amba_run.health import Finding, State
from amba_runtime.clock import ManualClock
from amba_runtime.limits import ENGINE_OLD_DAYS
from amba_runtime.sandbox import Sandbox
from amba_runtime.sandbox.cgroups import Cgroups

BUILT_S = 1_767_225_600.0  # 2026-01-01


def state_of(finding: Finding) -> State:
    """Its state; what is not well has a fix."""
    assert finding.state is State.OK or finding.fix
    return finding.state


@pytest.mark.parametrize(
    ("said", "days", "state"),
    [
        ("workerd 2026-01-01", ENGINE_OLD_DAYS.value, State.OK),
        ("workerd 2026-01-01", ENGINE_OLD_DAYS.value + 1, State.WARN),
        ("workerd 2026-01-01", -400, State.OK),
        ("something else", 0, State.WARN),
    ],
)
def test_the_age_of_the_engine(said: str, days: int, state: State) -> None:
    """Its version is its date; half a year is the limit."""
    clock = ManualClock(BUILT_S)
    clock.jump(days * 86400)
    assert state_of(health.engine_age(said, Path("workerd"), clock)) is state


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("echo 'cannot find libunwind' >&2; exit 127", "ended with 127: cannot find libunwind"),
        ("kill -9 $$", "ended with -9"),
    ],
)
def test_a_program_that_does_not_run(tmp_path: Path, text: str, told: str) -> None:
    """Programs are run, not only looked for; what they said is told."""
    program = script(tmp_path / "workerd", text)
    finding, untried = health.workerd(Environment(workerd=program), ManualClock())
    assert (untried.name, state_of(untried)) == ("sandbox", State.WARN)
    assert state_of(finding) is State.FAIL
    assert told in finding.detail
    assert "unset AMBA_RUN_WORKERD" in finding.fix


def test_a_program_of_another_machine(tmp_path: Path) -> None:
    """The kernel's own refusal is told."""
    program = tmp_path / "esbuild"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    finding = health.esbuild(Environment(esbuild=program))
    assert (state_of(finding), "does not run" in finding.detail) == (State.FAIL, True)
    missing = health.esbuild(Environment(esbuild=tmp_path / "nowhere"))
    assert state_of(missing) is State.FAIL


def test_an_engine_that_serves_nothing(tmp_path: Path) -> None:
    """It tells its version, but no function starts."""
    program = script(tmp_path / "workerd", "[ $1 = --version ] && echo workerd 2026-01-01")
    age, serves, walls, _memory = health.workerd(Environment(workerd=program), ManualClock(BUILT_S))
    assert age.state is State.OK
    assert state_of(serves) is State.FAIL
    assert "no function starts" in serves.detail
    assert "is not a 64-bit ELF program" in walls.detail


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (["127.0.0.1", "::1"], State.OK),
        (["127.0.53.53"], State.OK),
        (["192.0.2.7"], State.WARN),
        (["127.0.0.1", "192.0.2.7"], State.WARN),
        ([], State.WARN),
        (None, State.WARN),
    ],
)
def test_names_below_localhost(found: list[str] | None, state: State) -> None:
    """Clients have to find this machine, and no other."""

    def resolve(_: str) -> list[str]:
        if found is None:
            raise socket.gaierror("unknown")
        return found

    finding = health.name_resolution("x.localhost", resolve)
    assert state_of(finding) is state
    assert state is State.OK or "/fn/" in finding.fix


def test_addresses_asks_the_resolver() -> None:
    """An address is its own answer, everywhere."""
    assert set(health.addresses("127.0.0.1")) == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("hard", "state"), [(1024, State.WARN), (1025, State.OK), (-1, State.OK), (64, State.WARN)]
)
def test_open_files(hard: int, state: State) -> None:
    """The hard limit is what `dev` can raise itself to."""
    assert state_of(health.judge_open_files(64, hard, unlimited=-1)) is state


def test_a_temporary_folder_that_cannot_hold_sockets(tmp_path: Path) -> None:
    """Too long for a Unix socket's path, or not there."""
    deep = tmp_path / ("d" * 80)
    assert state_of(health.temporary_folder(deep)) is State.FAIL
    assert state_of(health.temporary_folder(Path("/nowhere"))) is State.FAIL
    assert health.temporary_folder(Path("/tmp")).state is State.OK


def test_the_limits_of_inotify(tmp_path: Path) -> None:
    """Too few watches is told with the command that raises them."""
    (tmp_path / "max_user_watches").write_text("100\n")
    low, unknown = health.inotify(tmp_path)
    assert state_of(low) is State.WARN
    assert low.fix == "sudo sysctl fs.inotify.max_user_watches=32768"
    assert unknown.state is State.WARN


def test_a_machine_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alpine's musl cannot run the engine (peers.md pain 14)."""
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert state_of(health.libc()) is State.FAIL
    monkeypatch.setattr("sys.platform", "darwin")
    assert health.libc().state is State.OK


def test_no_ipv6_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 is served all the same."""

    class Refusing(socket.socket):
        def bind(self, address: object, /) -> None:
            raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(socket, "socket", Refusing)
    assert state_of(health.ipv6_loopback()) is State.WARN


def test_saves_that_nobody_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system out of watches, or a share that tells nothing: both are faults."""
    import watchfiles._rust_notify

    class Silent:
        def __init__(self, *_: object) -> None:
            pass

        def __enter__(self) -> Silent:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def watch(self, *_: object) -> str:
            return "timeout"

    def refuse(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(watchfiles._rust_notify, "RustNotify", Silent)
    assert state_of(health.watching()) is State.FAIL
    monkeypatch.setattr(watchfiles._rust_notify, "RustNotify", refuse)
    assert "no space left" in health.watching().detail


@pytest.mark.parametrize(
    ("tier", "state", "said"),
    [
        (0, State.WARN, "tier 0: words; no userns. The engine alone is not a hardened sandbox"),
        (1, State.WARN, "run only code that you trust"),
        (2, State.WARN, "a node takes tier 3"),
        (3, State.OK, "tier 3: words"),
    ],
)
def test_the_sandbox_is_told_as_it_is(tier: int, state: State, said: str) -> None:
    """Its tier, why there is no higher one, and the line that mends it (reliability.md 4.2)."""
    notes = () if tier == 3 else ("no userns",)
    finding = health.sandbox(Sandbox(tier, "words", notes, "sudo mend" if notes else ""))
    assert (finding.name, state_of(finding)) == ("sandbox", state)
    assert said in finding.detail
    assert finding.fix == ("" if tier == 3 else "sudo mend")
    assert tier == 3 or health.sandbox(Sandbox(tier, "words", notes)).fix


def test_without_control_groups_memory_is_watched_by_looking() -> None:
    """And it says so, with the way to a group of one's own (reliability.md 4.3)."""
    finding = health.memory_cap(Cgroups.none("nothing to write to"))
    assert state_of(finding) is State.WARN
    assert "nothing to write to" in finding.detail
    assert "Delegate=yes" in finding.fix
    there = Cgroups(version=2, bases={"memory": Path("/nowhere")})
    assert "version 2" in health.memory_cap(there).detail
    assert health.memory_cap(there).state is State.OK
    part = Cgroups(version=1, bases={"memory": Path("/nowhere")}, note="pids: not mounted")
    assert "pids: not mounted" in health.memory_cap(part).detail

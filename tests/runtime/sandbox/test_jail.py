"""Real walls around real processes: found by trial, seen from outside, and never taken on trust."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tests.runtime.sandbox.jailing import SLEEP, Reachable, Yard, detect, within

from amba_runtime import limits
from amba_runtime.engine.workerd.engine import find_workerd
from amba_runtime.errors import InternalCode, InternalError
from amba_runtime.private import barrier
from amba_runtime.sandbox import Sandbox, bubblewrap, landlock, seccomp
from amba_runtime.sandbox.start import Start, _told_pid  # pyright: ignore[reportPrivateUsage]
from amba_runtime.sandbox.users import Users
from amba_runtime.spawner import Spawner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="walls are Linux' own"),
]


@pytest.fixture
def reachable() -> Iterator[Reachable]:
    """For stand-ins of bubblewrap."""
    folder = Reachable()
    yield folder
    folder.close()


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: rest.strip() for name, _, rest in (line.partition(":") for line in lines)}


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until(there: Callable[[], bool]) -> None:
    """Return once it is so, or after two seconds: the kernel tells nobody."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + 2

    def look() -> None:
        if there() or loop.time() > give_up_s:
            over.set()
        else:
            loop.call_soon(look)

    look()
    await over.wait()


def kept(ours: psutil.Process) -> list[str]:
    """Names of what runs in jails, and of what keeps them."""
    names: list[str] = []
    for process in ours.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if not gone(process.pid) and process.name() in ("bwrap", "workerd"):
                names.append(process.name())
    return sorted(names)


def inhabitants(folder: str) -> list[int]:
    """Pids of whoever was started around a folder, wherever they stand now."""
    found: list[int] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if not gone(process.pid) and folder in process.cmdline():
                found.append(process.pid)
    return found


def text(path: str) -> str:
    """What a file of the kernel's says."""
    return Path(path).read_text()


# what is inside


def test_the_jail_shows_the_program_its_libraries_and_one_folder() -> None:
    """The whole tree, walked from outside: nothing else, and nothing writable (row F2)."""

    async def body(yard: Yard) -> None:
        (yard.folder / "worker.capnp").write_text("secret")
        root = Path(f"/proc/{(await yard.sleeper()).pid}/root")
        files = {
            f"/{(Path(at) / name).relative_to(root)}"
            for at, _, names in os.walk(root)
            for name in names
        }
        libraries = set(yard.sandbox.kit.libraries)
        assert files == {"/workerd", "/amba/worker.capnp", "/dev/urandom", *libraries}
        assert yard.sandbox.inside(yard.folder, "worker.capnp") == "/amba/worker.capnp"
        mounts = (root.parent / "mounts").read_text().splitlines()
        options = {line.split()[1]: line.split()[3].split(",") for line in mounts}
        assert set(options) == {"/", "/workerd", "/amba", "/dev/urandom", *libraries}
        assert [place for place, set_ in options.items() if "ro" not in set_] == ["/dev/urandom"]
        assert all("nosuid" in set_ for set_ in options.values())
        for path in ("/new", "/amba/new", "/dev/new"):
            with pytest.raises(OSError, match="Read-only file system"):
                os.mkdir(f"{root}{path}")

    within(3, body)


def test_a_jailed_process_has_nothing_and_is_nobody() -> None:
    """Row F4, read here by hand; its names and its network are its own."""

    async def body(yard: Yard) -> None:
        process = await yard.sleeper()
        assert process.seen
        told = status(process.pid)
        assert (told["Seccomp"], told["NoNewPrivs"]) == ("2", "1")
        assert {told[f"Cap{kind}"] for kind in ("Eff", "Prm", "Inh", "Bnd", "Amb")} == {"0" * 16}
        assert told["NSpid"].split()[1:] == ["1"]
        if os.getuid() == 0:
            assert told["Uid"].split() == [str(process.uid)] * 4
            assert told["Gid"].split() == [str(process.uid)] * 4
            assert told["Groups"] == ""
            assert process.uid
        net = text(f"/proc/{process.pid}/net/dev")
        assert [line.split(":")[0].strip() for line in net.splitlines()[2:]] == ["lo"]
        assert text(f"/proc/{process.pid}/environ") in ("", "PWD=/\0")
        assert {int(fd) for fd in os.listdir(f"/proc/{process.pid}/fd")} == {0, 1, 2}

    within(3, body)


@pytest.mark.parametrize("tier", [1, 2, 3])
def test_a_process_may_take_only_so_much(tier: int) -> None:
    """Resource limits of every tier from 1 on (reliability.md 4.2)."""

    async def body(yard: Yard) -> None:
        process = await yard.sleeper()
        lines = text(f"/proc/{process.pid}/limits").splitlines()
        most = {line[:26].strip(): line[26:].split()[:2] for line in lines}
        assert most["Max core file size"] == ["0", "0"]
        assert most["Max file size"] == ["0", "0"]
        files = str(limits.SANDBOX_FILES.value)
        assert most["Max open files"] == [files, files]
        if process.uid is not None:
            threads = str(limits.SANDBOX_PROCESSES.value)
            assert most["Max processes"] == [threads, threads]
        assert status(process.pid)["NoNewPrivs"] == "1"
        assert status(process.pid)["CapEff"] == "0" * 16

    within(tier, body)


def test_tier_2_has_the_filter_and_a_user_of_its_own() -> None:
    """Its folder is readable for it and nobody else but us (reliability.md B5)."""

    async def body(yard: Yard) -> None:
        (yard.folder / "worker.capnp").write_text("secret")
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
            listener.bind(str(yard.folder / "egress.sock"))
            process = await yard.sleeper()
            assert status(process.pid)["Seccomp"] == "2"
            assert status(process.pid)["NSpid"].split() == [str(process.pid)]
            assert yard.sandbox.inside(yard.folder, "x") == str(yard.folder / "x")
            if process.uid is not None:
                assert status(process.pid)["Uid"].split() == [str(process.uid)] * 4
                owned = [yard.folder, *yard.folder.iterdir()]
                assert {path.stat().st_uid for path in owned} == {process.uid}
                assert stat.S_IMODE(yard.folder.stat().st_mode) == 0o700
            other = await yard.sleeper()
            assert other.uid is None or other.uid != process.uid

    within(2, body)


def test_a_program_that_reads_elsewhere_is_refused_at_tier_2() -> None:
    """Landlock: its own files, and no others (reliability.md B5)."""

    async def body(yard: Yard) -> None:
        (yard.folder / "mine").write_text("mine")
        for path, code in ((str(yard.folder / "mine"), 0), ("/etc/passwd", 1), ("/etc", 1)):
            await yard.start(path, program=Path("/bin/cat"))
            assert await yard.codes.get() == code, path

    within(2, body)


# ends


@pytest.mark.parametrize("tier", [0, 1, 2, 3])
def test_exit_codes_and_signals_are_the_programs_own(tier: int) -> None:
    """Whatever stands between; each told once (spawner's promise)."""

    async def body(yard: Yard) -> None:
        await yard.start("no-such-word")
        assert await yard.codes.get() == 1
        for sig in (signal.SIGKILL, signal.SIGKILL):
            process = await yard.sleeper()
            assert not gone(process.pid)
            process.kill(sig)
            assert await yard.codes.get() == -sig
            process.kill()
            process.close()
            process.close()
            process.kill()
        assert yard.codes.empty()

    within(tier, body)


def test_a_process_in_a_jail_can_be_stopped_and_ends_with_its_keeper() -> None:
    """Killing bubblewrap ends what it keeps: nobody is left without walls (row F4)."""

    async def body(yard: Yard) -> None:
        process = await yard.sleeper()
        process.kill(signal.SIGSTOP)
        keeper = psutil.Process(process.pid).parent()
        assert keeper is not None
        assert keeper.name() == "bwrap"
        keeper.kill()
        assert await yard.codes.get() == -signal.SIGKILL
        await until(lambda: gone(process.pid))
        assert gone(process.pid)

    within(3, body)


def test_a_group_is_joined_before_anything_else() -> None:
    """The child writes itself into every file that it is given, while it still may."""

    class Group:
        def __init__(self, *procs: Path) -> None:
            self.procs = procs

    async def body(yard: Yard) -> None:
        files = [yard.place.path / name for name in ("memory", "pids")]
        for file in files:
            file.touch(mode=0o600)
        await yard.sleeper(group=Group(*files))
        assert [file.read_text() for file in files] == ["0", "0"]
        # a group that cannot be joined is no start
        said, err = os.pipe()
        await yard.sleeper(group=Group(yard.place.path / "gone" / "tasks"), err=err)
        os.close(err)
        assert await yard.codes.get() == 127
        assert b"spawner: FileNotFoundError" in os.read(said, 500)
        os.close(said)

    for tier in (1, 3):
        within(tier, body)


def test_a_start_that_is_cancelled_leaves_no_process() -> None:
    """At any moment of it: while bubblewrap works, or while the walls are looked at."""

    async def body(yard: Yard) -> None:
        keeper = psutil.Process((await yard.sleeper()).pid).parent()
        assert keeper is not None
        ours = keeper.parent()  # the spawner of this test alone
        assert ours is not None
        before = len(os.listdir("/proc/self/fd"))
        for turns in (1, 2, 3, 5, 8, 13):
            starting = asyncio.create_task(yard.sleeper())
            for _ in range(turns):
                await asyncio.sleep(0)
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                (await starting).kill()
        (await yard.sleeper()).kill()  # a round trip later all answers have come
        await yard.codes.get()
        for process in yard.started:
            process.close()
        wanted = sorted(["bwrap", "workerd"])
        await until(lambda: kept(ours) == wanted)
        assert kept(ours) == wanted
        assert len(os.listdir("/proc/self/fd")) <= before

    within(3, body)


def test_a_spawner_that_is_killed_at_any_moment_leaves_no_process() -> None:
    """Also while jails are being made: what bubblewrap had begun is ended (Must show 10)."""

    async def body(yard: Yard) -> None:
        for turns in range(1, 16):
            starting = asyncio.create_task(yard.sleeper())
            for _ in range(turns):
                await asyncio.sleep(0)
            os.kill(yard.spawner.pid, signal.SIGKILL)
            with contextlib.suppress(InternalError):
                (await starting).close()
            # a start that was told of no pid can leave what only a control group would find
            await until(lambda: not inhabitants(str(yard.folder)))
            assert inhabitants(str(yard.folder)) == []
            await yard.spawner.open()

    within(3, body)


@pytest.mark.parametrize(
    ("account", "pid"),
    [
        (b'{"child-pid": 77, "net-namespace": 1}', 77),
        (b'{\n    "child-pid": 77,', 0),
        (b"", 0),
        (b"[]", 0),
        (b"{}", 0),
        (b'{"child-pid": "x"}', 0),
        (b"\xff", 0),
    ],
)
def test_only_a_whole_account_of_bubblewrap_is_read(account: bytes, pid: int) -> None:
    """It comes in pieces; what is none is no pid."""
    assert _told_pid(account) == pid


# what is found


def test_each_tier_is_found_where_it_is_the_most() -> None:
    """`most` is obeyed, and is no reason to be told (row F8)."""

    async def main() -> None:
        for most in range(4):
            found = await detect(most=most)
            assert found.tier <= most
            assert found.description
            assert found.notes == () or found.tier < most
        assert (await detect(most=0)) == Sandbox()

    asyncio.run(main())


def test_a_bubblewrap_that_fails_is_told_and_the_next_one_tried(reachable: Reachable) -> None:
    """As where user namespaces are forbidden: tier 2, why, no word lost (row F8)."""
    refused = reachable.script(
        "refused", "echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1"
    )
    silent = reachable.script("silent", "kill -9 $$")

    async def main() -> None:
        found = await detect(bwraps=[refused, silent, reachable_path / "missing"])
        assert found.tier in (1, 2)
        first, second, third = found.notes[:3]
        assert first == f"{refused}: bwrap: setting up uid map: Permission denied (exit code 1)"
        assert second.startswith(f"{silent}: it said nothing (")
        assert "No such file" in third
        real = list(bubblewrap.candidates())
        again = await detect(bwraps=[refused, *real])
        if again.tier == 3:
            assert again.notes == ()

    reachable_path = refused.parent
    asyncio.run(main())


FAKE = """
while [ "$1" != -- ]; do
  case "$1" in
    --info-fd) info=$2; shift ;;
    --ro-bind) [ "$3" = /workerd ] && program=$2; shift ;;
  esac
  shift
done
shift 2
"""


def test_a_bubblewrap_that_raises_no_walls_is_found_out(reachable: Reachable) -> None:
    """It says that all is well and starts the program in the open: ended, and not taken (F4)."""
    liar = reachable.script(
        "liar", FAKE + 'sleep 60 & eval "echo {\\\\\\"child-pid\\\\\\": $!} >&$info"; wait'
    )
    mute = reachable.script("mute", FAKE + 'exec "$program" "$@"')

    async def main() -> None:
        found = await detect(bwraps=[liar, mute])
        assert found.tier < 3
        assert "do not stand: Seccomp 0, " in found.notes[0]
        assert found.notes[1].startswith(f"{mute}: ")

    asyncio.run(main())
    assert not any("sleep 60" in " ".join(p.cmdline()) for p in psutil.Process().children(True))


def test_a_bubblewrap_that_never_answers_is_given_up(
    reachable: Reachable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a deadline, and ended (limits.SPAWN_S)."""
    dumb = reachable.script("dumb", "exec sleep 61")
    monkeypatch.setattr(limits, "SPAWN_S", replace(limits.SPAWN_S, value=0.5))

    async def main() -> None:
        found = await detect(bwraps=[dumb])
        assert found.notes[0] == f"{dumb}: bubblewrap says nothing"

    asyncio.run(main())
    assert inhabitants("61") == []


def test_walls_that_do_not_stand_end_the_process() -> None:
    """Fail closed: WALLS_MISSING, and nobody runs on (row F4)."""

    async def body(yard: Yard) -> None:
        class Trusting(Start):
            def _walls(self, folder: Path, group: object) -> dict[str, object]:
                return {}  # a child that is told nothing gives up nothing

        for tier in (1, 2):
            start = Trusting(
                tier,
                replace(yard.sandbox.kit, users=Users()),
                yard.spawner,
                SLEEP,
                yard.codes.put_nowait,
            )
            null = os.open(os.devnull, os.O_RDWR)
            with pytest.raises(InternalError) as missing:
                await start.run(["60"], folder=yard.folder, fds=[null] * 3, group=None)
            os.close(null)
            assert missing.value.code is InternalCode.WALLS_MISSING
            assert "NoNewPrivs 0" in missing.value.message
            assert await yard.codes.get() == -signal.SIGKILL

    within(1, body)


def test_a_program_out_of_reach_is_named(tmp_path: Path) -> None:
    """An engine's own user must come to the program: which folder shuts it out (row F4)."""
    if os.getuid() != 0:
        pytest.skip("only root has users to give")
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o700)
    program = shut / "workerd"
    program.symlink_to(find_workerd())
    bwrap = shut / "bwrap"
    bwrap.touch()

    async def main() -> None:
        found = await detect(bwraps=[bwrap])
        assert found.tier < 3
        assert "is out of reach of an engine's own user: " in found.notes[0]
        assert f"{barrier(bwrap)} is shut" in found.notes[0]
        # the way to what a link leads to is what counts
        assert (await detect(program=program)).tier == (await detect()).tier

    asyncio.run(main())


def test_a_machine_without_walls_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another system, another processor, another kernel, no bubblewrap (row F8)."""

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "platform", "darwin")
            found = await detect()
            assert (found.tier, found.notes) == (0, ("there are no walls for darwin yet",))
        with monkeypatch.context() as patch:
            patch.setattr(seccomp, "supported", lambda: False)
            found = await detect()
            assert (found.tier, found.notes) == (
                1,
                ("the system calls of this processor are not known",),
            )
        with monkeypatch.context() as patch:
            patch.setattr(landlock, "abi", lambda: 0)
            found = await detect(bwraps=[])
            assert found.tier == 1
            assert found.notes == (
                "bubblewrap is not installed",
                "this kernel has no Landlock, or it is switched off",
            )
        with monkeypatch.context() as patch:
            patch.setattr(landlock, "abi", lambda: min(real, 5))
            found = await detect(most=2)
            if found.tier == 2:
                assert "abstract Unix sockets can be reached" in found.notes[-1]

    real = landlock.abi()
    asyncio.run(main())


def test_a_lost_spawner_is_no_finding() -> None:
    """SPAWNER_GONE passes through: it says nothing about walls."""

    async def main() -> None:
        with pytest.raises(InternalError) as lost:
            await Sandbox.detect(find_workerd(), Spawner())
        assert lost.value.code is InternalCode.SPAWNER_GONE

    asyncio.run(main())


NOT_ROOT = """
import asyncio
from tests.runtime.engine.lab import Lab, ask, find_workerd, WorkerdEngine
async def main():
    for most in (3, 2):
        engine = WorkerdEngine(program=find_workerd(), most=most)
        lab = Lab(engine)
        try:
            isolate = await lab.serving("export default {fetch() {return new Response('hi')}}")
            print(engine.sandbox.tier, (await ask(isolate)).body, oct(engine.sandbox.folder_mode))
        finally:
            await engine.close()
asyncio.run(main())
"""


def test_walls_need_no_root() -> None:
    """The same for an ordinary user: its own user, and folders that nobody else may enter."""
    python = Path("/usr/bin/python3")
    root = Path(__file__).parents[3]
    seen = [Path(place) for place in sys.path if place and Path(place).is_dir()]
    paths = [str(p) for p in [root, *seen] if barrier(p) is None]
    if os.getuid() != 0:
        pytest.skip("every other test shows it")
    if barrier(find_workerd()) or not python.exists():
        pytest.skip("nothing of ours is where other users come")
    version = subprocess.run(
        [python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True
    ).stdout.split()
    if version != [str(part) for part in sys.version_info[:2]]:
        pytest.skip("the system's Python is another one")
    tier = asyncio.run(detect()).tier
    if tier < 3:
        pytest.skip("there is no tier 3 here")
    done = subprocess.run(
        [python, "-B", "-c", NOT_ROOT],
        user=41_234,
        group=41_234,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PYTHONPATH": os.pathsep.join(paths)},
        cwd="/",
    )
    assert done.stdout.splitlines() == ["3 b'hi' 0o700", "2 b'hi' 0o700"], done.stderr

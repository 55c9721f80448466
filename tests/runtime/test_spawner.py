"""Processes that we start end when we say so, and when we end, however that happens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.waiting import comes

from amba_runtime import limits
from amba_runtime.errors import InternalCode, InternalError
from amba_runtime.spawner import Spawner

pytestmark = pytest.mark.slow

PYTHON = (sys.executable, "-I", "-S", "-c")
SLEEP = (*PYTHON, "import time; time.sleep(60)")


class Exits:
    """Exit codes in the order of their coming."""

    def __init__(self) -> None:
        self.codes: asyncio.Queue[int] = asyncio.Queue()

    def __call__(self, code: int) -> None:
        self.codes.put_nowait(code)


def with_spawner(body: Callable[[Spawner], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        spawner = Spawner()
        await spawner.open()
        try:
            async with asyncio.timeout(10):
                await body(spawner)
        finally:
            await spawner.close()

    asyncio.run(main())


async def spawn(spawner: Spawner, *argv: str, exited: Callable[[int], None]) -> int:
    """A process whose 0, 1 and 2 are nothing."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        return await spawner.spawn(argv, cwd=Path("/"), fds=[null] * 3, exited=exited)
    finally:
        os.close(null)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pid: int, *, within_s: float = 1) -> bool:
    return comes(lambda: not runs(pid), within_s=within_s)


def spawner_of(pid: int) -> int:
    return psutil.Process(pid).ppid()


# --- our end -----------------------------------------------------------------------------------


def test_a_process_gets_what_it_was_given() -> None:
    """Arguments, folder and descriptors, an empty environment, a session of its own; no more."""

    async def body(spawner: Spawner) -> None:
        code = (
            "import json, os, sys; print(json.dumps({"
            "'cwd': os.getcwd(), 'env': dict(os.environ), 'argv': sys.argv[1:],"
            "'fds': sorted(int(n) for n in os.listdir('/proc/self/fd')),"
            "'sid': os.getsid(0) == os.getpid(), 'three': os.read(3, 10).decode(),"
            "'four': os.read(4, 10).decode(), 'mask': "
            "[l.split()[1] for l in open('/proc/self/status') if l.startswith('SigBlk')]}))"
        )
        out_r, out_w = os.pipe()
        pipes = [os.pipe(), os.pipe()]
        null = os.open(os.devnull, os.O_RDWR)
        exits = Exits()
        # given crosswise: none may overwrite another on its way
        fds = [null, out_w, null, pipes[1][0], pipes[0][0]]
        pid = await spawner.spawn(
            (*PYTHON, code, "one", "two words"), cwd=Path("/usr"), fds=fds, exited=exits
        )
        os.write(pipes[0][1], b"zero")
        os.write(pipes[1][1], b"one")
        os.close(out_w)
        assert await exits.codes.get() == 0
        said = json.loads(os.read(out_r, 65536))
        for fd in (out_r, null, *pipes[0], *pipes[1]):
            os.close(fd)
        listing = said.pop("fds")
        assert listing[:5] == [0, 1, 2, 3, 4]
        assert len(listing) == 6  # the sixth is the listing's own
        env = {n: v for n, v in said.pop("env").items() if n != "LC_CTYPE"}  # Python's own
        assert env == {}
        assert said == {
            "cwd": "/usr",
            "argv": ["one", "two words"],
            "sid": True,
            "three": "one",
            "four": "zero",
            "mask": ["0000000000000000"],
        }
        assert pid > 0

    with_spawner(body)


@pytest.mark.parametrize(
    ("code", "wanted"), [("raise SystemExit(0)", 0), ("raise SystemExit(7)", 7)]
)
def test_exit_codes_are_told(code: str, wanted: int) -> None:
    """Once, also for a process that ends at once."""

    async def body(spawner: Spawner) -> None:
        exits = Exits()
        for _ in range(5):
            await spawn(spawner, *PYTHON, code, exited=exits)
        assert [await exits.codes.get() for _ in range(5)] == [wanted] * 5
        assert exits.codes.empty()

    with_spawner(body)


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_says_its_signal(sig: signal.Signals) -> None:
    """Negative, as subprocess does; killing what is gone is nothing."""

    async def body(spawner: Spawner) -> None:
        exits = Exits()
        pid = await spawn(spawner, *SLEEP, exited=exits)
        assert runs(pid)
        spawner.kill(pid, sig)
        assert await exits.codes.get() == -sig
        spawner.kill(pid)
        spawner.kill(os.getpid())  # not one of ours to kill
        assert gone(pid)

    with_spawner(body)


def test_a_program_that_is_not_there_exits_with_127() -> None:
    """As a shell has it; the spawner serves on."""

    async def body(spawner: Spawner) -> None:
        exits = Exits()
        await spawn(spawner, "/nowhere/at/all", exited=exits)
        assert await exits.codes.get() == 127
        await spawn(spawner, *PYTHON, "pass", exited=exits)
        assert await exits.codes.get() == 0

    with_spawner(body)


def test_many_processes_at_once() -> None:
    """Answers and exits find their own."""

    async def body(spawner: Spawner) -> None:
        exits = [Exits() for _ in range(10)]
        pids = await asyncio.gather(
            *[spawn(spawner, *PYTHON, f"raise SystemExit({n})", exited=exits[n]) for n in range(10)]
        )
        assert len(set(pids)) == 10
        assert [await one.codes.get() for one in exits] == list(range(10))

    with_spawner(body)


def test_closing_ends_every_process() -> None:
    """And is idempotent; afterwards nothing can be started."""

    async def main() -> None:
        spawner = Spawner()
        await spawner.close()
        await spawner.open()
        await spawner.open()
        exits = Exits()
        pids = [await spawn(spawner, *SLEEP, exited=exits) for _ in range(3)]
        await spawner.close()
        await spawner.close()
        assert [await exits.codes.get() for _ in pids] == [-signal.SIGKILL] * 3
        assert all(gone(pid) for pid in pids)
        with pytest.raises(InternalError) as refused:
            await spawn(spawner, *SLEEP, exited=exits)
        assert refused.value.code is InternalCode.SPAWNER_GONE

    asyncio.run(main())


def test_a_spawner_that_is_killed_takes_its_processes_with_it() -> None:
    """Each end is told; `open` starts another spawner (Must show 10)."""

    async def body(spawner: Spawner) -> None:
        exits = Exits()
        pids = [await spawn(spawner, *SLEEP, exited=exits) for _ in range(3)]
        parent = spawner_of(pids[0])
        os.kill(parent, signal.SIGKILL)
        assert [await exits.codes.get() for _ in pids] == [-signal.SIGKILL] * 3
        assert all(gone(pid) for pid in [*pids, parent])
        with pytest.raises(InternalError, match="not running"):
            await spawn(spawner, *SLEEP, exited=exits)
        await spawner.open()
        assert spawner_of(await spawn(spawner, *SLEEP, exited=exits)) != parent

    with_spawner(body)


def test_who_waits_for_a_lost_spawner_is_told() -> None:
    """SPAWNER_GONE, not a deadline."""

    async def body(spawner: Spawner) -> None:
        exits = Exits()
        parent = psutil.Process(spawner_of(await spawn(spawner, *SLEEP, exited=exits)))
        parent.suspend()
        waiting = asyncio.create_task(spawn(spawner, *SLEEP, exited=exits))
        await asyncio.sleep(0)
        parent.kill()
        with pytest.raises(InternalError) as lost:
            await waiting
        assert lost.value.code is InternalCode.SPAWNER_GONE

    with_spawner(body)


def test_a_spawn_that_nobody_waits_for_leaves_no_process() -> None:
    """Cancelled between order and answer: what was started is ended."""

    async def body(spawner: Spawner) -> None:
        exits = Exits()
        first = await spawn(spawner, *SLEEP, exited=exits)
        parent = psutil.Process(spawner_of(first))
        parent.suspend()
        waiting = asyncio.create_task(spawn(spawner, *SLEEP, exited=exits))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        parent.resume()
        # a whole round trip later its answer has come
        spawner.kill(await spawn(spawner, *SLEEP, exited=exits))
        assert await exits.codes.get() == -signal.SIGKILL
        others = [child.pid for child in parent.children() if child.pid != first]
        assert all(gone(pid) for pid in others)
        assert runs(first)
        assert exits.codes.empty()

    with_spawner(body)


class Heard(Spawner):
    """Tells a test of each message of the spawner's, right after it was taken in."""

    def __init__(self) -> None:
        super().__init__()
        self.then: Callable[[dict[str, Any]], object] = lambda _message: None

    def _handle(self, message: dict[str, Any]) -> None:
        super()._handle(message)
        self.then(message)

    def hear(self, message: dict[str, Any]) -> None:
        """As if it had come from the spawner."""
        super()._handle(message)


async def with_heard(body: Callable[[Heard], Coroutine[Any, Any, None]]) -> None:
    spawner = Heard()
    await spawner.open()
    try:
        async with asyncio.timeout(10):
            await body(spawner)
    finally:
        await spawner.close()


@pytest.mark.parametrize("moment", ["before the order", "order out", "answered"])
def test_a_spawn_that_is_cancelled_leaves_no_process(moment: str) -> None:
    """Wherever it waits, the very moment of the answer included (Must show 10)."""

    async def body(spawner: Heard) -> None:
        exits, news = Exits(), Exits()
        pids: list[int] = []

        def then(message: dict[str, Any]) -> None:
            if "pid" in message:
                pids.append(message["pid"])
                if moment == "answered":
                    waiting.cancel()
            elif message.get("exit") in pids:
                news(message["code"])

        spawner.then = then
        waiting = asyncio.create_task(spawn(spawner, *SLEEP, exited=exits))
        if moment != "before the order":
            await asyncio.sleep(0)
        if moment in ("before the order", "order out"):
            waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        if moment != "before the order":
            assert await news.codes.get() == -signal.SIGKILL
        assert all(gone(pid) for pid in pids)
        assert len(pids) == (moment != "before the order")
        assert exits.codes.empty()
        # it serves on
        spawner.kill(await spawn(spawner, *SLEEP, exited=exits))
        assert await exits.codes.get() == -signal.SIGKILL

    asyncio.run(with_heard(body))


def test_a_spawner_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """SPAWNER_GONE after limits.SPAWN_S; what it starts after all is ended (Must show 10)."""

    async def body(spawner: Heard) -> None:
        exits, pids = Exits(), asyncio.Queue[int]()
        first = await spawn(spawner, *SLEEP, exited=exits)
        parent = psutil.Process(spawner_of(first))
        parent.suspend()
        with monkeypatch.context() as soon:
            soon.setattr(limits, "SPAWN_S", limits.Deadline(0.01, "", ""))
            with pytest.raises(InternalError, match="does not answer") as gone_:
                await spawn(spawner, *SLEEP, exited=exits)
        assert gone_.value.code is InternalCode.SPAWNER_GONE
        spawner.then = lambda m: pids.put_nowait(m["pid"]) if "pid" in m else None
        parent.resume()
        assert gone(await pids.get())
        assert runs(first)
        assert exits.codes.empty()

    asyncio.run(with_heard(body))


def test_a_start_and_an_end_in_one_piece_are_told_in_turn() -> None:
    """An end belongs to the process that has the pid then, not to one that had it before."""

    async def body(spawner: Heard) -> None:
        first, second = Exits(), Exits()
        parent = psutil.Process(spawner_of(await spawn(spawner, *SLEEP, exited=first)))
        parent.suspend()
        waiting = asyncio.create_task(spawn(spawner, *SLEEP, exited=second))
        await asyncio.sleep(0)
        spawner.hear({"exit": 4_000_000, "code": 1})  # of one that was given up long ago
        spawner.hear({"id": 2, "pid": 4_000_000})
        assert await waiting == 4_000_000
        assert second.codes.empty()
        waiting = asyncio.create_task(spawn(spawner, *SLEEP, exited=second))
        await asyncio.sleep(0)
        spawner.hear({"exit": 4_000_000, "code": 2})
        spawner.hear({"id": 3, "pid": 4_000_000})
        spawner.hear({"exit": 4_000_000, "code": 3})
        assert await waiting == 4_000_000
        assert [second.codes.get_nowait() for _ in range(2)] == [2, 3]
        assert first.codes.empty()
        parent.resume()

    asyncio.run(with_heard(body))


def test_an_order_that_does_not_fit_loses_the_spawner() -> None:
    """Half a line would be read as the head of the next: all ends, and is told (ours)."""

    async def body(spawner: Heard) -> None:
        exits = Exits()
        first = await spawn(spawner, *SLEEP, exited=exits)
        psutil.Process(spawner_of(first)).suspend()
        with pytest.raises(InternalError) as lost:
            await spawn(spawner, *SLEEP, "x" * 4_000_000, exited=exits)
        assert lost.value.code is InternalCode.SPAWNER_GONE
        assert await exits.codes.get() == -signal.SIGKILL
        assert gone(first)
        await spawner.open()
        await spawn(spawner, *SLEEP, exited=exits)

    asyncio.run(with_heard(body))


# --- the other end -----------------------------------------------------------------------------


class Link:
    """Talks to `spawn_main` as the product does, and counts its lines in coverage."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(5)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "amba_runtime.spawn_main", str(os.getpid())],
            stdin=theirs.fileno(),
        )
        theirs.close()
        self._rest = b""

    def order(self, order: dict[str, Any], *fds: int) -> None:
        socket.send_fds(self.ours, [json.dumps(order).encode() + b"\n"], list(fds))

    def start(self, id_: int, *argv: str) -> int:
        with open(os.devnull, "rb+") as null:
            fds = [null.fileno()] * 3
            self.order({"id": id_, "argv": list(argv), "cwd": "/", "fds": 3}, *fds)
        said = self.said()
        assert said["id"] == id_
        return int(said["pid"])

    def said(self) -> dict[str, Any]:
        while b"\n" not in self._rest:
            data = self.ours.recv(65536)
            assert data, "the spawner hung up"
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message


@pytest.fixture
def link() -> Iterator[Link]:
    """A spawner of the test's own; it ends when its link does."""
    one = Link()
    yield one
    one.ours.close()
    assert one.process.wait(5) == 0


def test_the_spawner_hears_of_deaths_while_it_waits(link: Link) -> None:
    """Exits are told without being asked for."""
    pid = link.start(1, *PYTHON, "raise SystemExit(3)")
    assert link.said() == {"exit": pid, "code": 3}
    pid = link.start(2, *SLEEP)
    link.order({"kill": pid, "signal": int(signal.SIGTERM)})
    link.order({"kill": pid + 100_000, "signal": int(signal.SIGKILL)})
    assert link.said() == {"exit": pid, "code": -15}


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_spawner_ends_with_its_parent_and_not_before(link: Link, sig: signal.Signals) -> None:
    """A signal to a whole group does not end it: engines would die under their requests."""
    pid = link.start(1, *SLEEP)
    link.process.send_signal(sig)
    second = link.start(2, *SLEEP)
    assert runs(pid)
    link.ours.close()
    assert link.process.wait(5) == 0
    assert gone(pid)
    assert gone(second)


def test_two_orders_in_one_piece(link: Link) -> None:
    """Lines are split where they end, and each takes its own descriptors."""
    out_r, out_w = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    orders = [{"id": n, "argv": [*PYTHON, f"print({n})"], "cwd": "/", "fds": 3} for n in (1, 2)]
    text = "".join(json.dumps(order) + "\n" for order in orders).encode()
    socket.send_fds(link.ours, [text], [null, out_w, null] * 2)
    os.close(out_w)
    said = [link.said() for _ in range(4)]
    assert sorted(message["id"] for message in said if "id" in message) == [1, 2]
    printed = b""
    while data := os.read(out_r, 100):
        printed += data
    assert sorted(printed.split()) == [b"1", b"2"]
    os.close(out_r)
    os.close(null)


def test_a_spawner_of_somebody_else_ends_at_once() -> None:
    """Its parent was gone before it could ask to die with it."""
    done = subprocess.run(
        [sys.executable, "-m", "amba_runtime.spawn_main", "1"],
        stdin=subprocess.DEVNULL,
        timeout=10,
    )
    assert done.returncode == 1


def stray_of(keeper: int) -> int:
    """The one child of a process, once it is there."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        for child in psutil.Process(keeper).children():
            return child.pid
    raise AssertionError("it has no child")


KEEPER = ("/bin/sh", "-c", "sleep 60 & wait")


@pytest.mark.skipif(sys.platform != "linux", reason="others adopt nobody")
def test_what_a_process_leaves_behind_ends_with_it(link: Link) -> None:
    """As a jail whose keeper is killed while it is being made: nobody's, for ever (row F4)."""
    other = link.start(1, *SLEEP)
    keeper = link.start(2, *KEEPER)
    stray = stray_of(keeper)
    link.order({"kill": keeper, "signal": int(signal.SIGKILL)})
    assert link.said() == {"exit": keeper, "code": -9}
    assert gone(stray)
    assert runs(other)
    # it is not told as one of ours
    link.order({"kill": other, "signal": int(signal.SIGTERM)})
    assert link.said() == {"exit": other, "code": -15}


@pytest.mark.skipif(sys.platform != "linux", reason="others adopt nobody")
def test_strays_end_with_the_spawner_too(link: Link) -> None:
    """Whose parent has hung up, or was killed (Must show 10)."""
    keepers = [link.start(n, *KEEPER) for n in range(2)]
    strays = [stray_of(keeper) for keeper in keepers]
    link.ours.close()
    assert link.process.wait(5) == 0
    assert [pid for pid in (*keepers, *strays) if not gone(pid)] == []


def test_a_spawner_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs is not waited for for ever (limits.STOP_S)."""

    async def main() -> None:
        spawner = Spawner()
        await spawner.open()
        exits = Exits()
        pid = await spawn(spawner, *SLEEP, exited=exits)
        psutil.Process(spawner_of(pid)).suspend()
        await spawner.close()
        assert await exits.codes.get() == -signal.SIGKILL
        assert gone(pid)

    monkeypatch.setattr(limits, "STOP_S", limits.Deadline(0.05, "", ""))
    asyncio.run(main())


def test_a_close_that_is_cancelled_has_ended_everything() -> None:
    """Who has no patience leaves nothing behind, and each end is told (Must show 10)."""

    async def main() -> None:
        spawner = Spawner()
        await spawner.open()
        exits = Exits()
        pid = await spawn(spawner, *SLEEP, exited=exits)
        parent = spawner_of(pid)
        psutil.Process(parent).suspend()
        closing = asyncio.create_task(spawner.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert exits.codes.get_nowait() == -signal.SIGKILL
        assert gone(pid)
        assert gone(parent)

    asyncio.run(main())

"""However the server ends, its engines, its spawner and esbuild end too (Must show 10)."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from tests.run.serving import Dev, folder_of, function
from tests.waiting import comes

pytestmark = pytest.mark.slow


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    """A server with two functions, of the test's own."""
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "hello.js").write_text(function("'hello'"))
    (folder / "busy.js").write_text(
        "export default { fetch: () => new Promise(() => setInterval(() => {}, 1000)) };"
    )
    # a server that is killed leaves its private folder: it goes with ours (and a socket's path
    # is short)
    with tempfile.TemporaryDirectory(prefix="o-") as short:
        server = Dev(
            folder, "--ephemeral", data_home=tmp_path / "data", environment={"TMPDIR": short}
        )
        yield server
        server.close()


def left(processes: Sequence[psutil.Process], *, within_s: float) -> list[str]:
    """Command lines of those that still run after so many seconds; a zombie does not run."""
    running: list[str] = []

    def none() -> bool:
        running.clear()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    running.append(" ".join(process.cmdline()))
        return not running

    comes(none, within_s=within_s)
    return running


def family(dev: Dev) -> list[psutil.Process]:
    """All that the server has started: two engines, the spawner, esbuild."""
    processes = dev.descendants()
    names = [process.name() for process in processes]
    assert names.count("workerd") == 2, names
    assert len(processes) >= 3, names
    return processes


def test_nothing_outlives_a_killed_server(dev: Dev) -> None:
    """`kill -9` of the server: nothing that it started is left after a second (Must show 10)."""
    processes = family(dev)
    dev.process.kill()
    assert left(processes, within_s=1) == []


def test_nothing_outlives_a_server_killed_at_work(dev: Dev) -> None:
    """The same with a request under way that would never have ended."""
    with dev.connection() as busy:
        busy.request("GET", "/fn/local/busy")
        processes = family(dev)
        dev.process.kill()
        assert left(processes, within_s=1) == []


def test_engines_end_with_their_spawner(dev: Dev) -> None:
    """`kill -9` of the spawner ends its engines; the server starts others and serves on."""
    processes = family(dev)
    engines = dev.engines()
    spawner = engines[0].parents()[1 if engines[0].parents()[0].name() == "bwrap" else 0]
    assert spawner.pid != dev.process.pid
    assert dev.get("/fn/local/hello").status == 200
    spawner.kill()
    assert left([spawner, *engines], within_s=1) == []
    assert dev.get("/fn/local/hello").text == "hello"
    assert dev.stop(signal.SIGTERM) == 0
    assert left(processes, within_s=1) == []


@pytest.mark.parametrize(("sig", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_everything_within_a_second(dev: Dev, sig: signal.Signals, code: int) -> None:
    """Ctrl-C and a polite kill, with a request under way: exit codes 130 and 0 (issue 2, 6)."""
    with dev.connection() as busy:
        busy.request("GET", "/fn/local/busy")
        assert dev.get("/fn/local/hello").status == 200
        processes = family(dev)
        began = time.monotonic()
        assert dev.stop(sig) == code
        assert time.monotonic() - began < 1
        assert left(processes, within_s=0.1) == []
    dev.event("stopping")
    assert dev.talk == []


def test_ctrl_c_is_the_servers_alone(dev: Dev) -> None:
    """No child is in the terminal's session: a Ctrl-C never ends an engine under a request."""
    own = os.getsid(dev.process.pid)
    assert [p.name() for p in family(dev) if os.getsid(p.pid) == own] == []


def test_private_folders_are_removed(dev: Dev) -> None:
    """Mode 0700 while they live, with sockets of mode 0600; nothing of them afterwards."""
    seen = [folder_of(engine) for engine in dev.engines()]
    assert [oct(folder.stat().st_mode & 0o777) for folder in seen] == ["0o700"] * 2
    folders = [folder.parent for folder in seen]
    # an engine's own user comes through, and sees no name
    modes = {oct(folder.stat().st_mode & 0o777) for f in folders for folder in (f, f.parent)}
    assert modes == {"0o711" if os.getuid() == 0 else "0o700"}
    sockets = [path for folder in folders for path in folder.rglob("*.sock")]
    assert len(sockets) == 14
    assert {oct(path.stat().st_mode & 0o777) for path in sockets} == {"0o600"}
    assert dev.stop(signal.SIGTERM) == 0
    assert [folder for folder in folders if folder.exists()] == []
    assert not folders[0].parent.exists()

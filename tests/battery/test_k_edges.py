"""Rows K3, K4 and K5: many idle clients, too few files, and an event log that nobody reads."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest
from tests.battery.conftest import Counts
from tests.battery.mirror import GUESTS
from tests.drills.figures import quantile
from tests.run.serving import Dev, environment_of
from tests.waiting import comes

GET = b"GET /fn/local/mirror/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
KIB = 1024


def functions(folder: Path) -> Path:
    """A folder with the mirror."""
    shutil.copytree(GUESTS / "mirror", folder / "functions" / "mirror")
    return folder / "functions"


def connect(port: int) -> socket.socket:
    """A client."""
    client = socket.create_connection(("127.0.0.1", port), 5)
    client.settimeout(5)
    return client


def answered(client: socket.socket) -> int:
    """The status of one request on this connection; 0 when it ends without one."""
    heard = b""
    with contextlib.suppress(OSError):
        client.sendall(GET)
        while b"\r\n\r\n" not in heard and (more := client.recv(65536)):
            heard += more
    told = re.match(rb"HTTP/1\.1 ([0-9]{3}) ", heard)
    return int(told[1]) if told else 0


@contextlib.contextmanager
def crowd() -> Generator[list[socket.socket]]:
    """Clients that are closed at the end."""
    clients: list[socket.socket] = []
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


@pytest.mark.timeout(240)
def test_k3_idle_connections(
    tmp_path: Path, counts: Counts, capsys: pytest.CaptureFixture[str]
) -> None:
    """K3: idle connections cost 60 KB each at most, and a new one is still taken in 10 ms."""
    many = counts(pr=1000, nightly=5000)
    raised(2 * many + 500)
    with Dev(functions(tmp_path), "--ephemeral", "--no-watch", data_home=tmp_path / "d") as dev:
        process = psutil.Process(dev.process.pid)
        with crowd() as warm:
            warm += [connect(dev.port) for _ in range(50)]
            assert {answered(client) for client in warm} == {200}
        before = process.memory_info().rss
        with crowd() as clients:
            for _ in range(many):
                clients.append(connect(dev.port))
                assert answered(clients[-1]) == 200
            each = (process.memory_info().rss - before) / many
            times: list[float] = []
            for _ in range(50):
                began = time.monotonic()
                with connect(dev.port) as client:
                    assert answered(client) == 200
                times.append(time.monotonic() - began)
    with capsys.disabled():
        p50 = quantile(times, 0.5)
        print(f"\nK3: {many} idle: {each / KIB:.1f} KiB each, a new one takes {p50 * 1e3:.1f} ms")
    assert each <= 60 * KIB
    assert p50 <= 0.010


def raised(files: int) -> None:
    """Let this process open so many."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        if hard != resource.RLIM_INFINITY and hard < files:
            pytest.skip(f"this process may open {hard} files; {files} are needed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


def test_k4_too_few_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """K4: with 256 files it goes on accepting, sheds what is too much, and is well again after."""
    prefix = ("prlimit", "--nofile=256:256")
    if shutil.which("prlimit") is None:
        pytest.skip("prlimit (util-linux) is not here")
    folder = functions(tmp_path)
    options = ("--ephemeral", "--no-watch")
    with Dev(folder, *options, data_home=tmp_path / "d", prefix=prefix) as dev:
        process = psutil.Process(dev.process.pid)
        rest = process.num_fds()
        with crowd() as clients:
            statuses: list[int] = []
            for _ in range(400):
                with contextlib.suppress(OSError):
                    clients.append(connect(dev.port))
            # those that hold on, and ask: some are served, the others told, or cut off
            statuses = [answered(client) for client in clients]
            peak = process.num_fds()
        served, told = statuses.count(200), statuses.count(503)
        assert set(statuses) <= {0, 200, 503}
        assert served >= 40  # of so few files, engines keep a share for what functions ask
        assert told + statuses.count(0) >= 100
        deadline = time.monotonic() + 10
        good = 0
        while good < 20:
            with connect(dev.port) as client:
                good = good + 1 if answered(client) == 200 else 0
            assert time.monotonic() < deadline, "it does not recover"
        comes(lambda: process.num_fds() <= rest, within_s=0.2)
        left = process.num_fds() - rest
        assert dev.process.poll() is None
        talk = list(dev.talk)
    with capsys.disabled():
        print(
            f"\nK4: of 400 clients {served} served, {told} told 503, {statuses.count(0)} cut off; "
            f"{peak} files at most, {left:+d} after"
        )
    assert not [line for line in talk if "Traceback" in line]


@pytest.mark.parametrize("sink", ["slow", "dead"])
@pytest.mark.timeout(120)
def test_k5_an_event_log_that_nobody_reads(
    tmp_path: Path, sink: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """K5: requests are answered as ever while stdout is full, or its reader is gone."""
    argv = [sys.executable, "-m", "amba_run", "dev", str(functions(tmp_path)), "--port", "0"]
    process = subprocess.Popen(
        [*argv, "--ephemeral", "--no-watch", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment_of(tmp_path / "data"),
    )
    stdout = process.stdout
    assert stdout is not None
    try:
        ready = json.loads(stdout.readline())
        port = int(ready["origin"].rpartition(":")[2])
        if sink == "dead":
            stdout.close()
        times: list[float] = []
        statuses: list[int] = []
        for _ in range(2000):  # some 400 bytes of log each: many times what a pipe holds
            began = time.monotonic()
            with connect(port) as client:
                statuses.append(answered(client))
            times.append(time.monotonic() - began)
            if statuses[-1] != 200:
                break
        assert set(statuses) == {200}, f"after {len(statuses)} requests"
        assert process.poll() is None
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        stdout.close()
    with capsys.disabled():
        print(f"\nK5 {sink}: {len(times)} requests, p99 {quantile(times, 0.99) * 1e3:.1f} ms")
    assert quantile(times, 0.99) <= 0.1

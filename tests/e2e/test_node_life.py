"""`amba-run node` as its owner meets it: its first start, its ends, and what it says of trouble."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from tests.run.noding import NodeProcess
from tests.run.serving import run_cli

from amba_runtime.engine.workerd.engine import find_workerd

pytestmark = pytest.mark.slow

HELLO = "export default { fetch: () => new Response('hello') };"
WAITS = """
export default { async fetch(request, env, ctx) {
  ctx.waitUntil(scheduler.wait(300).then(() => console.log("work done")));
  await scheduler.wait(300);
  return new Response("waited");
} };
"""


def run_node(*options: str, data_home: Path, workerd: str = "") -> CompletedProcess[str]:
    """A node that does not come to serve, whatever walls there are."""
    arguments = ("node", "--sandbox", "best-effort", *options)
    return run_cli(*arguments, data_home=data_home, AMBA_RUN_WORKERD=workerd)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory that is not there yet."""
    return tmp_path / "deep" / "state"


@pytest.fixture
def node(state: Path, data_home: Path) -> Iterator[NodeProcess]:
    """A node on it."""
    with NodeProcess(state, data_home=data_home) as node:
        yield node


@pytest.fixture(scope="module")
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where nothing is written."""
    return tmp_path_factory.mktemp("data")


def test_the_first_start_says_its_keys_and_the_second_does_not(
    node: NodeProcess, state: Path, data_home: Path
) -> None:
    """The ready line of interface.md 3; the token of the first start goes on being good."""
    assert set(node.ready) == {"event", "origin", "state", "engine", "sandbox", "keys"}
    assert set(node.ready["keys"]) == {"pat"}
    assert node.ready["state"] == str(state)
    assert node.get("/readyz").status == node.get("/healthz").status == 200
    node.deploy("hello", HELLO)
    assert node.stop(signal.SIGTERM) == 0
    assert node.events[-1] == {"event": "stopping"}
    with NodeProcess(state, data_home=data_home, pat=node.pat, project=node.project) as again:
        assert set(again.ready) == {"event", "origin", "state", "engine", "sandbox"}
        assert again.engines() == []
        assert again.call("hello").text == "hello"
        assert len(again.engines()) == 1
        assert again.admin("GET", "/functions/deployments?active=1")["total"] == 1


def test_a_start_right_after_a_kill_works(node: NodeProcess, state: Path, data_home: Path) -> None:
    """The lock is not inherited by the engines; what was answered is there (issue 3, 4)."""
    node.deploy("hello", HELLO)
    assert node.call("hello").text == "hello"
    node.process.kill()
    node.process.wait(5)
    with NodeProcess(state, data_home=data_home, pat=node.pat, project=node.project) as again:
        assert again.call("hello").text == "hello"


def test_a_second_node_on_one_state_is_refused(
    node: NodeProcess, state: Path, data_home: Path
) -> None:
    """After waiting for the first, with a clear message (issue 3, 4)."""
    done = run_node("--listen", "127.0.0.1:0", "--state", str(state), data_home=data_home)
    assert done.returncode == 1
    assert "STATE_IN_USE" in done.stderr
    assert str(state) in done.stderr
    assert node.get("/readyz").status == 200


def test_a_port_that_is_taken_is_named(node: NodeProcess, tmp_path: Path, data_home: Path) -> None:
    """By whom, and what to do; the token of a first start is kept for the one that starts."""
    other = str(tmp_path / "other")
    done = run_node("--listen", f"127.0.0.1:{node.port}", "--state", other, data_home=data_home)
    assert done.returncode == 1
    assert f"port {node.port}" in done.stderr
    assert f"pid {node.process.pid}" in done.stderr
    assert "--listen 127.0.0.1:0" in done.stderr
    with NodeProcess(tmp_path / "other", data_home=data_home) as at_last:
        assert at_last.ready["keys"]["pat"].startswith("amb_dpat_")


def test_a_newer_state_is_refused(node: NodeProcess, state: Path, data_home: Path) -> None:
    """By an older program, with a clear message (issue 3, 4)."""
    import sqlite3

    assert node.stop(signal.SIGTERM) == 0
    with sqlite3.connect(state / "amba.db") as database:
        database.execute("update amba_meta set value = '9999' where name = 'schema_version'")
    database.close()
    done = run_node("--listen", "127.0.0.1:0", "--state", str(state), data_home=data_home)
    assert (done.returncode, done.stdout) == (1, "")
    assert "STATE_TOO_NEW" in done.stderr


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_requests_under_way_end_first(node: NodeProcess, sig: signal.Signals) -> None:
    """And work that outlives them; new connections are refused; exit 0, or 130 for Ctrl-C (K8)."""
    node.deploy("waits", WAITS)
    assert node.call("waits").text == "waited"
    since = node.mark()
    answers: list[tuple[int, str]] = []
    reader = threading.Barrier(9)

    def ask() -> None:
        with node.connection() as connection:
            connection.connect()
            connection.request("GET", "/fn/acme/waits")
            reader.wait(10)
            response = connection.getresponse()
            answers.append((response.status, response.read().decode()))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    reader.wait(10)
    node.event("request", since=0, function="waits")
    node.process.send_signal(sig)
    node.event("stopping")
    for thread in threads:
        thread.join(10)
    assert answers == [(200, "waited")] * 8
    assert node.process.wait(10) == (0 if sig is signal.SIGTERM else 130)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", node.port), timeout=1)
    events = [e for e in node.events[since:] if e["event"] in ("request", "late")]
    lines = [line["Message"] for e in events for line in e["logs"]]
    assert lines.count(["work done"]) >= 8


def test_a_second_signal_has_no_patience(node: NodeProcess) -> None:
    """What is under way is cut off."""
    node.deploy("hangs", "export default { fetch: () => new Promise(() => {}) };")
    with node.connection() as connection:
        connection.request("GET", "/fn/acme/hangs")
        node.deploy("hello", HELLO)  # the request above has arrived by now
        node.process.send_signal(signal.SIGTERM)
        node.event("stopping")
        assert node.process.poll() is None
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(5) == 0


def test_without_json_a_person_is_told(state: Path, data_home: Path) -> None:
    """Where it is, and the token once; nothing on stdout."""
    with NodeProcess(state, data_home=data_home, json_=False) as node:
        line = node.said("developer token, shown this once: amb_dpat_")
        assert node.said("amba-run node  http://127.0.0.1:")
        pat = line.rsplit(" ", 1)[1]
        assert node.get("/v1/admin/projects", Authorization=f"Bearer {pat}").status == 200
        assert node.stop(signal.SIGTERM) == 0
    assert node.lines == []
    with NodeProcess(state, data_home=data_home, json_=False) as node:
        assert node.stop(signal.SIGTERM) == 0
    assert not any("amb_dpat_" in line for line in node.talk)


def test_metrics_need_the_token_or_a_listener_of_their_own(state: Path, data_home: Path) -> None:
    """Requests, cold starts, live isolates, refusals by code (issue 3, 5; interface.md 1)."""
    with NodeProcess(state, "--metrics-listen", "127.0.0.1:0", data_home=data_home) as node:
        node.deploy("hello", HELLO)
        node.call("hello")
        node.event("request", function="hello")
        assert node.get("/metrics").status == 401
        text = node.send("GET", "/metrics").text
        for line in (
            'amba_requests_total{outcome="ok",status="200"} 1',
            "amba_isolates_live 1",
            "amba_cold_starts_total 1",
        ):
            assert f"\n{line}\n" in text
        where = node.said("metrics: http://127.0.0.1:").rsplit(":", 1)[1]
        port = int(where.removesuffix("/metrics"))
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            host = f"host: 127.0.0.1:{port}".encode()  # another name is nobody's
            plain.sendall(b"GET /metrics HTTP/1.1\r\n" + host + b"\r\nconnection: close\r\n\r\n")
            data = b""
            while piece := plain.recv(65536):
                data += piece
        assert b"amba_isolates_live 1" in data


def test_without_a_sandbox_there_is_one_project(state: Path, data_home: Path) -> None:
    """`--sandbox off` hosts one, and says that there are no walls (interface.md 2)."""
    with NodeProcess(state, "--sandbox", "off", data_home=data_home) as node:
        refused = node.api("POST", "/admin/projects", {"name": "Other"}, status=409)
        assert "--sandbox off" in refused["error"]["message"]
        node.deploy("hello", HELLO)
        assert node.call("hello").text == "hello"
        assert not any("sandbox is weak" in line for line in node.talk)
        assert node.ready["sandbox"] == 0


def test_strict_takes_a_jail_or_nothing(state: Path, data_home: Path, tmp_path: Path) -> None:
    """And is the default: exit 1, nothing served, why, and what to do (interface.md 2, row F8)."""
    # what no jail can hold, wherever this runs
    script = tmp_path / "workerd"
    script.write_text(f'#!/bin/sh\nexec {find_workerd()} "$@"\n')
    script.chmod(0o755)
    done = run_cli(
        *("node", "--listen", "127.0.0.1:0", "--state", str(state)),
        data_home=data_home,
        AMBA_RUN_WORKERD=str(script),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "SANDBOX_WEAK" in done.stderr
    assert "is not a 64-bit ELF program" in done.stderr
    assert "use --sandbox best-effort" in done.stderr
    assert not (state / "amba.db").exists()
    weak = {"AMBA_RUN_WORKERD": str(script)}
    with NodeProcess(state, data_home=data_home, environment=weak) as node:
        assert node.said("the sandbox is weak here (tier 1")
        node.deploy("hello", HELLO)
        assert node.call("hello").text == "hello"


NO_GROUPS = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs -o ro none /sys/fs/cgroup && exec "$@"')


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="mounts take root")
def test_memory_that_no_kernel_caps_is_said_at_the_start(state: Path, data_home: Path) -> None:
    """The watchdog holds then, and it is said (reliability.md 1.4, T4; 4.3, note 1)."""
    can = subprocess.run([*NO_GROUPS, "sh", "true"], capture_output=True, timeout=10, check=False)
    if can.returncode != 0:
        pytest.skip("nothing may be mounted here")
    with NodeProcess(state, data_home=data_home, prefix=(*NO_GROUPS, "sh")) as node:
        line = node.said("the kernel caps no function's memory here (")
        assert "amba-run doctor" in line
        node.deploy("hello", HELLO)
        assert node.call("hello").text == "hello"
    # with walls switched off, none is missed
    options = ("--sandbox", "off")
    with NodeProcess(
        state, *options, data_home=data_home, prefix=(*NO_GROUPS, "sh"), pat=node.pat, project="p"
    ) as node:
        assert node.get("/readyz").status == 200
        assert not any("caps no function" in line for line in node.talk)


def test_a_state_that_cannot_be_written_is_told(tmp_path: Path, data_home: Path) -> None:
    """A file in its place: no traceback, exit 1."""
    place = tmp_path / "file"
    place.write_text("not a folder")
    done = run_node("--listen", "127.0.0.1:0", "--state", str(place), data_home=data_home)
    assert done.returncode == 1
    assert str(place) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_that_is_missing_is_told(state: Path, data_home: Path, tmp_path: Path) -> None:
    """The engine's program cannot be had: what, and how to mend it."""
    done = run_node(
        *("--listen", "127.0.0.1:0", "--state", str(state)),
        data_home=data_home,
        workerd=str(tmp_path / "nothing"),
    )
    assert done.returncode == 1
    assert "PROGRAM_MISSING" in done.stderr


def test_addresses_of_a_node_behind_a_proxy(state: Path, data_home: Path) -> None:
    """--suffix, --public-url, --trust-proxy: what functions and callers see (interface.md 1)."""
    options = (
        *("--suffix", "fn.example.com", "--public-url", "https://API.example.com/"),
        *("--trust-proxy", "127.0.0.0/8"),
    )
    with NodeProcess(state, *options, data_home=data_home) as node:
        made = node.deploy(
            "shows",
            """export default { fetch: (request, env) => Response.json({
              ip: request.headers.get("cf-connecting-ip"), api: env.AMBA_API_URL,
              cdn: env.AMBA_CDN_HOST }) };""",
        )
        assert made["version"] == 1
        answer = node.get("/shows", host="acme.fn.example.com", X_Forwarded_For="6.6.6.6, 1.2.3.4")
        assert json.loads(answer.body) == {
            "ip": "1.2.3.4",
            "api": "https://api.example.com",
            "cdn": "acme.cdn.example.com",
        }
        assert node.get("/shows", host="acme.fn.localhost").status == 421
        assert node.get("/healthz", host="api.example.com").status == 200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--listen", "8788"], "--listen '8788' is not HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "is not HOST:PORT"),
        (["--suffix", "no spaces"], "--suffix"),
        (["--suffix", "apps.example.com"], "--cdn-suffix"),
        (["--suffix", "fn.a.com", "--cdn-suffix", "fn.a.com"], "the same"),
        (["--public-url", "ftp://x"], "--public-url"),
        (["--public-url", "https://a.com/path"], "--public-url"),
        (["--public-url", "https://a.com:99999"], "--public-url"),
        (["--metrics-listen", "x"], "--metrics-listen"),
        (["--live-isolates", "0"], "--live-isolates"),
        (["--evict-after", "-1"], "--evict-after"),
        (["--sandbox", "none"], "--sandbox"),
    ],
)
def test_an_option_that_makes_no_sense_is_usage(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str], state: Path
) -> None:
    """Exit 2, naming the option; nothing was begun (architecture.md 6)."""
    from amba_run.cli import run

    assert run(["node", "--state", str(state), *options]) == 2
    assert said in capsys.readouterr().err
    assert not state.exists()


def test_a_proxy_that_is_no_network_is_refused(
    capsys: pytest.CaptureFixture[str], state: Path
) -> None:
    """Exit 1, with an example."""
    from amba_run.cli import run

    arguments = ["node", "--state", str(state), "--listen", "127.0.0.1:0"]
    assert run([*arguments, "--trust-proxy", "somewhere"]) == 1
    assert "--trust-proxy" in capsys.readouterr().err


def test_nothing_outlives_a_node(node: NodeProcess) -> None:
    """Engines, spawner and esbuild end with it, also when it is killed."""
    node.deploy("hello", HELLO)
    children = node.descendants()
    assert children
    node.process.kill()
    node.process.wait(5)
    for child in children:
        child.wait(5)

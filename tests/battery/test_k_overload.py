"""Group K, rows K1, K2, K6 and K8: too many requests, bad backends, an end under load."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.battery.conftest import Counts
from tests.drills.nodes import NodeProcess as DrillNode
from tests.drills.overload import crowd, overload
from tests.e2e.raw_http import Answer, BrokenTransfer, RawClient
from tests.run.noding import NodeProcess
from tests.run.serving import Dev

pytestmark = pytest.mark.battery


@pytest.mark.timeout(600)
def test_k1_five_times_too_much(tmp_path: Path, counts: Counts) -> None:
    """K1: at 5x of what a function can answer, at least 80 % of the peak is answered, refusals
    come within 50 ms and say when to return, and nothing is lost.
    """
    seconds = counts(pr=4, nightly=60)
    with DrillNode(tmp_path / "node") as node:
        peak, (once, five) = overload(node, seconds=seconds, steps=(1.0, 5.0))
    assert five.goodput >= 0.8 * peak.goodput, (peak, five)
    assert five.refused > 0
    assert five.p99_refused_s <= 0.05
    assert (once.errors, five.errors) == (0, 0)
    assert (once.no_retry_after, five.no_retry_after) == (0, 0)
    # those that wait in line: 100 of a project, so many times what one takes, and no more
    assert five.p99_good_s <= max(3 * once.p99_good_s, 2.0)
    print(f"K1: peak {peak.goodput:.0f}/s, at 5x {five.goodput:.0f}/s, {five.refused} refused")


@pytest.mark.timeout(600)
def test_k2_one_hot_project_among_twenty(tmp_path: Path, counts: Counts, nightly: bool) -> None:
    """K2: beside a project that is asked 10x what it may answer, 19 quiet ones have no error, and
    (where there are enough requests for a p99) answer at most twice as slowly.
    """
    with DrillNode(tmp_path / "node") as node:
        alone, beside, hot = crowd(node, seconds=counts(pr=5, nightly=60))
    assert (beside.errors, beside.refused) == (0, 0)
    assert hot.refused > 0
    assert hot.errors == 0
    if nightly:
        assert beside.p99_good_s <= 2 * alone.p99_good_s
    print(f"K2: quiet p99 {alone.p99_good_s * 1000:.0f} -> {beside.p99_good_s * 1000:.0f} ms")


# K6


class Backend:
    """A server on loopback that answers each connection by one of several bad habits."""

    def __init__(self, habit: Callable[[socket.socket], None]) -> None:
        self._habit = habit
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client.settimeout(10)
            client.recv(65536)
            self._habit(client)

    def close(self) -> None:
        """Idempotent."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self._open:
            client.close()
        self._thread.join(5)


def _silence(client: socket.socket) -> None:
    """Neither answers nor leaves, until the other side does."""
    while client.recv(1024):
        pass


def _says(data: bytes, *, stay: bool = False) -> Callable[[socket.socket], None]:
    def habit(client: socket.socket) -> None:
        client.sendall(data)
        if stay:
            _silence(client)
        client.close()

    return habit


def _resets(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


OK = b"HTTP/1.1 200 OK\r\n"
HABITS: dict[str, Callable[[socket.socket], None]] = {
    "silent": _silence,
    "hangs up": _says(b""),
    "resets": _resets,
    "garbage": _says(b"\x00\x01\x02 not http at all \xff" * 100),
    "another protocol": _says(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "half a head": _says(OK + b"content-le"),
    "an endless head": _says(OK + b"x: " + b"y" * 4_000_000),
    "half a body": _says(OK + b"content-length: 1000\r\n\r\nhalf"),
    "half a body, and stays": _says(OK + b"content-length: 1000\r\n\r\nhalf", stay=True),
    "two lengths": _says(OK + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
    "bad chunks": _says(OK + b"transfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"),
    "a status that is none": _says(b"HTTP/1.1 999999 What\r\n\r\n"),
}
ASKS = """
export default { async fetch(request, env) {
  const port = new URL(request.url).searchParams.get("port");
  const began = Date.now();
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/`);
    return Response.json({ status: answer.status, text: (await answer.text()).length });
  } catch (error) {
    return Response.json({ error: error.name, message: String(error.message).slice(0, 300) });
  }
} };
"""


@pytest.fixture(scope="module")
def backends() -> Iterator[dict[str, Backend]]:
    """One per habit, and one that is down."""
    made = {name: Backend(habit) for name, habit in HABITS.items()}
    made["down"] = Backend(_silence)
    made["down"].close()
    try:
        yield made
    finally:
        for backend in made.values():
            backend.close()


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory, backends: dict[str, Backend]) -> Iterator[Dev]:
    """A server whose functions may reach those backends, and have a second for an answer."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "asks.js").write_text(ASKS)
    (folder / "neighbour.js").write_text("export default { fetch: () => new Response('well') }")
    (folder / "amba.toml").write_text("[functions.asks.limits]\nfirst_byte_ms = 1000\n")
    allow = [o for b in backends.values() for o in ("--allow-egress", f"127.0.0.1:{b.port}")]
    data_home = tmp_path_factory.mktemp("data")
    with Dev(folder, "--no-watch", "--ephemeral", *allow, data_home=data_home) as server:
        yield server
    assert not [line for line in server.talk if "Traceback" in line]


@pytest.mark.parametrize("habit", [*HABITS, "down"])
def test_k6_a_bad_backend_is_an_error_of_the_function_alone(
    dev: Dev, backends: dict[str, Backend], habit: str
) -> None:
    """K6: a backend that is down, slow or talks nonsense is an error that the function can catch,
    or its own time is up (504); the server is healthy and neighbours answer meanwhile.
    """
    came: list[tuple[int, str]] = []

    def ask() -> None:
        answer = dev.get(f"/fn/local/asks?port={backends[habit].port}")
        came.append((answer.status, answer.text))

    askers = [threading.Thread(target=ask) for _ in range(5)]
    for asker in askers:
        asker.start()
    for _ in range(10):
        began = time.monotonic()
        assert dev.ask("neighbour") == "well"
        assert dev.get("/healthz").status == 200
        assert time.monotonic() - began < 1
    for asker in askers:
        asker.join(10)
    assert len(came) == 5
    for status, text in came:
        if status == 504:
            assert habit in ("silent", "half a body, and stays"), text
        else:
            assert status == 200
            told = json.loads(text)
            assert told.get("error"), (habit, told)
            assert "127.0.0.1" not in told["message"] or habit == "down", told
    assert dev.ask("neighbour") == "well"


# K8


@pytest.mark.parametrize("attempt", range(5))
def test_k8_an_end_under_load_drops_nothing(tmp_path: Path, attempt: int) -> None:
    """K8: SIGTERM while 40 requests are under way, some waiting for their turn: all are answered,
    later connections are refused, exit code 0 (issue 3, item 5).
    """
    nap = NAP_WITH.replace("MS", str(300 + 50 * attempt))
    answers: list[Answer] = []
    broken: list[Exception] = []
    under_way = threading.Barrier(41)

    with NodeProcess(tmp_path / "node", data_home=tmp_path) as node:
        node.deploy("nap", nap, limits={"concurrency": 20})
        assert node.call("nap").status == 200

        def ask() -> None:
            with RawClient(node.port, timeout_s=20) as client:
                client.begin("GET", "/fn/acme/nap")
                under_way.wait(20)
                try:
                    answers.append(client.answer())
                except (BrokenTransfer, OSError) as error:
                    broken.append(error)

        askers = [threading.Thread(target=ask) for _ in range(40)]
        for asker in askers:
            asker.start()
        under_way.wait(20)
        until = time.monotonic() + 10
        while _inside(node) < 20:
            assert time.monotonic() < until
        assert node.stop(signal.SIGTERM) == 0
        for asker in askers:
            asker.join(20)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", node.port))
        assert not [line for line in node.talk if "Traceback" in line]
    assert broken == []
    assert [a.status for a in answers] == [200] * 40


NAP_WITH = """
export default { async fetch() {
  await new Promise((done) => setTimeout(done, MS));
  return new Response("rested");
} };
"""


def _inside(node: NodeProcess) -> int:
    """Invocations under way, as the metrics say."""
    text = node.send("GET", "/metrics").text
    line = next(x for x in text.splitlines() if x.startswith("amba_invocations "))
    return int(float(line.split()[1]))

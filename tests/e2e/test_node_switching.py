"""Deploys, rollbacks and rotations of a function under load: no request fails or sees two versions.

Source: issue 3, row 5 of "Must show".
"""

from __future__ import annotations

import http.client
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.run.noding import NodeProcess

from amba_bundler.build import build

pytestmark = pytest.mark.slow

CONNECTIONS = 32


def source(mark: str) -> str:
    """A function that says its mark at the begin and, a moment later, at the end of its answer."""
    return f"""
    let mark = "{mark}";
    export default {{ async fetch(request, env) {{
      const begin = mark;
      await scheduler.wait(Math.random() * 4);
      const body = new ReadableStream({{ async start(controller) {{
        const write = (text) => controller.enqueue(new TextEncoder().encode(text));
        write(begin + " ");
        await scheduler.wait(Math.random() * 4);
        write("{mark} " + (env.KEY ?? "none"));
        controller.close();
      }} }});
      return new Response(body);
    }} }};
    """


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """One node; each test has a function of its own."""
    place = tmp_path_factory.mktemp("node")
    with NodeProcess(place / "state", data_home=place) as node:
        yield node
    assert node.process.returncode == 0


class Load:
    """So many connections that ask without a pause, until the block ends.

    Attributes:
        faults: what was wrong with an answer.
        answers: how many there were.
    """

    def __init__(self, node: NodeProcess, name: str, judge: Callable[[int, str, int], Any]) -> None:
        self.faults: list[object] = []
        self.answers = 0
        self._node = node
        self._name = name
        self._judge = judge
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._epoch = 0
        self._threads = [threading.Thread(target=self._ask) for _ in range(CONNECTIONS)]

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._node.port, timeout=10)
        try:
            while not self._over.is_set():
                epoch = self._epoch
                connection.request("GET", f"/fn/acme/{self._name}")
                response = connection.getresponse()
                text = response.read().decode()
                with self._lock:
                    self.answers += 1
                    try:
                        newest = self._judge(response.status, text, epoch)
                    except AssertionError as fault:
                        self.faults.append((response.status, text[:200], str(fault)[:200]))
                        return
                    self._epoch = max(self._epoch, newest)
        except Exception as fault:
            self.faults.append(repr(fault))
        finally:
            connection.close()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(20)

    def more(self, count: int = CONNECTIONS) -> None:
        """Wait for so many answers more."""
        goal = self.answers + count
        for _ in itertools.count():
            if self.answers >= goal or self.faults or self._over.wait(0.001):
                return


def test_switching_under_load_fails_and_mixes_nothing(node: NodeProcess) -> None:
    """100 deploys and 20 rollbacks under 32 connections: each answer belongs wholly to one
    deployment, and once a newer one has answered no older one does (row 5)."""
    # what each deployment answers with, in the order of their making
    marks = [f"m{n}" for n in range(101)]
    order: list[str] = []

    def judge(status: int, text: str, epoch: int) -> int:
        assert status == 200
        begin, end, _ = text.split(" ")
        assert begin == end
        # the newest deployment so far that has this mark: rollbacks bring marks back
        made = max(at for at, mark in enumerate(order) if mark == begin)
        assert made >= epoch
        return made

    order.append(marks[0])
    node.deploy("switched", source(marks[0]))
    with Load(node, "switched", judge) as load:
        for mark in marks[1:]:
            order.append(mark)
            node.deploy("switched", source(mark))
        load.more()
        for version in range(1, 21):
            order.append(marks[version * 4 - 1])
            made = node.admin("POST", "/functions/switched/rollback", {"version": version * 4})
            assert made["data"]["rolled_back_from"] == version * 4
        load.more()
    assert load.faults == []
    assert load.answers > 500
    active = node.admin("GET", "/functions/deployments?active=1")["data"]
    assert [row["version"] for row in active if row["name"] == "switched"] == [121]


def test_new_values_arrive_without_a_failed_request(node: NodeProcess) -> None:
    """A secret that is set ten times under load: answers change, none fails (contract C.2)."""
    values = [f"v{n}" for n in range(10)]

    def judge(status: int, text: str, epoch: int) -> int:
        assert status == 200
        value = text.split(" ")[2]
        return -1 if value == "none" else values.index(value)

    node.deploy("told", source("m"))
    versions = {row["version"] for row in node.admin("GET", "/functions/deployments")["data"]}
    with Load(node, "told", judge) as load:
        for value in values:
            node.admin("POST", "/secrets", {"name": "KEY", "value": value, "function": "told"})
            load.more(8)
        assert node.call("told").text.split(" ")[2] == values[-1]
    assert load.faults == []
    after = {row["version"] for row in node.admin("GET", "/functions/deployments")["data"]}
    assert after == versions


def test_a_new_signing_secret_never_refuses_a_request(
    node: NodeProcess, fixtures_dir: Path
) -> None:
    """A function that verifies its stamps under load, while the secret is rotated (A.4)."""
    import asyncio

    bundle = asyncio.run(build(fixtures_dir / "verify-signature" / "index.ts")).bundle

    def judge(status: int, text: str, epoch: int) -> int:
        assert status == 200
        return epoch

    node.deploy("verifies", bundle.code.decode())
    with Load(node, "verifies", judge) as load:
        for _ in range(5):
            node.admin("POST", "/internal-credentials/rotate", {"which": "header_signing_secret"})
            load.more(64)
    assert load.faults == []


def _arrives(node: NodeProcess, load: Load, wanted: str) -> bool:
    """Whether the function `tells` says so soon: a token is handed out in the background."""
    for _ in range(200):
        if node.call("tells").text == wanted:
            return True
        load.more(4)
    return False


def test_what_changes_during_a_rotation_arrives_and_nothing_refuses(
    node: NodeProcess, fixtures_dir: Path
) -> None:
    """A function whose top level takes a while, under load: secret and internal token are set
    while its replacement warms up, another one is deployed meanwhile (A.4, C.1, C.2, H4)."""
    import asyncio

    bundle = asyncio.run(build(fixtures_dir / "verify-signature" / "index.ts")).bundle
    busy = "let z = 0; for (let i = 0; i < 4e7; i++) z = (z * 31 + i) % 1000003;\n"
    verifies = busy + bundle.code.decode()
    tells = busy + (
        "export default { fetch(request, env) {"
        " return new Response(`${env.KEY} ${env.AMBA_INTERNAL_TOKEN}`); } };"
    )

    def judge(status: int, text: str, epoch: int) -> int:
        assert status == 200
        return epoch

    node.deploy("slow", verifies)
    node.deploy("tells", tells)
    with Load(node, "slow", judge) as load:
        for value in ("one", "two", "three"):
            node.admin("POST", "/internal-credentials/rotate", {"which": "header_signing_secret"})
            node.deploy("fresh", bundle.code.decode())
            assert node.call("fresh").status == 200
            node.admin("POST", "/secrets", {"name": "KEY", "value": value, "function": "tells"})
            made = node.admin("POST", "/internal-credentials/rotate", {"which": "internal_token"})
            load.more(64)
            wanted = f"{value} {made['data']['internal_token']}"
            assert _arrives(node, load, wanted)
            assert node.call("fresh").status == 200
    assert load.faults == []

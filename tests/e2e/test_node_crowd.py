"""Many functions on one node: they cost little until called, and come back when they are.

Figures for a thousand are the bench's (issue 3, row 7); here is what must hold for any number.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.run.noding import NodeProcess
from tests.waiting import comes

pytestmark = pytest.mark.slow

FUNCTIONS = 24
LIVE = 4


def source(n: int) -> str:
    """A function that says its number, and keeps count of its requests."""
    return f"let k = 0; export default {{ fetch: () => new Response(`{n} ${{++k}}`) }};"


def few(node: NodeProcess) -> bool:
    """Idle ones over the bound are ended in the background: that soon no more are left."""
    return comes(lambda: len(node.engines()) <= LIVE, within_s=10)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeProcess, Path]]:
    """A node with many functions, started anew after they were deployed."""
    place = tmp_path_factory.mktemp("node")
    options = ("--live-isolates", str(LIVE))
    with NodeProcess(place / "state", *options, data_home=place) as node:
        for n in range(FUNCTIONS):
            node.deploy(f"f{n}", source(n))
        assert few(node)
    with NodeProcess(
        place / "state", *options, data_home=place, pat=node.pat, project=node.project
    ) as again:
        # seen before any test of this file, whatever their order
        assert again.engines() == []
        yield again, place


def test_nothing_runs_until_it_is_called(crowd: tuple[NodeProcess, Path]) -> None:
    """No process, and all of them answer, the idle ones making room (issue 3, 5)."""
    node, _ = crowd
    for n in range(FUNCTIONS):
        assert node.call(f"f{n}").text.split()[0] == str(n)
    assert few(node)
    assert f"\namba_isolates_live {LIVE}\n" in node.send("GET", "/metrics").text


def test_many_at_once_are_all_answered(crowd: tuple[NodeProcess, Path]) -> None:
    """Four at a time for each of them, all cold at once; none is started twice for that."""
    node, _ = crowd
    answers: list[tuple[int, int, str]] = []

    def ask(n: int) -> None:
        answer = node.call(f"f{n}")
        answers.append((n, answer.status, answer.text.split()[0]))

    threads = [threading.Thread(target=ask, args=(n % FUNCTIONS,)) for n in range(4 * FUNCTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(answers) == sorted((n, 200, str(n)) for n in range(FUNCTIONS) for _ in range(4))


def test_one_that_is_used_is_not_the_one_to_go(crowd: tuple[NodeProcess, Path]) -> None:
    """The least recently used goes first: a hot one keeps its memory."""
    node, _ = crowd
    before = int(node.call("f0").text.split()[1])
    for n in range(1, FUNCTIONS):
        node.call(f"f{n}")
        node.call("f0")
    assert int(node.call("f0").text.split()[1]) == before + FUNCTIONS


def test_one_that_is_at_work_is_not_ended(crowd: tuple[NodeProcess, Path]) -> None:
    """A slow request, and work behind an answer, outlive the need for room."""
    node, _ = crowd
    node.deploy(
        "slow",
        """export default { async fetch(request, env, ctx) {
          ctx.waitUntil(scheduler.wait(1500).then(() => console.log("worked to the end")));
          if (request.url.endsWith("/slow")) await scheduler.wait(1500);
          return new Response("done");
        } };""",
    )
    since = node.mark()
    assert node.call("slow").text == "done"
    slow: list[str] = []
    asking = threading.Thread(target=lambda: slow.append(node.call("slow", "/slow").text))
    asking.start()
    for n in range(FUNCTIONS):
        assert node.call(f"f{n}").status == 200
    asking.join(10)
    assert slow == ["done"]

    def worked() -> bool | None:
        told = [e for e in node.events[since:] if e["event"] in ("request", "late")]
        lines = [line["Message"] for e in told for line in e["logs"]]
        return True if lines.count(["worked to the end"]) == 2 else None

    assert node.wait(worked, within_s=10)


def test_idle_ones_end_after_their_time(crowd: tuple[NodeProcess, Path]) -> None:
    """`--evict-after`: no process is left, and the next request is answered (issue 3, 5)."""
    _, place = crowd
    options = ("--evict-after", "0.1")
    with NodeProcess(place / "other", *options, data_home=place) as lazy:
        lazy.deploy("f", source(1))
        assert lazy.call("f").text == "1 1"
        assert len(lazy.engines()) == 1
        deadline = time.monotonic() + 15
        while lazy.engines() and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        assert lazy.engines() == []
        assert lazy.call("f").text == "1 1"


def test_a_thousand_would_fit(crowd: tuple[NodeProcess, Path]) -> None:
    """Our process stays far below the 200 MiB of row 7 with these."""
    node, _ = crowd
    resident = psutil.Process(node.process.pid).memory_info().rss
    assert resident < 150 * 1024**2

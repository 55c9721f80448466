"""Rows 7 and 9: a node with a thousand functions: memory, cold and hot answers, a restart."""

from __future__ import annotations

import http.client
import random
import shutil
import threading
from pathlib import Path
from time import monotonic, sleep

from tests.bench.wrk import parse_wrk
from tests.drills.figures import Figure, at_least, at_most, quantile
from tests.drills.nodes import NodeProcess, ask, create_project, tagged
from tests.drills.nodes import deploy as upload

MIB = 1024 * 1024
CONNECTIONS = 32


def run(folder: Path, *, functions: int = 1000, cold: int = 200, seed: int = 1) -> list[Figure]:
    """Deploy them, wait until most are cold again, ask."""
    order = random.Random(seed)
    with NodeProcess(folder / "many") as node, NodeProcess(folder / "single") as single:
        project, slug = create_project(node, "many-drill")
        lone, lone_slug = create_project(single, "single-drill")
        upload(single.api(lone), "hot", tagged("hot"))
        api = node.api(project)
        began = monotonic()
        for n in range(functions - 1):
            upload(api, f"f{n}", tagged(f"f{n}"))
        upload(api, "hot", tagged("hot"))
        deploys_s = monotonic() - began
        loaded = node.rss() / MIB
        took_ms = [_cold(node, slug, n) for n in order.sample(range(functions // 2), cold)]
        ratios = [
            _rate(node.port, f"/fn/{slug}/hot") / _rate(single.port, f"/fn/{lone_slug}/hot")
            for _ in range(3)
        ]
        peak = max(loaded, node.rss() / MIB)
        node.kill()
        restarts = [_restart(node) for _ in range(3)]
        resident = node.rss() / MIB
    return [
        Figure("7", f"{functions:,} deploys", f"{deploys_s:.1f} s"),
        at_most("7", "our resident memory", round(max(peak, resident)), 200, " MiB"),
        at_most("7", "cold answer, p50", round(quantile(took_ms, 0.5), 1), 60, " ms"),
        at_most("7", "cold answer, p99", round(quantile(took_ms, 0.99), 1), 150, " ms"),
        at_least("7", "hot throughput beside a node of one", round(sorted(ratios)[1], 3), 0.9, "x"),
        at_most("9", "restart until /readyz", round(sorted(restarts)[1], 2), 2, " s"),
    ]


def _cold(node: NodeProcess, slug: str, n: int) -> float:
    began = monotonic()
    answer = ask(node.port, f"/fn/{slug}/f{n}")
    took = (monotonic() - began) * 1000
    assert answer.body == f"f{n}  f{n}", answer
    return took


def _restart(node: NodeProcess) -> float:
    node.kill()
    began = monotonic()
    node.start()
    while _status(node.port, "/readyz") != 200:
        sleep(0.005)
    return monotonic() - began


def _status(port: int, path: str) -> int:
    try:
        return ask(port, path, timeout_s=2).status
    except OSError:
        return 0


def _rate(port: int, path: str, *, seconds: float = 4.0) -> float:
    """Answers per second at 32 connections, with wrk where it is, else with threads."""
    if shutil.which("wrk"):
        import subprocess

        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "--latency"]
        url = f"http://127.0.0.1:{port}{path}"
        done = subprocess.run([*command, url], capture_output=True, text=True, check=True)
        result = parse_wrk(done.stdout)
        assert result.errors == 0, done.stdout
        return result.requests / result.seconds
    counts = [0] * CONNECTIONS
    until = monotonic() + seconds

    def work(index: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        while monotonic() < until:
            connection.request("GET", path)
            with connection.getresponse() as response:
                response.read()
            counts[index] += 1
        connection.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds

"""Issue 6, line 5: messages of 1 KiB, from the request to the end of a real `queue()` handler."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

from tests.drills.figures import Figure, at_least, at_most, quantile
from tests.drills.nodes import DrillError, NodeProcess, create_project, deploy
from tests.drills.queue_kills import counts
from tests.drills.rows import fsync_ms

SENT = 300
CONNECTIONS = 32
FOR_S = 15.0
DRAIN_S = 60.0
QUEUE = "parcels"
CONSUMER = """
let bytes = 0;
export default {
  async queue(batch) {
    for (const message of batch.messages) bytes += message.body.text.length;
  },
};
"""


def run(folder: Path) -> list[Figure]:
    """Send alone, then from many connections while all of it is delivered."""
    state = folder / "state"
    disk_ms = fsync_ms(folder)
    with NodeProcess(state) as node:
        project, _ = create_project(node, "Parcels")
        api = node.api(project)
        deploy(api, "consumer", CONSUMER)
        binding = {"queue_name": QUEUE, "function_name": "consumer", "batch_size": 10}
        api.put(api.at("queue", "bindings"), binding)
        path = api.at("queue", "send")
        body = json.dumps({"name": QUEUE, "payload": {"text": "x" * 1000}})
        alone = _one_by_one(node, path, body)
        _drain(state)
        began = monotonic()
        rate = _many(node, path, body)
        behind = counts(state)[0]
        _drain(state)
        took_s = monotonic() - began
        done = rate * FOR_S
        _, dead = counts(state)
    p50_ms = quantile(alone, 0.5) * 1000
    over_ms = p50_ms - disk_ms
    return [
        Figure("5", "fsync of this disk, p50", f"{disk_ms:.2f} ms"),
        Figure("5", "send, p50 of one connection", f"{p50_ms:.2f} ms"),
        at_most("5", "the same over the fsync", round(over_ms, 2), 3, " ms"),
        Figure("5", f"sent on {CONNECTIONS} connections", f"{rate:,.0f}/s"),
        Figure("5", f"still waiting after {FOR_S:.0f} s", f"{behind:,}"),
        at_least("5", "sent, delivered and acked", round(done / took_s), 1000, "/s"),
        at_most("5", "dead letters", dead, 0),
    ]


def _one_by_one(node: NodeProcess, path: str, body: str) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
    took: list[float] = []
    try:
        for _ in range(SENT):
            began = monotonic()
            connection.request("POST", path, body, _headers(node))
            answer = connection.getresponse()
            answer.read()
            took.append(monotonic() - began)
            if answer.status != 200:
                raise DrillError(f"a send was answered {answer.status}")
    finally:
        connection.close()
    return took


def _many(node: NodeProcess, path: str, body: str) -> float:
    """Messages a second that were taken, from a process of its own."""
    arguments = (str(node.port), path, json.dumps(_headers(node)), body)
    program = str(Path(__file__).with_name("rows_load.py"))
    done = subprocess.run(
        [sys.executable, program, *arguments, str(CONNECTIONS), str(FOR_S)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def _headers(node: NodeProcess) -> dict[str, str]:
    return {"authorization": f"Bearer {node.pat}", "content-type": "application/json"}


def _drain(state: Path) -> None:
    until = monotonic() + DRAIN_S
    while counts(state)[0]:
        if monotonic() > until:
            raise DrillError(f"after {DRAIN_S:.0f} s messages still wait")
        sleep(0.02)

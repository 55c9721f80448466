"""Issue 6, line 6: what a node with much that waits costs while nothing is due, and how punctual it
is when something is."""

from __future__ import annotations

import json
from pathlib import Path
from time import sleep, time
from typing import Any

import psutil
from tests.drills import rows_load
from tests.drills.figures import Figure, at_least, at_most, quantile
from tests.drills.nodes import NodeProcess, create_project, deploy
from tests.drills.queue_kills import Collector

MESSAGES = 100_000
SCHEDULES = 10_000
PER_FUNCTION = 100
WATCHED_S = 30.0
DUE = 20
CONSUMER = """
export default {
  async queue(batch, env) {
    await fetch(env.COLLECTOR, { method: "POST", body: batch.messages[0].id + " 1" });
  },
  scheduled() {},
};
"""


class _Punctual(Collector):
    """Notes when each message came."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        super().__init__()

    def note(self, lines: str) -> None:
        self.at[lines.partition(" ")[0]] = time()


def run(folder: Path, *, messages: int = MESSAGES, schedules: int = SCHEDULES) -> list[Figure]:
    """Fill it, watch it, send what is due soon."""
    collector = _Punctual()
    with NodeProcess(folder / "state", ("--allow-egress", collector.address)) as node:
        project, _ = create_project(node, "Patient")
        api = node.api(project)
        api.post(api.at("secrets"), {"name": "COLLECTOR", "value": f"http://{collector.address}/"})
        for number in range(-(-schedules // PER_FUNCTION)):
            deploy(api, f"consumer{number}", CONSUMER)
        for number in range(schedules):
            body = {
                "name": f"consumer{number // PER_FUNCTION}",
                "cron": f"{number % 60} {number // 60 % 24} 29 2 *",
                "timezone": "UTC",
            }
            api.post(api.at("functions", "schedules"), body)
        for queue in ("patient", "prompt"):
            binding = {"queue_name": queue, "function_name": "consumer0"}
            api.put(api.at("queue", "bindings"), binding)
        _fill(node, api.at("queue", "send"), messages)
        waiting = _waiting(api)
        sleep(5)
        process = psutil.Process(node.pid)
        before = sum(process.cpu_times()[:2])
        sleep(WATCHED_S)
        used = (sum(process.cpu_times()[:2]) - before) / WATCHED_S * 100
        late = _late_ms(api, collector)
        rss = node.rss() / 2**20
    collector.close()
    return [
        at_least("6", "messages that wait", waiting, messages),
        Figure("6", "schedules", f"{schedules:,}"),
        at_most("6", f"CPU of the node over {WATCHED_S:.0f} s", round(used, 2), 2, " %"),
        at_most("6", f"late, the worst of {DUE}", round(max(late), 1), 50, " ms"),
        Figure("6", "late, p50", f"{quantile(late, 0.5):.1f} ms"),
        Figure("6", "memory of the node", f"{rss:.0f} MiB"),
    ]


def _fill(node: NodeProcess, path: str, messages: int) -> None:
    """Send from many connections until there are enough."""
    import asyncio

    headers = {"authorization": f"Bearer {node.pat}", "content-type": "application/json"}
    body = json.dumps({"name": "patient", "payload": {}, "delay_seconds": 43_200}).encode()
    sent = 0.0
    while sent < messages:
        sent += asyncio.run(rows_load.main(node.port, path, headers, body, 32, 5.0)) * 5.0


def _waiting(api: Any) -> int:
    queues = api.get(api.at("queue", "queues"))["data"]
    return next(int(q["delayed"]) for q in queues if q["queue_name"] == "patient")


def _late_ms(api: Any, collector: _Punctual) -> list[float]:
    """By how much a message with a delay of a second came after it was due."""
    late: list[float] = []
    body: dict[str, object] = {"name": "prompt", "payload": None, "delay_seconds": 1}
    api.post(api.at("queue", "send"), {**body, "delay_seconds": 0})  # its isolate is up then
    sleep(1)
    for _ in range(DUE):
        id_ = str(api.post(api.at("queue", "send"), body)["job_id"])
        jobs = api.get(api.at("queue", "prompt", "jobs"), state="delayed")["data"]
        due_s = _unix(next(job["due_at"] for job in jobs if job["id"] == id_))
        sleep(1.5)
        late.append((collector.at[id_] - due_s) * 1000)
    return late


def _unix(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()

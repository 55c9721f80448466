"""Issue 6, line 2: `kill -9` of a node that delivers messages, a hundred times.

What was sent is delivered; what a transaction had acked never comes again.
"""

from __future__ import annotations

import http.client
import json
import random
import sqlite3
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from tests.drills.figures import Figure, at_most
from tests.drills.nodes import DrillError, NodeProcess, create_project, deploy

QUEUE = "letters"
SENDERS = 4
CONSUMERS = 4
BATCH = 10
DRAIN_S = 180.0
CONSUMER = """
export default {
  async queue(batch, env) {
    const lines = batch.messages.map((message) => `${message.id} ${message.attempts}`);
    const told = await fetch(env.COLLECTOR, { method: "POST", body: lines.join("\\n") });
    if (!told.ok) throw new Error(`the collector answered ${told.status}`);
  },
};
"""


class Collector:
    """What the handler says it was given, over HTTP: the drill's own account of deliveries."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.acked: set[str] = set()
        self.again: list[str] = []
        self._lock = threading.Lock()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                collector.note(self.rfile.read(length).decode())
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A node that is killed resets its connections."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"

    def note(self, lines: str) -> None:
        """One batch."""
        with self._lock:
            for line in lines.splitlines():
                id_ = line.partition(" ")[0]
                self.seen[id_] = self.seen.get(id_, 0) + 1
                if id_ in self.acked:
                    self.again.append(id_)

    def ack(self, ids: set[str]) -> None:
        """From here on none of them may come."""
        with self._lock:
            self.acked |= ids

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Senders:
    """Send until there are enough, through every restart. `ids` are those that were answered."""

    def __init__(self, node: NodeProcess, project: str, wanted: int) -> None:
        self.ids: set[str] = set()
        self._node = node
        self._path = f"/v1/admin/projects/{project}/queue/send"
        self._wanted = wanted
        self._lock = threading.Lock()
        self._up = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(SENDERS)]
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> bool:
        return len(self.ids) >= self._wanted

    def resume(self) -> None:
        """The node listens."""
        self._up.set()

    def pause(self) -> None:
        """It is about to be killed, or was."""
        self._up.clear()

    def _run(self) -> None:
        while not self.done:
            self._up.wait(1)
            if self._up.is_set():
                self._send_while_up()

    def _send_while_up(self) -> None:
        headers = {
            "authorization": f"Bearer {self._node.pat}",
            "content-type": "application/json",
        }
        body = json.dumps({"name": QUEUE, "payload": {"text": "x" * 200}})
        connection = http.client.HTTPConnection("127.0.0.1", self._node.port, timeout=10)
        try:
            while not self.done and self._up.is_set():
                connection.request("POST", self._path, body, headers)
                answer = connection.getresponse()
                told: Any = json.loads(answer.read())
                if answer.status != 200:
                    raise DrillError(f"a send was answered {answer.status}: {told}")
                with self._lock:
                    self.ids.add(str(told["job_id"]))
        except (OSError, http.client.HTTPException, ValueError):
            sleep(0.05)  # it was killed: nobody knows what became of that one
        finally:
            connection.close()


def run(folder: Path, *, rounds: int = 100, messages: int = 50_000, seed: int = 1) -> list[Figure]:
    """Kill so many times while so many messages are sent and delivered."""
    order = random.Random(seed)
    collector = Collector()
    state = folder / "state"
    options = ("--allow-egress", collector.address)
    began = monotonic()
    with NodeProcess(state, options) as node:
        project = _shop(node, collector)
        senders = Senders(node, project, messages)
        senders.resume()
        for _ in range(rounds):
            sleep(order.uniform(0.2, 1.2))
            senders.pause()
            node.kill()
            collector.ack(senders.ids - _kept(state))
            node.start()
            senders.resume()
        _drain(state, senders)
        sleep(1)  # whatever would still come
        _, dead = counts(state)
    collector.close()
    lost = senders.ids - collector.seen.keys()
    twice = sum(times - 1 for times in collector.seen.values())
    took_s = monotonic() - began
    for id_ in sorted(lost)[:5]:
        print(f"  queue_kills: {id_} was never delivered")
    return [
        Figure("2", f"{rounds} kills in {took_s:.0f} s", f"{len(senders.ids):,} messages sent"),
        at_most("2", "messages lost", len(lost), 0),
        at_most("2", "delivered again after a durable ack", len(set(collector.again)), 0),
        at_most("2", "dead letters", dead, 0),
        Figure("2", "delivered more than once, before an ack", f"{twice:,}"),
    ]


def _shop(node: NodeProcess, collector: Collector) -> str:
    project, _ = create_project(node, "Shop")
    api = node.api(project)
    deploy(api, "consumer", CONSUMER)
    api.post(api.at("secrets"), {"name": "COLLECTOR", "value": f"http://{collector.address}/"})
    api.put(
        api.at("queue", "bindings"),
        {
            "queue_name": QUEUE,
            "function_name": "consumer",
            "batch_size": BATCH,
            "consumers": CONSUMERS,
        },
    )
    return project


def _drain(state: Path, senders: Senders) -> None:
    until = monotonic() + DRAIN_S
    while not senders.done or counts(state)[0]:
        if monotonic() > until:
            raise DrillError(f"after {DRAIN_S:.0f} s messages still wait")
        sleep(0.2)


def _kept(state: Path) -> set[str]:
    """Ids of messages in the database of a node that is gone."""
    with closing(sqlite3.connect(state / "amba.db", timeout=10)) as plain:
        return {str(row[0]) for row in plain.execute("SELECT id FROM queue_jobs")}


def counts(state: Path) -> tuple[int, int]:
    """Messages that are still to be delivered, and dead letters."""
    query = "SELECT dead_ms IS NOT NULL, count(*) FROM queue_jobs GROUP BY 1"
    with closing(sqlite3.connect(state / "amba.db", timeout=10)) as plain:
        found = {int(dead): int(count) for dead, count in plain.execute(query)}
    return found.get(0, 0), found.get(1, 0)

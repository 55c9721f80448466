"""Row 5: one function deployed and rolled back under load; nothing fails, nothing is mixed."""

from __future__ import annotations

import http.client
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from tests.drills.figures import Figure, at_least, at_most
from tests.drills.nodes import NodeProcess, create_project, tagged
from tests.drills.nodes import deploy as upload

CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer: when its request was sent, when it was read whole, whose it was."""

    sent_s: float
    read_s: float
    tag: str


@dataclass(frozen=True, slots=True)
class Deployed:
    """One deployment in order: the tag its code answers, when it was asked and acknowledged."""

    tag: str
    asked_s: float
    acked_s: float


@dataclass
class _Load:
    """Workers that ask without pause. Lists are appended to by one thread each."""

    port: int
    path: str
    stop: threading.Event = field(default_factory=threading.Event)
    seen: list[list[Seen]] = field(default_factory=list[list[Seen]])
    faults: list[str] = field(default_factory=list[str])

    def work(self, seen: list[Seen]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        while not self.stop.is_set():
            sent_s = monotonic()
            try:
                connection.request("GET", self.path)
                with connection.getresponse() as response:
                    body = response.read().decode()
                    status = response.status
            except (OSError, http.client.HTTPException) as error:
                self.faults.append(f"{type(error).__name__}: {error}")
                connection.close()
                continue
            first, _, last = body.partition("  ")
            if status != 200 or first != last:
                self.faults.append(f"status {status}: {body[:100]}")
            else:
                seen.append(Seen(sent_s, monotonic(), first))
        connection.close()


def stale(seen: list[Seen], deployed: list[Deployed]) -> list[Seen]:
    """Answers that no order of events can explain.

    An answer is explained by a deployment of its tag that was asked for before the answer was
    read, and whose successor had neither been acknowledged, nor answered anybody, before the
    request was sent. Rollbacks give one tag to several deployments: any of them may explain.
    """
    after: list[float] = []
    for n, successor in enumerate(deployed[1:], 1):
        # what only this deployment's tag can mean, as it was first deployed with it
        unique = all(d.tag != successor.tag for d in deployed[:n])
        answered = min(
            (s.read_s for s in seen if unique and s.tag == successor.tag),
            default=successor.acked_s,
        )
        after.append(min(successor.acked_s, answered))
    # a later deployment supersedes all before it
    for n in range(len(after) - 2, -1, -1):
        after[n] = min(after[n], after[n + 1])
    after.append(float("inf"))
    return [
        s
        for s in seen
        if not any(
            d.tag == s.tag and d.asked_s <= s.read_s and until >= s.sent_s
            for d, until in zip(deployed, after, strict=True)
        )
    ]


def run(folder: Path, *, deploys: int = 100, rollbacks: int = 20, seed: int = 1) -> list[Figure]:
    """Deploy and roll back under load, then judge every answer."""
    order = random.Random(seed)
    with NodeProcess(folder / "switch") as node:
        project, slug = create_project(node, "switch-drill")
        api = node.api(project)
        deployed: list[Deployed] = []
        tags: dict[int, str] = {}

        def note(tag: str, asked_s: float, version: int) -> None:
            deployed.append(Deployed(tag, asked_s, monotonic()))
            tags[version] = tag

        began = monotonic()
        note("d0", began, int(upload(api, "hot", tagged("d0"))["version"]))
        load = _Load(node.port, f"/fn/{slug}/hot")
        load.seen = [[] for _ in range(CONNECTIONS)]
        threads = [threading.Thread(target=load.work, args=(seen,)) for seen in load.seen]
        for thread in threads:
            thread.start()
        steps = ["deploy"] * (deploys - 1) + ["rollback"] * rollbacks
        order.shuffle(steps)
        try:
            for n, step in enumerate(steps, 1):
                asked_s = monotonic()
                if step == "deploy":
                    tag = f"d{n}"
                    row = upload(api, "hot", tagged(tag))
                else:
                    old = order.choice(list(tags))
                    tag = tags[old]
                    row = api.post(api.at("functions", "hot", "rollback"), {"version": old})["data"]
                note(tag, asked_s, int(row["version"]))
        finally:
            load.stop.set()
            for thread in threads:
                thread.join()
    seen = sorted((s for some in load.seen for s in some), key=lambda s: s.read_s)
    wrong = stale(seen, deployed)
    for fault in load.faults[:5]:
        print(f"  switch: {fault}")
    for s in wrong[:5]:
        print(f"  switch: {s.tag} at {s.sent_s - began:.3f} s is stale")
    return [
        Figure("5", "answers under load", f"{len(seen):,}"),
        at_least("5", "deployments", len(deployed), deploys + rollbacks),
        at_most("5", "failed or mixed answers", len(load.faults), 0),
        at_most("5", "answers of a superseded deployment", len(wrong), 0),
    ]

"""Row 6: `kill -9` at random instants; what was acknowledged is there, and serves."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from tests.drills.figures import Figure, at_most
from tests.drills.nodes import DrillError, NodeProcess, ask, create_project, tagged
from tests.drills.nodes import deploy as upload

from amba_run.api_client import ApiClient
from amba_runtime.errors import UserError

FUNCTIONS = ("one", "two", "three")


@dataclass
class _Known:
    """What the node has acknowledged; `asked` is what may or may not have happened besides.

    Changed by the worker of its function only, or by its own for the secret.
    """

    versions: dict[int, str] = field(default_factory=dict[int, str])
    """Version -> the tag that its code answers."""
    asked: list[str] = field(default_factory=list[str])
    """Tags asked for since the last acknowledged one."""


@dataclass
class _Secret:
    value: str = ""
    version: int = 0
    asked: list[str] = field(default_factory=list[str])


class _Drill:
    def __init__(self, node: NodeProcess, project: str, slug: str, order: random.Random) -> None:
        self.node = node
        self.project = project
        self.slug = slug
        self.order = order
        self.known = {name: _Known() for name in FUNCTIONS}
        self.secret = _Secret()
        self.count = 0
        self.acknowledged = 0
        self.lost: list[str] = []

    def work(self, name: str, stop: threading.Event, seed: int) -> None:
        """Deploy and roll back one function until the node is gone."""
        order = random.Random(seed)
        api = self.node.api(self.project)
        known = self.known[name]
        while not stop.is_set():
            try:
                if known.versions and order.random() < 0.3:
                    old = order.choice(list(known.versions))
                    tag = known.versions[old]
                    known.asked.append(tag)
                    path = api.at("functions", name, "rollback")
                    row: dict[str, Any] = api.post(path, {"version": old})["data"]
                else:
                    self.count += 1
                    tag = f"{name}-{self.count}-{seed}"
                    known.asked.append(tag)
                    row = upload(api, name, tagged(tag))
            except UserError:
                return  # it was killed
            known.versions[int(row["version"])] = tag
            known.asked.clear()
            self.acknowledged += 1

    def set_secrets(self, stop: threading.Event, seed: int) -> None:
        """Write one secret again and again."""
        api = self.node.api(self.project)
        n = 0
        while not stop.is_set():
            n += 1
            value = f"s{seed}.{n}"
            self.secret.asked.append(value)
            try:
                row = api.post(api.at("secrets"), {"name": "MARK", "value": value})["data"]
            except UserError:
                return
            self.secret.value, self.secret.version = value, int(row["version"])
            self.secret.asked.clear()
            self.acknowledged += 1

    def round(self, seed: int) -> None:
        """Write, kill in the middle of it, start again, look."""
        stop = threading.Event()
        threads = [
            threading.Thread(target=self.work, args=(name, stop, seed + n * 1000))
            for n, name in enumerate(FUNCTIONS)
        ]
        threads.append(threading.Thread(target=self.set_secrets, args=(stop, seed)))
        for thread in threads:
            thread.start()
        sleep(self.order.uniform(0.02, 0.5))
        self.node.kill()
        stop.set()
        for thread in threads:
            thread.join()
        self.node.start()
        self._look(self.node.api(self.project))

    def _look(self, api: ApiClient) -> None:
        for name in FUNCTIONS:
            known = self.known[name]
            rows: list[dict[str, Any]] = []
            while True:
                path = api.at("functions", "deployments")
                page: list[dict[str, Any]] = api.get(path, name=name, offset=len(rows), limit=200)[
                    "data"
                ]
                rows += page
                if len(page) < 200:
                    break
            have = {int(row["version"]): row for row in rows if row["name"] == name}
            gone = sorted(known.versions.keys() - have.keys())
            if gone:
                self.lost.append(f"{name}: versions {gone} are gone")
            active = [v for v, row in have.items() if row["status"] == "active"]
            if not known.versions:
                continue
            newest = max(known.versions)
            if len(active) != 1 or active[0] < newest:
                self.lost.append(f"{name}: {active} active, {newest} was acknowledged")
            answer = ask(self.node.port, f"/fn/{self.slug}/{name}")
            tag, _, rest = answer.body.partition(" ")
            mark, _, last = rest.rpartition(" ")
            if answer.status != 200 or last != tag:
                self.lost.append(f"{name}: {answer.status} {answer.body[:200]}")
            elif tag != known.versions[newest] and tag not in known.asked:
                self.lost.append(f"{name}: {tag} serves, {known.versions[newest]} was acknowledged")
            if mark != self.secret.value and mark not in self.secret.asked:
                self.lost.append(f"{name}: the secret is {mark!r}, not {self.secret.value!r}")
            # what was not acknowledged and is there all the same is good from here on
            known.versions[active[0]] = tag
            known.asked.clear()
        row = next((r for r in api.get(api.at("secrets"))["data"] if r["name"] == "MARK"), None)
        if self.secret.version and (row is None or row["version"] < self.secret.version):
            self.lost.append(f"the secret is at {row}, {self.secret.version} was acknowledged")


def run(folder: Path, *, rounds: int = 200, seed: int = 1) -> list[Figure]:
    """Kill and look, `rounds` times."""
    order = random.Random(seed)
    humans = 0
    starts_s: list[float] = []
    node = NodeProcess(folder / "crash")
    node.start()
    try:
        project, slug = create_project(node, "crash-drill")
        drill = _Drill(node, project, slug, order)
        began = monotonic()
        for n in range(rounds):
            try:
                drill.round(seed * 1_000_000 + n)
            except DrillError as error:
                humans += 1
                drill.lost.append(str(error))
                break
            starts_s.append(node.started_s)
        took_s = monotonic() - began
    finally:
        node.stop()
    for lost in drill.lost[:10]:
        print(f"  crash: {lost}")
    return [
        Figure("6", f"kill -9 in {took_s:,.0f} s, seed {seed}", f"{len(starts_s)}"),
        Figure("6", "writes acknowledged", f"{drill.acknowledged:,}"),
        Figure("6", "slowest start after one", f"{max(starts_s, default=0):.2f} s"),
        at_most("6", "acknowledged writes lost", len(drill.lost), 0),
        at_most("6", "starts that need a human", humans, 0),
    ]

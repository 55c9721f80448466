"""Issue 5, line 7: `kill -9` in the middle of rows, batches, currency, config and events.

What was acknowledged is there; batches are whole or not there at all; a balance is the sum of its
transactions and never below nothing.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

from tests.drills.figures import Figure, at_most
from tests.drills.nodes import NodeProcess, create_project

from amba_run.api_client import ApiClient
from amba_runtime.errors import UserError

BATCH = 20
PAGE = 500
GRANT, SPEND = 10, 3
LETTERS = {
    "name": "letters",
    "columns": [{"name": "mark", "type": "text"}, {"name": "batch", "type": "text"}],
    "indexes": [{"columns": ["batch"]}],
}


class _Load:
    """Writers of one project, each changing its own part; `lost` says what was not found again."""

    def __init__(self, node: NodeProcess, project: str, user: str, seed: int) -> None:
        self.node = node
        self.project = project
        self.user = user
        self.order = random.Random(seed)
        self.lost: list[str] = []
        self.acknowledged = 0
        self.rows: set[str] = set()
        self.batches: set[str] = set()
        self.events: set[str] = set()
        self.config: dict[str, int] = {}
        self.asked_config: dict[str, int] = {}
        self.transactions: set[str] = set()
        self._count = 0
        self._lock = threading.Lock()

    def _next(self) -> str:
        with self._lock:
            self._count += 1
            return f"n{self._count}"

    def write(self, kind: Callable[[ApiClient], None], stop: threading.Event) -> None:
        """Again and again, until the node is gone."""
        api = self.node.api(self.project)
        while not stop.is_set():
            try:
                kind(api)
            except UserError:
                return  # it was killed
            with self._lock:
                self.acknowledged += 1

    def insert(self, api: ApiClient) -> None:
        mark = self._next()
        api.post(api.at("collections", "letters", "rows"), {"mark": mark, "batch": ""})
        self.rows.add(mark)

    def insert_batch(self, api: ApiClient) -> None:
        mark = self._next()
        rows = [{"mark": f"{mark}-{n}", "batch": mark} for n in range(BATCH)]
        api.post(api.at("collections", "letters", "rows:batch"), {"rows": rows})
        self.batches.add(mark)

    def money(self, api: ApiClient) -> None:
        spend = self.order.random() < 0.7
        body = {
            "app_user_id": self.user,
            "currency_code": "gems",
            "amount": SPEND if spend else GRANT,
        }
        try:
            told: Any = api.post(api.at("currencies", "spend" if spend else "grant"), body)["data"]
        except UserError as error:
            if "INSUFFICIENT_BALANCE" not in f"{error} {error.details}":
                raise
            return
        self.transactions.add(str(told["id"]))

    def set_config(self, api: ApiClient) -> None:
        key = f"key-{self.order.randrange(5)}"
        value = int(self._next()[1:])
        self.asked_config[key] = value
        api.post(api.at("config"), {"key": key, "value": value, "value_type": "number"})
        self.config[key] = value

    def track(self, api: ApiClient) -> None:
        mark = self._next()
        body = {"event": "seen", "user_id": self.user, "event_id": mark, "properties": {"n": mark}}
        api.post(api.at("events"), body)
        self.events.add(mark)

    def round(self) -> None:
        """Write, kill in the middle of it, start again, look."""
        stop = threading.Event()
        kinds = (self.insert, self.insert, self.insert_batch, self.money, self.money,
                 self.set_config, self.track)  # fmt: skip
        threads = [threading.Thread(target=self.write, args=(kind, stop)) for kind in kinds]
        for thread in threads:
            thread.start()
        sleep(self.order.uniform(0.02, 0.4))
        self.node.kill()
        stop.set()
        for thread in threads:
            thread.join()
        self.node.start()
        self.look(self.node.api(self.project))

    def look(self, api: ApiClient) -> None:
        """Everything acknowledged is there, and nothing by halves."""
        rows = _all(api, api.at("collections", "letters", "rows"))
        marks = {str(row["mark"]) for row in rows}
        self._gone("rows", self.rows - marks)
        found: dict[str, int] = {}
        for row in rows:
            found[str(row["batch"])] = found.get(str(row["batch"]), 0) + 1
        self._gone("batches", self.batches - found.keys())
        self._gone("parts of batches", {b for b, n in found.items() if b and n != BATCH})
        events = _all(api, api.at("events"), since="2020-01-01T00:00:00Z")
        self._gone("events", self.events - {str(e["properties"]["n"]) for e in events})
        self._look_at_money(api)
        self._look_at_config(api)

    def _look_at_money(self, api: ApiClient) -> None:
        path = api.at("currencies", "transactions", self.user)
        transactions = list(reversed(_all_by_offset(api, path)))
        self._gone("transactions", self.transactions - {str(t["id"]) for t in transactions})
        balance = 0
        for one in transactions:
            change = int(one["amount"])
            spent = one["transaction_type"] == "spend"
            balance += -abs(change) if spent else change
            if balance < 0 or balance != one["balance_after"]:
                self.lost.append(f"balance {balance} after {one}")
                return

    def _look_at_config(self, api: ApiClient) -> None:
        have = {row["key"]: row["value"] for row in api.get(api.at("config"))["data"]}
        for key, value in self.config.items():
            if have.get(key) not in (value, self.asked_config[key]):
                self.lost.append(f"{key} is {have.get(key)}, {value} was acknowledged")

    def _gone(self, what: str, names: set[str]) -> None:
        if names:
            self.lost.append(f"{what}: {len(names)} gone, such as {sorted(names)[:3]}")


def _all(api: ApiClient, path: str, **query: Any) -> list[dict[str, Any]]:
    """Every row of a list that has cursors."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        more = {"cursor": cursor} if cursor else {}
        page: dict[str, Any] = api.get(path, limit=PAGE, **query, **more)
        rows += page["data"]
        cursor = page.get("next_cursor")
        if not cursor:
            return rows


def _all_by_offset(api: ApiClient, path: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while True:
        page: dict[str, Any] = api.get(path, limit=PAGE, offset=len(rows))
        rows += page["data"]
        if not page["data"] or len(rows) >= page["total"]:
            return rows


def run(folder: Path, *, rounds: int = 100, seed: int = 1) -> list[Figure]:
    """Kill so many times."""
    with NodeProcess(folder / "state") as node:
        project, _ = create_project(node, "Shop")
        api = node.api(project)
        api.post(api.at("collections"), LETTERS)
        api.post(api.at("currencies"), {"code": "gems", "name": "Gems"})
        key: Any = api.post(
            api.at("api-keys"), {"key_type": "client", "environment": "development"}
        )
        load = _Load(node, project, _user(node, key["data"]["key"]), seed)
        for _ in range(rounds):
            load.round()
            if load.lost:
                break
    for line in load.lost[:10]:
        print(f"  writes: {line}")
    return [
        Figure("7", f"{rounds} kills", f"{load.acknowledged:,} writes acknowledged"),
        at_most("7", "acknowledged and lost, or invariants broken", len(load.lost), 0),
    ]


def _user(node: NodeProcess, client_key: str) -> str:
    import http.client
    import json

    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=10)
    try:
        headers = {"x-api-key": client_key, "content-type": "application/json"}
        connection.request("POST", "/v1/client/auth/anonymous", b"{}", headers)
        return str(json.loads(connection.getresponse().read())["data"]["user"]["id"])
    finally:
        connection.close()

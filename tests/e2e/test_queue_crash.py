"""Messages over `kill -9` of a real node: none lost, and what had ended is not delivered again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.contract.hosted import Shop, guest, make_shop
from tests.drills.nodes import NodeProcess, whole_life
from tests.waiting import until

pytestmark = pytest.mark.slow

NAME = "queue-ledger"
MESSAGES = 120
KILLS = 3
BATCH, CONSUMERS = 5, 4


def depth(shop: Shop) -> int:
    """Messages that are still there."""
    total: int = shop.api("GET", "queue/orders/jobs?limit=1").body["total"]
    return total


def falls_to(shop: Shop, most: int) -> None:
    """Wait until no more are left than that."""
    until(lambda: depth(shop) <= most, within_s=30)


def again(node: NodeProcess) -> None:
    """`kill -9`, and a new start of the same state directory."""
    node.kill()
    node.start()


@pytest.mark.timeout(120)
def test_nothing_is_lost_by_kill_9(tmp_path: Path) -> None:
    """Every message is delivered; twice only what was under way at a kill (issue 6, J1, J3)."""
    with whole_life(tmp_path / "state") as node:
        shop = make_shop(node, "Crash")
        assert shop.upload(NAME, guest(NAME)).status == 201
        body = {"queue_name": "orders", "function_name": NAME, "status": "paused"}
        settings = {"batch_size": BATCH, "consumers": CONSUMERS}
        assert shop.api("PUT", "queue/bindings", {**body, **settings}).status == 200
        for n in range(MESSAGES):
            sent = shop.api("POST", "queue/send", {"name": "orders", "payload": {"n": n}})
            assert sent.status == 200
        again(node)
        assert depth(shop) == MESSAGES
        assert shop.api("PUT", "queue/bindings", {**body, **settings, "status": "active"}).data
        for kill in range(1, KILLS + 1):
            most = MESSAGES * (KILLS + 1 - kill) // (KILLS + 1)
            falls_to(shop, most)
            again(node)
        falls_to(shop, 0)
        keys = [str(key).split("/") for key in shop.call(NAME).body]
    seen = Counter(n for _, n, _ in keys)
    assert set(seen) == {str(n) for n in range(MESSAGES)}
    assert sum(seen.values()) - MESSAGES <= KILLS * BATCH * CONSUMERS

"""Fan-out on a real node: the users of a segment reach a function's queue handler (E.13, E.0)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.contract.hosted import Shop, ask, guest
from tests.waiting import until

pytestmark = pytest.mark.slow

NAME = "queue-acks"


def sign_in(shop: Shop) -> str:
    """A new user's id."""
    key = shop.api("POST", "api-keys", {"key_type": "client"}).data["key"]
    headers = {"X-Api-Key": key, "Content-Type": "application/json"}
    told = ask(shop.node, "POST", "/v1/client/auth/anonymous", b"{}", headers)
    return str(told.data["user"]["id"])


def deliveries(shop: Shop) -> list[Any]:
    """What the handler saw, oldest first."""
    events = shop.api("GET", f"functions/{NAME}/logs").data["events"]
    lines = [line["Message"][0] for event in reversed(events) for line in event["Logs"]]
    return [json.loads(line) for line in lines]


def test_a_segments_users_are_delivered(shop: Shop) -> None:
    """Once, with the payload as it was sent; counts are doubled at the top (H-8)."""
    assert shop.upload(NAME, guest(NAME)).status == 201
    users = [sign_in(shop) for _ in range(3)]
    body = {"segment_id": "all", "invoke": {"function": NAME, "payload": {"z": [1.5, None]}}}
    told = shop.api("POST", "fan-out/segment", body)
    assert told.data == {"batch_count": 1, "estimated_user_count": 3}
    assert told.body["batch_count"] == 1
    [seen] = until(lambda: deliveries(shop))
    assert seen["queue"] == f"fan-out:{NAME}"
    assert seen["body"] == {"segment_id": "all", "user_ids": users, "payload": {"z": [1.5, None]}}
    until(lambda: shop.api("GET", f"queue/fan-out:{NAME}/jobs").body["total"] == 0)


def test_what_is_refused(shop: Shop) -> None:
    """Functions that are not there or cannot take it, before anything is kept."""
    assert shop.upload("page", guest("env-dump")).status == 201
    for name, said in (
        ("page", (400, "HANDLER_MISSING")),
        ("no", (404, "segment_or_function_not_found")),
    ):
        body = {"segment_id": "all", "invoke": {"function": name}}
        assert shop.api("POST", "fan-out/segment", body).said == said

"""Contract J, check 8, of queues: verbatim payloads, pauses, keys, and bindings made anew (D.7)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.contract.hosted import Shop, guest
from tests.waiting import until

pytestmark = pytest.mark.slow

NAME = "queue-acks"


def bind(shop: Shop, queue: str = "mail", **more: object) -> Any:
    """As the platform's own command line does."""
    body = {"queue_name": queue, "function_name": NAME, **more}
    return shop.api("PUT", "queue/bindings", body).data


def send(shop: Shop, payload: object, queue: str = "mail", **more: object) -> str:
    """The job's id, as the functions SDK reads it: at the top level (H-8)."""
    told = shop.api("POST", "queue/send", {"name": queue, "payload": payload, **more})
    assert told.data == {"job_id": told.body["job_id"]}
    return str(told.body["job_id"])


def deliveries(shop: Shop) -> list[dict[str, Any]]:
    """What the handler saw, oldest first."""
    events = shop.api("GET", f"functions/{NAME}/logs").data["events"]
    lines = [line["Message"][0] for event in reversed(events) for line in event["Logs"]]
    return [json.loads(line) for line in lines]


def jobs(shop: Shop, state: str, queue: str = "mail") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = shop.api("GET", f"queue/{queue}/jobs?state={state}").data
    return found


def deployed(shop: Shop) -> None:
    assert shop.upload(NAME, guest(NAME)).status == 201


def test_contract_J_08_a_payload_is_delivered_verbatim(shop: Shop) -> None:
    """Queue, id, attempts and body, once; nothing is left of it."""
    deployed(shop)
    bind(shop)
    payload = {"z": 1, "a": [1.5, None, "\u2615\u0000\u2028"], "": {"deep": True}}
    job_id = send(shop, payload)
    [seen] = until(lambda: deliveries(shop))
    assert (seen["queue"], seen["id"], seen["attempts"]) == ("mail", job_id, 1)
    assert seen["body"] == payload
    until(lambda: shop.api("GET", "queue/mail/jobs").body["total"] == 0)


def test_contract_J_08_retries_and_acks(shop: Shop) -> None:
    """What throws comes again after its back-off; an ack before the throw holds."""
    deployed(shop)
    bind(shop, status="paused", batch_size=10)
    first = send(shop, {"do": "ack"})
    second = send(shop, {"do": "throw"})
    until(lambda: len(jobs(shop, "dead")) == 2)
    bind(shop, batch_size=10, retries=0)
    until(lambda: len(deliveries(shop)) == 2)
    [dead] = until(lambda: jobs(shop, "dead"))
    assert (dead["id"], dead["reason"], dead["attempts"]) == (second, "retries", 1)
    assert dead["error"] == f"thrown for message {second}"
    assert first not in {job["id"] for job in shop.api("GET", "queue/mail/jobs").data}
    bind(shop, retries=1, backoff_ms=1)
    assert shop.api("POST", "queue/mail/redeliver", {}).data["redelivered"] == 1
    [dead] = until(lambda: [job for job in jobs(shop, "dead") if job["attempts"] == 2])
    assert dead["failures"] == 2


def test_contract_J_08_paused_is_dead_letters_until_it_is_bound_anew(shop: Shop) -> None:
    """Paused: to the dead letters; re-binding resets to active, and they come back."""
    deployed(shop)
    assert bind(shop, status="paused")["status"] == "paused"
    job_id = send(shop, "while paused")
    [dead] = until(lambda: jobs(shop, "dead"))
    assert (dead["id"], dead["reason"], dead["attempts"]) == (job_id, "paused", 0)
    assert deliveries(shop) == []
    assert bind(shop)["status"] == "active"
    [seen] = until(lambda: deliveries(shop))
    assert (seen["id"], seen["body"]) == (job_id, "while paused")
    assert jobs(shop, "dead") == []


def test_contract_J_08_an_idempotency_key_is_one_job(shop: Shop) -> None:
    """The same id for 24 h, one delivery."""
    deployed(shop)
    bind(shop)
    ids = {send(shop, n, idempotency_key="once") for n in range(3)}
    last = send(shop, "last")
    until(lambda: [seen for seen in deliveries(shop) if seen["id"] == last])
    assert sorted(seen["id"] for seen in deliveries(shop)) == sorted([*ids, last])
    assert len(ids) == 1


def test_contract_J_08_what_is_refused(shop: Shop) -> None:
    """Unbound queues, functions without the handler; `confirm` repeats the name."""
    deployed(shop)
    assert shop.upload("page", guest("env-dump")).status == 201
    assert shop.api("POST", "queue/send", {"name": "mail"}).said == (404, "QUEUE_NOT_BOUND")
    for name, said in (("page", (400, "HANDLER_MISSING")), ("no", (404, "FUNCTION_NOT_FOUND"))):
        body = {"queue_name": "mail", "function_name": name}
        assert shop.api("PUT", "queue/bindings", body).said == said
    bind(shop)
    assert shop.api("DELETE", "queue/bindings/mail").said == (400, "CONFIRM_REQUIRED")
    gone = shop.api("DELETE", "queue/bindings/mail?confirm=mail")
    assert gone.data == {"queue_name": "mail", "deleted": True}
    assert shop.api("GET", "queue/bindings").data == []


def test_contract_J_08_a_delivery_on_demand(shop: Shop) -> None:
    """Ours: one batch now, with verdicts and console lines, stored nowhere."""
    deployed(shop)
    bind(shop)
    batch = [{"do": "ack"}, {"do": "retry", "delay": 9}, {"do": "throw"}]
    told = shop.api("POST", "queue/mail/deliver", {"payloads": batch}).data
    assert told["outcome"] == "exception"
    assert [(m["verdict"], m.get("delay_seconds")) for m in told["messages"]] == [
        ("acked", None),
        ("retried", 9),
        ("retried", None),
    ]
    assert told["error"] == f"thrown for message {told['messages'][2]['id']}"
    assert len(told["logs"]) == 3
    assert shop.api("GET", "queue/mail/jobs").body["total"] == 0


def test_contract_J_08_ten_of_the_largest_payloads_are_a_batch(shop: Shop) -> None:
    """10 x 128 KiB reach the handler whole (H-14)."""
    deployed(shop)
    bind(shop, batch_size=10, batch_wait_ms=5_000)
    largest = {"do": "ack", "x": "x" * (128 * 1024 - len('{"do": "ack", "x": ""}'))}
    for _ in range(10):
        send(shop, largest)
    until(lambda: shop.api("GET", "queue/mail/jobs").body["total"] == 0)
    [event] = shop.api("GET", f"functions/{NAME}/logs").data["events"]
    assert event["Outcome"] == "ok"
    more = {**largest, "x": largest["x"] + "x"}
    told = shop.api("POST", "queue/send", {"name": "mail", "payload": more})
    assert told.said == (413, "PAYLOAD_TOO_LARGE")

"""`amba-run queues`: what is asked and what a person reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.run.cli.asking import Ask, asked, asking
from tests.run.cli.conftest import Command
from tests.run.stub import Stub

from amba_run.cli.queues import SETTINGS
from amba_run.config_values import QueueBinding
from amba_run.dev_state import Running, announce

BOUND = {
    "id": "b-1",
    "queue_name": "orders",
    "function_name": "ship",
    "status": "active",
    "batch_size": 10,
    "batch_wait_ms": 0,
    "consumers": 4,
    "retries": 5,
    "backoff_ms": 1000,
    "created_at": "2026-11-23T08:00:00.000Z",
    "updated_at": "2026-11-23T08:00:00.000Z",
}
DEPTH = {
    "queue_name": "orders",
    "function_name": "ship",
    "status": "active",
    "waiting": 3,
    "delayed": 0,
    "leased": 1,
    "dead": 12,
    "oldest_waiting_at": "2026-01-01T00:00:00.000Z",
}
JOB = {
    "id": "j-1",
    "state": "dead",
    "payload": {"note": "x" * 300},
    "attempts": 4,
    "failures": 4,
    "created_at": "2026-11-23T08:00:00.000Z",
    "due_at": "2026-11-23T08:00:00.000Z",
    "reason": "retries",
    "error": "no\x1bmail",
    "dead_at": "2026-11-23T09:00:00.000Z",
}


@pytest.fixture
def ask(command: Command, stub: Stub) -> Ask:
    return asking(command, stub)


def test_bind(ask: Ask, stub: Stub) -> None:
    """The body of contract D.7; settings that were not said are left out."""
    for _ in range(2):
        stub.answer({"data": BOUND})
    assert ask("queues", "bind", "orders", "ship").out == "ship consumes orders\n"
    body: dict[str, Any] = {"queue_name": "orders", "function_name": "ship", "status": "active"}
    assert asked(stub) == ("PUT", "queue/bindings", body)
    options = ["--batch-size", "10", "--batch-wait-ms", "0", "--consumers", "1"]
    options += ["--retries", "0", "--backoff-ms", "3600000", "--json"]
    assert json.loads(ask("queues", "bind", "orders", "ship", *options).out) == BOUND
    assert asked(stub, 1)[2] == {
        **body,
        "batch_size": 10,
        "batch_wait_ms": 0,
        "consumers": 1,
        "retries": 0,
        "backoff_ms": 3_600_000,
    }


@pytest.mark.parametrize(
    ("option", "most"),
    [
        *[("--batch-size", 10), ("--batch-wait-ms", 60_000), ("--consumers", 10)],
        *[("--retries", 100), ("--backoff-ms", 3_600_000)],
    ],
)
def test_settings_have_bounds(ask: Ask, stub: Stub, option: str, most: int) -> None:
    """The largest is taken; one more, one too few and no number are wrong usage."""
    stub.answer({"data": BOUND})
    assert ask("queues", "bind", "orders", "ship", option, str(most)).code == 0
    for outside in (str(most + 1), "-1", "many"):
        assert ask("queues", "bind", "orders", "ship", option, outside).code == 2
    assert len(stub.asked) == 1


def test_settings_are_those_of_the_file() -> None:
    """What a command can set can stand in amba.toml."""
    fields = set(QueueBinding.__dataclass_fields__)
    assert fields == {"queue", "function", "paused", *SETTINGS}


@pytest.mark.parametrize(("verb", "status"), [("pause", "paused"), ("resume", "active")])
def test_pause_and_resume_keep_settings(ask: Ask, stub: Stub, verb: str, status: str) -> None:
    """A binding is put anew with its own settings: PUT overwrites (contract D.7)."""
    stub.answer({"data": [{**BOUND, "queue_name": "other"}, BOUND]})
    stub.answer({"data": {**BOUND, "status": status}})
    assert ask("queues", verb, "orders").out == f"orders is {status}\n"
    assert asked(stub, 0)[:2] == ("GET", "queue/bindings")
    kept = {name: BOUND[name] for name in SETTINGS}
    body = {"queue_name": "orders", "function_name": "ship", "status": status, **kept}
    assert asked(stub, 1) == ("PUT", "queue/bindings", body)


def test_pause_of_what_is_not_bound(ask: Ask, stub: Stub) -> None:
    """Told, and nothing is changed."""
    stub.answer({"data": []})
    done = ask("queues", "pause", "orders")
    assert (done.code, len(stub.asked)) == (1, 1)
    assert "QUEUE_NOT_BOUND" in done.err


def test_unbind(ask: Ask, stub: Stub) -> None:
    """Asks, or takes --yes; the platform wants its `confirm` (contract D.7)."""
    done = ask("queues", "unbind", "orders", stdin=b"n\n")
    assert (done.code, stub.asked) == (130, [])
    stub.answer({"data": {"queue_name": "orders", "deleted": True}})
    assert ask("queues", "unbind", "orders", "--yes").out == "unbound orders\n"
    assert asked(stub) == ("DELETE", "queue/bindings/orders?confirm=orders", None)


def test_list(ask: Ask, stub: Stub) -> None:
    """Depth by state and the age of the oldest, in columns."""
    empty = {**DEPTH, "queue_name": "a", "waiting": 0, "dead": 0, "oldest_waiting_at": None}
    stub.answer({"data": [DEPTH, empty]})
    first, second = ask("queues", "list").out.splitlines()
    assert first.startswith("orders  ship  active  waiting 3  delayed 0  leased 1  dead 12  oldest")
    assert first.endswith(" d")
    assert second == "a       ship  active  waiting 0  delayed 0  leased 1  dead 0"
    stub.answer({"data": [DEPTH]})
    assert json.loads(ask("queues", "list", "--json").out) == [DEPTH]
    stub.answer({"data": []})
    done = ask("queues", "list")
    assert (done.code, done.out) == (0, "")
    assert "amba-run queues bind" in done.err


def test_send(ask: Ask, stub: Stub) -> None:
    """The payload verbatim, delay and key where they were said (contract D.7)."""
    for _ in range(2):
        stub.answer({"job_id": "j-1", "data": {"job_id": "j-1"}})
    assert ask("queues", "send", "orders", "--data", '{"n": 1.0}').out == "sent j-1\n"
    assert stub.asked[0][3] == b'{"name": "orders", "payload": {"n": 1.0}}'
    options = ("--delay", "60", "--key", "o-7", "--json")
    done = ask("queues", "send", "orders", "--data", "text", *options)
    assert json.loads(done.out) == {"job_id": "j-1"}
    body = {"name": "orders", "delay_seconds": 60, "idempotency_key": "o-7", "payload": "text"}
    assert asked(stub, 1) == ("POST", "queue/send", body)


def test_delays_are_judged_by_the_server(ask: Ask, stub: Stub) -> None:
    """INVALID_DELAY is its word; what is no number is wrong usage (H-14)."""
    stub.answer({"error": {"code": "INVALID_DELAY", "message": "0 to 43,200"}}, 400)
    done = ask("queues", "send", "orders", "--data", "1", "--delay", "-1")
    assert (done.code, asked(stub)[2]["delay_seconds"]) == (1, -1)
    assert "INVALID_DELAY" in done.err
    assert ask("queues", "send", "orders", "--data", "1", "--delay", "soon").code == 2


def test_peek(ask: Ask, stub: Stub) -> None:
    """Why it is dead, and what it carries, cut to a line that cannot steer a terminal."""
    stub.answer({"data": [JOB], "total": 3, "offset": 0, "limit": 20})
    done = ask("queues", "peek", "orders", "--state", "dead")
    assert done.out.splitlines() == [
        "j-1  dead  retries  4 attempts, 4 failures  dead since 2026-11-23T09:00:00.000Z",
        "  error: no\\x1bmail",
        f'  {{"note": "{"x" * 190}…',
    ]
    assert done.err == "2 more are dead\n"
    assert asked(stub)[:2] == ("GET", "queue/orders/jobs?state=dead&limit=20")
    stub.answer({"data": [JOB], "total": 1, "offset": 0, "limit": 1})
    done = ask("queues", "peek", "orders", "--state", "dead", "--limit", "1", "--json")
    assert json.loads(done.out) == [JOB]
    stub.answer({"data": [], "total": 0, "offset": 0, "limit": 20})
    assert ask("queues", "peek", "orders").err == "no message of orders is waiting\n"
    assert asked(stub, 2)[1] == "queue/orders/jobs?state=waiting&limit=20"


def test_redeliver(ask: Ask, stub: Stub) -> None:
    """All dead letters, or the named ones."""
    for _ in range(2):
        stub.answer({"data": {"queue_name": "orders", "redelivered": 2}})
    assert ask("queues", "redeliver", "orders").out == "2 of orders are delivered again\n"
    assert asked(stub) == ("POST", "queue/orders/redeliver", {})
    assert json.loads(ask("queues", "redeliver", "orders", "a", "b", "--json").out) == {
        "queue_name": "orders",
        "redelivered": 2,
    }
    assert asked(stub, 1)[2] == {"job_ids": ["a", "b"]}


def test_purge(ask: Ask, stub: Stub) -> None:
    """Only with the state and the queue's name once more."""
    for args in (("--state", "dead"), ("--confirm", "orders"), ("--state", "x")):
        assert ask("queues", "purge", "orders", *args).code == 2
    done = ask("queues", "purge", "orders", "--state", "all", "--confirm", "order")
    assert (done.code, stub.asked) == (2, [])
    assert "nothing was removed" in done.err
    stub.answer({"data": {"queue_name": "orders", "purged": 7}})
    done = ask("queues", "purge", "orders", "--state", "all", "--confirm", "orders")
    assert done.out == "removed 7 of orders\n"
    assert asked(stub) == ("POST", "queue/orders/purge", {"state": "all"})


def test_fail_next(ask: Ask, stub: Stub) -> None:
    """A drill for users: so many deliveries fail before they reach the handler (issue 6)."""
    stub.answer({"data": {"queue_name": "orders", "count": 3}})
    done = ask("queues", "fail-next", "orders", "3")
    assert done.out == "the next 3 deliveries of orders fail\n"
    assert asked(stub) == ("POST", "queue/orders/fail-next", {"count": 3})
    for count in ("1001", "x"):
        assert ask("queues", "fail-next", "orders", count).code == 2


def test_a_dev_server_by_its_state(
    command: Command, stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--state (of peek and purge --state-dir) names it, before the environment (interface.md 2)."""
    of = ("pat-1", "p-1", "local", "fn.localhost")
    announce(tmp_path, Running(tmp_path, stub.origin, *of, tmp_path, os.getpid(), "anonymous"))
    for name in ("AMBA_API_URL", "AMBA_PAT", "AMBA_PROJECT_ID"):
        monkeypatch.setenv(name, "http://other:1")
    for args in (("list", "--state"), ("peek", "orders", "--state-dir")):
        stub.answer({"data": []})
        assert command("queues", *args, str(tmp_path)).code == 0
    assert [fields["authorization"] for _, _, fields, _ in stub.asked] == ["Bearer pat-1"] * 2
    done = command("queues", "list", "--state", str(tmp_path / "other"))
    assert done.code == 1
    assert f"no dev server runs from {tmp_path}/other" in done.err

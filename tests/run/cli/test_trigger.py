"""`amba-run trigger`: what is asked, what a person reads, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.run.cli.asking import Ask, asked, asking
from tests.run.cli.conftest import Command
from tests.run.stub import Stub

FIRED = {
    "request_id": "r-1",
    "outcome": "ok",
    "error": "",
    "ms": 12.345,
    "no_retry": False,
    "logs": [{"level": "log", "message": ["sent", {"n": 1}], "timestamp_ms": 5}],
}


@pytest.fixture
def ask(command: Command, stub: Stub) -> Ask:
    return asking(command, stub)


def test_a_schedule_is_fired(ask: Ask, stub: Stub) -> None:
    """POST with nothing said; outcome, time and console lines as a log has them (issue 6)."""
    stub.answer({"data": FIRED})
    done = ask("trigger", "scheduled", "digest")
    assert (done.code, done.err) == (0, "")
    assert done.out == 'ok  scheduled digest  12.3 ms  r-1\n  log: sent {"n": 1}\n'
    assert asked(stub) == ("POST", "functions/digest/scheduled", {})


def test_cron_and_time_are_said(ask: Ask, stub: Stub) -> None:
    """--cron as it is; --at as Unix ms, from ISO 8601 with a zone, without, or from a number."""
    for at, ms in (
        ("2026-03-29T02:30:00+01:00", 1_774_747_800_000),
        ("2026-03-29T01:30:00", 1_774_747_800_000),
        ("2026-03-29", 1_774_742_400_000),
        ("1774747800000", 1_774_747_800_000),
    ):
        stub.answer({"data": FIRED})
        done = ask("trigger", "scheduled", "digest", "--cron", "0 6 * * *", "--at", at)
        assert done.code == 0
        assert asked(stub, -1)[2] == {"cron": "0 6 * * *", "scheduled_time": ms}


@pytest.mark.parametrize("at", ["", "soon", "2026-02-30T00:00:00Z", "1774747800", "9" * 30])
def test_what_is_no_time(ask: Ask, stub: Stub, at: str) -> None:
    """INVALID_TIME before anything is asked; seconds are not taken for milliseconds."""
    done = ask("trigger", "scheduled", "digest", "--at", at)
    assert (done.code, done.out) == (1, "")
    assert "INVALID_TIME" in done.err
    assert "milliseconds" in done.err
    assert stub.asked == []


def test_a_handler_that_failed_is_1(ask: Ask, stub: Stub) -> None:
    """Outcome and error first; noRetry() is told (contract B)."""
    failed = {**FIRED, "outcome": "exception", "error": "no\x1bmail", "no_retry": True}
    stub.answer({"data": failed})
    done = ask("trigger", "scheduled", "digest")
    assert done.code == 1
    assert done.out.splitlines()[:3] == [
        "exception  scheduled digest  12.3 ms  r-1",
        "  no\\x1bmail",
        "  noRetry() was called",
    ]
    stub.answer({"data": failed})
    done = ask("trigger", "scheduled", "digest", "--json")
    assert (done.code, json.loads(done.out)) == (1, failed)


def test_a_batch_is_delivered(ask: Ask, stub: Stub, tmp_path: Path) -> None:
    """Each --data is a message, JSON verbatim, other text as a JSON string, which is said."""
    (tmp_path / "order.json").write_bytes(b'\xef\xbb\xbf{"id": 12345678901234567890.10, "id": 2}\n')
    messages = [
        {"id": "1", "verdict": "acked"},
        {"id": "2", "verdict": "retried", "delay_seconds": 4},
        {"id": "3", "verdict": "retried"},
    ]
    stub.answer({"data": {**FIRED, "messages": messages}})
    data = ("--data", "@order.json", "--data", "hello", "--data", "@-")
    done = ask("trigger", "queue", "orders", *data, stdin=b"two\nlines\n")
    assert done.code == 0
    assert done.out.splitlines()[:4] == [
        "ok  queue orders  12.3 ms  r-1",
        "  message 1: acked",
        "  message 2: retried, again in 4 s",
        "  message 3: retried",
    ]
    assert done.err.splitlines() == [
        "note: --data hello is no JSON: sent as a JSON string",
        "note: --data @- is no JSON: sent as a JSON string",
    ]
    method, path, _ = asked(stub)
    assert (method, path) == ("POST", "queue/orders/deliver")
    assert stub.asked[0][3] == (
        b'{"payloads": [{"id": 12345678901234567890.10, "id": 2}\n, "hello", "two\\nlines"]}'
    )


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("null", "null"),
        (" 1.0", " 1.0"),
        ("9" * 5000, "9" * 5000),
        ('"\\ud800"', '"\\ud800"'),
        ("NaN", '"NaN"'),
        ("[1,]", '"[1,]"'),
        ("", '""'),
        ("é\n", '"\\u00e9\\n"'),
    ],
)
def test_what_is_json_and_what_is_text(ask: Ask, stub: Stub, text: str, sent: str) -> None:
    """What a JSON parser takes goes as it is, whatever Python's own makes of it (contract D.7)."""
    stub.answer({"data": FIRED})
    done = ask("trigger", "queue", "orders", "--data", text)
    assert ("no JSON" in done.err) == (text != sent)
    assert stub.asked[0][3].decode() == f'{{"payloads": [{sent}]}}'


@pytest.mark.parametrize(
    ("data", "stdin", "says"),
    [
        ([], b"", "--data"),
        (["@-", "@-"], b"", "one --data @-"),
        (["@-"], b"\xff", "not UTF-8"),
        (["@-"], b"[" * 100_000, "nested too deeply"),
        (["1"] * 11, b"", "a batch has 10 at most"),
    ],
)
def test_data_that_cannot_be_sent(
    ask: Ask, stub: Stub, data: list[str], stdin: bytes, says: str
) -> None:
    """Wrong usage, and nothing is asked."""
    args = [word for one in data for word in ("--data", one)]
    done = ask("trigger", "queue", "orders", *args, stdin=stdin)
    assert (done.code, done.out, stub.asked) == (2, "", [])
    assert says in done.err


def test_data_that_is_too_long(
    ask: Ask, stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No more than limits.TRIGGER_DATA_BYTES is read; just as many are sent."""
    from amba_runtime import limits

    monkeypatch.setattr(limits, "TRIGGER_DATA_BYTES", limits.Limit(4, "bytes", "a test", "ours"))
    (tmp_path / "d").write_text("12345")
    for data, stdin in (("12345", b""), ("@d", b""), ("@-", b"12345")):
        done = ask("trigger", "queue", "orders", "--data", data, stdin=stdin)
        assert (done.code, stub.asked) == (2, [])
        assert "more than 4 bytes" in done.err
    stub.answer({"data": FIRED})
    assert ask("trigger", "queue", "orders", "--data", "1234").code == 0


@pytest.mark.parametrize("name", ["@missing.json", "@.", "@a\0b"])
def test_a_file_that_cannot_be_read(ask: Ask, stub: Stub, name: str) -> None:
    """ENTRY_NOT_FOUND, with what to do for text that begins with @."""
    done = ask("trigger", "queue", "orders", "--data", name)
    assert (done.code, stub.asked) == (1, [])
    assert "ENTRY_NOT_FOUND" in done.err
    assert "--data @-" in done.err


def test_a_refusal_is_told(ask: Ask, stub: Stub) -> None:
    """The platform's code, its message and what to do."""
    stub.answer({"error": {"code": "QUEUE_NOT_BOUND", "message": "nobody consumes x"}}, 404)
    done = ask("trigger", "queue", "x", "--data", "1")
    assert (done.code, done.out) == (1, "")
    assert "QUEUE_NOT_BOUND: nobody consumes x" in done.err
    assert "amba-run queues bind" in done.err

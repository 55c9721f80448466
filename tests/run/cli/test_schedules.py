"""`amba-run schedules`: what is asked and what a person reads."""

from __future__ import annotations

import json

import pytest
from tests.run.cli.asking import Ask, asked, asking
from tests.run.cli.conftest import Command
from tests.run.stub import Stub

ROW = {
    "id": "s-1",
    "function_name": "digest",
    "cron": "0 8 * * *",
    "timezone": "Europe/Berlin",
    "missed": "run_once",
    "source": "api",
    "next_runs": ["2026-11-24T07:00:00.000Z"],
    "last_runs": [],
}


@pytest.fixture
def ask(command: Command, stub: Stub) -> Ask:
    return asking(command, stub)


def test_add(ask: Ask, stub: Stub) -> None:
    """The body of contract D.6; `missed`, which is ours, where it was said."""
    stub.answer({"data": {"schedule_id": "s-1"}}, 201)
    done = ask("schedules", "add", "digest", "0 8 * * *")
    assert (done.code, done.out) == (0, "digest runs at 0 8 * * * (UTC); schedule s-1\n")
    body = {"name": "digest", "cron": "0 8 * * *", "timezone": "UTC"}
    assert asked(stub) == ("POST", "functions/schedules", body)
    stub.answer({"data": {"schedule_id": "s-1"}}, 201)
    options = ("--timezone", "Europe/Berlin", "--missed", "run_once", "--json")
    done = ask("schedules", "add", "digest", "0 8 * * *", *options)
    assert json.loads(done.out) == {"schedule_id": "s-1"}
    assert asked(stub, 1)[2] == {**body, "timezone": "Europe/Berlin", "missed": "run_once"}


def test_a_schedule_that_is_refused(ask: Ask, stub: Stub) -> None:
    """The server alone says what a cron expression is (H-13)."""
    stub.answer({"error": {"code": "INVALID_CRON", "message": "it never fires"}}, 400)
    done = ask("schedules", "add", "digest", "0 0 31 2 *")
    assert (done.code, done.out) == (1, "")
    assert "INVALID_CRON: it never fires" in done.err
    assert ask("schedules", "add", "digest", "* * * * *", "--missed", "twice").code == 2


def test_list(ask: Ask, stub: Stub) -> None:
    """All, or one function's; rows as they are with --json."""
    stub.answer({"data": [ROW], "total": 1, "offset": 0, "limit": 200})
    done = ask("schedules", "list")
    head, following = done.out.splitlines()
    assert head == "digest  0 8 * * *  Europe/Berlin  runs once when missed  api  s-1"
    assert following.startswith("  next  Tue 2026-11-24 08:00 CET")
    assert asked(stub)[:2] == ("GET", "functions/schedules?offset=0&limit=200")
    stub.answer({"data": [ROW], "total": 1, "offset": 0, "limit": 200})
    assert json.loads(ask("schedules", "list", "digest", "--json").out) == [ROW]
    assert asked(stub, 1)[1].endswith("&name=digest")


def test_none(ask: Ask, stub: Stub) -> None:
    """An empty list is no error."""
    stub.answer({"data": [], "total": 0, "offset": 0, "limit": 200})
    done = ask("schedules", "list")
    assert (done.code, done.out) == (0, "")
    assert "amba-run schedules add" in done.err


def test_delete(ask: Ask, stub: Stub) -> None:
    """By the id that the list shows."""
    for _ in range(2):
        stub.answer({"data": {"id": "s-1", "deleted": True}})
    assert ask("schedules", "delete", "s-1").out == "deleted s-1\n"
    assert asked(stub) == ("DELETE", "functions/schedules/s-1", None)
    assert json.loads(ask("schedules", "delete", "s-1", "--json").out)["deleted"] is True

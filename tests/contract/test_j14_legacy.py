"""Contract J, check 14: a legacy `addEventListener('fetch')` script runs."""

from __future__ import annotations

import json

import pytest
from tests.run.serving import Dev

pytestmark = pytest.mark.slow


def test_contract_J_14_a_legacy_script_runs(contract_dev: Dev) -> None:
    """`respondWith` answers, bindings are globals, `waitUntil` works on behind it (B)."""
    answer = contract_dev.get("/fn/local/legacy?first")
    assert answer.status == 200
    assert json.loads(answer.body) == {
        "style": "addEventListener",
        "project": contract_dev.ready["project"]["id"],
    }
    told = contract_dev.event("request", function="legacy", path="/?first")
    assert (told["status"], told["outcome"]) == (200, "ok")

    def counted() -> bool | None:
        """With the request's event, or behind it."""
        own = [e for e in contract_dev.events if e.get("request_id") == told["request_id"]]
        said = [log["Message"] for event in own for log in event["logs"]]
        return True if said == [["counted", "GET"]] else None

    assert contract_dev.wait(counted)


def test_contract_J_14_its_own_answers_pass(contract_dev: Dev) -> None:
    """Path and status are the script's own business."""
    answer = contract_dev.get("/fn/local/legacy/elsewhere")
    assert (answer.status, answer.text) == (404, "Not here\n")

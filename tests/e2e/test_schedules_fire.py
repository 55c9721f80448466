"""Schedules that fire by themselves: real servers, handlers, a real minute (contract D.6, J 8).

The servers' wall clock is ahead, so that a minute of theirs is full a few seconds after the start.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.run.noding import NodeProcess
from tests.run.serving import Dev
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

AHEAD = Path(__file__).parents[1] / "run/ahead.py"
SOON = (sys.executable, str(AHEAD), "9")
"""A minute is full 9 s after the start."""
LATER = (sys.executable, str(AHEAD), "-111")
"""The same, two minutes on: after a server that began so, it is not that minute again."""
GUEST = """
export default {
  scheduled(controller, env, ctx) {
    console.log("fired", controller.cron, controller.scheduledTime, controller.type);
    if (controller.cron === "58 * * * *") throw new Error("no paper");
  },
};
"""


@pytest.fixture(scope="module")
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where state directories go that no test names."""
    return tmp_path_factory.mktemp("data")


def test_a_dev_server_fires_what_amba_toml_says(tmp_path: Path, data_home: Path) -> None:
    """By itself, with slot and expression; the file is read anew when it changes (pain 4)."""
    folder = tmp_path / "functions"
    folder.mkdir()
    (folder / "tick.js").write_text(GUEST)
    settings = folder / "amba.toml"
    settings.write_text('[functions.tick]\nschedules = ["* * * * *", "0 0 1 1 *"]\n')
    state = str(tmp_path / "state")
    with Dev(folder, "--state", state, data_home=data_home, prefix=SOON) as server:
        base = f"/v1/admin/projects/{server.ready['project']['id']}/functions"

        def listed() -> list[Any]:
            rows: list[Any] = server.api("GET", f"{base}/schedules").json["data"]
            return rows

        until(lambda: len(listed()) == 2)
        assert {(row["cron"], row["source"]) for row in listed()} == {
            ("* * * * *", "file"),
            ("0 0 1 1 *", "file"),
        }
        event = server.event("request", function="tick", within_s=75)
        assert event["method"] == "SCHEDULED"
        assert (event["path"], event["outcome"]) == ("* * * * *", "ok")
        word, cron, slot_ms, kind = event["logs"][0]["Message"]
        assert (word, cron, kind, slot_ms % 60_000) == ("fired", "* * * * *", "scheduled", 0)
        run = until(lambda: listed()[0]["last_runs"])[0]
        assert (run["outcome"], run["request_id"]) == ("ok", event["request_id"])

        got = server.api("POST", f"{base}/tick/scheduled", {"cron": "58 * * * *"}).json["data"]
        assert (got["outcome"], got["error"]) == ("exception", "no paper")
        assert got["logs"][0]["message"][:2] == ["fired", "58 * * * *"]

        settings.write_text('[functions.tick]\nschedules = ["0 0 1 1 *"]\n')
        until(lambda: [row["cron"] for row in listed()] == ["0 0 1 1 *"])
        settings.write_text("[functions.tick]\n")
        until(lambda: listed() == [])


def test_a_node_fires_what_was_added_over_http(tmp_path: Path, data_home: Path) -> None:
    """It fires, is in the logs and in the metrics; a restart goes on (Must show, J 8)."""
    state = tmp_path / "state"
    with NodeProcess(state, data_home=data_home, prefix=SOON) as node:
        node.deploy("tick", GUEST)
        made = node.admin("POST", "/functions/schedules", {"name": "tick", "cron": "* * * * *"})
        node.deploy("declared", GUEST, schedules=["58 * * * *"])
        (row, other) = node.admin("GET", "/functions/schedules")["data"]
        assert row["id"] == made["data"]["schedule_id"]
        assert (other["function_name"], other["source"]) == ("declared", "deploy")
        event = node.event("request", function="tick", within_s=75)
        assert event["method"] == "SCHEDULED"
        assert json.dumps(event["logs"]).count("fired") == 1
        until(lambda: node.admin("GET", "/functions/schedules")["data"][0]["last_runs"])
        metrics = node.send("GET", "/metrics").text
        assert 'amba_schedule_firings_total{outcome="ok"} 1' in metrics
        assert "amba_schedule_skipped_total 0" in metrics
        late = next(x for x in metrics.splitlines() if x.startswith("amba_schedule_late_seconds "))
        assert float(late.split()[1]) < 1
        pat, project = node.pat, node.project
    with NodeProcess(state, data_home=data_home, prefix=LATER, pat=pat, project=project) as node:
        assert node.event("request", function="tick", within_s=75)["path"] == "* * * * *"
        gone = node.admin("DELETE", "/functions/tick?confirm=tick")["data"]["cascade"]
        assert gone["schedules_deleted"] == 1
        assert len(node.admin("GET", "/functions/schedules")["data"]) == 1

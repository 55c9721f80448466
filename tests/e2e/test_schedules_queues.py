"""Schedules and queues of a dev server fire by themselves, and are told (issue 6)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.run.serving import Dev, run_cli
from tests.waiting import until

pytestmark = pytest.mark.slow

AHEAD = Path(__file__).parents[1] / "run" / "ahead.py"

TOML = """
[functions.ticks]
schedules = ["* * * * *", { cron = "0 8 * * MON", timezone = "Europe/Berlin" }]

[queues.mail]
function = "eats"
batch_size = 10
retries = 0

[queues.slow]
function = "eats"
retries = 1
backoff_ms = 2000
"""

TICKS = """
let fired = 0;
export default {
  async scheduled(controller, env) {
    fired += 1;
    console.log("fired", controller.cron, controller.scheduledTime % 60000);
    await fetch(`${env.AMBA_API_URL}/v1/admin/projects/${env.AMBA_PROJECT_ID}/queue/send`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${env.AMBA_INTERNAL_TOKEN}`,
        "content-type": "application/json",
      },
      body: JSON.stringify({ name: "mail", payload: { fired } }),
    });
  },
};
"""

EATS = """
export default {
  queue(batch) {
    for (const message of batch.messages) {
      if (message.body === "bad") throw new Error("it is bad");
      console.log("ate", message.body);
    }
  },
};
"""


def write(place: Path) -> Path:
    """The folder that is served."""
    place.mkdir()
    (place / "amba.toml").write_text(TOML)
    (place / "ticks.js").write_text(TICKS)
    (place / "eats.js").write_text(EATS)
    return place


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One server for what needs no time to pass."""
    folder = write(tmp_path_factory.mktemp("served") / "functions")
    home = tmp_path_factory.mktemp("data")
    with Dev(folder, "--ephemeral", "--no-watch", data_home=home) as server:
        yield server
    assert server.process.returncode == 0


def amba(dev: Dev, *args: str) -> tuple[int, str]:
    """A command, as a person in another terminal gives it."""
    state = ("--state-dir" if args[1] in ("peek", "purge") else "--state", dev.ready["state"])
    done = run_cli(*args, *state, data_home=Path(dev.ready["state"]))
    return done.returncode, done.stdout


def test_what_is_declared_is_told(dev: Dev) -> None:
    """One event with the next runs and the queues, after the ready line."""
    event = dev.event("triggers", within_s=20)
    schedules = {row["cron"]: row for row in event["schedules"]}
    assert set(schedules) == {"* * * * *", "0 8 * * MON"}
    assert {row["source"] for row in schedules.values()} == {"file"}
    assert all(len(row["next_runs"]) == 5 for row in schedules.values())
    assert {queue["queue_name"]: queue["function_name"] for queue in event["queues"]} == {
        "mail": "eats",
        "slow": "eats",
    }


def test_an_event_on_demand(dev: Dev) -> None:
    """`trigger`: outcome, verdicts and console lines; the exit code follows the handler."""
    code, out = amba(dev, "trigger", "queue", "mail", "--data", "[1]", "--data", '"two"')
    assert code == 0
    assert out.startswith("ok  queue mail  ")
    assert "  message 2: acked\n" in out
    assert "  log: ate [1]\n" in out
    code, out = amba(dev, "trigger", "queue", "mail", "--data", '"bad"', "--json")
    data = json.loads(out)
    assert (code, data["outcome"], data["error"]) == (1, "exception", "it is bad")
    code, out = amba(dev, "trigger", "scheduled", "ticks", "--at", "2026-03-29T01:30:00.005Z")
    assert code == 0
    assert "  log: fired * * * * * 5\n" in out or "  log: fired 0 8 * * MON 5\n" in out


def test_a_message_lives_and_dies(dev: Dev) -> None:
    """Sent, delivered, told like a request; one that fails is a dead letter that can be mended."""
    since = dev.mark()
    code, out = amba(dev, "queues", "send", "mail", "--data", '{"n": 1.0}')
    assert (code, out[:5]) == (0, "sent ")
    event = dev.event("request", since=since, function="eats", path="mail")
    assert (event["method"], event["outcome"]) == ("QUEUE", "ok")
    since = dev.mark()
    assert amba(dev, "queues", "send", "mail", "--data", '"bad"')[0] == 0
    told = dev.event("queue", since=since, queue_name="mail", within_s=10)
    assert told["dead"] == 1
    code, out = amba(dev, "queues", "peek", "mail", "--state", "dead")
    assert "dead  retries" in out
    assert "error: it is bad" in out
    assert "dead 1" in amba(dev, "queues", "list")[1]
    assert amba(dev, "queues", "fail-next", "mail", "1")[0] == 0
    assert "1 of mail" in amba(dev, "queues", "redeliver", "mail")[1]
    until(lambda: "failed on purpose" in amba(dev, "queues", "peek", "mail", "--state", "dead")[1])
    purged = amba(dev, "queues", "purge", "mail", "--state", "dead", "--confirm", "mail")
    assert purged == (0, "removed 1 of mail\n")


def test_a_retry_that_fails_is_told(dev: Dev) -> None:
    """Nobody asked anything then: the delivery itself says that the queue is another one."""
    assert amba(dev, "queues", "send", "slow", "--data", '"bad"')[0] == 0
    told = dev.event("queue", queue_name="slow", dead=1, within_s=15)
    assert (told["waiting"], told["delayed"], told["leased"]) == (0, 0, 0)


def test_a_schedule_fires_by_itself(tmp_path: Path) -> None:
    """When its minute is full, and what it sends is delivered to the queue's consumer."""
    soon = (sys.executable, str(AHEAD), "5")
    folder = write(tmp_path / "functions")
    with Dev(
        folder, "--ephemeral", "--no-watch", data_home=tmp_path / "data", prefix=soon
    ) as server:
        fired = server.event("request", method="SCHEDULED", within_s=30)
        assert (fired["function"], fired["path"], fired["outcome"]) == ("ticks", "* * * * *", "ok")
        eaten = server.event("request", method="QUEUE", within_s=10)
        assert (eaten["function"], eaten["outcome"]) == ("eats", "ok")
        assert eaten["logs"][0]["Message"] == ["ate", {"fired": 1}]
        until(lambda: "  last  " in amba(server, "schedules", "list", "ticks")[1])


def test_the_file_is_followed(tmp_path: Path) -> None:
    """A reload declares anew: what the file no longer has goes, what commands made stays."""
    folder = write(tmp_path / "functions")
    with Dev(folder, "--ephemeral", data_home=tmp_path / "data") as server:
        server.event("triggers", within_s=20)
        (folder / "new.js").write_text(EATS)
        server.event("reload", name="new")  # the watch stands
        assert amba(server, "schedules", "add", "ticks", "5 5 5 5 *")[0] == 0
        since = server.mark()
        (folder / "amba.toml").write_text('[functions.ticks]\nschedules = ["0 0 1 1 *"]\n')
        event = server.event("triggers", since=since, within_s=20)
        assert {row["cron"] for row in event["schedules"]} == {"0 0 1 1 *", "5 5 5 5 *"}
        assert event["queues"] == []

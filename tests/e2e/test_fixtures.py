"""Every sample function answers what it says, at both addresses; offline too (Must show 2, 4)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.run.serving import Dev, function, run_cli

pytestmark = pytest.mark.slow

FIXTURES = Path(__file__).parents[2] / "fixtures"
FIRST_LINE = re.compile(r"// Shows: .+\. GET / answers (?P<status>[2-5]\d\d)\.")


def statuses() -> dict[str, int]:
    """Function -> the status its first line promises."""
    found: dict[str, int] = {}
    for entry in FIXTURES.glob("*/index.*"):
        told = FIRST_LINE.match(entry.read_text("utf-8"))
        assert told is not None, entry
        found[entry.parent.name] = int(told["status"])
    return found


STATUSES = statuses()


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """All the sample functions, served."""
    with Dev(FIXTURES, "--ephemeral", data_home=tmp_path_factory.mktemp("data")) as server:
        yield server
    assert server.process.returncode == 0


def test_the_ready_line_lists_every_fixture(dev: Dev) -> None:
    """One line says where everything is, in the shape of interface.md section 3."""
    ready = dev.ready
    assert set(ready) == {
        *("event", "origin", "state", "engine", "sandbox", "project", "functions", "keys"),
    }
    assert dev.lines[0].startswith('{"event": "ready"')
    assert {f["name"] for f in ready["functions"]} == set(STATUSES)
    assert ready["functions"][0] == {
        "name": "counter",
        "url": f"http://local.fn.localhost:{dev.port}/counter",
        "version": 1,
    }
    assert (ready["engine"], ready["project"]["slug"]) == ("workerd", "local")
    prefixes = {"pat": "amb_dpat_", "client": "amb_dev_ck_", "server": "amb_dev_sk_"}
    assert ready["keys"].keys() == prefixes.keys()
    assert all(ready["keys"][name].startswith(prefix) for name, prefix in prefixes.items())


@pytest.mark.parametrize("name", sorted(STATUSES))
def test_a_fixture_answers_what_its_first_line_says(dev: Dev, name: str) -> None:
    """At its URL (by Host header) and at the /fn/ path of the bare host (Must show 2)."""
    by_host = dev.get(f"/{name}", host=f"local.fn.localhost:{dev.port}").status
    by_path = dev.get(f"/fn/local/{name}/").status
    assert (by_host, by_path) == (STATUSES[name], STATUSES[name])


def test_a_schedule_sends_through_a_queue(dev: Dev) -> None:
    """amba.toml is in force: `digest` sends what `queue-worker` consumes (issue 6)."""
    declared = dev.event("triggers", within_s=20)
    assert {row["function_name"] for row in declared["schedules"]} == {"digest", "scheduled-report"}
    queues = {row["queue_name"]: row["function_name"] for row in declared["queues"]}
    assert queues["emails"] == "queue-worker"
    state = dev.ready["state"]
    done = run_cli("trigger", "scheduled", "digest", "--state", state, data_home=Path(state))
    assert (done.returncode, done.stdout.split()[0]) == (0, "ok")
    assert "  log: sent the digest of " in done.stdout
    event = dev.event("request", function="queue-worker", method="QUEUE", within_s=20)
    assert (event["outcome"], event["path"]) == ("ok", "emails")
    assert event["logs"][0]["Message"][0] == "sent"


@pytest.mark.skipif(shutil.which("unshare") is None, reason="this machine has no unshare program")
def test_a_folder_is_served_with_the_network_cut(tmp_path: Path) -> None:
    """In a network namespace that has loopback alone, `dev` starts and serves (Must show 4)."""
    can = subprocess.run(
        ["unshare", "-rn", "sh", "-c", "ip link set lo up"], capture_output=True, check=False
    )
    if can.returncode != 0:
        pytest.skip(f"no namespace of our own here: {can.stderr.decode().strip()}")
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "hello.ts").write_text(function("'offline' as string"))
    script = tmp_path / "serve.sh"
    script.write_text('set -e\nip link set lo up\nexec "$@"\n')
    # the client goes inside as well: the server's loopback is its own
    with Dev(
        tmp_path / "functions",
        "--ephemeral",
        data_home=tmp_path / "data",
        prefix=("unshare", "-rn", "sh", str(script)),
    ) as server:
        asked = subprocess.run(
            [
                *("nsenter", "-t", str(server.process.pid), "-U", "--preserve-credentials", "-n"),
                *(sys.executable, "-c", ASK, f"http://127.0.0.1:{server.port}/fn/local/hello"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    assert (asked.returncode, asked.stdout) == (0, "offline"), asked.stderr


ASK = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:
    print(answer.read().decode(), end="")
"""

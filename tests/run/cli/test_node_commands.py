"""`deploy`, `functions`, `projects`, `keys`, `secrets set`: against a real node."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.drills.nodes import NodeProcess, ask
from tests.run.cli.conftest import Command, Done

pytestmark = pytest.mark.slow

HELLO = """
export default {
  async fetch(request, env) {
    console.log("asked", { n: 1 });
    return new Response(`VERSION ${env.GREETING ?? "none"}`);
  },
};
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("node") / "state") as started:
        yield started


@pytest.fixture(scope="module")
def project(node: NodeProcess) -> dict[str, str]:
    data = node.api().post("/v1/admin/projects", {"name": "Commands"})["data"]
    return {"id": data["id"], "slug": data["slug"]}


Call = Callable[..., Done]


@pytest.fixture
def call(
    command: Command, node: NodeProcess, project: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Call:
    """A command in the environment that a user of this node has."""
    monkeypatch.setenv("AMBA_API_URL", node.origin)
    monkeypatch.setenv("AMBA_PAT", node.pat)
    monkeypatch.setenv("AMBA_PROJECT_ID", project["id"])
    return command


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(version: str, name: str = "hello.js", source: str = HELLO) -> Path:
        path = tmp_path / name
        path.write_text(source.replace("VERSION", version))
        return path

    return write


def body(node: NodeProcess, project: dict[str, str], name: str) -> str:
    return ask(node.port, f"/fn/{project['slug']}/{name}").body


def listed(call: Call, name: str) -> list[int]:
    """Active versions of one function."""
    rows = value(call("functions", "list", "--json"))
    return [row["version"] for row in rows if row["name"] == name]


def logged(call: Call, name: str, least: int) -> list[dict[str, Any]]:
    """Its events, which may follow an answer by a moment (interface.md 3)."""
    events: list[dict[str, Any]] = []
    for _ in range(50):
        out = call("functions", "logs", name, "--json").out
        events = [json.loads(line) for line in out.splitlines()]
        if len(events) >= least:
            break
    return events


def value(done: Done) -> Any:
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_function_from_its_first_deploy_to_its_end(
    call: Call, save: Callable[..., Path], node: NodeProcess, project: dict[str, str]
) -> None:
    """deploy, list, versions, rollback, logs, delete: what a user does (interface.md 2)."""
    done = call("deploy", str(save("one")))
    url = f"http://{project['slug']}.fn.localhost:{node.port}/hello"
    assert (done.code, done.out) == (0, f"deployed hello version 1\n  {url}\n")
    assert value(call("deploy", str(save("two")), "--json"))["data"]["version"] == 2
    assert body(node, project, "hello") == "two none"

    assert listed(call, "hello") == [2]
    lines = [line.split() for line in call("functions", "list").out.splitlines()]
    assert ["hello", "v2", "active"] in [line[:3] for line in lines]
    rows = value(call("functions", "versions", "hello", "--json"))
    assert [(row["version"], row["status"]) for row in rows] == [(2, "active"), (1, "superseded")]

    done = call("functions", "rollback", "hello", "1")
    assert done.out.startswith("hello version 3 serves what version 1 did\n")
    assert body(node, project, "hello") == "one none"
    assert value(call("functions", "rollback", "hello", "2", "--json"))["data"]["version"] == 4

    events = logged(call, "hello", 2)
    assert [event["ScriptName"] for event in events] == ["hello-v2", "hello-v3"]
    assert "log: asked" in call("functions", "logs", "hello").out
    wanted = events[0]["RequestId"]
    one = call("functions", "logs", "hello", "--request", wanted, "--since", "5m", "--json")
    assert json.loads(one.out)["RequestId"] == wanted

    done = call("functions", "delete", "hello", stdin=b"n\n")
    assert done.code != 0
    assert body(node, project, "hello") == "two none"
    assert call("functions", "delete", "hello", stdin=b"y\n").out == "deleted hello\n"
    assert ask(node.port, f"/fn/{project['slug']}/hello").status == 404
    assert value(call("functions", "delete", "hello", "--yes", "--json"))["deleted"] is True
    assert listed(call, "hello") == []
    assert "none ever was" in call("functions", "versions", "nobody").err


def test_settings_go_with_the_upload(
    call: Call, save: Callable[..., Path], node: NodeProcess, tmp_path: Path
) -> None:
    """Rate limit, limits, schedules of amba.toml; an option wins over the file (interface.md 4)."""
    (tmp_path / "amba.toml").write_text(
        "[limits]\nidle_ms = 9000\n[functions.limited]\n"
        'rate_limit = { window = "60s", max = 5, key = "ip" }\n'
        'schedules = [{ cron = "0 3 * * *", missed = "run_once" }]\n'
        "[functions.limited.limits]\nfirst_byte_ms = 2000\n"
        '[functions.limited.egress]\nonly = ["api.stripe.com"]\n'
        '[functions.limited.egress.secrets]\nKEY = ["api.stripe.com"]\n'
    )
    entry = str(save("one", "limited.js"))
    refused = call("deploy", entry, "--json")
    assert "schedules: the function has no scheduled handler" in refused.err
    Path(entry).write_text("export default { fetch: () => new Response('1'), scheduled() {} }")
    done = call("deploy", entry, "--json")
    assert "uploading limited: " in done.err
    assert "warning" not in done.err
    row = value(done)["data"]
    assert row["rate_limit"] == {"window": "60s", "max": 5, "key": "ip"}
    assert row["limits"] == {"idle_ms": 9000, "first_byte_ms": 2000}
    assert row["egress"] == {"only": ["api.stripe.com"], "secrets": {"KEY": ["api.stripe.com"]}}
    (schedule,) = value(call("schedules", "list", "limited", "--json"))
    assert (schedule["cron"], schedule["source"]) == ("0 3 * * *", "deploy")
    options = ("--rate-limit-window", "1h", "--rate-limit-max", "9", "--rate-limit-key", "user_id")
    row = value(call("deploy", entry, "--name", "other", *options, "--json"))["data"]
    assert row["name"] == "other"
    assert row["rate_limit"] == {"window": "1h", "max": 9, "key": "user_id"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--rate-limit-window", "60s"), "max and key missing"),
        (("--rate-limit-max", "1", "--rate-limit-key", "ip"), "window missing"),
        (
            ("--rate-limit-window", "2d", "--rate-limit-max", "1", "--rate-limit-key", "ip"),
            "window",
        ),
        (("--name", "Not-A-Name"), "cannot be a function's name"),
    ],
)
def test_options_that_cannot_be(
    call: Call, save: Callable[..., Path], options: tuple[str, ...], says: str
) -> None:
    """All three or none (contract D.8); names by A.2. Nothing is uploaded."""
    done = call("deploy", str(save("one")), *options)
    assert (done.code, done.out) == (1, "")
    assert says in done.err


def test_a_dry_run_says_what_would_go(call: Call, save: Callable[..., Path]) -> None:
    """Sizes, hash and handlers, and no server is asked (contract D.9)."""
    done = call("deploy", str(save("one", "dry.js")), "--dry-run", "--api", "http://127.0.0.1:1")
    assert done.code == 0
    assert "handlers: fetch" in done.out
    assert "nothing was uploaded" in done.err
    told = value(call("deploy", str(save("one", "dry.js")), "--dry-run", "--json"))
    assert (told["name"], told["handlers"]) == ("dry", ["fetch"])
    assert told["bytes_gzip"] > 0
    assert len(told["bundle_sha"]) == 64


def test_a_refused_function_is_not_uploaded(
    call: Call, save: Callable[..., Path], tmp_path: Path
) -> None:
    """Every violation with its place and fix, exit 1, before anything is sent (pain 16)."""
    source = "export default async function fetch() {}\n"
    done = call("deploy", str(save("", "wrong.js", source)), "--api", "http://127.0.0.1:1")
    assert (done.code, done.out) == (1, "")
    assert "DEFAULT_EXPORT_FUNCTION" in done.err
    assert "fix: export default {" in done.err
    done = call("deploy", str(save("", "broken.js", "export default {")))
    assert (done.code, "BUILD_FAILED" in done.err) == (1, True)
    done = call("deploy", str(tmp_path / "missing.js"))
    assert (done.code, "ENTRY_NOT_FOUND" in done.err) == (1, True)
    done = call("deploy", str(tmp_path / "missing.js"), "--name", "x", "--no-bundle")
    assert (done.code, "ENTRY_NOT_FOUND" in done.err) == (1, True)


def test_a_finished_bundle_goes_as_it_is(
    call: Call, save: Callable[..., Path], node: NodeProcess, project: dict[str, str]
) -> None:
    """--no-bundle uploads the very bytes, and the server judges them too."""
    path = save("asis", "ready.js")
    row = value(call("deploy", str(path), "--no-bundle", "--json"))["data"]
    import hashlib

    assert row["bundle_sha"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert body(node, project, "ready") == "asis none"


def test_secrets_are_set_listed_and_unset(
    call: Call, save: Callable[..., Path], node: NodeProcess, project: dict[str, str]
) -> None:
    """Running functions have a set secret at once, and lose an unset one when deployed (C.2)."""
    entry = str(save("s", "secretive.js"))
    assert call("deploy", entry).code == 0
    assert call("secrets", "set", "GREETING", "hey").out == "set GREETING for the project\n"
    assert body(node, project, "secretive") == "s hey"
    done = call(
        *("secrets", "set", "GREETING", "--from-stdin", "--function", "secretive", "--json"),
        stdin=b"own\n",
    )
    assert value(done)["function"] == "secretive"
    assert body(node, project, "secretive") == "s own"
    rows = value(call("secrets", "list", "--project", project["id"], "--json"))
    assert {(row["name"], row["function"]) for row in rows} == {
        ("GREETING", None),
        ("GREETING", "secretive"),
    }
    assert "own" not in call("secrets", "list", "--project", project["id"]).out.replace(
        "secretive", ""
    )
    assert call("secrets", "unset", "GREETING", "--function", "secretive", "--json").code == 0
    assert "next deploy" in call("secrets", "unset", "GREETING").out
    assert body(node, project, "secretive") == "s own"
    assert call("deploy", entry).code == 0
    assert body(node, project, "secretive") == "s none"


def test_secrets_asked_for_wrongly(call: Call, tmp_path: Path) -> None:
    """One source for a value; files and projects are not asked about at once; reserved names."""
    assert call("secrets", "set", "A").code == 2
    assert call("secrets", "set", "A", "b", "--from-stdin").code == 2
    assert call("secrets", "list", str(tmp_path), "--project", "p").code == 2
    done = call("secrets", "set", "AMBA_X", "v")
    assert (done.code, "AMBA_" in done.err) == (1, True)


def test_projects_and_keys(call: Call, node: NodeProcess) -> None:
    """Made, listed, revoked; keys are shown once (contract E.1)."""
    done = call("projects", "create", "Second One")
    assert done.code == 0
    assert "client key: amb_dev_ck_" in done.out
    assert "server key: amb_dev_sk_" in done.out
    made = value(call("projects", "create", "Third", "--environment", "production", "--json"))
    assert made["api_keys"]["server"]["key"].startswith("amb_live_sk_")
    listed = value(call("projects", "list", "--json"))
    assert {"Second One", "Third"} <= {row["name"] for row in listed}
    assert made["id"] in call("projects", "list").out

    done = call("keys", "create", "server", "--project", made["id"])
    key = done.out.strip()
    assert key.startswith("amb_live_sk_")
    stage = ("--environment", "development")
    asked = call("keys", "create", "server", "--project", made["id"], *stage)
    assert asked.out.startswith("amb_dev_sk_")
    assert call("functions", "list", "--project", made["id"], "--token", key).code == 0
    id_ = done.err.split()[1].rstrip(";")
    assert call("keys", "revoke", id_, "--project", made["id"]).out == f"revoked {id_}\n"
    done = call("functions", "list", "--project", made["id"], "--token", key)
    assert (done.code, "INVALID_TOKEN" in done.err) == (1, True)
    made_key = value(call("keys", "create", "client", "--json"))
    assert value(call("keys", "revoke", made_key["id"], "--json")) is not None


def test_logs_are_followed(
    call: Call, save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--follow asks again from the newest event on, until it is interrupted (contract D.5)."""
    import amba_runtime.clock as clock_module

    assert call("deploy", str(save("f", "followed.js"))).code == 0
    waits: list[float] = []

    async def sleep(self: object, seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(clock_module.SystemClock, "sleep", sleep)
    done = call("functions", "logs", "followed", "--follow", "--json")
    assert (done.code, waits) == (130, [1.0, 1.0])


EVENTS = """
export default {
  scheduled(controller) { console.log("at", controller.scheduledTime); },
  queue(batch) {
    for (const message of batch.messages) {
      if (message.body === "later") message.retry({ delaySeconds: 7 });
    }
  },
};
"""


def test_schedules_and_queues_from_the_command_line(call: Call, save: Callable[..., Path]) -> None:
    """Each command against what really answers (interface.md 2, issue 6 item 3)."""
    assert call("deploy", str(save("", "events.js", EVENTS))).code == 0
    added = value(
        call("schedules", "add", "events", "0 8 * * MON", "--timezone", "Asia/Tokyo", "--json")
    )
    (row,) = value(call("schedules", "list", "events", "--json"))
    assert (row["id"], row["source"], len(row["next_runs"])) == (added["schedule_id"], "api", 5)
    told = call("schedules", "list", "events").out
    assert told.startswith("events  0 8 * * MON  Asia/Tokyo  api  ")
    assert "  next  Mon 20" in told
    for bad, code in (("0 0 31 2 *", "INVALID_CRON"), ("* * * *", "INVALID_CRON")):
        done = call("schedules", "add", "events", bad)
        assert done.code == 1
        assert code in done.err
    done = call("schedules", "add", "events", "* * * * *", "--timezone", "Mars/Olympus")
    assert "INVALID_TIMEZONE" in done.err
    done = call("trigger", "scheduled", "events", "--at", "1774747800000")
    assert (done.code, done.out.splitlines()[1]) == (0, "  log: at 1774747800000")
    assert call("schedules", "delete", row["id"]).code == 0
    assert value(call("schedules", "list", "events", "--json")) == []

    assert "QUEUE_NOT_BOUND" in call("queues", "send", "work", "--data", "1").err
    assert call("queues", "bind", "work", "events", "--batch-size", "10").code == 0
    done = call("trigger", "queue", "work", "--data", "later", "--data", "7")
    assert done.code == 0
    lines = done.out.splitlines()[1:]
    assert lines == ["  message 1: retried, again in 7 s", "  message 2: acked"]
    assert call("queues", "pause", "work").out == "work is paused\n"
    job = value(call("queues", "send", "work", "--data", '{"n": 1.0}', "--delay", "3600", "--json"))
    (delayed,) = value(call("queues", "peek", "work", "--state", "delayed", "--json"))
    assert (delayed["id"], delayed["payload"]) == (job["job_id"], {"n": 1.0})
    (queue,) = value(call("queues", "list", "--json"))
    assert (queue["queue_name"], queue["status"], queue["delayed"]) == ("work", "paused", 1)
    bound = value(call("queues", "resume", "work", "--json"))
    assert (bound["status"], bound["batch_size"]) == ("active", 10)
    assert "INVALID_DELAY" in call("queues", "send", "work", "--data", "1", "--delay", "43201").err
    assert call("queues", "fail-next", "work", "2").code == 0
    assert call("queues", "fail-next", "work", "0").code == 0
    purged = call("queues", "purge", "work", "--state", "all", "--confirm", "work")
    assert purged.out == "removed 1 of work\n"
    assert call("queues", "redeliver", "work").out == "0 of work are delivered again\n"
    assert call("queues", "unbind", "work", "--yes").code == 0
    assert call("queues", "list").out == ""

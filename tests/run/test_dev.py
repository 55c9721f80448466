"""The dev server from its start to its end, on the real engine."""

from __future__ import annotations

import contextlib
import json
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest
from tests.e2e.raw_http import RawClient
from tests.run.serving import Dev, environment_of, function, run_cli

from amba_runtime import limits

pytestmark = pytest.mark.slow

ENV = "JSON.stringify([env.GREETING ?? null, env.OTHER ?? null, typeof env.STORAGE])"


def left(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run a second later; what nobody reaps in a container has ended too."""
    alive = psutil.wait_procs(processes, timeout=1)[1]
    return [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What is served: one function that tells its environment."""
    place = tmp_path / "functions"
    place.mkdir()
    (place / "hello.ts").write_text(function(ENV))
    return place


@pytest.fixture
def dev(folder: Path, data_home: Path) -> Iterator[Dev]:
    """A server of the test's own, watching."""
    with Dev(folder, "--ephemeral", data_home=data_home) as server:
        (folder / "watched.js").write_text(function("'watched'"))
        server.event("reload", name="watched")
        yield server


# settings


def test_settings_and_secrets_apply_as_they_are_saved(dev: Dev, folder: Path) -> None:
    """A secrets file or amba.toml restarts what it concerns; a broken one changes nothing."""
    assert json.loads(dev.ask("hello")) == [None, None, "object"]
    since = dev.mark()
    (folder / ".dev.vars").write_text("GREETING=hi\n")
    dev.event("reload", since=since, name="hello")
    assert json.loads(dev.ask("hello")) == ["hi", None, "object"]

    (folder / ".dev.vars").write_text("AMBA_PROJECT_ID=mine\n")
    assert "the old settings stay" in dev.said("the old settings stay")
    assert ".dev.vars:1" in dev.said(".dev.vars:1")
    assert json.loads(dev.ask("hello")) == ["hi", None, "object"]

    since = dev.mark()
    (folder / ".dev.vars").unlink()
    (folder / ".env").write_text("OTHER=1\n")
    (folder / "amba.toml").write_text("storage = false\n")
    dev.wait(lambda: json.loads(dev.ask("hello")) == [None, "1", "undefined"] or None)

    (folder / "amba.toml").write_text("storage = nonsense\n")
    dev.said("amba.toml")
    assert json.loads(dev.ask("hello")) == [None, "1", "undefined"]
    (folder / "amba.toml").write_text('project = "renamed"\n')
    assert "next start" in dev.said("take effect at the next start")
    dev.wait(lambda: json.loads(dev.ask("hello")) == [None, "1", "object"] or None)


def test_limits_of_the_config_are_in_force(folder: Path, data_home: Path) -> None:
    """A limit that is set is enforced in dev too (interface.md 4)."""
    (folder / "stuck.js").write_text(function("await new Promise(() => {})"))
    (folder / "amba.toml").write_text("[functions.stuck.limits]\nfirst_byte_ms = 50\n")
    with Dev(folder, "--ephemeral", "--no-watch", data_home=data_home) as server:
        assert server.get("/fn/local/stuck").status == 504
        event = server.event("request", function="stuck")
        assert (event["status"], event["outcome"]) == (504, "exceededWallTime")


def test_options_change_who_and_what(folder: Path, data_home: Path) -> None:
    """--project names the project, --as says who callers without a credential are."""
    (folder / "who.js").write_text(function("request.headers.get('x-amba-user-id')"))
    options = ("--project", "acme", "--as", "user:u_42", "--no-watch", "--ephemeral")
    with Dev(folder, *options, data_home=data_home) as server:
        assert server.ready["project"]["slug"] == "acme"
        assert server.get("/who", host=f"acme.fn.localhost:{server.port}").text == "u_42"
        assert server.get("/fn/local/who").status == 404
        (folder / "who.js").write_text(function("'changed'"))
        assert server.get("/fn/acme/who").text == "u_42"


def test_one_file_is_served_alone(folder: Path, data_home: Path) -> None:
    """PATH may be a file; its folder's secrets are its own (interface.md 2, 4)."""
    (folder / "other.js").write_text(function("'other'"))
    (folder / ".env").write_text("GREETING=hi\n")
    with Dev(folder / "hello.ts", "--ephemeral", data_home=data_home) as server:
        assert [f["name"] for f in server.ready["functions"]] == ["hello"]
        assert json.loads(server.ask("hello"))[0] == "hi"
        assert server.get("/fn/local/other").status == 404


# faults at the start


def test_one_broken_function_stops_no_other(folder: Path, data_home: Path) -> None:
    """The ready line comes first and lists what serves; then each refusal is told."""
    (folder / "broken.ts").write_text("export default {")
    (folder / "thrower.js").write_text("throw new Error('no key'); export default { fetch() {} };")
    (folder / "shapeless.js").write_text("export default {};")
    (folder / "snake.py").write_text("from workers import WorkerEntrypoint")
    (folder / "Bad Name.js").write_text(function("'?'"))
    with Dev(folder, "--ephemeral", data_home=data_home) as server:
        assert json.loads(server.lines[0])["event"] == "ready"
        assert [f["name"] for f in server.ready["functions"]] == ["hello"]
        server.event("build_failed", name="broken")
        for name, code in (
            ("thrower", "TOP_LEVEL_FAILED"),
            ("shapeless", "NO_HANDLER"),
            ("snake", "NOT_EMULATED"),
        ):
            (violation,) = server.event("rejected", name=name)["violations"]
            assert violation["code"] == code
            assert violation["file"] in (f"{name}.js", f"{name}.py")
            assert violation["fix"]
            assert violation["line"] == (0 if name == "snake" else 1)
        page = server.get("/fn/local/thrower", Accept="text/html").body.decode()
        assert "thrower.js:1:7: TOP_LEVEL_FAILED" in page
        assert "fix: move what fails into a handler" in page
        assert "is skipped" in server.said("Bad Name.js")
        assert server.get("/fn/local/hello").status == 200
        answer = server.get("/fn/local/broken")
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (500, "FUNCTION_BROKEN")
        since = server.mark()
        (folder / "broken.ts").write_text(function("'mended'"))
        server.event("reload", since=since, name="broken", version=1)
        assert server.ask("broken") == "mended"


def test_an_empty_folder_is_served_and_says_what_to_do(tmp_path: Path, data_home: Path) -> None:
    """No function is no error: save one, and it is there."""
    empty = tmp_path / "empty"
    empty.mkdir()
    with Dev(empty, "--ephemeral", data_home=data_home) as server:
        assert server.ready["functions"] == []
        assert "holds no functions yet" in server.said("holds no functions yet")
        assert "export default" in server.said("export default")
        assert server.get("/fn/local/hello").status == 404
        server.wait(lambda: len(server.talk) >= 2 or None)
        (empty / "hello.js").write_text(function("'hello'"))
        server.event("reload", name="hello")
        assert server.ask("hello") == "hello"


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("nowhere",), 1, "ENTRY_NOT_FOUND"),
        ((".", "--host", "0.0.0.0"), 1, "UNSAFE_LISTEN"),
        ((".", "--allow-origin", "app.example"), 1, "is no origin"),
        ((".", "--project", "No Slug"), 1, "INVALID_NAME"),
        ((".", "--as", "root"), 1, "INVALID_PERSONA"),
        ((".", "--inspect"), 1, "NOT_EMULATED"),
        ((".", "--engine", "wasm"), 1, "NOT_EMULATED"),
        ((".", "--state", "hello.ts"), 1, "INVALID_CONFIG"),
        ((".", "--port", "65536"), 2, "65536"),
        ((".", "--port", "http"), 2, "http"),
        ((".", "--ephemeral", "--state", "x"), 2, "--ephemeral"),
        ((".", "--nonsense"), 2, "--nonsense"),
    ],
)
def test_what_cannot_be_started(
    folder: Path, data_home: Path, options: tuple[str, ...], code: int, told: str
) -> None:
    """Exit 1 for what a person can fix, 2 for usage; in words, and nothing on stdout."""
    done = run_cli("dev", "--json", *options, data_home=data_home, cwd=folder)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_an_engine_that_is_missing_is_named(folder: Path, data_home: Path) -> None:
    """AMBA_RUN_WORKERD overrides the path; a wrong one is told, not guessed around."""
    done = run_cli("dev", str(folder), data_home=data_home, AMBA_RUN_WORKERD="/nowhere/workerd")
    assert done.returncode == 1
    assert "AMBA_RUN_WORKERD" in done.stderr


def test_a_taken_port_is_told_with_its_holder(folder: Path, dev: Dev, data_home: Path) -> None:
    """Who holds the port, and what to do (issue 2, item 6)."""
    done = run_cli("dev", str(folder), "--port", str(dev.port), data_home=data_home)
    assert done.returncode == 1
    assert f"(pid {dev.process.pid})" in done.stderr
    assert "--port 0" in done.stderr


# state


def test_state_is_kept_and_one_server_has_it(folder: Path, data_home: Path) -> None:
    """Keys stay the same; a second server is refused; after kill -9 a start works at once."""
    state = folder.parent / "state"
    options = ("--state", str(state), "--no-watch")
    with Dev(folder, *options, data_home=data_home) as first:
        assert first.ready["state"] == str(state)
        told = json.loads((state / "dev.json").read_bytes())
        assert (told["origin"], told["pid"]) == (first.ready["origin"], first.process.pid)
        modes = [(state / name).stat().st_mode & 0o777 for name in ("dev.json", "credentials.json")]
        assert modes == [0o600, 0o600]

        done = run_cli("dev", str(folder), "--port", "0", *options, data_home=data_home)
        assert done.returncode == 1
        assert f"STATE_IN_USE]: another dev server (pid {first.process.pid})" in done.stderr
        assert json.loads((state / "dev.json").read_bytes()) == told

        engines = first.descendants()
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    with Dev(folder, *options, data_home=data_home) as second:
        assert second.ready["keys"] == first.ready["keys"]
        assert second.ready["project"] == first.ready["project"]
        assert second.get("/fn/local/hello").status == 200
    assert not (state / "dev.json").exists()
    assert left(engines) == []


def test_each_path_has_a_state_of_its_own(folder: Path, data_home: Path) -> None:
    """The default is one state directory per absolute PATH (interface.md 2)."""
    states: list[str] = []
    for path in (folder, folder / "hello.ts", folder / ".." / folder.name):
        server = Dev(path, "--no-watch", data_home=data_home)
        states.append(server.ready["state"])
        server.close()
    assert states[0] == states[2] != states[1]
    assert all(Path(state).is_relative_to(data_home) for state in states)


@pytest.mark.parametrize(("sig", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_the_end_is_quick_and_leaves_nothing(
    folder: Path, data_home: Path, sig: signal.Signals, code: int
) -> None:
    """Ctrl-C ends everything within a second, a request under way included (issue 2, item 6)."""
    (folder / "stuck.js").write_text(function("await new Promise(() => {})"))
    with Dev(folder, "--ephemeral", "--no-watch", data_home=data_home) as server:
        with server.connection() as connection:
            connection.request("GET", "/fn/local/stuck")
            assert server.ask("hello")  # so that the other one has long arrived
            processes = server.descendants()
            began = time.monotonic()
            assert server.stop(sig) == code
            assert time.monotonic() - began < 1.0
        assert left(processes) == []
        assert not Path(server.ready["state"]).exists()
        assert server.wait(lambda: server._ended == 2 or None)  # pyright: ignore[reportPrivateUsage]
        assert "stopping" in [event["event"] for event in server.events]
        assert server.talk == []


# what is told


TOLD = """
import { price } from "./_price";
export default {
  async fetch(request: Request, env: unknown, ctx: { waitUntil(p: Promise<unknown>): void }) {
    const url = new URL(request.url);
    console.log("asked", { path: url.pathname });
    console.warn("\\u001b[2Jcleared\\u0007");
    if (url.pathname === "/throw") price(-1);
    if (url.pathname === "/late") {
      ctx.waitUntil(new Promise((done) => setTimeout(done, 250)).then(() => console.log("late")));
    }
    return new Response("told", { status: 201 });
  },
};
"""
PRICE = """export function price(items: number): number {
  if (items < 0) {
    throw new RangeError("fewer than none");
  }
  return items;
}
"""


@pytest.fixture
def telling(folder: Path) -> Path:
    """A folder whose function logs, throws, and logs late."""
    (folder / "telling.ts").write_text(TOLD)
    (folder / "_price.ts").write_text(PRICE)
    return folder


def test_each_invocation_is_one_request_event(telling: Path, data_home: Path) -> None:
    """All fields of interface.md section 3; the stack names the user's own file and line."""
    with Dev(telling, "--ephemeral", "--no-watch", data_home=data_home) as server:
        for _ in range(3):
            assert server.get("/fn/local/telling/sub?q=1").status == 201
        assert server.get("/fn/local/telling/throw", method="POST").status == 500
        event = server.event("request", path="/sub?q=1")
        expected = (
            "event request_id function version method path status outcome ms cpu_ms logs exceptions"
        )
        assert list(event) == expected.split()
        shown = {k: event[k] for k in ("function", "version", "method", "status", "outcome")}
        assert shown == {
            "function": "telling",
            "version": 1,
            "method": "GET",
            "status": 201,
            "outcome": "ok",
        }
        assert len(event["request_id"]) == 36
        assert 0 < event["ms"] < 5000
        assert event["cpu_ms"] is None or 0 <= event["cpu_ms"] < 1000
        assert [log["Level"] for log in event["logs"]] == ["log", "warn"]
        assert event["logs"][0]["Message"] == ["asked", {"path": "/sub"}]
        assert event["exceptions"] == []

        failed = server.event("request", path="/throw")
        assert (failed["method"], failed["status"]) == ("POST", 500)
        assert failed["outcome"] == "exception"
        thrown = failed["exceptions"][0]
        assert (thrown["Name"], thrown["Message"]) == ("RangeError", "fewer than none")
        frames = [line.strip() for line in thrown["Stack"].splitlines()[1:]]
        assert "_price.ts:3:11" in frames[0]
        assert "telling.ts:8:" in frames[1]
        assert len(frames) == 2
        told = [e["request_id"] for e in server.events if e["event"] == "request"]
        assert len(told) == len(set(told)) == 4


def test_lines_after_the_answer_are_told_too(telling: Path, data_home: Path) -> None:
    """waitUntil's console lines come as an event of their own, under the same request id."""
    with Dev(telling, "--ephemeral", "--no-watch", data_home=data_home) as server:
        assert server.get("/fn/local/telling/late").status == 201
        first = server.event("request", path="/late")
        late = server.event("late", request_id=first["request_id"])
        assert late["function"] == "telling"
        assert [log["Message"] for log in late["logs"]] == [["late"]]


def test_a_terminal_gets_a_block_per_request(telling: Path, data_home: Path) -> None:
    """Method, path, status, ms, console lines and mapped stack; nothing steers the terminal."""
    with Dev(telling, "--ephemeral", data_home=data_home, json_=False) as server:
        assert server.get("/fn/local/telling/a").status == 201
        assert server.get("/fn/local/telling/throw").status == 500

        def told() -> str | None:
            text = "\n".join(server.lines)
            return text if "telling.ts:8:" in text else None

        text = server.wait(told)
        assert f"http://local.fn.localhost:{server.port}/telling" in text
        assert "201 GET /a  " in text
        assert " ms  telling v1\n" in text
        assert 'log   asked {"path": "/a"}' in text
        assert r"warn  \x1b[2Jcleared\x07" in text
        assert "RangeError: fewer than none" in text
        assert "_price.ts:3:11" in text
        assert "\x1b" not in text
        (telling / "hello.ts").write_text("export default {")
        server.wait(lambda: "hello does not build: 1 error" in "\n".join(server.lines) or None)
        (telling / "hello.ts").write_text(function("'mended'"))
        server.wait(lambda: "reloaded hello v2" in "\n".join(server.lines) or None)
    assert server.lines[-1] == "stopping"
    assert server.talk == []


def test_output_that_nobody_reads_holds_up_nothing(folder: Path, data_home: Path) -> None:
    """A held terminal or a stuck reader costs its lines, never a request, nor a clean end."""
    (folder / "loud.js").write_text(function("'fine'", before="const line = 'x'.repeat(8000);"))
    text = (folder / "loud.js").read_text().replace("return", "console.log(line); return")
    (folder / "loud.js").write_text(text)
    argv = (sys.executable, "-m", "amba_run", "dev", str(folder), "--port", "0", "--json")
    stuck = subprocess.Popen(
        [*argv, "--ephemeral", "--no-watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment_of(data_home),
    )
    assert stuck.stdout is not None
    try:
        ready = json.loads(stuck.stdout.readline())  # the last that is read
        port = int(ready["origin"].rsplit(":", 1)[1])
        with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            for _ in range(200):
                connection.request("GET", "/fn/local/loud")
                response = connection.getresponse()
                assert (response.status, response.read()) == (200, b"fine")
        began = time.monotonic()
        stuck.send_signal(signal.SIGTERM)
        assert stuck.wait(5) == 0
        assert time.monotonic() - began < 1.0
    finally:
        stuck.kill()
        stuck.wait()
        stuck.stdout.close()


def test_beyond_loopback_a_token_is_needed(folder: Path, data_home: Path) -> None:
    """With --token the server listens wider and warns; callers from outside have to know it."""
    options = ("--ephemeral", "--no-watch", "--host", "0.0.0.0", "--token", "s3cret")
    with Dev(folder, *options, data_home=data_home) as server:
        assert "knows the token" in server.said("listening on 0.0.0.0")
        assert server.get("/fn/local/hello").status == 200
        outside = [
            address.address
            for addresses in psutil.net_if_addrs().values()
            for address in addresses
            if address.family.name == "AF_INET" and not address.address.startswith("127.")
        ]
        if not outside:
            pytest.skip("this machine has no address beyond loopback")
        for fields, status in (({}, 401), ({"Amba-Run-Token": "s3cret"}, 200)):
            connection = HTTPConnection(f"{outside[0]}:{server.port}", timeout=5)
            with contextlib.closing(connection):
                connection.request("GET", "/fn/local/hello", headers=fields)
                assert connection.getresponse().status == status


def test_pages_of_other_sites_are_turned_away(folder: Path, data_home: Path) -> None:
    """403 without a body, told once; allowed origins and this machine's are answered (T10)."""
    (folder / "who.js").write_text(function("request.headers.get('x-amba-user-id')"))
    options = ("--ephemeral", "--no-watch", "--as", "user:u_1")
    allowed = ("--allow-origin", "https://app.example")
    with Dev(folder, *options, *allowed, data_home=data_home) as dev:
        for origin, status, text in (
            ("https://evil.example", 403, ""),
            ("null", 403, ""),
            ("https://app.example", 200, "u_1"),
            ("http://localhost:3000", 200, "u_1"),
        ):
            for method in ("GET", "POST"):
                sent = {"Origin": origin, "Sec_Fetch_Site": "cross-site"}
                answer = dev.get("/fn/local/who", method=method, **sent)
                assert (answer.status, answer.text) == (status, text), origin
        assert dev.get("/v1/admin/projects", Sec_Fetch_Site="cross-site").status == 403
        assert dev.ask("who", Origin="https://evil.example") == ""
        assert dev.ask("who") == "u_1"
        dev.said("--allow-origin https://evil.example")


def test_too_many_at_once_wait_and_are_refused(folder: Path, data_home: Path) -> None:
    """A function's `concurrency`: the next waits for its turn, 100 at most; then 429 at once
    with Retry-After (reliability.md 2.3).
    """
    (folder / "held.js").write_text(
        "const held = [];\nexport default { async fetch(request) {\n"
        "  if (new URL(request.url).pathname === '/free') for (const go of held) go();\n"
        "  else await new Promise((done) => held.push(done));\n"
        "  return new Response('held');\n} };\n"
    )
    (folder / "amba.toml").write_text("[functions.held.limits]\nconcurrency = 2\n")
    with Dev(folder, "--ephemeral", "--no-watch", data_home=data_home) as dev:
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
            for _ in range(2 + limits.PROJECT_WAITING.value + 1):
                client = stack.enter_context(RawClient(dev.port))
                client.begin("GET", "/fn/local/held")
                selector.register(client.socket, selectors.EVENT_READ, client)
            ((key, _),) = selector.select(timeout=4)
            refusal = key.data.answer()
            assert refusal.status == 429
            assert json.loads(refusal.body)["error"]["code"] == "concurrency_limit"
            assert int(refusal.header("retry-after")) >= 1
        assert dev.ask("hello")  # its neighbour was not concerned

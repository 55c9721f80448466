"""What functions reach from a server as a user runs it: walls, allowlists, secrets, traces."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.run.noding import NodeProcess
from tests.run.serving import Dev

pytestmark = pytest.mark.slow

CANARY = "sk_live_canary_0123456789"
ASK = """
export default { async fetch(request, env) {
  const url = new URL(request.url).searchParams.get("url");
  try {
    const answer = await fetch(url, { headers: { authorization: "Bearer " + env.KEY } });
    return Response.json({ status: answer.status, text: await answer.text(), key: env.KEY });
  } catch (e) { return Response.json({ error: e.message, key: env.KEY }); }
} };
"""
LOOP = """
export default { async fetch(request, env) {
  const depth = Number(new URL(request.url).searchParams.get("depth") ?? 0);
  const answer = await fetch(env.AMBA_API_URL + "/fn/SLUG/loop?depth=" + (depth + 1));
  if (answer.status === 200) return answer;
  return Response.json({ depth, status: answer.status, said: await answer.json() });
} };
"""


class Upstream:
    """A server on loopback that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.port = 0

    @contextmanager
    def open(self) -> Generator[Upstream]:
        asked = self.asked

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append({"path": self.path} | {n.lower(): v for n, v in self.headers.items()})
                body = f"you sent {self.headers['authorization']}".encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture
def upstream() -> Generator[Upstream]:
    with Upstream().open() as it:
        yield it


def asked(get: Callable[[str], str], url: str) -> Any:
    return json.loads(get(f"?url={url}"))


def test_dev_denies_loopback_and_says_what_opens_it(tmp_path: Path, upstream: Upstream) -> None:
    """The same walls as on a node, with the pasteable line; opened by it, a secret goes to the
    host that is named for it and to nobody else (issue 4 item 4; rows G13, G14)."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "ask.js").write_text(ASK)
    (folder / "listed.js").write_text(ASK)
    (folder / ".dev.vars").write_text(f"KEY={CANARY}\n")
    at = f"localhost:{upstream.port}"
    with Dev(folder, data_home=tmp_path / "data") as dev:
        told = asked(lambda rest: dev.ask("ask", rest), f"http://{at}/")
        assert "Network connection lost" in told["error"]
        said = dev.said("egress")
        assert f'[egress] allow = ["{at}"]' in said
        assert "function ask" in said
    assert upstream.asked == []
    (folder / "amba.toml").write_text(
        f'[egress]\nallow = ["{at}", "127.0.0.1:{upstream.port}"]\n'
        f'[functions.ask.egress.secrets]\nKEY = ["{at}"]\n'
        '[functions.listed.egress]\nonly = ["api.stripe.com"]\n'
    )
    with Dev(folder, data_home=tmp_path / "data") as dev:

        def ask(rest: str) -> str:
            return dev.ask("ask", rest)

        told = asked(ask, f"http://{at}/one")
        assert told["key"].startswith("amba_placeholder_")
        assert told["text"] == f"you sent Bearer {told['key']}"
        other = asked(ask, f"http://127.0.0.1:{upstream.port}/two")
        told = asked(lambda rest: dev.ask("listed", rest), f"http://{at}/three")
        assert "Network connection lost" in told["error"]
        assert "is not on this function's own allowlist" in dev.said("function listed")
        everything = "\n".join([*dev.lines, *dev.talk])
    assert [(one["path"], one["authorization"]) for one in upstream.asked] == [
        ("/one", f"Bearer {CANARY}"),
        ("/two", f"Bearer {other['key']}"),
    ]
    assert CANARY not in everything


def test_a_function_that_calls_itself_ends_at_the_depth(tmp_path: Path) -> None:
    """508 to the caller at `trace_depth`, and the whole chain answers (row E29)."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "loop.js").write_text(LOOP.replace("SLUG", "local"))
    (folder / "amba.toml").write_text("[functions.loop.limits]\ntrace_depth = 5\n")
    with Dev(folder, data_home=tmp_path / "data") as dev:
        said = json.loads(dev.ask("loop"))
        assert said["status"] == 508
        assert said["said"]["error"]["code"] == "loop_detected"
        assert said["depth"] == 4
        assert json.loads(dev.ask("loop"))["depth"] == 4  # each request from outside starts anew


def test_a_nodes_rules_come_with_the_deploy_and_stay(tmp_path: Path, upstream: Upstream) -> None:
    """Deployed, restarted: the placeholder in env, the value at the host, nothing in the log
    (row G14)."""
    at = f"localhost:{upstream.port}"
    options = ("--allow-egress", at)
    rules = {"only": [at], "secrets": {"KEY": [at]}}
    with NodeProcess(tmp_path / "state", *options, data_home=tmp_path / "data") as node:
        node.admin("POST", "/secrets", {"name": "KEY", "value": CANARY})
        assert node.deploy("ask", ASK, egress=rules)["egress"] == rules
        told = json.loads(node.call("ask", f"?url=http://{at}/one").text)
        assert told["key"].startswith("amba_placeholder_")
        lines = [*node.lines, *node.talk]
        pat, project = node.pat, node.project
    with NodeProcess(
        tmp_path / "state", *options, data_home=tmp_path / "data", pat=pat, project=project
    ) as node:
        told = json.loads(node.call("ask", f"?url=http://{at}/two").text)
        assert told["key"].startswith("amba_placeholder_")
        lines += [*node.lines, *node.talk]
    assert [one["authorization"] for one in upstream.asked] == [f"Bearer {CANARY}"] * 2
    assert CANARY not in "\n".join(lines)


def test_a_limit_that_a_function_passes_is_one_event(tmp_path: Path) -> None:
    """`subrequests` and `log_kib` are kept beside the guest, and told like all others (M3)."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "many.js").write_text(
        "export default { async fetch(request, env) {\n"
        "  for (let i = 0; i < 100; i++) console.log('x'.repeat(100));\n"
        "  const all = [1, 2, 3, 4].map(() => fetch(env.AMBA_API_URL + '/healthz'));\n"
        "  const told = await Promise.allSettled(all);\n"
        "  return Response.json(told.map((t) => t.status)); } };\n"
    )
    (folder / "amba.toml").write_text("[functions.many.limits]\nsubrequests = 2\nlog_kib = 1\n")
    with Dev(folder, data_home=tmp_path / "data") as dev:
        answer = dev.get("/fn/local/many")
        assert json.loads(answer.text) == ["fulfilled"] * 2 + ["rejected"] * 2
        told = dev.event("limit", limit="subrequests")
        assert {k: told[k] for k in ("used", "most", "action", "function")} == {
            "used": 3,
            "most": 2,
            "action": "refused",
            "function": "many",
        }
        cut = dev.event("limit", limit="log_kib")
        assert (cut["used"], cut["most"], cut["action"]) == (2, 1, "cut")
        assert told["request_id"] == cut["request_id"] != ""
        assert len([e for e in dev.events if e.get("event") == "limit"]) == 2

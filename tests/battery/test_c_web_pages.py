"""Group C: web pages against a developer's laptop (reliability.md 3.C; T10), rows C1 to C7."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import socket
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tests.battery.browser import Site, Switch, find_browser, page, visit
from tests.e2e.raw_http import Answer, BrokenTransfer, RawClient
from tests.run.noding import NodeProcess
from tests.run.serving import Dev, run_cli

pytestmark = pytest.mark.battery

# the worst that a function can be: it writes for everybody, and shows it to every origin
SAVE = """
export default { async fetch(request, env) {
  await env.STORAGE.put(crypto.randomUUID(), request.url);
  return new Response(request.headers.get("x-amba-developer-id") || "nobody",
    { headers: { "access-control-allow-origin": "*" } });
} };
"""
WAYS = 24


@dataclass(frozen=True, slots=True)
class Laptop:
    """What a developer may have running, with their own persona in force."""

    dev: Dev
    node: NodeProcess
    metrics_port: int
    dev_state: Path
    node_state: Path

    def state(self) -> dict[str, str]:
        """Path -> SHA-256 of every file that both keep."""
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for folder in (self.dev_state, self.node_state)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def invoked(self) -> list[str]:
        """Paths of the dev server's invocations so far, once all are told: ours ends them."""
        mark = self.dev.mark()
        self.dev.ask("quiet")
        self.dev.event("request", since=mark, function="quiet")
        return [e["path"] for e in self.dev.events if e["event"] == "request"]


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """A dev server that gives callers a developer's persona, and a node with its metrics."""
    data_home = tmp_path_factory.mktemp("data")
    folder = tmp_path_factory.mktemp("functions")
    (folder / "save.js").write_text(SAVE)
    (folder / "quiet.js").write_text("export default { fetch: () => new Response('quiet') }")
    dev_state, node_state = data_home / "dev", data_home / "node"
    options = ("--no-watch", "--as", "developer:d_1", "--state", str(dev_state))
    with (
        Dev(folder, *options, data_home=data_home) as dev,
        NodeProcess(node_state, "--metrics-listen", "127.0.0.1:0", data_home=data_home) as node,
    ):
        said = node.said("metrics: http://")
        metrics_port = int(said.rpartition("/metrics")[0].rpartition(":")[2])
        node.deploy("save", SAVE)
        assert dev.ask("save") == "d_1"
        assert node.call("save").status == 200
        yield Laptop(dev, node, metrics_port, dev_state, node_state)
    for server in (dev, node):
        assert not [line for line in server.talk if "Traceback" in line]


class Client(RawClient):
    """A raw connection to either loopback address."""

    def __init__(self, address: str, port: int) -> None:
        self.socket = socket.create_connection((address, port), timeout=10)
        self._rest = b""


def knock(port: int, lines: list[str], *, family: int = socket.AF_INET) -> Answer | None:
    """One raw request; None where the connection was closed without an answer."""
    address = "127.0.0.1" if family == socket.AF_INET else "::1"
    with (
        contextlib.suppress(BrokenTransfer, ConnectionError),
        Client(address, port) as client,
    ):
        client.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        return client.answer()
    return None


# C1


def foreign_names(rng: random.Random, port: int) -> list[str | None]:
    """200 Host values that a page's author may choose, and None for none at all."""
    tricks: list[str | None] = [
        *(None, "", "evil.com", f"evil.com:{port}", "EVIL.COM.", "localhost.evil.com"),
        *(f"localhost.evil.com:{port}", "127.0.0.1.nip.io", f"127.0.0.1.nip.io:{port}"),
        *("0.0.0.0", f"0.0.0.0:{port}", "[::]", f"[::]:{port}", "[::ffff:7f00:1]"),
        *(f"[::ffff:127.0.0.1]:{port}", "192.168.1.5", f"10.0.0.7:{port}", "172.17.0.1"),
        *("169.254.169.254", "127.0.0.2", "127.1", "2130706433", "0x7f000001", "0177.0.0.1"),
        *("localhost.localdomain", "notlocalhost", "local-fn.localhost.evil.com"),
        *("local.fn.localhost.evil.com", "fn.localhost", "cdn.localhost", "a.b.fn.localhost"),
        *("localhost@evil.com", "evil.com#localhost", "localhost, evil.com", "evil.com/localhost"),
        *("localhost:", "localhost:0", "localhost:99999", "localhost:80a", "localhost..", "..."),
        *("xn--lcalhost-9xa.com", "localhost%00.evil.com", "lоcalhost".encode().decode("latin-1")),
        *("[::1", "::1", "[::1]evil.com", "[::1%25lo]", "amba.test", "host.docker.internal"),
    ]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789-"
    while len(tricks) < 200:
        labels = ["".join(rng.choices(letters, k=rng.randint(1, 20))) for _ in range(3)]
        suffix = rng.choice(["com", "localhost.com", "fn.localhost.io", "test", "local"])
        tricks.append(".".join(labels).replace("-", "x") + f".{suffix}" + rng.choice(["", ":80"]))
    return tricks


def test_c1_no_listener_answers_for_another_name(laptop: Laptop, rng: random.Random) -> None:
    """C1: 200 foreign names on each of 4 listeners: 400 or 421 before routing, without a body of
    ours; nothing is invoked (interface.md 1).
    """
    before = laptop.invoked()
    asked = 0
    for port, family, targets in (
        (laptop.dev.port, socket.AF_INET, ("/fn/local/save", "/v1/admin/projects", "/healthz")),
        (laptop.dev.port, socket.AF_INET6, ("/fn/local/save", "/save")),
        (laptop.node.port, socket.AF_INET, ("/v1/admin/projects", "/fn/acme/save", "/metrics")),
        (laptop.metrics_port, socket.AF_INET, ("/metrics",)),
    ):
        for i, host in enumerate(foreign_names(rng, port)):
            target = targets[i % len(targets)]
            lines = [f"GET {target} HTTP/1.1"] + ([] if host is None else [f"Host: {host}"])
            answer = knock(port, lines, family=family)
            if answer is not None:
                assert answer.status in (400, 421), (host, answer)
                assert answer.status == 400 or answer.body == b"", host
                assert answer.all("access-control-allow-origin") == []
            asked += 1
    assert asked == 800
    assert laptop.invoked() == [*before, "/"]
    print(f"C1: {asked} requests, 0 answered")


# C3, C4, C5 without a browser: what one would send


@pytest.mark.parametrize("crosses", ["cross-site", ""], ids=["browser", "old-browser"])
def test_c3_what_pages_can_send_changes_nothing(laptop: Laptop, crosses: str) -> None:
    """C3: 24 requests as pages can make them, to the platform API, each with the person's own
    loopback address: 401, 403, 405, 415 or 501; the state directories stay as they are.
    """
    project = laptop.node.project
    bodies = {
        "application/x-www-form-urlencoded": b"name=evil&slug=evil",
        "text/plain": b'{"name": "evil"}',
        "multipart/form-data; boundary=x": b'--x\r\ncontent-disposition: form-data; name="metadata"'
        b'\r\n\r\n{"name":"evil"}\r\n--x--\r\n',
        "": b"",
    }
    overrides = [{}, {"X-HTTP-Method-Override": "DELETE"}, {"X-HTTP-Method": "PUT"}]
    paths = ["/v1/admin/projects", f"/v1/admin/projects/{project}/functions/deploy"]
    before = laptop.state()
    count = 0
    for port in (laptop.node.port, laptop.dev.port):
        for path in paths:
            for kind, body in bodies.items():
                for override in overrides:
                    fields = {"Origin": "http://evil.test", **override}
                    fields |= {"Content-Type": kind} if kind else {}
                    if crosses:
                        fields |= {"Sec-Fetch-Site": crosses, "Sec-Fetch-Mode": "no-cors"}
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                    connection.request("POST" if kind else "GET", path, body or None, fields)
                    answer = connection.getresponse()
                    said = answer.read()
                    connection.close()
                    expected = (401, 403, 405, 415, 501)
                    assert answer.status in expected, (port, path, kind, override, said)
                    count += 1
    assert count == 2 * WAYS
    assert laptop.state() == before
    print(f"C3: {count} requests, 0 side effects")


def test_the_api_wants_a_token_even_on_loopback(laptop: Laptop) -> None:
    """T10: of all operations of the platform API none answers without a token; what does is
    health, readiness and the API's own description.
    """
    document = json.loads(laptop.node.get("/v1/openapi.json").body)
    before = laptop.state()
    asked = 0
    for path, operations in document["paths"].items():
        target = path.replace("{project_id}", laptop.node.project).replace("{", "").replace("}", "")
        for method, operation in operations.items():
            answer = laptop.node.get(target, method=method.upper())
            # one takes the token that it is asked about in its body, and none is there; what is
            # presigned wants its signature
            presigned = path.startswith("/v1/client/storage/objects/")
            expected = 401 if operation["security"] else 403 if presigned else 400
            assert answer.status == expected, (method, path, answer.text)
            asked += 1
    assert asked >= 15
    open_ = {
        path
        for path in ("/healthz", "/health", "/readyz", "/metrics", "/", "/_amba/", "/ai/", "/v1")
        if laptop.node.get(path).status == 200
    }
    assert open_ == {"/healthz", "/health", "/readyz"}
    for path, status in (
        *(("/v1/admin/projects", 401), ("/client/users/me", 401), ("/ai/embeddings", 405)),
        *(("/client/x", 404), ("/auth/login", 404), ("/ai/v1", 404), ("/webhooks/x", 501)),
    ):
        assert laptop.dev.get(path).status == status, path
    assert laptop.state() == before


ORIGINS = [
    *("null", "https://evil.example", "http://evil.example", "http://localhost.evil.example"),
    *("http://evil.example:8787", "http://127.0.0.1.nip.io", "http://0.0.0.0", "file://"),
    *("http://[::ffff:127.0.0.1]", "http://192.168.1.5:3000", "chrome-extension://abcdef"),
    *("http://localhost@evil.example", "https://console.amba.dev", "http://notlocalhost"),
    *("http://localhost", "http://localhost:3000", "http://127.0.0.1", "http://[::1]:5173"),
    *("http://local.fn.localhost", "http://fn.localhost:80"),
]


@pytest.mark.parametrize("origin", ORIGINS)
def test_c4_nothing_of_ours_is_shared_with_another_origin(laptop: Laptop, origin: str) -> None:
    """C4: 20 origins: no `Access-Control-Allow-*` on health, metrics, errors or the admin plane,
    preflight or not, with the token or without.
    """
    paths = ["/healthz", "/readyz", "/metrics", "/v1/admin/projects", "/v1/nope", "/nope"]
    paths += ["/fn/nope/nope", "/openapi.json"]
    for server in (laptop.dev, laptop.node):
        for path in paths:
            for method in ("GET", "OPTIONS"):
                for token in (None, laptop.node.pat):
                    fields = {"Origin": origin, "Access-Control-Request-Method": "POST"}
                    fields |= {"Authorization": f"Bearer {token}"} if token else {}
                    answer = server.get(path, method=method, **_underscored(fields))
                    shared = [n for n in answer.headers if n.startswith("access-control-")]
                    assert shared == [], (path, method)


def _underscored(fields: dict[str, str]) -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in fields.items()}


UPGRADE = [
    *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
]


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        (["Origin: http://evil.test"], True),
        (["Origin: null"], True),
        (["Origin: http://localhost.evil.test"], True),
        (["Origin: https://127.0.0.1.nip.io"], True),
        (["Origin: http://evil.test", "Sec-Fetch-Site: cross-site"], True),
        (["Origin: http://evil.test", "Sec-Fetch-Site: same-origin"], True),
        (["Sec-Fetch-Site: cross-site"], True),
        (["Origin: http://localhost:3000"], False),
        (["Origin: http://127.0.0.1"], False),
        ([], False),
    ],
)
def test_c5_websockets_of_other_sites_are_refused(
    laptop: Laptop, fields: list[str], refused: bool
) -> None:
    """C5: foreign and `null` origins get 403 before any function hears of it; this machine's
    pages and programs without an Origin reach it (which here opens none: 200).
    """
    before = laptop.invoked()
    head = ["GET /fn/local/save HTTP/1.1", f"Host: 127.0.0.1:{laptop.dev.port}"]
    answer = knock(laptop.dev.port, [*head, *UPGRADE, *fields])
    assert answer is not None
    assert answer.status == (403 if refused else 200), answer
    came = laptop.invoked()[len(before) :]
    assert came == (["/"] if refused else ["/", "/"])


@pytest.mark.parametrize("target", ["/json/version", "/json/list", "/_amba/", "/_amba/events"])
def test_c5_there_is_no_inspector(laptop: Laptop, target: str) -> None:
    """C5: off by default: no debugger and no console answers, whoever asks."""
    for server in (laptop.dev, laptop.node):
        assert server.get(target).status == 404
        assert server.get(target, Accept="text/event-stream").status == 404
    listening = listeners(laptop.dev.process.pid)
    assert {port for _, port in listening} == {laptop.dev.port}


def test_a_foreign_page_is_nobody(laptop: Laptop) -> None:
    """The persona of `--as` is for programs and this machine's pages: a page of another site
    that follows a link is nobody (T10).
    """
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert laptop.dev.ask("save") == "d_1"
    assert laptop.dev.ask("save", Origin="http://localhost:3000") == "d_1"
    assert laptop.dev.ask("save", Origin="https://evil.example") == "nobody"
    assert laptop.dev.ask("save", Sec_Fetch_Dest="document", **link) == "nobody"


# C6, C7


def listeners(pid: int) -> set[tuple[str, int]]:
    """(address, port) of the TCP sockets that a process and its descendants listen on."""
    inodes: set[str] = set()
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{process.pid}/fd"):
                with contextlib.suppress(OSError):
                    inodes.add(os.readlink(entry.path).removeprefix("socket:[").rstrip("]"))
    found: set[tuple[str, int]] = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            column = line.split()
            if column[3] == "0A" and column[9] in inodes:
                host, _, port = column[1].partition(":")
                raw = bytes.fromhex(host)
                words = [raw[i : i + 4][::-1] for i in range(0, len(raw), 4)]
                found.add((socket.inet_ntop(family, b"".join(words)), int(port, 16)))
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no /proc/net/tcp here")
def test_c6_only_loopback_is_listened_on(laptop: Laptop) -> None:
    """C6: /proc/net/tcp and tcp6 hold 127.0.0.1 and ::1 and nothing else of ours."""
    assert listeners(laptop.dev.process.pid) <= {
        ("127.0.0.1", laptop.dev.port),
        ("::1", laptop.dev.port),
    }
    assert ("127.0.0.1", laptop.dev.port) in listeners(laptop.dev.process.pid)
    assert {host for host, _ in listeners(laptop.node.process.pid)} <= {"127.0.0.1", "::1"}


def test_c6_beyond_loopback_needs_a_token_and_warns(tmp_path: Path) -> None:
    """C6: `--host 0.0.0.0` without `--token` does not start; another address with one warns, and
    who comes from there without the token gets 401.
    """
    (tmp_path / "f.js").write_text("export default { fetch: () => new Response('f') }")
    for host in ("0.0.0.0", "::", "127.0.0.2"):
        done = run_cli(
            "dev", str(tmp_path), "--host", host, "--port", "0", "--ephemeral", data_home=tmp_path
        )
        assert done.returncode == 1
        assert "UNSAFE_LISTEN" in done.stderr
        assert "--token" in done.stderr
    options = ("--host", "127.0.0.2", "--token", "s3cret", "--ephemeral", "--no-watch")
    with Dev(tmp_path, *options, data_home=tmp_path) as dev:
        assert "whoever reaches this port" in dev.said("listening on 127.0.0.2")
        assert {host for host, _ in listeners(dev.process.pid)} == {"127.0.0.2"}


def test_c7_tokens_and_sockets_are_this_persons_alone(laptop: Laptop, tmp_path: Path) -> None:
    """C7: files 0600, folders 0700, no token in any argv or environment of a child, sockets in
    no folder that others may write, names not guessable, the same token for one state directory.
    """
    told = laptop.dev.ready["keys"]
    tokens = [told["pat"], told["server"], laptop.node.pat]
    for state in (laptop.dev_state, laptop.node_state):
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        for path in state.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_IMODE((laptop.dev_state / "dev.json").stat().st_mode) == 0o600
    sockets: set[Path] = set()
    for server in (laptop.dev, laptop.node):
        for process in (psutil.Process(server.process.pid), *server.descendants()):
            argv = " ".join(process.cmdline())
            environ = json.dumps(process.environ())
            for token in tokens:
                assert token not in argv
                assert token not in environ
            for connection in process.net_connections(kind="unix"):
                if str(connection.laddr).startswith("/"):
                    sockets.add(Path(str(connection.laddr)))
    assert sockets
    temporary = Path(tempfile.gettempdir())
    for path in sockets:
        above = [p for p in path.parents if p.is_relative_to(temporary) and p != temporary]
        for folder in above:
            mode = stat.S_IMODE(folder.stat().st_mode)
            assert mode & 0o022 == 0, f"{folder}: others may write it"
        assert above[-1].stat().st_uid == os.geteuid()
        assert len(above[-1].name.removeprefix("amba-")) >= 8, "not to be guessed"
    (tmp_path / "f.js").write_text("export default { fetch: () => new Response('f') }")
    pats: list[str] = []
    for _ in range(2):
        options = ("--no-watch", "--state", str(tmp_path / "state"))
        with Dev(tmp_path, *options, data_home=tmp_path) as dev:
            pats.append(dev.ready["keys"]["pat"])
    assert pats[0] == pats[1]


# with a browser

BROWSER = find_browser()
browser = pytest.mark.skipif(not BROWSER, reason="no Chromium here: apt-get install chromium")


@pytest.fixture
def site() -> Iterator[Site]:
    """Another site, as the browser sees it: `evil.test`."""
    place = Site()
    try:
        yield place
    finally:
        place.close()


@browser
@pytest.mark.timeout(180)
def test_c3_a_page_in_a_browser_changes_nothing(laptop: Laptop, site: Site) -> None:
    """C3, C4, C5: 24 ways and a WebSocket from another site's page in Chromium, at a function that
    writes for everybody and at the API: 0 invocations, 0 side effects in the state directories,
    nothing read. The same page from this machine does reach the function: the ways work.
    """
    function = f"http://127.0.0.1:{laptop.dev.port}/fn/local/save"
    named = f"http://local.fn.localhost:{laptop.dev.port}/save"
    api = f"http://127.0.0.1:{laptop.node.port}/v1/admin/projects"
    script = f"""
    await attack("function", "{function}");
    await attack("named", "{named}");
    await attack("api", "{api}");
    await attempt("socket", () => socket("{function}".replace("http", "ws")));
    await report("{{site}}/result");
    """
    before, invoked = laptop.state(), laptop.invoked()
    site.pages["/"] = page(script.replace("{site}", site.origin), site.origin)
    seen = visit(BROWSER, f"{site.origin}/", site)
    assert len(seen) == 3 * WAYS + 1
    assert laptop.invoked() == [*invoked, "/"]
    assert laptop.state() == before
    read = {name: what for name, what in seen.items() if what.startswith("read ")}
    assert read == {}
    assert seen["socket"] == "refused"
    assert laptop.dev.said(f"a web page ({site.origin}) tried to call")

    own = Site("127.0.0.1")
    try:
        short = f"""
        await attack("function", "{function}");
        await report("{own.origin}/result");
        """
        own.pages["/"] = page(short, own.origin)
        visit(BROWSER, f"{own.origin}/", own)
    finally:
        own.close()
    came = laptop.invoked()[len(invoked) + 1 :]
    ways = {path.partition("way=")[2].partition("&")[0] for path in came if "way=" in path}
    assert len(ways) >= WAYS - 2, ways
    assert laptop.state() != before
    print(f"C3: {len(seen)} attacks, 0 side effects; {len(ways)} of {WAYS} ways work from here")


@browser
@pytest.mark.timeout(180)
@pytest.mark.parametrize("which", ["dev", "node"])
def test_c2_a_name_that_comes_to_mean_this_machine_opens_nothing(
    laptop: Laptop, site: Site, which: str
) -> None:
    """C2: a page of evil.test:PORT whose name then means 127.0.0.1 talks to us as to itself:
    every one of its 6 requests is refused for its Host (or its Origin), 0 side effects.
    """
    port = laptop.dev.port if which == "dev" else laptop.node.port
    script = f"""
    const headers = {{ "content-type": "application/json" }};
    const json = {{ method: "POST", headers, body: "{{}}" }};
    const ways = {{
      function: () => read("/fn/local/save", {{ method: "POST" }}),
      acme: () => read("/fn/acme/save"),
      api: () => read("/v1/admin/projects"),
      create: () => read("/v1/admin/projects", json),
      health: () => read("/healthz"),
      socket: () => socket("ws://evil.test:{port}/fn/local/save"),
    }};
    for (const [name, work] of Object.entries(ways)) await attempt(name, work);
    await report("{site.origin}/result");
    """
    before, invoked = laptop.state(), laptop.invoked()
    switch = Switch(port, page(script, site.origin))
    try:
        seen = visit(BROWSER, f"http://evil.test:{port}/__evil", site)
    finally:
        switch.close()
    assert seen.pop("socket") == "refused"
    assert seen == dict.fromkeys(("function", "acme", "api", "create", "health"), "read 421 ")
    # a browser asks again after 421, on a connection of its own
    assert len(switch.statuses) >= 6
    assert set(switch.statuses) <= {421, 403}
    assert laptop.invoked() == [*invoked, "/"]
    assert laptop.state() == before

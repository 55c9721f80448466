"""Groups H and M: secrets are where they are used, and nowhere else that anybody can look."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.run.noding import NodeProcess, upload
from tests.run.serving import Dev, Server, run_cli

pytestmark = [pytest.mark.battery, pytest.mark.slow]

FUNCTION = """
let kept = null;
export default { async fetch(request, env) {
  kept ??= Object.values(env).join("|").length;
  const { pathname, searchParams } = new URL(request.url);
  if (pathname === "/throw") throw new Error("as asked");
  if (pathname === "/undefined") return undefined;
  if (pathname === "/spin") for (;;) ;
  if (pathname === "/fetch") {
    try { return await fetch(searchParams.get("to"), { headers: { authorization: env.OUTSIDE } }); }
    catch (e) { return new Response(e.message, { status: 502 }); }
  }
  return Response.json({ plain: env.PLAIN?.length, outside: env.OUTSIDE?.slice(0, 17) });
} };
"""


class Canaries:
    """What was planted, by a name that may be shown."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def plant(self, name: str) -> str:
        """A value of its own, long enough to stand nowhere by chance."""
        return self.note(name, f"canary-{name.lower()}-{os.urandom(12).hex()}")

    def note(self, name: str, value: str) -> str:
        """One that somebody else made up."""
        assert len(value) >= 16, name
        self._values[name] = value
        return value

    def found_in(self, data: bytes | str) -> set[str]:
        """The names of those that stand in a text, in any of the ways a text is written."""
        raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        return {name for name, value in self._values.items() if value.encode() in raw}

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def family(server: Server) -> list[psutil.Process]:
    """The server and everything below it."""
    top = psutil.Process(server.process.pid)
    return [top, *top.children(recursive=True)]


def everybody() -> Iterator[psutil.Process]:
    yield from psutil.process_iter()


def said_to_the_system(processes: Iterable[psutil.Process]) -> Iterator[tuple[str, bytes]]:
    """Arguments and environment, as anybody with the right to look sees them."""
    for process in processes:
        for file in ("cmdline", "environ", "comm"):
            try:
                yield f"{process.pid}/{file}", Path(f"/proc/{process.pid}/{file}").read_bytes()
            except OSError:
                continue  # it has ended, or is a thread of the kernel


def files(*roots: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below, and what is compressed in it."""
    for root in roots:
        for path in root.rglob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            try:
                data = path.read_bytes()
            except OSError:
                continue
            yield path, data
            if data[:2] == b"\x1f\x8b":
                yield path, gzip.decompress(data)


def memory(pid: int) -> bytes:
    """What an engine holds that is its own: private, writable, and there."""
    parts: list[bytes] = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if match is None:
                continue
            first, last = int(match[1], 16), int(match[2], 16)
            for at in range(first, min(last, first + (64 << 20)), 1 << 20):
                try:
                    mem.seek(at)
                    parts.append(mem.read(min(1 << 20, last - at)))
                except (OSError, ValueError):
                    continue
    return b"\n".join(parts)


def engines(server: Server) -> list[psutil.Process]:
    return [p for p in family(server) if p.name().startswith("workerd")]


class Talk:
    """Everything that a server answered."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self.answers: list[bytes] = []

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._node.port, timeout=30)
        try:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, fields)
            response = connection.getresponse()
            head = "\n".join(f"{n}: {v}" for n, v in response.getheaders()).encode()
            data = response.read()
            self.answers += [head, data]
            return response.status, data
        finally:
            connection.close()


@pytest.mark.timeout(300)
def test_planted_secrets_are_found_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """H9, M2: secrets of two projects, tokens, signing keys: 0 in arguments, environments, logs,
    error bodies, files of the node, and (those that stay outside) in the engine's own memory."""
    planted = Canaries()
    plain, outside = planted.plant("PLAIN"), planted.plant("OUTSIDE")
    other = planted.plant("OTHER")
    state, runtime = tmp_path / "state", tmp_path / "run"
    runtime.mkdir()
    environment = {"TMPDIR": str(runtime), "XDG_RUNTIME_DIR": str(runtime)}
    options = ("--log-level", "debug") if _has_log_level() else ()
    with NodeProcess(state, *options, data_home=tmp_path / "data", environment=environment) as node:
        talk = Talk(node)
        planted.note("PAT", node.pat)
        bearer = f"Bearer {node.pat}"
        node.admin("POST", "/secrets", {"name": "PLAIN", "value": plain})
        node.admin("POST", "/secrets", {"name": "OUTSIDE", "value": outside})
        rules = {"secrets": {"OUTSIDE": ["api.stripe.com"]}}
        node.deploy("f", FUNCTION, egress=rules, limits={"cpu_ms": 200})
        second = node.api("POST", "/admin/projects", {"name": "Bravo"})["data"]
        node.api(
            "POST", f"/admin/projects/{second['id']}/secrets", {"name": "PLAIN", "value": other}
        )
        kind, body = upload("g", FUNCTION)
        path = f"/v1/admin/projects/{second['id']}/functions/deploy"
        assert node.send("POST", path, body, Content_Type=kind).status == 201
        _note_credentials(planted, node, node.project, "MINE")
        _note_credentials(planted, node, second["id"], "THEIRS")

        # what works, and what goes wrong in every way that answers or logs
        assert json.loads(node.call("f").body) == {
            "plain": len(plain),
            "outside": "amba_placeholder_",
        }
        assert node.get(f"/fn/{second['slug']}/g").status == 200
        for rest in ("throw", "undefined", "spin", "fetch?to=http://10.0.0.1/", "fetch?to=http:x"):
            talk.send("GET", f"/fn/acme/f/{rest}")
        for to in ("https://user:{}@10.0.0.1/{}?k={}", "http://127.0.0.1/{}#{}", "ftp://x/{}"):
            # an address that a function makes up of its secret, as one that leaks it would
            talk.send("GET", f"/fn/acme/f/fetch?to={to.format(*['placeholder'] * 3)}")
        base = f"/v1/admin/projects/{node.project}"
        json_ = "application/json"
        for name in ("bad name", "AMBA_X", "K" * 65, ""):
            value = json.dumps({"name": name, "value": plain}).encode()
            status, _ = talk.send(
                "POST", f"{base}/secrets", value, Authorization=bearer, Content_Type=json_
            )
            assert status == 400
        broken = json.dumps({"name": "KEY", "value": plain}).encode()[:-1]
        for raw in (broken, broken + b"]", b"[" + broken, b'{"value": "' + plain.encode()):
            talk.send("POST", f"{base}/secrets", raw, Authorization=bearer, Content_Type=json_)
        talk.send("GET", f"{base}/secrets", Authorization=bearer)
        talk.send("GET", f"{base}/functions", Authorization=bearer)
        for no_token in (f"{bearer}x", f"Basic {plain}", plain, f"Bearer {outside}"):
            status, _ = talk.send("GET", f"{base}/secrets", Authorization=no_token)
            assert status == 401
        for code in ("export default {", "import 'x'", "throw new Error('no')"):
            kind, body = upload("bad", code)
            status, _ = talk.send(
                "POST", f"{base}/functions/deploy", body, Authorization=bearer, Content_Type=kind
            )
            assert status >= 400
        talk.send("GET", f"{base}/functions/f/logs", Authorization=bearer)
        talk.send("GET", "/metrics")
        talk.send("GET", f"/{plain}", Host="x y")

        looked = 0
        wrong: dict[str, set[str]] = {}

        def look(where: str, data: bytes | str, *, but: frozenset[str] = frozenset()) -> None:
            nonlocal looked
            looked += 1
            if found := planted.found_in(data) - but:
                wrong[where] = found

        serving = engines(node)
        assert len(serving) == 2
        for where, data in said_to_the_system(everybody()):
            look(f"/proc/{where}", data)
        for index, answer in enumerate(talk.answers):
            look(f"answer {index}", answer)
        for found_in, data in files(tmp_path):
            look(str(found_in), data)
        for process in serving:
            limit = Path(f"/proc/{process.pid}/limits").read_text()
            assert re.search(r"Max core file size +0 +0 ", limit)
        held = {process.pid: planted.found_in(memory(process.pid)) for process in serving}
        mine = next(pid for pid, names in held.items() if "PLAIN" in names)
        theirs = next(pid for pid in held if pid != mine)
        assert "OUTSIDE" not in held[mine] | held[theirs]
        assert held[theirs] >= {"OTHER"}
        assert not held[mine] & {"OTHER", *(n for n in planted if n.startswith("THEIRS"))}
        assert not held[theirs] & {"PLAIN", *(n for n in planted if n.startswith("MINE"))}
        assert "PAT" not in held[mine] | held[theirs]
        node.process.terminate()
        node.process.wait(20)
        # a first start shows the developer's token, once, where it was asked to
        shown = frozenset({"PAT"})
        look("stdout", "\n".join(node.lines), but=shown)
        look("stderr", "\n".join(node.talk), but=shown)
    for found_in, data in files(tmp_path):
        look(str(found_in), data)
    assert wrong == {}
    print(f"H9: {len(planted)} canaries, {looked} places, 0 found")


def _note_credentials(planted: Canaries, node: NodeProcess, project: str, of: str) -> None:
    """What a project's functions and its router are given: planted by the node itself."""
    shown = node.api("GET", f"/admin/projects/{project}/internal-credentials")["data"]
    for kind in ("internal_token", "header_signing_secret"):
        planted.note(f"{of}-{kind}", shown[kind])


def _has_log_level() -> bool:
    from amba_run.cli.node import command

    return any("--log-level" in p.opts for p in command.params)


@pytest.mark.timeout(120)
def test_a_dev_server_keeps_a_secrets_file_to_itself(tmp_path: Path) -> None:
    """H9, C7: what stands in `.dev.vars` stands nowhere else: not in arguments, environments,
    output, the state folder, or a broken file's error."""
    planted = Canaries()
    plain, outside = planted.plant("PLAIN"), planted.plant("OUTSIDE")
    shop, data = tmp_path / "shop", tmp_path / "data"
    shop.mkdir()
    (shop / "f.js").write_text(FUNCTION)
    (shop / ".dev.vars").write_text(f"PLAIN={plain}\nOUTSIDE={outside}\n")
    (shop / "amba.toml").write_text('[functions.f.egress.secrets]\nOUTSIDE = ["api.stripe.com"]\n')
    wrong: dict[str, set[str]] = {}

    def look(where: str, text: bytes | str) -> None:
        if found := planted.found_in(text):
            wrong[where] = found

    with Dev(shop, data_home=data, environment={"TMPDIR": str(data)}) as dev:
        assert json.loads(dev.ask("f"))["outside"] == "amba_placeholder_"
        for rest in ("/throw", "/undefined", "/fetch?to=http://10.0.0.1/"):
            look(rest, dev.get(f"/fn/local/f{rest}").body)
        for where, text in said_to_the_system(everybody()):
            look(f"/proc/{where}", text)
        for path, text in files(data):
            look(str(path), text)
        (engine,) = [p for p in engines(dev) if "PLAIN" in planted.found_in(memory(p.pid))]
        assert planted.found_in(memory(engine.pid)) == {"PLAIN"}
        (shop / ".dev.vars").write_text(f"PLAIN={plain}\nbroken {outside}\n")
        dev.said("dev.vars")
        lines: list[Any] = [*dev.lines, *dev.talk]
    look("output", "\n".join(lines))
    (shop / ".dev.vars").write_text(f"{plain}\nAMBA_{outside.replace('-', '_').upper()}=x\n=x\n")
    done = run_cli("check", str(shop), data_home=data)
    look("check", done.stdout + done.stderr)
    assert wrong == {}

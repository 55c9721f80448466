"""Group F: what separates a function from the machine, and from other functions."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import psutil
import pytest
from tests.contract.hosted import Shop, make_shop
from tests.drills.nodes import NodeProcess, whole_life
from tests.run.serving import Dev, environment_of, run_cli

from amba_run import attack
from amba_runtime.engine.base import Surroundings
from amba_runtime.engine.workerd.engine import WorkerdEngine, find_workerd
from amba_runtime.engine.workerd.isolate import WorkerdIsolate
from amba_runtime.manifest import Bundle, FunctionName, Manifest, ProjectId
from amba_runtime.sandbox import Sandbox, escape
from amba_runtime.sandbox.escape import Verdict
from amba_runtime.sandbox.escape_steps import Bait, steps
from amba_runtime.spawner import Spawner
from amba_runtime.wire import Request, Response

FIXTURES = Path(__file__).parents[2] / "fixtures"
LAUNCHER = Path(__file__).with_name("launcher.py")
CODE = b"export default { fetch() { return new Response('well') } };"
TENANTS = 20
KEPT = "word-of-tenant"


class Counts(Protocol):
    """See conftest."""

    def __call__(self, *, pr: int, nightly: int) -> int: ...


async def _nothing(_request: Request) -> Response:
    return Response(404)


async def _isolate(engine: WorkerdEngine, project: str) -> WorkerdIsolate:
    around = Surroundings(_nothing, _nothing, lambda _label, _tell: None, lambda _ended: None)
    manifest = Manifest(
        ProjectId(project), FunctionName(f"{project}-fn"), 1, (), True, "2026-01-01"
    )
    isolate = await engine.start(manifest, Bundle.of(CODE), around)
    await isolate.describe()
    return isolate


def _at_tier(tier: int, engine: WorkerdEngine) -> None:
    if engine.sandbox.tier < tier:
        pytest.skip(f"no tier {tier} here: {'; '.join(engine.sandbox.notes)}")


@pytest.mark.parametrize("tier", [3, 2])
def test_the_escape_probe_gets_nothing(tier: int) -> None:
    """F1: every row refused as listed, in the engine's place, behind the same spawner and walls."""

    async def run() -> attack.Walls:
        engine = WorkerdEngine(program=find_workerd(), most=tier)
        try:
            await engine.open()
            _at_tier(tier, engine)
            return await attack.try_walls(engine)
        finally:
            await engine.close()

    walls = asyncio.run(run())
    assert (walls.tier, walls.fault) == (tier, "")
    bad = [f for f in walls.findings if f.verdict in (Verdict.HOLE, Verdict.OTHERWISE)]
    assert bad == []
    count = Counter(f.verdict for f in walls.findings)
    assert count[Verdict.REFUSED] >= 36
    assert count[Verdict.NEEDED] == 3
    known = [f.name for f in walls.findings if f.verdict is Verdict.KNOWN]
    assert len(known) <= 2, known
    print(f"tier {tier}: {dict(count)}; open by its table: {known}")
    print(f"tier {tier} answers: { {f.name: f.answer for f in walls.findings} }")


def test_the_tiers_differ_only_as_listed() -> None:
    """F1: the rows where tier 2 answers otherwise than tier 3, printed."""
    machine = escape.machine()
    if machine is None:
        pytest.skip("there is no probe for this machine")
    bait = Bait("/amba", "word", 1, ("/run/other.sock",), ("other",))
    rows = [(s.name, s.at3, s.at2) for s in steps(bait, machine) if s.at3 != s.at2]
    for name, at3, at2 in rows:
        print(f"{name.ljust(34)} tier 3: {at3.ljust(22)} tier 2: {at2}")
    holes = [name for name, at3, at2 in rows if "open" in at2.split() and at3 != "open"]
    assert holes == ["connect /run/other.sock"]


def test_each_row_gets_through_where_there_are_no_walls() -> None:
    """F1: the refusals are the walls' doing: bare, every row works, or reaches the kernel."""

    async def run() -> attack.Walls:
        engine = WorkerdEngine(program=find_workerd(), most=0)
        try:
            await engine.open()
            return await attack.try_walls(engine)
        finally:
            await engine.close()

    walls = asyncio.run(run())
    assert walls.fault == ""
    machine = escape.machine()
    assert machine is not None
    root = {s.name for s in steps(Bait("/", "w", 1), machine) if s.root and os.geteuid() != 0}
    stopped = [
        (f.name, f.answer)
        for f in walls.findings
        if f.verdict not in (Verdict.HOLE, Verdict.NEEDED) and f.name not in root
    ]
    if stopped and os.geteuid() == 0 and not os.access("/dev/kmsg", os.R_OK):
        pytest.skip(f"this machine has walls of its own: {stopped}")
    assert stopped == []
    assert len(walls.holes) >= 36


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            yield Path(folder, name).relative_to(root)


def test_a_function_sees_its_own_files_alone() -> None:
    """F2: libraries, the engine, its own bundle; nothing to write to; no other tenant's name."""

    async def run() -> tuple[list[Path], list[str], list[str], bytes, bytes]:
        engine = WorkerdEngine(program=find_workerd())
        try:
            await engine.open()
            _at_tier(3, engine)
            mine, _other = await _isolate(engine, "acme"), await _isolate(engine, "rival")
            proc = Path(f"/proc/{mine.pid}")
            try:
                seen = list(_walk(proc / "root"))
            except PermissionError:
                pytest.skip("another's root is for root alone to see")
            mounts = (proc / "mountinfo").read_text().splitlines()
            named = [
                str(path)
                for path in seen
                if path.parts[0] == "amba"
                and (proc / "root" / path).is_file()
                and b"rival" in (proc / "root" / path).read_bytes()
            ]
            about = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
            return seen, mounts, named, about, (proc / "environ").read_bytes()
        finally:
            await engine.close()

    seen, mounts, named, about, environment = asyncio.run(run())
    allowed = re.compile(
        r"amba(/[a-z0-9.-]+)?|workerd|engine|program|dev(/urandom)?|tmp|proc|"
        r"(usr(/lib(64)?)?|lib(64)?)(/[a-z0-9_-]+-linux-gnu)?(/(lib|ld-)[a-z0-9_.+-]+)?",
    )
    assert [str(path) for path in seen if not allowed.fullmatch(str(path))] == []
    assert len(seen) < 40
    writable = [line for line in mounts if "ro" not in line.split()[5].split(",")]
    # urandom is a device: a write to it changes nothing that anybody could read
    assert [line.split()[4] for line in writable] in ([], ["/dev/urandom"])
    assert named == []
    assert b"rival" not in about
    assert environment in (b"", b"PWD=/\0")  # bubblewrap says where it is
    print(f"{len(seen)} names, {len(mounts)} mounts: {sorted(map(str, seen))}")


def _unix_sockets() -> tuple[list[str], list[str]]:
    """Every Unix socket of this machine that is listened on: by path, abstract."""
    paths: set[str] = set()
    abstract: set[str] = set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8:
            name = fields[7]
            (abstract if name.startswith("@") else paths).add(name.removeprefix("@"))
    return sorted(p for p in paths if p.startswith("/") and len(p) < 107), sorted(abstract)


def test_only_its_own_way_out_can_be_connected_to(tmp_path: Path) -> None:
    """F3: every Unix socket of this machine, a whole running node's among them; TCP has no way."""

    async def run(abstract_mine: str) -> tuple[list[escape.Finding], list[str]]:
        engine = WorkerdEngine(program=find_workerd())
        try:
            await engine.open()
            _at_tier(3, engine)
            for project in ("acme", "rival"):
                await _isolate(engine, project)
            paths, abstract = _unix_sockets()
            ours = [path for path in paths if "/amba-" in path]
            assert len(ours) >= 6, paths
            assert abstract_mine in abstract
            place = engine.sandbox.private_folder()

            async def start(
                program: Path, own: Path, fds: Sequence[int], exited: Callable[[int], None]
            ) -> None:
                process = await engine.sandbox.enclose(
                    engine.spawner, program, [], folder=own, fds=fds, exited=exited
                )
                process.close()

            try:
                tries, answers = await escape.attack(
                    start,
                    place.path,
                    inside=engine.sandbox.inside,
                    paths=paths,
                    abstract=[name for name in abstract if name.isascii() and len(name) < 100],
                )
            finally:
                place.close()
            return escape.findings(tries, answers, 3), ours
        finally:
            await engine.close()

    word = f"amba-battery-{os.getpid()}"
    node = NodeProcess(tmp_path / "state")
    with node, socket.socket(socket.AF_UNIX) as canary:
        canary.bind(f"\0{word}")
        canary.listen()
        found, ours = asyncio.run(run(word))
    connects = [f for f in found if f.name.startswith("connect ")]
    opened = [f.name for f in connects if f.answer == "open"]
    assert opened == ["connect to its own way out"]
    assert f"connect @{word}" in {f.name for f in connects}
    assert [f for f in found if f.name.startswith("socket AF_INET") and f.answer == "open"] == []
    print(f"{len(connects)} sockets tried, {len(ours)} of them ours: {opened}")


def test_the_walls_are_seen_from_outside_at_each_start(counts: Counts) -> None:
    """F4: seccomp, no new privileges, no capabilities, two levels of pids, no network, own user."""
    starts = counts(pr=20, nightly=200)

    async def run() -> None:
        engine = WorkerdEngine(program=find_workerd())
        try:
            await engine.open()
            _at_tier(3, engine)
            users: set[str] = set()
            for _ in range(starts):
                isolate = await _isolate(engine, "acme")
                proc = Path(f"/proc/{isolate.pid}")
                lines = (proc / "status").read_text().splitlines()
                status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
                assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
                assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
                assert len(status["NSpid"].split()) >= 2
                for space in ("net", "mnt", "ipc", "uts", "user", "pid"):
                    ours = os.readlink(f"/proc/self/ns/{space}")
                    assert os.readlink(proc / "ns" / space) != ours, space
                users.add(status["Uid"].split()[0])
                await isolate.close()
            if os.geteuid() == 0:
                assert "0" not in users
                assert len(users) > 1
        finally:
            await engine.close()

    asyncio.run(run())
    print(f"{starts} starts")


SPY = """
let seen = [];
class Kept { static word = null; }
export default { async fetch(request, env, ctx) {
  const url = new URL(request.url);
  const word = url.searchParams.get("word");
  const out = { faults: [] };
  const attempt = async (name, act) => {
    try { out[name] = await act(); } catch (error) { out.faults.push(`${name}: ${error}`); }
  };
  if (word) {
    console.log(word);
    globalThis.kept = word; Kept.word = word; seen.push(word);
    Object.defineProperty(Array.prototype, "kept", { value: word, configurable: true });
    env.planted = word;
    await attempt("put", () => env.STORAGE.put("shared/key", word));
    await attempt("cache", () => caches.default.put("http://cache.test/shared",
      new Response(word, { headers: { "cache-control": "max-age=600" } })));
  }
  out.env = Object.fromEntries(Object.entries(env).filter(([, v]) => typeof v === "string"));
  out.globals = [globalThis.kept ?? null, Kept.word, [].kept ?? null];
  out.seen = seen;
  await attempt("object", async () => (await (await env.STORAGE.get("shared/key"))?.text()) ?? "");
  await attempt("list", async () => (await env.STORAGE.list()).objects.map((o) => o.key));
  await attempt("cached", async () =>
    (await (await caches.default.match("http://cache.test/shared"))?.text()) ?? "");
  out.refused = {};
  const ask = { headers: { authorization: `Bearer ${env.AMBA_INTERNAL_TOKEN}` } };
  for (const id of (url.searchParams.get("ids") ?? "").split(",").filter(Boolean)) {
    out.refused[id] = [];
    for (const what of ["functions/spy/logs", "secrets", "internal-credentials"]) {
      const answer = await fetch(`${env.AMBA_API_URL}/admin/projects/${id}/${what}`, ask);
      out.refused[id].push(`${answer.status} ${await answer.text()}`);
    }
  }
  return Response.json(out);
} };
"""


def test_no_tenant_reads_another(tmp_path: Path, counts: Counts) -> None:
    """F5: 20 tenants, each against each: env, storage, cache, globals, modules, logs, API."""
    rounds = counts(pr=1, nightly=10)
    pairs = leaks = 0
    with whole_life(tmp_path / "state") as node:
        shops = [make_shop(node, f"Tenant {n}") for n in range(TENANTS)]
        words = {shop.id: f"{KEPT}-{n}-kept" for n, shop in enumerate(shops)}
        secrets = {shop.id: f"secret-of-{n}-kept" for n, shop in enumerate(shops)}
        for shop in shops:
            secret = {"name": "THEIRS", "value": secrets[shop.id]}
            assert shop.api("POST", "secrets", secret).status == 201
            assert shop.upload("spy", SPY.encode()).status == 201
        for _ in range(rounds):
            for shop in shops:
                assert shop.call(f"spy?word={words[shop.id]}").status == 200
            for shop in shops:
                others = [other for other in shops if other is not shop]
                leaks += _leaks(shop, others, words, secrets)
                pairs += len(others)
    print(f"{pairs} pairs, {leaks} leaks")
    assert pairs == TENANTS * (TENANTS - 1) * rounds
    assert leaks == 0


def _leaks(shop: Shop, others: list[Shop], words: dict[str, str], secrets: dict[str, str]) -> int:
    """How many others something of whom the answer of a shop's function holds."""
    told = shop.call(f"spy?ids={','.join(other.id for other in others)}")
    assert told.status == 200, told.body
    body = told.body
    # it did look: its own words are there
    assert body["env"]["THEIRS"] == secrets[shop.id]
    assert body["object"] == words[shop.id]
    assert body["list"] == ["shared/key"]
    assert words[shop.id] in body["globals"]
    assert len(body["refused"]) == len(others)
    for answers in body["refused"].values():
        assert {answer[:3] for answer in answers} == {"403"}, answers
    mine = {key: value for key, value in body.items() if key != "refused"}
    text = json.dumps(mine)
    told_of = json.dumps(body["refused"])
    return sum(
        other.id in text
        or other.server_key in text + told_of
        or words[other.id] in text + told_of
        or secrets[other.id] in text + told_of
        for other in others
    )


USERS = ("u_one", "u_two")
WHO = """
let last = null;
export default { async fetch(request, env) {
  const user = request.headers.get("x-amba-user-id");
  last = user;
  await scheduler.wait(Math.random() * 2);
  return Response.json({ user, asked: new URL(request.url).searchParams.get("as"),
                         other: last !== user });
} };
"""


def test_users_of_one_function_are_never_mixed_up(
    tmp_path: Path, counts: Counts, rng: random.Random
) -> None:
    """F6: two users in one isolate, interleaved: the stamped identity is always the caller's."""
    total = counts(pr=10_000, nightly=1_000_000)
    folder = tmp_path / "functions" / "who"
    folder.mkdir(parents=True)
    (folder / "index.js").write_text(WHO)
    wrong: list[str] = []
    met = [0]
    with Dev(folder.parent, "--ephemeral", "--no-watch", data_home=tmp_path / "data") as dev:
        tokens: dict[str, str] = {}
        for user in USERS:
            done = run_cli(
                *("token", "user", user, "--json", "--state", str(dev.ready["state"])),
                data_home=tmp_path / "data",
            )
            tokens[user] = json.loads(done.stdout)["token"]
        plans = [[rng.choice(USERS) for _ in range(total // 8)] for _ in range(8)]

        def ask(users: list[str]) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", dev.port, timeout=30)
            for user in users:
                headers = {"Authorization": f"Bearer {tokens[user]}"}
                connection.request("GET", f"/fn/local/who?as={user}", headers=headers)
                told = json.loads(connection.getresponse().read())
                met[0] += told["other"]
                if told["user"] != user or told["asked"] != user:
                    wrong.append(f"{user}: {told}")
            connection.close()

        with ThreadPoolExecutor(8) as pool:
            for asked in [pool.submit(ask, plan) for plan in plans]:
                asked.result()
        assert len(dev.engines()) == 1
    print(f"{total} requests, {len(wrong)} wrong, {met[0]} met the other user's in the isolate")
    assert wrong == []
    assert met[0] > 0  # they did share one isolate at the same time


def test_old_code_never_answers_for_new(tmp_path: Path, counts: Counts, rng: random.Random) -> None:
    """F7: redeploys, kills and restarts under load: after the acknowledgement, the new version."""
    times = counts(pr=500, nightly=5_000)
    stale: list[str] = []
    acknowledged = [0]
    over = threading.Event()
    asked = [0]

    def load(shop: Shop) -> None:
        while not over.is_set():
            least = acknowledged[0]
            told = shop.call("f")
            asked[0] += 1
            if told.status == 200 and int(told.body) < least:
                stale.append(f"{told.body!r} after {least}")

    with whole_life(tmp_path / "state") as node:
        shop = make_shop(node, "Acme")
        assert shop.upload("f", _version(0)).status == 201
        caller = threading.Thread(target=load, args=(shop,))
        caller.start()
        try:
            for n in range(1, times + 1):
                if rng.random() < 0.2:
                    assert _kill_one(node)
                told = shop.upload("f", _version(n))
                assert told.status == 201, told
                acknowledged[0] = n
                answer = _settled(shop)
                if answer != n:
                    stale.append(f"{answer} instead of {n}")
        finally:
            over.set()
            caller.join(30)
    print(f"{times} versions, {asked[0]} requests beside, {len(stale)} stale")
    assert stale == []


def _version(n: int) -> bytes:
    return f"export default {{ fetch: () => new Response('{n}') }};".encode()


def _settled(shop: Shop) -> int:
    """What a function says, once it says something: its process may just have been killed."""
    for _ in range(200):
        told = shop.call("f")
        if told.status == 200:
            return int(told.body)
        assert told.status in (502, 503), told
    raise AssertionError("it does not come back")


def _kill_one(node: NodeProcess) -> bool:
    assert node.process is not None
    for child in psutil.Process(node.process.pid).children(recursive=True):
        try:
            if child.name() != "bwrap" and "serve" in child.cmdline():
                child.kill()
                return True
        except psutil.Error:
            continue
    return True  # it has just ended by itself


MACHINES = {
    "user namespaces": ("userns", 2),
    "seccomp": ("seccomp", 1),
    "user namespaces and Landlock": ("userns,landlock", 1),
    "user namespaces and seccomp": ("userns,seccomp", 1),
    "all of them": ("userns,landlock,seccomp", 1),
}
"""What a machine lacks -> how that is played, and the tier that is left."""


@pytest.mark.parametrize("lacks", MACHINES)
def test_a_weak_machine_hosts_nobody(lacks: str, tmp_path: Path) -> None:
    """F8: the node refuses to start and says why; dev serves, and says its tier."""
    if sys.platform != "linux":
        pytest.skip("only Linux has walls")
    names, tier = MACHINES[lacks]
    prefix = (sys.executable, str(LAUNCHER), names)
    code, text = _ended(
        [*prefix, sys.executable, "-m", "amba_run", "node"], tmp_path, "--listen", "127.0.0.1:0"
    )
    assert code == 1, text
    assert f"tier {tier}" in text
    assert "SANDBOX_WEAK" in text
    assert "best-effort" in text
    functions = tmp_path / "functions"
    shutil.copytree(FIXTURES / "hello", functions / "hello")
    with Dev(functions, "--ephemeral", "--no-watch", data_home=tmp_path, prefix=prefix) as dev:
        assert dev.ready["sandbox"] == tier
        assert dev.get("/fn/local/hello").status == 200


def test_without_bubblewrap_there_is_no_jail() -> None:
    """F8: neither the wheel's nor the system's: tier 2 at most, and it says so."""

    async def run() -> Sandbox:
        spawner = Spawner()
        await spawner.open()
        try:
            return await Sandbox.detect(find_workerd(), spawner, bwraps=[])
        finally:
            await spawner.close()

    sandbox = asyncio.run(run())
    assert sandbox.tier <= 2
    assert "bubblewrap is not installed" in sandbox.notes
    assert sandbox.fix


def _ended(command: Sequence[str], place: Path, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [*command, "--state", str(place / "state"), *options],
        capture_output=True,
        timeout=60,
        check=False,
        env=environment_of(place),
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, (done.stdout + done.stderr).decode()

"""Row 11: hostile functions and good traffic on one node for minutes, with a deploy every 5 s.

Growth is judged between two quiet moments: after a first minute of the same mix, and at the end,
each after the same functions were asked and everything else has come to rest. What the node keeps
of its functions' logs is bounded, and is filled up before the first of them: it would grow for
the whole of the drill, and that is no leak.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import socket
import threading
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

import psutil
from tests.drills.figures import Figure, at_most, quantile
from tests.drills.nodes import NodeProcess, ask, create_project, deploy, tagged
from tests.drills.walls import BEST_EFFORT, guest

from amba_runtime.limits import LOG_STORE_BYTES

MIB = 1024 * 1024
GOOD = 4
EACH_PER_S = 10.0
ATTACKERS = 2
DEPLOY_EVERY_S = 5.0
REST_S = 60.0
LIVE = 16
FILLS = 12
FILL_EACH = 1_000
FILL_FLOODS = 4
LOGS_MIB = LOG_STORE_BYTES.value / MIB
SMALL = {
    "cpu_ms": 200, "memory_mib": 128, "first_byte_ms": 2_000, "idle_ms": 1_000, "total_ms": 3_000
}  # fmt: skip
ATTACKS = (
    ("spin", "/spin"),
    ("microtask-storm", "/queue"),
    ("timer-storm", "/storm"),
    ("regex", "/attack"),
    ("pbkdf2", "/attack"),
    ("rsa", "/attack"),
    ("bigint", "/attack"),
    ("heap-bomb", "/bomb"),
    ("arraybuffer-bomb", "/bomb"),
    ("wasm-grow", "/bomb"),
    ("map-bomb", "/bomb"),
    ("clone-chain", "/bomb"),
    ("leak", "/leak"),
    ("header-bomb", "/many?n=1000"),
    ("header-bomb", "/endless"),
    ("endless-stream", "/slow?ms=50"),
    ("endless-stream", "/fast"),
    ("never-answers", "/never"),
    ("wrong-return", "/undefined"),
    ("throws-anything", "/huge"),
    ("throws-anything", "/later/proxy"),
    ("console-flood", "/lines?n=20000"),
    ("env-mutation", "/trap"),
    ("numbered", "/pieces?n=50&ms=1"),
    ("crash-at-start", "/crash"),
    ("", "leave"),
)
"""Guest and path; "" is a caller who leaves in the middle."""

EXPECTED = {
    (200, ""),
    (429, "concurrency_limit"),
    (500, "unhandled_exception"),
    (502, "upstream_failure"),
    (502, "response_header_limit"),
    (503, "cpu_limit"),
    (503, "memory_limit"),
    (503, "overloaded"),
    (504, "function_timeout"),
}
"""What an attacking request may be answered; nothing but 200 is expected of a good one."""


@dataclass
class _Mix:
    """Everything that goes on until `stop`. Lists and counters are changed under `lock`."""

    port: int
    good: str
    bad: str
    order: random.Random
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    good_ms: list[float] = field(default_factory=list[float])
    attacks: Counter[str] = field(default_factory=Counter[str])
    unexpected: list[str] = field(default_factory=list[str])

    def note(self, fault: str) -> None:
        with self.lock:
            self.unexpected.append(fault)

    def serve(self, n: int) -> None:
        """Good traffic: at an even pace, on a connection that is kept."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        due = monotonic()
        while not self.stop.is_set():
            due += 1 / EACH_PER_S
            if self.stop.wait(max(0.0, due - monotonic())):
                break
            name = "hot" if n == 0 else f"good{n}"
            began = monotonic()
            try:
                connection.request("GET", f"/fn/{self.good}/{name}")
                with connection.getresponse() as response:
                    body = response.read().decode()
                    status = response.status
            except (OSError, http.client.HTTPException) as error:
                self.note(f"{name}: {type(error).__name__} {error}")
                connection.close()
                continue
            first, _, last = body.partition("  ")
            if status != 200 or first != last:
                self.note(f"{name}: {status} {body[:120]}")
            with self.lock:
                self.good_ms.append((monotonic() - began) * 1000)
        connection.close()

    def attack(self, seed: int) -> None:
        """Attacks one after the other, in any order."""
        order = random.Random(seed)
        while not self.stop.is_set():
            name, rest = order.choice(ATTACKS)
            with self.lock:
                self.attacks[name or rest] += 1
            if not name:
                self._leave()
                continue
            told = self._told(f"/fn/{self.bad}/{name}{rest}")
            if told not in EXPECTED:
                self.note(f"{name}{rest}: {told}")
            self.stop.wait(0.1)

    def _told(self, target: str) -> tuple[int, str]:
        """Status and code; a body that breaks off, as those of cut streams do, is no fault."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", target)
            with connection.getresponse() as response:
                body = b""
                with suppress(http.client.IncompleteRead, ConnectionResetError):
                    while data := response.read(1 << 16):
                        body = data
                status = response.status
        except (OSError, http.client.HTTPException) as error:
            return 0, f"{type(error).__name__} {error}"
        finally:
            connection.close()
        code = ""
        if status != 200:
            with suppress(ValueError, KeyError, TypeError):
                code = str(json.loads(body)["error"]["code"])
        return status, code

    def _leave(self) -> None:
        with closing(socket.create_connection(("127.0.0.1", self.port), 10)) as connection:
            target = f"/fn/{self.bad}/numbered/pieces?n=500&ms=5"
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            with suppress(OSError):
                connection.recv(1000)


@dataclass(frozen=True, slots=True)
class _Held:
    """What the node holds at rest; `others` are processes that are neither engine nor jail."""

    rss_mib: float
    files: Counter[str]
    engines: int
    jails: int
    others: int


def run(folder: Path, *, minutes: float = 8.0, seed: int = 1) -> list[Figure]:
    """Mix, rest, look; mix, rest, look."""
    minutes = max(minutes, 1.0)
    with NodeProcess(folder / "soak", (*BEST_EFFORT, "--live-isolates", str(LIVE))) as node:
        project, good = create_project(node, "good")
        hostile, bad = create_project(node, "bad")
        for n in range(1, GOOD):
            deploy(node.api(project), f"good{n}", tagged(f"good{n}"))
        deploy(node.api(project), "hot", tagged("hot0"))
        api = node.api(hostile)
        for name in sorted({name for name, _ in ATTACKS if name}):
            deploy(api, name, guest(name), SMALL)
        mix = _Mix(node.port, good, bad, random.Random(seed))
        logs = _fill_logs(node, good, bad)
        first_s = min(60.0, minutes * 60 / 4)
        deploys = _mixed(node, mix, project, for_s=first_s, seed=seed)
        before = _at_rest(node, good, bad)
        deploys += _mixed(node, mix, project, for_s=minutes * 60 - first_s, seed=seed + 1)
        after = _at_rest(node, good, bad)
    for fault in mix.unexpected[:10]:
        print(f"  soak: {fault}")
    grew = round(after.rss_mib - before.rss_mib, 1)
    return [
        Figure("11", f"{minutes:g} minutes", f"{sum(mix.attacks.values()):,} attacks"),
        Figure("11", "good answers", f"{len(mix.good_ms):,}"),
        Figure("11", "good answers, p99", f"{quantile(mix.good_ms, 0.99):.1f} ms"),
        Figure("11", "deploys meanwhile", f"{deploys:,}"),
        at_most("11", "unexpected answers", len(mix.unexpected), 0),
        Figure("11", "logs kept before, bound", f"{logs:.1f}, {LOGS_MIB:.0f} MiB"),
        Figure("11", "resident memory at rest", f"{before.rss_mib:.1f}, {after.rss_mib:.1f} MiB"),
        at_most("11", "growth of memory", grew, 10, " MiB"),
        Figure("11", "files open", f"{dict(before.files)}, {dict(after.files)}"),
        at_most("11", "growth of open files", after.files.total() - before.files.total(), 2),
        at_most("11", "growth of processes", after.others - before.others, 0),
        Figure("11", "engines at rest", f"{before.engines}, {after.engines}"),
        at_most("11", "engines at rest, at the end", after.engines, LIVE),
        at_most("11", "jails without an engine", max(0, after.jails - after.engines), 0),
    ]


def _mixed(node: NodeProcess, mix: _Mix, project: str, *, for_s: float, seed: int) -> int:
    """Let everything go on for so long, deploying; how many deploys that were."""
    mix.stop.clear()
    threads = [threading.Thread(target=mix.serve, args=(n,)) for n in range(GOOD)]
    threads += [
        threading.Thread(target=mix.attack, args=(seed * 100 + n,)) for n in range(ATTACKERS)
    ]
    for thread in threads:
        thread.start()
    api = node.api(project)
    end = monotonic() + for_s
    deploys = 0
    try:
        while (left := end - monotonic()) > 0:
            sleep(min(left, DEPLOY_EVERY_S))
            deploys += 1
            tag = f"hot{seed}-{deploys}"
            deploy(api, "hot", tagged(tag))
            seen = ask(node.port, f"/fn/{mix.good}/hot")
            if not seen.body.startswith(f"{tag} "):
                mix.note(f"hot: {seen.body[:80]} after {tag} was acknowledged")
    finally:
        mix.stop.set()
        for thread in threads:
            thread.join()
    return deploys


def _fill_logs(node: NodeProcess, good: str, bad: str) -> float:
    """As full as logs ever get while the mix goes on, or nearly; in MiB."""
    held = 0.0
    for _ in range(FILLS):
        for n in range(GOOD):
            with closing(http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)) as asked:
                for _ in range(FILL_EACH):
                    asked.request("GET", f"/fn/{good}/{'hot' if n == 0 else f'good{n}'}")
                    asked.getresponse().read()
        for _ in range(FILL_FLOODS):
            ask(node.port, f"/fn/{bad}/console-flood/lines?n=20000")
        last, held = held, _log_mib(node)
        print(f"  soak: logs {held:.1f} MiB")
        if held - last < 0.5 and held > LOGS_MIB / 2:
            break
    return held


def _log_mib(node: NodeProcess) -> float:
    with closing(http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)) as connection:
        connection.request("GET", "/metrics", headers={"authorization": f"Bearer {node.pat}"})
        text = connection.getresponse().read().decode()
    return float(re.findall(r"(?m)^amba_log_bytes (\S+)$", text)[0]) / MIB


def _at_rest(node: NodeProcess, good: str, bad: str) -> _Held:
    """Wait until nothing changes any more, then look."""
    process = psutil.Process(node.pid)
    names = [f"{good}/{'hot' if n == 0 else f'good{n}'}" for n in range(GOOD)]
    hostile = sorted({name for name, _ in ATTACKS} - {"", "crash-at-start"})
    names += [f"{bad}/{name}" for name in hostile[: LIVE - GOOD]]
    for name in names:  # as many engines live at each look, each with files and buffers of ours
        ask(node.port, f"/fn/{name}")
    end = monotonic() + REST_S
    last: tuple[int, int] = (0, 0)
    since = monotonic()
    while monotonic() < end and monotonic() - since < 5:
        now = (process.num_fds(), len(process.children(recursive=True)))
        if now != last:
            last, since = now, monotonic()
        sleep(0.2)
    rss = process.memory_info().rss / MIB
    found = Counter(_name_of(child) for child in process.children(recursive=True))
    alive, jails = found.pop("workerd", 0), found.pop("bwrap", 0)
    return _Held(rss, _files(node.pid), alive, jails, found.total())


def _files(pid: int) -> Counter[str]:
    """What it has open, by kind; a listening socket is told from a connection by its name."""
    kinds: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            kinds[os.readlink(entry).partition(":")[0].partition("/")[0] or "file"] += 1
    return kinds


def _name_of(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "gone"

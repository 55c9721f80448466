"""The four programs under test: how each is given a worker, started, and found."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from tests.bench import npm
from tests.bench.model import AMBA, MINIFLARE, WORKERD, WRANGLER, BenchError, Target
from tests.bench.processes import Child, Guard, free_port

import amba_run
import amba_runtime

START_S = 60.0
"""The longest a start may take: a first run after `npm ci` reads hundreds of megabytes."""
POLL_S = 0.002
COMPATIBILITY_DATE = "2026-01-01"

AMBA_TOML = """\
[limits]
request_body_mib = 2048
total_ms = 300000
"""

WORKERD_CONFIG = f"""\
using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker)],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
const worker :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  compatibilityDate = "{COMPATIBILITY_DATE}",
);
"""


class Contender(ABC):
    """One program serving one worker, from `start` to `stop`.

    Args:
        folder: its own, empty, made by the caller.
        case: names the worker: `workers/{case}.js`.
    """

    name: ClassVar[str]
    reloads: ClassVar[bool] = False

    def __init__(self, guard: Guard, folder: Path, case: str) -> None:
        self._guard = guard
        self.folder = folder
        self.case = case
        self.start_s = 0.0
        self._child: Child | None = None
        self._target: Target | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Write what the program needs beside the worker; return its command line."""

    @abstractmethod
    def find(self) -> Target | None:
        """Where it answers, or None while it has not said so."""

    def worker_path(self) -> Path:
        """The file with the worker's source."""
        return self.folder / "worker.js"

    def extra_env(self) -> dict[str, str]:
        """What is added to the environment."""
        return {}

    @property
    def child(self) -> Child:
        """The running program."""
        assert self._child is not None, "start() first"
        return self._child

    @property
    def target(self) -> Target:
        """Where the running program answers."""
        assert self._target is not None, "start() first"
        return self._target

    def start(self) -> None:
        """Start, wait for the first good answer, keep the time from start to it in `start_s`.

        Raises:
            BenchError: it ended, or gave no answer within START_S; nothing is left running.
        """
        self.folder.mkdir(parents=True)
        self.worker_path().parent.mkdir(parents=True, exist_ok=True)
        self.save(_worker_source(self.case))
        command = self.command()
        began = time.perf_counter()
        self._child = Child(
            self._guard,
            command,
            folder=self.folder,
            output=self.folder / "output.log",
            extra_env=self.extra_env(),
        )
        try:
            self._wait_for_answer(began)
        except BaseException:
            self.stop()
            raise
        self.start_s = time.perf_counter() - began

    def _wait_for_answer(self, began: float) -> None:
        while True:
            self._target = self._target or self.find()
            if self._target and ask(self._target) is not None:
                return
            code = self.child.ended()
            if code is not None:
                raise BenchError(f"{self.name} ended with {code} at once:\n{self.child.tail()}")
            if time.perf_counter() - began > START_S:
                raise BenchError(
                    f"{self.name} gave no answer within {START_S:.0f} s:\n{self.child.tail()}"
                )
            time.sleep(POLL_S)

    def save(self, source: str) -> None:
        """Write the worker's file the way an editor does: in place."""
        self.worker_path().write_text(source, "utf-8")

    def stop(self) -> None:
        """End the program and all its descendants. Idempotent."""
        if self._child is not None:
            self._child.stop()


class AmbaRun(Contender):
    """`amba-run dev`, signing and request logging on as always; output to a file."""

    name = AMBA
    reloads = True

    def worker_path(self) -> Path:
        return self.folder / "functions" / f"{self.case}.js"

    def command(self) -> list[str]:
        functions = self.worker_path().parent
        (functions / "amba.toml").write_text(AMBA_TOML, "utf-8")
        return [_amba_run_program(), "dev", str(functions), "--port", "0", "--ephemeral", "--json"]

    def find(self) -> Target | None:
        ready = self._ready_event()
        if ready is None:
            return None
        port = urlsplit(str(ready["origin"])).port
        urls = {str(each["name"]): urlsplit(str(each["url"])) for each in ready["functions"]}
        url = urls.get(self.case)
        if port is None or url is None:
            raise BenchError(f"amba-run serves no {self.case!r}:\n{self.child.tail()}")
        return Target(port, url.netloc, url.path)

    def _ready_event(self) -> dict[str, Any] | None:
        for line in self.child.output.read_text("utf-8", errors="replace").splitlines(True):
            if line.startswith("{") and line.endswith("\n"):
                event: dict[str, Any] = json.loads(line)
                if event.get("event") == "ready":
                    return event
        return None


class _OnChosenPort(Contender):
    """A program that is told its port."""

    def __init__(self, guard: Guard, folder: Path, case: str) -> None:
        super().__init__(guard, folder, case)
        self.port = free_port()

    def find(self) -> Target | None:
        return Target(self.port, f"127.0.0.1:{self.port}", "/")


class RawWorkerd(_OnChosenPort):
    """The engine of amba-run's own wheel, alone: the limit of what can be reached."""

    name = WORKERD

    def command(self) -> list[str]:
        config = self.folder / "config.capnp"
        config.write_text(WORKERD_CONFIG, "utf-8")
        address = f"http=127.0.0.1:{self.port}"
        return [str(workerd_program()), "serve", str(config), "--socket-addr", address]


class Miniflare(_OnChosenPort):
    """miniflare's own class, as its documentation starts it."""

    name = MINIFLARE

    def command(self) -> list[str]:
        script = npm.FOLDER / "miniflare.mjs"
        return [npm.find_node(), str(script), str(self.worker_path()), str(self.port)]


class WranglerDev(_OnChosenPort):
    """`wrangler dev`, local, offline and at its fastest: without the recording of every request
    that it shows in a page of its own (with it, hello world is served half as fast).
    """

    name = WRANGLER
    reloads = True

    def command(self) -> list[str]:
        config = {"name": "bench", "main": "worker.js", "compatibility_date": COMPATIBILITY_DATE}
        (self.folder / "wrangler.json").write_text(json.dumps(config), "utf-8")
        program = npm.MODULES / "wrangler/bin/wrangler.js"
        address = ["--ip", "127.0.0.1", "--port", str(self.port), "--inspector-port", "0"]
        return [npm.find_node(), str(program), "dev", "--local", *address]

    def extra_env(self) -> dict[str, str]:
        home = str(self.folder / "home")
        return {
            "WRANGLER_SEND_METRICS": "false",
            "WRANGLER_SEND_ERROR_REPORTS": "false",
            "WRANGLER_HIDE_BANNER": "true",  # and with it the look for a newer version
            "CLOUDFLARE_CF_FETCH_ENABLED": "false",
            "X_LOCAL_OBSERVABILITY": "false",
            "X_LOCAL_EXPLORER": "false",
            "DO_NOT_TRACK": "1",
            "HOME": home,
            "XDG_CONFIG_HOME": home,
        }


KINDS: dict[str, type[Contender]] = {
    kind.name: kind for kind in (AmbaRun, RawWorkerd, Miniflare, WranglerDev)
}


def ask(target: Target, query: str = "?probe") -> bytes | None:
    """One GET on a connection of its own: the body of a 200, None for anything else."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=10)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request("GET", target.path + query, headers={"Host": target.host})
        answer = connection.getresponse()
        body = answer.read()
        return body if answer.status == 200 else None
    return None


def workerd_program() -> Path:
    """The engine that travels in the wheel."""
    package = amba_runtime.__file__
    assert package is not None
    return Path(package).parent / "native" / "workerd"


def versions(names: list[str]) -> dict[str, str]:
    """What is compared, each with the engine inside it."""
    engine = workerd_program()
    engine_version = _program_version(engine) if engine.is_file() else "missing"
    found = {AMBA: f"{amba_run.__version__} ({engine_version})", WORKERD: engine_version}
    if MINIFLARE in names:
        found[MINIFLARE] = f"{npm.version('miniflare')} (workerd {npm.version('workerd')})"
    if WRANGLER in names:
        inside = npm.version("wrangler/node_modules/workerd")
        found[WRANGLER] = f"{npm.version('wrangler')} (workerd {inside})"
    return {name: found[name] for name in names}


def _program_version(program: Path) -> str:
    done = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _worker_source(case: str) -> str:
    return (npm.FOLDER / "workers" / f"{case}.js").read_text("utf-8")


def _amba_run_program() -> str:
    beside = Path(sys.executable).with_name("amba-run")
    found = str(beside) if beside.is_file() else shutil.which("amba-run")
    if found is None:
        raise BenchError("amba-run is not installed in this environment: pip install -e .")
    return found

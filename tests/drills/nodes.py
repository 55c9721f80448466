"""A node as a process, and the least that a drill says to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Self

import psutil

from amba_run.api_client import ApiClient, Part
from amba_runtime.secret import SecretText

READY_S = 20.0


class DrillError(Exception):
    """A drill found what must not be; the message says what."""


@dataclass
class NodeProcess:
    """`amba-run node` over one state directory. `start`, then `kill` or `stop`, as often as wanted.

    Attributes:
        log: where its stderr goes; None puts it beside the state directory.
        pat: from the first ready line of the state directory.
        ready: the last ready line.
        started_s: from the process's start to that line.
    """

    state: Path
    options: tuple[str, ...] = ()
    log: Path | None = None
    pat: str = ""
    ready: dict[str, Any] = field(default_factory=dict[str, Any])
    started_s: float = 0.0
    process: subprocess.Popen[str] | None = None
    _events: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait for the ready line.

        Raises:
            DrillError: it ended, or said nothing, instead.
        """
        assert self.process is None
        began = monotonic()
        path = self.log or self.state.with_name(f"{self.state.name}.log")
        with path.open("a") as log:
            process = self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "amba_run", "node", "--listen", "127.0.0.1:0"),
                    *("--sandbox", "best-effort", "--state", str(self.state), "--json"),
                    *self.options,
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

        def read() -> None:
            assert process.stdout is not None
            waiting = True
            for line in process.stdout:
                if waiting and '"event": "ready"' in line:
                    waiting = False
                    lines.put(line)
            lines.put(None)

        self._events = threading.Thread(target=read, daemon=True)
        self._events.start()
        try:
            line = lines.get(timeout=READY_S)
        except queue.Empty:
            line = None
        if line is None:
            code = process.poll()
            self.kill()
            raise DrillError(f"the node did not get ready (exit code {code}); see {path}")
        self.started_s = monotonic() - began
        self.ready = json.loads(line)
        self.pat = self.ready.get("keys", {}).get("pat") or self.pat

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def origin(self) -> str:
        return str(self.ready["origin"])

    @property
    def port(self) -> int:
        return int(self.origin.rpartition(":")[2])

    def api(self, project: str = "") -> ApiClient:
        """Its control plane, as the developer."""
        return ApiClient(self.origin, SecretText(self.pat), project)

    def rss(self) -> int:
        """Resident bytes of our own process, without the engines."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def kill(self) -> None:
        """`kill -9`. Its engines go with it (issue 2)."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            self._reap(process)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
        self._reap(process)
        return process.returncode

    def _reap(self, process: subprocess.Popen[str]) -> None:
        process.wait()
        if self._events is not None:
            self._events.join(5)
        if process.stdout is not None:
            process.stdout.close()


@contextlib.contextmanager
def whole_life(state: Path) -> Generator[NodeProcess]:
    """A node on a fresh state directory: it ends well, and its log holds no traceback."""
    node = NodeProcess(state)
    node.start()
    try:
        yield node
    finally:
        code = node.stop()
    assert code == 0
    assert "Traceback" not in node.state.with_suffix(".log").read_text()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a function answered."""

    status: int
    body: str


def create_project(node: NodeProcess, name: str) -> tuple[str, str]:
    """Make a project; its id and slug."""
    data = node.api().post("/v1/admin/projects", {"name": name})["data"]
    return str(data["id"]), str(data["slug"])


def deploy(
    api: ApiClient, name: str, code: str, limits: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Upload a bundle, with limits of its own if any; the row of the deployment."""
    declared = {"limits": dict(limits)} if limits else {}
    metadata = json.dumps({"name": name, "rate_limit": None, **declared}).encode()
    parts = [
        Part("script", f"{name}.js", "application/javascript+module", code.encode()),
        Part("metadata", "metadata.json", "application/json", metadata),
    ]
    row: dict[str, Any] = api.upload(api.at("functions", "deploy"), parts)["data"]
    return row


def ask(port: int, target: str, *, timeout_s: float = 20.0) -> Answer:
    """One GET on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", target)
        with connection.getresponse() as response:
            return Answer(response.status, response.read().decode())
    finally:
        connection.close()


def tagged(tag: str, *, filler_bytes: int = 0) -> str:
    """A function that answers its tag, twice over, and the secret MARK."""
    filler = f"const filler = {json.dumps('x' * filler_bytes)};\n" if filler_bytes else ""
    use = " + (filler.length < 0 ? filler : '')" if filler_bytes else ""
    return (
        f"{filler}const TAG = {json.dumps(tag)};\n"
        "export default { async fetch(request, env) {\n"
        f"  return new Response([TAG, env.MARK ?? '', TAG].join(' '){use});\n"
        "} };\n"
    )

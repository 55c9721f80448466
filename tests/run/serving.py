"""A server of ours as a process of its own, and what it says while tests talk to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """One running server. `close` ends it with SIGTERM, so that coverage is kept.

    Attributes:
        ready: the ready line; {} for a server that talks to a terminal.
        port: on 127.0.0.1.
        events, lines, talk: what came on stdout as JSON, on stdout as text, and on stderr.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        data_home: Path,
        json_: bool = True,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        argv = [*prefix, sys.executable, "-m", "amba_run", *command]
        self.process = subprocess.Popen(
            [*argv, *(["--json"] if json_ else [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment_of(data_home) | dict(environment or {}),
        )
        self.events: list[Event] = []
        self.lines: list[str] = []
        self.talk: list[str] = []
        self.ready: Event = {}
        self._news = threading.Condition()
        self._ended = 0
        self._threads = [
            threading.Thread(target=self._read, args=args, daemon=True)
            for args in (
                (self.process.stdout, self._heard),
                (self.process.stderr, self.talk.append),
            )
        ]
        for thread in self._threads:
            thread.start()
        try:
            if json_:
                self.ready = self.event("ready", within_s=20)
                self.port = int(self.ready["origin"].rsplit(":", 1)[1])
            else:
                head = self.wait(
                    lambda: next((x for x in [*self.lines, *self.talk] if "http://127" in x), None),
                    within_s=20,
                )
                self.port = int(head.split("http://127.0.0.1:")[1].split()[0])
        except BaseException:
            self.close()
            raise

    def _read(self, stream: Any, heard: Callable[[str], None]) -> None:
        for line in stream:
            with self._news:
                heard(line.decode(errors="replace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended += 1
            self._news.notify_all()

    def _heard(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith("{"):
            self.events.append(json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # what it says

    def wait(self, found: Callable[[], Any], *, within_s: float = 5) -> Any:
        """The first value that is not None, looked for again at each line."""
        deadline = time.monotonic() + within_s
        with self._news:
            while True:
                value = found()
                if value is not None:
                    return value
                left = deadline - time.monotonic()
                if left <= 0 or self._ended == 2 or not self._news.wait(left):
                    raise AssertionError(
                        f"it did not come; stdout: {self.lines[-8:]}; stderr: {self.talk[-8:]}"
                    )

    def mark(self) -> int:
        """How many events there were: `event(..., since=mark)` looks behind it."""
        with self._news:
            return len(self.events)

    def event(self, kind: str, *, since: int = 0, within_s: float = 5, **wanted: object) -> Event:
        """The first event of a kind with these fields, waiting for it if need be."""

        def found() -> Event | None:
            for event in self.events[since:]:
                if event["event"] == kind and all(event[k] == v for k, v in wanted.items()):
                    return event
            return None

        event: Event = self.wait(found, within_s=within_s)
        return event

    def said(self, text: str, *, within_s: float = 5) -> str:
        """The first line of stderr that holds a text."""
        line: str = self.wait(
            lambda: next((line for line in self.talk if text in line), None), within_s=within_s
        )
        return line

    # what it answers

    @contextlib.contextmanager
    def connection(self) -> Generator[http.client.HTTPConnection]:
        """A connection of the caller's own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            yield connection
        finally:
            connection.close()

    def get(
        self, target: str, *, host: str | None = None, method: str = "GET", **headers: str
    ) -> Answer:
        """One request on a connection of its own; `_` in header names stands for `-`."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if host is not None:
            fields["Host"] = host
        with self.connection() as connection:
            connection.request(method, target, headers=fields)
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())

    # its life

    def descendants(self) -> list[psutil.Process]:
        """The spawner, the engines, esbuild."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def engines(self) -> list[psutil.Process]:
        """One per version that lives."""
        found: list[psutil.Process] = []
        for child in self.descendants():
            with contextlib.suppress(psutil.Error):
                if child.status() == psutil.STATUS_ZOMBIE or child.name() == "bwrap":
                    continue
                if "serve" in child.cmdline():
                    found.append(child)
        return found

    def stop(self, sig: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(sig)
        return self.process.wait(10)

    def close(self) -> None:
        """Idempotent."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for thread in self._threads:
            thread.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


class Dev(Server):
    """A running `amba-run dev`."""

    def __init__(
        self,
        path: Path,
        *options: str,
        data_home: Path,
        json_: bool = True,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        super().__init__(
            ["dev", str(path), "--port", "0", *options],
            data_home=data_home,
            json_=json_,
            environment=environment,
            prefix=prefix,
        )

    def api(self, method: str, path: str, value: object = None, **headers: str) -> Answer:
        """One request of the platform API in JSON, as the developer unless `headers` say who."""
        fields = {name.replace("_", "-"): text for name, text in headers.items()}
        fields = fields or {"authorization": f"Bearer {self.ready['keys']['pat']}"}
        body = None if value is None else json.dumps(value).encode()
        with self.connection() as connection:
            connection.request(method, path, body, fields | {"content-type": "application/json"})
            response = connection.getresponse()
            names = {name.lower(): text for name, text in response.getheaders()}
            return Answer(response.status, names, response.read())

    def ask(self, function: str, rest: str = "", **headers: str) -> str:
        """The body that a function of the project `local` answers with."""
        return self.get(f"/fn/local/{function}{rest}", **headers).text


def environment_of(data_home: Path) -> dict[str, str]:
    """This process's environment without what concerns us, and a data folder of the test's own."""
    ours = ("AMBA_", "EDGE_HEADER_SIGNING_SECRET", "NO_COLOR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"XDG_DATA_HOME": str(data_home), "HOME": str(data_home)}


def run_cli(
    *args: str, data_home: Path, stdin: bytes = b"", cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """One `amba-run` command as a process, to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "amba_run", *args],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=30,
        cwd=cwd,
        env=environment_of(data_home) | environment,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def folder_of(engine: psutil.Process) -> Path:
    """The one folder of ours that an engine sees, as it is called outside its walls."""
    seen = next(part for part in engine.cmdline() if part.endswith("/worker.capnp"))
    if not seen.startswith("/amba/"):
        return Path(seen).parent
    jail = engine.parent()
    assert jail is not None
    command = jail.cmdline()
    return Path(command[command.index("/amba") - 1])


def function(expression: str, *, before: str = "") -> str:
    """The source of a function that answers with a JavaScript expression."""
    return (
        f"{before}\nexport default {{\n  async fetch(request, env, ctx) {{\n"
        f"    return new Response({expression});\n  }},\n}};\n"
    )

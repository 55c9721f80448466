"""`amba-run dev --json` as a process of its own, and what it tells while tests talk to it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

Event = dict[str, Any]


class DevServer:
    """One running dev server. `close` ends it with SIGTERM, so that coverage is kept.

    Attributes:
        ready: the ready line.
        port: on 127.0.0.1.
    """

    def __init__(self, folder: Path, *options: str, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "amba_run", "dev", str(folder)),
                *("--port", "0", "--ephemeral", "--json", "--no-watch", *options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        self.events: list[Event] = []
        self.talk: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._threads = [
            threading.Thread(target=self._read_events),
            threading.Thread(target=self._read_talk),
        ]
        for thread in self._threads:
            thread.start()
        try:
            self.ready = self.event(lambda e: e["event"] == "ready", within_s=20)
        except BaseException:
            self.close()
            raise
        self.port = int(self.ready["origin"].rsplit(":", 1)[1])

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: Event = json.loads(line)
            with self._news:
                self.events.append(event)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _read_talk(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.talk.append(line.decode(errors="replace"))
                self._news.notify_all()

    def event(self, wanted: Callable[[Event], bool], *, within_s: float = 5) -> Event:
        """The first event that is wanted, waiting for it if it has not come yet."""
        deadline = time.monotonic() + within_s
        with self._news:
            seen = 0
            while True:
                for event in self.events[seen:]:
                    if wanted(event):
                        return event
                seen = len(self.events)
                left = deadline - time.monotonic()
                if self._ended or left <= 0 or not self._news.wait(left):
                    raise AssertionError(
                        f"no such event among {self.events[-5:]}; stderr: {self.talk}"
                    )

    def request(self, mark: str, *, within_s: float = 5) -> Event:
        """The `request` event of the invocation whose path holds `mark`."""
        return self.event(
            lambda e: e["event"] == "request" and mark in e["path"], within_s=within_s
        )

    def said(self, text: str, *, within_s: float = 5) -> str:
        """The first line of stderr that holds `text`, waiting for it if need be."""
        deadline = time.monotonic() + within_s
        with self._news:
            while True:
                line = next((line for line in self.talk if text in line), None)
                if line is not None:
                    return line
                left = deadline - time.monotonic()
                if left <= 0 or not self._news.wait(left):
                    raise AssertionError(f"{text!r} was not said; stderr: {self.talk}")

    def line(self, mark: str, text: str, *, within_s: float = 5) -> Event:
        """The event (`request` or `late`) of the request `mark` with a console line `text`.

        Lines that come after the answer join their request's event, or follow it as `late`.
        """

        def has(event: Event) -> bool:
            return any(text in json.dumps(log["Message"]) for log in event.get("logs", ()))

        told = self.request(mark, within_s=within_s)
        if has(told):
            return told
        id_ = told["request_id"]
        return self.event(
            lambda e: e["event"] == "late" and e["request_id"] == id_ and has(e), within_s=within_s
        )

    def memory_bytes(self) -> int:
        """Resident bytes of the server's own process."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def children(self) -> list[psutil.Process]:
        """The spawner, the engines, esbuild: whatever descends from the server."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def engine(self, function: str) -> psutil.Process:
        """The engine process of a function, found by the code in its private folder."""
        mark = self.process.pid
        for child in self.children():
            if "serve" not in child.cmdline():
                continue
            config = Path(child.cmdline()[-3])
            if f"// function: {function}".encode() in (config.parent / "fn.mjs").read_bytes():
                return child
        raise AssertionError(f"server {mark} runs no engine for {function}")

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


def gone(processes: Sequence[psutil.Process], *, within_s: float) -> list[psutil.Process]:
    """Those of the processes that are still there after so many seconds."""
    _, alive = psutil.wait_procs(list(processes), timeout=within_s)
    return [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

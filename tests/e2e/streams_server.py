"""One dev server on tests/guests/streams and its siblings, and how tests look behind it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import psutil
from tests.run.serving import Dev, Event, folder_of

GUESTS = Path(__file__).parents[1] / "guests"
MARK = 'globalThis.servedAs = "%s";'
SETTINGS = """
[functions.impatient.limits]
first_byte_ms = 400
idle_ms = 300

[functions.small.limits]
request_body_mib = 1

[functions.large.limits]
request_body_mib = 1024
"""


class Streams(Dev):
    """Serves `streams` (41 ways to stream), the same under other limits and as a victim, others."""

    def __init__(self, folder: Path, *, data_home: Path) -> None:
        for name in ("streams", "impatient", "small", "large", "victim"):
            shutil.copytree(GUESTS / "streams", folder / name)
            with (folder / name / "index.js").open("a") as file:
                file.write(f"\n{MARK % name}\n")
        for name in ("body-fate", "crash"):
            shutil.copytree(GUESTS / name, folder / name)
        (folder / "amba.toml").write_text(SETTINGS)
        super().__init__(folder, "--ephemeral", "--no-watch", data_home=data_home)

    def request(self, mark: str, *, within_s: float = 5) -> Event:
        """The `request` event of the invocation whose path holds `mark`."""

        def found() -> Event | None:
            return next((e for e in self.events if mark in e.get("path", "")), None)

        event: Event = self.wait(found, within_s=within_s)
        return event

    def line(self, mark: str, text: str, *, within_s: float = 5) -> list[Any]:
        """A console line with `text`, of the invocation whose path holds `mark`.

        It comes with the `request` event, or in a `late` one when it was written afterwards.
        """
        id_ = self.request(mark, within_s=within_s)["request_id"]

        def found() -> list[Any] | None:
            for event in self.events:
                if event.get("request_id") == id_:
                    for log in event.get("logs", ()):
                        if text in json.dumps(log["Message"]):
                            message: list[Any] = log["Message"]
                            return message
            return None

        line: list[Any] = self.wait(found, within_s=within_s)
        return line

    def exceptions(self, mark: str, *, within_s: float = 5) -> list[str]:
        """Messages of the exceptions told for an invocation, one at least."""
        id_ = self.request(mark, within_s=within_s)["request_id"]

        def found() -> list[str] | None:
            told = [e["exceptions"] for e in self.events if e.get("request_id") == id_]
            return [x["Message"] for exceptions in told for x in exceptions] or None

        messages: list[str] = self.wait(found, within_s=within_s)
        return messages

    def memory_bytes(self) -> int:
        """Resident bytes of the server's own process."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def engine_of(self, function: str) -> psutil.Process:
        """The engine process of a function, known by a line in the code that it was given."""
        for engine in self.engines():
            if MARK % function in (folder_of(engine) / "fn.mjs").read_text():
                return engine
        raise AssertionError(f"no engine serves {function}")

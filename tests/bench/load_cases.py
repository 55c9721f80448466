"""The cases under load: hello, echo, download, upload and sse, in interleaved rounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import client, wrk
from tests.bench.contenders import Contender
from tests.bench.model import MIB, BenchError, LoadResult, Plan, Results, Target
from tests.bench.sse import fan_out

CONNECTIONS = (1, 32)
ECHO_BYTES = 10 * 1024
UPLOAD_S = 60.0

Measure = Callable[[Contender], None]
"""Measure one contender once and add what was found to the results."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What every case is given.

    Attributes:
        wrk: the load program, or None: then our own client makes the load.
        scratch: a folder for scripts; gone after the run.
    """

    plan: Plan
    results: Results
    wrk: str | None
    scratch: Path
    say: Callable[[str], None]

    def rounds(self, contenders: Sequence[Contender], measure: Measure) -> list[Contender]:
        """Measure A, B, C, D, A, B, C, D, ...; who fails once is left out from then on.

        Returns those that never failed.
        """
        running = list(contenders)
        for _ in range(self.plan.rounds):
            running = self.each(running, measure)
        return running

    def each(self, contenders: Sequence[Contender], measure: Measure) -> list[Contender]:
        """One round. Returns those that did not fail; the others have a note."""
        running: list[Contender] = []
        for contender in contenders:
            try:
                measure(contender)
            except BenchError as error:
                self.note(contender, str(error))
            else:
                running.append(contender)
        return running

    def note(self, contender: Contender, text: str) -> None:
        """Keep what a reader of the table must know."""
        self.results.notes.append(f"{contender.case}, {contender.name}: {text}")

    def load(
        self, target: Target, *, connections: int, seconds: int, body: str | None = None
    ) -> LoadResult:
        """A closed loop of GETs, or of POSTs of JSON when there is a body."""
        if self.wrk is not None:
            script = None
            if body is not None:
                script = self.scratch / "post.lua"
                script.write_text(wrk.lua_post(body, "application/json"), "utf-8")
            return wrk.run_wrk(
                self.wrk, target, connections=connections, seconds=seconds, script=script
            )
        request = target.head("GET")
        if body is not None:
            fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            request = target.head("POST", fields=fields) + body.encode()
        return client.run_load(target, connections=connections, seconds=seconds, request=request)


def hello(bench: Bench, contenders: Sequence[Contender]) -> None:
    """Requests a second, latency at 1 connection, memory before and after."""
    _weigh(bench, contenders, "idle")
    _closed_loops(bench, contenders)
    _weigh(bench, contenders, "after load")


def echo(bench: Bench, contenders: Sequence[Contender]) -> None:
    """10 KiB of JSON there and back."""
    _closed_loops(bench, contenders, body=echo_body())


def download(bench: Bench, contenders: Sequence[Contender]) -> None:
    """1 MiB answers: requests a second are MiB a second."""
    _closed_loops(bench, contenders, unit="MiB/s")


def upload(bench: Bench, contenders: Sequence[Contender]) -> None:
    """One large body at a time, counted by the function."""
    size = bench.plan.upload_mib * MIB

    def measure(contender: Contender) -> None:
        seconds = asyncio.run(client.upload(contender.target, size, timeout_s=UPLOAD_S))
        rate = bench.plan.upload_mib / seconds
        label = f"{bench.plan.upload_mib} MiB"
        bench.results.add("upload", label, "MiB/s", "higher", contender.name, rate)

    def warm_up(contender: Contender) -> None:
        asyncio.run(client.upload(contender.target, MIB, timeout_s=UPLOAD_S))

    bench.rounds(bench.each(contenders, warm_up), measure)


def sse(bench: Bench, contenders: Sequence[Contender]) -> None:
    """Server-sent events to many clients at once."""
    label = f"{bench.plan.sse_clients} clients, "

    def measure(contender: Contender) -> None:
        seen = asyncio.run(fan_out(contender.target, bench.plan))
        add, name = bench.results.add, contender.name
        add("sse", label + "events", "1/s", "higher", name, seen.per_s)
        add("sse", label + "late p50", "ms", "lower", name, seen.late_p50_ms)
        add("sse", label + "late p99", "ms", "lower", name, seen.late_p99_ms)
        add("sse", label + "all connected", "s", "lower", name, seen.all_connected_s)
        if seen.failed:
            bench.note(contender, f"{seen.failed} clients did not get every event")

    bench.rounds(contenders, measure)


def echo_body() -> str:
    """JSON of exactly ECHO_BYTES bytes: objects in an array, as an API would send."""
    items = [{"id": n, "name": f"item {n}", "tags": ["a", "b"], "price": n / 4} for n in range(150)]
    bare = json.dumps({"items": items, "pad": ""})
    return json.dumps({"items": items, "pad": "x" * (ECHO_BYTES - len(bare))})


def _closed_loops(
    bench: Bench, contenders: Sequence[Contender], *, body: str | None = None, unit: str = "1/s"
) -> None:
    def warm_up(contender: Contender) -> None:
        seconds = bench.plan.warm_up_s
        bench.load(contender.target, connections=CONNECTIONS[-1], seconds=seconds, body=body)

    warm = bench.each(contenders, warm_up)
    for connections in CONNECTIONS:
        label = f"{connections} connection{'s' if connections > 1 else ''}"

        def measure(
            contender: Contender, connections: int = connections, label: str = label
        ) -> None:
            seen = bench.load(
                contender.target, connections=connections, seconds=bench.plan.seconds, body=body
            )
            add, case, name = bench.results.add, contender.case, contender.name
            add(case, label, unit, "higher", name, seen.per_s)
            if connections == 1:
                add(case, "p50 at 1", "ms", "lower", name, seen.p50_ms)
                add(case, "p99 at 1", "ms", "lower", name, seen.p99_ms)
            if seen.errors:
                bench.note(contender, f"{seen.errors} errors at {label}")

        warm = bench.rounds(warm, measure)


def _weigh(bench: Bench, contenders: Sequence[Contender], when: str) -> None:
    for contender in contenders:
        weight = contender.child.weigh()
        add, name = bench.results.add, contender.name
        add("memory", f"resident, {when}", "MiB", "lower", name, weight.resident / MIB)
        add("memory", f"private, {when}", "MiB", "lower", name, weight.private / MIB)

"""The cases of the developer's loop: start, save, stream memory, and the storm of reloads."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable

from tests.bench import client
from tests.bench.contenders import Contender, ask
from tests.bench.load_cases import Bench
from tests.bench.model import MIB, BenchError
from tests.bench.processes import Weight

SAVE_S = 20.0
"""How long a save may take to be served before it counts as missed."""
PAUSE_S = 0.3
"""Between two saves, so that no watcher takes them for one."""
POLL_S = 0.002
STREAM_S = 300.0
SAMPLE_S = 0.02

_VERSION = re.compile(rb"hello v(\d{5})\Z")


def save(bench: Bench, contenders: list[Contender]) -> None:
    """Write the file, poll until the new answer is served; alternately, where there is a watcher.

    Each save is a round of its own: the median of `plan.saves` is what is told.
    """
    reloading = [contender for contender in contenders if contender.reloads]
    source = {contender: contender.worker_path().read_text("utf-8") for contender in reloading}
    for number in range(1, bench.plan.saves + 1):
        for contender in list(reloading):
            time.sleep(PAUSE_S)
            began = time.perf_counter()
            contender.save(_numbered(source[contender], number))
            seen = _until_served(contender, number)
            if seen is None:
                bench.note(contender, f"save {number} was not served within {SAVE_S:.0f} s")
                reloading.remove(contender)
            else:
                ms = (seen - began) * 1000
                bench.results.add("save", "save to new answer", "ms", "lower", contender.name, ms)


def _numbered(source: str, number: int) -> str:
    return source.replace("v00000", f"v{number:05}")


def _until_served(contender: Contender, number: int) -> float | None:
    deadline = time.perf_counter() + SAVE_S
    wanted = f"hello v{number:05}".encode()
    while time.perf_counter() < deadline:
        if ask(contender.target) == wanted:
            return time.perf_counter()
        time.sleep(POLL_S)
    return None


def stream_up(bench: Bench, contender: Contender) -> None:
    """Growth of amba-run's own resident memory while a function reads a very large body."""
    size = bench.plan.stream_mib * MIB

    async def move() -> None:
        await client.upload(contender.target, size, timeout_s=STREAM_S)

    _growth(bench, contender, f"{bench.plan.stream_mib} MiB up", move)


def stream_down(bench: Bench, contender: Contender) -> None:
    """The same while a function sends a very large body."""
    size = bench.plan.stream_mib * MIB

    async def move() -> None:
        query = f"?mib={bench.plan.stream_mib}"
        got = await client.download(contender.target, query, timeout_s=STREAM_S)
        if got < size:
            raise BenchError(f"only {got} of {size} bytes came")

    _growth(bench, contender, f"{bench.plan.stream_mib} MiB down", move)


def _growth(
    bench: Bench, contender: Contender, label: str, move: Callable[[], Awaitable[None]]
) -> None:
    before = contender.child.python_resident()
    peak = before

    async def watched() -> None:
        nonlocal peak
        moving = asyncio.ensure_future(move())
        while not moving.done():
            peak = max(peak, contender.child.python_resident())
            await asyncio.wait([moving], timeout=SAMPLE_S)
        moving.result()

    began = time.perf_counter()
    asyncio.run(watched())
    seconds = time.perf_counter() - began
    add, name = bench.results.add, contender.name
    add("stream", f"{label}, growth", "MiB", "lower", name, (peak - before) / MIB)
    add("stream", f"{label}, rate", "MiB/s", "higher", name, bench.plan.stream_mib / seconds)


def storm(bench: Bench, contender: Contender) -> None:
    """Reload again and again under constant load: failed requests, and what is left behind.

    Processes and descriptors are counted at rest, `settle_s` after a load of a second and after
    the storm: the same moment of the same cycle.
    """
    source = contender.worker_path().read_text("utf-8")
    asyncio.run(_storm(bench, contender, source, reloads=0))
    time.sleep(bench.plan.settle_s)
    before = contender.child.weigh()
    asyncio.run(_storm(bench, contender, source, reloads=bench.plan.reloads))
    time.sleep(bench.plan.settle_s)
    after = contender.child.weigh()
    _tell_left(bench, contender, before, after)


async def _storm(bench: Bench, contender: Contender, source: str, *, reloads: int) -> None:
    newest = -1
    fresh = asyncio.Event()

    def check(body: bytes) -> bool:
        nonlocal newest
        found = _VERSION.match(body)
        if found is None:
            return False
        if int(found[1]) > newest:
            newest = int(found[1])
            fresh.set()
        return True

    async def reload_all() -> int:
        missed = 0
        for number in range(1, reloads + 1):
            contender.save(_numbered(source, number))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAVE_S):
                    while newest < number:
                        fresh.clear()
                        await fresh.wait()
            missed += newest < number
        await asyncio.sleep(1.0)
        return missed

    load = client.Load(contender.target, contender.target.head("GET"), check)
    reloading = asyncio.ensure_future(reload_all())
    seen = await load.run(bench.plan.storm_connections, reloading.done)
    if reloads == 0:
        return
    add, name = bench.results.add, contender.name
    add("storm", "requests", "", "higher", name, seen.requests)
    add("storm", "failed requests", "", "lower", name, seen.errors)
    add("storm", "reloads not served", "", "lower", name, reloading.result())
    add("storm", "time for all reloads", "s", "lower", name, seen.seconds)
    for reason, times in load.reasons.most_common():
        bench.note(contender, f"failed in the storm, {times} times: {reason}")


def _tell_left(bench: Bench, contender: Contender, before: Weight, after: Weight) -> None:
    add, name = bench.results.add, contender.name
    add("storm", "processes before", "", "lower", name, before.processes)
    add("storm", "processes after", "", "lower", name, after.processes)
    add("storm", "descriptors before", "", "lower", name, before.descriptors)
    add("storm", "descriptors after", "", "lower", name, after.descriptors)
    if (before.processes, before.descriptors) != (after.processes, after.descriptors):
        bench.note(
            contender,
            "processes and descriptors by program, before and after the storm: "
            f"{before.programs} and {after.programs}",
        )

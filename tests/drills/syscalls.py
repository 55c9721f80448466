"""`syscalls`: what the engine asks of the kernel, against what the filter lets through.

Every fixture and guest is run under strace, without walls; a call that the filter would refuse is
named, and so is one that nothing needed. To be run when the engine is changed (reliability.md 4.3).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.drills.figures import Figure, at_most
from tests.runtime.engine.lab import FIXTURES, GUESTS, HOST, Lab, answer, begin, bundled

from amba_bundler.messages import BuildFailed
from amba_runtime.engine.base import Isolate, QueueMessage, StartFailed
from amba_runtime.engine.workerd.engine import WorkerdEngine, find_workerd
from amba_runtime.errors import AmbaRunError
from amba_runtime.manifest import Bundle
from amba_runtime.sandbox import syscalls
from amba_runtime.wire import Request, Response, WireError

PATIENCE_S = 1.0
_CALL = re.compile(rb"^(?:\d+ +)?([a-z0-9_]+)\(", re.MULTILINE)


def run(folder: Path) -> list[Figure]:
    """Trace all, and compare."""
    if shutil.which("strace") is None:
        return [Figure("4.3", "system calls: strace is not installed", "-")]
    bundles = _bundles()
    traces = folder / "traces"
    traces.mkdir()
    program = folder / "workerd"
    # strace as a grandchild: the engine is our child and can be ended as ever
    program.write_text(f'#!/bin/sh\nexec strace -D -f -qq -o "{traces}/$$" {find_workerd()} "$@"\n')
    program.chmod(0o755)
    asyncio.run(_exercise(program, bundles))
    seen = called(trace.read_bytes() for trace in traces.iterdir())
    known = {*syscalls.ALLOWED, *syscalls.CHECKED, *syscalls.DONE_WITHOUT}
    refused, idle = sorted(seen - known), sorted(known - seen)
    return [
        Figure("4.3", "fixtures and guests that were run", str(len(bundles))),
        Figure("4.3", "system calls that they made", str(len(seen))),
        at_most("4.3", f"of them refused: {', '.join(refused) or 'none'}", len(refused), 0),
        Figure("4.3", f"allowed, and not made: {', '.join(idle)}", str(len(idle))),
    ]


def called(traces: Iterable[bytes]) -> set[str]:
    """Names of the system calls in what strace wrote."""
    return {name.decode() for trace in traces for name in _CALL.findall(trace)}


def _bundles() -> dict[str, Bundle]:
    found: dict[str, Bundle] = {}
    for place in (FIXTURES, GUESTS, GUESTS / "hostile"):
        for path in sorted(place.iterdir()):
            entry = next(iter(path.glob("index.*")), path) if path.is_dir() else path
            if entry.suffix in (".js", ".mjs", ".ts", ".tsx") and not entry.name.endswith(".d.ts"):
                with contextlib.suppress(BuildFailed):
                    found[f"{place.name}/{path.name}"] = bundled(entry)
    return found


async def _exercise(program: Path, bundles: Mapping[str, Bundle]) -> None:
    engine = WorkerdEngine(program=program, most=0)
    try:
        for name, bundle in bundles.items():
            lab = Lab(engine)
            isolate = await lab.start(bundle, storage=_storage, egress=_egress)
            try:
                async with asyncio.timeout(5 * PATIENCE_S):
                    await _visit(isolate)
            except (TimeoutError, StartFailed, WireError, AmbaRunError) as error:
                print(f"  {name}: {type(error).__name__}")
            finally:
                await isolate.close()
    finally:
        await engine.close()


async def _egress(request: Request) -> Response:
    return Response(200, body=b"{}")


async def _storage(request: Request) -> Response:
    await request.read(1 << 20)
    return Response(404)


async def _visit(isolate: Isolate) -> None:
    description = await isolate.describe()
    with contextlib.suppress(WireError, TimeoutError, AmbaRunError):
        if "scheduled" in description.handlers:
            await asyncio.wait_for(isolate.scheduled(cron="* * * * *", scheduled_time_ms=0), 1)
        if "queue" in description.handlers:
            message = QueueMessage("1", 0, 1, "{}")
            await asyncio.wait_for(isolate.queue(queue="jobs", messages=[message]), 1)
    for method, target, size in (("GET", "/", 0), ("POST", "/go?n=3", 100_000)):
        with contextlib.suppress(WireError, TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                exchange = await isolate.exchange()
                begin(exchange, target, method=method, length=size)
                if size:
                    exchange.write(bytes(size))
                    exchange.end()
                await answer(exchange)
    with contextlib.suppress(Exception):  # most take no WebSocket
        async with asyncio.timeout(PATIENCE_S):
            socket = await isolate.socket(b"/", [HOST], [])
            await socket.send("hello")
            await socket.receive()
            await socket.close(1000, "")

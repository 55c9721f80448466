"""One workerd process that serves one function version, and our talk with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amba_runtime import limits, wire
from amba_runtime.engine.base import (
    GUEST_MODULE,
    Description,
    QueueMessage,
    StartFailed,
    StartFault,
    Surroundings,
)
from amba_runtime.engine.workerd import config
from amba_runtime.engine.workerd.control import Control
from amba_runtime.engine.workerd.far_ends import empty_cache, in_line
from amba_runtime.engine.workerd.guest_socket import WorkerdSocket, open_guest_socket
from amba_runtime.engine.workerd.last_words import (
    MEMORY_USED_UP,
    StderrLines,
    heap_full,
    last_words,
    start_failed,
    walls_refused,
)
from amba_runtime.errors import InternalCode, InternalError
from amba_runtime.line import Line
from amba_runtime.manifest import HANDLERS, Bundle, Manifest
from amba_runtime.outcome import Breach, Ended, Event, Outcome, Tell

if TYPE_CHECKING:
    from amba_runtime.engine.workerd.engine import WorkerdEngine
    from amba_runtime.sandbox import Enclosed
    from amba_runtime.sandbox.cgroups import Group

logger = logging.getLogger("amba.workerd")

CONFIGURATION = "worker.capnp"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class WorkerdIsolate:
    """A process, its private folder and its sockets. Made by `WorkerdEngine.start`.

    Seven Unix sockets: two that the process answers (tenants' requests; our control), which it was
    handed and cannot see; five that we answer (egress, STORAGE, EDGE_DB_PROXY, late console lines,
    the Cache API), which lie in the one folder that it sees, `in`, beside its configuration.
    """

    def __init__(
        self, engine: WorkerdEngine, folder: Path, manifest: Manifest, surroundings: Surroundings
    ) -> None:
        loop = asyncio.get_running_loop()
        self._engine = engine
        self.folder = folder
        self._inner = folder / "in"
        self._surroundings = surroundings
        self._manifest = manifest
        self._client = wire.Client(folder / "fn.sock", loop=loop)
        control = wire.Client(folder / "control.sock", loop=loop)
        self._control = Control(control, surroundings.tell, surroundings.callers)
        line = Line(lambda: limits.SERVICE_CALLS.value)
        self._servers = [
            self._server("egress", surroundings.egress),
            self._server("log", self._control.late),
            self._server("cache", in_line(line, empty_cache)),
        ]
        storage = surroundings.storage if manifest.storage else None
        services = {"r2": storage, "database": surroundings.database}
        given = {name: handler for name, handler in services.items() if handler is not None}
        self._servers += [self._server(n, in_line(line, handler)) for n, handler in given.items()]
        self._services = frozenset(given)
        self._process: Enclosed | None = None
        self._group: Group | None = None
        self._stderr: deque[str] = deque(maxlen=limits.STDERR_LINES.value)
        self._stderr_transport: asyncio.BaseTransport | None = None
        self._exited: asyncio.Future[int] = loop.create_future()
        self._closing = False
        self._verdict: Ended | None = None
        self._described = False

    # life

    def _server(self, name: str, handler: wire.Handler) -> wire.Server:
        path = self._inner / f"{name}.sock"
        door = self._engine.intake.door(self._manifest.project_id)
        return wire.Server(path, handler, name=name, intake=door)

    async def open(self, bundle: Bundle) -> None:
        """Write the configuration, listen, start the process within its walls.

        Raises:
            InternalError: it could not be started, or its walls or its group do not stand.
        """
        self._write(bundle)
        for server in self._servers:
            await server.open()
        engine, folder = self._engine, self.folder
        fn = wire.listen_unix(folder / "fn.sock")
        control = wire.listen_unix(folder / "control.sock")
        out_r, out_w = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        try:
            # the read end is ours from here on, also when the spawn fails
            self._stderr_transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: StderrLines(self._stderr), os.fdopen(out_r, "rb", buffering=0)
            )
            most = self._manifest.limits.memory_mib * limits.MIB
            self._group = engine.group(folder.name, memory_bytes=most)
            self._process = await engine.sandbox.enclose(
                engine.spawner,
                engine.program,
                engine.arguments(engine.sandbox.inside(self._inner, CONFIGURATION)),
                folder=self._inner,
                fds=[null, out_w, out_w, fn.fileno(), control.fileno()],
                exited=self._ended,
                group=self._group,
            )
        finally:
            fn.close()
            control.close()
            os.close(out_w)
            os.close(null)

    def _write(self, bundle: Bundle) -> None:
        """The folder that the process sees: what it is to run, and nothing of anybody else."""
        inner = self._inner
        inner.mkdir(mode=0o700)
        for name, code in self._engine.modules.items():
            (inner / name).write_bytes(code)
        (inner / GUEST_MODULE).write_bytes(bundle.code)

        def seen(name: str) -> Path:
            return Path(self._engine.sandbox.inside(inner, name))

        (inner / CONFIGURATION).touch(mode=0o600)
        (inner / CONFIGURATION).write_text(
            config.render(
                self._manifest,
                bundle,
                egress=seen("egress.sock"),
                log=seen("log.sock"),
                cache=seen("cache.sock"),
                storage=seen("r2.sock") if "r2" in self._services else None,
                database=seen("database.sock") if "database" in self._services else None,
                mark=self._surroundings.mark,
            )
        )

    @property
    def alive(self) -> bool:
        """The process runs and was not told to stop."""
        return self._process is not None and not self._exited.done() and not self._closing

    @property
    def pid(self) -> int:
        """Of the engine process; 0 before it was started."""
        return 0 if self._process is None else self._process.pid

    def _ended(self, code: int) -> None:
        if not self._exited.done():
            self._exited.set_result(code)
        # of one that never came to serve, `StartFailed` tells
        if self._described and not self._closing:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            reason = f"engine process {self.pid} ended ({how}): {last_words(self._stderr)}"
            # whoever ended it on purpose has told why
            logger.log(logging.DEBUG if self._verdict else logging.WARNING, "%s", reason)
            self._surroundings.died(self._verdict or self._judge(reason))

    def _judge(self, reason: str) -> Ended:
        """Why it ended, when nobody ended it on purpose."""
        most = self._manifest.limits.memory_mib
        group = self._group
        if group is not None and group.out_of_memory() > 0:
            peak = group.peak_bytes()
            breach = Breach("memory_mib", most if peak is None else -(-peak // limits.MIB), most)
            return Ended(Outcome.EXCEEDED_MEMORY, reason, breach)
        if heap_full(self._stderr):  # well before the process has used up what it may
            full = config.heap_mib(most)
            share = limits.HEAP_SHARE.value
            note = f"its JavaScript heap was full at {full} MiB, {share} % of memory_mib {most}"
            breach = Breach("memory_mib", full, most, note)
            return Ended(
                Outcome.EXCEEDED_MEMORY, f"engine process {self.pid} ended: {note}", breach
            )
        return Ended(Outcome.INTERNAL_ERROR, reason)

    async def close(self) -> None:
        """End the process, wait until it is gone, remove its folder. Idempotent."""
        self._closing = True
        self._client.close()
        self._control.close()
        if self._process is not None:
            if not self._exited.done():
                self._process.kill()
                await self._end()
            self._process.close()
        if self._group is not None:
            self._end_rest(self._group)
            self._group.close()
        for server in self._servers:
            await server.close()
        if self._stderr_transport is not None:
            self._stderr_transport.close()
        self._engine.forget(self)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_rest(self, group: Group) -> None:
        """End whatever else stands in its group: walls of its own, or what nobody foresaw."""
        if not group.kill():
            for pid in group.members():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)

    def cpu_s(self) -> float | None:
        """CPU seconds of the thread that runs JavaScript; None where the system does not say.

        Source: Linux /proc/PID/schedstat, first field, nanoseconds.
        """
        try:
            with open(f"/proc/{self.pid}/schedstat", "rb") as file:
                return int(file.read().split(b" ", 1)[0]) / 1e9
        except (OSError, ValueError):
            return None

    def memory_bytes(self) -> int | None:
        """Memory that is the process's own; None where the system does not say.

        Source: Linux /proc/PID/statm: resident pages less those backed by files or shared.
        """
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                fields = file.read().split(b" ", 3)
            return (int(fields[1]) - int(fields[2])) * _PAGE_BYTES
        except (OSError, ValueError, IndexError):
            return None

    def kill(self, ended: Ended) -> None:
        """End the process now; `died` is told this, whatever its exit code says."""
        self._verdict = self._verdict or ended
        if self._process is not None and not self._exited.done():
            self._process.kill()

    # requests

    def idle(self) -> wire.Connection | None:
        """A kept connection, or None."""
        return self._client.idle()

    async def exchange(self, *, fresh: bool = False) -> wire.Connection:
        """A connection for one request. Raises WireError, once the reason was told, when gone."""
        try:
            return await self._client.acquire(fresh=fresh)
        except wire.WireError:
            await self._end()
            raise

    async def _end(self) -> None:
        """Wait a moment for the exit code of a process whose sockets have closed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._exited), limits.STOP_S.value)

    async def socket(
        self, target: bytes, headers: wire.Headers, subprotocols: Sequence[str]
    ) -> WorkerdSocket:
        """Open a WebSocket to the guest. Raises Refused, WireError."""
        return await open_guest_socket(self.folder / "fn.sock", target, headers, subprotocols)

    # control

    async def describe(self) -> Description:
        """What the bundle is, once its top level ran.

        Raises:
            StartFailed: the top level threw, never settled, took too much CPU, or is no
                JavaScript; or the engine ended over it.
        """
        ask = asyncio.ensure_future(self._control.ask("/describe"))
        try:
            data = await self._watched(ask)
        except (wire.WireError, InternalError):
            await self._end()
            raise self._failed() from None
        finally:
            ask.cancel()
        self._described = True
        # it was read: secrets do not lie on the disk, whatever becomes of us
        (self._inner / CONFIGURATION).unlink(missing_ok=True)
        return Description(
            tuple(h for h in HANDLERS if h in str(data.get("handlers")).split()),
            str(data.get("default")),
            Tell.parse(str(data.get("startup"))),
            str(data.get("fault"))[: limits.VIOLATION_TEXT.value],
        )

    def _failed(self) -> StartFailed | InternalError:
        """Why it did not start: the guest's fault, or that of the walls."""
        lines = tuple(self._stderr)
        refused = walls_refused(lines)
        if refused:
            return InternalError(InternalCode.ENGINE_START, f"no walls could be raised: {refused}")
        if self._group is not None and self._group.out_of_memory():
            return StartFailed(MEMORY_USED_UP, fault=StartFault.MEMORY)
        failure = start_failed(lines)
        if failure.fault is StartFault.DIED:
            logger.warning("process %d of a start: %s", self.pid, failure.reason)
        return failure

    async def _watched(self, ask: asyncio.Future[dict[str, Any]]) -> dict[str, Any]:
        """The answer to `ask`, unless the start takes more CPU or longer than it may.

        The engine cannot stop its own guest (architecture.md, limits): its clock is read from
        outside. Where the system does not tell, the time of day stands for it.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        most_s = self._manifest.limits.startup_ms / 1000
        while True:
            done, _ = await asyncio.wait({ask}, timeout=limits.START_POLL_S.value)
            if done:
                return ask.result()
            wall_s = loop.time() - began_s
            cpu_s = self.cpu_s() if self.alive else 0.0
            if (wall_s if cpu_s is None else cpu_s) > most_s:
                raise StartFailed(
                    f"its start took more than {self._manifest.limits.startup_ms} ms of CPU time",
                    fault=StartFault.CPU,
                )
            most_mib = self._manifest.limits.memory_mib
            if (self.memory_bytes() or 0) > most_mib * limits.MIB:
                raise StartFailed(
                    f"its start took more than {most_mib} MiB of memory", fault=StartFault.MEMORY
                )
            if wall_s > limits.START_S.value + most_s:
                raise StartFailed(
                    f"its start did not end in {wall_s:.0f} s", fault=StartFault.UNSETTLED
                )

    async def scheduled(
        self, *, cron: str, scheduled_time_ms: int, tell: Tell | None = None
    ) -> Event:
        """Deliver one schedule slot and wait for its end, `waitUntil` included."""
        slot_ms = scheduled_time_ms
        return await self._control.scheduled(cron=cron, scheduled_time_ms=slot_ms, tell=tell)

    async def queue(
        self, *, queue: str, messages: Sequence[QueueMessage], tell: Tell | None = None
    ) -> Event:
        """Deliver one batch and wait for its end, `waitUntil` included."""
        return await self._control.queue(queue=queue, messages=messages, tell=tell)

    async def configure(self, values: Mapping[str, str]) -> None:
        """Give text bindings new values, for invocations from now on. Raises WireError."""
        await self._control.configure(values)

    async def pending(self) -> int:
        """Promises given to `waitUntil` that have not settled; untrusted. Raises WireError."""
        return await self._control.pending()

    async def ping(self) -> None:
        """Returns once the thread that runs JavaScript has answered. Raises WireError."""
        await self._control.ping()

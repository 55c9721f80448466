"""One workerd process that serves one function version, and our talk with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from amba_runtime import limits, wire
from amba_runtime.engine.base import (
    GUEST_MODULE,
    Description,
    Refused,
    StartFailed,
    StartFault,
    Surroundings,
)
from amba_runtime.engine.workerd import config
from amba_runtime.engine.workerd.last_words import (
    MEMORY_USED_UP,
    heap_full,
    last_words,
    start_failed,
    walls_refused,
)
from amba_runtime.errors import InternalCode, InternalError
from amba_runtime.manifest import HANDLERS, Bundle, Manifest
from amba_runtime.outcome import Breach, Ended, Event, Outcome, Tell

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

    from amba_runtime.engine.workerd.engine import WorkerdEngine
    from amba_runtime.sandbox import Enclosed
    from amba_runtime.sandbox.cgroups import Group

logger = logging.getLogger("amba.workerd")

CONFIGURATION = "worker.capnp"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class WorkerdIsolate:
    """A process, its private folder and its sockets. Made by `WorkerdEngine.start`.

    Six Unix sockets: two that the process answers (tenants' requests; our control), which it was
    handed and cannot see; four that we answer (egress, STORAGE, late console lines, the Cache
    API), which lie in the one folder that it sees, `in`, beside its configuration.
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
        self._control = wire.Client(folder / "control.sock", loop=loop)
        self._servers = [
            wire.Server(self._inner / "egress.sock", surroundings.egress, name="egress"),
            wire.Server(self._inner / "log.sock", self._late, name="log"),
            wire.Server(self._inner / "cache.sock", _cache, name="cache"),
        ]
        if surroundings.storage is not None and manifest.storage:
            self._servers.append(
                wire.Server(self._inner / "r2.sock", surroundings.storage, name="storage")
            )
        self._process: Enclosed | None = None
        self._group: Group | None = None
        self._stderr: deque[str] = deque(maxlen=limits.STDERR_LINES.value)
        self._stderr_transport: asyncio.BaseTransport | None = None
        self._exited: asyncio.Future[int] = loop.create_future()
        self._closing = False
        self._verdict: Ended | None = None
        self._described = False
        self._labels: dict[str, Tell] = {}

    # life

    async def open(self, bundle: Bundle) -> None:
        """Write the configuration, listen, start the process within its walls.

        Raises:
            InternalError: it could not be started, or its walls do not stand.
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
                lambda: _Lines(self._stderr), os.fdopen(out_r, "rb", buffering=0)
            )
            self._group = self._join()
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
        storage = len(self._servers) == 4
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
                storage=seen("r2.sock") if storage else None,
                mark=self._surroundings.mark,
            )
        )

    def _join(self) -> Group | None:
        """The control group of this isolate; None where there are none."""
        most = self._manifest.limits.memory_mib * limits.MIB
        try:
            return self._engine.cgroups.open(self.folder.name, memory_bytes=most)
        except OSError as error:  # the watchdog looks at the process then
            logger.warning("no control group for a function: %s", error)
            return None

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
            logger.warning("%s", reason)
            self._surroundings.died(self._verdict or self._judge(reason))

    def _judge(self, reason: str) -> Ended:
        """Why it ended, when nobody ended it on purpose."""
        most = self._manifest.limits.memory_mib
        if self._out_of_memory():
            peak = self._group.peak_bytes() if self._group is not None else None
            breach = Breach("memory_mib", most if peak is None else -(-peak // limits.MIB), most)
            return Ended(Outcome.EXCEEDED_MEMORY, reason, breach)
        return Ended(Outcome.INTERNAL_ERROR, reason)

    def _out_of_memory(self) -> bool:
        """Whether memory was what it ended over: the kernel says so, or V8 did."""
        killed = self._group is not None and self._group.out_of_memory() > 0
        return killed or heap_full(self._stderr)

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
            self._group.close()
        for server in self._servers:
            await server.close()
        if self._stderr_transport is not None:
            self._stderr_transport.close()
        self._engine.forget(self)
        shutil.rmtree(self.folder, ignore_errors=True)

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
        """Open a WebSocket to the guest.

        Raises:
            Refused: the guest answered with an ordinary response.
            WireError: the engine is gone.
        """
        from websockets.exceptions import InvalidHandshake, InvalidStatus

        from amba_runtime.engine.workerd.handshake import open_socket

        fields = [field for field in headers if field[0] != b"host"]
        host = next((v for n, v in headers if n == b"host"), b"localhost").decode("latin-1")
        try:
            connection = await open_socket(
                self.folder / "fn.sock", host, target.decode("latin-1"), fields, subprotocols
            )
        except InvalidStatus as refusal:
            answer = refusal.response
            raise Refused(
                answer.status_code,
                [
                    (n.lower().encode("latin-1"), v.encode("latin-1"))
                    for n, v in answer.headers.raw_items()
                ],
                bytes(answer.body or b"")[: limits.REFUSAL_BYTES.value],
            ) from None
        except (OSError, EOFError, InvalidHandshake, TimeoutError) as error:
            raise wire.WireError(f"the engine did not open a WebSocket: {error}") from error
        return WorkerdSocket(connection)

    # control

    async def describe(self) -> Description:
        """What the bundle is, once its top level ran.

        Raises:
            StartFailed: the top level threw, never settled, took too much CPU, or is no
                JavaScript; or the engine ended over it.
        """
        ask = asyncio.ensure_future(self._ask("/describe", None))
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

    async def scheduled(self, *, cron: str, scheduled_time_ms: int) -> Event:
        """Deliver one schedule slot and wait for its end, `waitUntil` included."""
        return await self._deliver(
            f"scheduled {scheduled_time_ms} {cron}",
            "/scheduled",
            {"cron": cron, "scheduledTimeMs": scheduled_time_ms},
        )

    async def queue(self, *, queue: str, messages: Sequence[dict[str, Any]]) -> Event:
        """Deliver one batch: messages are `{id, timestampMs, attempts, body}`."""
        first = messages[0]["id"] if messages else ""
        return await self._deliver(
            f"queue {queue} {first}", "/queue", {"queue": queue, "messages": list(messages)}
        )

    async def configure(self, values: Mapping[str, str]) -> None:
        """Give text bindings new values, for invocations from now on. Raises WireError."""
        await self._ask("/env", dict(values))

    async def pending(self) -> int:
        """Promises given to `waitUntil` that have not settled; untrusted. Raises WireError."""
        count = (await self._ask("/pending", None)).get("pending")
        return count if isinstance(count, int) else 0

    async def ping(self) -> None:
        """Returns once the thread that runs JavaScript has answered. Raises WireError."""
        await self._ask("/ping", None)

    async def _deliver(self, label: str, path: str, event: dict[str, Any]) -> Event:
        tell = self._labels.setdefault(label, Tell())
        try:
            result = await self._ask(path, event)
        finally:
            self._labels.pop(label, None)
        try:
            outcome = Outcome(str(result.get("outcome")))
        except ValueError:
            outcome = Outcome.INTERNAL_ERROR
        return Event(outcome, tell, result)

    async def _ask(self, path: str, event: dict[str, Any] | None) -> dict[str, Any]:
        connection = await self._control.acquire()
        try:
            body = b"" if event is None else json.dumps(event).encode()
            connection.begin(
                b"GET" if event is None else b"POST",
                path.encode(),
                b"host: control\r\n",
                len(body),
            )
            connection.write(body)
            await connection.head()
            parts: list[bytes] = []
            size = 0
            while data := await connection.read():
                size += len(data)
                if size > limits.CONTROL_BYTES.value:
                    raise InternalError(InternalCode.ENGINE_PROTOCOL, f"{path} answers too much")
                parts.append(data)
            status = connection.status
        except BaseException:
            connection.abort()
            raise
        connection.release()
        try:
            answer: Any = json.loads(b"".join(parts)) if status == 200 else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise InternalError(
                InternalCode.ENGINE_PROTOCOL, f"the control worker answered {path} with {status}"
            )
        return cast(dict[str, Any], answer)

    async def _late(self, request: wire.Request) -> wire.Response:
        """Console lines that were written after their invocation was answered."""
        label = (request.header(b"amba-run-invocation") or b"").decode("latin-1")
        tell = Tell.parse(await request.read(limits.LOG_POST_BYTES.value))
        waiting = self._labels.get(label)
        if waiting is not None:
            waiting.extend(tell)
        else:
            self._surroundings.tell(label, tell)
        return wire.Response(204)


_CACHE_ANSWERS = {"GET": 504, "PUT": 204, "PURGE": 404}


async def _cache(request: wire.Request) -> wire.Response:
    """The Cache API's other end: an empty cache that keeps nothing.

    Source: workerd api/cache.c++ (`match` is a GET that a cache without the object answers
    with 504, RFC 9111 section 5.2.1.7; `put` is a PUT, `delete` a PURGE).
    """
    async for _ in request.chunks():
        pass
    return wire.Response(_CACHE_ANSWERS.get(request.method, 405))


class WorkerdSocket:
    """A WebSocket to a guest, over the `websockets` library."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @property
    def subprotocol(self) -> str | None:
        """What the guest chose."""
        return self._connection.subprotocol

    @property
    def headers(self) -> wire.Headers:
        """Of the guest's 101 answer."""
        response = self._connection.response
        if response is None:
            return []
        return [
            (n.lower().encode("latin-1"), v.encode("latin-1"))
            for n, v in response.headers.raw_items()
        ]

    @property
    def close_code(self) -> int | None:
        """Set once the socket has ended; 1006 when it broke off."""
        return self._connection.close_code

    @property
    def close_reason(self) -> str:
        """In the guest's words."""
        return self._connection.close_reason or ""

    async def send(self, message: str | bytes) -> None:
        """Deliver one message. Raises WireError when the guest has closed."""
        from websockets.exceptions import ConnectionClosed

        try:
            await self._connection.send(message)
        except ConnectionClosed as error:
            raise wire.WireError("the guest closed the WebSocket") from error

    async def receive(self) -> str | bytes | None:
        """The next message; None once the socket has ended."""
        from websockets.exceptions import ConnectionClosed

        try:
            return await self._connection.recv()
        except ConnectionClosed:
            return None

    async def close(self, code: int, reason: str) -> None:
        """Say good-bye; with 1006 break off, as the caller did. Idempotent."""
        if code == 1006:
            self._connection.transport.abort()
            await self._connection.wait_closed()
            return
        await self._connection.close(code, reason)


class _Lines(asyncio.Protocol):
    """Keeps the last lines a process wrote; the process can never block on us."""

    def __init__(self, lines: deque[str]) -> None:
        self._lines = lines
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *whole, rest = (self._rest + data).split(b"\n")
        self._rest = rest[: limits.LOG_LINE_BYTES.value]  # its head says what it is
        for line in whole:
            text = line[: limits.LOG_LINE_BYTES.value].decode("utf-8", "replace")
            logger.debug("workerd: %s", text)
            self._lines.append(text)

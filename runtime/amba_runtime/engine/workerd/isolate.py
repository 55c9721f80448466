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
from amba_runtime.engine.workerd.last_words import last_words, start_failed
from amba_runtime.errors import InternalCode, InternalError
from amba_runtime.manifest import HANDLERS, Bundle, Manifest
from amba_runtime.outcome import Ended, Event, Outcome, Tell

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

    from amba_runtime.engine.workerd.engine import WorkerdEngine

logger = logging.getLogger("amba.workerd")

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class WorkerdIsolate:
    """A process, its private folder and its sockets. Made by `WorkerdEngine.start`.

    Six Unix sockets in a folder of mode 0700: two that the process answers (tenants'
    requests; our control), four that we answer (egress, STORAGE, late console lines, the
    Cache API).
    """

    def __init__(
        self, engine: WorkerdEngine, folder: Path, manifest: Manifest, surroundings: Surroundings
    ) -> None:
        loop = asyncio.get_running_loop()
        self._engine = engine
        self._folder = folder
        self._surroundings = surroundings
        self._manifest = manifest
        self._client = wire.Client(folder / "fn.sock", loop=loop)
        self._control = wire.Client(folder / "control.sock", loop=loop)
        self._servers = [
            wire.Server(folder / "egress.sock", surroundings.egress, name="egress"),
            wire.Server(folder / "log.sock", self._late, name="log"),
            wire.Server(folder / "cache.sock", _cache, name="cache"),
        ]
        if surroundings.storage is not None and manifest.storage:
            self._servers.append(
                wire.Server(folder / "r2.sock", surroundings.storage, name="storage")
            )
        self._pid = 0
        self._stderr: deque[str] = deque(maxlen=limits.STDERR_LINES.value)
        self._stderr_transport: asyncio.BaseTransport | None = None
        self._exited: asyncio.Future[int] = loop.create_future()
        self._closing = False
        self._verdict: Ended | None = None
        self._described = False
        self._labels: dict[str, Tell] = {}

    # life

    async def open(self, bundle: Bundle) -> None:
        """Write the configuration, listen, start the process."""
        folder = self._folder
        storage = folder / "r2.sock" if len(self._servers) == 4 else None
        for name, code in self._engine.modules.items():
            (folder / name).write_bytes(code)
        (folder / GUEST_MODULE).write_bytes(bundle.code)
        (folder / "worker.capnp").write_text(
            config.render(
                self._manifest,
                bundle,
                egress=folder / "egress.sock",
                log=folder / "log.sock",
                cache=folder / "cache.sock",
                storage=storage,
                mark=self._surroundings.mark,
            )
        )
        (folder / "worker.capnp").chmod(0o600)
        for server in self._servers:
            await server.open()
        fn = wire.listen_unix(folder / "fn.sock")
        control = wire.listen_unix(folder / "control.sock")
        out_r, out_w = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        try:
            # the read end is ours from here on, also when the spawn fails
            self._stderr_transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: _Lines(self._stderr), os.fdopen(out_r, "rb", buffering=0)
            )
            self._pid = await self._engine.spawner.spawn(
                self._engine.command(folder / "worker.capnp"),
                cwd=folder,
                fds=[null, out_w, out_w, fn.fileno(), control.fileno()],
                exited=self._ended,
            )
        finally:
            fn.close()
            control.close()
            os.close(out_w)
            os.close(null)

    @property
    def alive(self) -> bool:
        """The process runs and was not told to stop."""
        return self._pid != 0 and not self._exited.done() and not self._closing

    @property
    def pid(self) -> int:
        """Of the engine process; 0 before it was started."""
        return self._pid

    def _ended(self, code: int) -> None:
        if not self._exited.done():
            self._exited.set_result(code)
        # of one that never came to serve, `StartFailed` tells
        if self._described and not self._closing:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            reason = f"engine process {self._pid} ended ({how}): {last_words(self._stderr)}"
            logger.warning("%s", reason)
            self._surroundings.died(self._verdict or Ended(Outcome.INTERNAL_ERROR, reason))

    async def close(self) -> None:
        """End the process, wait until it is gone, remove its folder. Idempotent."""
        self._closing = True
        self._client.close()
        self._control.close()
        if self._pid and not self._exited.done():
            self._engine.spawner.kill(self._pid)
            await self._end()
        for server in self._servers:
            await server.close()
        if self._stderr_transport is not None:
            self._stderr_transport.close()
        self._engine.forget(self)
        shutil.rmtree(self._folder, ignore_errors=True)

    def cpu_s(self) -> float | None:
        """CPU seconds of the thread that runs JavaScript; None where the system does not say.

        Source: Linux /proc/PID/schedstat, first field, nanoseconds.
        """
        try:
            with open(f"/proc/{self._pid}/schedstat", "rb") as file:
                return int(file.read().split(b" ", 1)[0]) / 1e9
        except (OSError, ValueError):
            return None

    def memory_bytes(self) -> int | None:
        """Memory that is the process's own; None where the system does not say.

        Source: Linux /proc/PID/statm: resident pages less those backed by files or shared.
        """
        try:
            with open(f"/proc/{self._pid}/statm", "rb") as file:
                fields = file.read().split(b" ", 3)
            return (int(fields[1]) - int(fields[2])) * _PAGE_BYTES
        except (OSError, ValueError, IndexError):
            return None

    def kill(self, ended: Ended) -> None:
        """End the process now; `died` is told this, whatever its exit code says."""
        self._verdict = self._verdict or ended
        if self._pid and not self._exited.done():
            self._engine.spawner.kill(self._pid)

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
                self._folder / "fn.sock", host, target.decode("latin-1"), fields, subprotocols
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
            failure = start_failed(tuple(self._stderr))
            if failure.fault is StartFault.DIED:
                logger.warning("process %d of a start: %s", self._pid, failure.reason)
            raise failure from None
        finally:
            ask.cancel()
        self._described = True
        # it was read: secrets do not lie on the disk, whatever becomes of us
        (self._folder / "worker.capnp").unlink(missing_ok=True)
        return Description(
            tuple(h for h in HANDLERS if h in str(data.get("handlers")).split()),
            str(data.get("default")),
            Tell.parse(str(data.get("startup"))),
            str(data.get("fault"))[: limits.VIOLATION_TEXT.value],
        )

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

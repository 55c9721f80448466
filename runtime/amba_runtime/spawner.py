"""Our end of the spawner: start engine processes, learn of their end, kill them.

The other end is `spawn_main`, a process of its own that outlives none of us.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amba_runtime import limits
from amba_runtime.errors import InternalCode, InternalError

logger = logging.getLogger("amba.spawner")


@dataclass(slots=True)
class _Order:
    """A start that was asked for: who waits for its pid, and who for its end."""

    answer: asyncio.Future[int]
    exited: Callable[[int], None]


class Spawner:
    """Starts and reaps engine processes. `open` before use; `close` is idempotent.

    Orders in `_pending` and callbacks in `_exits` are changed only by `spawn` and `_read`. A pid
    is in `_exits` from the news of its start to that of its end: the spawner tells of both in
    that order, and of an end before the system can give the pid to another.
    """

    def __init__(self) -> None:
        self._link: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._buffer = b""
        self._next = 0
        self._pending: dict[int, _Order] = {}
        self._exits: dict[int, Callable[[int], None]] = {}

    async def open(self) -> None:
        """Start the spawner process, or another one when it was lost. Idempotent.

        Must run in the thread that lives as long as we do.
        """
        if self._link is not None:
            return
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: ASYNC220  a few ms, once, before serving
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(Path(__file__).with_name("spawn_main.py")),
                    str(os.getpid()),
                ],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env={},
                cwd="/",
            )
        finally:
            theirs.close()
        ours.setblocking(False)
        self._link = ours
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(ours.fileno(), self._read)

    @property
    def pid(self) -> int:
        """Of the spawner process; 0 where there is none."""
        return 0 if self._process is None else self._process.pid

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        fds: Sequence[int],
        exited: Callable[[int], None],
        walls: Mapping[str, Any] | None = None,
    ) -> int:
        """Start one process and return its pid. A start that is cancelled leaves no process.

        Args:
            argv: the program's absolute path first; its environment is empty.
            fds: become descriptors 0, 1, 2, 3, ... of the process; the caller closes its own.
            exited: called once with the exit code (negative: the signal), perhaps before this
                returns; not when this raises.
            walls: what the child does to itself before it becomes the program: see
                `spawn_main.confine`.

        Raises:
            InternalError: SPAWNER_GONE or ENGINE_START.
        """
        if self._link is None or self._loop is None:
            raise InternalError(InternalCode.SPAWNER_GONE, "the spawner process is not running")
        self._next += 1
        id_ = self._next
        order: dict[str, Any] = {"id": id_, "argv": list(argv), "cwd": str(cwd), "fds": len(fds)}
        if walls:
            order["walls"] = walls
        answer: asyncio.Future[int] = self._loop.create_future()
        self._pending[id_] = _Order(answer, exited)
        line = json.dumps(order).encode() + b"\n"
        told = False
        try:
            # a line and its descriptors leave in one call: small against the socket's buffer
            if socket.send_fds(self._link, [line], list(fds)) < len(line):
                self._lost()  # it would take the rest for the head of what comes next
            async with asyncio.timeout(limits.SPAWN_S.value):
                pid = await answer
            told = True
            return pid
        except (OSError, TimeoutError) as error:
            raise InternalError(
                InternalCode.SPAWNER_GONE, f"the spawner process does not answer: {error!r}"
            ) from error
        finally:
            self._pending.pop(id_, None)
            # left in the very moment of the answer: nobody but us knows this process
            if not told and _succeeded(answer):
                self._end_unwanted(answer.result())

    def _end_unwanted(self, pid: int) -> None:
        if pid in self._exits:
            self._exits[pid] = _nobody
            self.kill(pid)

    def kill(self, pid: int, sig: int = signal.SIGKILL) -> None:
        """Signal a process if it still runs; its `exited` is called as usual."""
        if self._link is not None and pid in self._exits:
            with contextlib.suppress(OSError):
                self._link.send(json.dumps({"kill": pid, "signal": int(sig)}).encode() + b"\n")

    def _read(self) -> None:
        assert self._link is not None
        try:
            data = self._link.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        self._buffer += data
        while b"\n" in self._buffer:
            line, self._buffer = self._buffer.split(b"\n", 1)
            self._handle(json.loads(line))

    def _handle(self, message: dict[str, Any]) -> None:
        if "exit" in message:
            self._exits.pop(message["exit"], _nobody)(message["code"])
            return
        order = self._pending.get(message["id"])
        wanted = order is not None and not order.answer.done()
        if "pid" in message:
            pid: int = message["pid"]
            self._exits[pid] = order.exited if order is not None else _nobody
            if order is not None and wanted:
                order.answer.set_result(pid)
            else:  # whoever asked has given up
                self._end_unwanted(pid)
        elif order is not None and wanted:
            error = InternalError(InternalCode.ENGINE_START, message["error"])
            order.answer.set_exception(error)

    def _lost(self) -> None:
        """The spawner ended, or is about to, and every engine with it."""
        self._hang_up()
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        self._tell_ends()

    def _hang_up(self) -> None:
        if self._link is not None:
            assert self._loop is not None
            self._loop.remove_reader(self._link.fileno())
            self._link.close()
            self._link = None
            self._buffer = b""  # half a line of one spawner is no beginning of another's

    def _tell_ends(self) -> None:
        for order in self._pending.values():
            if not order.answer.done():
                order.answer.set_exception(
                    InternalError(InternalCode.SPAWNER_GONE, "the spawner process ended")
                )
        exits, self._exits = self._exits, {}
        for exited in exits.values():
            exited(-signal.SIGKILL)

    async def close(self) -> None:
        """End the spawner and every process it started. Idempotent."""
        self._hang_up()
        process, self._process = self._process, None
        try:  # it ends what it has started, and what that has left behind
            if process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    await asyncio.to_thread(process.wait, limits.STOP_S.value)
        finally:  # also for a caller that has no patience
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
            self._tell_ends()


def _succeeded(answer: asyncio.Future[int]) -> bool:
    return answer.done() and not answer.cancelled() and answer.exception() is None


def _nobody(_code: int) -> None:
    """Whoever asked for the process has left."""

"""The spawner: a small single-threaded process that starts engines and takes them with it.

Run as a file with `python -I -S`, so it imports nothing but the standard library. It speaks
JSON lines over the socket that is its standard input; file descriptors ride along.
Engines die with it (PR_SET_PDEATHSIG), it dies with its parent (PDEATHSIG, and end of file on
the socket where there is no such thing): no engine outlives us, however we end.
A parent-death signal fires when the forking *thread* ends, and forking a threaded program is
unsafe: hence a process with one thread. Source: reliability.md 4.3 notes 6 and 7.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
from types import FrameType
from typing import Any

PR_SET_PDEATHSIG = 1
FDS_MAX = 16
QUIET = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # meant for our parent, who ends us
IGNORED = (*QUIET, signal.SIGPIPE, signal.SIGXFSZ)  # by us or by Python; `exec` would keep it so


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill us when our parent ends; die now if it is already gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _noted(_signal: int, _frame: FrameType | None) -> None:
    """A child ended: the wake-up descriptor has told the loop already."""


def start(order: dict[str, Any], fds: list[int]) -> int:
    """Fork and exec one engine; `fds` become 0, 1, 2, 3, ... in the child. Returns its pid."""
    me = os.getpid()
    argv = [str(a) for a in order["argv"]]
    signal.pthread_sigmask(signal.SIG_BLOCK, QUIET)  # one that comes meanwhile is kept
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, QUIET)
        return pid
    try:
        os.setsid()
        die_with_parent(me)
        # lift every descriptor out of the way first, so that none is overwritten before use
        lifted = [os.dup(fd) for fd in fds]
        base = max([*lifted, FDS_MAX]) + 1
        high = [os.dup2(fd, base + i, inheritable=False) for i, fd in enumerate(lifted)]
        for target, fd in enumerate(high):
            os.dup2(fd, target, inheritable=True)
        os.closerange(len(fds), base + len(fds))
        for sig in IGNORED:
            signal.signal(sig, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.chdir(str(order["cwd"]))
        os.execve(argv[0], argv, {})  # noqa: S606  no shell is wanted
    except BaseException:
        os._exit(127)


def serve(link: socket.socket) -> None:
    """Answer orders until the parent hangs up, then kill what was started."""
    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_r, False)
    os.set_blocking(wake_w, False)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _noted)
    for quiet in QUIET:
        signal.signal(quiet, signal.SIG_IGN)
    alive: set[int] = set()
    buffer: bytes = b""
    queued: list[int] = []
    poll = select.poll()
    poll.register(link, select.POLLIN)
    poll.register(wake_r, select.POLLIN)

    def say(message: dict[str, object]) -> None:
        link.sendall(json.dumps(message).encode() + b"\n")

    while True:
        ready = {fd for fd, _ in poll.poll()}
        if wake_r in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_r, 4096)
            while alive:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                alive.discard(pid)
                say({"exit": pid, "code": os.waitstatus_to_exitcode(status)})
        if link.fileno() not in ready:
            continue
        received: Any = socket.recv_fds(link, 65536, FDS_MAX)
        data = bytes(received[0])
        fds: list[int] = received[1]
        if not data:
            break
        queued += fds
        buffer += data
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            order = json.loads(line)
            if "kill" in order:
                if order["kill"] in alive:
                    os.kill(order["kill"], order["signal"])
                continue
            mine, queued = queued[: order["fds"]], queued[order["fds"] :]
            try:
                pid = start(order, mine)
                alive.add(pid)
                say({"id": order["id"], "pid": pid})
            except OSError as error:
                say({"id": order["id"], "error": str(error)})
            finally:
                for fd in mine:
                    os.close(fd)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    with (
        contextlib.suppress(BrokenPipeError, ConnectionResetError),
        socket.socket(fileno=0) as parent_link,
    ):
        serve(parent_link)

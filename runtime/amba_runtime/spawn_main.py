"""The spawner: a small single-threaded process that starts engines and takes them with it.

Run as a file with `python -I -S`, so it imports nothing but the standard library. It speaks
JSON lines over the socket that is its standard input; file descriptors ride along.
It ends what it started when its parent ends, which it learns from the end of file on the socket;
engines die with it, too (PR_SET_PDEATHSIG): none outlives us, however we end.
A parent-death signal fires when the forking *thread* ends, and forking a threaded program is
unsafe: hence a process with one thread. Source: reliability.md 4.3 notes 6 and 7.
What bubblewrap leaves behind when it is killed while it still works on a jail would be nobody's:
it becomes a child of ours (PR_SET_CHILD_SUBREAPER) and is ended.
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
from base64 import b64decode
from types import FrameType
from typing import Any

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
PR_SET_CHILD_SUBREAPER = 36
SECCOMP_MODE_FILTER = 2
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_RULE_PATH_BENEATH = 1
CAPABILITY_VERSION_3 = 0x20080522
FDS_MAX = 16
QUIET = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # meant for our parent, who ends us
IGNORED = (*QUIET, signal.SIGPIPE, signal.SIGXFSZ)  # by us or by Python; `exec` would keep it so


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"  # what `_pack_` means, said aloud: newer Pythons ask for it
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _did(result: int, what: str) -> int:
    """Pass a system call's result on. Raises OSError."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill us when our parent ends; die now if it is already gone."""
    if sys.platform == "linux":
        _libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
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
        confine(order.get("walls") or {}, me, str(order["cwd"]))
        os.execve(argv[0], argv, {})  # noqa: S606  no shell is wanted
    except BaseException as error:  # whatever it is: a forked child must not go on as a spawner
        with contextlib.suppress(OSError):
            os.write(2, f"spawner: {error!r}\n".encode(errors="replace"))
        os._exit(127)


def confine(walls: dict[str, Any], parent: int, cwd: str) -> None:
    """Give up, in the child, what the walls do not allow; any failure raises, and ends it.

    Args:
        walls: all of it optional: `join` (files of control groups, for "0"), `limits`
            (RLIMIT name -> value), `uid`, `privileges` (bool; given at all, there are no new
            ones, and false gives up those that there are), `landlock` (see `sandbox.landlock`),
            `seccomp` (base64 of a BPF program). Applied in this order.
    """
    for path in walls.get("join", ()):
        with open(path, "wb", buffering=0) as file:
            file.write(b"0")
    os.chdir(cwd)
    for name, value in walls.get("limits", {}).items():
        _limit(f"RLIMIT_{name}", int(value))
    rules = walls.get("landlock")
    ruleset = _ruleset(rules) if rules else None  # opens paths, so before a change of user
    uid = walls.get("uid")
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        die_with_parent(parent)  # the kernel forgets that wish with a change of user
    if "privileges" not in walls:
        return
    libc = _libc()
    if not walls["privileges"]:
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        _did(libc.capset(header, (ctypes.c_uint32 * 6)()), "giving up capabilities")
    _did(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    if ruleset is not None:
        _did(libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0), "Landlock")
    if "seccomp" in walls:
        code = b64decode(walls["seccomp"])
        program = _Filter(len(code) // 8, code)
        filter_ = ctypes.byref(program)
        _did(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_, 0, 0), "seccomp")


def _limit(name: str, value: int) -> None:
    """Lower a limit; one that is lower already stays."""
    import resource

    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (most, most))


def _ruleset(rules: dict[str, Any]) -> int:
    """The descriptor of a Landlock ruleset. Raises OSError."""
    libc = _libc()
    handled = (ctypes.c_uint64 * len(rules["handled"]))(*rules["handled"])
    size = ctypes.c_size_t(ctypes.sizeof(handled))
    ruleset = _did(libc.syscall(LANDLOCK_CREATE_RULESET, handled, size, 0), "Landlock")
    for path, allowed in rules["paths"]:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = _PathBeneath(allowed, fd)
        kind = LANDLOCK_RULE_PATH_BENEATH
        added = libc.syscall(LANDLOCK_ADD_RULE, ruleset, kind, ctypes.byref(rule), 0)
        _did(added, f"Landlock for {path}")
        os.close(fd)
    return ruleset


def adopt() -> None:
    """Become the parent of what our children leave behind."""
    if sys.platform == "linux":
        _libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_strays(alive: set[int]) -> None:
    """End children of ours that we did not start."""
    try:
        with open("/proc/thread-self/children") as file:  # we have one thread
            children = {int(word) for word in file.read().split()}
    except OSError:  # no such thing here: nobody is adopted either
        return
    for pid in children - alive:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def reap(alive: set[int], flags: int) -> tuple[int, int]:
    """Take the end of one child; (0, 0) where there is none to take, and no more to come."""
    while True:
        try:
            pid, status = os.waitpid(-1, flags)
        except ChildProcessError:
            return 0, 0
        if pid == 0:
            return 0, 0
        ours = pid in alive
        alive.discard(pid)
        end_strays(alive)
        if ours:
            return pid, os.waitstatus_to_exitcode(status)


def serve(link: socket.socket) -> None:
    """Answer orders until the parent hangs up, then kill what was started."""
    adopt()
    alive: set[int] = set()
    try:
        _serve(link, alive)
    finally:
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
        while reap(alive, 0)[0]:
            pass


def _serve(link: socket.socket, alive: set[int]) -> None:
    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_r, False)
    os.set_blocking(wake_w, False)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _noted)
    for quiet in QUIET:
        signal.signal(quiet, signal.SIG_IGN)
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
            while True:
                pid, code = reap(alive, os.WNOHANG)
                if pid == 0:
                    break
                say({"exit": pid, "code": code})
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


if __name__ == "__main__":
    if os.getppid() != int(sys.argv[1]):  # it ended before we began
        sys.exit(1)
    with (
        contextlib.suppress(BrokenPipeError, ConnectionResetError),
        socket.socket(fileno=0) as parent_link,
    ):
        serve(parent_link)

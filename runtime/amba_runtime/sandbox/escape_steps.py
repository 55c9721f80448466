"""What a program that has broken out of JavaScript would try, and what each tier answers.

One row for one try. `at3` and `at2` are the answers that the walls of that tier give, as names
of errors; the word "open" among them says that the wall does not reach so far, and that this is
known. `bare` is what the same call gives where there are no walls: without it, a refusal would
prove nothing. Source: reliability.md row F1, measurements B4 and B5; Linux man pages, section 2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from amba_runtime.sandbox.escape_elf import Argument, At, Call, Result

_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "add_key": (248, 217), "bpf": (321, 280),
    "chroot": (161, 51), "clone": (56, 220), "clone3": (435, 435), "connect": (42, 203),
    "execve": (59, 221), "fanotify_init": (300, 262), "fchmodat": (268, 53), "fork": (57, None),
    "fsopen": (430, 430), "getdents64": (217, 61), "getpid": (39, 172),
    "init_module": (175, 105), "inotify_init1": (294, 26), "io_uring_setup": (425, 425),
    "ioctl": (16, 29), "iopl": (172, None), "kcmp": (312, 272), "keyctl": (250, 219),
    "kill": (62, 129), "memfd_create": (319, 279), "mkdirat": (258, 34), "mknodat": (259, 33),
    "mmap": (9, 222), "modify_ldt": (154, None), "mount": (165, 40), "mq_open": (240, 180),
    "mq_unlink": (241, 181), "msgctl": (71, 187), "msgget": (68, 186),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "open_tree": (428, 428),
    "openat": (257, 56), "perf_event_open": (298, 241), "personality": (135, 92),
    "pidfd_getfd": (438, 438), "pidfd_open": (434, 434), "prctl": (157, 167),
    "prlimit64": (302, 261), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "ptrace": (101, 117), "read": (0, 63), "setns": (308, 268), "setpriority": (141, 140),
    "setresuid": (117, 147), "shmctl": (31, 195), "shmget": (29, 194), "socket": (41, 198),
    "symlinkat": (266, 36), "syslog": (103, 116), "tgkill": (234, 131), "umount2": (166, 39),
    "unlinkat": (263, 35), "unshare": (272, 97), "userfaultfd": (323, 282), "vfork": (58, None),
    "x32_getpid": (0x4000_0000 | 39, None), "old_getpid": (20, None),
}  # fmt: skip
"""Number on x86_64 and on aarch64; None where that machine has no such call.

Source: the kernel's syscall_64.tbl and asm-generic/unistd.h.
"""

LINK = 3
"""The descriptor that the probe reads its start from and writes its results to."""

WAY_OUT = "egress.sock"
"""A Unix socket in the probe's own folder, as an engine's: the one that it may connect to."""

OPEN = "open"
_HERE = -100  # AT_FDCWD
_SIGCHLD = 17
_IPC_PRIVATE, _IPC_REMOVE, _IPC_CREATE = 0, 0, 0o1000 | 0o600
_READ, _MAKE = 0, 0o2 | 0o100 | 0o200  # O_RDONLY; O_RDWR, O_CREAT, O_EXCL
_DEVICE = 0o020000 | 0o600
_EPERM = ("EPERM", "EPERM")  # at tier 3, at tier 2
_INFINITE = b"\xff" * 16


@dataclass(frozen=True, slots=True)
class Bait:
    """Names that the probe tries, as seen from inside.

    Attributes:
        folder: the one folder of ours that an engine reads: its own, with a file `config` and a
            socket WAY_OUT in it.
        word: unique, for names of things it tries to make.
        node: pid of the process that holds every tenant's secrets, ours.
        paths: Unix sockets by path that are listened on outside; no other's must open.
        abstract: abstract Unix sockets that are listened on outside, without the leading NUL.
    """

    folder: str
    word: str
    node: int
    paths: tuple[str, ...] = ()
    abstract: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One try.

    Attributes:
        at3, at2: names of errors, parted by blanks, that the walls answer with.
        bare: what is seen without walls: OPEN, or the error of a call that got through.
        root: `bare` is so for root alone.
        judged: False for what only prepares or tidies up after another step.
    """

    name: str
    call: Call
    at3: str = "EPERM"
    at2: str = "EPERM"
    bare: str = OPEN
    root: bool = False
    judged: bool = True

    @property
    def needed(self) -> bool:
        """An engine cannot do without: no wall stands here at any tier."""
        return self.at3 == self.at2 == OPEN

    def expected(self, tier: int) -> frozenset[str]:
        """What the walls of a tier answer."""
        return frozenset({3: self.at3, 2: self.at2}.get(tier, self.bare).split())


@dataclass(slots=True)
class _Table:
    """Collects steps of one machine and knows their places."""

    column: int
    steps: list[Step] = field(default_factory=lambda: list[Step]())

    def add(
        self,
        name: str,
        call: str,
        *arguments: Argument,
        walls: tuple[str, str] = _EPERM,
        bare: str = OPEN,
        root: bool = False,
        judged: bool = True,
    ) -> Result:
        """Append a step where this machine has the call; -1 stands for its result elsewhere."""
        number = _NUMBERS[call][self.column]
        if number is None:
            return Result(0)  # only an x86 call is missing, and no other step needs its result
        made = Call(
            number,
            arguments,
            forks=call in ("fork", "vfork", "clone", "clone3"),
            old=call == "old_getpid",
        )
        self.steps.append(Step(name, made, *walls, bare, root, judged))
        return Result(len(self.steps) - 1)

    def prepare(self, call: str, *arguments: Argument) -> Result:
        """Append a step whose own result is nobody's business."""
        return self.add(f"({call})", call, *arguments, judged=False)


def steps(bait: Bait, machine: str) -> list[Step]:
    """Every try, in an order in which none spoils the next where there are no walls.

    The first waits for a byte on LINK, so that the walls can be looked at from outside.
    """
    table = _Table({"x86_64": 0, "aarch64": 1}[machine])
    table.prepare("read", LINK, At.room(8), 1)
    _needed(table, bait)
    _network(table, bait)
    _files(table, bait)
    _processes(table, bait)
    _kernel(table, bait)
    _last(table)
    return table.steps


def _needed(table: _Table, bait: Bait) -> None:
    """What an engine cannot do without: shows, too, that the probe really ran."""
    table.add("socket AF_UNIX", "socket", 1, 1, 0, walls=(OPEN, OPEN))
    table.add("mmap RWX", "mmap", 0, 4096, 7, 0x22, -1, 0, walls=(OPEN, OPEN))
    fd = table.prepare("socket", 1, 1, 0)
    name = struct.pack("<H", 1) + f"{bait.folder}/{WAY_OUT}".encode() + b"\0"
    table.add(
        "connect to its own way out", "connect", fd, At((name,)), len(name), walls=(OPEN, OPEN)
    )
    at_root = At.text("/")
    table.add("open /", "openat", _HERE, at_root, _READ, walls=(OPEN, "EACCES open"))


def _network(table: _Table, bait: Bait) -> None:
    refused = ("EAFNOSUPPORT EPERM", "EAFNOSUPPORT EPERM")
    table.add("socket AF_INET", "socket", 2, 1, 0, walls=refused)
    table.add("socket AF_INET (UDP)", "socket", 2, 2, 0, walls=refused)
    table.add(
        "socket AF_INET (MPTCP)", "socket", 2, 1, 262, bare="open EPROTONOSUPPORT", walls=refused
    )
    table.add("socket AF_INET6", "socket", 10, 1, 0, bare="open EAFNOSUPPORT", walls=refused)
    table.add("socket AF_NETLINK", "socket", 16, 3, 0, walls=refused)
    table.add("socket AF_PACKET", "socket", 17, 3, 0, root=True, walls=refused)
    table.add("socket AF_VSOCK", "socket", 40, 1, 0, bare="open EAFNOSUPPORT", walls=refused)
    for path in bait.paths:
        fd = table.prepare("socket", 1, 1, 0)
        name = struct.pack("<H", 1) + path.encode() + b"\0"
        # Landlock cannot refuse these before ABI 9; file permissions can, for another user
        table.add(
            f"connect {path}", "connect", fd, At((name,)), len(name),
            walls=("ENOENT", "EACCES EPERM ENOENT open"),
        )  # fmt: skip
    for word in bait.abstract:
        fd = table.prepare("socket", 1, 1, 0)
        name = struct.pack("<H", 1) + b"\0" + word.encode()
        table.add(
            f"connect @{word}", "connect", fd, At((name,)), len(name),
            walls=("ECONNREFUSED EPERM", "EPERM"),
        )  # fmt: skip


def _files(table: _Table, bait: Bait) -> None:
    unseen = ("ENOENT", "EACCES")
    for path in ("/etc/passwd", "/proc/self/maps", "/sys/kernel", "/tmp"):  # noqa: S108
        table.add(f"open {path}", "openat", _HERE, At.text(path), _READ, walls=unseen)
    environment = At.text(f"/proc/{bait.node}/environ")
    table.add("open the node's environment", "openat", _HERE, environment, _READ, walls=unseen)
    made = At.text(f"/tmp/amba-escape-{bait.word}")  # noqa: S108
    barred = ("EROFS ENOENT EPERM", "EACCES EPERM")
    table.add("make a file in /tmp", "openat", _HERE, made, _MAKE, 0o600, walls=barred)
    table.prepare("unlinkat", _HERE, made, 0)
    folder = bait.folder
    inside = {
        name: At.text(f"{folder}/{name}") for name in ("made", "dir", "link", "device", "config")
    }
    table.add(
        "make a file by its code", "openat", _HERE, inside["made"], _MAKE, 0o600, walls=barred
    )
    table.add("write over its code", "openat", _HERE, inside["config"], 0o1001, walls=barred)
    table.add(
        "change the mode of its code", "fchmodat", _HERE, inside["config"], 0o777, walls=barred
    )
    table.add("make a folder", "mkdirat", _HERE, inside["dir"], 0o700, walls=barred)
    table.add("make a link", "symlinkat", At.text("/"), _HERE, inside["link"], walls=barred)
    table.add(
        "make a device", "mknodat", _HERE, inside["device"], _DEVICE, 0x103, root=True, walls=barred
    )
    table.add("remove its code", "unlinkat", _HERE, inside["config"], 0, walls=barred)
    at_root = At.text("/")
    fd = table.prepare("openat", _HERE, at_root, _READ)
    table.add("getdents64", "getdents64", fd, At.room(4096), 4096)
    handle = At((struct.pack("<II", 128, 0) + bytes(128),))
    table.prepare("name_to_handle_at", _HERE, at_root, handle, At.room(8), 0)
    table.add(
        "open_by_handle_at", "open_by_handle_at", fd, handle, _READ,
        bare="open ESTALE EINVAL", root=True,
    )  # fmt: skip


def _processes(table: _Table, bait: Bait) -> None:
    me = table.prepare("getpid")
    table.add("fork", "fork")
    table.add("vfork", "vfork")
    table.add("clone without CLONE_THREAD", "clone", _SIGCHLD, 0, 0, 0, 0)
    table.add("clone CLONE_NEWUSER", "clone", 0x1000_0000 | _SIGCHLD, 0, 0, 0, 0)
    arguments = At((bytes(32) + struct.pack("<Q", _SIGCHLD) + bytes(24),))
    table.add("clone3", "clone3", arguments, 64, walls=("ENOSYS", "ENOSYS"))
    table.add("kill", "kill", me, 0)
    # a signal to oneself is how an engine aborts; at tier 3 the node has no number at all
    signal = ("ESRCH EPERM", "EPERM")
    table.add("signal the node", "tgkill", bait.node, bait.node, 0, walls=signal)
    table.add("ptrace", "ptrace", 2, me, 0, 0, bare="ESRCH")
    here = At((b"amba" * 2,))
    vector = At((here, struct.pack("<Q", 8)))
    table.add("process_vm_readv", "process_vm_readv", me, vector, 1, vector, 1, 0)
    table.add("process_vm_writev", "process_vm_writev", me, vector, 1, vector, 1, 0)
    table.add("kcmp", "kcmp", me, me, 0, 0, 0, bare="open ENOSYS")
    pidfd = table.add("pidfd_open", "pidfd_open", me, 0)
    table.add("pidfd_getfd", "pidfd_getfd", pidfd, 0, 0)
    barred = ("EPERM EACCES", "EPERM EACCES")
    table.add("setpriority below 0", "setpriority", 0, 0, -5, root=True, walls=barred)
    table.add("raise RLIMIT_CORE", "prlimit64", 0, 4, At((_INFINITE,)), 0, root=True)


def _kernel(table: _Table, bait: Bait) -> None:
    table.add("bpf", "bpf", 0, At((struct.pack("<4I", 2, 4, 4, 1) + bytes(56),)), 72, root=True)
    table.add("io_uring_setup", "io_uring_setup", 1, At.room(120), bare="open EPERM ENOSYS")
    table.add("userfaultfd", "userfaultfd", 1, bare="open ENOSYS")
    attributes = At((struct.pack("<IIQ", 1, 112, 0) + bytes(96),))
    table.add("perf_event_open", "perf_event_open", attributes, 0, -1, -1, 0, root=True)
    table.add("keyctl", "keyctl", 0, -2, 1, bare="open ENOSYS")
    kind, payload = At.text("user"), At.text("escape")
    table.add("add_key", "add_key", kind, payload, payload, 6, -2, bare="open ENOSYS")
    table.add("memfd_create", "memfd_create", At.text("escape"), 0)
    table.add("personality", "personality", 0xFFFF_FFFF)
    table.add("syslog", "syslog", 10, 0, 0, root=True)
    table.add("inotify_init1", "inotify_init1", 0)
    table.add("fanotify_init", "fanotify_init", 0, 0, root=True, bare="open ENOSYS")
    table.add("init_module", "init_module", 0, 0, kind, root=True,
              bare="EFAULT ENOEXEC ENOSYS EINVAL")  # fmt: skip
    table.add("PR_SET_MM", "prctl", 35, 15, At.room(8), 0, 0, bare="open EINVAL")
    table.add("TIOCSTI", "ioctl", 0, 0x5412, kind, bare="ENOTTY EIO")
    # the kernel looks at 32 bits: so must a filter (CVE-2019-10063)
    table.add("TIOCSTI with high bits", "ioctl", 0, 0x1_0000_5412, kind, bare="ENOTTY EIO")
    memory = table.add("shmget", "shmget", _IPC_PRIVATE, 4096, _IPC_CREATE, bare="open ENOSYS")
    table.prepare("shmctl", memory, _IPC_REMOVE, 0)
    queue = table.add("msgget", "msgget", _IPC_PRIVATE, _IPC_CREATE, bare="open ENOSYS")
    table.prepare("msgctl", queue, _IPC_REMOVE, 0)
    name = At.text(f"amba-{bait.word}")
    table.add("mq_open", "mq_open", name, 0o102, 0o600, 0, bare="open ENOSYS")
    table.prepare("mq_unlink", name)
    table.add("modify_ldt", "modify_ldt", 0, At.room(16), 16, bare="open ENOSYS")
    table.add("iopl", "iopl", 0, bare="open ENOSYS")
    names = table.prepare("openat", _HERE, At.text("/proc/self/ns/uts"), _READ)
    table.add("setns", "setns", names, 0x0400_0000, root=True)
    folder, tmpfs = At.text(bait.folder), At.text("tmpfs")
    table.add("mount", "mount", tmpfs, folder, tmpfs, 0, 0, root=True)
    table.add("umount2", "umount2", folder, 2, root=True)
    table.add("fsopen", "fsopen", tmpfs, 0, root=True)
    table.add("open_tree", "open_tree", _HERE, At.text("/"), 1, root=True)
    table.add("chroot", "chroot", At.text("/"), root=True)
    table.add("setresuid 0", "setresuid", 0, 0, 0, root=True, walls=("EPERM EINVAL", "EPERM"))
    table.add("unshare CLONE_NEWNS", "unshare", 0x2_0000, root=True)
    table.add("unshare CLONE_NEWNET", "unshare", 0x4000_0000, root=True)
    table.add("unshare CLONE_NEWUSER", "unshare", 0x1000_0000)
    table.add("PR_SET_DUMPABLE", "prctl", 4, 0, 0, 0, 0, walls=("open EPERM", "open EPERM"))


def _last(table: _Table) -> None:
    """What may end the probe: another way into the kernel, another program in its place."""
    table.add("x32 call", "x32_getpid", bare="open ENOSYS")
    table.add("32-bit call", "old_getpid", bare="open ENOSYS")
    shell = At.text("/bin/sh")
    line = At((shell, At.text("-c"), At.text("exit 0"), bytes(8)))
    table.add("exec /bin/sh", "execve", shell, line, At((bytes(8),)), walls=("ENOENT", "EACCES"))

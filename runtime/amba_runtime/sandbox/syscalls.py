"""Which system calls an engine may make, and their numbers on the machines that we know.

Made from what workerd does with every fixture and guest (`python -m tests.drills syscalls` says
when the list and the engine part), and the few beside them that only another CPU, another glibc
or a moment of bad luck brings about. What is not here is refused.
Source: asm/unistd_64.h and asm-generic/unistd.h of Linux; reliability.md 4.3.
"""

from __future__ import annotations

MACHINES = ("x86_64", "aarch64")
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""What the kernel tells a filter of the machine. Source: linux/audit.h."""

ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # files that are open, or lie in the little that can be seen
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "close": (3, 57),
    "lseek": (8, 62),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "openat": (257, 56),
    "access": (21, None),
    "faccessat": (269, 48),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "uname": (63, 160),
    # events
    "poll": (7, None),
    "ppoll": (271, 73),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
    "pipe2": (293, 59),
    # sockets that are open; see CHECKED for new ones
    "connect": (42, 203),
    "accept4": (288, 242),
    "getsockname": (51, 204),
    "getsockopt": (55, 209),
    "setsockopt": (54, 208),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "shutdown": (48, 210),
    # memory: a JavaScript engine writes machine code
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "pkey_alloc": (330, 289),
    "pkey_free": (331, 290),
    "pkey_mprotect": (329, 288),
    "membarrier": (324, 283),
    # signals to itself
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    # threads and time
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "set_tid_address": (218, 96),
    "arch_prctl": (158, None),
    "gettid": (186, 178),
    "getpid": (39, 172),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "getrandom": (318, 278),
    "restart_syscall": (219, 128),
    # the filter stands before the engine is there; harmless where nothing else can be executed
    "execve": (59, 221),
}
"""Name -> number on each of MACHINES, None where there is no such call."""

CHECKED: dict[str, tuple[int, int]] = {
    "clone": (56, 220),
    "clone3": (435, 435),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "ioctl": (16, 29),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "fcntl": (72, 25),
}
"""The same of calls that are judged by their arguments (see `seccomp.program`)."""

DONE_WITHOUT = ("tgkill",)
"""Made, and refused all the same: `abort` then ends at an instruction that ends it anyway."""

EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97
CLONE_THREAD = 0x00010000
CLONE_NEW = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. Source: linux/sched.h."""
AF_UNIX = 1
IOCTLS = (0x5401, 0x5421, 0x541B, 0x5450, 0x5451)
"""TCGETS (is it a terminal?), FIONBIO, FIONREAD, FIONCLEX, FIOCLEX. No TIOCSTI, of all things."""
PRCTLS = (15, 0x53564D41)
"""PR_SET_NAME, PR_SET_VMA (a name for memory)."""
FCNTLS = (0, 1, 2, 3, 4, 1030)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC. No F_SETOWN: it signals others."""


def numbers(machine: str) -> dict[str, int]:
    """Name -> number of ALLOWED on one of MACHINES."""
    column = MACHINES.index(machine)
    found = ((name, row[column]) for name, row in ALLOWED.items())
    return {name: number for name, number in found if number is not None}

"""The filter for system calls, run by an interpreter of our own: what is answered, and how."""

from __future__ import annotations

import platform

import pytest

from amba_runtime.sandbox import seccomp, syscalls

ALLOW = "allow"
KILL = "kill"
EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97

FORBIDDEN = {
    "x86_64": {
        "ptrace": 101,
        "fork": 57,
        "vfork": 58,
        "kill": 62,
        "tgkill": 234,
        "tkill": 200,
        "mount": 165,
        "umount2": 166,
        "chroot": 161,
        "pivot_root": 155,
        "unshare": 272,
        "setns": 308,
        "bpf": 321,
        "io_uring_setup": 425,
        "userfaultfd": 323,
        "keyctl": 250,
        "perf_event_open": 298,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "memfd_create": 319,
        "personality": 135,
        "open_by_handle_at": 304,
        "getdents64": 217,
        "execveat": 322,
        "open": 2,
        "creat": 85,
        "unlink": 87,
        "mkdir": 83,
        "chmod": 90,
        "bind": 49,
        "listen": 50,
        "setuid": 105,
        "setresuid": 117,
        "capset": 126,
        "landlock_restrict_self": 446,
        "seccomp": 317,
        "pidfd_open": 434,
        "memfd_secret": 447,
        "init_module": 175,
        "reboot": 169,
        "swapon": 167,
        "iopl": 172,
        "syslog": 103,
        "shmget": 29,
        "msgget": 68,
        "inotify_init1": 294,
        "fanotify_init": 300,
        "pwrite64": 18,
        "ftruncate": 77,
        "rename": 82,
        "symlink": 88,
        "link": 86,
    },
    "aarch64": {
        "ptrace": 117,
        "kill": 129,
        "tgkill": 131,
        "mount": 40,
        "chroot": 51,
        "unshare": 97,
        "setns": 268,
        "bpf": 280,
        "io_uring_setup": 425,
        "userfaultfd": 282,
        "keyctl": 219,
        "perf_event_open": 241,
        "process_vm_readv": 270,
        "memfd_create": 279,
        "personality": 92,
        "open_by_handle_at": 265,
        "getdents64": 61,
        "execveat": 281,
        "bind": 200,
        "listen": 201,
        "seccomp": 277,
        "unlinkat": 35,
        "mkdirat": 34,
    },
}
"""Numbers of asm/unistd_64.h and asm-generic/unistd.h, written down apart from our tables."""


def judge(program: bytes, number: int, *arguments: int, arch: int | None = None) -> str | int:
    """What the kernel would answer: ALLOW, KILL or an error's number.

    Source: linux/filter.h; instructions are forward only, so this ends.
    """
    assert len(program) % 8 == 0
    code = list(seccomp.INSTRUCTION.iter_unpack(program))
    data = {0: number & 0xFFFFFFFF, 4: arch}
    for index in range(6):
        value = arguments[index] if index < len(arguments) else 0
        data[16 + 8 * index] = value & 0xFFFFFFFF
        data[20 + 8 * index] = value >> 32 & 0xFFFFFFFF
    at = accumulator = 0
    while True:
        op, yes, no, value = code[at]
        at += 1
        if op == 0x06:  # return
            kind, detail = value & 0xFFFF0000, value & 0xFFFF
            answers: dict[int, str | int] = {0x7FFF0000: ALLOW, 0x80000000: KILL, 0x50000: detail}
            return answers[kind]
        if op == 0x20:  # load a word
            loaded = data[value]
            assert loaded is not None
            accumulator = loaded
            continue
        met = {
            0x15: accumulator == value,
            0x35: accumulator >= value,
            0x45: bool(accumulator & value),
        }[op]
        at += yes if met else no


class Filter:
    """The program of one machine."""

    def __init__(self, machine: str) -> None:
        self.machine = machine
        self.column = syscalls.MACHINES.index(machine)
        self.program = seccomp.program(machine)

    def judge(self, number: int, *arguments: int) -> str | int:
        return judge(self.program, number, *arguments, arch=syscalls.AUDIT_ARCH[self.machine])

    def checked(self, name: str, *arguments: int) -> str | int:
        return self.judge(syscalls.CHECKED[name][self.column], *arguments)


@pytest.fixture(params=syscalls.MACHINES)
def filter_(request: pytest.FixtureRequest) -> Filter:
    """For each machine that we know."""
    return Filter(request.param)


def test_what_is_listed_is_allowed_whatever_its_arguments(filter_: Filter) -> None:
    """And there are no more than the engine needs (reliability.md 4.3: about 86 calls)."""
    numbers = syscalls.numbers(filter_.machine)
    assert {filter_.judge(number, 2**64 - 1, 7, 9) for number in numbers.values()} == {ALLOW}
    assert len(numbers) + len(syscalls.CHECKED) <= 90


def test_all_else_is_refused(filter_: Filter) -> None:
    """Every number up to 1,023 that is in no table, and each that an attacker asks for by name."""
    known = {*syscalls.numbers(filter_.machine).values()}
    known |= {row[filter_.column] for row in syscalls.CHECKED.values()}
    assert {filter_.judge(n) for n in range(1024) if n not in known} == {EPERM}
    forbidden = FORBIDDEN[filter_.machine]
    assert {name: filter_.judge(n) for name, n in forbidden.items()} == dict.fromkeys(
        forbidden, EPERM
    )


def test_another_machines_calls_end_the_process(filter_: Filter) -> None:
    """32-bit calls have other numbers: what is harmless here is something else there."""
    i386, arm = 0x40000003, 0x40000028
    for arch in (i386, arm, 0):
        assert judge(filter_.program, 1, arch=arch) == KILL


def test_x32_is_refused() -> None:
    """The same arch as x86_64, other numbers from 2^30 on (reliability.md 4.3)."""
    filter_ = Filter("x86_64")
    for number in (0, 1, 59, 512, 520, 0x3FFFFFFF):
        assert filter_.judge(0x40000000 + number) == EPERM
    assert filter_.judge(0xFFFFFFFF) == EPERM


def test_threads_and_no_processes(filter_: Filter) -> None:
    """`clone` with CLONE_THREAD only; `clone3` is not there, so that glibc takes the other."""
    glibc_thread, fork, vfork = 0x3D0F00, 0x01200011, 0x4111
    new_user, new_mount = 0x10000000, 0x00020000
    assert filter_.checked("clone", glibc_thread) == ALLOW
    for flags in (
        *(0, fork, vfork, new_user, 0xFFFEFFFF, 0x00010000 << 32),
        *(glibc_thread | new_user, glibc_thread | new_mount),
    ):
        assert filter_.checked("clone", flags) == EPERM
    assert filter_.checked("clone3", 1) == ENOSYS


@pytest.mark.parametrize("call", ["socket", "socketpair"])
def test_new_sockets_are_unix_sockets(filter_: Filter, call: str) -> None:
    """Every other family is one that this system does not have (reliability.md B4)."""
    assert filter_.checked(call, 1, 1) == ALLOW
    assert filter_.checked(call, 0xFFFFFFFF00000001, 1) == ALLOW  # the kernel reads 32 bits too
    for family in (0, 2, 3, 10, 16, 17, 38, 40, 44, 2**32 - 1):
        assert filter_.checked(call, family, 1) == EAFNOSUPPORT


def test_ioctls_are_compared_as_the_kernel_compares_them(filter_: Filter) -> None:
    """By 32 bits: high ones hide nothing (CVE-2019-10063); no TIOCSTI (CVE-2017-5226)."""
    for number in syscalls.IOCTLS:
        assert filter_.checked("ioctl", 3, number) == ALLOW
    tiocsti, tioclinux = 0x5412, 0x541C
    for number in (tiocsti, tioclinux, tiocsti | 1 << 32, 0x5401 ^ 1 << 31, 0):
        assert filter_.checked("ioctl", 3, number) == EPERM


def test_options_are_those_that_the_engine_sets(filter_: Filter) -> None:
    """No PR_SET_MM, no PR_SET_DUMPABLE, no seccomp by the back door; no F_SETOWN; own limits."""
    assert filter_.checked("prctl", 15) == ALLOW
    for option in (1, 4, 22, 35, 38, 41, 47, 59):
        assert filter_.checked("prctl", option) == EPERM
    assert filter_.checked("fcntl", 3, 1030) == ALLOW
    for command in (5, 6, 7, 8, 10, 15, 1024, 1031, 1033):
        assert filter_.checked("fcntl", 3, command) == EPERM
    assert filter_.checked("prlimit64", 0, 7) == ALLOW
    assert filter_.checked("prlimit64", 1, 7) == EPERM


def test_a_program_is_short_enough_for_the_kernel(filter_: Filter) -> None:
    """BPF_MAXINSNS is 4,096; it also has to fit a pipe, unread."""
    assert len(filter_.program) // 8 < 4096
    assert len(filter_.program) < 4096


def test_machines_that_are_not_known_are_said_so() -> None:
    """No guess: without a table there is no filter, and no tier above 1."""
    assert seccomp.supported("x86_64")
    assert seccomp.supported("aarch64")
    assert not seccomp.supported("riscv64")
    assert seccomp.supported() == (platform.machine() in syscalls.MACHINES)
    with pytest.raises(KeyError):
        seccomp.program("riscv64")

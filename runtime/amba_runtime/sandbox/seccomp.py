"""The seccomp filter: which system calls the kernel answers at all, as a BPF program.

Assembled here, byte by byte, so that no compiler and no library is needed. The default answer is
EPERM. Source: linux/filter.h, linux/seccomp.h; reliability.md 4.3 and its note 8.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Iterable

from amba_runtime.sandbox import syscalls

LOAD, EQUAL, SET, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
ALLOW, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
NR_AT, ARCH_AT, ARGUMENTS_AT = 0, 4, 16
X32_BIT = 0x40000000
INSTRUCTION = struct.Struct("<HBBI")


def supported(machine: str | None = None) -> bool:
    """Whether we know this machine's system calls."""
    return (machine or platform.machine()) in syscalls.MACHINES


def _op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return INSTRUCTION.pack(code, yes, no, value)


def _argument(index: int) -> bytes:
    """Load the low 32 bits of an argument: both machines are little-endian.

    The kernel itself reads no more of a domain, an ioctl number or an option (CVE-2019-10063 was
    a filter that looked at all 64 bits).
    """
    return _op(LOAD, ARGUMENTS_AT + 8 * index)


def _errno(number: int) -> bytes:
    return _op(RETURN, ERRNO | number)


def _only(index: int, values: Iterable[int], otherwise: int) -> bytes:
    """Allow a call whose argument is one of `values`."""
    body = _argument(index)
    for value in values:
        body += _op(EQUAL, value, 0, 1) + _op(RETURN, ALLOW)
    return body + _errno(otherwise)


def _checks() -> dict[str, bytes]:
    """What is asked of the calls of `syscalls.CHECKED`; each ends in an answer."""
    no_space = _op(SET, syscalls.CLONE_NEW, 0, 1) + _errno(syscalls.EPERM)
    thread = _op(SET, syscalls.CLONE_THREAD, 0, 1) + _op(RETURN, ALLOW)
    return {
        "clone": _argument(0) + no_space + thread + _errno(syscalls.EPERM),
        # its flags lie in memory, where a filter cannot look: glibc then takes `clone`
        "clone3": _errno(syscalls.ENOSYS),
        "socket": _only(0, (syscalls.AF_UNIX,), syscalls.EAFNOSUPPORT),
        "socketpair": _only(0, (syscalls.AF_UNIX,), syscalls.EAFNOSUPPORT),
        "ioctl": _only(1, syscalls.IOCTLS, syscalls.EPERM),
        "prctl": _only(0, syscalls.PRCTLS, syscalls.EPERM),
        "prlimit64": _only(0, (0,), syscalls.EPERM),  # of itself
        "fcntl": _only(1, syscalls.FCNTLS, syscalls.EPERM),
    }


def program(machine: str | None = None) -> bytes:
    """The filter for a machine, as the kernel and `bwrap --seccomp` take it.

    Raises:
        KeyError: we do not know this machine; ask `supported` first.
    """
    machine = machine or platform.machine()
    column = syscalls.MACHINES.index(machine) if machine in syscalls.AUDIT_ARCH else -1
    body = _op(LOAD, ARCH_AT) + _op(EQUAL, syscalls.AUDIT_ARCH[machine], 1, 0)
    body += _op(RETURN, KILL_PROCESS)  # a call by another machine's table, such as int 0x80
    body += _op(LOAD, NR_AT) + _op(AT_LEAST, X32_BIT, 0, 1) + _errno(syscalls.EPERM)
    for number in syscalls.numbers(machine).values():
        body += _op(EQUAL, number, 0, 1) + _op(RETURN, ALLOW)
    for name, check in _checks().items():
        length = len(check) // INSTRUCTION.size
        body += _op(EQUAL, syscalls.CHECKED[name][column], 0, length) + check
    return body + _errno(syscalls.EPERM)

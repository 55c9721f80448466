"""Become another program after the kernel was made to refuse some system calls.

Usage: python launcher.py NAME[,NAME...] PROGRAM ARGUMENT... Stands for machines that lack
something: `userns` (no user namespaces), `landlock`, `seccomp` (no new filters).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

ENOSYS, EPERM, EINVAL = 38, 1, 22
NUMBERS = {
    "x86_64": {"clone": 56, "unshare": 272, "prctl": 157, "seccomp": 317, "clone3": 435},
    "aarch64": {"clone": 220, "unshare": 97, "prctl": 167, "seccomp": 277, "clone3": 435},
}
NEWUSER, SET_SECCOMP = 0x1000_0000, 22


def instruction(code: int, true: int, false: int, value: int) -> bytes:
    """One instruction of classic BPF."""
    return struct.pack("<HBBI", code, true, false, value)


def refuse(number: int, error: int, *, bit: int = 0, equal: int = 0) -> bytes:
    """Answer a call with an error, where its first argument has a bit, or equals a value."""
    code = instruction(0x20, 0, 0, 0)  # load the number
    answer = instruction(0x06, 0, 0, 0x0005_0000 | error)
    if bit or equal:
        test = instruction(0x45, 0, 1, bit) if bit else instruction(0x15, 0, 1, equal)
        answer = instruction(0x20, 0, 0, 16) + test + answer
    return code + instruction(0x15, 0, len(answer) // 8, number) + answer


def without(names: list[str]) -> bytes:
    """The filter for a machine that lacks these."""
    numbers = NUMBERS[platform.machine()]
    code = b""
    if "userns" in names:
        code += refuse(numbers["unshare"], EPERM, bit=NEWUSER)
        code += refuse(numbers["clone"], EPERM, bit=NEWUSER)
        code += refuse(numbers["clone3"], ENOSYS)
    if "landlock" in names:
        code += b"".join(refuse(number, ENOSYS) for number in (444, 445, 446))
    if "seccomp" in names:
        code += refuse(numbers["prctl"], EINVAL, equal=SET_SECCOMP)
        code += refuse(numbers["seccomp"], ENOSYS)
    return code + instruction(0x06, 0, 0, 0x7FFF_0000)


class Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def main(names: list[str], command: list[str]) -> None:
    """Filter, then exec."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = without(names)
    program = Program(len(code) // 8, code)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(SET_SECCOMP, 2, ctypes.byref(program), 0, 0) == 0
    os.execvp(command[0], command)  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1].split(","), sys.argv[2:])

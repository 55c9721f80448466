"""A program made of nothing but system calls, as the bytes of an ELF file. No compiler.

`assemble` writes one straight line of machine code: each call with its arguments, its result
kept, and the result written to a descriptor at once, so that whoever reads knows how far it
came, even when a call ended it. Two machines: x86_64 and aarch64.
Source: System V ABI for both; ELF-64 object file format; Arm Architecture Reference Manual C6.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

BASE = 0x1000_0000
"""Where the file lies in memory: far from zero, and the same every time."""

_HEADERS = 64 + 56
_RESULT = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Result:
    """The value that an earlier call came back with; `step` is that call's place in the list."""

    step: int


@dataclass(frozen=True, slots=True)
class At:
    """A pointer to bytes of the program, which may hold pointers themselves; writable."""

    parts: tuple[bytes | At, ...]

    @classmethod
    def text(cls, text: str | bytes) -> At:
        """A string with a NUL at its end."""
        return cls(((text.encode() if isinstance(text, str) else text) + b"\0",))

    @classmethod
    def room(cls, size: int) -> At:
        """Zeroed bytes to write an answer into."""
        return cls((bytes(size),))


Argument = int | At | Result


@dataclass(frozen=True, slots=True)
class Call:
    """One system call.

    Attributes:
        number: of the call, or of the 32-bit call where `old` is set.
        forks: returns twice; the child ends at once.
        old: made through `int 0x80`, the 32-bit entry of x86.
    """

    number: int
    arguments: tuple[Argument, ...] = ()
    forks: bool = False
    old: bool = False


@dataclass(slots=True)
class _Data:
    """What pointers point to: laid out behind the code, at `base` + offset."""

    base: int
    bytes_: bytearray = field(default_factory=bytearray)
    placed: dict[int, int] = field(default_factory=lambda: dict[int, int]())

    def place(self, at: At) -> int:
        """Its address; one pointer given to two calls is one place that both see."""
        if id(at) in self.placed:
            return self.placed[id(at)]
        parts = [part if isinstance(part, bytes) else self.place(part) for part in at.parts]
        self.bytes_ += bytes(-len(self.bytes_) % 8)
        address = self.base + len(self.bytes_)
        for part in parts:
            self.bytes_ += part if isinstance(part, bytes) else part.to_bytes(8, "little")
        self.placed[id(at)] = address
        return address


class _X86:
    """Registers rdi, rsi, rdx, r10, r8, r9; the number and the result in rax; rbx is spare."""

    machine = 62
    _IMMEDIATE = (b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8", b"\x49\xb9")
    _LOAD = (b"\x48\x8b\x3b", b"\x48\x8b\x33", b"\x48\x8b\x13", b"\x4c\x8b\x13", b"\x4c\x8b\x03",
             b"\x4c\x8b\x0b")  # fmt: skip
    write = 1
    exit = 231

    def set(self, register: int, value: int) -> bytes:
        return self._IMMEDIATE[register] + _word(value)

    def load(self, register: int, address: int) -> bytes:
        return b"\x48\xbb" + _word(address) + self._LOAD[register]

    def call(self, number: int, *, old: bool = False) -> bytes:
        return b"\x48\xb8" + _word(number) + (b"\xcd\x80" if old else b"\x0f\x05")

    def store(self, address: int) -> bytes:
        return b"\x48\xbb" + _word(address) + b"\x48\x89\x03"

    def unless_zero_skip(self, code: bytes) -> bytes:
        return b"\x48\x85\xc0\x75" + bytes([len(code)]) + code


class _Arm:
    """Registers x0 to x5; the number in x8, the result in x0; x9 is spare."""

    machine = 183
    write = 64
    exit = 94

    def set(self, register: int, value: int) -> bytes:
        halves = struct.unpack("<4H", _word(value))
        words = [0xD280_0000 | halves[0] << 5 | register]
        words += [0xF280_0000 | i << 21 | halves[i] << 5 | register for i in (1, 2, 3)]
        return struct.pack("<4I", *words)

    def load(self, register: int, address: int) -> bytes:
        return self.set(9, address) + struct.pack("<I", 0xF940_0000 | 9 << 5 | register)

    def call(self, number: int, *, old: bool = False) -> bytes:
        assert not old, "there is one way in only"
        return self.set(8, number) + struct.pack("<I", 0xD400_0001)

    def store(self, address: int) -> bytes:
        return self.set(9, address) + struct.pack("<I", 0xF900_0000 | 9 << 5)

    def unless_zero_skip(self, code: bytes) -> bytes:
        return struct.pack("<I", 0xB500_0000 | (len(code) // 4 + 1) << 5) + code


def _word(value: int) -> bytes:
    return (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little")


_MACHINES: dict[str, type[_X86 | _Arm]] = {"x86_64": _X86, "aarch64": _Arm}
MACHINES = tuple(_MACHINES)


def assemble(calls: Sequence[Call], *, machine: str, tell: Argument) -> bytes:
    """The file whose program makes these calls in turn and then ends with code 0.

    Args:
        machine: one of MACHINES.
        tell: the descriptor that each result goes to, eight bytes in machine order; a `Result`
            before its step has run is 0.
    """
    cpu = _MACHINES[machine]()
    # the code's length does not hang on the addresses in it: once for the length, once for real
    size = len(_code(cpu, calls, tell, _Data(BASE))[0])
    offset = _HEADERS + size + (-(_HEADERS + size) % 8)
    code, data = _code(cpu, calls, tell, _Data(BASE + offset))
    body = code + bytes(offset - _HEADERS - size) + bytes(data.bytes_)
    total = _HEADERS + len(body)
    identity = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = identity + struct.pack(
        "<HHIQQQIHHHHHH", 2, cpu.machine, 1, BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, BASE, BASE, total, total, 0x1_0000)
    return header + segment + body


def _code(
    cpu: _X86 | _Arm, calls: Sequence[Call], tell: Argument, data: _Data
) -> tuple[bytes, _Data]:
    kept = data.place(At.room(_RESULT.size * len(calls)))

    def put(register: int, argument: Argument) -> bytes:
        if isinstance(argument, Result):
            return cpu.load(register, kept + _RESULT.size * argument.step)
        value = data.place(argument) if isinstance(argument, At) else argument
        return cpu.set(register, value)

    leave = cpu.set(0, 0) + cpu.call(cpu.exit)
    code = b""
    for index, call in enumerate(calls):
        place = kept + _RESULT.size * index
        code += b"".join(put(i, argument) for i, argument in enumerate(call.arguments))
        code += cpu.call(call.number, old=call.old)
        code += cpu.unless_zero_skip(leave) if call.forks else b""
        code += cpu.store(place)
        code += put(0, tell) + cpu.set(1, place) + cpu.set(2, _RESULT.size) + cpu.call(cpu.write)
    return code + leave, data


def results(said: bytes) -> list[int]:
    """What the calls came back with, as far as the program came; negative: -errno."""
    whole = len(said) - len(said) % _RESULT.size
    return [number for (number,) in _RESULT.iter_unpack(said[:whole])]

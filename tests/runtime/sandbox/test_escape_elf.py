"""The program of nothing but system calls: its bytes, and that they run."""

from __future__ import annotations

import platform
import struct
import subprocess
from pathlib import Path

import pytest

from amba_runtime.sandbox.escape_elf import BASE, MACHINES, At, Call, Result, assemble, results

HERE = platform.machine()
NUMBERS = {"x86_64": (1, 39, 57, 62), "aarch64": (64, 172, 220, 129)}
"""write, getpid, a call that forks, kill."""


def _run(tmp_path: Path, calls: list[Call]) -> tuple[bytes, int]:
    if platform.system() != "Linux" or HERE not in MACHINES:
        pytest.skip("there is no such program for this machine")
    program = tmp_path / "program"
    program.write_bytes(assemble(calls, machine=HERE, tell=1))
    program.chmod(0o755)
    done = subprocess.run([program], capture_output=True, timeout=10, check=False)
    return done.stdout, done.returncode


def test_results_come_in_order(tmp_path: Path) -> None:
    """Each call's result is eight bytes; a negative one is an error's number."""
    _, getpid, _, kill = NUMBERS.get(HERE, NUMBERS["x86_64"])
    calls = [Call(getpid), Call(kill, (Result(0), 0)), Call(kill, (Result(0), 4096))]
    said, code = _run(tmp_path, calls)
    pid, allowed, refused = results(said)
    assert pid > 1
    assert (allowed, refused, code) == (0, -22, 0)


def test_pointers_reach_what_they_point_to(tmp_path: Path) -> None:
    """Strings and structs lie in the program's own memory, and may point to one another."""
    write = NUMBERS.get(HERE, NUMBERS["x86_64"])[0]
    writev = 20 if HERE == "x86_64" else 66
    vector = At((At.text("two"), struct.pack("<Q", 3)))
    said, code = _run(tmp_path, [Call(write, (1, At.text("one"), 3)), Call(writev, (1, vector, 1))])
    assert said == b"one" + struct.pack("<q", 3) + b"two" + struct.pack("<q", 3)
    assert code == 0


def test_a_child_ends_at_once(tmp_path: Path) -> None:
    """A call that returns twice tells of itself once."""
    fork = NUMBERS.get(HERE, NUMBERS["x86_64"])[2]
    arguments = () if HERE == "x86_64" else (17, 0, 0, 0, 0)
    said, code = _run(tmp_path, [Call(fork, arguments, forks=True)])
    assert len(results(said)) == 1
    assert results(said)[0] > 1
    assert code == 0


def test_a_call_that_ends_the_program_says_how_far_it_came(tmp_path: Path) -> None:
    """Results are written as they come: the rest of a record is nothing."""
    _, getpid, _, kill = NUMBERS.get(HERE, NUMBERS["x86_64"])
    said, code = _run(tmp_path, [Call(getpid), Call(kill, (Result(0), 9)), Call(getpid)])
    assert len(results(said)) == 1
    assert code == -9
    assert results(said + b"abc") == results(said)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_file_is_what_a_loader_expects(machine: str) -> None:
    """ELF-64, executable, one segment that holds all of it (ELF specification)."""
    program = assemble([Call(1, (1, At.text("x"), -1, Result(0)))], machine=machine, tell=3)
    identity, kind, cpu, _, entry, table = struct.unpack("<16sHHIQQ", program[:40])
    assert identity == b"\x7fELF\x02\x01\x01" + bytes(9)
    assert (kind, cpu) == (2, {"x86_64": 62, "aarch64": 183}[machine])
    assert (entry, table) == (BASE + 120, 64)
    load, flags, offset, address, _, size, memory, _ = struct.unpack("<IIQQQQQQ", program[64:120])
    assert (load, flags, offset, address) == (1, 7, 0, BASE)
    assert size == memory == len(program)


def test_aarch64_words_are_as_in_the_manual() -> None:
    """movz, movk, ldr, str, svc and cbnz (Arm ARM C6): no such machine is at hand.

    The whole was run once in an emulator of that processor.
    """
    program = assemble([Call(220, (Result(0),), forks=True)], machine="aarch64", tell=3)
    words = struct.unpack_from("<40I", program, 120)
    assert words[3] == 0xF2E00009  # movk x9, #0, lsl 48
    assert words[4] == 0xF9400120  # ldr x0, [x9]
    assert words[5] == 0xD2801B88  # movz x8, #220
    assert words[9] == 0xD4000001  # svc #0
    assert words[10] == 0xB5000140  # cbnz x0, over the nine words of exit_group
    assert words[25 - 1] == 0xF9000120  # str x0, [x9]


def test_only_x86_has_an_old_way_in() -> None:
    """`int 0x80` is two bytes in place of two."""
    old = assemble([Call(20, old=True)], machine="x86_64", tell=3)
    new = assemble([Call(20)], machine="x86_64", tell=3)
    assert len(old) == len(new)
    assert b"\xcd\x80" in old
    assert b"\xcd\x80" not in new

"""The files that a program needs to be loaded: the walls let it see these and no others."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

from amba_runtime import limits

_INTERPRETER = 3  # PT_INTERP. Source: elf(5)
_LINE = re.compile(r"\s*(?:\S+ => )?(?P<path>/\S+) \(0x[0-9a-f]+\)")


class NoProgramError(ValueError):
    """The file is no program of this machine's own kind; the message says what it is."""


def interpreter(program: Path) -> str | None:
    """The loader that a program names, None for a static one.

    Raises:
        NoProgramError: it is a script, or no 64-bit little-endian ELF file.
        OSError: it cannot be read.
    """
    with program.open("rb") as file:
        head = file.read(64)
        if head[:6] != b"\x7fELF\x02\x01" or len(head) < 64:
            raise NoProgramError(f"{program} is not a 64-bit ELF program")
        at, size, count = (
            struct.unpack_from("<Q", head, 32)[0],
            *struct.unpack_from("<HH", head, 54),
        )
        file.seek(at)
        table = file.read(size * min(count, limits.ELF_SEGMENTS.value))
        for start in range(0, len(table) - 55, max(size, 56)):
            kind, _flags, offset, _va, _pa, length = struct.unpack_from("<IIQQQQ", table, start)
            if kind == _INTERPRETER:
                file.seek(offset)
                name = file.read(min(length, 4096))
                return name.rstrip(b"\0").decode(errors="replace")
    return None


def libraries(program: Path) -> tuple[str, ...]:
    """Paths that its loader would open, the loader's own first; () for a static program.

    Raises:
        NoProgramError: it is none, or its loader refuses it.
        OSError: it cannot be read, or its loader is not there.
    """
    loader = interpreter(program)
    if loader is None:
        return ()
    try:
        listed = subprocess.run(
            [loader, "--list", str(program)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limits.SANDBOX_TRIAL_S.value,
            check=True,
            stdin=subprocess.DEVNULL,
            env={},
        ).stdout
    except subprocess.SubprocessError as error:
        raise NoProgramError(f"{loader} does not load {program}: {error}") from error
    found = [match["path"] for line in listed.splitlines() if (match := _LINE.match(line))]
    return tuple(dict.fromkeys([loader, *found]))

"""Landlock: what of the file system, TCP and signals a process may still reach (tier 2).

Rules are written here; the child that they bind applies them (`spawn_main`).
Source: linux/landlock.h; the kernel's userspace-api/landlock, ABI 1 to 7.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path

CREATE_RULESET = 444
"""The number of the system call, on every machine. `spawn_main` knows the other two."""
_VERSION = 1
EXECUTE, READ_FILE, READ_DIR = 1 << 0, 1 << 2, 1 << 3
_FILES = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""ABI -> how many rights over files the kernel knows of; they are bits from 0 on."""
_NETWORK_FROM, _NETWORK = 4, 0b11
SCOPED_FROM, _SCOPED = 6, 0b11
"""Bind and connect TCP; abstract Unix sockets and signals."""


def abi() -> int:
    """What this kernel offers; 0 where it offers nothing. Never raises."""
    if sys.platform != "linux":
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)))


def ruleset(
    version: int, *, program: Path, libraries: Sequence[str], folder: Path
) -> dict[str, object]:
    """The order that `spawn_main` takes: all rights handled, a handful given.

    Args:
        version: what `abi` said; at least 1.
    """
    handled = [(1 << _FILES[min(version, max(_FILES))]) - 1]
    if version >= _NETWORK_FROM:
        handled.append(_NETWORK)
    if version >= SCOPED_FROM:
        handled.append(_SCOPED)
    loaded = [[path, READ_FILE | EXECUTE] for path in (str(program), *libraries)]
    return {
        "handled": handled,
        "paths": [*loaded, [str(folder), READ_FILE | READ_DIR], ["/dev/urandom", READ_FILE]],
    }

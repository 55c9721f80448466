"""What a server does to its own process: what it holds in memory is nobody else's to read.

Functions that run as our own user (a node that is not root) are kept off by the walls; this holds
where one of those does not: row F4, threat T1.
"""

from __future__ import annotations

import contextlib
import sys

PR_SET_DUMPABLE = 4


def shut_memory() -> None:
    """No core file, no debugger, no /proc/PID/mem and environ for processes of our user.

    Root may still look. Children get the first of it, and lose the second with their `exec`.
    Never raises: it is a wall behind the others. Source: prctl(2), PR_SET_DUMPABLE; core(5).
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)

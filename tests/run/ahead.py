"""Runs `amba_run` with a wall clock on which a minute ends soon: for tests of what fires by it.

Usage: ahead.py SECONDS PYTHON -m amba_run ARGUMENTS. So many seconds after the start the minute
of that clock is full that is the machine's own now; it goes as fast as that.
"""

from __future__ import annotations

import sys
import time

from amba_run.cli import main
from amba_runtime.clock import SystemClock


def run() -> None:
    """For the process that the tests start."""
    ahead_s = 60 - time.time() % 60 - float(sys.argv[1])
    SystemClock.time_s = lambda self: time.time() + ahead_s  # type: ignore[method-assign]  # what this is for
    sys.argv = ["amba-run", *sys.argv[5:]]
    main()


if __name__ == "__main__":
    run()

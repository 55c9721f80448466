"""A process inside the walls, as its owner knows it: pid, end, and a handle that no other
process can inherit."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable


class Enclosed:
    """What `Sandbox.enclose` started. `close` gives its handle back; it ends nothing.

    Attributes:
        pid: the program's own, in our namespace of processes.
        uid: the user of its own, None where it has ours.
        seen: its walls were seen to stand; False where it had ended before.
    """

    def __init__(
        self,
        pid: int,
        *,
        uid: int | None,
        seen: bool,
        pidfd: int | None,
        end: Callable[[int], None],
    ) -> None:
        self.pid = pid
        self.uid = uid
        self.seen = seen
        self._pidfd = pidfd
        self._end = end

    def kill(self, sig: int = signal.SIGKILL) -> None:
        """Signal it if it still runs: never whoever may have its pid by now."""
        if self._pidfd is None:
            self._end(sig)
            return
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, sig)

    def close(self) -> None:
        """Idempotent."""
        pidfd, self._pidfd = self._pidfd, None
        if pidfd is not None:
            os.close(pidfd)

"""One way out for all that a server says, which never holds up a request.

Everything written goes through one thread with a bounded queue: a terminal that is held, or a
program that reads slowly, costs lines, which are counted and told.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO

from amba_runtime import limits


class Out:
    """Writes text from a thread. `close` waits for what is queued, a moment at most.

    Args:
        lost: the line that tells how many blocks a slow reader missed.
    """

    def __init__(self, stream: TextIO, *, lost: Callable[[int], str]) -> None:
        self._stream = stream
        self._say_lost = lost
        # Everything below is changed only under `_change`.
        self._change = threading.Condition()
        self._waiting: deque[str] = deque()
        self._size = 0
        self._lost = 0
        self._writing = False
        self._ending = False
        self._gone = False
        self._thread = threading.Thread(target=self._run, name="amba-out", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Queue whole lines; they are dropped, and counted, when the reader is too slow."""
        with self._change:
            if self._gone:
                return
            full = (
                len(self._waiting) >= limits.OUTPUT_BLOCKS.value
                or self._size + len(text) > limits.OUTPUT_BYTES.value
            )
            if full:
                self._lost += 1
                return
            self._waiting.append(text)
            self._size += len(text)
            self._change.notify_all()

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._ending:
                    self._change.wait()
                if not self._waiting:
                    return
                text = "".join(self._waiting)
                self._waiting.clear()
                self._size = 0
                self._writing = True
                if self._lost:
                    text += self._say_lost(self._lost)
                    self._lost = 0
            try:
                self._put(text)
            except (OSError, ValueError):
                with self._change:
                    self._gone = True  # nobody reads any more
                    self._waiting.clear()
                    self._change.notify_all()
                return
            with self._change:
                self._writing = False
                self._change.notify_all()

    def _put(self, text: str) -> None:
        try:
            descriptor = self._stream.fileno()
        except OSError:  # no file behind it: a test's own
            self._stream.write(text)
            self._stream.flush()
            return
        # Past the stream's own buffer: a thread that is stuck inside it would hold its lock when
        # the interpreter ends, which then aborts the process.
        data = memoryview(text.encode(errors="backslashreplace"))
        while data:
            data = data[os.write(descriptor, data) :]

    def settled(self) -> bool:
        """Wait a moment for what is queued; whether all of it was written. Blocks."""
        with self._change:
            return self._change.wait_for(
                lambda: self._gone or not (self._waiting or self._writing),
                limits.OUTPUT_CLOSE_S.value,
            ) and not (self._gone or self._lost)

    def close(self) -> None:
        """Idempotent."""
        with self._change:
            self._ending = True
            self._change.notify_all()
        self._thread.join(limits.OUTPUT_CLOSE_S.value)


def neutral(text: str) -> str:
    """Text that cannot steer a terminal: control characters but LF and tab become visible."""
    if text.isprintable():
        return text
    return "".join(ch if ch.isprintable() or ch in "\n\t" else f"\\x{ord(ch):02x}" for ch in text)

"""Whom a function's process may say that a request is from: nobody that we did not tell it of.

What is said of a request comes from the realm that a guest shares with us, under a mark that the
guest may come to know. So a name is believed only where it is that of an invocation in flight, of
one that ended here of late, or of an event that we delivered. Source: rows E17 and E29.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Generator, Mapping

from amba_runtime import entropy, limits
from amba_runtime.underway import EVENT, GUESS, Underway

_PLACES = limits.CALLERS_KNOWN.value


class Callers:
    """The names of one version that are believed.

    Those that ended lie in a table by the hash of their names, which Python keys anew in each
    process: nobody can make up a name that has a place there. Newer ones take the places of
    older ones. The table is made with the first that ends.

    Args:
        underway: invocations in flight, by request id.
    """

    def __init__(self, underway: Mapping[str, Underway] | None = None) -> None:
        self._underway: Mapping[str, Underway] = {} if underway is None else underway
        self._ended: array[int] | None = None
        self._events: set[str] = set()
        self._gone: Callable[[], None] | None = None

    def ended(self, name: str) -> None:
        """An invocation or an event has ended; its guest may still send requests for it."""
        table = self._ended
        if table is None:
            table = self._ended = array("q", bytes(8 * _PLACES))
        key = hash(name)
        table[key % _PLACES] = key

    @contextlib.contextmanager
    def event(self) -> Generator[str]:
        """The name of an event that we deliver, while the block runs; known for a while after."""
        name = EVENT + entropy.short_id()
        self._events.add(name)
        try:
            yield name
        finally:
            self._events.discard(name)
            self.ended(name)

    def believed(self, caller: str | None) -> str | None:
        """The same, GUESS included, or None: nobody that we know."""
        if caller is None:
            return None
        name = caller.removeprefix(GUESS)
        if name in self._underway or name in self._events:
            return caller
        return caller if self._has_ended(name) else None

    def forget(self, name: str) -> None:
        """What was counted for one that ended is kept no longer: from now on it is nobody."""
        if self._ended is not None and self._has_ended(name):
            self._ended[hash(name) % _PLACES] = 0

    def _has_ended(self, name: str) -> bool:
        key = hash(name)
        table = self._ended
        return key != 0 and table is not None and table[key % _PLACES] == key  # 0: a free place

    def on_gone(self, gone: Callable[[], None]) -> None:
        """Have this called whenever the isolate is gone."""
        self._gone = gone

    def gone(self) -> None:
        """The isolate is gone, and what it had left to do: those that ended are forgotten."""
        self._ended = None
        if self._gone is not None:
            self._gone()

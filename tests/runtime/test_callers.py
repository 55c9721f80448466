"""Which names of invocations are believed, when a guest's realm says whose a request is."""

from __future__ import annotations

from typing import cast

import pytest

from amba_runtime import limits
from amba_runtime.callers import Callers
from amba_runtime.underway import EVENT, GUESS, Underway


def test_a_name_is_believed_that_we_know_ourselves() -> None:
    """In flight, and for a while after; surely or as a guess; no other (rows E17, E29)."""
    underway = {"a": cast(Underway, None)}
    callers = Callers(underway)
    assert callers.believed(None) is None
    for name in ("a", GUESS + "a"):
        assert callers.believed(name) == name
    underway.clear()
    assert callers.believed("a") is None
    callers.ended("a")
    for name in ("a", GUESS + "a"):
        assert callers.believed(name) == name
    for name in ("", "b", GUESS, EVENT, EVENT + "1.1", GUESS + "b", "A", "a "):
        assert callers.believed(name) is None


def test_a_name_that_was_made_up_has_no_place() -> None:
    """However many invocations have ended: newer ones take the places of older ones."""
    callers = Callers()
    for n in range(3 * limits.CALLERS_KNOWN.value):
        callers.ended(f"r-{n}")
    assert not any(callers.believed(f"forged-{n}") for n in range(10_000))
    last = 3 * limits.CALLERS_KNOWN.value - 1
    assert callers.believed(f"r-{last}")
    assert sum(callers.believed(f"r-{last - n}") is not None for n in range(100)) > 80


def test_an_event_goes_by_a_name_of_ours() -> None:
    """Known while it is delivered and for a while after, also where that failed (row E17)."""
    callers = Callers()
    names: list[str] = []

    def deliver() -> None:
        with callers.event() as name:
            assert name.startswith(EVENT)
            assert callers.believed(name) == name
            names.append(name)
            raise ConnectionError

    for _ in range(2):
        with pytest.raises(ConnectionError):
            deliver()
    assert len(set(names)) == 2
    assert [callers.believed(name) for name in names] == names


def test_what_is_forgotten_is_nobody() -> None:
    """One whose account had to go, or whose isolate is gone."""
    callers = Callers()
    gone: list[int] = []
    callers.forget("a")
    callers.gone()
    callers.on_gone(lambda: gone.append(1))
    for name in ("a", "b"):
        callers.ended(name)
    callers.forget("a")
    callers.forget("never")
    assert (callers.believed("a"), callers.believed("b")) == (None, "b")
    callers.gone()
    assert gone == [1]
    assert callers.believed("b") is None

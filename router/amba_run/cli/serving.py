"""How a command that serves runs: its process made fit, signals turned into an end, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True, slots=True)
class Life:
    """A server that was made and does not run yet.

    Attributes:
        ready: whether it got as far as to serve.
        run: until the first event is set; the second asks it to end at once.
    """

    ready: Callable[[], bool]
    run: Callable[[asyncio.Event, asyncio.Event], Coroutine[Any, Any, None]]


def serve(make: Callable[[], Life], signals: Mapping[str, int]) -> int:
    """Run a server to its end; returns the exit code: 3 for one that did not start.

    Args:
        make: called on the event loop.
        signals: names of what ends it, and the exit codes after them; a second one is an
            end at once.

    Raises:
        UserError: what was asked for cannot be used.
        InternalError: it failed while it served.
    """
    _calm_collector()
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(_served(make, signals))
    return uvloop.run(_served(make, signals))


async def _served(make: Callable[[], Life], signals: Mapping[str, int]) -> int:
    from amba_runtime.errors import InternalError

    stop, now = asyncio.Event(), asyncio.Event()
    code = 0

    def interrupt(with_code: int) -> None:
        nonlocal code
        if stop.is_set():
            now.set()
            return
        code = with_code
        stop.set()

    loop = asyncio.get_running_loop()
    for name, with_code in signals.items():
        # Windows has no SIGHUP, and its loop takes no handlers: Ctrl-C then raises
        with contextlib.suppress(NotImplementedError, AttributeError):
            loop.add_signal_handler(getattr(signal, name), interrupt, with_code)
    life = make()
    try:
        await life.run(stop, now)
    except InternalError as error:
        if life.ready():
            raise
        click.echo(f"did not start [{error.code}]: {error.message}", err=True)
        return 3
    return code


def _calm_collector() -> None:
    """Spare the data path full collections of a heap that is almost all modules and settings."""
    import gc

    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)

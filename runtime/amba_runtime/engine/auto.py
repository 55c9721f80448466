"""Which engine runs here: one file per implementation behind this chooser."""

from __future__ import annotations

from amba_runtime.engine.base import Engine
from amba_runtime.errors import NotEmulatedError


def choose(name: str, *, workerd: str | None) -> Engine:
    """The engine for `auto` or `workerd`.

    Args:
        workerd: path of another workerd program than the one in the wheel.

    Raises:
        NotEmulatedError: `wasm`, for now.
        UserError: PROGRAM_MISSING.
    """
    if name == "wasm":
        raise NotEmulatedError("the wasm engine", hint="leave out --engine, or use workerd")
    from amba_runtime.engine.workerd.engine import WorkerdEngine, find_workerd

    return WorkerdEngine(program=find_workerd(workerd))

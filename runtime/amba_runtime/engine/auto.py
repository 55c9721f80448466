"""Which engine runs here: one file per implementation behind this chooser."""

from __future__ import annotations

from amba_runtime.engine.base import Engine
from amba_runtime.errors import NotEmulatedError
from amba_runtime.sandbox import STRONGEST


def choose(
    name: str, *, workerd: str | None, most: int = STRONGEST, strict: bool = False
) -> Engine:
    """The engine for `auto` or `workerd`.

    Args:
        workerd: path of another workerd program than the one in the wheel.
        most: the strongest tier of walls to look for; 0 for none.
        strict: where memory can be capped by control groups, nothing starts without.

    Raises:
        NotEmulatedError: `wasm`, for now.
        UserError: PROGRAM_MISSING.
    """
    if name == "wasm":
        raise NotEmulatedError("the wasm engine", hint="leave out --engine, or use workerd")
    from amba_runtime.engine.workerd.engine import WorkerdEngine, find_workerd

    return WorkerdEngine(program=find_workerd(workerd), most=most, strict=strict)

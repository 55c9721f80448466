"""The default engine: one workerd process per function version."""

from __future__ import annotations

from amba_runtime.engine.workerd.engine import WorkerdEngine

__all__ = ["WorkerdEngine"]

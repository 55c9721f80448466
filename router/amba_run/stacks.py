"""Guests' stacks, led back to the user's files."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from amba_router.logs import is_stack
from amba_runtime.engine.base import GUEST_MODULE, HOST_MODULES
from amba_runtime.manifest import Bundle
from amba_runtime.pool import Slot
from amba_runtime.sourcemap import SourceMap


@lru_cache(maxsize=64)
def _parsed(source_map: bytes) -> SourceMap | None:
    try:
        return SourceMap.parse(source_map)
    except ValueError:
        return None


def mapped_stack(slot: Slot | None, stack: str) -> str:
    """The stack in terms of the sources of this version; as it is where there is no map."""
    if slot is None or slot.bundle is None:
        return stack
    return stack_in_sources(slot.bundle, stack)


def mapped_message(slot: Slot | None, message: list[Any]) -> list[Any]:
    """A console line's arguments with the stacks among them mapped: errors logged, not thrown.

    A text of more lines than a stack may have stays whole, as it is.
    """
    return [mapped_stack(slot, m) if is_stack(m) else m for m in message]


def stack_in_sources(bundle: Bundle, stack: str) -> str:
    """The same for a bundle that may not even have started."""
    if not stack or bundle.source_map is None:
        return stack
    source_map = _parsed(bundle.source_map)
    if source_map is None:
        return stack
    return source_map.map_stack(stack, GUEST_MODULE, hidden=HOST_MODULES)

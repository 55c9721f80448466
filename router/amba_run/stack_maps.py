"""Stacks of deployed versions, led back to their sources by maps that lie in the store."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from amba_router.logs import StackMapper
from amba_router.store.control import ControlStore
from amba_runtime import limits
from amba_runtime.places import Places

logger = logging.getLogger("amba.hosting")


class StackMaps:
    """Reads maps when a stack is to be shown; remembers `limits.MAPS_KEPT` of them."""

    def __init__(self, store: ControlStore) -> None:
        self._store = store
        self._places: OrderedDict[tuple[str, str, int], Places] = OrderedDict()

    async def mapper(self, project_id: str, name: str, version: int) -> StackMapper:
        """What leads stacks of a version back to its sources; as they are where it cannot."""
        key = (project_id, name, version)
        places = self._places.get(key)
        if places is None:
            try:
                found = await self._store.find_deployment(project_id, name=name, version=version)
                if found is None:
                    return str
                bundle = await self._store.load_bundle(found.id)
            except Exception as error:  # a stack as it is helps more than none
                logger.warning("%s v%d has no map to show stacks by: %s", name, version, error)
                return str
            places = Places(bundle, f"{name}.js")
            await asyncio.to_thread(places.of, 1, 1)  # reads the map, which may be large
            self._places[key] = places
            if len(self._places) > limits.MAPS_KEPT.value:
                self._places.popitem(last=False)
        return places.stack

"""The daily purge, at 03:00 UTC by the clock. Source: contract E.7 (`retention_days`).

What a server that was not running missed is made up for with its first request: at any time all
is as if every purge had been run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from amba_runtime import limits
from amba_runtime.clock import DAY_MS

if TYPE_CHECKING:
    from amba_router.services.media.service import Assets

logger = logging.getLogger("amba.media")

_AT_MS = 3 * 3_600_000


def last_ms(now_ms: int) -> int:
    """When the purge before now was due: today's or yesterday's 03:00 UTC."""
    return (now_ms - _AT_MS) // DAY_MS * DAY_MS + _AT_MS


def wait_s(now_ms: int) -> float:
    """Until the next is due, or the clock is to be looked at again."""
    return min((last_ms(now_ms) + DAY_MS - now_ms) / 1000, limits.MEDIA_LOOK_S.value)


async def purge(assets: Assets, projects: Callable[[], Iterable[str]], until_ms: int) -> int:
    """All that was due by then, of every project; how many assets went.

    A project whose purge fails is told in the log, and tried again the next time.
    """
    gone = 0
    for project_id in list(projects()):
        try:
            gone += await _purge_one(assets, project_id, until_ms)
        except Exception as error:  # the other projects' turn comes all the same
            logger.warning("media.purge_failed project=%s error=%s", project_id, error)
    return gone


async def _purge_one(assets: Assets, project_id: str, until_ms: int) -> int:
    gone = 0
    for _ in range(limits.MEDIA_ASSETS.value // limits.MEDIA_PURGE.value + 1):
        went = await assets.purge(project_id, until_ms)
        gone += went
        if went < limits.MEDIA_PURGE.value:
            break
    return gone

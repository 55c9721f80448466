"""An event loop whose time a test moves ahead: timers fire without anybody waiting for them."""

from __future__ import annotations

import asyncio


class MovedLoop(asyncio.SelectorEventLoop):
    """Its time goes on as ever, and `ahead_s` further."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s

    async def pass_(self, seconds: float) -> None:
        """So much time, as far as timers know; what they do then is done."""
        self.ahead_s += seconds
        for _ in range(8):
            await asyncio.sleep(0)

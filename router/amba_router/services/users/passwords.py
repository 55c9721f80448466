"""Passwords and their bcrypt hashes: in threads of their own, a few at once, then 503.

A password is hashed with SHA-256 first: bcrypt reads 72 bytes and no NUL. Source: contract E.3.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from base64 import b64encode
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import bcrypt

from amba_router.api import faults
from amba_runtime import limits


class Passwords:
    """Belongs to one event loop. `close` at the end; idempotent."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(limits.PASSWORD_THREADS.value, "amba-passwords")
        self._under_way: Counter[str] = Counter()  # by project; changed by `_work` alone

    async def hash(self, project_id: str, password: str) -> str:
        """What is kept of a password. Raises `Refused` OVERLOADED."""
        return (await self._work(project_id, password, None)).decode()

    async def matches(self, project_id: str, password: str, kept: str | None) -> bool:
        """Whether it is this one; the same work where there is none to compare with.

        Raises:
            Refused: OVERLOADED.
        """
        made = await self._work(project_id, password, kept)
        return kept is not None and hmac.compare_digest(made, kept.encode())

    async def _work(self, project_id: str, password: str, kept: str | None) -> bytes:
        own, all_ = self._under_way[project_id], self._under_way.total()
        most = limits.PASSWORDS_WAITING.value + limits.PASSWORD_THREADS.value
        if own >= limits.PASSWORDS_OF_PROJECT.value or all_ >= most:
            raise faults.OVERLOADED.refuse(
                "too many users sign in at this moment; try again", retry_after_s=1
            )
        self._under_way[project_id] += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, _hash, password, kept)
        finally:
            self._under_way[project_id] -= 1
            if not self._under_way[project_id]:
                del self._under_way[project_id]

    async def close(self) -> None:
        """What waits is not begun; what runs ends within a fraction of a second."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _hash(password: str, kept: str | None) -> bytes:
    """Args: kept: its salt and cost are used; None is a new salt, at the usual cost."""
    short = b64encode(hashlib.sha256(password.encode()).digest())
    salt = kept.encode() if kept is not None else bcrypt.gensalt(limits.PASSWORD_ROUNDS.value)
    return bcrypt.hashpw(short, salt)

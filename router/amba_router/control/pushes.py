"""Secrets on their way into running isolates: pushed until they are there, told honestly.

A set value is in the store first; whatever starts later has it. What this keeps is only what is
not there yet, so it is empty after a restart. Source: contract C.2 (sync status; within 1 s).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from amba_runtime import limits
from amba_runtime.clock import Clock
from amba_runtime.secret import SecretText

if TYPE_CHECKING:
    from amba_router.control.host import Host
    from amba_router.store.control_records import SecretRecord, SyncStatus

logger = logging.getLogger("amba.control")

_Key = tuple[str, str | None, str]
"""(project id, function or None, name)."""


@dataclass(frozen=True, slots=True)
class _State:
    status: SyncStatus
    attempts: int = 0
    error: str | None = None


class Pushes:
    """What is being pushed. `close` once, at the end."""

    def __init__(self, host: Host, clock: Clock) -> None:
        self._host = host
        self._clock = clock
        # what is not synced yet; changed by `_push` and `push`
        self._states: dict[_Key, _State] = {}
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._epochs: dict[str, int] = {}

    def epoch(self, project_id: str) -> int:
        """Another number after each `push` in this project."""
        return self._epochs.get(project_id, 0)

    async def push(
        self, project_id: str, function: str | None, name: str, value: SecretText
    ) -> None:
        """Begin, and wait a little; a push of an older value ends first."""
        key = (project_id, function, name)
        self._epochs[project_id] = self.epoch(project_id) + 1
        before = self._tasks.get(key)
        self._states[key] = _State("pending")
        task = asyncio.create_task(self._push(key, value, before))
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._forget(key, done))
        waiting = asyncio.create_task(self._clock.sleep(limits.SECRET_PUSH_WAIT_S.value))
        try:
            await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    def forget(self, project_id: str, function: str | None, name: str) -> None:
        """The secret is unset: what runs keeps what it has."""
        key = (project_id, function, name)
        self._epochs[project_id] = self.epoch(project_id) + 1
        self._states.pop(key, None)
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    def forget_project(self, project_id: str) -> None:
        """The project is deleted."""
        self._epochs.pop(project_id, None)
        for key in [key for key in self._states if key[0] == project_id]:
            del self._states[key]
        for key in [key for key in self._tasks if key[0] == project_id]:
            self._tasks.pop(key).cancel()

    def shown(self, record: SecretRecord) -> SecretRecord:
        """The record with how far its value has got."""
        state = self._states.get((record.project_id, record.function, record.name))
        if state is None:
            return record
        return replace(
            record, sync_status=state.status, attempts=state.attempts, last_error=state.error
        )

    async def close(self) -> None:
        """Give up what is under way: whatever starts next has the values."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _push(self, key: _Key, value: SecretText, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            before.cancel()
            await asyncio.gather(before, return_exceptions=True)
        project_id, function, name = key
        wait_s = limits.SECRET_PUSH_AGAIN_S.value
        for attempt in itertools.count(1):
            self._states[key] = _State("syncing", attempt, _FAILED if attempt > 1 else None)
            try:
                await self._host.push_secret(project_id, function, name, value)
            except Exception as error:  # of any host: it is tried again, until it is known
                # the error's words could hold anything, the value too
                logger.warning(
                    "secret.push_failed project=%s function=%s name=%s attempt=%d error=%s",
                    *(project_id, function, name, attempt, type(error).__name__),
                )
                self._states[key] = _State("sync_failed_retrying", attempt, _FAILED)
            else:
                return
            await self._clock.sleep(wait_s)
            wait_s = min(wait_s * 2, limits.SECRET_PUSH_SLOWEST_S.value)

    def _forget(self, key: _Key, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
            self._states.pop(key, None)


_FAILED = "a running isolate could not be told; its next start has the value"
